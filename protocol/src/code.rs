//! The stable error codes of the socket, and the HTTP status of each.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A stable error code; `docs/socket.md` lists what each means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request is not one of this protocol. 400.
    InvalidRequest,
    /// A reference or template that no grammar accepts. Only inside `failures`.
    InvalidReference,
    /// The peer matches no grant. 403.
    PeerRefused,
    /// The back-end refuses this secret to the agent. 403.
    BackendDenied,
    /// The back-end may not be written to. 403.
    ReadOnly,
    /// No such route. 404.
    NotFound,
    /// No such secret, or none that this peer may know of. 404.
    SecretNotFound,
    /// The secret is there, the key is not. 404.
    KeyNotFound,
    /// The route exists, the method does not. 405.
    MethodNotAllowed,
    /// A secret of that name is there already, or the choice is ambiguous. 409.
    Conflict,
    /// A request body without `Content-Length`. 411.
    LengthRequired,
    /// `If-Match` does not match. 412.
    PreconditionFailed,
    /// Larger than a limit. 413.
    TooLarge,
    /// A resolve with at least one definite failure. 422.
    Unresolved,
    /// A limit for this peer is reached. 429.
    TooManyRequests,
    /// A fault of the agent. 500.
    Internal,
    /// The back-end cannot be reached and nothing usable is cached. 503.
    BackendUnavailable,
    /// A required back-end has not answered yet. 503.
    NotReady,
    /// The audit log cannot be written and is required. 503.
    AuditUnavailable,
}

impl Code {
    /// All codes, in the order of their numbers (`code as usize`).
    pub const ALL: [Self; 19] = [
        Self::InvalidRequest,
        Self::InvalidReference,
        Self::PeerRefused,
        Self::BackendDenied,
        Self::ReadOnly,
        Self::NotFound,
        Self::SecretNotFound,
        Self::KeyNotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::LengthRequired,
        Self::PreconditionFailed,
        Self::TooLarge,
        Self::Unresolved,
        Self::TooManyRequests,
        Self::Internal,
        Self::BackendUnavailable,
        Self::NotReady,
        Self::AuditUnavailable,
    ];

    /// Returns the code's spelling on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidReference => "invalid_reference",
            Self::PeerRefused => "peer_refused",
            Self::BackendDenied => "backend_denied",
            Self::ReadOnly => "read_only",
            Self::NotFound => "not_found",
            Self::SecretNotFound => "secret_not_found",
            Self::KeyNotFound => "key_not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Conflict => "conflict",
            Self::LengthRequired => "length_required",
            Self::PreconditionFailed => "precondition_failed",
            Self::TooLarge => "too_large",
            Self::Unresolved => "unresolved",
            Self::TooManyRequests => "too_many_requests",
            Self::Internal => "internal",
            Self::BackendUnavailable => "backend_unavailable",
            Self::NotReady => "not_ready",
            Self::AuditUnavailable => "audit_unavailable",
        }
    }

    /// Returns the HTTP status the code travels with.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidRequest | Self::InvalidReference => 400,
            Self::PeerRefused | Self::BackendDenied | Self::ReadOnly => 403,
            Self::NotFound | Self::SecretNotFound | Self::KeyNotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict => 409,
            Self::LengthRequired => 411,
            Self::PreconditionFailed => 412,
            Self::TooLarge => 413,
            Self::Unresolved => 422,
            Self::TooManyRequests => 429,
            Self::Internal => 500,
            Self::BackendUnavailable | Self::NotReady | Self::AuditUnavailable => 503,
        }
    }

    /// Tells whether the same request may succeed later without anybody changing anything.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::TooManyRequests | Self::BackendUnavailable | Self::NotReady | Self::AuditUnavailable)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
