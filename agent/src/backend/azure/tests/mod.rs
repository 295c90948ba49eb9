//! Key Vault and its logins, on a server that misbehaves on a script and on the fake vault of `tests/peers`.

mod earlier;
mod faults;
mod logins;
mod outages;
mod peer;

use crate::backend::contract::class;
use std::time::Duration;

use keyside_config::settings::{
    AzureLogin, AzureSettings, BackendKind, BackendSettings, Layout, NetworkSettings, SecretText,
};

use super::super::faulty::{Answer, Reply, Request};
use super::super::{BackendError, Opened, Scopes, Secret};

const LIMIT: u64 = 4096;

fn text(text: &str) -> SecretText {
    SecretText { text: text.to_owned().into(), origin: "variable `SECRET`".into(), file: None }
}

fn principal(secret: &str) -> AzureLogin {
    AzureLogin::ServicePrincipal { client_id: "client".into(), tenant_id: "tenant".into(), client_secret: text(secret) }
}

fn plain() -> Layout {
    Layout::Plain { prefix: String::new() }
}

fn settings(url: &str, login: AzureLogin, layout: Layout) -> BackendSettings {
    let azure = AzureSettings { vault_url: url.into(), login, authority: Some(url.into()), layout };
    BackendSettings {
        name: "kv".into(),
        kind: BackendKind::Azure(azure),
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
    super::super::open(settings, LIMIT).expect("opens")
}

async fn fetch(opened: &Opened, name: &str) -> Result<Secret, BackendError> {
    opened.reader.fetch(name, Scopes::PrivateFirst).await
}

async fn error(opened: &Opened, name: &str) -> BackendError {
    match fetch(opened, name).await {
        Ok(_) => panic!("{name} was found"),
        Err(error) => error,
    }
}

fn shown(secret: &Secret) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    secret.values.iter().map(|(key, value)| format!("{key}={};", text(value.expose()))).collect()
}

/// Answers as Entra and the challenge do, and as `vault` does for a request with a token.
fn azure(request: &Request, vault: impl FnOnce(&Request, &str) -> Answer) -> Answer {
    if request.path().ends_with("/oauth2/v2.0/token") {
        return given("token");
    }
    match request.header("authorization").and_then(|value| value.strip_prefix("Bearer ")) {
        Some(token) => vault(request, token),
        None => challenge(),
    }
}

fn given(token: &str) -> Answer {
    let body =
        format!(r#"{{"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": "{token}"}}"#);
    Reply::json(200, body).into()
}

fn challenge() -> Answer {
    let body = r#"{"error": {"code": "Unauthorized", "message": "AKV10000"}}"#;
    let scheme = r#"Bearer authorization="https://login.invalid/tenant", resource="https://vault.azure.net""#;
    Reply::json(401, body).header("WWW-Authenticate", scheme).into()
}

fn secret(name: &str, value: &str) -> Reply {
    let attributes = r#"{"enabled": true, "created": 1700000000, "updated": 1700000000}"#;
    let id = format!("https://v.vault.azure.net/secrets/{name}/0123456789abcdef0123456789abcdef");
    let value = serde_json::to_string(value).expect("text");
    Reply::json(200, format!(r#"{{"value": {value}, "id": "{id}", "attributes": {attributes}}}"#))
}

fn refusal(status: u16, code: &str, inner: &str) -> Reply {
    let body = format!(r#"{{"error": {{"code": "{code}", "message": "m", "innererror": {{"code": "{inner}"}}}}}}"#);
    Reply::json(status, body)
}
