//! What Key Vault's and the library's errors mean: the class, what failed and what to try.

use azure_core::error::ErrorKind;
use serde::Deserialize;

use super::super::BackendError;
use super::super::http::NoReply;

/// The vault of one back-end, for messages.
pub(super) struct Place {
    /// The key under `[backend]`.
    pub(super) backend: String,
    /// `vault_url`.
    pub(super) vault: String,
}

/// What was asked of the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked<'a> {
    /// The value of this secret.
    Value(&'a str),
    /// The versions of this secret, without values.
    Versions(&'a str),
    /// The tags of all secrets.
    All,
}

/// What Key Vault says beside its status.
#[derive(Default, Deserialize)]
struct Said {
    #[serde(default)]
    error: Option<Detail>,
}

#[derive(Default, Deserialize)]
struct Detail {
    #[serde(default)]
    code: Option<String>,
    #[serde(default, rename = "innererror")]
    inner: Option<Inner>,
}

#[derive(Default, Deserialize)]
struct Inner {
    #[serde(default)]
    code: Option<String>,
}

impl Place {
    /// Returns a transient error.
    pub(super) fn transient(&self, what: &str, hint: &str) -> BackendError {
        BackendError::Transient { what: self.title(what), hint: Some(hint.to_owned()) }
    }

    /// Returns an error of our own access.
    pub(super) fn identity(&self, what: &str, hint: impl Into<String>) -> BackendError {
        BackendError::Identity { what: self.title(what), hint: Some(hint.into()) }
    }

    /// Returns an error of one secret that cannot be served.
    pub(super) fn unusable(&self, what: &str, hint: &str) -> BackendError {
        BackendError::Unusable { what: self.title(what), hint: Some(hint.to_owned()) }
    }

    fn denied(&self, what: &str, hint: &str) -> BackendError {
        BackendError::Denied { what: self.title(what), hint: Some(hint.to_owned()) }
    }

    /// The vault gave no whole reply.
    pub(super) fn unreachable(&self, fault: NoReply) -> BackendError {
        let hint = fault
            .hint
            .unwrap_or_else(|| format!("is {} the right address, and can it be reached from here?", self.vault));
        self.transient(&fault.what, &hint)
    }

    /// A reply that came whole and is not Key Vault's.
    pub(super) fn malformed(&self) -> BackendError {
        let hint = "is `vault_url` the address of a vault, and is nothing between that answers in its place?";
        self.transient("its reply is none of Key Vault's", hint)
    }

    fn title(&self, what: &str) -> String {
        format!("back-end `{}`: {what}", self.backend)
    }

    /// Says what an error of the library means.
    pub(super) fn meaning(&self, error: &azure_core::Error, asked: Asked<'_>) -> BackendError {
        if let Some(ours) = ours(error) {
            return ours;
        }
        match error.kind() {
            ErrorKind::HttpResponse { status, raw_response, .. } => {
                let body = raw_response.as_ref().map(|raw| raw.body().as_ref()).unwrap_or_default();
                self.refusal(u16::from(*status), body, asked)
            }
            ErrorKind::Other => self.identity(
                "the vault asks for a login to another service than the one at its address",
                "`vault_url` must be a vault's own name, such as https://NAME.vault.azure.net, and not an alias of it",
            ),
            ErrorKind::Credential => {
                self.identity("the login failed", "look at its settings, and at Azure's sign-in log")
            }
            _ => self.malformed(),
        }
    }

    /// Says what a status other than 200 means.
    fn refusal(&self, status: u16, body: &[u8], asked: Asked<'_>) -> BackendError {
        // The parser's words are dropped: they may quote the body.
        let detail = serde_json::from_slice::<Said>(body).unwrap_or_default().error.unwrap_or_default();
        let code = detail.code.unwrap_or_default();
        let inner = detail.inner.and_then(|inner| inner.code).unwrap_or_default();
        match status {
            404 if code == "SecretNotFound" => BackendError::NotFound,
            401 => self.identity(
                "Key Vault does not accept the login's token",
                "is the identity of the vault's own tenant, and does it still exist?",
            ),
            403 if code == "Forbidden" || code == "AccessDenied" => self.forbidden(&inner, asked),
            400 => self.identity(&format!("Key Vault refuses the request (400 {code})"), "is `vault_url` right?"),
            429 => self.transient(
                "Key Vault answers 429: too many calls",
                "raise `[cache] ttl`, or lower `parallelism`; a vault takes 4000 calls in ten seconds",
            ),
            500.. => self.transient(&format!("Key Vault answers {status}"), "try again; see Azure's own status page"),
            // A 404 or 403 that is not Key Vault's own word: something between us and it.
            _ => self.malformed(),
        }
    }

    fn forbidden(&self, inner: &str, asked: Asked<'_>) -> BackendError {
        let right = match asked {
            Asked::Value(_) => "give it the role `Key Vault Secrets User`, or `get` in the vault's access policy",
            Asked::Versions(_) | Asked::All => {
                "give it the role `Key Vault Reader` (which reads no value), or `list` in the vault's access policy"
            }
        };
        match (inner, asked) {
            ("SecretDisabled", Asked::Value(name)) => {
                self.denied(&format!("the secret `{name}` is disabled in Key Vault"), "enable it, or delete it")
            }
            ("ForbiddenByFirewall" | "ForbiddenByConnection", _) => self.identity(
                &format!("the vault's network rules refuse this machine ({inner})"),
                "allow its address in the vault's firewall, or reach the vault by its private endpoint",
            ),
            (_, Asked::All) => BackendError::Unlisted {
                what: self.title(&format!("Key Vault refuses to list secrets{}", in_brackets(inner))),
                hint: Some(right.to_owned()),
            },
            // An access policy is the whole vault's.
            ("AccessDenied" | "ForbiddenByPolicy", _) => {
                self.identity(&format!("the identity lacks a right on the vault ({inner})"), right)
            }
            (_, Asked::Value(name)) => {
                self.denied(&format!("Key Vault refuses the value of the secret `{name}`{}", in_brackets(inner)), right)
            }
            (_, Asked::Versions(_)) => {
                self.identity(&format!("Key Vault refuses to list secrets{}", in_brackets(inner)), right)
            }
        }
    }
}

fn in_brackets(inner: &str) -> String {
    if inner.is_empty() { String::new() } else { format!(" ({inner})") }
}

/// Returns the error of ours that passed through the library.
fn ours(error: &azure_core::Error) -> Option<BackendError> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(ours) = error.downcast_ref::<BackendError>() {
            return Some(ours.clone());
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::contract::class;

    fn place() -> Place {
        Place { backend: "kv".into(), vault: "https://v.vault.azure.net".into() }
    }

    #[test]
    fn every_refusal_has_its_class() {
        let check = |status: u16, code: &str, inner: &str, asked: Asked<'_>, expected: &str| {
            let body =
                format!(r#"{{"error": {{"code": "{code}", "message": "m", "innererror": {{"code": "{inner}"}}}}}}"#);
            let error = place().refusal(status, body.as_bytes(), asked);
            assert_eq!(class(&error), expected, "{status} {code} {inner}");
            assert!(error == BackendError::NotFound || error.hint().is_some(), "{error}");
        };
        let value = Asked::Value("db");
        check(404, "SecretNotFound", "", value, "not found");
        check(404, "SecretNotFound", "", Asked::Versions("db"), "not found");
        check(404, "NotFound", "", value, "transient");
        check(401, "Unauthorized", "", value, "identity");
        check(403, "Forbidden", "SecretDisabled", value, "denied");
        check(403, "Forbidden", "ForbiddenByRbac", value, "denied");
        check(403, "Forbidden", "", value, "denied");
        check(403, "Forbidden", "AccessDenied", value, "identity");
        check(403, "Forbidden", "ForbiddenByPolicy", value, "identity");
        check(403, "Forbidden", "ForbiddenByFirewall", value, "identity");
        check(403, "Forbidden", "ForbiddenByConnection", Asked::All, "identity");
        check(403, "Forbidden", "ForbiddenByRbac", Asked::All, "unlisted");
        check(403, "Forbidden", "ForbiddenByRbac", Asked::Versions("db"), "identity");
        check(403, "RequestBlocked", "", value, "transient");
        check(400, "BadParameter", "", value, "identity");
        check(408, "", "", value, "transient");
        check(429, "Throttled", "", value, "transient");
        check(301, "", "", value, "transient");
        for status in [500, 501, 502, 503, 504, 599] {
            check(status, "", "", value, "transient");
        }
    }

    #[test]
    fn a_reply_that_is_not_key_vaults_own_is_no_absence_and_no_refusal() {
        for body in ["", "<html>404</html>", "null", "{}", r#"{"error": null}"#, r#"{"error": "SecretNotFound"}"#] {
            for status in [403, 404] {
                let error = place().refusal(status, body.as_bytes(), Asked::Value("db"));
                assert!(error.is_transient(), "{status} {body} {error:?}");
            }
        }
    }

    #[test]
    fn our_own_errors_come_out_of_the_library_as_they_went_in() {
        let ours = place().identity("x", "y");
        let inner = super::super::transport::carried(ours.clone());
        let wrapped = azure_core::Error::with_error(ErrorKind::Credential, inner, "wrapped");
        assert_eq!(place().meaning(&wrapped, Asked::All), ours);
        let foreign = azure_core::Error::with_message(ErrorKind::DataConversion, "secret text");
        let meaning = place().meaning(&foreign, Asked::All);
        assert!(meaning.is_transient() && !meaning.to_string().contains("secret text"), "{meaning}");
    }
}
