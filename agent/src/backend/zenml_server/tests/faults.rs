//! Whatever a server may answer: the class, and the number of calls.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::backend::faulty::{Faulty, refused_url};

/// Replies that are the same fault wherever they come.
fn faults() -> Vec<(&'static str, Answer)> {
    let whole = |text: &str| Reply::json(200, text);
    let html = Reply::bytes(200, "<html>maintenance</html>").header("Content-Type", "text/html");
    vec![
        ("500", raised(500, "RuntimeError")),
        ("501", raised(501, "NotImplementedError")),
        ("502", Reply::bytes(502, "<html>bad gateway</html>").into()),
        ("503", Reply::bytes(503, "no healthy upstream").into()),
        ("504", Reply::bytes(504, "").into()),
        ("402", raised(402, "SubscriptionUpgradeRequired")),
        ("429", raised(429, "MaxConcurrentTasks")),
        ("408", Reply::bytes(408, "").into()),
        ("bare 404", Reply::bytes(404, "default backend - 404").into()),
        ("404 of the framework", Reply::json(404, r#"{"detail":"Not Found"}"#).into()),
        ("redirect", Reply::bytes(302, "").header("Location", "http://127.0.0.1:9/elsewhere").into()),
        ("HTML", html.into()),
        ("empty", whole("").into()),
        ("null", whole("null").into()),
        ("empty object", whole("{}").into()),
        ("not UTF-8", Reply::bytes(200, b"{\"version\":\"0.98.0\",\"x\":\"\xff\"}".as_slice()).into()),
        ("cut off", Answer::Truncated(whole(r#"{"version":"0.98.0"}"#), 8)),
        ("endless", Answer::Endless(whole(""))),
        ("gzip bomb", Answer::GzipBomb),
        ("garbage", Answer::Garbage),
        ("closed", Answer::Close),
    ]
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
            let backend = open(&server.url(), api_key("key"));
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
async fn a_server_that_hangs_costs_the_time_of_one_call() {
    let body = Reply::json(200, r#"{"version":"0.98.0"}"#);
    for answer in [Answer::Hang, Answer::HangAfter(body.clone(), 5), Answer::Trickle(body)] {
        for end in ["/info", ID] {
            let fault = answer.clone();
            let server = Faulty::start(
                move |request| {
                    if request.path().ends_with(end) { fault.clone() } else { healthy(request) }
                },
            )
            .await;
            let backend = open_with(&server.url(), None, 1000, Duration::from_millis(300));
            check_error(&error(&backend, "a").await, "transient", "did not answer in time", "doctor");
            assert_eq!(server.calls_to(end), 1);
        }
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_transient() {
    let refused = open(&refused_url(), None);
    check_error(&error(&refused, "a").await, "transient", "no connection", "is it up");
    let unknown = open("http://keyside-does-not-exist.invalid", None);
    check_error(&error(&unknown, "a").await, "transient", "no connection", "address");
    assert!(refused.list().await.expect_err("refused").is_transient());
    assert!(refused.describe(&["a"], Scopes::PrivateFirst).await.expect_err("refused").is_transient());
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
async fn a_value_over_the_limit_is_unusable() {
    let server = Faulty::start(healthy).await;
    let backend = open_with(&server.url(), None, CANARY.len() as u64 - 1, Duration::from_secs(8));
    check_error(&error(&backend, "a").await, "unusable", "key `k` of secret `a` is too large: 11 bytes", "value");
    let backend = open_with(&server.url(), None, CANARY.len() as u64, Duration::from_secs(8));
    assert_eq!(k(&backend, "a", Scopes::PublicOnly).await, CANARY);
}

#[tokio::test]
async fn a_pause_that_the_server_asks_for_is_kept_and_nonsense_is_not() {
    let check = async |retry_after: &'static str, paused: bool| {
        let server = Faulty::start(move |request| {
            if request.path().ends_with("/secrets") {
                Reply::json(429, r#"{"detail":"slow down"}"#).header("Retry-After", retry_after).into()
            } else {
                healthy(request)
            }
        })
        .await;
        let backend = open(&server.url(), None);
        check_error(&error(&backend, "a").await, "transient", "too many requests", "ttl");
        let before = server.calls();
        server.follow(healthy);
        if paused {
            check_error(&error(&backend, "a").await, "transient", "asked to be left alone, for ", "try again then");
            assert!(backend.list().await.expect_err("paused").is_transient());
            assert_eq!(server.calls(), before, "no call: {retry_after}");
            let seconds = error(&backend, "a").await.to_string();
            let seconds = seconds.split(' ').find_map(|word| word.parse::<u64>().ok()).expect("seconds");
            assert!(seconds <= 60, "{retry_after}: {seconds}");
        } else {
            assert_eq!(k(&backend, "a", Scopes::PrivateFirst).await, CANARY, "{retry_after}");
        }
    };
    check("30", true).await;
    check("18446744073709551615", true).await;
    for nonsense in ["0", "", "soon", "-5", "1e9", "99999999999999999999999", "Wed, 21 Oct 2065 07:28:00 GMT"] {
        check(nonsense, false).await;
    }
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
