//! The back-end on a server that follows a script, and on a real one.

mod earlier;
mod faults;
mod logins;
mod openbao;
mod outages;
mod real;
mod stores;

use std::sync::Arc;
use std::time::Duration;

use keyside_config::settings::{
    BackendKind, BackendSettings, Layout, ManagerScope, NetworkSettings, SecretText, VaultLogin, VaultSettings,
};
use keyside_protocol::value::SecretValues;
use zeroize::Zeroizing;

use super::super::faulty::{Answer, Reply, Request};
use super::super::{Backend, BackendError, Opened, Scopes};

/// A value that must turn up nowhere but in values.
pub(super) const CANARY: &str = "canary-4f1d";

/// How a test opens the back-end.
pub(super) struct Options {
    pub(super) url: String,
    pub(super) network: NetworkSettings,
    pub(super) mount: &'static str,
    pub(super) namespace: Option<&'static str>,
    pub(super) kv: u8,
    pub(super) login: VaultLogin,
    pub(super) auth_mount: Option<&'static str>,
    pub(super) layout: Layout,
    pub(super) timeout: Duration,
    pub(super) max_value: u64,
    pub(super) writable: bool,
}

pub(super) fn plain(prefix: &str) -> Layout {
    Layout::Plain { prefix: prefix.to_owned() }
}

pub(super) fn text(text: &str) -> SecretText {
    SecretText { text: Zeroizing::new(text.to_owned()), origin: "`token_env` (variable X)".to_owned(), file: None }
}

pub(super) fn file(path: &std::path::Path) -> SecretText {
    SecretText {
        text: Zeroizing::default(),
        origin: format!("`token_file` (file {})", path.display()),
        file: Some(path.to_owned()),
    }
}

impl Options {
    pub(super) fn at(url: String) -> Self {
        Self {
            url,
            network: NetworkSettings::default(),
            mount: "secret",
            namespace: None,
            kv: 2,
            login: VaultLogin::Token(text("s.root")),
            auth_mount: None,
            layout: plain(""),
            timeout: Duration::from_secs(20),
            max_value: 4096,
            writable: false,
        }
    }

    pub(super) fn try_open(self) -> Result<Opened, BackendError> {
        let vault = VaultSettings {
            url: self.url,
            mount: self.mount.to_owned(),
            namespace: self.namespace.map(str::to_owned),
            kv: self.kv,
            login: self.login,
            auth_mount: self.auth_mount.map(str::to_owned),
            layout: self.layout,
        };
        super::super::open(
            &BackendSettings {
                name: "team".to_owned(),
                kind: BackendKind::Vault(vault),
                required: true,
                parallelism: 8,
                timeout: self.timeout,
                ttl: None,
                writable: self.writable,
                denied_means_absent: false,
                network: self.network,
            },
            self.max_value,
        )
    }

    pub(super) fn open(self) -> Opened {
        self.try_open().unwrap_or_else(|error| panic!("{error}"))
    }

    pub(super) fn reader(self) -> Arc<dyn Backend> {
        self.open().reader
    }
}

pub(super) async fn fetch(backend: &dyn Backend, name: &str) -> Result<Vec<(String, String)>, BackendError> {
    let secret = backend.fetch(name, Scopes::PrivateFirst).await?;
    Ok(shown(&secret.values))
}

pub(super) async fn failure(backend: &dyn Backend, name: &str) -> BackendError {
    match backend.fetch(name, Scopes::PrivateFirst).await {
        Ok(_) => panic!("{name} was found"),
        Err(error) => error,
    }
}

pub(super) fn shown(values: &SecretValues) -> Vec<(String, String)> {
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).expect("text");
    values.iter().map(|(key, value)| (key.to_owned(), text(value.expose()))).collect()
}

pub(super) fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Vault's answer to a read of version 2.
pub(super) fn data(values: &str) -> Answer {
    let metadata =
        r#"{"created_time": "2026-01-02T03:04:05.678901234Z", "deletion_time": "", "destroyed": false, "version": 3}"#;
    Reply::json(200, format!(r#"{{"request_id": "r", "data": {{"data": {values}, "metadata": {metadata}}}}}"#)).into()
}

pub(super) fn errors(status: u16, text: &str) -> Answer {
    let body = if text.is_empty() { r#"{"errors": []}"#.to_owned() } else { format!(r#"{{"errors": ["{text}"]}}"#) };
    Reply::json(status, body).into()
}

/// What a server answers to everything that is not the secret in question: no mount is known, every token is alive.
pub(super) fn otherwise(request: &Request) -> Answer {
    match request.path() {
        "/v1/auth/token/lookup-self" => Reply::json(200, r#"{"data": {"ttl": 0}}"#).into(),
        "/v1/sys/internal/ui/mounts/secret" => {
            Reply::json(200, r#"{"data": {"type": "kv", "options": {"version": "2"}}}"#).into()
        }
        _ => errors(404, ""),
    }
}

#[test]
fn a_back_end_that_is_to_be_written_is_refused_and_says_why() {
    let error = Options { writable: true, ..Options::at("https://vault.example.com".into()) }.try_open().err();
    let Some(BackendError::Identity { what, hint }) = error else { panic!("it opened") };
    assert!(what.contains("cannot be written") && hint.is_some_and(|hint| hint.contains("`writable`")), "{what}");
}

#[test]
fn a_prefix_that_leads_out_of_its_mount_is_refused() {
    let options = Options { layout: plain("app/../../sys"), ..Options::at("https://vault.example.com".into()) };
    assert!(matches!(options.try_open().err(), Some(BackendError::Identity { .. })));
    let component = Layout::Manager(ManagerScope::Component("..".into()));
    let options = Options { layout: component, ..Options::at("https://vault.example.com".into()) };
    assert!(matches!(options.try_open().err(), Some(BackendError::Identity { .. })));
}
