//! How the official library's requests travel: by our own HTTP client, with the deadlines, proxy and certificate
//! authorities of the back-end's settings, to the configured origin only, each once, and with bounded replies.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::error::ErrorKind;
use azure_core::http::headers::{HeaderName, HeaderValue, Headers};
use azure_core::http::{AsyncRawResponse, Body, HttpClient, Method, Request, Url};
use bytes::Bytes;
use keyside_protocol::json::SecretBuffer;
use tokio::sync::{Semaphore, oneshot};

use super::super::BackendError;
use super::super::http::{NoReply, seconds, sensitive};
use super::super::pause::Pause;
use super::error::Place;
use super::login::Login;
use crate::request_id;

/// Microsoft's name for the id that a client gives a request.
const CLIENT_REQUEST_ID: reqwest::header::HeaderName =
    reqwest::header::HeaderName::from_static("x-ms-client-request-id");

/// Far more than Key Vault's largest secret (25 KB, escaped) or page (25 secrets with 15 tags each).
const LARGEST_REPLY: usize = 1024 * 1024;

/// Carries requests to the vault.
pub(super) struct VaultTransport {
    pub(super) client: reqwest::Client,
    /// As it is configured: without TLS only where the settings allow it.
    pub(super) origin: Url,
    pub(super) permits: Arc<Semaphore>,
    pub(super) pause: Arc<Pause>,
    pub(super) login: Arc<Login>,
    pub(super) place: Arc<Place>,
}

impl fmt::Debug for VaultTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("VaultTransport").finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpClient for VaultTransport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let reply = self.carry(request).await.map_err(carried)?;
        Ok(AsyncRawResponse::from_bytes(reply.status.into(), reply.headers, reply.body))
    }
}

impl VaultTransport {
    async fn carry(&self, request: &Request) -> Result<Reply, BackendError> {
        let _permit = self.permits.acquire().await.map_err(|_| self.place.transient("it is closed", "try again"))?;
        self.refuse_in_pause()?;
        let url = at_origin(request.url(), &self.origin).ok_or_else(|| {
            self.place.transient("the library was sent to another host than `vault_url`", "try again")
        })?;
        let token = bearer(request);
        let reply = send(&self.client, request, url, &self.place.backend).await;
        let reply = reply.map_err(|fault| self.place.unreachable(fault))?;
        if let Some(token) = token {
            self.login.judge(token, reply.status != 401).await;
        }
        self.pause.note(reply.status, retry_after(&reply.headers));
        Ok(reply)
    }

    fn refuse_in_pause(&self) -> Result<(), BackendError> {
        match self.pause.seconds_left() {
            Some(seconds) => Err(self.place.transient(
                &format!("Key Vault has asked to be left alone, for {seconds} more seconds"),
                "try again then; raise `[cache] ttl`, or spread the secrets over several vaults",
            )),
            None => Ok(()),
        }
    }
}

/// Carries the requests of one login. The first that fails ends the login at once: the library would try a managed
/// identity again for more than a minute, whatever its settings say.
pub(super) struct LoginTransport {
    client: reqwest::Client,
    backend: String,
    /// Where requests go that are meant for this authority, which the library believes to have TLS.
    reroute: Option<(Url, Url)>,
    failed: Mutex<Option<oneshot::Sender<Failure>>>,
}

/// Why one request of a login failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// No whole reply came.
    Unreachable(NoReply),
    /// A reply that says to try again later, or that nothing is there.
    Status(u16),
}

impl fmt::Debug for LoginTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LoginTransport").finish_non_exhaustive()
    }
}

impl LoginTransport {
    /// Returns a transport for one login, and where it tells of a failure.
    pub(super) fn new(
        client: reqwest::Client,
        backend: String,
        reroute: Option<(Url, Url)>,
    ) -> (Self, oneshot::Receiver<Failure>) {
        let (failed, failure) = oneshot::channel();
        (Self { client, backend, reroute, failed: Mutex::new(Some(failed)) }, failure)
    }
}

#[async_trait]
impl HttpClient for LoginTransport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let url = match &self.reroute {
            Some((from, to)) if is_same_origin(request.url(), from) => moved(request.url(), to),
            _ => request.url().clone(),
        };
        let failure = match send(&self.client, request, url, &self.backend).await {
            Ok(reply) if !matches!(reply.status, 404 | 408 | 410 | 429 | 500..) => {
                return Ok(AsyncRawResponse::from_bytes(reply.status.into(), reply.headers, reply.body));
            }
            Ok(reply) => Failure::Status(reply.status),
            Err(fault) => Failure::Unreachable(fault),
        };
        if let Some(failed) = lock(&self.failed).take() {
            let _ = failed.send(failure);
        }
        // Whoever waits for the login drops it now.
        std::future::pending().await
    }
}

struct Reply {
    status: u16,
    headers: Headers,
    body: Bytes,
}

/// A body that is wiped when it is dropped.
struct Wiped(SecretBuffer);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        // expose: to the library's parser.
        self.0.expose()
    }
}

/// Sends a request of a back-end once and reads the whole reply.
async fn send(client: &reqwest::Client, request: &Request, url: Url, backend: &str) -> Result<Reply, NoReply> {
    let cannot = |what: String| NoReply { what, hint: None };
    let method = match request.method() {
        Method::Get => reqwest::Method::GET,
        Method::Post => reqwest::Method::POST,
        method => return Err(cannot(format!("the library wanted to {method}, and nothing is written here"))),
    };
    let Body::Bytes(body) = request.body() else { return Err(cannot("the library sent a stream".to_owned())) };
    let mut builder = client.request(method, url);
    for (name, value) in request.headers().iter() {
        let value = sensitive(value.as_str()).ok_or_else(|| cannot("a header cannot be sent".to_owned()))?;
        builder = builder.header(name.as_str(), value);
    }
    if let Some(id) = request_id::current() {
        // Key Vault's diagnostic logs show it. The library may have made up one of its own, which this replaces.
        let id = sensitive(&id.to_string()).ok_or_else(|| cannot("a header cannot be sent".to_owned()))?;
        builder = builder.headers([(CLIENT_REQUEST_ID, id)].into_iter().collect());
    }
    let failed = |error: reqwest::Error| NoReply::of(&error, backend);
    let mut response = builder.body(body.clone()).send().await.map_err(failed)?;
    let status = response.status().as_u16();
    let headers = headers_of(response.headers());
    let mut whole = SecretBuffer::with_capacity(0);
    while let Some(piece) = response.chunk().await.map_err(failed)? {
        if whole.len() + piece.len() > LARGEST_REPLY {
            return Err(NoReply::too_long());
        }
        whole.push(&piece);
    }
    Ok(Reply { status, headers, body: Bytes::from_owner(Wiped(whole)) })
}

/// Returns the headers that the library takes; others have nothing to say to it.
fn headers_of(headers: &reqwest::header::HeaderMap) -> Headers {
    let mut taken = Headers::new();
    for (name, value) in headers {
        if let Ok(value) = value.to_str() {
            taken.insert(HeaderName::from(name.as_str().to_owned()), HeaderValue::from(value.to_owned()));
        }
    }
    taken
}

/// Returns `url` as a request to `origin`; `None` where it leads to another host.
fn at_origin(url: &Url, origin: &Url) -> Option<Url> {
    if url.host_str() != origin.host_str() || url.port_or_known_default() != secure_port(origin) {
        return None;
    }
    Some(moved(url, origin))
}

/// Returns `url` with scheme, host and port of `origin`.
fn moved(url: &Url, origin: &Url) -> Url {
    let mut there = origin.clone();
    there.set_path(url.path());
    there.set_query(url.query());
    there
}

fn is_same_origin(url: &Url, other: &Url) -> bool {
    url.scheme() == other.scheme()
        && url.host_str() == other.host_str()
        && url.port_or_known_default() == other.port_or_known_default()
}

/// Returns the port of an origin as the library knows it: it is told `https` even where none is spoken.
fn secure_port(origin: &Url) -> Option<u16> {
    secure(origin).and_then(|origin| origin.port_or_known_default())
}

/// Returns an address with `https`, which the library insists on, and the same port.
pub(super) fn secure(url: &Url) -> Option<Url> {
    let port = url.port_or_known_default();
    let mut url = url.clone();
    if url.scheme() != "https" {
        url.set_scheme("https").ok()?;
        url.set_port(port).ok()?;
    }
    Some(url)
}

fn bearer(request: &Request) -> Option<&str> {
    let name = azure_core::http::headers::AUTHORIZATION;
    request.headers().get_optional_str(&name)?.strip_prefix("Bearer ")
}

fn retry_after(headers: &Headers) -> Option<Duration> {
    seconds(headers.get_optional_str(&HeaderName::from_static("retry-after"))?)
}

/// Wraps an error of ours, so that it passes through the library and comes out again whole.
pub(super) fn carried(error: BackendError) -> azure_core::Error {
    azure_core::Error::new(ErrorKind::Other, error)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_to_the_configured_origin_or_nowhere() {
        let check = |url: &str, origin: &str, expected: Option<&str>| {
            let (url, origin) = (Url::parse(url).expect("a URL"), Url::parse(origin).expect("a URL"));
            assert_eq!(at_origin(&url, &origin).as_ref().map(Url::as_str), expected, "{url} {origin}");
        };
        let vault = "https://v.vault.azure.net";
        check("https://v.vault.azure.net/secrets?a=b", vault, Some("https://v.vault.azure.net/secrets?a=b"));
        check("https://evil.example/secrets?a=b", vault, None);
        check("https://v.vault.azure.net:444/secrets", vault, None);
        check("https://127.0.0.1:99/secrets/a", "http://127.0.0.1:99", Some("http://127.0.0.1:99/secrets/a"));
        check("https://localhost:80/x", "http://localhost", Some("http://localhost/x"));
    }

    #[test]
    fn only_sane_seconds_are_waited_for() {
        let check = |text: &'static str, expected: Option<u64>| {
            let mut headers = Headers::new();
            headers.insert("retry-after", text);
            assert_eq!(retry_after(&headers), expected.map(Duration::from_secs), "{text}");
        };
        check("7", Some(7));
        check(" 0 ", Some(0));
        check("-1", None);
        check("Wed, 21 Oct 2015 07:28:00 GMT", None);
        check("99999999999999999999", None);
    }
}
