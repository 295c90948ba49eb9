//! Secret Manager's three calls that read, over REST: Google's own messages and login, our own client.
//!
//! Google's library has a client as well, but one that follows redirects, takes a proxy from the environment alone, knows
//! no file of certificate authorities, reads replies without bound and keeps what it read.

use google_cloud_secretmanager_v1::model::{AccessSecretVersionResponse, ListSecretsResponse, Secret};
use http::StatusCode;
use keyside_config::settings::{BackendSettings, GcpSettings};
use keyside_protocol::json::SecretBuffer;
use keyside_protocol::value::SecretValue;
use reqwest::{RequestBuilder, Url};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use zeroize::Zeroize as _;

use super::super::BackendError;
use super::super::http::{Http, Reply};
use super::super::pause::Pause;
use super::crc32c;
use super::error::{Asked, Words};
use super::login::Login;

/// Google's own address.
const ENDPOINT: &str = "https://secretmanager.googleapis.com";

/// Secrets in one page of a list. Google allows 25,000; a page of these must also fit into [`MOST_REPLY`].
const PAGE: &str = "1000";

/// Pages of one list: a project with more is not what this is for, and one that never ends is none.
const MOST_PAGES: usize = 250;

/// Bytes of one reply: a page of secrets, each with all the annotations that Google allows.
const MOST_REPLY: usize = 32 * 1024 * 1024;

/// The three calls.
pub(super) struct Api {
    pub(super) words: Words,
    http: Http,
    login: Login,
    /// `https://.../v1/projects/<project>/secrets`.
    secrets: String,
    permits: Semaphore,
    pause: Pause,
}

/// The payload of a secret's latest version.
pub(super) struct Payload {
    /// The version's number.
    pub(super) number: String,
    /// The bytes.
    pub(super) data: SecretValue,
}

impl Api {
    /// Makes no call.
    ///
    /// Errors: `Identity` where a setting cannot work.
    pub(super) fn new(settings: &BackendSettings, gcp: &GcpSettings) -> Result<Self, BackendError> {
        let words = Words { backend: settings.name.clone(), project: gcp.project.clone() };
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:_".contains(&byte);
        if gcp.project.is_empty() || !gcp.project.bytes().all(is_fine) || gcp.project.starts_with('.') {
            return Err(words.identity("`project` cannot be the id of a project", "write the id, or the number"));
        }
        let endpoint = gcp.endpoint.as_deref().unwrap_or(ENDPOINT);
        Ok(Self {
            secrets: format!("{}/v1/projects/{}/secrets", endpoint.trim_end_matches('/'), gcp.project),
            http: Http::new(settings, MOST_REPLY)?,
            login: Login::new(settings, gcp)?,
            permits: Semaphore::new(settings.parallelism.max(1)),
            pause: Pause::default(),
            words,
        })
    }

    /// Returns all secrets that `filter` lets through (an empty one all of them), one page after another.
    pub(super) async fn list(&self, filter: &str) -> Result<Vec<Secret>, BackendError> {
        let mut secrets = Vec::new();
        let mut token = String::new();
        for _ in 0..MOST_PAGES {
            let mut query = vec![("pageSize", PAGE)];
            query.extend(
                [("pageToken", token.as_str()), ("filter", filter)].iter().filter(|(_, value)| !value.is_empty()),
            );
            let page: ListSecretsResponse = self.call("", &query, Asked::Project).await?;
            secrets.extend(page.secrets);
            token = page.next_page_token;
            if token.is_empty() {
                return Ok(secrets);
            }
        }
        Err(self.malformed("a list that does not end"))
    }

    /// Returns a secret without its payload.
    pub(super) async fn get(&self, id: &str) -> Result<Secret, BackendError> {
        let asked = Asked::Secret(id, "secretmanager.secrets.get");
        let secret: Secret = self.call(&format!("/{id}"), &[], asked).await?;
        if id_of(&secret) != Some(id) {
            return Err(self.malformed("another secret than was asked for"));
        }
        Ok(secret)
    }

    /// Returns the payload of the latest version of a secret.
    pub(super) async fn access(&self, id: &str) -> Result<Payload, BackendError> {
        let asked = Asked::Secret(id, "secretmanager.versions.access");
        let reply: AccessSecretVersionResponse =
            self.call(&format!("/{id}/versions/latest:access"), &[], asked).await?;
        let mut pieces = reply.name.rsplit('/');
        let (number, own) = (pieces.next().unwrap_or_default(), pieces.nth(1));
        if own != Some(id) || number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(self.malformed("another secret than was asked for"));
        }
        let number = number.to_owned();
        let Some(payload) = reply.payload else { return Err(self.malformed("no payload")) };
        let data = SecretValue::copy_of(&payload.data);
        if let Ok(mut copy) = payload.data.try_into_mut() {
            copy.zeroize();
        }
        // expose: summed up, nothing kept.
        if payload.data_crc32c.is_some_and(|sum| sum != i64::from(crc32c::of(data.expose()))) {
            return Err(self.malformed("a payload that does not fit its checksum"));
        }
        Ok(Payload { number, data })
    }

    /// Ends waiting calls; further ones fail.
    pub(super) fn close(&self) {
        self.permits.close();
        self.login.forget();
    }

    async fn call<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        asked: Asked<'_>,
    ) -> Result<T, BackendError> {
        let reply = self.send(path, query).await?;
        if reply.status != StatusCode::OK {
            // expose: only whose words they are is looked at; what a payload could be in is a success.
            return Err(self.words.refused(reply.status, reply.body.expose(), asked));
        }
        self.parse(&reply.body)
    }

    fn parse<T: DeserializeOwned>(&self, body: &SecretBuffer) -> Result<T, BackendError> {
        // expose: into Google's message. The parser's own words are dropped: they may quote what they stumbled over.
        serde_json::from_slice(body.expose()).map_err(|_| self.malformed("a reply that is none of its own"))
    }

    /// Sends one request; once more, with a new login, if the login is refused.
    async fn send(&self, path: &str, query: &[(&str, &str)]) -> Result<Reply, BackendError> {
        let _permit = self.permits.acquire().await.map_err(|_| {
            self.words.transient("the back-end is closed: the agent is stopping", "start the agent again")
        })?;
        let url = Url::parse_with_params(&format!("{}{path}", self.secrets), query)
            .map_err(|_| self.words.identity("`endpoint` is no address", "write https://HOST"))?;
        let request = |headers| self.http.client().get(url.clone()).headers(headers);
        self.refuse_in_pause()?;
        let session = self.login.session().await?;
        let reply = self.try_once(request(session.headers())).await?;
        if reply.status != StatusCode::UNAUTHORIZED {
            return Ok(reply);
        }
        let renewed = self.login.renewed(&session).await?;
        if renewed.is_same_as(&session) {
            return Ok(reply);
        }
        self.try_once(request(renewed.headers())).await
    }

    async fn try_once(&self, request: RequestBuilder) -> Result<Reply, BackendError> {
        let reply = self.http.send(request).await?;
        self.pause.note(reply.status.as_u16(), reply.retry_after());
        Ok(reply)
    }

    /// Makes no call while Google wants to be left alone.
    fn refuse_in_pause(&self) -> Result<(), BackendError> {
        match self.pause.seconds_left() {
            Some(seconds) => Err(self.words.transient(
                &format!("Google has asked to be left alone, for {seconds} more seconds"),
                "try again then; look at the project's quota for Secret Manager, or raise `ttl`",
            )),
            None => Ok(()),
        }
    }

    fn malformed(&self, what: &str) -> BackendError {
        self.words.transient(
            &format!("Secret Manager answers with {what}"),
            "does something stand between? look at `endpoint` and `proxy`",
        )
    }
}

/// Returns the id of a secret.
pub(super) fn id_of(secret: &Secret) -> Option<&str> {
    secret.name.rsplit('/').next().filter(|id| !id.is_empty())
}
