//! What Vault's status codes and error bodies mean. Decided on codes and on the shape of a body, never on its words.

use reqwest::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::BackendError;
use super::super::http::Reply;

/// Names the back-end in messages, and says what to try.
pub(super) struct Words {
    /// The back-end's name.
    pub(super) backend: String,
}

impl Words {
    pub(super) fn transient(&self, what: &str, hint: Option<&str>) -> BackendError {
        BackendError::Transient { what: format!("back-end `{}`: {what}", self.backend), hint: hint.map(str::to_owned) }
    }

    pub(super) fn identity(&self, what: &str, hint: &str) -> BackendError {
        BackendError::Identity { what: format!("back-end `{}`: {what}", self.backend), hint: Some(hint.to_owned()) }
    }

    /// A success that is not what this request is answered with.
    pub(super) fn malformed(&self) -> BackendError {
        self.transient("its reply is not what Vault answers", Some("is `url` Vault's own address, and nothing else's?"))
    }

    /// What stands in the way whatever was asked; `None` when the answer is about the request.
    pub(super) fn trouble(&self, status: StatusCode) -> Option<BackendError> {
        let what = match status.as_u16() {
            429 => "it asks to be left alone for a while (429)".to_owned(),
            412 => "the node that answered is behind the others (412)".to_owned(),
            472 | 473 => format!("the node that answered is a standby ({})", status.as_u16()),
            // No redirect is followed: a standby may name any host.
            300..=399 => {
                format!("it redirects ({}), as a standby does that does not forward requests", status.as_u16())
            }
            503 => "it is sealed, or down for maintenance (503)".to_owned(),
            code if code >= 500 => format!("it failed ({code})"),
            _ => return None,
        };
        let hint = match status.as_u16() {
            503 => "unseal it: `vault status` tells its state",
            412 | 472 | 473 | 300..=399 => "let `url` name the active node, or a balancer that asks it",
            429 => "raise its rate limit quota, or lower `parallelism`",
            _ => "its own log tells why",
        };
        Some(self.transient(&what, Some(hint)))
    }
}

/// What a reply with status 404 says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Nothing lies there, or its last version is deleted.
    Absent,
    /// Nothing of the server's handles such a path.
    NoRoute,
    /// The engine there is of another version.
    OtherVersion,
    /// Somebody else's words: a proxy's, for one.
    Foreign,
}

/// The three shapes of a 404: `{"errors": []}`, `{"errors": [text]}` and a reply without errors.
#[derive(Deserialize)]
struct MissingBody {
    errors: Option<Vec<IgnoredAny>>,
    data: Option<Versioned>,
    warnings: Option<Vec<IgnoredAny>>,
}

/// A deleted version keeps its metadata.
#[derive(Deserialize)]
struct Versioned {
    #[serde(rename = "metadata")]
    _metadata: IgnoredAny,
}

/// Reads a reply with status 404.
pub(super) fn missing(reply: &Reply) -> Missing {
    // expose: parsed for its shape; it holds no value.
    let Ok(body) = serde_json::from_slice::<MissingBody>(reply.body.expose()) else { return Missing::Foreign };
    match (body.errors, body.data, body.warnings) {
        (Some(errors), ..) if errors.is_empty() => Missing::Absent,
        (Some(_), ..) => Missing::NoRoute,
        (None, Some(_), _) => Missing::Absent,
        (None, None, Some(_)) => Missing::OtherVersion,
        (None, None, None) => Missing::Foreign,
    }
}
