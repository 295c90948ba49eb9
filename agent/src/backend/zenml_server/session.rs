//! Logging in, and learning what the server is: once for all who need it at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keyside_config::settings::{SecretText, ServerLogin};
use keyside_protocol::json::SecretBuffer;
use reqwest::StatusCode;
use reqwest::header::HeaderValue;
use tokio::sync::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::super::BackendError;
use super::super::http::{encoded, push_encoded, sensitive};
use super::client::{Client, Request};
use super::error::{Doing, is_own_404};
use crate::layout::zenml_rest::{Place, id, info, token};

/// The first version without workspaces.
const FIRST_WITHOUT_WORKSPACES: (u32, u32) = (0, 80);

/// How long a refused login is not tried again, unless its settings have changed: a server takes a second of work for
/// each try, and locks out who tries too often.
const PAUSE: Duration = Duration::from_secs(5);

/// How long a workspace is taken for the one that its name means.
const WORKSPACE_AGE: Duration = Duration::from_secs(60);

/// What lasts from one login to the next.
pub(super) struct Session {
    /// What every request carries; `None` where the server asks for nothing.
    pub(super) authorization: Option<HeaderValue>,
    pub(super) server: Server,
    generation: u64,
    learned_at: Instant,
}

#[cfg(test)]
impl Session {
    /// How many logins there have been with it.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }
}

/// What a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) version: (u32, u32),
    /// Before 0.80.
    pub(super) workspace: Option<Workspace>,
}

/// Where secrets lie before 0.80.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Workspace {
    pub(super) id: String,
    /// The id of the user that we are.
    pub(super) user: String,
}

impl Server {
    /// Tells whether a secret in this place is one that a server of this kind has.
    pub(super) fn has(&self, place: Place) -> bool {
        self.workspace.is_some() == place.in_workspace()
    }
}

/// The one session that is in force.
#[derive(Default)]
pub(super) struct Sessions {
    /// How often a session was begun, or was not.
    attempts: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Session>>,
    generation: u64,
    /// Why the last attempt failed.
    failure: Option<BackendError>,
    refused: Option<Refused>,
}

/// A login that the server has refused.
struct Refused {
    error: BackendError,
    until: Instant,
    /// What was refused; another text is tried at once.
    text: Option<Zeroizing<String>>,
}

impl Client {
    /// Returns the session in force, and begins one where there is none.
    pub(super) async fn session(&self) -> Result<Arc<Session>, BackendError> {
        self.session_unless(None).await
    }

    /// Returns another session than one that was refused.
    pub(super) async fn session_after(&self, refused: &Session) -> Result<Arc<Session>, BackendError> {
        self.session_unless(Some(refused.generation)).await
    }

    /// Ends the session in force: the server is not what we took it for.
    pub(super) async fn forget(&self, session: &Session) {
        let mut state = self.sessions.state.lock().await;
        if state.current.as_ref().is_some_and(|current| current.generation == session.generation) {
            state.current = None;
        }
    }

    /// Notes that a session was refused that had only just begun, and says so.
    pub(super) async fn refused(&self, session: &Session) -> BackendError {
        let error = self.place.login_refused();
        let mut state = self.sessions.state.lock().await;
        if state.current.as_ref().is_some_and(|current| current.generation == session.generation) {
            state.current = None;
            let text = self.credential().ok().flatten();
            state.refused = Some(Refused { error: error.clone(), until: Instant::now() + PAUSE, text });
        }
        error
    }

    async fn session_unless(&self, refused: Option<u64>) -> Result<Arc<Session>, BackendError> {
        let attempts = self.sessions.attempts.load(Ordering::Acquire);
        let mut state = self.sessions.state.lock().await;
        let current = state.current.as_ref().filter(|current| Some(current.generation) != refused).map(Arc::clone);
        if let Some(session) = &current
            && (session.server.workspace.is_none() || session.learned_at.elapsed() < WORKSPACE_AGE)
        {
            return Ok(Arc::clone(session));
        }
        // Who was waiting while somebody else failed has had an answer.
        if self.sessions.attempts.load(Ordering::Acquire) != attempts
            && let Some(error) = &state.failure
        {
            return Err(error.clone());
        }
        let begun = match current {
            Some(session) => match self.learn(session.authorization.clone(), session.generation).await {
                // The login has ended meanwhile.
                Err(BackendError::Identity { .. }) => self.begin(&mut state, true).await,
                learned => learned,
            },
            None => self.begin(&mut state, refused.is_some()).await,
        };
        self.sessions.attempts.fetch_add(1, Ordering::Release);
        match begun {
            Ok(session) => {
                let session = Arc::new(session);
                state.failure = None;
                state.refused = None;
                state.current = Some(Arc::clone(&session));
                Ok(session)
            }
            Err(error) => {
                state.failure = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Logs in. `again` says that a login was refused which had been good.
    async fn begin(&self, state: &mut State, again: bool) -> Result<Session, BackendError> {
        let text = self.credential()?;
        if let Some(refused) = &state.refused
            && refused.until > Instant::now()
            && refused.text == text
        {
            return Err(refused.error.clone());
        }
        let renewable = matches!(self.login, Some(ServerLogin::ApiKey(_) | ServerLogin::Password { .. }));
        let is_same =
            || state.current.as_ref().is_some_and(|session| self.bearer(text.as_ref()) == session.authorization);
        let begun = if again && !renewable && is_same() {
            // Nothing to log in with anew.
            Err(self.place.login_refused())
        } else {
            let generation = state.generation + 1;
            match self.log_in(text.as_ref()).await {
                Ok(authorization) => self.learn(authorization, generation).await,
                Err(error) => Err(error),
            }
        };
        state.current = None;
        match &begun {
            Ok(session) => state.generation = session.generation,
            Err(error @ BackendError::Identity { .. }) => {
                state.refused = Some(Refused { error: error.clone(), until: Instant::now() + PAUSE, text });
            }
            Err(_) => {}
        }
        begun
    }

    /// Returns the key, password or token as it is configured now.
    fn credential(&self) -> Result<Option<Zeroizing<String>>, BackendError> {
        let Some(login) = &self.login else { return Ok(None) };
        let (ServerLogin::ApiKey(text) | ServerLogin::ApiToken(text) | ServerLogin::Password { password: text, .. }) =
            login;
        let unreadable = |what: String| {
            let SecretText { origin, .. } = text;
            self.place.identity(&format!("{origin} cannot be read: {what}"), format!("check {origin}"))
        };
        text.current().map(Some).map_err(unreadable)
    }

    /// Returns what requests carry.
    async fn log_in(&self, text: Option<&Zeroizing<String>>) -> Result<Option<HeaderValue>, BackendError> {
        let mut form = SecretBuffer::with_capacity(256);
        match (&self.login, text) {
            (Some(ServerLogin::ApiKey(_)), Some(key)) => {
                form.push(b"grant_type=zenml-api-key&password=");
                push_encoded(&mut form, key);
            }
            (Some(ServerLogin::Password { username, .. }), Some(password)) => {
                form.push(b"grant_type=password&username=");
                push_encoded(&mut form, username);
                form.push(b"&password=");
                push_encoded(&mut form, password);
            }
            _ => return self.bearer_of(text),
        }
        let reply = self.send(None, &Request::form("/login", form)).await?;
        match reply.status {
            // expose: the token goes into a header that no log shows.
            status if status.is_success() => match token(reply.body.expose()) {
                Ok(token) => self.bearer_of(Some(&token)),
                Err(_) => Err(self.place.malformed()),
            },
            // Keys are tokens, too. A login as such is missing where others log users in.
            StatusCode::BAD_REQUEST
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::UNPROCESSABLE_ENTITY
                if matches!(self.login, Some(ServerLogin::ApiKey(_))) =>
            {
                self.bearer_of(text)
            }
            _ => Err(self.place.refusal(Doing::Login, &reply)),
        }
    }

    fn bearer(&self, token: Option<&Zeroizing<String>>) -> Option<HeaderValue> {
        token.and_then(|token| sensitive(&Zeroizing::new(format!("Bearer {}", token.as_str()))))
    }

    fn bearer_of(&self, token: Option<&Zeroizing<String>>) -> Result<Option<HeaderValue>, BackendError> {
        match (token, self.bearer(token)) {
            (Some(_), None) => {
                let login = self.place.login.as_deref().unwrap_or("the login");
                let hint = format!("check {login}: one line of printable ASCII is expected");
                Err(self.place.identity("the configured token has characters that none has", hint))
            }
            (_, header) => Ok(header),
        }
    }

    /// Asks what the server is, and before 0.80 whose and where the secrets are.
    async fn learn(&self, authorization: Option<HeaderValue>, generation: u64) -> Result<Session, BackendError> {
        // expose: `/info`, users and workspaces hold no values.
        let reply = self.meet(None, "/info").await?;
        let version = info(reply.body.expose()).map_err(|_| self.place.malformed())?.version;
        let workspace = if version < FIRST_WITHOUT_WORKSPACES {
            let reply = self.meet(authorization.as_ref(), "/current-user").await?;
            let user = id(reply.body.expose()).map_err(|_| self.place.malformed())?;
            let reply = self.meet(authorization.as_ref(), &format!("/workspaces/{}", encoded(&self.workspace))).await?;
            Some(Workspace { id: id(reply.body.expose()).map_err(|_| self.place.malformed())?, user })
        } else {
            None
        };
        let server = Server { version, workspace };
        Ok(Session { authorization, server, generation, learned_at: Instant::now() })
    }

    async fn meet(
        &self,
        authorization: Option<&HeaderValue>,
        target: &str,
    ) -> Result<super::super::http::Reply, BackendError> {
        let reply = self.send(authorization, &Request::get(target)).await?;
        if reply.status.is_success() {
            Ok(reply)
        } else if is_own_404(&reply) && target.starts_with("/workspaces/") {
            Err(self.place.identity(
                &format!("the server has no workspace `{}`", self.workspace),
                format!("set `workspace` in [backend.{}] to the name or id of one", self.place.backend),
            ))
        } else {
            Err(self.place.refusal(Doing::Meeting, &reply))
        }
    }
}
