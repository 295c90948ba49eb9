//! The back-end on a scripted server, and on real ones.

mod contract;
mod faults;
mod logins;
mod outages;
mod pages;
mod peer;
mod real;
mod writes;

pub(super) use crate::backend::contract::class;
use std::sync::Arc;
use std::time::Duration;

use keyside_config::settings::{
    BackendKind, BackendSettings, NetworkSettings, SecretText, ServerLogin, ZenmlServerSettings,
};
use keyside_protocol::value::{SecretValue, SecretValues};
use zeroize::Zeroizing;

use super::super::faulty::{Answer, Reply, Request};
use super::super::{Backend, BackendError, Scopes};
use super::ZenmlServer;
use super::client::Client;
use super::list::Listings;
use crate::backend::own_writes::OwnWrites;

pub(super) const ID: &str = "11be8523-7e1c-46a2-89c5-74b124f573a8";

/// A value that no error may show.
pub(super) const CANARY: &str = "canary-3f9c";

pub(super) fn secret_text(text: &str) -> SecretText {
    SecretText { text: Zeroizing::new(text.to_owned()), origin: "`api_key_env` (variable `KEY`)".into(), file: None }
}

pub(super) fn api_key(text: &str) -> Option<ServerLogin> {
    Some(ServerLogin::ApiKey(secret_text(text)))
}

pub(super) fn user(name: &str, password: &str) -> Option<ServerLogin> {
    Some(ServerLogin::Password { username: name.to_owned(), password: secret_text(password) })
}

pub(super) fn open(url: &str, login: Option<ServerLogin>) -> Arc<ZenmlServer> {
    open_with(url, login, 1024 * 1024, Duration::from_secs(8))
}

pub(super) fn open_with(url: &str, login: Option<ServerLogin>, max_value: u64, timeout: Duration) -> Arc<ZenmlServer> {
    open_over(url, login, max_value, timeout, NetworkSettings::default())
}

pub(super) fn open_over(
    url: &str,
    login: Option<ServerLogin>,
    max_value: u64,
    timeout: Duration,
    network: NetworkSettings,
) -> Arc<ZenmlServer> {
    let server = || ZenmlServerSettings { url: url.to_owned(), login: None, workspace: None };
    let settings = BackendSettings {
        name: "store".into(),
        kind: BackendKind::ZenmlServer(server()),
        required: true,
        parallelism: 8,
        timeout,
        ttl: None,
        writable: true,
        denied_means_absent: false,
        network,
    };
    let server = ZenmlServerSettings { login, ..server() };
    Arc::new(ZenmlServer {
        client: Client::new(&settings, &server, max_value).expect("settings that can work"),
        max_value,
        listings: Listings::new(None),
        own_writes: OwnWrites::default(),
    })
}

pub(super) fn values(pairs: &[(&str, &str)]) -> SecretValues {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), SecretValue::copy_of(value.as_bytes()))).collect()
}

pub(super) fn shown(values: &SecretValues) -> Vec<(String, String)> {
    let text = |value: &SecretValue| String::from_utf8(value.expose().to_vec()).expect("text");
    values.iter().map(|(key, value)| (key.to_owned(), text(value))).collect()
}

/// The value of `k`.
pub(super) async fn k(backend: &ZenmlServer, name: &str, scopes: Scopes) -> String {
    match backend.fetch(name, scopes).await {
        Ok(secret) => {
            let pairs = shown(&secret.values);
            pairs.into_iter().find(|(key, _)| key == "k").expect("a key `k`").1
        }
        Err(error) => panic!("{name}: {error}, {:?}", error.hint()),
    }
}

pub(super) async fn error(backend: &ZenmlServer, name: &str) -> BackendError {
    match backend.fetch(name, Scopes::PrivateFirst).await {
        Ok(_) => panic!("{name} was found"),
        Err(error) => error,
    }
}

/// Checks class, words of the error, and words of the hint.
pub(super) fn check_error(error: &BackendError, expected: &str, words: &str, hint: &str) {
    assert_eq!(class(error), expected, "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert!(error.hint().unwrap_or_default().contains(hint), "{error}: {:?}", error.hint());
    let text = error.to_string();
    assert!(!text.contains('\n') && !text.ends_with('.'), "one line without a stop: {text}");
    assert!(!format!("{error:?}").contains(CANARY), "{error:?}");
}

/// An item of a list, public, as ZenML 0.98 sends it; `more` stands behind its body's first members.
pub(super) fn item(id: &str, name: &str, more: &str) -> String {
    let owner = "c8a56173-ecb5-4035-927e-9e597d2218db";
    format!(
        r#"{{"body":{{"created":"2026-01-01T00:00:00.000000","updated":"2026-01-01T00:00:01.000000","user_id":"{owner}",{more}}},"metadata":null,"resources":null,"id":"{id}","permission_denied":false,"name":"{name}"}}"#
    )
}

/// A list of one page.
pub(super) fn one_page(items: &[String]) -> String {
    let (total, items) = (items.len(), items.join(","));
    format!(r#"{{"index":1,"max_size":20,"total_pages":1,"total":{total},"items":[{items}]}}"#)
}

/// A server of ZenML 0.98 with the public secret `a`, which takes any login.
pub(super) fn healthy(request: &Request) -> Answer {
    let get = request.method == "GET";
    match request.path() {
        "/api/v1/info" if get => Reply::json(200, r#"{"version":"0.98.0"}"#).into(),
        "/api/v1/login" => Reply::json(200, r#"{"access_token":"token","token_type":"bearer"}"#).into(),
        "/api/v1/secrets" if get => {
            let query = request.query();
            let asked =
                !query.contains("name=") || query.contains("name=equals:a&") || query.ends_with("name=equals:a");
            let asked = asked || query.contains("name=oneof:") && query.contains("%22a%22");
            let items = if asked { vec![item(ID, "a", r#""private":false,"values":{}"#)] } else { Vec::new() };
            Reply::json(200, one_page(&items)).into()
        }
        path if get && path.ends_with(ID) => {
            let body = format!(r#""private":false,"values":{{"k":"{CANARY}"}}"#);
            Reply::json(200, item(ID, "a", &body)).into()
        }
        _ => Reply::json(404, r#"{"detail":"Not Found"}"#).into(),
    }
}

/// An error as ZenML's own code sends it.
pub(super) fn raised(status: u16, class: &str) -> Answer {
    Reply::json(status, format!(r#"{{"detail":["{class}","{CANARY}"]}}"#)).into()
}
