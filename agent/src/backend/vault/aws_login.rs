//! `auth = "aws"`: Vault is handed a signed request to AWS's own "who am I" (`sts:GetCallerIdentity`) and sends it itself,
//! so no key of AWS ever leaves this host (Vault's "iam" type of login).

use keyside_protocol::json::SecretBuffer;

use super::super::BackendError;
use super::error::Words;

/// A login with the credentials of AWS's default chain.
pub(super) struct AwsLogin {
    #[cfg_attr(not(feature = "aws"), expect(dead_code, reason = "a program without the library cannot be opened so"))]
    role: Option<String>,
}

#[cfg(not(feature = "aws"))]
impl AwsLogin {
    /// Errors: always, in a program that has no library for AWS's credentials.
    pub(super) fn new(_role: Option<String>, words: &Words) -> Result<Self, BackendError> {
        Err(words.identity("this program was built without logins by \"aws\"", "build it with `--features vault,aws`"))
    }

    /// Never called: there is no such login.
    pub(super) async fn body(&self, words: &Words) -> Result<SecretBuffer, BackendError> {
        Err(words.identity("this program was built without logins by \"aws\"", "build it with `--features vault,aws`"))
    }
}

#[cfg(feature = "aws")]
mod signed {
    use std::time::SystemTime;

    use aws_credential_types::Credentials;
    use aws_credential_types::provider::ProvideCredentials as _;
    use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
    use aws_sigv4::sign::v4;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::super::login::object;
    use super::{AwsLogin, BackendError, SecretBuffer, Words};

    // The global endpoint: what Vault asks unless it is configured otherwise, and what ZenML's client signs.
    const URL: &str = "https://sts.amazonaws.com/";
    const HOST: &str = "sts.amazonaws.com";
    const REGION: &str = "us-east-1";
    const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
    const CONTENT_TYPE: &str = "application/x-www-form-urlencoded; charset=utf-8";

    impl AwsLogin {
        pub(in super::super) fn new(role: Option<String>, _words: &Words) -> Result<Self, BackendError> {
            Ok(Self { role })
        }

        /// Returns the body of a login. Errors: `Identity` when AWS's default chain has no credentials.
        pub(in super::super) async fn body(&self, words: &Words) -> Result<SecretBuffer, BackendError> {
            let chain = aws_config::defaults(aws_config::BehaviorVersion::v2026_01_12()).load().await;
            let none = || {
                words.identity(
                    "AWS's default chain has no credentials to log in with",
                    "set AWS_PROFILE or AWS_ACCESS_KEY_ID, or give the host or pod a role",
                )
            };
            let provider = chain.credentials_provider().ok_or_else(none)?;
            // The library's own words may name files and variables, but also what stands in them.
            let credentials = provider.provide_credentials().await.map_err(|_| none())?;
            signed(self.role.as_deref(), credentials, SystemTime::now()).ok_or_else(|| {
                words.identity("the login by \"aws\" cannot be signed", "look at the credentials of AWS")
            })
        }
    }

    /// Returns the body of a login with these credentials.
    pub(super) fn signed(role: Option<&str>, credentials: Credentials, now: SystemTime) -> Option<SecretBuffer> {
        let identity = credentials.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(REGION)
            .name("sts")
            .time(now)
            .settings(SigningSettings::default())
            .build()
            .ok()?
            .into();
        let headers = [("host", HOST), ("content-type", CONTENT_TYPE)];
        let request =
            SignableRequest::new("POST", URL, headers.into_iter(), SignableBody::Bytes(BODY.as_bytes())).ok()?;
        let (signature, _) = sign(request, &parameters).ok()?.into_parts();
        let names = [("Host", HOST), ("Content-Type", CONTENT_TYPE)];
        let headers: Vec<(&str, Option<&str>)> =
            names.into_iter().chain(signature.headers()).map(|(name, value)| (name, Some(value))).collect();
        // expose: the signed headers, encoded once more as Vault wants them.
        let headers = STANDARD.encode(object(&headers).expose());
        Some(object(&[
            ("role", role),
            ("iam_http_request_method", Some("POST")),
            ("iam_request_url", Some(&STANDARD.encode(URL))),
            ("iam_request_body", Some(&STANDARD.encode(BODY))),
            ("iam_request_headers", Some(&headers)),
        ]))
    }
}

#[cfg(all(test, feature = "aws"))]
mod tests {
    use std::time::{Duration, SystemTime};

    use aws_credential_types::Credentials;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::Value;

    use super::signed::signed;

    #[test]
    fn the_login_hands_over_a_signed_request_and_no_key() {
        let credentials = Credentials::new("AKIDEXAMPLE", "canary-secret", Some("session".into()), None, "test");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        let body = signed(Some("dev"), credentials, now).expect("signed");
        let body: Value = serde_json::from_slice(body.expose()).expect("JSON");
        let decoded = |key: &str| {
            let bytes = STANDARD.decode(body[key].as_str().expect("text")).expect("base64");
            String::from_utf8(bytes).expect("text")
        };
        assert_eq!(body["role"], "dev");
        assert_eq!(body["iam_http_request_method"], "POST");
        assert_eq!(decoded("iam_request_url"), "https://sts.amazonaws.com/");
        assert_eq!(decoded("iam_request_body"), "Action=GetCallerIdentity&Version=2011-06-15");
        let headers: Value = serde_json::from_str(&decoded("iam_request_headers")).expect("JSON");
        assert_eq!(headers["Host"], "sts.amazonaws.com");
        assert_eq!(headers["x-amz-date"], "20150830T123600Z");
        assert_eq!(headers["x-amz-security-token"], "session");
        let authorization = headers["authorization"].as_str().expect("signed");
        let scope = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/sts/aws4_request, ";
        assert!(authorization.starts_with(scope), "{authorization}");
        assert!(authorization.contains("SignedHeaders=content-type;host;x-amz-date;x-amz-security-token"));
        assert!(!body.to_string().contains("canary") && !headers.to_string().contains("canary"));
    }
}
