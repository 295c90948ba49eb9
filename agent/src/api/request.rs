//! What comes in: strict heads, paths decoded once, known query parameters, bounded bodies.

use std::borrow::Cow;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HeaderMap};
use http::{Method, Request, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use keyside_protocol::code::Code;
use keyside_protocol::json::SecretBuffer;
use keyside_protocol::name::{check_key, check_name};
use serde::de::DeserializeOwned;

use super::respond::ApiError;
use crate::backend::Scopes;
use crate::pace::Pace;
use crate::resolver::{Resolver, Selection};

/// How long a body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(5);

/// Refuses requests that a browser, a proxy or a smuggler would send. The connection is closed, so nothing that follows
/// on it is executed.
pub(super) fn refuse_what_no_client_of_ours_sends<B>(request: &Request<B>) -> Result<(), ApiError> {
    refuse_strangers(request, is_our_host, "`localhost` or `keyside`")
}

/// Tells whether a client of the socket may call it that.
pub(super) fn is_our_host(host: &[u8]) -> bool {
    host.eq_ignore_ascii_case(b"localhost") || host.eq_ignore_ascii_case(b"keyside")
}

/// The same for a listener that goes by the Hosts that `is_ours` accepts, which `hosts_text` names.
pub(super) fn refuse_strangers<B>(
    request: &Request<B>,
    is_ours: impl Fn(&[u8]) -> bool,
    hosts_text: &str,
) -> Result<(), ApiError> {
    let refuse = |code, what: &str| Err(ApiError::new(code, what).close());
    let uri = request.uri();
    if uri.scheme().is_some() || uri.authority().is_some() || !uri.path().starts_with('/') {
        return refuse(Code::InvalidRequest, "the request target must be a path");
    }
    if request.version() != Version::HTTP_11 {
        return refuse(Code::InvalidRequest, "only HTTP/1.1 is spoken here");
    }
    let mut hosts = 0;
    for (name, value) in request.headers() {
        match name.as_str() {
            "host" => {
                hosts += 1;
                if !is_ours(value.as_bytes()) {
                    return refuse(Code::InvalidRequest, &format!("the Host header must be {hosts_text}"));
                }
            }
            "transfer-encoding" => {
                return if value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    refuse(Code::LengthRequired, "a request body needs a Content-Length")
                } else {
                    refuse(Code::InvalidRequest, "this Transfer-Encoding is not accepted")
                };
            }
            "upgrade" => return refuse(Code::InvalidRequest, "there is no other protocol to change to"),
            "expect" if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
                return refuse(Code::InvalidRequest, "the only expectation that can be met is `100-continue`");
            }
            "origin" | "forwarded" | "via" => {
                return refuse(Code::InvalidRequest, "requests from browsers and proxies are refused");
            }
            other
                if other.starts_with("sec-fetch-")
                    || other.starts_with("x-forwarded-")
                    || other.starts_with("proxy-") =>
            {
                return refuse(Code::InvalidRequest, "requests from browsers and proxies are refused");
            }
            _ => {}
        }
    }
    if hosts != 1 {
        return refuse(Code::InvalidRequest, &format!("exactly one Host header is needed, {hosts_text}"));
    }
    let has_body = request.headers().get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    if has_body && matches!(*request.method(), Method::GET | Method::HEAD | Method::DELETE) {
        return refuse(Code::InvalidRequest, "this method takes no body");
    }
    Ok(())
}

/// Decodes one path segment or query value: percent-encoding once, then UTF-8.
pub(super) fn decode(text: &str) -> Result<Cow<'_, str>, ApiError> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let wrong = || ApiError::new(Code::InvalidRequest, "the request target is not percent-encoded UTF-8");
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let (high, low) = digit(bytes.next()).zip(digit(bytes.next())).ok_or_else(wrong)?;
        decoded.push((high * 16 + low) as u8);
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| wrong())
}

/// Decodes a secret's name from a path segment.
pub(super) fn name(segment: &str) -> Result<Cow<'_, str>, ApiError> {
    let name = decode(segment)?;
    valid_name(&name)?;
    Ok(name)
}

/// Refuses a text that can be no secret's name.
pub(super) fn valid_name(name: &str) -> Result<(), ApiError> {
    check_name(name).map_err(|error| ApiError::new(Code::InvalidRequest, format!("not a secret's name: {error}")))
}

/// Refuses a text that can be no key.
pub(super) fn valid_key(key: &str) -> Result<(), ApiError> {
    check_key(key).map_err(|error| ApiError::new(Code::InvalidRequest, format!("not a key: {error}")))
}

/// The query parameters of one request, each known and at most once.
pub(super) struct Query<'a>(Vec<(&'a str, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Parses `query` (without the `?`); a parameter outside `known` is an error.
    pub(super) fn parse(query: Option<&'a str>, known: &[&str]) -> Result<Self, ApiError> {
        let mut parameters: Vec<(&str, Cow<'_, str>)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !known.contains(&name) {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(ApiError::new(Code::InvalidRequest, "unknown query parameter")
                    .hint(format!("this route knows: {known}")));
            }
            if parameters.iter().any(|(seen, _)| *seen == name) {
                return Err(ApiError::new(Code::InvalidRequest, format!("query parameter `{name}` stands twice")));
            }
            parameters.push((name, decode(value)?));
        }
        Ok(Self(parameters))
    }

    /// Returns the value of `name`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(seen, _)| *seen == name).map(|(_, value)| value.as_ref())
    }

    /// Reads `?backend=` and `?scope=`.
    pub(super) fn selection(&self, resolver: &Resolver) -> Result<Selection, ApiError> {
        let backend = match self.get("backend") {
            None => None,
            Some(name) => Some(resolver.source_index(name).ok_or_else(|| {
                let names: Vec<_> = resolver.sources().iter().map(|source| source.name.as_str()).collect();
                ApiError::new(Code::InvalidRequest, format!("no back-end is called `{name}`"))
                    .hint(format!("configured are: {}", names.join(", ")))
            })?),
        };
        let scopes = match self.get("scope") {
            None => None,
            Some("private" | "user") => Some(Scopes::PrivateOnly),
            Some("public" | "workspace") => Some(Scopes::PublicOnly),
            Some(_) => {
                return Err(ApiError::new(Code::InvalidRequest, "`scope` is one of private, public, user, workspace"));
            }
        };
        Ok(Selection { backend, scopes })
    }
}

/// Reads the whole body, at most `limit` bytes of it, into a buffer that is wiped.
pub(super) async fn body(request: Request<Incoming>, limit: u64, pace: &Pace) -> Result<SecretBuffer, ApiError> {
    let too_large = || {
        ApiError::new(Code::TooLarge, format!("the request body is larger than {limit} bytes"))
            .hint("split the request, or raise [limits] request")
            .close()
    };
    let length = content_length(request.headers())?;
    if length > limit {
        return Err(too_large());
    }
    pace.reading_body();
    let mut body = request.into_body();
    let mut bytes = SecretBuffer::with_capacity(usize::try_from(length).unwrap_or(0));
    let read = async {
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|_| ApiError::new(Code::InvalidRequest, "the request body ended too early").close())?;
            if let Some(data) = frame.data_ref() {
                if bytes.len() + data.len() > usize::try_from(limit).unwrap_or(usize::MAX) {
                    return Err(too_large());
                }
                bytes.push(data);
            }
        }
        Ok(())
    };
    tokio::time::timeout(BODY_DEADLINE, read).await.unwrap_or_else(|_| {
        Err(ApiError::new(Code::InvalidRequest, "the request body did not arrive in time").close())
    })?;
    pace.handling();
    Ok(bytes)
}

fn content_length(headers: &HeaderMap) -> Result<u64, ApiError> {
    match headers.get(CONTENT_LENGTH) {
        None => Ok(0),
        Some(length) => length
            .to_str()
            .ok()
            .and_then(|length| length.parse().ok())
            .ok_or_else(|| ApiError::new(Code::InvalidRequest, "Content-Length is no number").close()),
    }
}

/// Reads the body as JSON. Unknown fields are ignored. The error says where, never what: bodies hold secret values.
pub(super) async fn json<T: DeserializeOwned>(
    request: Request<Incoming>,
    limit: u64,
    pace: &Pace,
) -> Result<T, ApiError> {
    parse(&body(request, limit, pace).await?)
}

/// Reads the body as [`json`] does; none at all stands for an empty object.
pub(super) async fn optional_json<T: DeserializeOwned + Default>(
    request: Request<Incoming>,
    limit: u64,
    pace: &Pace,
) -> Result<T, ApiError> {
    let bytes = body(request, limit, pace).await?;
    if bytes.is_empty() { Ok(T::default()) } else { parse(&bytes) }
}

fn parse<T: DeserializeOwned>(bytes: &SecretBuffer) -> Result<T, ApiError> {
    // expose: looked at, and parsed into values that are wiped themselves.
    if bytes.expose().trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        // serde would take a list of the fields in their order for the object.
        return Err(ApiError::new(Code::InvalidRequest, "the body is not a JSON object")
            .hint("docs/socket.md shows the body of each route"));
    }
    serde_json::from_slice(bytes.expose()).map_err(|error| {
        let what = if bytes.is_empty() {
            "this route takes a JSON body".to_owned()
        } else if error.is_data() {
            let (line, column) = (error.line(), error.column());
            format!("the body is not of this route's shape at line {line}, column {column}")
        } else {
            format!("the body is not JSON at line {}, column {}", error.line(), error.column())
        };
        ApiError::new(Code::InvalidRequest, what).hint("docs/socket.md shows the body of each route")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri("/v1/health");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a valid request")
    }

    #[test]
    fn only_plain_requests_to_localhost_pass() {
        assert!(refuse_what_no_client_of_ours_sends(&request(&[("host", "localhost")])).is_ok());
        assert!(refuse_what_no_client_of_ours_sends(&request(&[("host", "Keyside")])).is_ok());
        for (headers, code) in [
            (vec![], Code::InvalidRequest),
            (vec![("host", "example.com")], Code::InvalidRequest),
            (vec![("host", "localhost:80")], Code::InvalidRequest),
            (vec![("host", "localhost"), ("host", "localhost")], Code::InvalidRequest),
            (vec![("host", "localhost"), ("origin", "null")], Code::InvalidRequest),
            (vec![("host", "localhost"), ("sec-fetch-mode", "cors")], Code::InvalidRequest),
            (vec![("host", "localhost"), ("x-forwarded-for", "1.2.3.4")], Code::InvalidRequest),
            (vec![("host", "localhost"), ("via", "1.1 x")], Code::InvalidRequest),
            (vec![("host", "localhost"), ("forwarded", "for=x")], Code::InvalidRequest),
            (vec![("host", "localhost"), ("transfer-encoding", "chunked")], Code::LengthRequired),
            (vec![("host", "localhost"), ("transfer-encoding", "gzip, chunked")], Code::InvalidRequest),
            (vec![("host", "localhost"), ("content-length", "5")], Code::InvalidRequest),
            (vec![("host", "localhost"), ("upgrade", "h2c")], Code::InvalidRequest),
            (vec![("host", "localhost"), ("expect", "a miracle")], Code::InvalidRequest),
            (vec![("host", "localhost"), ("proxy-authorization", "x")], Code::InvalidRequest),
        ] {
            let error = refuse_what_no_client_of_ours_sends(&request(&headers)).expect_err("refused");
            assert_eq!(error.code, code, "{headers:?}");
        }
    }

    #[test]
    fn another_target_than_a_path_and_another_version_are_refused() {
        for uri in ["*", "http://localhost/v1/health", "localhost:80"] {
            let request = Request::builder().uri(uri).header("host", "localhost").body(()).expect("a valid request");
            assert!(refuse_what_no_client_of_ours_sends(&request).is_err(), "{uri}");
        }
        let mut old = request(&[("host", "localhost")]);
        *old.version_mut() = Version::HTTP_10;
        assert!(refuse_what_no_client_of_ours_sends(&old).is_err());
    }

    #[test]
    fn a_path_is_decoded_once() {
        assert_eq!(decode("a%2520b").expect("valid"), "a%20b");
        assert_eq!(decode("%D0%BA+").expect("valid"), "к+");
        for wrong in ["%", "%4", "%zz", "%+1", "%ff", "%c0%ae", "%ed%a0%80"] {
            assert!(decode(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_unknown_or_repeated_query_parameter_is_refused() {
        assert!(Query::parse(Some("size=1&after=x"), &["size", "after"]).is_ok());
        assert!(Query::parse(Some("sise=1"), &["size"]).is_err());
        assert!(Query::parse(Some("size=1&size=2"), &["size"]).is_err());
        assert_eq!(Query::parse(Some("after=a%26b"), &["after"]).expect("known").get("after"), Some("a&b"));
    }
}
