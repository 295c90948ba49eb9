//! The back-end on moto and on ministack, which stand for AWS, and on a fake that misbehaves on a script.

mod contract;
mod earlier;
mod faults;
mod logins;
mod outages;
mod peer;
mod reads;
mod relay;

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::primitives::Blob;
use aws_sdk_secretsmanager::types::Tag;
use keyside_config::settings::{
    AwsKeys, AwsSettings, BackendKind, BackendSettings, Layout, ManagerScope, NetworkSettings, SecretText,
};
use keyside_protocol::value::SecretValues;
use zeroize::Zeroizing;

use super::super::{Backend, BackendError, Opened, Scopes, ValueStore};

const REGION: &str = "eu-central-1";
const MIB: u64 = 1024 * 1024;
pub(super) const DEPLOYMENT: &str = "3f1b6a0e-5a43-4a6c-8f58-9d2b4b1c7e11";

fn plain(prefix: &str) -> Layout {
    Layout::Plain { prefix: prefix.to_owned() }
}

fn secret_text(text: &str) -> SecretText {
    SecretText { text: Zeroizing::new(text.to_owned()), origin: "the test".to_owned(), file: None }
}

fn settings(endpoint: &str, layout: Layout) -> BackendSettings {
    let keys =
        AwsKeys { access_key_id: "AKIATEST".to_owned(), secret_access_key: secret_text("test"), session_token: None };
    let aws = AwsSettings {
        region: Some(REGION.to_owned()),
        endpoint_url: Some(endpoint.to_owned()),
        profile: None,
        role_arn: None,
        keys: Some(keys),
        layout,
    };
    BackendSettings {
        name: "cloud".to_owned(),
        kind: BackendKind::Aws(aws),
        required: true,
        parallelism: 8,
        timeout: Duration::from_secs(8),
        ttl: None,
        writable: false,
        denied_means_absent: false,
        network: NetworkSettings::default(),
    }
}

fn open(settings: &BackendSettings) -> Opened {
    super::super::open(settings, MIB).expect("settings that can work")
}

fn reader(endpoint: &str, layout: Layout) -> Arc<dyn Backend> {
    open(&settings(endpoint, layout)).reader
}

fn values(endpoint: &str) -> Arc<dyn ValueStore> {
    open(&settings(endpoint, Layout::Store)).values.expect("the layout has secrets by id")
}

fn shown(values: &SecretValues) -> Vec<(String, String)> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    values.iter().map(|(key, value)| (key.to_owned(), text(value.expose()))).collect()
}

async fn pairs(backend: &dyn Backend, name: &str) -> Vec<(String, String)> {
    match backend.fetch(name, Scopes::PrivateFirst).await {
        Ok(secret) => shown(&secret.values),
        Err(error) => panic!("{name}: {error}, {:?}", error.hint()),
    }
}

async fn error(backend: &dyn Backend, name: &str) -> BackendError {
    match backend.fetch(name, Scopes::PrivateFirst).await {
        Ok(_) => panic!("{name} was found"),
        Err(error) => error,
    }
}

/// The account from its owner's side, written with AWS's own client.
struct Owner(Client);

impl Owner {
    fn new(endpoint: &str) -> Self {
        let credentials = aws_sdk_secretsmanager::config::Credentials::new("AKIAOWNER", "test", None, None, "test");
        let config = aws_sdk_secretsmanager::Config::builder()
            .behavior_version(aws_config::BehaviorVersion::v2026_01_12())
            .region(aws_config::Region::new(REGION))
            .endpoint_url(endpoint)
            .credentials_provider(credentials)
            .http_client(
                super::transport::Transport::new(&settings(endpoint, Layout::Store), 1 << 24).expect("a client"),
            );
        Self(Client::from_conf(config.build()))
    }

    /// Makes or replaces a secret of text.
    async fn put(&self, place: &str, text: &str, tags: &[(&str, &str)]) {
        let put = self.0.put_secret_value().secret_id(place).secret_string(text).send().await;
        if put.is_err() {
            let tags = tags.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build()).collect();
            let create = self.0.create_secret().name(place).secret_string(text).set_tags(Some(tags));
            create.send().await.expect("a new secret");
        }
    }

    async fn put_bytes(&self, place: &str, bytes: &[u8]) {
        let create = self.0.create_secret().name(place).secret_binary(Blob::new(bytes));
        create.send().await.expect("a new secret");
    }

    /// Writes as ZenML did until 0.53.
    async fn put_tagged(&self, id: &str, name: &str, scope: &str, workspace: &str, text: &str) {
        let tags = [
            ("zenml", DEPLOYMENT),
            ("zenml_secret_id", id),
            ("zenml_secret_name", name),
            ("zenml_secret_scope", scope),
            ("zenml_secret_workspace", workspace),
            ("zenml_secret_user", "7c1d6f0e-0000-4000-8000-000000000001"),
        ];
        self.put(&format!("zenml/{id}"), text, &tags).await;
    }

    async fn remove(&self, place: &str) {
        let delete = self.0.delete_secret().secret_id(place).force_delete_without_recovery(true);
        delete.send().await.expect("deleted");
    }

    async fn mark_for_deletion(&self, place: &str) {
        let delete = self.0.delete_secret().secret_id(place).recovery_window_in_days(7);
        delete.send().await.expect("marked");
    }
}

/// A UUID for the test's own secrets.
fn uuid(number: u32) -> String {
    format!("5e0a1b2c-0000-4000-8000-{number:012}")
}

#[test]
fn settings_that_cannot_work_are_refused_at_once() {
    let check = |change: &dyn Fn(&mut BackendSettings), words: &str| {
        let mut settings = settings("http://127.0.0.1:9", plain(""));
        change(&mut settings);
        let error = super::super::open(&settings, MIB).err().expect(words);
        assert!(matches!(error, BackendError::Identity { .. }), "{error:?}");
        assert!(error.to_string().contains(words) && error.hint().is_some(), "{error:?}");
    };
    check(&|settings| settings.writable = true, "only read");
    check(&|settings| settings.network.ca_file = Some("/nowhere/ca.pem".into()), "/nowhere/ca.pem");
    let layout = |layout: Layout| {
        move |settings: &mut BackendSettings| {
            if let BackendKind::Aws(aws) = &mut settings.kind {
                aws.layout = layout.clone();
            }
        }
    };
    check(&layout(plain("a b/")), "prefix");
    check(&layout(Layout::Manager(ManagerScope::Namespace("a:b".to_owned()))), "namespace");
}
