//! HTTP to a back-end: one client each, with the deadlines, bounds, proxy and certificate authorities of its settings.
//!
//! No redirect is followed, nothing is retried, no compression is asked for, and a body that holds values is read into
//! memory that is wiped. What failed is said without the URL, which may hold a secret's name.

use std::error::Error as _;
use std::time::Duration;

use keyside_config::settings::BackendSettings;
use keyside_protocol::json::SecretBuffer;
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, NoProxy, Proxy, RequestBuilder, StatusCode};

use super::{BackendError, tls_fault};

/// How long a connection may take, within the time of the whole call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(60);

/// The client of one back-end.
pub struct Http {
    client: Client,
    backend: String,
    max_body: usize,
}

/// A whole reply.
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, at most as long as the client allows.
    pub body: SecretBuffer,
}

impl Reply {
    /// Returns how many seconds the server asks to be left alone; garbage, dates included, counts as nothing.
    pub fn retry_after(&self) -> Option<Duration> {
        seconds(self.headers.get(RETRY_AFTER)?.to_str().ok()?)
    }
}

impl Http {
    /// Makes the client of a back-end; no body of more than `max_body` bytes is read. Makes no call.
    ///
    /// Errors: `Identity` where the proxy's address or the file of certificate authorities cannot be used.
    pub fn new(settings: &BackendSettings, max_body: usize) -> Result<Self, BackendError> {
        let client = builder(settings)?.build().map_err(|error| wrong(settings, &describe(&error)))?;
        Ok(Self { client, backend: settings.name.clone(), max_body })
    }

    /// Returns the client, to make requests of.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Sends a request and reads the whole reply, whatever its status.
    ///
    /// Errors: `Transient`, when no whole reply came back or its body is too long.
    pub async fn send(&self, request: RequestBuilder) -> Result<Reply, BackendError> {
        let failed = |error: reqwest::Error| self.transient(NoReply::of(&error, &self.backend));
        let mut response = request.send().await.map_err(failed)?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let announced = response.content_length().and_then(|length| usize::try_from(length).ok());
        let too_long = || self.transient(NoReply::too_long());
        if announced.is_some_and(|length| length > self.max_body) {
            return Err(too_long());
        }
        let mut body = SecretBuffer::with_capacity(announced.unwrap_or_default());
        while let Some(piece) = response.chunk().await.map_err(failed)? {
            if body.len() + piece.len() > self.max_body {
                return Err(too_long());
            }
            body.push(&piece);
        }
        Ok(Reply { status, headers, body })
    }

    fn transient(&self, fault: NoReply) -> BackendError {
        let hint = fault.hint.unwrap_or_else(|| {
            "is its address right, and is it up? `keyside doctor` shows how it is reached".to_owned()
        });
        BackendError::Transient { what: format!("back-end `{}`: {}", self.backend, fault.what), hint: Some(hint) }
    }
}

/// Why no whole reply came, in words without the URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoReply {
    /// What went wrong.
    pub what: String,
    /// What to try, where the fault itself tells.
    pub hint: Option<String>,
}

impl NoReply {
    /// Says what went wrong with a call to the server of a back-end.
    pub fn of(error: &reqwest::Error, backend: &str) -> Self {
        let place = format!("[backend.{backend}]");
        Self::with(error, &format!("`ca_file` in {place}"), &format!("the address in {place}"))
    }

    /// The same of a server that the settings do not reach: `trust` names what makes an authority known for it, `address`
    /// where its name is written.
    pub fn with(error: &reqwest::Error, trust: &str, address: &str) -> Self {
        let hint = match tls_fault::of(error) {
            Some(fault) => Some(tls_fault::advice(fault, trust, address)),
            None if error.is_dns() => {
                Some(format!("look at {address}: the name service of this machine does not know its host"))
            }
            None => None,
        };
        Self { what: describe(error), hint }
    }

    /// A reply over what this program reads.
    pub fn too_long() -> Self {
        Self { what: "its reply is larger than any that is expected".to_owned(), hint: None }
    }
}

/// Returns a client to be built, with everything that a back-end's settings say about the network.
///
/// Errors: as [`Http::new`].
pub fn builder(settings: &BackendSettings) -> Result<reqwest::ClientBuilder, BackendError> {
    let network = &settings.network;
    let mut builder = Client::builder()
        .user_agent(concat!("keyside/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT.min(settings.timeout))
        .timeout(settings.timeout)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(settings.parallelism)
        .https_only(false)
        // Only what is configured here: the variables of the environment may be meant for others.
        .no_proxy();
    if let Some(url) = &network.proxy {
        let proxy = Proxy::all(url.as_str()).map_err(|_| wrong(settings, "its `proxy` is no address of a proxy"))?;
        let except = network.no_proxy.as_deref().and_then(NoProxy::from_string);
        builder = builder.proxy(proxy.no_proxy(except));
    }
    if let Some(file) = &network.ca_file {
        let shown = file.display();
        let bytes = std::fs::read(file).map_err(|error| wrong(settings, &format!("`ca_file` {shown}: {error}")))?;
        builder = builder.tls_certs_merge(certificates(&bytes, &format!("`ca_file` {shown}"), settings)?);
    }
    if let Some(text) = &network.ca_text {
        let what = "the text of its certificate authorities";
        builder = builder.tls_certs_merge(certificates(text.as_bytes(), what, settings)?);
    }
    Ok(builder)
}

fn certificates(pem: &[u8], what: &str, settings: &BackendSettings) -> Result<Vec<Certificate>, BackendError> {
    Certificate::from_pem_bundle(pem)
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| wrong(settings, &format!("{what} holds no certificate as PEM")))
}

/// Marks a header's value as one that no log shows; `None` where the text cannot be one.
pub fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn wrong(settings: &BackendSettings, what: &str) -> BackendError {
    BackendError::Identity {
        what: format!("back-end `{}`: {what}", settings.name),
        hint: Some(format!("look at [backend.{}] in the agent's configuration", settings.name)),
    }
}

/// Says in words what went wrong, without the URL.
pub fn describe(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    if let Some(fault) = tls_fault::of(error) {
        return format!("no connection over TLS: {}", tls_fault::in_words(fault));
    }
    // The outermost text has the URL; the innermost is the system's or the TLS library's own.
    let cause = if error.source().is_some() { innermost.to_string() } else { String::new() };
    let what = if error.is_timeout() {
        return "it did not answer in time".to_owned();
    } else if error.is_connect() {
        "no connection"
    } else if error.is_body() || error.is_decode() {
        "its reply broke off"
    } else {
        "the call failed"
    };
    if cause.is_empty() { what.to_owned() } else { format!("{what}: {cause}") }
}

/// Appends `text` percent-encoded, as a query and a form take it.
pub fn push_encoded(out: &mut SecretBuffer, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(&[byte]);
        } else {
            out.push(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

/// Returns `text` percent-encoded, as a path and a query take it; for texts that are no secrets.
pub fn encoded(text: &str) -> String {
    let mut out = SecretBuffer::with_capacity(text.len() * 3);
    push_encoded(&mut out, text);
    // expose: a name.
    String::from_utf8_lossy(out.expose()).into_owned()
}

/// Reads how many seconds a `Retry-After` asks for; garbage, dates included, counts as nothing.
pub(super) fn seconds(retry_after: &str) -> Option<Duration> {
    retry_after.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sane_seconds_are_waited_for() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(seconds(text), expected.map(Duration::from_secs), "{text}");
        };
        check("7", Some(7));
        check(" 0 ", Some(0));
        check("-1", None);
        check("Wed, 21 Oct 2015 07:28:00 GMT", None);
        check("99999999999999999999", None);
    }
    #[test]
    fn what_is_no_plain_character_is_encoded_in_a_url() {
        assert_eq!(encoded("a-b_c.d~E9"), "a-b_c.d~E9");
        assert_eq!(encoded("a/b?c&d=e%f g+ü"), "a%2Fb%3Fc%26d%3De%25f%20g%2B%C3%BC");
    }
}
