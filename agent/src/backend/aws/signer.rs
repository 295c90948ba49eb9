//! Credentials for whoever only signs with them: RDS takes a signed address for a password, Vault a signed request for a
//! login.

use std::time::{Duration, SystemTime};

use aws_config::Region;
use aws_config::web_identity_token::{StaticConfiguration, WebIdentityTokenCredentialsProvider};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::{HttpClient, SharedHttpClient};
use keyside_config::settings::{AwsRole, BackendSettings};
use tokio::sync::{Mutex, OnceCell};

use super::super::BackendError;
use super::error::NoLogin;
use super::session::{SESSION_NAME, assumed, loader, provider_config};
use super::transport::Transport;
use crate::clock::Tick;

/// The largest reply of a source of credentials.
const MOST_BODY: usize = 1 << 20;

/// Credentials are replaced so long before they expire: what is signed with them ends with them.
const MARGIN: Duration = Duration::from_secs(60);

/// For how long those are kept that do not expire: their file may hold others by then. AWS's own clients do the same.
const KEPT: Duration = Duration::from_secs(15 * 60);

/// Finds the credentials of one back-end, keeps them, and replaces them before they expire.
pub(in super::super) struct Signer {
    backend: String,
    /// `None` asks the default chain.
    region: Option<String>,
    role: Option<AwsRole>,
    http: SharedHttpClient,
    patience: Duration,
    /// Where they come from; made by the first call.
    source: OnceCell<SharedCredentialsProvider>,
    /// Locked while they are looked for, so that all who want them wait for one search.
    held: Mutex<Option<Held>>,
}

struct Held {
    credentials: Credentials,
    until: Tick,
}

impl Signer {
    /// Takes the settings; looks for no credentials yet. A search takes at most `patience`.
    ///
    /// Errors: `Identity` where the network's settings cannot be used.
    pub(in super::super) fn new(
        settings: &BackendSettings,
        region: Option<String>,
        role: Option<AwsRole>,
        patience: Duration,
    ) -> Result<Self, BackendError> {
        let transport = Transport::new(settings, MOST_BODY)?;
        Ok(Self::over(transport, &settings.name, region, role, patience))
    }

    fn over(
        http: impl HttpClient + 'static,
        backend: &str,
        region: Option<String>,
        role: Option<AwsRole>,
        patience: Duration,
    ) -> Self {
        Self {
            backend: backend.to_owned(),
            region,
            role,
            http: SharedHttpClient::new(http),
            patience,
            source: OnceCell::new(),
            held: Mutex::new(None),
        }
    }

    /// Takes its credentials from somewhere else.
    #[cfg(test)]
    pub(in super::super) fn with_source(
        mut self,
        source: impl aws_credential_types::provider::ProvideCredentials + 'static,
    ) -> Self {
        self.source = OnceCell::new_with(Some(SharedCredentialsProvider::new(source)));
        self
    }

    /// Returns credentials that hold for a while.
    ///
    /// Errors: `Identity` when there are none or they are refused, `Transient` when their source does not answer.
    pub(in super::super) async fn credentials(&self) -> Result<Credentials, BackendError> {
        match tokio::time::timeout(self.patience, self.look()).await {
            Ok(found) => found,
            Err(_) => Err(NoLogin::slow().say(&self.backend)),
        }
    }

    /// Takes in that what was signed is refused: the next call looks for other credentials.
    pub(in super::super) fn forget(&self) {
        // Locked: somebody looks for them already.
        if let Ok(mut held) = self.held.try_lock() {
            *held = None;
        }
    }

    async fn look(&self) -> Result<Credentials, BackendError> {
        let mut held = self.held.lock().await;
        if let Some(held) = held.as_ref().filter(|held| Tick::now() < held.until) {
            return Ok(held.credentials.clone());
        }
        let source = self.source.get_or_init(|| self.make()).await;
        let found = source.provide_credentials().await;
        let credentials = found.map_err(|error| NoLogin::of(&error).say(&self.backend))?;
        let until = Tick::now().after(kept(&credentials, SystemTime::now()));
        *held = Some(Held { credentials: credentials.clone(), until });
        Ok(credentials)
    }

    async fn make(&self) -> SharedCredentialsProvider {
        let region = self.region.clone().map(Region::new);
        if let Some(AwsRole::ByWebIdentity { arn, token_file }) = &self.role {
            let token = StaticConfiguration {
                web_identity_token_file: token_file.clone(),
                role_arn: arn.clone(),
                session_name: SESSION_NAME.to_owned(),
            };
            let provider = WebIdentityTokenCredentialsProvider::builder().static_configuration(token);
            let provider = provider.configure(&provider_config(region, self.http.clone())).build();
            return SharedCredentialsProvider::new(provider);
        }
        let mut loader = loader(self.http.clone());
        if let Some(region) = region {
            loader = loader.region(region);
        }
        let config = Box::pin(loader.load()).await;
        match &self.role {
            Some(AwsRole::ByChain { arn }) => assumed(arn, &config).await,
            _ => config.credentials_provider().expect("the loader was not told to have none"),
        }
    }
}

/// Returns for how long credentials are kept that were found at `now`.
fn kept(credentials: &Credentials, now: SystemTime) -> Duration {
    match credentials.expiry() {
        Some(expiry) => expiry.duration_since(now).unwrap_or_default().saturating_sub(MARGIN),
        None => KEPT,
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::{Arc, Mutex, PoisonError};

    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
    };
    use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
    use aws_smithy_types::body::SdkBody;

    use super::super::super::http::NoReply;
    use super::super::transport::Trouble;
    use super::*;

    const GRANTED: &str = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
        <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIAROLE</AccessKeyId>\
        <SecretAccessKey>canary</SecretAccessKey><SessionToken>canary</SessionToken>\
        <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
        </AssumeRoleWithWebIdentityResponse>";
    const REFUSED: &str = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error>\
        <Type>Sender</Type><Code>AccessDenied</Code><Message>canary</Message></Error></ErrorResponse>";

    /// What stands for STS.
    #[derive(Debug, Clone, Copy)]
    enum Answer {
        Reply(u16, &'static str),
        Unreachable,
        Silence,
    }

    #[derive(Debug, Clone)]
    struct Sts {
        answer: Answer,
        asked: Arc<Mutex<Vec<String>>>,
    }

    impl Sts {
        fn new(answer: Answer) -> Self {
            Self { answer, asked: Arc::default() }
        }

        fn asked(&self) -> Vec<String> {
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }
    }

    impl HttpClient for Sts {
        fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
            SharedHttpConnector::new(self.clone())
        }
    }

    impl HttpConnector for Sts {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            let body = String::from_utf8_lossy(request.body().bytes().unwrap_or_default()).into_owned();
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.push(format!("{} {body}", request.uri()));
            let answer = self.answer;
            HttpConnectorFuture::new(async move {
                match answer {
                    Answer::Reply(status, body) => {
                        Ok(HttpResponse::new(status.try_into().expect("a status"), SdkBody::from(body)))
                    }
                    Answer::Unreachable => Err(ConnectorError::io(
                        Trouble::Network(NoReply { what: "no connection".into(), hint: None }).into(),
                    )),
                    Answer::Silence => std::future::pending().await,
                }
            })
        }
    }

    /// Signs as the role of a pod whose token lies in `token_file`.
    fn signer(sts: &Sts, token_file: &Path) -> Signer {
        let role = AwsRole::ByWebIdentity { arn: "arn:aws:iam::1:role/x".into(), token_file: token_file.to_owned() };
        Signer::over(sts.clone(), "store", Some("eu-central-1".into()), Some(role), Duration::from_secs(3))
    }

    fn token_file(folder: &tempfile::TempDir) -> PathBuf {
        let file = folder.path().join("token");
        std::fs::write(&file, "the.pods.token").expect("a file");
        file
    }

    #[tokio::test]
    async fn a_pod_s_token_is_handed_in_once_for_many_signatures_and_again_when_one_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let sts = Sts::new(Answer::Reply(200, GRANTED));
        let signer = signer(&sts, &token_file(&folder));
        for _ in 0..3 {
            assert_eq!(signer.credentials().await.expect("granted").access_key_id(), "ASIAROLE");
        }
        let asked = sts.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        let expected = [
            "https://sts.eu-central-1.amazonaws.com/ ",
            "Action=AssumeRoleWithWebIdentity&",
            "RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fx",
            "WebIdentityToken=the.pods.token",
        ];
        assert!(expected.iter().all(|part| asked[0].contains(part)), "{asked:?}");
        signer.forget();
        signer.credentials().await.expect("granted");
        assert_eq!(sts.asked().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_keeps_credentials_from_being_had_has_its_class_and_a_bound() {
        let folder = tempfile::tempdir().expect("a folder");
        let check = async |answer, file: &Path, is_transient: bool, words: &str| {
            let error = signer(&Sts::new(answer), file).credentials().await.expect_err("none");
            assert_eq!(error.is_transient(), is_transient, "{error}");
            assert_eq!(matches!(error, BackendError::Identity { .. }), !is_transient, "{error}");
            assert!(error.to_string().contains(words) && !error.to_string().contains("canary"), "{error}");
            assert!(error.hint().is_some(), "{error}");
        };
        let file = token_file(&folder);
        check(
            Answer::Reply(403, REFUSED),
            &file,
            false,
            "back-end `store`: no credentials of AWS: their source refuses",
        )
        .await;
        check(Answer::Reply(403, REFUSED), &file, false, "(AccessDenied)").await;
        check(Answer::Reply(200, GRANTED), &folder.path().join("absent"), false, "their source failed").await;
        check(Answer::Unreachable, &file, true, "no credentials of AWS for now: their source cannot be asked").await;
        check(Answer::Silence, &file, true, "their source does not answer in time").await;
    }

    #[test]
    fn credentials_are_kept_until_shortly_before_they_expire() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let check = |lifetime: Option<u64>, expected: u64| {
            let expiry = lifetime.map(|seconds| now + Duration::from_secs(seconds));
            let credentials = Credentials::new("AKID", "x", None, expiry, "test");
            assert_eq!(kept(&credentials, now), Duration::from_secs(expected), "{lifetime:?}");
        };
        check(None, 900);
        check(Some(3600), 3540);
        check(Some(60), 0);
        check(Some(0), 0);
        let expired = Credentials::new("AKID", "x", None, Some(now - Duration::from_secs(5)), "test");
        assert_eq!(kept(&expired, now), Duration::ZERO);
    }
}
