//! A server that misbehaves: the class of the error, and the number of calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyside_config::settings::Layout;
use serde_json::json;

use super::super::super::faulty::{Answer, Faulty, Reply, Request};
use super::super::super::{BackendError, Scopes};
use super::super::crc32c;
use super::{Options, class, failure, namespace, owned, pairs, text};

/// A right reply to an `access`.
pub(super) fn payload(id: &str, data: &[u8]) -> Reply {
    let payload = json!({ "data": STANDARD.encode(data), "dataCrc32c": crc32c::of(data).to_string() });
    Reply::json(200, json!({ "name": format!("projects/12/secrets/{id}/versions/3"), "payload": payload }).to_string())
}

fn rpc(status: u16, code: &str) -> Reply {
    Reply::json(status, json!({ "error": { "code": status, "message": "canary", "status": code } }).to_string())
}

/// Asks for one secret, once, and returns the class of the error; nothing that the server said may stand in it.
async fn once(answer: impl Into<Answer>) -> (&'static str, usize) {
    let answer = answer.into();
    let server = Faulty::start(move |_| answer.clone()).await;
    let options = Options { timeout: Duration::from_millis(300), ..Options::at(&server.url()) };
    let error = failure(&options.open(), "db").await;
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    (class(&error), server.calls())
}

#[tokio::test]
async fn a_value_comes_with_one_call_and_our_token() {
    let server = Faulty::start(|_| payload("db", b"\x00\xff").into()).await;
    let opened = Options::at(&server.url()).open();
    let secret = opened.reader.fetch("db", Scopes::PrivateFirst).await.expect("read");
    assert_eq!(secret.values.get("value").expect("one key").expose(), b"\x00\xff");
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].target, "/v1/projects/p/secrets/db/versions/latest:access?");
    assert_eq!(requests[0].header("authorization"), Some("Bearer reader"));
}

#[tokio::test]
async fn every_refusal_costs_one_call() {
    for (answer, expected) in [
        (rpc(404, "NOT_FOUND"), "not found"),
        (rpc(403, "PERMISSION_DENIED"), "denied"),
        (Reply::bytes(403, "<html>canary</html>"), "transient"),
        (rpc(400, "FAILED_PRECONDITION"), "denied"),
        (rpc(429, "RESOURCE_EXHAUSTED"), "transient"),
        (rpc(500, "INTERNAL"), "transient"),
        (rpc(503, "UNAVAILABLE"), "transient"),
        // The token is the same after a look at where it comes from, so asking again is no use.
        (rpc(401, "UNAUTHENTICATED"), "identity"),
    ] {
        let shown = format!("{answer:?}");
        assert_eq!(once(answer).await, (expected, 1), "{shown}");
    }
}

#[tokio::test]
async fn a_success_that_is_none_is_an_outage() {
    let ok = |body: &str| Answer::from(Reply::json(200, body.to_owned()));
    for answer in [
        ok(r#"{"name": "projects/12/secrets/db/versions/3"}"#),
        ok(r#"{"name": "projects/12/secrets/db/versions/3", "payload": {"data": "canary is no base64!"}}"#),
        ok(r#"{"name": "projects/12/secrets/db/versions/3", "payload": {"data": 1}}"#),
        ok(r#"{"name": "projects/12/secrets/db/versions/3", "name": "x", "payload": {}}"#),
        ok(r#"{"name": "projects/12/secrets/db/versions/3", "payload": {"data": "Y2FuYXJ5", "dataCrc32c": "1"}}"#),
        ok(r#"{"name": "projects/12/secrets/db/versions/latest", "payload": {"data": "Y2FuYXJ5"}}"#),
        ok(r#"{"name": "db", "payload": {"data": "Y2FuYXJ5"}}"#),
        payload("another", b"canary").into(),
        Reply::bytes(200, b"{\"name\": \"\xff\"}".as_slice()).into(),
        Reply::json(204, "").into(),
    ] {
        let shown = format!("{answer:?}");
        assert_eq!(once(answer).await, ("transient", 1), "{shown}");
    }
}

#[tokio::test]
async fn an_empty_payload_is_a_value() {
    let server = Faulty::start(|_| {
        // As protobuf writes an empty field: not at all.
        Reply::json(200, r#"{"name": "projects/12/secrets/db/versions/1", "payload": {"dataCrc32c": "0"}}"#).into()
    });
    let opened = Options::at(&server.await.url()).open();
    assert_eq!(class(&failure(&opened, "db").await), "transient", "the server has gone");
    let server = Faulty::start(|_| payload("db", b"").into()).await;
    assert_eq!(pairs(&Options::at(&server.url()).open(), "db").await, owned(&[("value", "")]));
}

#[tokio::test]
async fn what_the_layout_does_not_promise_is_unusable() {
    // Layout, payload, what the error says.
    let store = |request: &Request, data: &'static [u8]| -> Answer {
        if request.path().ends_with(":access") {
            return payload("zenml-1", data).into();
        }
        let labels =
            json!({ "zenml": "d", "zenml_secret_id": "1", "zenml_secret_name": "db", "zenml_secret_scope": "user" });
        Reply::json(200, json!({ "secrets": [{ "name": "projects/p/secrets/zenml-1", "labels": labels }] }).to_string())
            .into()
    };
    for (data, words) in [
        (b"canary".as_slice(), "not JSON"),
        (b"[\"canary\"]", "not an object of strings"),
        (br#"{"k": 1}"#, "not an object of strings"),
        (br#"{"k": "0123456789abcdef"}"#, "more than 10 bytes"),
    ] {
        let server = Faulty::start(move |request| store(request, data)).await;
        let options = Options { max_value: 10, ..Options::at(&server.url()) };
        let error = failure(&options.layout(Layout::Store).open(), "db").await;
        assert_eq!(class(&error), "unusable", "{error:?}");
        assert!(error.to_string().contains(words) && !format!("{error:?}").contains("canary"), "{error:?}");
    }
}

#[tokio::test]
async fn a_list_is_taken_page_by_page_and_one_without_end_is_refused() {
    let page = |number: usize| {
        let secrets = json!([{ "name": format!("projects/p/secrets/s{number}") }]);
        json!({ "secrets": secrets, "nextPageToken": if number < 2 { number.to_string() } else { String::new() } })
    };
    let count = Arc::new(AtomicUsize::new(0));
    let server =
        Faulty::start(move |_| Reply::json(200, page(count.fetch_add(1, Ordering::Relaxed)).to_string()).into());
    let server = server.await;
    let opened = Options::at(&server.url()).open();
    let names: Vec<_> = opened.reader.list().await.expect("a list").into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["s0", "s1", "s2"]);
    let targets: Vec<_> = server.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets[0], "/v1/projects/p/secrets?pageSize=1000");
    assert_eq!(targets[1], "/v1/projects/p/secrets?pageSize=1000&pageToken=0");

    server.follow(|_| Reply::json(200, r#"{"secrets": [], "nextPageToken": "again"}"#).into());
    assert_eq!(class(&opened.reader.list().await.expect_err("no end")), "transient");
    assert_eq!(server.calls(), 3 + 250);
}

#[tokio::test]
async fn no_more_calls_at_a_time_than_allowed() {
    let server = Faulty::start(|_| Answer::Hang).await;
    let options = Options { parallelism: 2, timeout: Duration::from_millis(300), ..Options::at(&server.url()) };
    let opened = options.open();
    let names = ["a", "b", "c", "d"];
    let reads = names.map(|name| opened.reader.fetch(name, Scopes::PrivateFirst));
    let first = tokio::time::timeout(Duration::from_millis(150), futures_util::future::join_all(reads)).await;
    assert!(first.is_err() && server.calls() <= 2, "{} calls", server.calls());
    opened.reader.close().await;
    assert!(matches!(failure(&opened, "a").await, BackendError::Transient { .. }));
}

#[tokio::test]
async fn a_reply_that_says_a_thing_twice_is_believed_in_neither() {
    let name = r#""name": "projects/p/secrets/db/versions/1""#;
    // "canary" and "other", as base64.
    let twice = format!(r#"{{{name}, "payload": {{"data": "Y2FuYXJ5"}}, "payload": {{"data": "b3RoZXI="}}}}"#);
    let within = format!(r#"{{{name}, "payload": {{"data": "Y2FuYXJ5", "data": "b3RoZXI="}}}}"#);
    for body in [twice, within] {
        assert_eq!(once(Reply::json(200, body.clone())).await, ("transient", 1), "{body}");
    }
}

#[tokio::test]
async fn a_name_that_google_cannot_hold_costs_no_call() {
    let server = Faulty::start(|_| Answer::Close).await;
    let odd = ["", "a.b", "../x", "a/b", "ключ", "a b", "x?y", "a%2fb"];
    for layout in [Layout::Plain { prefix: "p-".into() }, Layout::Store, namespace("a")] {
        let opened = Options::at(&server.url()).layout(layout).open();
        for name in odd {
            assert_eq!(failure(&opened, name).await, BackendError::NotFound, "{name}");
            let described = opened.reader.describe(&[name], Scopes::PrivateFirst).await;
            assert_eq!(described, Ok(vec![None]), "{name}");
            assert!(opened.reader.cannot_hold(name).is_some_and(|why| why.contains("alone")), "{name}");
        }
        assert_eq!(opened.reader.cannot_hold("a_b"), None);
    }
    assert_eq!(server.calls(), 0);
}

#[tokio::test]
async fn who_may_look_at_single_secrets_need_not_be_allowed_to_list() {
    let server = Faulty::start(|request| match request.path().rsplit('/').next() {
        Some("secrets") => rpc(403, "PERMISSION_DENIED").into(),
        Some("gone") => rpc(404, "NOT_FOUND").into(),
        Some(id) => Reply::json(200, json!({ "name": format!("projects/p/secrets/{id}") }).to_string()).into(),
        None => Answer::Close,
    });
    let server = server.await;
    let opened = Options::at(&server.url()).open();
    assert_eq!(class(&opened.reader.list().await.expect_err("refused")), "unlisted");
    let names = ["a", "gone", "b", "c", "d", "e"];
    let described = opened.reader.describe(&names, Scopes::PrivateFirst).await.expect("one by one");
    let shown: Vec<_> = described.iter().map(|one| one.as_ref().map(|one| one.name.as_str())).collect();
    assert_eq!(shown, [Some("a"), None, Some("b"), Some("c"), Some("d"), Some("e")]);
}

#[tokio::test]
async fn many_names_cost_one_list_and_no_value_is_read() {
    let secrets: Vec<_> = (0..200).map(|number| json!({ "name": format!("projects/p/secrets/s{number}") })).collect();
    let list = json!({ "secrets": secrets }).to_string();
    let server = Faulty::start(move |_| Reply::json(200, list.clone()).into()).await;
    let opened = Options::at(&server.url()).open();
    let names: Vec<String> = (0..300).map(|number| format!("s{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let described = opened.reader.describe(&names, Scopes::PrivateFirst).await.expect("described");
    assert_eq!(described.iter().flatten().count(), 200);
    assert_eq!((server.calls(), server.calls_to(":access")), (1, 0));
}

#[tokio::test]
async fn one_name_of_several_workspaces_is_not_guessed() {
    let secret = |id: &str, user: &str, workspace: &str, created: &str| {
        let labels = json!({
            "zenml": "d", "zenml_secret_id": id, "zenml_secret_name": "db", "zenml_secret_scope": "user",
            "zenml_secret_workspace": workspace, "zenml_secret_user": user, "zenml-secret-created": created,
        });
        json!({ "name": format!("projects/p/secrets/zenml-{id}"), "labels": labels })
    };
    let check = async |secrets: serde_json::Value| {
        let list = json!({ "secrets": secrets }).to_string();
        let server = Faulty::start(move |request| match request.path().ends_with("zenml-1/versions/latest:access") {
            true => payload("zenml-1", br#"{"k": "first"}"#).into(),
            false => Reply::json(200, list.clone()).into(),
        });
        let url = server.await;
        let opened = Options { login: keyside_config::settings::GcpLogin::Token(text("t")), ..Options::at(&url.url()) };
        let opened = opened.layout(Layout::Store).open();
        let listed = opened.reader.list().await.expect("a list");
        assert_eq!(listed.len(), 1);
        opened.reader.fetch("db", Scopes::PrivateFirst).await.map(|secret| super::shown(&secret.values))
    };
    // The one made first counts, whosever it is: as in ZenML.
    let second = secret("2", "v", "w", "2023-05-02-00-00-00");
    let first = secret("1", "u", "w", "2023-05-01-00-00-00");
    assert_eq!(check(json!([second, first])).await, Ok(owned(&[("k", "first")])));
    let elsewhere = secret("2", "u", "x", "2023-05-02-00-00-00");
    assert_eq!(class(&check(json!([first, elsewhere])).await.expect_err("which?")), "unusable");
}
