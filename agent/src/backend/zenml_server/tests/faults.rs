//! Whatever a server may answer: the class, and the number of calls.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::backend::faulty::Faulty;
use crate::backend::outages;

/// Replies that say nothing of a secret wherever they come.
fn faults() -> impl Iterator<Item = (&'static str, Answer)> {
    let own = [
        ("500 in ZenML's words", raised(500, "RuntimeError")),
        ("402", raised(402, "SubscriptionUpgradeRequired")),
        ("429 in ZenML's words", raised(429, "MaxConcurrentTasks")),
        ("408", Reply::bytes(408, "").into()),
        ("404 of the framework", Reply::json(404, r#"{"detail":"Not Found"}"#).into()),
    ];
    outages::faults().into_iter().chain(own)
}

#[tokio::test]
async fn a_server_that_fails_says_nothing_about_a_secret() {
    for end in ["/info", "/login", "/secrets", ID] {
        for (what, fault) in faults() {
            // A login that is missing as such is another thing: keys are tokens, too.
            if end == "/login" && what.contains("404") {
                continue;
            }
            let answer = fault.clone();
            let server = Faulty::start(
                move |request| {
                    if request.path().ends_with(end) { answer.clone() } else { healthy(request) }
                },
            )
            .await;
            let backend = open_with(&server.url(), api_key("key"), 1024 * 1024, Duration::from_millis(700));
            let error = error(&backend, "a").await;
            assert_eq!(class(&error), "transient", "{end} {what}: {error}");
            assert!(!format!("{error:?}").contains(CANARY), "{error:?}");
            assert_eq!(server.calls_to(end), 1, "{end} {what}: no try but the first");
            server.follow(healthy);
            assert_eq!(k(&backend, "a", Scopes::PrivateFirst).await, CANARY, "{end} {what}: it recovers");
            assert!(server.calls() < 10, "{end} {what}: {}", server.calls());
        }
    }
}

#[tokio::test]
async fn a_secret_is_absent_only_when_zenml_says_so_and_lists_it_no_more() {
    // Deleted between the list and the look: the list decides.
    let deleted = Arc::new(AtomicUsize::new(0));
    let looks = Arc::clone(&deleted);
    let server = Faulty::start(move |request| match request.path() {
        path if path.ends_with(ID) => {
            looks.fetch_add(1, Ordering::SeqCst);
            raised(404, "KeyError")
        }
        "/api/v1/secrets" if looks.load(Ordering::SeqCst) > 0 => Reply::json(200, one_page(&[])).into(),
        _ => healthy(request),
    })
    .await;
    assert_eq!(error(&open(&server.url(), None), "a").await, BackendError::NotFound);
    assert_eq!((server.calls_to("/secrets"), server.calls_to(ID)), (2, 1));

    // Still listed: its values cannot be decoded, which ZenML says in the same words.
    let server = Faulty::start(|request| match request.path() {
        path if path.ends_with(ID) => raised(404, "KeyError"),
        _ => healthy(request),
    })
    .await;
    let backend = open(&server.url(), None);
    check_error(
        &error(&backend, "a").await,
        "unusable",
        "lists secret `a` but cannot read its values",
        "encryption key",
    );

    let server = Faulty::start(healthy).await;
    let backend = open(&server.url(), None);
    assert_eq!(error(&backend, "b").await, BackendError::NotFound);
    assert_eq!(server.calls(), 2, "what the server is, and one list");
}

#[tokio::test]
async fn refusals_are_told_apart_by_what_was_asked() {
    let check = async |end: &'static str, answer: Answer, expected: &str, words: &str, hint: &str| {
        let server =
            Faulty::start(move |request| if request.path().ends_with(end) { answer.clone() } else { healthy(request) })
                .await;
        let backend = open(&server.url(), api_key("key"));
        check_error(&error(&backend, "a").await, expected, words, hint);
        assert_eq!(server.calls_to(end), 1, "{end}");
    };
    let forbidden = || raised(403, "IllegalOperationError");
    check(ID, forbidden(), "denied", "refuses this secret", "right to read its values").await;
    check("/secrets", forbidden(), "identity", "no right to list secrets", "api_key_env").await;
    check("/login", forbidden(), "identity", "forbids us everything", "api_key_env").await;
    check("/login", raised(401, "CredentialsNotValid"), "identity", "refuses our login", "api_key_env").await;
}

#[tokio::test]
async fn a_value_that_is_null_is_a_missing_right() {
    for values in [r#"{"k":null}"#, r#"{"j":"canary-3f9c","k":null}"#] {
        let body = format!(r#""private":false,"values":{values}"#);
        let server = Faulty::start(move |request| {
            if request.path().ends_with(ID) { Reply::json(200, item(ID, "a", &body)).into() } else { healthy(request) }
        })
        .await;
        let backend = open(&server.url(), None);
        check_error(&error(&backend, "a").await, "denied", "without its values", "right to read secret values");
    }
}

#[tokio::test]
async fn a_key_that_stands_twice_is_no_answer_and_the_next_one_is() {
    let twice = format!(r#""private":false,"values":{{"k":"{CANARY}","k":"other"}}"#);
    let server = Faulty::start(move |request| {
        if request.path().ends_with(ID) { Reply::json(200, item(ID, "a", &twice)).into() } else { healthy(request) }
    })
    .await;
    let backend = open(&server.url(), None);
    check_error(&error(&backend, "a").await, "transient", "not what ZenML's server sends", "");
    assert_eq!(server.calls_to(ID), 1);
    server.follow(healthy);
    assert_eq!(k(&backend, "a", Scopes::PrivateFirst).await, CANARY);
}

#[tokio::test]
async fn a_value_over_the_limit_is_unusable() {
    let server = Faulty::start(healthy).await;
    let backend = open_with(&server.url(), None, CANARY.len() as u64 - 1, Duration::from_secs(8));
    check_error(&error(&backend, "a").await, "unusable", "key `k` of secret `a` is too large: 11 bytes", "value");
    let backend = open_with(&server.url(), None, CANARY.len() as u64, Duration::from_secs(8));
    assert_eq!(k(&backend, "a", Scopes::PublicOnly).await, CANARY);
}

#[tokio::test]
async fn the_version_of_a_young_change_is_in_doubt() {
    let server = Faulty::start(|request| match healthy(request) {
        Answer::Reply(reply) => reply.header("Date", "Thu, 01 Jan 2026 00:00:03 GMT").into(),
        other => other,
    })
    .await;
    let backend = open(&server.url(), None);
    let young = backend.fetch("a", Scopes::PrivateFirst).await.expect("a secret").description.version;
    let listed = backend.list().await.expect("list").remove(0).version;
    assert_eq!(young, format!("{listed}~"));
    backend.own_writes.remember(listed.clone());
    let own = backend.fetch("a", Scopes::PrivateFirst).await.expect("a secret").description.version;
    assert_eq!(own, listed, "what we wrote ourselves was answered");
}

#[tokio::test]
async fn the_server_may_become_another_version() {
    let server = Faulty::start(|request| match request.path() {
        "/api/v1/info" => Reply::json(200, r#"{"version":"0.43.1"}"#).into(),
        "/api/v1/current-user" | "/api/v1/workspaces/default" => Reply::json(200, format!(r#"{{"id":"{ID}"}}"#)).into(),
        "/api/v1/secrets" => Reply::json(200, one_page(&[])).into(),
        _ => healthy(request),
    })
    .await;
    let backend = open(&server.url(), None);
    assert_eq!(error(&backend, "a").await, BackendError::NotFound);
    server.follow(healthy);
    check_error(&error(&backend, "a").await, "transient", "changed to another version", "try again");
    assert_eq!(k(&backend, "a", Scopes::PrivateFirst).await, CANARY);
}
