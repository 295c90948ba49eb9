//! Requests to Vault: the token in front, the answer's class behind.

use keyside_config::settings::{BackendSettings, VaultSettings};
use keyside_protocol::json::SecretBuffer;
use reqwest::header::HeaderValue;
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use tokio::sync::Semaphore;

use super::super::BackendError;
use super::super::http::{Http, Reply};
use super::super::pause::Pause;
use super::error::{Missing, Words, missing};
use super::login::Login;
use super::token::Token;
use crate::clock::Tick;

/// Largest reply: an entry of Vault's own storage is far smaller, but a folder's list may be long.
const MAX_REPLY: usize = 32 << 20;

/// The server of one back-end.
pub(super) struct Api {
    http: Http,
    url: Url,
    namespace: Option<HeaderValue>,
    permits: Semaphore,
    pause: Pause,
    pub(super) words: Words,
    login: Login,
}

/// What an answer is about.
pub(super) enum Answer {
    /// The body of a success.
    Found(SecretBuffer),
    /// A 404.
    Missing(Missing),
    /// This path is refused to a token that is alive.
    Denied,
    /// The server takes the request for wrong, which here means the path.
    Unacceptable,
}

impl Api {
    /// Makes no call. Errors: `Identity` when the settings cannot work.
    pub(super) fn new(settings: &BackendSettings, vault: &VaultSettings, max_value: u64) -> Result<Self, BackendError> {
        let words = Words { backend: settings.name.clone() };
        // An escape of JSON has up to six bytes for one.
        let max_body = usize::try_from(max_value).unwrap_or(usize::MAX).saturating_mul(8).max(MAX_REPLY);
        let http = Http::new(settings, max_body)?;
        let wrong = |what: &str| words.identity(what, &format!("look at [backend.{}]", settings.name));
        let url = Url::parse(&vault.url)
            .ok()
            .filter(|url| !url.cannot_be_a_base())
            .ok_or_else(|| wrong("its `url` is no address"))?;
        let namespace = vault.namespace.as_deref().map(|namespace| namespace.trim_matches('/'));
        let namespace = namespace
            .filter(|namespace| !namespace.is_empty())
            .map(|namespace| HeaderValue::from_str(namespace).map_err(|_| wrong("its `namespace` is no name of one")))
            .transpose()?;
        let login = Login::new(settings, vault, &words)?;
        let permits = Semaphore::new(settings.parallelism.max(1));
        Ok(Self { http, url, namespace, permits, pause: Pause::default(), words, login })
    }

    /// Reads what lies at a path.
    ///
    /// Errors: `Transient` when no answer came that tells anything, `Identity` when our login fails.
    pub(super) async fn read(&self, path: &[&str]) -> Result<Answer, BackendError> {
        self.ask(path, None).await
    }

    /// Lists the folder at a path.
    ///
    /// Errors: as [`read`](Self::read).
    pub(super) async fn list(&self, path: &[&str]) -> Result<Answer, BackendError> {
        // The same as the method LIST, which not every proxy lets pass.
        self.ask(path, Some("list=true")).await
    }

    async fn ask(&self, path: &[&str], query: Option<&str>) -> Result<Answer, BackendError> {
        let mut url = self.url_of(path);
        url.set_query(query);
        let asked = Tick::now();
        let mut token = self.login.token(self).await?;
        loop {
            let reply = self.send(self.request(Method::GET, url.clone(), Some(&token))).await?;
            if let Some(trouble) = self.words.trouble(reply.status) {
                return Err(trouble);
            }
            return match reply.status {
                StatusCode::OK => Ok(Answer::Found(reply.body)),
                StatusCode::NOT_FOUND => Ok(Answer::Missing(missing(&reply))),
                StatusCode::BAD_REQUEST => Ok(Answer::Unacceptable),
                StatusCode::FORBIDDEN => match self.login.after_refusal(self, &token, path, asked).await? {
                    // The refusal was the dead token's.
                    Some(another) => {
                        token = another;
                        continue;
                    }
                    None => Ok(Answer::Denied),
                },
                status => Err(self.words.identity(
                    &format!("it refuses the request ({})", status.as_u16()),
                    "is `url` Vault's own address, and does a proxy in between let its requests pass?",
                )),
            };
        }
    }

    /// Sends one request within the back-end's parallelism and reads the whole reply, whatever its status. Makes no call
    /// during a pause that the server has asked for.
    ///
    /// Errors: `Transient`, when no whole reply came back.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Reply, BackendError> {
        let closed = |_| self.words.transient("it is closed: the agent is stopping", None);
        let _permit = self.permits.acquire().await.map_err(closed)?;
        self.refuse_in_pause()?;
        let reply = self.http.send(request).await?;
        self.pause.note(reply.status.as_u16(), reply.retry_after());
        Ok(reply)
    }

    fn refuse_in_pause(&self) -> Result<(), BackendError> {
        match self.pause.seconds_left() {
            Some(seconds) => Err(self.words.transient(
                &format!("it has asked to be left alone, for {seconds} more seconds"),
                Some("try again then; raise `[cache] ttl`, or Vault's rate limit quota"),
            )),
            None => Ok(()),
        }
    }

    /// Makes a request with the headers that every one has.
    pub(super) fn request(&self, method: Method, url: Url, token: Option<&Token>) -> RequestBuilder {
        // Agents and proxies of Vault take it as the sign that no browser was led here.
        let mut request = self.http.client().request(method, url).header("X-Vault-Request", "true");
        if let Some(namespace) = &self.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        match token {
            Some(token) => request.header("X-Vault-Token", &token.header),
            None => request,
        }
    }

    /// Returns the address of a path; every piece is encoded.
    pub(super) fn url_of(&self, path: &[&str]) -> Url {
        let mut url = self.url.clone();
        url.path_segments_mut().expect("it can be a base: checked in `new`").pop_if_empty().push("v1").extend(path);
        url
    }

    /// Lets no further request begin.
    pub(super) fn close(&self) {
        self.permits.close();
    }
}
