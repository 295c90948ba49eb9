//! Logging in: one token for all calls, renewed or got anew in good time, and once when it turns out to be dead.
//!
//! Nobody logs in twice for one reason: whoever finds the token expired or dead waits for the first who did, and takes
//! what came of it, a failure too. A failing login is given a pause that grows, since servers lock out who tries too
//! often.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keyside_config::settings::{BackendSettings, SecretText, VaultLogin, VaultSettings};
use keyside_protocol::json::{SecretBuffer, push_string};
use reqwest::{Method, StatusCode};
use zeroize::Zeroizing;

use super::super::BackendError;
use super::api::Api;
use super::aws_login::AwsLogin;
use super::error::Words;
use super::token::{Granted, Token};
use crate::clock::Tick;

/// The pause after a login that was refused, and the longest that it grows to.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How often a refusal may be held against a token that may not ask about itself.
const DOUBT: Duration = Duration::from_secs(60);

/// How a back-end logs in, and the token it has.
pub(super) struct Login {
    method: How,
    /// The login method's mount, in pieces.
    mount: Vec<String>,
    held: Mutex<Held>,
    gate: tokio::sync::Mutex<Option<Failure>>,
}

#[derive(Default)]
struct Held {
    token: Option<Arc<Token>>,
    generations: u64,
    /// The server lets our tokens not ask about themselves.
    mute: bool,
}

/// A login that failed.
struct Failure {
    at: Tick,
    until: Tick,
    pause: Duration,
    error: BackendError,
}

enum How {
    Token(Arc<SecretText>),
    AppRole {
        role_id: String,
        secret_id: Option<Arc<SecretText>>,
    },
    /// `kubernetes` and `jwt`.
    Jwt {
        role: Option<String>,
        jwt: Arc<SecretText>,
    },
    Aws(Box<AwsLogin>),
}

impl Login {
    /// Makes no call. Errors: `Identity` when this program cannot log in that way.
    pub(super) fn new(settings: &BackendSettings, vault: &VaultSettings, words: &Words) -> Result<Self, BackendError> {
        let (method, mount) = match &vault.login {
            VaultLogin::Token(token) => (How::Token(same(token)), "token"),
            VaultLogin::AppRole { role_id, secret_id } => {
                (How::AppRole { role_id: role_id.clone(), secret_id: secret_id.as_ref().map(same) }, "approle")
            }
            VaultLogin::Kubernetes { role, jwt_file } => {
                (How::Jwt { role: Some(role.clone()), jwt: in_file(jwt_file) }, "kubernetes")
            }
            VaultLogin::Jwt { role, jwt_file } => (How::Jwt { role: role.clone(), jwt: in_file(jwt_file) }, "jwt"),
            VaultLogin::Aws { role, header_value } => {
                let aws = AwsLogin::new(settings, role.clone(), header_value.clone(), words)?;
                (How::Aws(Box::new(aws)), "aws")
            }
        };
        let mount = vault.auth_mount.as_deref().unwrap_or(mount).split('/').map(str::to_owned).collect();
        Ok(Self { method, mount, held: Mutex::default(), gate: tokio::sync::Mutex::default() })
    }

    /// Returns a token that should work.
    ///
    /// Errors: `Identity` when the login is refused or cannot be tried, `Transient` when the server does not answer.
    pub(super) async fn token(&self, api: &Api) -> Result<Arc<Token>, BackendError> {
        if let How::Token(text) = &self.method {
            return self.given(text, &api.words).await;
        }
        let asked = Tick::now();
        let held = self.held().token.clone();
        if let Some(token) = held.filter(|token| !token.is_expired(asked)) {
            if !token.is_due(asked) {
                return Ok(token);
            }
            // Somebody renews it already: it still works meanwhile.
            let Ok(mut gate) = self.gate.try_lock() else { return Ok(token) };
            return Ok(self.renew(api, token, &mut gate).await);
        }
        let mut gate = self.gate.lock().await;
        if let Some(token) = self.held().token.clone().filter(|token| !token.is_expired(Tick::now())) {
            return Ok(token);
        }
        self.log_in(api, asked, &mut gate).await
    }

    /// Decides what a refusal (403) to `token` of a request for `path` that began at `asked` was about: `None` when it was
    /// about the path, another token when it was about the token.
    ///
    /// Errors: `Identity` when the token is dead and there is no other.
    pub(super) async fn after_refusal(
        &self,
        api: &Api,
        token: &Arc<Token>,
        path: &[&str],
        asked: Tick,
    ) -> Result<Option<Arc<Token>>, BackendError> {
        if token.lived_since(asked) {
            return Ok(None);
        }
        let mut gate = self.gate.lock().await;
        if token.lived_since(asked) {
            return Ok(None);
        }
        let current = self.held().token.clone().filter(|current| current.generation != token.generation);
        if let Some(another) = current {
            return Ok(Some(another));
        }
        let now = Tick::now();
        let mute = self.held().mute;
        if mute && token.lived_since(tick_before(now, DOUBT)) {
            return Ok(None);
        }
        if !mute && !token.died_since(asked) {
            // A token that was given to us may lack the policy `default` and so the right to ask about itself, and no login
            // brings another.
            let is_given = matches!(self.method, How::Token(_));
            if self.knows(api, token).await? || is_given && self.shows_mount(api, token, path).await? {
                token.lives(now);
                return Ok(None);
            }
            token.died(now);
        }
        if let How::Token(text) = &self.method {
            // Its file may hold another one by now.
            let current = self.given(text, &api.words).await?;
            if current.generation != token.generation {
                return Ok(Some(current));
            }
            return Err(api.words.identity(
                "its token is expired or revoked, or has no right to anything here, and may not even ask about itself (403)",
                "renew what `token_env`, `token_file` or `token_credential` names; give it the policy `default`",
            ));
        }
        let another = self.log_in(api, asked, &mut gate).await?;
        // A token this fresh is alive: if it may not say so, no later one may.
        if !mute && !self.knows(api, &another).await? {
            self.held().mute = true;
        }
        Ok(Some(another))
    }

    /// Asks the server whether it knows a token.
    async fn knows(&self, api: &Api, token: &Token) -> Result<bool, BackendError> {
        self.is_answered(api, token, &["auth", "token", "lookup-self"]).await
    }

    /// Asks the server for the mount of a path, which it shows to every token that has a right to anything in it.
    async fn shows_mount(&self, api: &Api, token: &Token, path: &[&str]) -> Result<bool, BackendError> {
        let path = [&["sys", "internal", "ui", "mounts"], path].concat();
        self.is_answered(api, token, &path).await
    }

    async fn is_answered(&self, api: &Api, token: &Token, path: &[&str]) -> Result<bool, BackendError> {
        let reply = api.send(api.request(Method::GET, api.url_of(path), Some(token))).await?;
        match api.words.trouble(reply.status) {
            Some(trouble) => Err(trouble),
            None => Ok(reply.status == StatusCode::OK),
        }
    }

    /// Returns the token that was given to us, as its file has it now.
    async fn given(&self, text: &Arc<SecretText>, words: &Words) -> Result<Arc<Token>, BackendError> {
        let held = self.held().token.clone();
        if let Some(token) = held.as_ref().filter(|_| text.file.is_none()) {
            return Ok(Arc::clone(token));
        }
        let current = match current(text).await {
            Ok(current) => current,
            // Perhaps it is being replaced; should the old one be dead, the answer will say so.
            Err(what) => return held.ok_or_else(|| unreadable(words, text, &what)),
        };
        if let Some(token) = held.filter(|token| token.header.as_bytes() == current.as_bytes()) {
            return Ok(token);
        }
        let generation = self.next_generation();
        let token = Token::given(&current, generation, Tick::now())
            .ok_or_else(|| unreadable(words, text, "it holds what no token has"))?;
        Ok(self.hold(token))
    }

    /// Renews a token that still works, or logs in anew; where neither goes it is used on.
    async fn renew(&self, api: &Api, token: Arc<Token>, gate: &mut Option<Failure>) -> Arc<Token> {
        if token.is_renewable() {
            let now = Tick::now();
            let url = api.url_of(&["auth", "token", "renew-self"]);
            let reply = api.send(api.request(Method::POST, url, Some(&token)).body("{}")).await;
            let granted = reply.ok().filter(|reply| reply.status == StatusCode::OK);
            // expose: parsed; the token goes into a header that is marked as sensitive.
            let granted = granted.and_then(|reply| serde_json::from_slice::<Granted>(reply.body.expose()).ok());
            let renewed = granted.and_then(|granted| token.renewed(&granted, self.next_generation(), now));
            if let Some(renewed) = renewed {
                let fades = renewed.is_fading();
                let renewed = self.hold(renewed);
                if !fades {
                    tracing::debug!(backend = api.words.backend, "token renewed");
                    return renewed;
                }
                return self.log_in(api, Tick::now(), gate).await.unwrap_or(renewed);
            }
        }
        match self.log_in(api, Tick::now(), gate).await {
            Ok(another) => another,
            Err(error) => {
                let backend = &api.words.backend;
                tracing::warn!(backend, %error, "the token ends soon and can be neither renewed nor replaced");
                token.rest(Tick::now());
                token
            }
        }
    }

    /// Logs in, unless somebody has failed to since `asked`, or a moment ago.
    async fn log_in(&self, api: &Api, asked: Tick, gate: &mut Option<Failure>) -> Result<Arc<Token>, BackendError> {
        if let Some(failure) = gate.as_ref().filter(|failure| failure.at >= asked || Tick::now() < failure.until) {
            return Err(failure.error.clone());
        }
        match self.try_log_in(api).await {
            Ok(token) => {
                *gate = None;
                tracing::debug!(backend = api.words.backend, "logged in");
                Ok(self.hold(token))
            }
            Err(error) => {
                let now = Tick::now();
                let refused = matches!(error, BackendError::Identity { .. });
                let before = gate.as_ref().map(|failure| failure.pause * 2);
                let pause = if refused {
                    before.unwrap_or(FIRST_PAUSE).clamp(FIRST_PAUSE, LONGEST_PAUSE)
                } else {
                    Duration::ZERO
                };
                *gate = Some(Failure { at: now, until: now.after(pause), pause, error: error.clone() });
                Err(error)
            }
        }
    }

    async fn try_log_in(&self, api: &Api) -> Result<Token, BackendError> {
        let words = &api.words;
        let body = match &self.method {
            How::Token(_) => unreachable!("a given token is no login"),
            How::AppRole { role_id, secret_id } => {
                let secret_id = match secret_id {
                    Some(text) => Some(current(text).await.map_err(|what| unreadable(words, text, &what))?),
                    None => None,
                };
                object(&[("role_id", Some(role_id)), ("secret_id", secret_id.as_deref().map(String::as_str))])
            }
            How::Jwt { role, jwt } => {
                let text = current(jwt).await.map_err(|what| unreadable(words, jwt, &what))?;
                object(&[("role", role.as_deref()), ("jwt", Some(text.trim()))])
            }
            How::Aws(aws) => aws.body(words).await?,
        };
        let path: Vec<&str> =
            ["auth"].into_iter().chain(self.mount.iter().map(String::as_str)).chain(["login"]).collect();
        let now = Tick::now();
        // expose: to the server, as the body of the login.
        let body = reqwest::Body::from(bytes::Bytes::from_owner(body));
        let request = api.request(Method::POST, api.url_of(&path), None);
        let reply = api.send(request.header("Content-Type", "application/json").body(body)).await?;
        if let Some(trouble) = words.trouble(reply.status) {
            return Err(trouble);
        }
        let method = format!("auth/{}", self.mount.join("/"));
        match reply.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                return Err(words.identity(
                    &format!("there is no login method at {method} (404)"),
                    "look at `auth`, `auth_mount` and `namespace`, and whether the method is enabled",
                ));
            }
            status => {
                if let How::Aws(aws) = &self.method {
                    aws.forget();
                }
                return Err(words.identity(
                    &format!("the login at {method} is refused ({})", status.as_u16()),
                    "are the role and what it logs in with right, and not expired, used up or bound to other hosts?",
                ));
            }
        }
        // expose: parsed; the token goes into a header that is marked as sensitive.
        let granted: Granted = serde_json::from_slice(reply.body.expose()).map_err(|_| words.malformed())?;
        Token::granted(&granted, self.next_generation(), now).ok_or_else(|| {
            words.identity(
                &format!("the login at {method} gives no token"),
                "logins in several steps (MFA) are for people: take a role without",
            )
        })
    }

    fn hold(&self, token: Token) -> Arc<Token> {
        let token = Arc::new(token);
        self.held().token = Some(Arc::clone(&token));
        token
    }

    fn next_generation(&self) -> u64 {
        let mut held = self.held();
        held.generations += 1;
        held.generations
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns another hold on the same secret.
fn same(text: &SecretText) -> Arc<SecretText> {
    Arc::new(text.copy())
}

/// A secret that is read from its file whenever it is needed.
fn in_file(path: &Path) -> Arc<SecretText> {
    let origin = format!("`jwt_file` {}", path.display());
    Arc::new(SecretText { text: Zeroizing::default(), origin, file: Some(path.to_owned()) })
}

/// Reads a secret as it is now. Files block, and those of a network may for ever: not on the thread that serves.
async fn current(text: &Arc<SecretText>) -> Result<Zeroizing<String>, String> {
    if text.file.is_none() {
        return text.current();
    }
    let text = Arc::clone(text);
    tokio::task::spawn_blocking(move || text.current()).await.map_err(|_| "it cannot be read".to_owned())?
}

fn unreadable(words: &Words, text: &SecretText, what: &str) -> BackendError {
    words.identity(&format!("{}: {what}", text.origin), "the agent must be able to read it whenever it logs in")
}

/// Returns a JSON object of texts, without those that are `None`.
pub(super) fn object(pairs: &[(&str, Option<&str>)]) -> SecretBuffer {
    let mut out = SecretBuffer::with_capacity(1024);
    out.push(b"{");
    let mut comma: &[u8] = b"";
    for (key, text) in pairs.iter().filter_map(|(key, text)| Some((key, (*text)?))) {
        out.push(comma);
        push_string(&mut out, key);
        out.push(b":");
        push_string(&mut out, text);
        comma = b",";
    }
    out.push(b"}");
    out
}

fn tick_before(now: Tick, span: Duration) -> Tick {
    Tick::at(now.since(Tick::at(Duration::ZERO)).saturating_sub(span))
}
