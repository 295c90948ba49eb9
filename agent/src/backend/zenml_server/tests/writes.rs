//! What writes send, and what refusals of them mean.

use super::*;
use crate::backend::faulty::Faulty;
use crate::backend::{Scope, Update, WriteBackend, WriteError};

/// Answers writes with `answer`, everything else properly.
async fn refusing(answer: Answer) -> (Faulty, Arc<ZenmlServer>) {
    let server = Faulty::start(move |request| match request.method.as_str() {
        "GET" => healthy(request),
        _ => answer.clone(),
    })
    .await;
    let backend = open(&server.url(), None);
    (server, backend)
}

#[tokio::test]
async fn writes_send_what_zenmls_client_sends() {
    let written = Reply::json(200, item(ID, "b", r#""private":true,"values":{"k":"v","z":"1"}"#));
    let server = Faulty::start(move |request| match request.method.as_str() {
        "GET" => healthy(request),
        "DELETE" => Reply::json(200, "null").into(),
        _ => written.clone().into(),
    })
    .await;
    let backend = open(&server.url(), None);
    let created = backend.create("b", Scope::Private, values(&[("k", "v")])).await.expect("created");
    assert_eq!((created.name.as_str(), created.scope), ("b", Scope::Private));
    assert_eq!(created.keys, Some(vec!["k".to_owned(), "z".to_owned()]));
    let update = Update {
        rename: Some("b".into()),
        scope: Some(Scope::Private),
        values: vec![("n".into(), Some(SecretValue::copy_of(b"1"))), ("k".into(), None)],
        if_version: None,
    };
    backend.update("a", None, update).await.expect("updated");
    backend.update("a", Some(Scope::Public), Update::default()).await.expect("updated");
    backend.delete("a", None, None).await.expect("deleted");
    let sent: Vec<_> = server
        .requests()
        .iter()
        .filter(|request| request.method != "GET")
        .map(|request| (request.method.clone(), request.target.clone(), request.text()))
        .collect();
    let expected = [
        ("POST", "/api/v1/secrets".to_owned(), r#"{"name":"b","private":true,"values":{"k":"v"}}"#),
        (
            "PUT",
            format!("/api/v1/secrets/{ID}?patch_values=True"),
            r#"{"name":"b","private":true,"values":{"n":"1","k":null}}"#,
        ),
        ("PUT", format!("/api/v1/secrets/{ID}?patch_values=True"), r#"{"name":"a"}"#),
        ("DELETE", format!("/api/v1/secrets/{ID}"), ""),
    ];
    for ((method, target, body), sent) in expected.into_iter().zip(&sent) {
        assert_eq!((method, target.as_str(), body), (sent.0.as_str(), sent.1.as_str(), sent.2.as_str()));
    }
    assert_eq!(sent.len(), 4);
}

#[tokio::test]
async fn a_write_that_is_refused_says_why() {
    let check = async |answer: Answer, create: &str, update: &str| {
        let (_server, backend) = refusing(answer).await;
        let error = backend.create("b", Scope::Public, values(&[("k", CANARY)])).await.expect_err("refused");
        assert!(format!("{error:?}").contains(create) && !format!("{error:?}").contains(CANARY), "{error:?}");
        let values = vec![("k".to_owned(), Some(SecretValue::copy_of(CANARY.as_bytes())))];
        let changed = Update { values, ..Update::default() };
        let error = backend.update("a", None, changed).await.expect_err("refused");
        assert!(format!("{error:?}").contains(update) && !format!("{error:?}").contains(CANARY), "{error:?}");
        let error = backend.delete("a", None, None).await.expect_err("refused");
        assert!(!format!("{error:?}").contains(CANARY), "{error:?}");
    };
    check(raised(409, "EntityExistsError"), "Exists(\"a public secret `b`", "Exists(\"a public secret `a`").await;
    check(raised(403, "IllegalOperationError"), "Denied", "does not let us write secret `a`").await;
    check(raised(400, "ValueError"), "Invalid", "64 KiB").await;
    check(Reply::json(422, r#"["ValueError","canary-3f9c"]"#).into(), "Invalid", "Invalid").await;
    check(raised(404, "KeyError"), "NotFound", "NotFound").await;
    check(Reply::bytes(404, "default backend").into(), "Transient", "Transient").await;
    check(raised(500, "RuntimeError"), "Transient", "Transient").await;
    check(Reply::json(200, "{}").into(), "Transient", "Transient").await;
    check(raised(401, "CredentialsNotValid"), "Identity", "Identity").await;
}

#[tokio::test]
async fn what_cannot_be_written_is_refused_before_anything_is_sent() {
    let (server, backend) = refusing(Answer::Close).await;
    let with = |key: &str, value: &[u8]| [(key.to_owned(), SecretValue::copy_of(value))].into_iter().collect();
    let check = |result: Result<_, WriteError>, expected: &str| {
        let error = result.map(|_: crate::backend::Description| ()).expect_err("refused");
        assert!(format!("{error:?}").contains(expected), "{error:?}");
    };
    check(backend.create("", Scope::Public, values(&[])).await, "Invalid");
    check(backend.create("a\nb", Scope::Public, values(&[])).await, "Invalid");
    check(backend.create("b", Scope::Public, with("", b"v")).await, "Invalid");
    check(backend.create("b", Scope::Public, with("k", &[0xff])).await, "not UTF-8");
    check(backend.create("b", Scope::Public, with("k", &vec![b'x'; 1024 * 1024 + 1])).await, "limits");
    let update = |if_version: Option<&str>, key: &str| Update {
        values: vec![(key.to_owned(), None)],
        if_version: if_version.map(str::to_owned),
        ..Update::default()
    };
    check(backend.update("a", None, update(None, "absent")).await, "KeyNotFound(\"absent\")");
    check(backend.update("a", None, update(Some("another"), "k")).await, "VersionMismatch");
    check(backend.update("b", None, update(None, "k")).await, "NotFound");
    check(backend.update("a", Some(Scope::Private), update(None, "k")).await, "NotFound");
    check(backend.delete("a", None, Some("another")).await, "VersionMismatch");
    check(backend.delete("b", None, None).await, "NotFound");
    assert!(server.requests().iter().all(|request| request.method == "GET"));
}

#[tokio::test]
async fn a_name_in_two_scopes_is_ambiguous_and_a_version_in_doubt_is_the_same_version() {
    let other = "22be8523-7e1c-46a2-89c5-74b124f573a8";
    let server = Faulty::start(move |request| match (request.method.as_str(), request.path()) {
        ("GET", "/api/v1/secrets") => {
            let items = [item(ID, "a", r#""private":false"#), item(other, "a", r#""private":true"#)];
            Reply::json(200, one_page(&items)).into()
        }
        ("DELETE", _) => Reply::json(200, "null").into(),
        _ => healthy(request),
    })
    .await;
    let backend = open(&server.url(), None);
    let error = backend.delete("a", None, None).await.expect_err("two");
    assert!(matches!(error, WriteError::Ambiguous { .. }), "{error:?}");
    let version = format!("{other}:2026-01-01T00:00:01.000000~");
    let deleted = backend.delete("a", Some(Scope::Private), Some(&version)).await.expect("deleted");
    assert_eq!(deleted.id.as_deref(), Some(other));
}
