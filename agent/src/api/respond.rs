//! The only place where an error becomes a reply.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::Full;
use keyside_protocol::PROTOCOL_VERSION;
use keyside_protocol::code::Code;
use keyside_protocol::json::SecretBuffer;
use keyside_protocol::message::{BackendState, Failure, Problem};

use super::Reply;
use crate::backend::{BackendError, WriteError};
use crate::resolver::{Miss, Resolver};

/// Seconds after which a transient failure may be tried again.
const RETRY_SECONDS: &str = "1";

/// What to try where a name is not there and none is close.
pub(super) const LIST_HINT: &str = "`keyside secret list` shows what is there";

const KEYSIDE_PROTOCOL: HeaderName = HeaderName::from_static("keyside-protocol");

/// A request that was not done, and why.
#[derive(Debug)]
pub struct ApiError {
    /// The stable code; its status is the reply's.
    pub code: Code,
    detail: String,
    hint: Option<Box<str>>,
    failures: Vec<Failure>,
    backends: Vec<BackendState>,
    retry: bool,
    close: bool,
    allow: Option<Box<str>>,
}

impl ApiError {
    /// An error with its code and what failed (lower case, no stop, no value).
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            hint: None,
            failures: Vec::new(),
            backends: Vec::new(),
            retry: false,
            close: false,
            allow: None,
        }
    }

    /// Adds what to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into().into());
        self
    }

    /// Says when to try again (`Retry-After`).
    #[must_use]
    pub fn retry(mut self) -> Self {
        self.retry = true;
        self
    }

    /// Closes the connection: what follows on it is not to be believed.
    #[must_use]
    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// Names the methods that the route takes.
    #[must_use]
    pub fn allow(mut self, methods: String) -> Self {
        self.allow = Some(methods.into());
        self
    }

    /// Adds every failing reference.
    #[must_use]
    pub fn failures(mut self, failures: Vec<Failure>) -> Self {
        self.failures = failures;
        self
    }

    /// Adds the state of each back-end.
    #[must_use]
    pub fn backends(mut self, backends: Vec<BackendState>) -> Self {
        self.backends = backends;
        self
    }

    /// The one reply to a name or key outside the grant: the same bytes whether it exists or not.
    pub fn outside_grant() -> Self {
        Self::new(Code::SecretNotFound, "no such secret, or it is not granted to this peer")
    }

    /// The reply for a secret that was not found, in words that name the back-ends; `hint` is the absence's.
    pub fn from_miss(resolver: &Resolver, name: &str, miss: &Miss, hint: Option<String>) -> Self {
        let error = Self::new(code_of(&miss.error), describe(resolver, name, miss));
        let error = if miss.error.is_transient() { error.retry() } else { error };
        let listed = (miss.error == BackendError::NotFound).then(|| LIST_HINT.to_owned());
        match miss.error.hint().map(str::to_owned).or(hint).or(listed) {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    /// The reply for a write that did not happen.
    pub fn from_write(backend: &str, name: &str, error: WriteError) -> Self {
        match error {
            WriteError::Exists(what) => Self::new(Code::Conflict, what)
                .hint("change it instead (PATCH, or `keyside secret update`), or take another name"),
            WriteError::Ambiguous { what } => {
                Self::new(Code::Conflict, what).hint("name one with ?scope=private or ?scope=public")
            }
            WriteError::KeyNotFound(key) => {
                Self::new(Code::KeyNotFound, format!("secret `{name}` in back-end `{backend}` has no key `{key}`"))
                    .hint("nothing was changed; leave that key out")
            }
            WriteError::Invalid { what, hint } => {
                let error = Self::new(Code::InvalidRequest, what);
                match hint {
                    Some(hint) => error.hint(hint),
                    None => error,
                }
            }
            WriteError::VersionMismatch => Self::new(Code::PreconditionFailed, format!("secret `{name}` has changed"))
                .hint("read it again, then repeat the change"),
            WriteError::Backend(BackendError::NotFound) => {
                Self::new(Code::SecretNotFound, format!("no secret `{name}` in back-end `{backend}`")).hint(LIST_HINT)
            }
            WriteError::Backend(error) => {
                let reply = Self::new(code_of(&error), error.to_string());
                let reply = if error.is_transient() { reply.retry() } else { reply };
                match error.hint() {
                    Some(hint) => reply.hint(hint),
                    None => reply,
                }
            }
        }
    }
}

/// Says in words why `name` was not found.
pub fn describe(resolver: &Resolver, name: &str, miss: &Miss) -> String {
    let names: Vec<_> = miss.asked.iter().map(|backend| format!("`{}`", resolver.sources()[*backend].name)).collect();
    match &miss.error {
        BackendError::NotFound if names.is_empty() => format!("no secret `{name}`"),
        BackendError::NotFound => format!("no secret `{name}` in back-end {}", names.join(", ")),
        // The error names its back-end itself.
        error => format!("secret `{name}`: {error}"),
    }
}

/// Returns the code that a back-end's error travels under.
pub fn code_of(error: &BackendError) -> Code {
    match error {
        BackendError::NotFound => Code::SecretNotFound,
        BackendError::Denied { .. } | BackendError::Unlisted { .. } => Code::BackendDenied,
        BackendError::Transient { .. } | BackendError::Identity { .. } | BackendError::Unusable { .. } => {
            Code::BackendUnavailable
        }
    }
}

/// Turns an error into `application/problem+json`.
pub fn problem(error: ApiError) -> Reply {
    let status = error.code.status();
    let problem = Problem {
        kind: format!("urn:keyside:problem:{}", error.code),
        title: error.code.as_str().replace('_', " "),
        status,
        code: error.code,
        detail: error.detail,
        hint: error.hint.map(String::from),
        failures: error.failures,
        backends: error.backends,
    };
    let body = serde_json::to_vec(&problem).expect("a problem holds only text and numbers");
    let mut reply = plain(status, "application/problem+json", Bytes::from(body));
    if error.retry {
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
    }
    if error.close {
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(allow) = error.allow.and_then(|allow| HeaderValue::from_str(&allow).ok()) {
        reply.headers_mut().insert(ALLOW, allow);
    }
    reply
}

/// A reply without secret values.
pub fn json(status: u16, body: &impl serde::Serialize) -> Reply {
    let body = serde_json::to_vec(body).expect("replies hold only text and numbers");
    plain(status, "application/json", Bytes::from(body))
}

/// A JSON reply that holds secret values, in a buffer that is wiped once it is sent.
pub fn secret_json(body: SecretBuffer) -> Reply {
    plain(200, "application/json", Bytes::from_owner(body))
}

/// A reply with the headers that every reply carries.
pub fn plain(status: u16, content_type: &'static str, body: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = reply.headers_mut();
    headers.reserve(8);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(KEYSIDE_PROTOCOL, HeaderValue::from_static(PROTOCOL_VERSION));
    reply
}
