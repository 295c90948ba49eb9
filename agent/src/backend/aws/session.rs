//! Who we are to AWS: credentials from where the settings say, found at the first call and looked for anew when AWS no
//! longer takes them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::HttpClient;
use keyside_config::settings::{AwsKeys, AwsSettings, SecretText};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::super::BackendError;
use super::transport::{Transport, is_loopback};
use crate::clock::Tick;

/// What a role's session is called in AWS's own logs.
pub(super) const SESSION_NAME: &str = "keyside";

/// The library's own variable for the address of STS.
const STS_ENDPOINT: &str = "AWS_ENDPOINT_URL_STS";

/// Credentials that were never accepted are looked for again after this time; those that were, at once.
const RELOGIN_INTERVAL: Duration = Duration::from_secs(30);

/// Makes clients; one for as long as AWS takes its credentials.
pub(super) struct Session {
    backend: String,
    region: Option<String>,
    endpoint_url: Option<String>,
    profile: Option<String>,
    role_arn: Option<String>,
    keys: Option<AwsKeys>,
    transport: Transport,
    login: Mutex<Arc<Login>>,
}

/// One client with one set of credentials, which it renews itself before they expire.
pub(super) struct Login {
    client: OnceCell<Client>,
    state: Mutex<State>,
}

#[derive(Clone, Copy)]
struct State {
    since: Tick,
    accepted: bool,
}

impl Login {
    fn new() -> Arc<Self> {
        Arc::new(Self { client: OnceCell::new(), state: Mutex::new(State { since: Tick::now(), accepted: false }) })
    }

    /// Takes in that AWS knew who asked.
    pub(super) fn accepted(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).accepted = true;
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Takes the settings; looks for no credentials yet.
    pub(super) fn new(backend: &str, aws: &AwsSettings, transport: Transport) -> Self {
        let keys = aws.keys.as_ref().map(|keys| AwsKeys {
            access_key_id: keys.access_key_id.clone(),
            secret_access_key: keys.secret_access_key.copy(),
            session_token: keys.session_token.as_ref().map(SecretText::copy),
        });
        Self {
            backend: backend.to_owned(),
            region: aws.region.clone(),
            endpoint_url: aws.endpoint_url.clone(),
            profile: aws.profile.clone(),
            role_arn: aws.role_arn.clone(),
            keys,
            transport,
            login: Mutex::new(Login::new()),
        }
    }

    /// Returns the login in force.
    pub(super) fn login(&self) -> Arc<Login> {
        Arc::clone(&self.login.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a new login in the place of `refused`, once for all calls that were refused with it. Tells whether another
    /// try is worth its while.
    pub(super) fn renew(&self, refused: &Arc<Login>) -> bool {
        let mut login = self.login.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&login, refused) {
            return true;
        }
        let state = refused.state();
        if !state.accepted && Tick::now().since(state.since) < RELOGIN_INTERVAL {
            return false;
        }
        tracing::warn!(backend = self.backend, "AWS no longer accepts the credentials; looking for others");
        *login = Login::new();
        true
    }

    /// Returns the client of a login; made by the first call, while others wait for it.
    ///
    /// Errors: `Identity` where no region is known or a file of keys cannot be read.
    pub(super) async fn client<'l>(&self, login: &'l Login) -> Result<&'l Client, BackendError> {
        login.client.get_or_try_init(|| self.make()).await
    }

    /// Returns the profile that is to bring the credentials.
    pub(super) fn profile(&self) -> Option<&str> {
        self.profile.as_deref().filter(|_| self.keys.is_none())
    }

    async fn make(&self) -> Result<Client, BackendError> {
        let mut loader = loader(self.transport.clone());
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &self.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(keys) = &self.keys {
            loader = loader.credentials_provider(self.credentials(keys)?);
        }
        // Boxed, as every large future of the library here: each future that waits for one is no smaller than it.
        let mut config = Box::pin(loader.load()).await;
        if config.region().is_none() {
            return Err(BackendError::Identity {
                what: format!("back-end `{}`: no AWS region is known", self.backend),
                hint: Some(format!("write `region` into [backend.{}], or set AWS_REGION", self.backend)),
            });
        }
        if let Some(profile) = self.profile() {
            // The library's chain asks the environment first; a profile that is named is the one that is meant.
            let provider = provider_config(config.region().cloned(), self.transport.clone());
            let provider = ProfileFileCredentialsProvider::builder().configure(&provider).profile_name(profile).build();
            config = config.into_builder().credentials_provider(SharedCredentialsProvider::new(provider)).build();
        }
        if let Some(role) = &self.role_arn {
            let provider = assumed(role, &self.with_stand_in(&config)).await;
            config = config.into_builder().credentials_provider(provider).build();
        }
        let mut settings = aws_sdk_secretsmanager::config::Builder::from(&config);
        if let Some(url) = &self.endpoint_url {
            settings = settings.endpoint_url(url);
        }
        Ok(Client::from_conf(settings.build()))
    }

    /// A service on this machine stands for all of AWS, STS included; any other address is that of the secrets alone.
    fn with_stand_in(&self, config: &SdkConfig) -> SdkConfig {
        let is_named = config.endpoint_url().is_some() || std::env::var_os(STS_ENDPOINT).is_some();
        match self.endpoint_url.as_ref().filter(|url| is_loopback(url)) {
            Some(url) if !is_named => config.clone().into_builder().endpoint_url(url).build(),
            _ => config.clone(),
        }
    }

    fn credentials(&self, keys: &AwsKeys) -> Result<Credentials, BackendError> {
        let current = |text: &SecretText| -> Result<Zeroizing<String>, BackendError> {
            text.current().map_err(|what| BackendError::Identity {
                what: format!("back-end `{}`: {}: {what}", self.backend, text.origin),
                hint: Some("make the file readable to the agent".to_owned()),
            })
        };
        let token = keys.session_token.as_ref().map(current).transpose()?;
        Ok(Credentials::new(
            keys.access_key_id.clone(),
            current(&keys.secret_access_key)?.as_str(),
            token.map(|token| token.as_str().to_owned()),
            None,
            "keyside",
        ))
    }
}

/// AWS's library as it is set up here, before anything is found.
pub(super) fn loader(http: impl HttpClient + 'static) -> ConfigLoader {
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        // Retries and their pauses are decided above every back-end.
        .retry_config(RetryConfig::disabled())
        // Replies are read whole by our own transport, within its deadline.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
}

/// The same for one place of credentials.
pub(super) fn provider_config(region: Option<Region>, http: impl HttpClient + 'static) -> ProviderConfig {
    ProviderConfig::without_region()
        .with_region(region)
        .with_http_client(http)
        .with_retry_config(RetryConfig::disabled())
}

/// The credentials of a role that is assumed with those of `config`.
pub(super) async fn assumed(role: &str, config: &SdkConfig) -> SharedCredentialsProvider {
    let provider = AssumeRoleProvider::builder(role).session_name(SESSION_NAME).configure(config);
    SharedCredentialsProvider::new(Box::pin(provider.build()).await)
}
