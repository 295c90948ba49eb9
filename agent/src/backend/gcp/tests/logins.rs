//! Ways to log in, and what becomes of a login that is refused.

use std::time::Duration;

use keyside_config::settings::{GcpLogin, SecretText};
use serde_json::json;
use zeroize::Zeroizing;

use super::super::super::Scopes;
use super::super::super::faulty::{Answer, Faulty, Reply};
use super::{Options, class, failure, owned, pairs, text};
use crate::backend::certificates::Authority;
use crate::backend::outages;

const VALUE: &str = r#"{"name": "projects/12/secrets/db/versions/1", "payload": {"data": "djE="}}"#;

fn unauthenticated() -> Answer {
    Reply::json(401, r#"{"error": {"code": 401, "message": "canary", "status": "UNAUTHENTICATED"}}"#).into()
}

/// A server of secrets and of tokens: the `calls_to("/token")`-th token is `user-N`, and only `accepted` ones are let in.
async fn server(accepted: impl Fn(&str) -> bool + Send + Sync + 'static) -> Faulty {
    let issued = std::sync::atomic::AtomicUsize::new(0);
    Faulty::start(move |request| {
        if request.path() == "/token" {
            let number = issued.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            let token = json!({ "access_token": format!("user-{number}"), "expires_in": 3599, "token_type": "Bearer" });
            return Reply::json(200, token.to_string()).into();
        }
        match request.header("authorization").and_then(|header| header.strip_prefix("Bearer ")) {
            Some(token) if accepted(token) => Reply::json(200, VALUE).into(),
            _ => unauthenticated(),
        }
    })
    .await
}

fn user(server: &Faulty) -> GcpLogin {
    let json = json!({
        "type": "authorized_user", "client_id": "c", "client_secret": "canary", "refresh_token": "canary",
        "token_uri": format!("{}/token", server.url()), "quota_project_id": "payer",
    });
    GcpLogin::Json(text(&json.to_string()))
}

#[tokio::test]
async fn one_login_serves_all_calls() {
    let server = server(|token| token == "user-1").await;
    let opened = Options { login: user(&server), ..Options::at(&server.url()) }.open();
    assert_eq!(server.calls(), 0, "nobody has asked yet");
    let reads = (0..8).map(|_| opened.reader.fetch("db", Scopes::PrivateFirst));
    for result in futures_util::future::join_all(reads).await {
        assert!(result.is_ok());
    }
    assert_eq!(pairs(&opened, "db").await, owned(&[("value", "v1")]));
    assert_eq!((server.calls_to("/token"), server.calls_to(":access")), (1, 9));
    let request = server.requests().into_iter().find(|request| request.path() != "/token").expect("a call");
    assert_eq!(request.header("x-goog-user-project"), Some("payer"));
}

#[tokio::test]
async fn a_wave_of_refusals_leads_to_one_new_login() {
    let server = server(|token| token == "user-2").await;
    let opened = Options { login: user(&server), parallelism: 8, ..Options::at(&server.url()) }.open();
    let reads = (0..8).map(|_| opened.reader.fetch("db", Scopes::PrivateFirst));
    for result in futures_util::future::join_all(reads).await {
        assert!(result.is_ok(), "{:?}", result.err());
    }
    assert_eq!(server.calls_to("/token"), 2);
    assert!(server.calls_to(":access") <= 16, "{}", server.calls_to(":access"));
}

#[tokio::test]
async fn a_login_that_stays_refused_is_tried_once_more_and_no_further() {
    let server = server(|_| false).await;
    let opened = Options { login: user(&server), ..Options::at(&server.url()) }.open();
    let error = failure(&opened, "db").await;
    assert_eq!(class(&error), "identity");
    assert!(!format!("{error:?}").contains("canary"));
    assert_eq!((server.calls_to("/token"), server.calls_to(":access")), (2, 2));
}

#[tokio::test]
async fn a_token_file_that_changes_is_read_again_when_its_token_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "old\n").expect("written");
    let server = server(|token| token == "new").await;
    let login = GcpLogin::Token(SecretText {
        text: Zeroizing::new("old".into()),
        origin: "a file".into(),
        file: Some(file.clone()),
    });
    let opened = Options { login, ..Options::at(&server.url()) }.open();
    assert_eq!(class(&failure(&opened, "db").await), "identity");
    assert_eq!(server.calls(), 1, "the same token again is no use");
    std::fs::write(&file, "new\n").expect("written");
    assert_eq!(pairs(&opened, "db").await, owned(&[("value", "v1")]));
}

#[tokio::test]
async fn a_login_service_that_refuses_us_is_told_from_one_that_is_down() {
    let refusal = json!({ "error": "invalid_grant", "error_description": "canary" }).to_string();
    for (answer, expected) in [
        (Answer::from(Reply::json(400, refusal)), "identity"),
        (Reply::json(401, "{}").into(), "identity"),
        (Reply::json(500, "canary").into(), "transient"),
        (Reply::json(503, "canary").into(), "transient"),
        (Reply::json(429, "canary").into(), "transient"),
        (Answer::Hang, "transient"),
        (Answer::Close, "transient"),
    ] {
        let shown = format!("{answer:?}");
        let server = Faulty::start(move |_| answer.clone()).await;
        let options =
            Options { login: user(&server), timeout: Duration::from_millis(300), ..Options::at(&server.url()) };
        let error = failure(&options.open(), "db").await;
        assert_eq!(class(&error), expected, "{shown}: {error:?}");
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        assert_eq!(server.calls(), 1, "{shown}");
    }
}

#[tokio::test]
async fn a_login_service_that_is_not_to_be_believed_is_an_outage_and_says_what_to_set() {
    let authority = Authority::new("nobody knows it");
    let secrets = Faulty::start(|_| Answer::Close).await;
    // Google's library knows no authority of ours, and a name is only looked at when the authority is known.
    for (certificate, words, hint) in [
        (authority.expired_server(&["127.0.0.1"]), "its certificate has expired", "renew the certificate"),
        (authority.server(&["127.0.0.1"]), "of an authority that is not known", "SSL_CERT_FILE"),
    ] {
        let server = Faulty::start_tls(&certificate, |_| Answer::Close).await;
        let opened = Options { login: user(&server), ..Options::at(&secrets.url()) }.open();
        outages::check(&failure(&opened, "db").await, words, words, hint);
        assert_eq!((server.connections(), server.calls(), secrets.calls()), (1, 0, 0), "{words}");
    }
}

#[tokio::test]
async fn a_login_that_failed_is_made_anew_by_the_next_call() {
    let server = Faulty::start(|_| Reply::json(400, r#"{"error": "invalid_grant"}"#).into()).await;
    let opened = Options { login: user(&server), ..Options::at(&server.url()) }.open();
    assert_eq!(class(&failure(&opened, "db").await), "identity");
    server.follow(|request| match request.path() {
        "/token" => Reply::json(200, r#"{"access_token": "t", "expires_in": 3599, "token_type": "Bearer"}"#).into(),
        _ => Reply::json(200, VALUE).into(),
    });
    assert_eq!(pairs(&opened, "db").await, owned(&[("value", "v1")]));
}

#[tokio::test]
async fn credentials_that_cannot_be_used_are_named_and_not_quoted() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        GcpLogin::File(path)
    };
    let other = r#"{"type": "service_account", "universe_domain": "other.example"}"#;
    for (login, words) in [
        (GcpLogin::File(folder.path().join("none.json")), "none.json"),
        (GcpLogin::File(folder.path().to_owned()), "cannot be read"),
        (file("text.json", "canary"), "text.json"),
        (file("list.json", "[\"canary\"]"), "list.json"),
        (file("type.json", r#"{"type": "canary"}"#), "type.json"),
        (file("part.json", r#"{"type": "service_account", "private_key": "canary"}"#), "part.json"),
        (file("user.json", r#"{"type": "authorized_user", "refresh_token": 12}"#), "user.json"),
        (file("external.json", r#"{"type": "external_account", "audience": "canary"}"#), "external.json"),
        (GcpLogin::Json(text("canary")), "a variable"),
        (GcpLogin::Token(text("canary\nof two lines")), "login fails"),
    ] {
        let server = Faulty::start(|_| Answer::Close).await;
        let opened = Options { login, ..Options::at(&server.url()) }.open();
        let error = failure(&opened, "db").await;
        assert_eq!(class(&error), "identity", "{error:?}");
        assert!(error.to_string().contains(words) && !format!("{error:?}").contains("canary"), "{error:?}");
        assert_eq!(server.calls(), 0);
    }
    let opened = Options { endpoint: None, login: file("universe.json", other), ..Options::at("") }.open();
    let error = failure(&opened, "db").await;
    assert!(class(&error) == "identity" && error.to_string().contains("universe"), "{error:?}");
}

#[tokio::test]
async fn a_key_that_is_none_fails_as_a_login() {
    let key = json!({
        "type": "service_account", "client_email": "r@p", "private_key_id": "1", "private_key": "canary", "project_id": "p",
    });
    let server = Faulty::start(|_| Answer::Close).await;
    let opened = Options { login: GcpLogin::Json(text(&key.to_string())), ..Options::at(&server.url()) }.open();
    let error = failure(&opened, "db").await;
    assert_eq!(class(&error), "identity");
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");
}
