//! What AWS's refusals mean. The code decides, never the message and never the status alone: a secret that is not there
//! is a 400 at AWS and a 404 elsewhere.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_secretsmanager::error::{ErrorMetadata, ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;

use super::super::BackendError;
use super::super::http::NoReply;
use super::transport::Trouble;

/// What was asked of the service, by the right that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Get,
    BatchGet,
    Describe,
    List,
}

impl Action {
    /// Returns the right's name in a policy.
    fn right(self) -> &'static str {
        match self {
            Self::Get => "secretsmanager:GetSecretValue",
            Self::BatchGet => "secretsmanager:BatchGetSecretValue",
            Self::Describe => "secretsmanager:DescribeSecret",
            Self::List => "secretsmanager:ListSecrets",
        }
    }

    /// Tells whether a policy can give it for one secret and not for another.
    fn is_for_one_secret(self) -> bool {
        matches!(self, Self::Get | Self::Describe)
    }
}

/// Why a call brought no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The service refused, with a code of its own.
    Refused(Class, String),
    /// No credentials.
    NoLogin(NoLogin),
    /// No connection, no whole reply, or none that can be understood.
    NoAnswer(NoReply),
    /// Our settings make no call possible.
    NoCall(String),
    /// The same, said already.
    Ours(BackendError),
}

/// Why there are no credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoLogin {
    /// In words, and what to try where that is known.
    fault: NoReply,
    /// Whether trying again may help.
    may_pass: bool,
}

/// What a code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// No such secret, or no value in it.
    NotFound,
    /// Its state forbids the call; being marked for deletion is such a state.
    WrongState,
    /// Not with these rights.
    Denied,
    /// Not with these credentials.
    BadLogin,
    /// Not now.
    Busy,
    /// There, and yet not to be had.
    Unusable,
    /// The service does not know this call (a stand-in for AWS may not).
    Unknown,
}

/// Sorts a code; `status` decides only where the code is not known.
pub(super) fn class_of(code: &str, status: u16) -> Class {
    match code {
        "ResourceNotFoundException" => Class::NotFound,
        "InvalidRequestException" => Class::WrongState,
        "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" => Class::Denied,
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "TokenRefreshRequired"
        | "RequestExpired"
        | "RequestTimeTooSkewed"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "AuthFailure"
        | "NotAuthorized"
        | "OptInRequired" => Class::BadLogin,
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "BandwidthLimitExceeded"
        | "SlowDown"
        | "PriorRequestNotComplete"
        | "RequestTimeout"
        | "RequestTimeoutException"
        | "InternalServiceError"
        | "InternalServiceErrorException"
        | "InternalServerError"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        // The page of a list has grown too old between two calls.
        | "InvalidNextTokenException" => Class::Busy,
        "DecryptionFailure" | "DecryptionFailureException" | "InvalidParameterException" | "ValidationException" => {
            Class::Unusable
        }
        "UnknownOperationException" | "InvalidAction" | "NotImplemented" | "UnsupportedOperation" => Class::Unknown,
        _ => match status {
            408 | 429 | 500.. => Class::Busy,
            // A general refusal that is not known says nothing of any one secret.
            401 | 403 => Class::BadLogin,
            _ => Class::Unusable,
        },
    }
}

impl Failure {
    /// What came is no answer; there is no more to say of it than these words.
    pub(super) fn no_answer(what: impl Into<String>) -> Self {
        Self::NoAnswer(NoReply { what: what.into(), hint: None })
    }

    /// Tells whether other credentials might do.
    pub(super) fn is_bad_login(&self) -> bool {
        matches!(self, Self::Refused(Class::BadLogin, _))
    }

    /// Returns what the service's code means, where it sent one.
    pub(super) fn class(&self) -> Option<Class> {
        match self {
            Self::Refused(class, _) => Some(*class),
            _ => None,
        }
    }

    /// Reads what AWS's library says.
    pub(super) fn of<E>(error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        if let Some(login) = find::<CredentialsError>(error) {
            return Self::NoLogin(NoLogin::of(login));
        }
        match error {
            SdkError::ServiceError(refusal) => {
                let status = refusal.raw().status().as_u16();
                let code = refusal.err().code().map(str::to_owned);
                match code.or_else(|| code_in_xml(refusal.raw().body().bytes()?)) {
                    Some(code) => Self::Refused(class_of(&code, status), code),
                    None => Self::no_answer(format!("status {status} without a code of AWS")),
                }
            }
            SdkError::DispatchFailure(_) => match find::<Trouble>(error) {
                Some(Trouble::Settings(words)) => Self::NoCall(words.clone()),
                Some(Trouble::Network(fault)) => Self::NoAnswer(fault.clone()),
                None => Self::no_answer("the call failed"),
            },
            SdkError::TimeoutError(_) => Self::no_answer("it did not answer in time"),
            SdkError::ResponseError(_) => Self::no_answer("its reply cannot be understood"),
            _ => Self::NoCall("no request can be made of its settings".to_owned()),
        }
    }

    /// Says it in the words and class of a back-end; `secret` is the name that was asked for, if it was one.
    pub(super) fn say(&self, backend: &str, action: Action, secret: Option<&str>) -> BackendError {
        let of = secret.map_or_else(String::new, |name| format!(" for secret `{name}`"));
        let right = action.right();
        match self {
            Self::Ours(error) => error.clone(),
            Self::Refused(Class::NotFound, _) => BackendError::NotFound,
            Self::Refused(Class::Denied, code) => {
                let what = format!("back-end `{backend}`: AWS refuses {right}{of} ({code})");
                if action.is_for_one_secret() && secret.is_some() {
                    let also = if action == Action::Get { ", and `kms:Decrypt` for its key," } else { "" };
                    let hint = Some(format!("give the agent's identity `{right}` for this secret{also} in its policy"));
                    BackendError::Denied { what, hint }
                } else {
                    let hint = Some(format!("give the agent's identity `{right}` for `*` in its policy"));
                    if action == Action::List {
                        BackendError::Unlisted { what, hint }
                    } else {
                        BackendError::Identity { what, hint }
                    }
                }
            }
            Self::Refused(Class::BadLogin, code) => BackendError::Identity {
                what: format!("back-end `{backend}`: AWS does not accept the agent's credentials ({code})"),
                hint: Some("are they right and not expired, is the region theirs, and is the clock right?".to_owned()),
            },
            Self::Refused(Class::Busy, code) => BackendError::Transient {
                what: format!("back-end `{backend}`: AWS cannot answer now ({code})"),
                hint: Some(
                    "this passes by itself; when throttled, raise `[cache] ttl` or lower `parallelism`".to_owned(),
                ),
            },
            Self::Refused(Class::WrongState, code) => BackendError::Unusable {
                what: format!("back-end `{backend}`: the state of the secret forbids reading it{of} ({code})"),
                hint: Some("`aws secretsmanager describe-secret` shows its state".to_owned()),
            },
            Self::Refused(Class::Unusable, code) => BackendError::Unusable {
                what: format!("back-end `{backend}`: AWS cannot give the value{of} ({code})"),
                hint: Some("is the KMS key of the secret enabled, and may the agent use it?".to_owned()),
            },
            Self::Refused(Class::Unknown, code) => BackendError::Identity {
                what: format!("back-end `{backend}`: the service does not know {right} ({code})"),
                hint: Some(format!("look at `endpoint_url` in [backend.{backend}]")),
            },
            Self::NoLogin(no_login) => no_login.say(backend),
            Self::NoAnswer(fault) => BackendError::Transient {
                what: format!("back-end `{backend}`: no answer of AWS: {}", fault.what),
                hint: Some(fault.hint.clone().unwrap_or_else(|| {
                    format!("is the network up, and are `region` and `endpoint_url` of [backend.{backend}] right?")
                })),
            },
            Self::NoCall(words) => BackendError::Identity {
                what: format!("back-end `{backend}`: {words}"),
                hint: Some(format!("look at `region` and `endpoint_url` in [backend.{backend}]")),
            },
        }
    }
}

impl NoLogin {
    /// Reads what a place of credentials says. The library's own words are not repeated: they may quote a file.
    pub(super) fn of(error: &CredentialsError) -> Self {
        let trouble = find::<Trouble>(error);
        let refusal = find::<ErrorMetadata>(error).and_then(ErrorMetadata::code);
        let is_none_of_its_own = refusal.is_none() && is_of_sts(error);
        let what = match (error, trouble, refusal) {
            (CredentialsError::CredentialsNotLoaded(_), ..) => "none of the usual places has any".to_owned(),
            (CredentialsError::ProviderTimedOut(_), ..) => return Self::slow(),
            (CredentialsError::InvalidConfiguration(_), ..) => "their configuration is wrong".to_owned(),
            (_, Some(trouble), _) => format!("their source cannot be asked: {trouble}"),
            (_, None, Some(code)) => format!("their source refuses them ({code})"),
            (_, None, None) if is_none_of_its_own => "what answers is not STS, or is in trouble".to_owned(),
            (_, None, None) => "their source failed".to_owned(),
        };
        let may_pass = match (error, trouble, refusal) {
            (CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_), ..) => false,
            (_, Some(Trouble::Network(_)), _) => true,
            (_, None, Some(code)) => class_of(code, 400) == Class::Busy,
            (_, None, None) => is_none_of_its_own,
            _ => false,
        };
        let hint = match trouble {
            Some(Trouble::Network(fault)) => fault.hint.clone(),
            _ => None,
        };
        Self { fault: NoReply { what, hint }, may_pass }
    }

    /// Their place hangs.
    pub(super) fn slow() -> Self {
        Self { fault: NoReply { what: "their source does not answer in time".to_owned(), hint: None }, may_pass: true }
    }

    /// Says it in the words and class of a back-end.
    pub(super) fn say(&self, backend: &str) -> BackendError {
        let NoReply { what, hint } = &self.fault;
        if self.may_pass {
            return BackendError::Transient {
                what: format!("back-end `{backend}`: no credentials of AWS for now: {what}"),
                hint: Some(hint.clone().unwrap_or_else(|| {
                    "is their source up (STS, a metadata service, a program), and does the network lead there?"
                        .to_owned()
                })),
            };
        }
        BackendError::Identity {
            what: format!("back-end `{backend}`: no credentials of AWS: {what}"),
            hint: Some(
                "give the agent AWS credentials: a role of its machine or pod, AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, or a profile"
                    .to_owned(),
            ),
        }
    }
}

/// Tells whether STS was asked and something came back.
fn is_of_sts(error: &CredentialsError) -> bool {
    find::<AssumeRoleError>(error).is_some() || find::<AssumeRoleWithWebIdentityError>(error).is_some()
}

/// Returns the first error of this type among an error and its sources.
fn find<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Returns the code of an error in XML: AWS's own services speak so before they know who asks, and so do stand-ins.
fn code_in_xml(body: &[u8]) -> Option<String> {
    const MOST: usize = 64;
    let text = std::str::from_utf8(body).ok().filter(|text| text.trim_start().starts_with('<'))?;
    let (code, _) = text.split_once("<Code>")?.1.split_once("</Code>")?;
    let is_code = !code.is_empty() && code.len() <= MOST && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_code.then(|| code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_decides_and_the_status_only_where_it_is_unknown() {
        use Class::{BadLogin, Busy, Denied, NotFound, Unknown, Unusable, WrongState};
        let table: &[(&[&str], u16, Class)] = &[
            (&["ResourceNotFoundException"], 400, NotFound),
            (&["ResourceNotFoundException"], 404, NotFound),
            (&["ResourceNotFoundException"], 500, NotFound),
            (&["InvalidRequestException"], 400, WrongState),
            (&["AccessDeniedException", "AccessDenied"], 400, Denied),
            (&["AccessDeniedException"], 403, Denied),
            (&["UnrecognizedClientException", "ExpiredTokenException", "ExpiredToken"], 400, BadLogin),
            (&["InvalidClientTokenId", "SignatureDoesNotMatch", "InvalidSignatureException"], 403, BadLogin),
            (&["IncompleteSignature", "MissingAuthenticationToken", "AuthFailure", "RequestExpired"], 401, BadLogin),
            (&["ThrottlingException", "Throttling", "TooManyRequestsException", "SlowDown"], 400, Busy),
            (&["InternalServiceError", "InternalFailure", "ServiceUnavailable"], 500, Busy),
            (&["InvalidNextTokenException"], 400, Busy),
            (&["DecryptionFailure", "DecryptionFailureException", "InvalidParameterException"], 400, Unusable),
            (&["UnknownOperationException", "InvalidAction", "NotImplemented"], 501, Unknown),
            (&["SomethingNew"], 500, Busy),
            (&["SomethingNew"], 503, Busy),
            (&["SomethingNew"], 429, Busy),
            (&["SomethingNew"], 401, BadLogin),
            (&["SomethingNew"], 403, BadLogin),
            (&["SomethingNew"], 400, Unusable),
            (&["SomethingNew"], 404, Unusable),
        ];
        for (codes, status, class) in table {
            for code in *codes {
                assert_eq!(class_of(code, *status), *class, "{code} {status}");
            }
        }
    }

    #[test]
    fn a_refusal_is_of_one_secret_only_where_a_policy_can_be() {
        let denied = Failure::Refused(Class::Denied, "AccessDeniedException".to_owned());
        for action in [Action::Get, Action::Describe] {
            let error = denied.say("store", action, Some("db"));
            assert!(matches!(error, BackendError::Denied { .. }), "{error:?}");
            assert!(error.hint().is_some_and(|hint| hint.contains(action.right())), "{error:?}");
        }
        for action in [Action::List, Action::BatchGet] {
            let error = denied.say("store", action, None);
            assert_eq!(matches!(error, BackendError::Unlisted { .. }), action == Action::List, "{error:?}");
            assert!(matches!(error.clone().of_lists_alone(), BackendError::Identity { .. }), "{error:?}");
            assert!(error.hint().is_some_and(|hint| hint.contains(action.right())), "{error:?}");
        }
    }

    #[test]
    fn a_source_of_credentials_that_cannot_be_asked_may_be_asked_again() {
        let unreachable = Trouble::Network(NoReply { what: "no connection".to_owned(), hint: None });
        for (error, may_pass, words) in [
            (CredentialsError::provider_error(unreachable), true, "cannot be asked: no connection"),
            (CredentialsError::provider_timed_out(std::time::Duration::from_secs(1)), true, "in time"),
            (CredentialsError::not_loaded("canary"), false, "none of the usual places"),
            (CredentialsError::invalid_configuration("canary"), false, "configuration"),
            (CredentialsError::provider_error("canary"), false, "failed"),
        ] {
            let found = NoLogin::of(&error);
            assert_eq!(found.may_pass, may_pass, "{error:?}");
            assert!(found.fault.what.contains(words) && !format!("{found:?}").contains("canary"), "{found:?}");
        }
    }

    #[test]
    fn a_code_is_read_from_xml_and_from_nothing_else() {
        let xml =
            b"<?xml version=\"1.0\"?>\n<Response><Errors><Error><Code>AccessDenied</Code></Error></Errors></Response>";
        assert_eq!(code_in_xml(xml).as_deref(), Some("AccessDenied"));
        for body in ["", "Code", "<html>403</html>", "<Code></Code>", "<Code>a b</Code>", "{\"a\": \"<Code>X</Code>\"}"]
        {
            assert_eq!(code_in_xml(body.as_bytes()), None, "{body}");
        }
    }
}
