//! Tokens for the vault: from which identity, when a new one, and what a failed login means.
//!
//! A token is taken until Key Vault has refused it or it is about to expire. However many calls are refused at once, one
//! new login follows; when its token is refused too, none for a while.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, Secret, TokenCredential, TokenRequestOptions};
use azure_core::time::{Duration as Span, OffsetDateTime};
use keyside_config::settings::{AzureLogin, SecretText};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::super::BackendError;
use super::error::Place;
use super::source::{Identities, Source, Trouble};
use super::transport::carried;

/// A token that expires sooner is replaced.
const MARGIN: Span = Span::minutes(5);

/// After a login whose token was refused at once, the next one waits so long.
const REST: Duration = Duration::from_secs(10);

/// A failed login answers whoever asks so soon after it: one wave of readers makes one login.
const SHARED: Duration = Duration::from_secs(1);

/// How long a configured token is believed to live: until it is refused, it is only read again.
const CONFIGURED_LIFETIME: Span = Span::hours(1);

/// What to try where the login service does not answer.
const REACH: &str = "can the login service be reached from here? `authority`, `proxy` and `ca_file` count for it too";

/// The login of one back-end.
pub(super) struct Login {
    place: Arc<Place>,
    settings: AzureLogin,
    identities: Identities,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// The identity of the default chain that has worked; from then on it alone is asked.
    chosen: Option<Source>,
    failed: Option<(Instant, BackendError)>,
}

struct Token {
    token: AccessToken,
    scope: String,
    made: Instant,
    /// Key Vault has taken it at least once.
    worked: bool,
    refused: bool,
}

impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Login").finish_non_exhaustive()
    }
}

#[async_trait]
impl TokenCredential for Login {
    async fn get_token(
        &self,
        scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        self.token(&scopes.join(" ")).await.map_err(carried)
    }
}

impl Login {
    pub(super) fn new(place: Arc<Place>, settings: AzureLogin, identities: Identities) -> Self {
        Self { place, settings, identities, state: Mutex::default() }
    }

    /// Remembers whether Key Vault took a token.
    pub(super) async fn judge(&self, bearer: &str, taken: bool) {
        let mut state = self.state.lock().await;
        if let Some(token) = &mut state.token
            && token.token.token.secret() == bearer
        {
            token.worked |= taken;
            token.refused |= !taken;
        }
    }

    async fn token(&self, scope: &str) -> Result<AccessToken, BackendError> {
        let mut state = self.state.lock().await;
        if let Some(token) = &state.token
            && token.scope == scope
        {
            let lives = token.token.expires_on > OffsetDateTime::now_utc() + MARGIN;
            if lives && !token.refused {
                return Ok(token.token.clone());
            }
            if token.refused && !token.worked && token.made.elapsed() < REST {
                return Err(self.refused());
            }
        }
        if let Some((failed, error)) = &state.failed
            && failed.elapsed() < SHARED
        {
            return Err(error.clone());
        }
        let result = self.log_in(scope, &mut state).await;
        match result {
            Ok(token) => {
                state.failed = None;
                let kept = Token {
                    token: token.clone(),
                    scope: scope.to_owned(),
                    made: Instant::now(),
                    worked: false,
                    refused: false,
                };
                state.token = Some(kept);
                Ok(token)
            }
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    fn refused(&self) -> BackendError {
        let hint = match &self.settings {
            AzureLogin::Token(token) => {
                format!("the token in {} cannot be renewed here: put a new one there", token.origin)
            }
            _ => "is the identity of the vault's own tenant, and does it still exist?".to_owned(),
        };
        self.place.identity("Key Vault does not accept the login's token", hint)
    }

    async fn log_in(&self, scope: &str, state: &mut State) -> Result<AccessToken, BackendError> {
        match &self.settings {
            AzureLogin::Token(text) => self.configured(text, state.token.as_ref()),
            AzureLogin::ServicePrincipal { client_id, tenant_id, client_secret } => {
                let secret = current(client_secret).map_err(|what| self.unreadable(&what))?;
                let source = Source::ServicePrincipal {
                    client: client_id.clone(),
                    tenant: tenant_id.clone(),
                    secret,
                    origin: client_secret.origin.clone(),
                };
                self.identities.token(&source, scope).await.map_err(|trouble| self.meaning(&source, trouble))
            }
            AzureLogin::Default { client_id, tenant_id } => {
                if let Some(source) = &state.chosen {
                    // What the environment says may have changed: its parts are read again.
                    let source = source.renewed(client_id.as_deref(), tenant_id.as_deref());
                    return self
                        .identities
                        .token(&source, scope)
                        .await
                        .map_err(|trouble| self.meaning(&source, trouble));
                }
                let (token, source) = self.first_that_works(scope, client_id.as_deref(), tenant_id.as_deref()).await?;
                state.chosen = Some(source);
                Ok(token)
            }
        }
    }

    /// Tries the identities that this machine may have, as the libraries of other languages do by default.
    async fn first_that_works(
        &self,
        scope: &str,
        client: Option<&str>,
        tenant: Option<&str>,
    ) -> Result<(AccessToken, Source), BackendError> {
        let mut tried = Vec::new();
        for source in Source::of_this_machine(client, tenant) {
            match self.identities.token(&source, scope).await {
                Ok(token) => return Ok((token, source)),
                // Not there: the next. There and refused, or there and in trouble: that is the answer.
                Err(Trouble::Absent(why)) => tried.push(format!("{source}: {why}")),
                // Nobody answers at the metadata address: this is no machine of Azure's, or one without an identity.
                Err(Trouble::Silent(fault)) if matches!(source, Source::Managed { .. }) => {
                    tried.push(format!("{source}: {}", fault.what));
                }
                Err(trouble) => return Err(self.meaning(&source, trouble)),
            }
        }
        Err(self.place.identity(
            &format!("no login to Azure is to be had here ({})", tried.join("; ")),
            "give the machine a managed identity or the pod a workload identity, or set `client_id`, `tenant_id` and \
             `client_secret_file`; on your own machine, run `az login`",
        ))
    }

    fn configured(&self, text: &SecretText, before: Option<&Token>) -> Result<AccessToken, BackendError> {
        let token = current(text).map_err(|what| self.unreadable(&what))?;
        if before.is_some_and(|before| before.refused && before.token.token.secret() == token.secret()) {
            return Err(self.refused());
        }
        Ok(AccessToken::new(token, OffsetDateTime::now_utc() + CONFIGURED_LIFETIME))
    }

    fn unreadable(&self, what: &str) -> BackendError {
        self.place.identity(what, "the agent's user must be able to read it")
    }

    fn meaning(&self, source: &Source, trouble: Trouble) -> BackendError {
        match trouble {
            Trouble::Absent(why) => {
                self.place.identity(&format!("{source}: {why}"), "is the identity still given to this machine?")
            }
            Trouble::Silent(fault) => {
                self.place.transient(&format!("{source}: {}", fault.what), fault.hint.as_deref().unwrap_or(REACH))
            }
            Trouble::Unreachable(why) => self.place.transient(&format!("{source}: {why}"), REACH),
            Trouble::Refused { status, codes } => {
                let codes = if codes.is_empty() {
                    String::new()
                } else {
                    format!(", AADSTS{}", codes.replace(',', ", AADSTS"))
                };
                let what = format!("{source}: the login is refused (HTTP {status}{codes})");
                self.place.identity(&what, advice(&codes, source))
            }
        }
    }
}

/// Returns the advice for the codes of Entra that an operator meets most.
fn advice(codes: &str, source: &Source) -> String {
    let known = [
        ("AADSTS7000215", "the client secret is wrong: its value is due, not its id"),
        ("AADSTS7000222", "the client secret has expired: make a new one"),
        ("AADSTS700016", "`client_id` is no application of this tenant"),
        ("AADSTS90002", "`tenant_id` is no tenant of this authority"),
        ("AADSTS700024", "the pod's token has expired: is its file still renewed?"),
        ("AADSTS70021", "no federated credential of the application fits the pod's service account"),
    ];
    let fits = known.iter().find(|(code, _)| codes.contains(code));
    let setting = source.setting().map(|setting| format!(" ({setting})")).unwrap_or_default();
    match fits {
        Some((_, advice)) => format!("{advice}{setting}"),
        None => format!("look at the identity's ids and secret{setting}, and at Azure's sign-in log"),
    }
}

fn current(text: &SecretText) -> Result<Secret, String> {
    // Handed to the library, which shows it to nobody.
    text.current().map(|text| Secret::new(text.as_str().to_owned()))
}

/// Returns where a pod's token lies, if it has one.
pub(super) fn federated_token_file() -> Option<PathBuf> {
    variable("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from)
}

/// Returns a variable of Azure's own, if it says something.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
