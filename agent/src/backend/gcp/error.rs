//! What a failure of Secret Manager, or of Google's login, means for a secret.
//!
//! Decided by status, `google.rpc` code and `ErrorInfo`, never by a message. Only what is Google's own well-formed word
//! is believed of a secret: a page of somebody in between says nothing about it.

use std::error::Error as _;

use bytes::Bytes;
use google_cloud_auth::errors::CredentialsError;
use google_cloud_gax::error::rpc::{Code, Status, StatusDetails};
use http::StatusCode;

use super::super::{BackendError, http::NoReply};

/// What a call was about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked<'a> {
    /// One secret, by its id, and the permission that the call needs.
    Secret(&'a str, &'static str),
    /// All secrets of the project.
    Project,
}

/// What makes an authority known to Google's library, which knows no `ca_file`.
const TRUST: &str = "SSL_CERT_FILE in the agent's environment";

/// The permission that listing needs.
const LIST: &str = "secretmanager.secrets.list";

/// The back-end's name and project, for the words of its errors.
pub(super) struct Words {
    pub(super) backend: String,
    pub(super) project: String,
}

impl Words {
    /// Says what a reply that is no success means. `retry_after` is for the words alone.
    pub(super) fn refused(&self, status: StatusCode, body: &[u8], asked: Asked<'_>) -> BackendError {
        let rpc = Status::try_from(&Bytes::copy_from_slice(body)).ok();
        let code = rpc.as_ref().map(|rpc| rpc.code);
        match (status.as_u16(), code) {
            (404, Some(Code::NotFound)) => match asked {
                Asked::Secret(..) => BackendError::NotFound,
                Asked::Project => self.identity("the project is not found", "look at `project`"),
            },
            (403, Some(Code::PermissionDenied)) => self.forbidden(rpc.as_ref(), asked),
            (401, _) => self.unauthenticated(),
            (400, Some(Code::FailedPrecondition)) => match asked {
                // Whoever disables a version means that nobody shall have it.
                Asked::Secret(id, _) => BackendError::Denied {
                    what: self.say(&format!(
                        "secret `{id}` cannot be read: its latest version is disabled or destroyed, or the key that encrypts \
                         it cannot be used"
                    )),
                    hint: Some("enable that version, or add a new one".to_owned()),
                },
                Asked::Project => {
                    self.identity("the project cannot be used as it is", "is Secret Manager set up in it?")
                }
            },
            (400, Some(Code::InvalidArgument)) => {
                self.identity("Secret Manager does not take the request", "look at `project` and `endpoint`")
            }
            (429, _) => self.transient("too many requests", "look at the project's quota for Secret Manager"),
            (408 | 500..=599, _) => {
                let what = format!("Secret Manager fails with HTTP {}", status.as_u16());
                self.transient(&what, "this passes by itself; Google Cloud has a status page")
            }
            _ => {
                let what = format!("HTTP {}, and not in the words of Secret Manager", status.as_u16());
                self.transient(&what, "does something stand between? look at `endpoint` and `proxy`")
            }
        }
    }

    /// A refusal is about one secret unless Google says that it is about the project or the caller.
    fn forbidden(&self, rpc: Option<&Status>, asked: Asked<'_>) -> BackendError {
        let info = rpc.into_iter().flat_map(|rpc| &rpc.details).find_map(|detail| match detail {
            StatusDetails::ErrorInfo(info) => Some(info),
            _ => None,
        });
        let reason = info.map_or("", |info| info.reason.as_str());
        let is_about_rights = matches!(reason, "" | "IAM_PERMISSION_DENIED" | "forbidden");
        let resource = info.and_then(|info| info.metadata.get("resource"));
        match asked {
            Asked::Secret(id, permission) if is_about_rights && resource.is_none_or(|name| has_piece(name, id)) => {
                BackendError::Denied {
                    what: format!("back-end `{}`: Google refuses us secret `{id}`", self.backend),
                    hint: Some(format!("grant `{permission}` on it, such as by {}", role_of(permission))),
                }
            }
            _ if is_about_rights => {
                let permission = if let Asked::Secret(_, permission) = asked { permission } else { LIST };
                let hint = format!("grant `{permission}` on the project, such as by {}", role_of(permission));
                let what = format!("we lack `{permission}` on project `{}`", self.project);
                match asked {
                    Asked::Project => BackendError::Unlisted { what: self.say(&what), hint: Some(hint) },
                    Asked::Secret(..) => self.identity(&what, &hint),
                }
            }
            // Google's own constants, such as SERVICE_DISABLED.
            _ if reason.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_') => {
                let what = format!("Google refuses every request: {reason}");
                self.identity(&what, "is the Secret Manager API enabled in the project, and is the login meant for it?")
            }
            _ => self.identity("Google refuses every request", "is the login meant for this project?"),
        }
    }

    /// Our login is refused.
    pub(super) fn unauthenticated(&self) -> BackendError {
        self.identity("Google does not accept our login", "is the key, the account or the token still valid?")
    }

    /// Says what a failed login means: a reply of the login service that refuses us, or none at all.
    ///
    /// The error's own text is dropped: it may hold the reply's body.
    pub(super) fn login_failed(&self, error: &CredentialsError) -> BackendError {
        let (mut cause, mut hint) = (String::new(), None);
        let mut next: Option<&(dyn std::error::Error + 'static)> = error.source();
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<reqwest::Error>() {
                cause = match error.status() {
                    Some(status) => format!(" (HTTP {})", status.as_u16()),
                    None => {
                        let fault = NoReply::with(error, TRUST, "the credentials");
                        hint = fault.hint;
                        format!(" ({})", fault.what)
                    }
                };
            } else if let Some(error) = error.downcast_ref::<google_cloud_gax::error::Error>()
                && let Some(status) = error.http_status_code()
            {
                cause = format!(" (HTTP {status})");
            }
            next = error.source();
        }
        if error.is_transient() {
            let what = format!("Google's login does not answer{cause}");
            let hint = hint.as_deref().unwrap_or("is there a way to it from here? it obeys HTTPS_PROXY and NO_PROXY");
            return self.transient(&what, hint);
        }
        let what = format!("the login fails{cause}");
        self.identity(
            &what,
            "is the key, the account or the token file still valid? docs/backends/gcp.md has the ways to log in",
        )
    }

    /// Makes an error that another try may mend.
    pub(super) fn transient(&self, what: &str, hint: &str) -> BackendError {
        BackendError::Transient { what: self.say(what), hint: Some(hint.to_owned()) }
    }

    /// Makes an error of our own access.
    pub(super) fn identity(&self, what: &str, hint: &str) -> BackendError {
        BackendError::Identity { what: self.say(what), hint: Some(hint.to_owned()) }
    }

    /// Makes an error of one secret that is there.
    pub(super) fn unusable(&self, id: &str, what: &str, hint: &str) -> BackendError {
        BackendError::Unusable {
            what: self.say(&format!("secret `{id}` cannot be served: {what}")),
            hint: Some(hint.to_owned()),
        }
    }

    fn say(&self, what: &str) -> String {
        format!("back-end `{}`: {what}", self.backend)
    }
}

/// Tells whether a resource's name has this piece.
fn has_piece(name: &str, piece: &str) -> bool {
    name.split('/').any(|other| other == piece)
}

/// Returns the least of Google's own roles that has a permission.
fn role_of(permission: &str) -> &'static str {
    if permission.ends_with(".access") {
        "the role Secret Manager Secret Accessor"
    } else {
        "the role Secret Manager Viewer"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::contract::class;

    fn words() -> Words {
        Words { backend: "store".into(), project: "p".into() }
    }

    const SECRET: Asked<'_> = Asked::Secret("db", "secretmanager.versions.access");

    fn rpc(code: &str, details: &str) -> String {
        format!(
            r#"{{"error": {{"code": 1, "message": "canary-in-a-message", "status": "{code}", "details": [{details}]}}}}"#
        )
    }

    fn info(reason: &str, resource: &str) -> String {
        format!(
            r#"{{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "{reason}",
                "domain": "iam.googleapis.com", "metadata": {{"resource": "{resource}"}}}}"#
        )
    }

    #[test]
    fn each_refusal_has_its_class() {
        let html = "<html>404</html>".to_owned();
        let plain = |code| rpc(code, "");
        let denied = |reason, resource| rpc("PERMISSION_DENIED", &info(reason, resource));
        let version = "projects/p/secrets/db/versions/latest";
        // Status, body, the class for one secret, the class for the whole project.
        for (status, body, secret, project) in [
            (404, plain("NOT_FOUND"), "not found", "identity"),
            (404, html.clone(), "transient", "transient"),
            (404, "null".into(), "transient", "transient"),
            (404, plain("PERMISSION_DENIED"), "transient", "transient"),
            (403, plain("PERMISSION_DENIED"), "denied", "unlisted"),
            (403, denied("IAM_PERMISSION_DENIED", version), "denied", "unlisted"),
            (403, denied("IAM_PERMISSION_DENIED", "projects/p/secrets/db"), "denied", "unlisted"),
            (403, denied("IAM_PERMISSION_DENIED", "projects/p"), "identity", "unlisted"),
            (403, denied("SERVICE_DISABLED", "projects/p/secrets/db"), "identity", "identity"),
            (403, denied("ACCESS_TOKEN_SCOPE_INSUFFICIENT", version), "identity", "identity"),
            (403, denied("odd canary", version), "identity", "identity"),
            (403, html.clone(), "transient", "transient"),
            (401, plain("UNAUTHENTICATED"), "identity", "identity"),
            (401, html.clone(), "identity", "identity"),
            (400, plain("FAILED_PRECONDITION"), "denied", "identity"),
            (400, plain("INVALID_ARGUMENT"), "identity", "identity"),
            (400, html.clone(), "transient", "transient"),
            (429, plain("RESOURCE_EXHAUSTED"), "transient", "transient"),
            (429, html.clone(), "transient", "transient"),
            (408, html.clone(), "transient", "transient"),
            (500, plain("INTERNAL"), "transient", "transient"),
            (503, html.clone(), "transient", "transient"),
            (302, html.clone(), "transient", "transient"),
            (418, html, "transient", "transient"),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            for (asked, expected) in [(SECRET, secret), (Asked::Project, project)] {
                let error = words().refused(status, body.as_bytes(), asked);
                assert_eq!(class(&error), expected, "{status} {body} {asked:?}");
                assert!(!format!("{error:?}").contains("canary"), "a server's words are not passed on: {error:?}");
                assert_eq!(error.hint().is_none(), error == BackendError::NotFound, "{error:?}");
            }
        }
    }

    #[test]
    fn a_refusal_names_the_right_that_is_missing() {
        let status = StatusCode::FORBIDDEN;
        let error = words().refused(status, rpc("PERMISSION_DENIED", "").as_bytes(), SECRET);
        assert!(error.to_string().contains("`db`"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("secretmanager.versions.access")), "{error:?}");
        let error = words().refused(status, rpc("PERMISSION_DENIED", "").as_bytes(), Asked::Project);
        assert!(error.to_string().contains("`secretmanager.secrets.list` on project `p`"), "{error}");
        let disabled = rpc("PERMISSION_DENIED", &info("SERVICE_DISABLED", "projects/p"));
        let error = words().refused(status, disabled.as_bytes(), SECRET);
        assert!(error.to_string().contains("SERVICE_DISABLED"), "{error}");
    }

    #[test]
    fn a_failed_login_is_ours_unless_nobody_answers() {
        let failed = |transient| words().login_failed(&CredentialsError::from_msg(transient, "body=<canary>"));
        for (transient, expected) in [(true, "transient"), (false, "identity")] {
            let error = failed(transient);
            assert_eq!(class(&error), expected);
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
    }
}
