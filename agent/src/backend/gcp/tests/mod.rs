//! The back-end on servers that misbehave, and on the stand-in that the official client passes on, too.

mod contract;
mod earlier;
mod faults;
mod logins;
mod on_real;
mod outages;
mod peer;
mod refusals;

pub(super) use crate::backend::contract::class;
use std::time::Duration;

use keyside_config::settings::{
    BackendKind, BackendSettings, GcpLogin, GcpSettings, Layout, ManagerScope, NetworkSettings, SecretText,
};
use zeroize::Zeroizing;

use super::super::{BackendError, Opened, Scopes};

/// Everything that a test may say about a back-end.
pub(super) struct Options {
    pub(super) endpoint: Option<String>,
    pub(super) project: &'static str,
    pub(super) login: GcpLogin,
    pub(super) impersonate: Option<String>,
    pub(super) layout: Layout,
    pub(super) network: NetworkSettings,
    pub(super) timeout: Duration,
    pub(super) parallelism: usize,
    pub(super) writable: bool,
    pub(super) max_value: u64,
}

impl Options {
    /// A back-end of layout `plain` at `url`, with a token that every peer accepts.
    pub(super) fn at(url: &str) -> Self {
        Self {
            endpoint: Some(url.to_owned()),
            project: "p",
            login: GcpLogin::Token(text("reader")),
            impersonate: None,
            layout: Layout::Plain { prefix: String::new() },
            network: NetworkSettings::default(),
            timeout: Duration::from_secs(5),
            parallelism: 4,
            writable: false,
            max_value: 1024 * 1024,
        }
    }

    pub(super) fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    pub(super) fn try_open(self) -> Result<Opened, BackendError> {
        let gcp = GcpSettings {
            project: self.project.to_owned(),
            endpoint: self.endpoint,
            login: self.login,
            impersonate: self.impersonate,
            layout: self.layout,
        };
        let settings = BackendSettings {
            name: "cloud".into(),
            kind: BackendKind::Gcp(gcp),
            required: true,
            parallelism: self.parallelism,
            timeout: self.timeout,
            ttl: None,
            writable: self.writable,
            denied_means_absent: false,
            network: self.network,
        };
        super::super::open(&settings, self.max_value)
    }

    pub(super) fn open(self) -> Opened {
        self.try_open().unwrap_or_else(|error| panic!("{error}"))
    }
}

pub(super) fn text(text: &str) -> SecretText {
    SecretText { text: Zeroizing::new(text.to_owned()), origin: "a variable".into(), file: None }
}

pub(super) fn namespace(name: &str) -> Layout {
    Layout::Manager(ManagerScope::Namespace(name.to_owned()))
}

/// Reads a secret that cannot be read.
pub(super) async fn failure(opened: &Opened, name: &str) -> BackendError {
    match opened.reader.fetch(name, Scopes::PrivateFirst).await {
        Ok(_) => panic!("{name} was read"),
        Err(error) => error,
    }
}

/// Reads a secret's pairs as text.
pub(super) async fn pairs(opened: &Opened, name: &str) -> Vec<(String, String)> {
    match opened.reader.fetch(name, Scopes::PrivateFirst).await {
        Ok(secret) => shown(&secret.values),
        Err(error) => panic!("{name}: {error}, {:?}", error.hint()),
    }
}

pub(super) fn shown(values: &keyside_protocol::value::SecretValues) -> Vec<(String, String)> {
    values.iter().map(|(key, value)| (key.to_owned(), String::from_utf8_lossy(value.expose()).into_owned())).collect()
}

pub(super) fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
