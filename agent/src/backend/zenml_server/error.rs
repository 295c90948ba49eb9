//! What a reply that is no success means, from its status and shape alone; never from its message, which may quote what
//! was sent.

use reqwest::StatusCode;

use super::super::BackendError;
use super::super::http::Reply;
use crate::layout::zenml_rest::{ErrorShape, error_shape};

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// Asking what the server is, whom it takes us for, and which workspaces it has.
    Meeting,
    Login,
    Listing,
    /// Anything with one secret.
    OneSecret,
    /// Reading a stack or a component.
    Stack,
}

/// Where the server is, for messages.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) backend: String,
    pub(super) url: String,
    /// The settings that hold the login, in words; `None` without one.
    pub(super) login: Option<String>,
}

impl Place {
    pub(super) fn text(&self, what: &str) -> String {
        format!("back-end `{}`: {what}", self.backend)
    }

    pub(super) fn transient(&self, what: &str, hint: &str) -> BackendError {
        BackendError::Transient { what: self.text(what), hint: Some(hint.to_owned()) }
    }

    pub(super) fn identity(&self, what: &str, hint: String) -> BackendError {
        BackendError::Identity { what: self.text(what), hint: Some(hint) }
    }

    /// A success that is none: cut off, or not ZenML's.
    pub(super) fn malformed(&self) -> BackendError {
        self.transient(
            "its reply is not what ZenML's server sends",
            &format!("is there a ZenML server at `{}`, and does nothing in between change its replies?", self.url),
        )
    }

    /// Our login was refused, or a request in spite of it.
    pub(super) fn login_refused(&self) -> BackendError {
        match &self.login {
            Some(login) => self.identity(
                "the server refuses our login",
                format!("check {login}: it may be wrong, expired or revoked, or its owner deactivated"),
            ),
            None => self.identity(
                "the server asks for a login and none is configured",
                format!("set `api_key_env` or `api_key_file` in [backend.{}]", self.backend),
            ),
        }
    }

    /// Classifies a reply whose status is no success; a 401 is a refused login by then.
    pub(super) fn refusal(&self, doing: Doing, reply: &Reply) -> BackendError {
        const AGAIN: &str = "try again";
        let status = reply.status;
        let code = status.as_u16();
        match status {
            StatusCode::UNAUTHORIZED => self.login_refused(),
            StatusCode::FORBIDDEN => self.forbidden(doing),
            StatusCode::TOO_MANY_REQUESTS => self
                .transient("the server has had too many requests", "raise `[cache] ttl`, or the server's rate limit"),
            StatusCode::PAYMENT_REQUIRED => {
                self.transient("the server wants its subscription upgraded (402)", "ask whoever administers ZenML")
            }
            _ if status.is_redirection() => self.transient(
                &format!("the server sends us elsewhere ({code}), which is not followed"),
                &format!("set `url` in [backend.{}] to the server's own address", self.backend),
            ),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => self.transient(
                &format!("nothing of ZenML answers there ({code})"),
                &format!("check `url` in [backend.{}]: it is the address without `/api/v1`", self.backend),
            ),
            _ if status.is_server_error() => self.transient(&format!("the server fails ({code})"), AGAIN),
            _ if status.is_client_error() => self.transient(
                &format!("the server does not take the request ({code})"),
                "is its ZenML a version between 0.43 and 0.98?",
            ),
            _ => self.malformed(),
        }
    }

    fn forbidden(&self, doing: Doing) -> BackendError {
        let whom = self.login.as_deref().unwrap_or("nobody in particular");
        match doing {
            Doing::OneSecret => BackendError::Denied {
                what: self.text("the server refuses this secret to us (403)"),
                hint: Some(format!("give the user of {whom} the right to read its values, in ZenML's role")),
            },
            Doing::Listing => self.identity(
                "we have no right to list secrets (403)",
                format!("give the user of {whom} the right to read secrets, in ZenML's role"),
            ),
            Doing::Stack => self.identity(
                "we have no right to read stacks (403)",
                format!("give the user of {whom} the right to read stacks and components, in ZenML's role"),
            ),
            Doing::Meeting | Doing::Login => {
                self.identity("the server forbids us everything (403)", format!("check the user of {whom}"))
            }
        }
    }

    /// The values stand as `null`.
    pub(super) fn values_withheld(&self, name: &str) -> BackendError {
        let whom = self.login.as_deref().unwrap_or("nobody in particular");
        BackendError::Denied {
            what: self.text(&format!("secret `{name}` is shown to us without its values")),
            hint: Some(format!("give the user of {whom} the right to read secret values, in ZenML's role")),
        }
    }
}

/// Tells whether a 404 is ZenML's own word on one object. A bare one comes from whatever stands in front of it.
pub(super) fn is_own_404(reply: &Reply) -> bool {
    // expose: only its shape is looked at.
    reply.status == StatusCode::NOT_FOUND && error_shape(reply.body.expose()) == ErrorShape::Api
}
