//! `auth = "aws"`: Vault is handed a signed request to AWS's own "who am I" (`sts:GetCallerIdentity`) and sends it itself,
//! so no key of AWS ever leaves this host (Vault's "iam" type of login).

#[cfg(feature = "aws")]
pub(super) use self::signed::AwsLogin;

/// No program without AWS's library has one.
#[cfg(not(feature = "aws"))]
pub(super) struct AwsLogin(std::convert::Infallible);

#[cfg(not(feature = "aws"))]
impl AwsLogin {
    /// Errors: always, in a program that has no library for AWS's credentials.
    pub(super) fn new(
        _: &keyside_config::settings::BackendSettings,
        _role: Option<String>,
        _header_value: Option<String>,
        words: &super::error::Words,
    ) -> Result<Self, super::BackendError> {
        Err(words.identity("this program was built without logins by \"aws\"", "build it with `--features vault,aws`"))
    }

    /// Never called: there is no such login.
    pub(super) async fn body(
        &self,
        _: &super::error::Words,
    ) -> Result<keyside_protocol::json::SecretBuffer, super::BackendError> {
        match self.0 {}
    }

    /// Never called: there is no such login.
    pub(super) fn forget(&self) {
        match self.0 {}
    }
}

#[cfg(feature = "aws")]
mod signed {
    use std::time::SystemTime;

    use aws_credential_types::Credentials;
    use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
    use aws_sigv4::sign::v4;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use keyside_config::settings::BackendSettings;
    use keyside_protocol::json::SecretBuffer;

    use super::super::super::BackendError;
    use super::super::super::aws::signer::Signer;
    use super::super::error::Words;
    use super::super::login::object;

    // The global endpoint: what Vault asks unless it is configured otherwise, and what ZenML's client signs.
    const URL: &str = "https://sts.amazonaws.com/";
    const HOST: &str = "sts.amazonaws.com";
    const REGION: &str = "us-east-1";
    const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
    const CONTENT_TYPE: &str = "application/x-www-form-urlencoded; charset=utf-8";

    /// By which a server tells requests that were signed for it from those that were signed for another one.
    const SERVER_ID: &str = "X-Vault-AWS-IAM-Server-ID";

    /// A login with the credentials of AWS's default chain.
    pub(in super::super) struct AwsLogin {
        role: Option<String>,
        header_value: Option<String>,
        signer: Signer,
    }

    impl AwsLogin {
        /// Looks for no credentials yet. Errors: `Identity` where the network's settings cannot be used.
        pub(in super::super) fn new(
            settings: &BackendSettings,
            role: Option<String>,
            header_value: Option<String>,
            _: &Words,
        ) -> Result<Self, BackendError> {
            let signer = Signer::new(settings, None, None, settings.timeout)?;
            Ok(Self { role, header_value, signer })
        }

        /// Returns the body of a login.
        ///
        /// Errors: `Identity` when there are no credentials, `Transient` when their source does not answer.
        pub(in super::super) async fn body(&self, words: &Words) -> Result<SecretBuffer, BackendError> {
            let credentials = self.signer.credentials().await?;
            let (role, header_value) = (self.role.as_deref(), self.header_value.as_deref());
            signed(role, header_value, credentials, SystemTime::now()).ok_or_else(|| {
                words.identity("the login by \"aws\" cannot be signed", "look at the credentials of AWS")
            })
        }

        /// Takes in that a login was refused: the next one is signed with credentials that are looked for anew.
        pub(in super::super) fn forget(&self) {
            self.signer.forget();
        }
    }

    /// Returns the body of a login with these credentials.
    pub(super) fn signed(
        role: Option<&str>,
        header_value: Option<&str>,
        credentials: Credentials,
        now: SystemTime,
    ) -> Option<SecretBuffer> {
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
        let mut headers = vec![("Host", HOST), ("Content-Type", CONTENT_TYPE)];
        headers.extend(header_value.map(|value| (SERVER_ID, value)));
        let request =
            SignableRequest::new("POST", URL, headers.iter().copied(), SignableBody::Bytes(BODY.as_bytes())).ok()?;
        let (signature, _) = sign(request, &parameters).ok()?.into_parts();
        let headers: Vec<(&str, Option<&str>)> =
            headers.into_iter().chain(signature.headers()).map(|(name, value)| (name, Some(value))).collect();
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

    /// A login, as its body and the headers of the request that Vault is to send.
    fn login(header_value: Option<&str>) -> (Value, Value) {
        let credentials = Credentials::new("AKIDEXAMPLE", "canary-secret", Some("session".into()), None, "test");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        let body = signed(Some("dev"), header_value, credentials, now).expect("signed");
        let body: Value = serde_json::from_slice(body.expose()).expect("JSON");
        let headers = serde_json::from_str(&decoded(&body, "iam_request_headers")).expect("JSON");
        (body, headers)
    }

    fn decoded(body: &Value, key: &str) -> String {
        let bytes = STANDARD.decode(body[key].as_str().expect("text")).expect("base64");
        String::from_utf8(bytes).expect("text")
    }

    fn signed_headers(headers: &Value) -> &str {
        let authorization = headers["authorization"].as_str().expect("signed");
        let scope = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/sts/aws4_request, SignedHeaders=";
        let rest = authorization.strip_prefix(scope).unwrap_or_else(|| panic!("{authorization}"));
        rest.split_once(',').expect("a signature").0
    }

    #[test]
    fn the_login_hands_over_a_signed_request_and_no_key() {
        let (body, headers) = login(None);
        assert_eq!(body["role"], "dev");
        assert_eq!(body["iam_http_request_method"], "POST");
        assert_eq!(decoded(&body, "iam_request_url"), "https://sts.amazonaws.com/");
        assert_eq!(decoded(&body, "iam_request_body"), "Action=GetCallerIdentity&Version=2011-06-15");
        assert_eq!(headers["Host"], "sts.amazonaws.com");
        assert_eq!(headers["x-amz-date"], "20150830T123600Z");
        assert_eq!(headers["x-amz-security-token"], "session");
        assert_eq!(signed_headers(&headers), "content-type;host;x-amz-date;x-amz-security-token");
        assert!(!body.to_string().contains("canary") && !headers.to_string().contains("canary"));
    }

    #[test]
    fn what_the_server_demands_in_its_own_header_is_sent_and_signed() {
        let (_, plain) = login(None);
        assert!(!plain.to_string().to_ascii_lowercase().contains("x-vault"), "{plain}");
        let (_, headers) = login(Some("vault.example.com"));
        assert_eq!(headers["X-Vault-AWS-IAM-Server-ID"], "vault.example.com");
        let names = "content-type;host;x-amz-date;x-amz-security-token;x-vault-aws-iam-server-id";
        assert_eq!(signed_headers(&headers), names);
        // It is part of what is signed, not only named.
        assert_ne!(headers["authorization"], login(Some("another.example.com")).1["authorization"]);
    }
}
