//! One request to the server, with everything that holds for all of them: the login, the number at a time, and the pause
//! that the server has asked for.

use bytes::Bytes;
use keyside_config::settings::{BackendSettings, ServerLogin, ZenmlServerSettings};
use keyside_protocol::json::SecretBuffer;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};
use tokio::sync::Semaphore;

use super::super::BackendError;
use super::super::http::{Http, Reply};
use super::super::pause::Pause;
use super::error::Place;
use super::session::{Session, Sessions};
use crate::request_id;

/// Largest reply: a page of names with much around each, or one secret with every character escaped.
const LARGEST_REPLY: usize = 16 * 1024 * 1024;

/// A server, and how to speak with it.
pub(super) struct Client {
    pub(super) place: Place,
    pub(super) login: Option<ServerLogin>,
    /// Name or id; `default` where none is configured.
    pub(super) workspace: String,
    pub(super) sessions: Sessions,
    http: Http,
    permits: Semaphore,
    pause: Pause,
}

/// What is asked of the server.
pub(super) struct Request {
    method: Method,
    /// From the slash after `/api/v1` on, with the query.
    target: String,
    body: Option<(Bytes, &'static str)>,
}

impl Request {
    pub(super) fn get(target: impl Into<String>) -> Self {
        Self { method: Method::GET, target: target.into(), body: None }
    }

    pub(super) fn delete(target: impl Into<String>) -> Self {
        Self { method: Method::DELETE, target: target.into(), body: None }
    }

    /// A request with a body of JSON, which is wiped when the request is dropped.
    pub(super) fn json(method: Method, target: impl Into<String>, body: SecretBuffer) -> Self {
        Self { method, target: target.into(), body: Some((Bytes::from_owner(body), "application/json")) }
    }

    /// A form; likewise.
    pub(super) fn form(target: impl Into<String>, body: SecretBuffer) -> Self {
        let kind = "application/x-www-form-urlencoded";
        Self { method: Method::POST, target: target.into(), body: Some((Bytes::from_owner(body), kind)) }
    }
}

impl Client {
    pub(super) fn new(
        settings: &BackendSettings,
        server: &ZenmlServerSettings,
        max_value: u64,
    ) -> Result<Self, BackendError> {
        // Each byte of a value may be escaped as six.
        let one_secret = usize::try_from(max_value).unwrap_or(usize::MAX).saturating_mul(8);
        let origin = |login: &ServerLogin| match login {
            ServerLogin::ApiKey(text) | ServerLogin::ApiToken(text) => text.origin.clone(),
            ServerLogin::Password { username, password } => format!("user `{username}` with {}", password.origin),
        };
        Ok(Self {
            http: Http::new(settings, LARGEST_REPLY.max(one_secret))?,
            permits: Semaphore::new(settings.parallelism.max(1)),
            place: Place {
                backend: settings.name.clone(),
                url: server.url.clone(),
                login: server.login.as_ref().map(origin),
            },
            login: server.login.as_ref().map(copy_of),
            workspace: server.workspace.clone().unwrap_or_else(|| "default".to_owned()),
            sessions: Sessions::default(),
            pause: Pause::default(),
        })
    }

    /// Sends a request with the login of `session`; when that is refused, logs in once more and sends it again. Requests
    /// that are refused at the same time share one login.
    ///
    /// Returns whatever the server answers, but for a 401.
    pub(super) async fn ask(&self, session: &Session, request: &Request) -> Result<Reply, BackendError> {
        let reply = self.send(session.authorization.as_ref(), request).await?;
        if reply.status != StatusCode::UNAUTHORIZED {
            return Ok(reply);
        }
        let session = self.session_after(session).await?;
        let reply = self.send(session.authorization.as_ref(), request).await?;
        if reply.status != StatusCode::UNAUTHORIZED {
            return Ok(reply);
        }
        Err(self.refused(&session).await)
    }

    /// Sends a request and returns the reply, whatever its status. Makes no call during a pause that the server has
    /// asked for.
    pub(super) async fn send(
        &self,
        authorization: Option<&HeaderValue>,
        request: &Request,
    ) -> Result<Reply, BackendError> {
        let _permit = self.permits.acquire().await.map_err(|_| self.place.transient("it is closed", "try again"))?;
        self.refuse_in_pause()?;
        let url = format!("{}/api/v1{}", self.place.url, request.target);
        let mut builder = self.http.client().request(request.method.clone(), url).header(ACCEPT, "application/json");
        if let Some(authorization) = authorization {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        if let Some(id) = request_id::current() {
            // ZenML's own client sends one; the server's log shows it.
            builder = builder.header("X-Request-ID", id.to_string());
        }
        if let Some((body, kind)) = &request.body {
            builder = builder.header(CONTENT_TYPE, *kind).body(body.clone());
        }
        let reply = self.http.send(builder).await?;
        self.pause.note(reply.status.as_u16(), reply.retry_after());
        Ok(reply)
    }

    fn refuse_in_pause(&self) -> Result<(), BackendError> {
        match self.pause.seconds_left() {
            Some(seconds) => Err(self.place.transient(
                &format!("the server has asked to be left alone, for {seconds} more seconds"),
                "try again then; raise `[cache] ttl`, or the server's rate limit",
            )),
            None => Ok(()),
        }
    }

    pub(super) fn close(&self) {
        self.permits.close();
    }
}

fn copy_of(login: &ServerLogin) -> ServerLogin {
    match login {
        ServerLogin::ApiKey(text) => ServerLogin::ApiKey(text.copy()),
        ServerLogin::ApiToken(text) => ServerLogin::ApiToken(text.copy()),
        ServerLogin::Password { username, password } => {
            ServerLogin::Password { username: username.clone(), password: password.copy() }
        }
    }
}
