//! How we log in: Google's own library for every kind of credentials, made anew when a login has failed or is refused.
//!
//! The library keeps a token fresh behind the scenes, but gives up for good at the first refusal, and reads its file only
//! once. So a failed login is thrown away, and the next call reads file and variables again.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use google_cloud_auth::build_errors::Error as BuildError;
use google_cloud_auth::credentials::{
    CacheableResource, Credentials, CredentialsProvider, EntityTag, external_account, impersonated, mds,
    service_account, user_account,
};
use google_cloud_auth::errors::CredentialsError;
use google_cloud_gax::retry_policy::NeverRetry;
use http::{Extensions, HeaderMap, HeaderName};
use keyside_config::settings::{BackendSettings, GcpLogin, GcpSettings, SecretText};
use keyside_protocol::value::SecretValue;
use serde_json::Value;

use super::super::{BackendError, http::sensitive};
use super::error::Words;

/// How long a login that does not answer is waited for, over all calls, before it is tried anew. What hangs in the
/// library cannot be ended, so it must not be begun at every call.
const PATIENCE: Duration = Duration::from_secs(30);

/// The only universe whose addresses are known here.
const UNIVERSE: &str = "googleapis.com";

/// The one login in use, and how to make another.
pub(super) struct Login {
    finder: Arc<Finder>,
    impersonate: Option<String>,
    timeout: Duration,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    /// Counts logins, so that a wave of refusals leads to one new login.
    generation: u64,
    current: Option<(Credentials, Instant)>,
}

/// The headers of one login.
pub(super) struct Session {
    generation: u64,
    headers: HeaderMap,
}

impl Session {
    /// Returns the headers that every request bears.
    pub(super) fn headers(&self) -> HeaderMap {
        self.headers.clone()
    }

    /// Tells whether another session says the same.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.headers == other.headers
    }
}

impl Login {
    /// Takes the settings. Reads nothing, unless the settings say how the network is to be used: then it is known whether
    /// this login can do that.
    ///
    /// Errors: `Identity`, when Google's library would not log in over the network that is configured.
    pub(super) fn new(settings: &BackendSettings, gcp: &GcpSettings) -> Result<Self, BackendError> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let source = match &gcp.login {
            GcpLogin::Default => default_source(variable),
            GcpLogin::File(path) => Source::File(path.clone()),
            GcpLogin::Json(text) => Source::Json(text.copy()),
            GcpLogin::Token(text) => Source::Token(text.copy()),
        };
        let words = Words { backend: settings.name.clone(), project: gcp.project.clone() };
        let finder = Finder { words, source, any_universe: gcp.endpoint.is_some() };
        let login = Self {
            finder: Arc::new(finder),
            impersonate: gcp.impersonate.clone(),
            timeout: settings.timeout,
            slot: Mutex::default(),
        };
        login.check_network(settings, |name| variable(name).is_some())?;
        Ok(login)
    }

    /// Google's library knows no setting of ours: it obeys the environment alone.
    fn check_network(&self, settings: &BackendSettings, is_set: impl Fn(&str) -> bool) -> Result<(), BackendError> {
        let any = |names: &[&str]| names.iter().any(|name| is_set(name));
        let network = &settings.network;
        let lost = if network.proxy.is_some() && !any(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]) {
            Some(("proxy", "HTTPS_PROXY"))
        } else if network.ca_file.is_some() && !self.finder.any_universe && !any(&["SSL_CERT_FILE", "SSL_CERT_DIR"]) {
            // With an `endpoint` of its own the file is the endpoint's.
            Some(("ca_file", "SSL_CERT_FILE"))
        } else {
            None
        };
        // What cannot be read yet is reported when it is needed.
        let calls = || self.impersonate.is_some() || self.finder.find().is_ok_and(|found| found.calls());
        match lost {
            Some((setting, variable)) if calls() => Err(self.words().identity(
                &format!("this login goes over the network by Google's library, which does not know `{setting}`"),
                &format!("set {variable} in the agent's environment as well, or use the key of a service account"),
            )),
            _ => Ok(()),
        }
    }

    fn words(&self) -> &Words {
        &self.finder.words
    }

    /// Returns the headers of the login in use, logging in where there is none. Concurrent callers share one login.
    pub(super) async fn session(&self) -> Result<Session, BackendError> {
        let late = || {
            self.words().transient(
                "Google's login does not answer in time",
                "is there a way to it from here? it obeys HTTPS_PROXY and NO_PROXY",
            )
        };
        let current = tokio::time::timeout(self.timeout, self.current()).await.map_err(|_| late())?;
        let (generation, credentials, since) = current?;
        match tokio::time::timeout(self.timeout, credentials.headers(Extensions::new())).await {
            Ok(Ok(CacheableResource::New { data, .. })) => Ok(Session { generation, headers: marked(data) }),
            Ok(Ok(CacheableResource::NotModified)) => {
                unreachable!("only an earlier answer's tag, which was not sent, can be not modified")
            }
            Ok(Err(error)) => {
                self.discard(generation);
                Err(self.words().login_failed(&error))
            }
            Err(_) => {
                if since.elapsed() >= PATIENCE {
                    self.discard(generation);
                }
                Err(late())
            }
        }
    }

    /// Returns a session of a login made after the one that was refused.
    pub(super) async fn renewed(&self, refused: &Session) -> Result<Session, BackendError> {
        self.discard(refused.generation);
        self.session().await
    }

    /// Forgets the login in use.
    pub(super) fn forget(&self) {
        self.slot().current = None;
    }

    fn discard(&self, generation: u64) {
        let mut slot = self.slot();
        if slot.generation == generation {
            slot.current = None;
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn current(&self) -> Result<(u64, Credentials, Instant), BackendError> {
        if let Some(found) = self.slot().found() {
            return Ok(found);
        }
        // Files block, and those of a network may block for ever.
        let finder = Arc::clone(&self.finder);
        let found = tokio::task::spawn_blocking(move || finder.find()).await;
        let found = found.map_err(|_| self.words().transient("the agent is stopping", "start it again"))??;
        let mut slot = self.slot();
        if slot.current.is_none() {
            let credentials = self.log_in(found)?;
            slot.generation += 1;
            slot.current = Some((credentials, Instant::now()));
        }
        Ok(slot.found().expect("made above"))
    }

    /// Makes credentials; the library begins to fetch a token behind the scenes.
    fn log_in(&self, found: Found) -> Result<Credentials, BackendError> {
        let credentials = self.finder.credentials(found)?;
        let Some(account) = &self.impersonate else { return Ok(credentials) };
        impersonated::Builder::from_source_credentials(credentials)
            .with_target_principal(account)
            .with_retry_policy(NeverRetry)
            .build()
            .map_err(|_| {
                let hint = "write its address: NAME@PROJECT.iam.gserviceaccount.com";
                self.words().identity("`impersonate` names no service account", hint)
            })
    }
}

impl Slot {
    fn found(&self) -> Option<(u64, Credentials, Instant)> {
        self.current.as_ref().map(|(credentials, since)| (self.generation, credentials.clone(), *since))
    }
}

/// Where credentials come from.
enum Source {
    /// A file; or, where nothing is there, the metadata server.
    Default(Option<PathBuf>),
    File(PathBuf),
    Json(SecretText),
    Token(SecretText),
}

/// Returns what Application Default Credentials are: the file of the variable, else the one that `gcloud` writes, else the
/// metadata server.
fn default_source(variable: impl Fn(&str) -> Option<OsString>) -> Source {
    match variable("GOOGLE_APPLICATION_CREDENTIALS") {
        Some(path) => Source::File(path.into()),
        None => Source::Default(
            variable("HOME").map(|home| Path::new(&home).join(".config/gcloud/application_default_credentials.json")),
        ),
    }
}

/// Finds the credentials that were configured.
struct Finder {
    words: Words,
    source: Source,
    /// Whether the address of Secret Manager is known whatever universe the credentials are for.
    any_universe: bool,
}

impl Finder {
    /// Reads the credentials anew. Blocks.
    fn find(&self) -> Result<Found, BackendError> {
        match &self.source {
            Source::Token(text) => Ok(Found::Token(self.text(text)?)),
            // expose: taken apart by the parser of JSON.
            Source::Json(text) => self.parse(self.text(text)?.expose(), &text.origin),
            Source::File(path) => self.read(path)?.ok_or_else(|| {
                let what = format!("there is no file of credentials {}", path.display());
                self.words.identity(&what, "make it, or correct `credentials_file` or GOOGLE_APPLICATION_CREDENTIALS")
            }),
            Source::Default(None) => Ok(Found::Metadata),
            Source::Default(Some(path)) => Ok(self.read(path)?.unwrap_or(Found::Metadata)),
        }
    }

    fn text(&self, text: &SecretText) -> Result<SecretValue, BackendError> {
        let wrong = |what: String| self.words.identity(&what, &format!("look at {}", text.origin));
        let current = text.current().map_err(wrong)?;
        Ok(SecretValue::copy_of(current.trim().as_bytes()))
    }

    fn read(&self, path: &Path) -> Result<Option<Found>, BackendError> {
        let shown = path.display();
        let bytes = match std::fs::read(path) {
            Ok(bytes) => SecretValue::new(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let what = format!("the credentials in {shown} cannot be read: {error}");
                return Err(self.words.identity(&what, "may the agent's user read them?"));
            }
        };
        // expose: taken apart by the parser of JSON.
        self.parse(bytes.expose(), &shown.to_string()).map(Some)
    }

    fn parse(&self, text: &[u8], origin: &str) -> Result<Found, BackendError> {
        let json: Value = serde_json::from_slice(text).map_err(|_| self.no_credentials(origin))?;
        if let Some(universe) = json.get("universe_domain").and_then(Value::as_str)
            && universe != UNIVERSE
            && !self.any_universe
        {
            let what = format!("the credentials in {origin} are for another universe than {UNIVERSE}");
            return Err(self.words.identity(&what, "set `endpoint` to its Secret Manager"));
        }
        let kind = match json.get("type").and_then(Value::as_str) {
            Some("service_account") => Kind::ServiceAccount,
            Some("authorized_user") => Kind::User,
            Some("external_account") => Kind::External,
            Some("impersonated_service_account") => Kind::Impersonated,
            _ => return Err(self.no_credentials(origin)),
        };
        Ok(Found::Json { kind, json, origin: origin.to_owned() })
    }

    fn no_credentials(&self, origin: &str) -> BackendError {
        self.words.identity(
            &format!("there are no credentials that can be used in {origin}"),
            "it must be the JSON of a service account, an external account, an authorized user or an impersonation",
        )
    }

    fn credentials(&self, found: Found) -> Result<Credentials, BackendError> {
        // As Google's own chain of defaults does.
        let quota = std::env::var("GOOGLE_CLOUD_QUOTA_PROJECT").ok().filter(|project| !project.is_empty());
        macro_rules! build {
            ($builder:expr) => {
                quota.into_iter().fold($builder, |builder, project| builder.with_quota_project_id(project)).build()
            };
        }
        let (built, origin): (Result<Credentials, BuildError>, String) = match found {
            Found::Token(token) => return Ok(Credentials::from(StaticToken(token))),
            Found::Metadata => {
                (build!(mds::Builder::default().with_retry_policy(NeverRetry)), "the metadata server".to_owned())
            }
            Found::Json { kind, json, origin } => {
                let built = match kind {
                    Kind::ServiceAccount => build!(service_account::Builder::new(json)),
                    Kind::User => build!(user_account::Builder::new(json).with_retry_policy(NeverRetry)),
                    Kind::External => build!(external_account::Builder::new(json).with_retry_policy(NeverRetry)),
                    Kind::Impersonated => build!(impersonated::Builder::new(json).with_retry_policy(NeverRetry)),
                };
                (built, origin)
            }
        };
        // The library's words may quote what they stumbled over.
        built.map_err(|_| self.no_credentials(&origin))
    }
}

/// Credentials as they were found.
enum Found {
    Token(SecretValue),
    Metadata,
    Json { kind: Kind, json: Value, origin: String },
}

#[derive(Clone, Copy)]
enum Kind {
    ServiceAccount,
    User,
    External,
    Impersonated,
}

impl Found {
    /// Tells whether Google's library makes calls over the network with it. A service account signs its tokens itself, and
    /// the metadata server is the host's own.
    fn calls(&self) -> bool {
        matches!(self, Self::Json { kind: Kind::User | Kind::External | Kind::Impersonated, .. })
    }
}

/// A token that cannot be renewed.
struct StaticToken(SecretValue);

impl fmt::Debug for StaticToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("StaticToken")
    }
}

impl CredentialsProvider for StaticToken {
    async fn headers(&self, _: Extensions) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
        // expose: into a header that no log shows.
        let bearer = std::str::from_utf8(self.0.expose()).ok().and_then(|token| sensitive(&format!("Bearer {token}")));
        let bearer = bearer.ok_or_else(|| CredentialsError::from_msg(false, "the token is no text of a header"))?;
        let data = [(http::header::AUTHORIZATION, bearer)].into_iter().collect();
        Ok(CacheableResource::New { entity_tag: EntityTag::new(), data })
    }

    async fn universe_domain(&self) -> Option<String> {
        None
    }
}

/// Marks what no log may show.
fn marked(mut headers: HeaderMap) -> HeaderMap {
    let is_shown = |name: &HeaderName| name == "x-goog-user-project";
    for (name, value) in &mut headers {
        value.set_sensitive(!is_shown(name));
    }
    headers
}
