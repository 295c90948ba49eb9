//! Logging in: how, how often, and what is said when it fails.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;

use super::*;
use crate::backend::faulty::Faulty;

/// A server that takes only the token of the last login.
struct Tokens {
    valid: Mutex<Option<String>>,
    logins: AtomicUsize,
    /// Logins are refused.
    revoked: Mutex<bool>,
}

impl Tokens {
    fn new() -> Arc<Self> {
        Arc::new(Self { valid: Mutex::new(None), logins: AtomicUsize::new(0), revoked: Mutex::new(false) })
    }

    fn answer(&self, request: &Request) -> Answer {
        match request.path() {
            "/api/v1/info" => healthy(request),
            "/api/v1/login" if *self.revoked.lock().unwrap() => raised(401, "CredentialsNotValid"),
            "/api/v1/login" => {
                let token = format!("token-{}", self.logins.fetch_add(1, Ordering::SeqCst));
                *self.valid.lock().unwrap() = Some(format!("Bearer {token}"));
                Reply::json(200, format!(r#"{{"access_token":"{token}"}}"#)).into()
            }
            _ if request.header("authorization") == self.valid.lock().unwrap().as_deref() => healthy(request),
            _ => raised(401, "CredentialsNotValid"),
        }
    }

    async fn serve(self: &Arc<Self>) -> Faulty {
        let tokens = Arc::clone(self);
        Faulty::start(move |request| tokens.answer(request)).await
    }

    fn expire(&self) {
        *self.valid.lock().unwrap() = Some("nothing".into());
    }
}

#[tokio::test]
async fn a_wave_of_refusals_is_one_login() {
    let tokens = Tokens::new();
    let server = tokens.serve().await;
    let backend = open(&server.url(), api_key("key"));
    join_all((0..50).map(|_| k(&backend, "a", Scopes::PrivateFirst))).await;
    assert_eq!(server.calls_to("/login"), 1, "fifty cold readers");
    for round in 2..4 {
        tokens.expire();
        join_all((0..50).map(|_| k(&backend, "a", Scopes::PrivateFirst))).await;
        assert_eq!(server.calls_to("/login"), round, "fifty readers with an expired token");
    }
}

#[tokio::test]
async fn a_revoked_login_is_tried_once_for_all_and_not_again_for_a_while() {
    let tokens = Tokens::new();
    let server = tokens.serve().await;
    let backend = open(&server.url(), api_key("key"));
    k(&backend, "a", Scopes::PrivateFirst).await;
    tokens.expire();
    *tokens.revoked.lock().unwrap() = true;
    for error in join_all((0..50).map(|_| error(&backend, "a"))).await {
        check_error(&error, "identity", "refuses our login", "check `api_key_env` (variable `KEY`)");
    }
    assert_eq!(server.calls_to("/login"), 2);
    let before = server.calls();
    check_error(&error(&backend, "a").await, "identity", "refuses our login", "revoked");
    assert_eq!(server.calls(), before, "no call at all for a while");
}

#[tokio::test]
async fn a_token_that_is_refused_right_after_its_login_is_not_renewed_for_ever() {
    let server = Faulty::start(|request| match request.path() {
        "/api/v1/info" | "/api/v1/login" => healthy(request),
        _ => raised(401, "CredentialsNotValid"),
    })
    .await;
    let backend = open(&server.url(), user("default", ""));
    for error in join_all((0..20).map(|_| error(&backend, "a"))).await {
        check_error(&error, "identity", "refuses our login", "user `default`");
    }
    assert_eq!(server.calls_to("/login"), 2, "the first, and one more");
}

#[tokio::test]
async fn a_key_file_that_changes_is_tried_at_once() {
    let tokens = Tokens::new();
    *tokens.revoked.lock().unwrap() = true;
    let server = tokens.serve().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("key");
    std::fs::write(&file, "old").expect("the key");
    let mut text = secret_text("old");
    text.file = Some(file.clone());
    let backend = open(&server.url(), Some(ServerLogin::ApiKey(text)));
    assert_eq!(class(&error(&backend, "a").await), "identity");
    *tokens.revoked.lock().unwrap() = false;
    assert_eq!(class(&error(&backend, "a").await), "identity", "the old key is given a pause");
    std::fs::write(&file, "new").expect("the key");
    assert_eq!(k(&backend, "a", Scopes::PrivateFirst).await, CANARY);
    let forms: Vec<_> =
        server.requests().iter().filter(|one| one.path().ends_with("/login")).map(Request::text).collect();
    assert_eq!(forms, ["grant_type=zenml-api-key&password=old", "grant_type=zenml-api-key&password=new"]);
    std::fs::remove_file(&file).expect("gone");
    tokens.expire();
    check_error(&error(&backend, "a").await, "identity", "cannot be read", "api_key_env");
}

#[tokio::test]
async fn each_way_to_log_in_sends_what_zenml_expects() {
    let check = async |login: Option<ServerLogin>, form: Option<&str>, bearer: Option<&str>| {
        let server = Faulty::start(healthy).await;
        k(&open(&server.url(), login), "a", Scopes::PrivateFirst).await;
        let requests = server.requests();
        let logins: Vec<_> = requests.iter().filter(|one| one.path().ends_with("/login")).map(Request::text).collect();
        assert_eq!(logins.first().map(String::as_str), form);
        let last = requests.last().expect("a request");
        assert_eq!(last.header("authorization"), bearer);
        assert!(last.header("user-agent").is_some_and(|agent| agent.starts_with("keyside/")));
        assert_eq!(last.header("accept-encoding"), None);
    };
    let password = Some("grant_type=password&username=b%20o%26b&password=p%3D%25%2B%C3%BC");
    check(user("b o&b", "p=%+ü"), password, Some("Bearer token")).await;
    check(user("default", ""), Some("grant_type=password&username=default&password="), Some("Bearer token")).await;
    check(api_key("ZENKEY_x=="), Some("grant_type=zenml-api-key&password=ZENKEY_x%3D%3D"), Some("Bearer token")).await;
    check(Some(ServerLogin::ApiToken(secret_text("given"))), None, Some("Bearer given")).await;
    check(None, None, None).await;
}

#[tokio::test]
async fn where_keys_cannot_log_in_they_are_tokens_themselves() {
    for status in [400, 404, 405, 422] {
        let server = Faulty::start(move |request| match request.path() {
            "/api/v1/login" => Reply::json(status, r#"{"detail":"Unsupported grant type"}"#).into(),
            "/api/v1/info" => healthy(request),
            _ if request.header("authorization") == Some("Bearer ZENPROKEY_x") => healthy(request),
            _ => raised(401, "CredentialsNotValid"),
        })
        .await;
        assert_eq!(
            k(&open(&server.url(), api_key("ZENPROKEY_x")), "a", Scopes::PrivateFirst).await,
            CANARY,
            "{status}"
        );
    }
}

#[tokio::test]
async fn an_expired_token_and_a_missing_login_say_what_to_set() {
    let server = Faulty::start(|request| match request.path() {
        "/api/v1/info" => healthy(request),
        _ => raised(401, "CredentialsNotValid"),
    })
    .await;
    let backend = open(&server.url(), Some(ServerLogin::ApiToken(secret_text("old"))));
    check_error(&error(&backend, "a").await, "identity", "refuses our login", "expired");
    assert_eq!(server.calls_to("/login"), 0);
    let backend = open(&server.url(), None);
    check_error(
        &error(&backend, "a").await,
        "identity",
        "asks for a login and none is configured",
        "set `api_key_env`",
    );
    let broken = open(&server.url(), Some(ServerLogin::ApiToken(secret_text("a\nb"))));
    check_error(&error(&broken, "a").await, "identity", "characters that none has", "printable ASCII");
}

#[tokio::test]
async fn a_login_that_is_cut_off_is_taken_over_by_the_next() {
    let server = Faulty::start(|request| match request.path() {
        "/api/v1/login" => Answer::Hang,
        _ => healthy(request),
    })
    .await;
    let backend = open(&server.url(), api_key("key"));
    let cut = tokio::time::timeout(Duration::from_millis(100), backend.fetch("a", Scopes::PrivateFirst)).await;
    assert!(cut.is_err(), "it hangs");
    server.follow(healthy);
    assert_eq!(k(&backend, "a", Scopes::PrivateFirst).await, CANARY);
}
