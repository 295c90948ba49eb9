//! The real servers: what the library wrote is read, logins, names, pages, writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::peer::{Peer, Release, python};
use super::*;
use crate::backend::{Scope, ScopeLabel, Update, WriteBackend, WriteError};

type Content = BTreeMap<String, BTreeMap<String, String>>;

fn cases(part: &str) -> Content {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/zenml/cases.json");
    let mut all: Value = serde_json::from_slice(&fs::read(path).expect("the cases")).expect("JSON");
    serde_json::from_value(all[part].take()).expect("names, keys, values")
}

async fn pairs(backend: &ZenmlServer, name: &str, scopes: Scopes) -> BTreeMap<String, String> {
    match backend.fetch(name, scopes).await {
        Ok(secret) => shown(&secret.values).into_iter().collect(),
        Err(error) => panic!("{name}: {error}, {:?}", error.hint()),
    }
}

/// Everything that the library put into the fixture comes back through the server.
async fn content_is_whole(backend: &ZenmlServer, release: Release) {
    let (mut public, private) = (cases("public"), cases("private"));
    if release == Release::V098 {
        public.extend(cases("only_0.98.0"));
    }
    for (content, scopes) in [(&public, Scopes::PublicOnly), (&private, Scopes::PrivateOnly)] {
        for (name, expected) in content {
            assert_eq!(pairs(backend, name, scopes).await, *expected, "{name}");
        }
    }
    let listed = backend.list().await.expect("list");
    assert_eq!(listed.len(), public.len() + private.len());
    let names: Vec<&str> = public.keys().map(String::as_str).chain(["absent"]).collect();
    let described = backend.describe(&names, Scopes::PublicOnly).await.expect("describe");
    assert_eq!(described.iter().flatten().count(), public.len());
    assert_eq!(described.last(), Some(&None));
    let both = backend.describe(&["both_scopes"], Scopes::PrivateFirst).await.expect("describe").remove(0);
    let label = if release == Release::V098 { ScopeLabel::Private } else { ScopeLabel::User };
    assert_eq!(both.expect("both").scope_label, Some(label));
}

/// Names that a filter, a URL or a data base might take for something else.
async fn odd_names_are_found(backend: &ZenmlServer) {
    let names = [
        "equals:x",
        "oneof:[\"x\"]",
        "contains:",
        "a&name=b",
        "a b+c%20d",
        "100%",
        "_ _",
        "ünï/🔐?#",
        "\"quoted\", [list]",
        "0b52a9f2-6f0f-4a1b-9a3a-6a5a3a1a2a3a",
        "null",
        "x\\y",
    ];
    for name in names {
        backend.create(name, Scope::Public, values(&[("k", name)])).await.expect(name);
    }
    for name in names {
        assert_eq!(k(backend, name, Scopes::PrivateFirst).await, name);
    }
    let described = backend.describe(&names, Scopes::PublicOnly).await.expect("describe");
    let found: Vec<_> = described.iter().flatten().map(|one| one.name.as_str()).collect();
    assert_eq!(found, names);
    for name in names {
        backend.delete(name, None, None).await.expect(name);
    }
}

async fn writes_are_as_zenmls(backend: &ZenmlServer, release: Release) {
    let created = backend.create("w", Scope::Public, values(&[("k", "1"), ("é", "ü\n")])).await.expect("created");
    assert_eq!(created.keys, Some(vec!["k".to_owned(), "é".to_owned()]));
    let clash = backend.create("w", Scope::Public, values(&[])).await.expect_err("a clash");
    assert!(matches!(clash, WriteError::Exists(_)), "{clash:?}");

    let set = |key: &str, value: &str| (key.to_owned(), Some(SecretValue::copy_of(value.as_bytes())));
    let update = Update { values: vec![set("n", "2"), ("k".into(), None)], ..Update::default() };
    let updated = backend.update("w", None, update).await.expect("updated");
    assert_eq!(updated.keys, Some(vec!["n".to_owned(), "é".to_owned()]));
    assert_eq!(updated.id, created.id);
    assert_ne!(updated.version, created.version);
    let secret = backend.fetch("w", Scopes::PublicOnly).await.expect("a secret");
    assert_eq!(secret.description.version, updated.version, "what a write returns is what is read");
    assert_eq!(shown(&secret.values), [("n".to_owned(), "2".to_owned()), ("é".to_owned(), "ü\n".to_owned())]);

    let stale = Update { if_version: Some(created.version.clone()), values: vec![set("k", "3")], ..Update::default() };
    assert_eq!(backend.update("w", None, stale).await.expect_err("stale"), WriteError::VersionMismatch);
    let absent = Update { values: vec![("absent".into(), None)], ..Update::default() };
    assert_eq!(backend.update("w", None, absent).await.expect_err("absent"), WriteError::KeyNotFound("absent".into()));

    let rename = Update {
        rename: Some("w2".into()),
        scope: Some(Scope::Private),
        if_version: Some(updated.version),
        ..Update::default()
    };
    let renamed = backend.update("w", None, rename).await.expect("renamed");
    assert_eq!((renamed.name.as_str(), renamed.scope, &renamed.id), ("w2", Scope::Private, &created.id));
    assert_eq!(error(backend, "w").await, BackendError::NotFound);
    assert_eq!(pairs(backend, "w2", Scopes::PrivateOnly).await.len(), 2, "a rename keeps the values");

    backend.create("w2", Scope::Public, values(&[])).await.expect("another scope");
    assert!(matches!(backend.delete("w2", None, None).await, Err(WriteError::Ambiguous { .. })));
    let clash = Update { scope: Some(Scope::Private), ..Update::default() };
    let clash = backend.update("w2", Some(Scope::Public), clash).await.expect_err("a clash");
    assert!(matches!(clash, WriteError::Exists(_)), "{clash:?}");
    for scope in [Scope::Public, Scope::Private] {
        backend.delete("w2", Some(scope), None).await.expect("deleted");
    }
    assert_eq!(backend.delete("w2", None, None).await.expect_err("gone"), BackendError::NotFound.into());

    let large = "y".repeat(if release == Release::V098 { 65536 } else { 50_000 });
    let refused = backend.create("large", Scope::Public, values(&[("k", &large)])).await.expect_err("too large");
    assert!(matches!(refused, WriteError::Invalid { .. }), "{refused:?}");
    assert_eq!(error(backend, "large").await, BackendError::NotFound, "nothing is left of it");
}

/// Tokens that are worth nothing any more cost one login, however many have them.
async fn a_restart_costs_one_login(peer: &mut Peer, backend: &ZenmlServer) {
    peer.restart().await;
    let many = join_all((0..20).map(|_| pairs(backend, "simple", Scopes::PublicOnly))).await;
    assert!(many.iter().all(|pairs| *pairs == many[0]));
    assert_eq!(backend.client.session().await.expect("a session").generation(), 2, "one login more than the first");
}

#[tokio::test]
async fn what_the_library_wrote_is_read_and_written_on_real_zenml_server() {
    let Some(python) = python(Release::V098) else { return };
    let peer = Peer::start(&python, Release::V098, None).await;
    let backend = open(&peer.url(), user("default", ""));
    content_is_whole(&backend, Release::V098).await;
    odd_names_are_found(&backend).await;
    writes_are_as_zenmls(&backend, Release::V098).await;

    // A service account reads what is public, with its key by login and as a token, and nothing private.
    let body = json!({"name": "sidecar", "active": true, "description": ""});
    let account = peer.ask(Method::POST, "/service_accounts", Some(body)).await;
    let account = account["id"].as_str().expect("an id").to_owned();
    let keys = format!("/service_accounts/{account}/api_keys");
    let key = peer.ask(Method::POST, &keys, Some(json!({"name": "key"}))).await;
    let text = key["body"]["key"].as_str().expect("a key").to_owned();
    for login in [api_key(&text), Some(ServerLogin::ApiToken(secret_text(&text)))] {
        let robot = open(&peer.url(), login);
        assert_eq!(pairs(&robot, "simple", Scopes::PrivateFirst).await, cases("public")["simple"]);
        let private = cases("private").into_keys().find(|name| !cases("public").contains_key(name)).expect("one");
        assert_eq!(error(&robot, &private).await, BackendError::NotFound, "another's private secret");
        assert!(robot.list().await.expect("list").iter().all(|one| one.scope == Scope::Public));
    }
    let robot = open(&peer.url(), api_key(&text));
    pairs(&robot, "simple", Scopes::PublicOnly).await;
    let key = key["id"].as_str().expect("an id");
    peer.ask(Method::PUT, &format!("{keys}/{key}"), Some(json!({"active": false}))).await;
    check_error(&error(&robot, "simple").await, "identity", "refuses our login", "revoked");

    let given = open(&peer.url(), Some(ServerLogin::ApiToken(secret_text(&peer.admin_token()))));
    assert!(!pairs(&given, "simple", Scopes::PublicOnly).await.is_empty());
    let wrong = open(&peer.url(), user("default", "wrong"));
    check_error(&error(&wrong, "simple").await, "identity", "refuses our login", "user `default`");
    let nobody = open(&peer.url(), None);
    check_error(&error(&nobody, "simple").await, "identity", "asks for a login", "api_key_env");

    peer.sql("UPDATE secret SET \"values\" = CAST('spoilt' AS BLOB) WHERE name = 'simple'");
    check_error(&error(&backend, "simple").await, "unusable", "cannot read its values", "encryption key");
    peer.sql("DELETE FROM secret WHERE name = 'simple'");
    assert_eq!(error(&backend, "simple").await, BackendError::NotFound);
}

#[tokio::test]
async fn pages_of_three_and_a_new_signing_key_change_nothing_on_real_zenml_server() {
    let Some(python) = python(Release::V098) else { return };
    let mut peer = Peer::start(&python, Release::V098, Some(3)).await;
    let backend = open(&peer.url(), user("default", ""));
    content_is_whole(&backend, Release::V098).await;
    a_restart_costs_one_login(&mut peer, &backend).await;
}

#[tokio::test]
async fn what_the_library_wrote_is_read_and_written_on_real_zenml_043() {
    let Some(python) = python(Release::V043) else { return };
    let mut peer = Peer::start(&python, Release::V043, Some(3)).await;
    let backend = open(&peer.url(), user("default", ""));
    content_is_whole(&backend, Release::V043).await;
    odd_names_are_found(&backend).await;
    writes_are_as_zenmls(&backend, Release::V043).await;
    let wrong = open(&peer.url(), user("default", "wrong"));
    check_error(&error(&wrong, "simple").await, "identity", "refuses our login", "user `default`");

    // The server shows the secrets in every user's name space; ours are those of the user that we are.
    let (name, value) = ("whose", json!({"k": "mine"}));
    peer.new_secret(name, Scope::Private, &value).await;
    assert_eq!(k(&backend, name, Scopes::PrivateOnly).await, "mine");
    let other = "(SELECT id FROM user WHERE name <> 'default' LIMIT 1)";
    let body = json!({"name": "bob", "password": "password", "active": true, "full_name": ""});
    peer.ask(Method::POST, "/users", Some(body)).await;
    peer.sql(&format!("UPDATE secret SET user_id = {other} WHERE name = '{name}'"));
    assert_eq!(error(&backend, name).await, BackendError::NotFound);
    a_restart_costs_one_login(&mut peer, &backend).await;
}
