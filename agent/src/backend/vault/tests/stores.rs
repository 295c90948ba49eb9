//! Layout `store` on a scripted server: two mounts, names inside the secrets, and what it costs to find one.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::super::super::faulty::Faulty;
use super::super::super::{Scope, ScopeLabel, ValueStore};
use super::*;

const DEPLOYMENT: &str = "0a1b2c3d-0000-4000-8000-000000000001";

/// A secret under an id: what it says of itself, and its values as JSON.
#[derive(Clone)]
struct Put {
    name: Option<(&'static str, &'static str)>,
    values: &'static str,
}

/// A server with the mounts `kv` and `secret`, of which the second may be closed.
#[derive(Default)]
struct Shelf {
    secrets: Mutex<BTreeMap<(&'static str, &'static str), Put>>,
    denied: Mutex<Vec<&'static str>>,
    without_first: bool,
    without_second: bool,
}

impl Shelf {
    fn with(secrets: &[(&'static str, &'static str, Put)]) -> Arc<Self> {
        let shelf = Self::default();
        for (mount, id, put) in secrets {
            shelf.put(mount, id, put.clone());
        }
        Arc::new(shelf)
    }

    fn put(&self, mount: &'static str, id: &'static str, put: Put) {
        self.secrets.lock().expect("secrets").insert((mount, id), put);
    }

    fn remove(&self, mount: &'static str, id: &'static str) {
        self.secrets.lock().expect("secrets").remove(&(mount, id));
    }

    fn answer(&self, request: &Request) -> Answer {
        let path: Vec<&str> = request.path().split('/').skip(2).collect();
        let secrets = self.secrets.lock().expect("secrets");
        match path.as_slice() {
            ["kv", ..] if self.without_first => errors(403, "permission denied"),
            ["secret", ..] if self.without_second => errors(403, "permission denied"),
            ["sys", "internal", "ui", "mounts", "secret"] if self.without_second => errors(403, "preflight"),
            [mount, "metadata", "zenml"] => {
                let ids = secrets.keys().filter(|(other, _)| other == mount).map(|(_, id)| format!("\"{id}\""));
                let ids: Vec<_> = ids.collect();
                match ids.is_empty() {
                    true => errors(404, ""),
                    false => Reply::json(200, format!(r#"{{"data": {{"keys": [{}]}}}}"#, ids.join(","))).into(),
                }
            }
            [_, "data", "zenml", id] if self.denied.lock().expect("denied").contains(id) => errors(403, "no"),
            [mount, "data", "zenml", id] => match secrets.iter().find(|((a, b), _)| (a, b) == (mount, id)) {
                Some(((_, id), put)) => stored(id, put),
                None => errors(404, ""),
            },
            ["sys", "internal", "ui", "mounts", _] => {
                Reply::json(200, r#"{"data": {"type": "kv", "options": {"version": "2"}}}"#).into()
            }
            _ => otherwise(request),
        }
    }
}

fn stored(id: &str, put: &Put) -> Answer {
    let label = put.name.map_or_else(String::new, |(name, scope)| {
        format!(
            r#", "zenml_secret_name": "{name}", "zenml_secret_scope": "{scope}", "zenml_secret_workspace": "w",
            "zenml_secret_user": "u""#
        )
    });
    let metadata = format!(r#"{{"zenml": "{DEPLOYMENT}", "zenml_secret_id": "{id}"{label}}}"#);
    data(&format!(r#"{{"zenml_secret_values": {}, "zenml_secret_metadata": {metadata}}}"#, put.values))
}

fn by_id(values: &'static str) -> Put {
    Put { name: None, values }
}

fn named(name: &'static str, scope: &'static str, values: &'static str) -> Put {
    Put { name: Some((name, scope)), values }
}

async fn opened(shelf: &Arc<Shelf>) -> (Faulty, Opened) {
    let script = Arc::clone(shelf);
    let server = Faulty::start(move |request| script.answer(request)).await;
    let options = Options { mount: "kv", layout: Layout::Store, ..Options::at(server.url()) };
    (server, options.open())
}

async fn values_of(store: &dyn ValueStore, id: &str, deployment: &str) -> Result<Vec<(String, String)>, BackendError> {
    store.values_of(id, deployment).await.map(|kept| shown(&kept.values))
}

#[tokio::test]
async fn values_are_read_by_id_in_the_configured_mount_and_then_where_zenml_0_80_wrote_them() {
    let shelf = Shelf::with(&[
        ("kv", "id-new", by_id(r#"{"k": "new"}"#)),
        ("secret", "id-old", by_id(r#"{"k": "old"}"#)),
        ("kv", "id-both", by_id(r#"{"k": "configured"}"#)),
        ("secret", "id-both", by_id(r#"{"k": "other"}"#)),
    ]);
    let (server, opened) = opened(&shelf).await;
    let store = opened.values.expect("it holds values");
    assert_eq!(values_of(&*store, "id-new", DEPLOYMENT).await, Ok(pairs(&[("k", "new")])));
    assert_eq!(server.calls(), 1);
    assert_eq!(values_of(&*store, "id-old", DEPLOYMENT).await, Ok(pairs(&[("k", "old")])));
    assert_eq!(values_of(&*store, "id-both", DEPLOYMENT).await, Ok(pairs(&[("k", "configured")])));
    assert_eq!(values_of(&*store, "id-none", DEPLOYMENT).await, Err(BackendError::NotFound));
    assert_eq!(values_of(&*store, "id-new", "another").await, Err(BackendError::NotFound), "another deployment's");
}

#[tokio::test]
async fn a_second_mount_that_is_closed_to_us_is_left_out() {
    let shelf = Shelf { without_second: true, ..Shelf::default() };
    shelf.put("kv", "id", named("db", "workspace", r#"{"k": "v"}"#));
    let (_server, opened) = opened(&Arc::new(shelf)).await;
    let store = opened.values.expect("it holds values");
    assert_eq!(values_of(&*store, "id", DEPLOYMENT).await, Ok(pairs(&[("k", "v")])));
    assert_eq!(values_of(&*store, "none", DEPLOYMENT).await, Err(BackendError::NotFound));
    assert_eq!(fetch(&*opened.reader, "db").await, Ok(pairs(&[("k", "v")])));
    assert_eq!(fetch(&*opened.reader, "none").await, Err(BackendError::NotFound));
}

#[tokio::test]
async fn a_value_that_zenml_0_80_wrote_needs_no_right_to_the_configured_mount() {
    let shelf = Shelf { without_first: true, ..Shelf::default() };
    shelf.put("secret", "id", by_id(r#"{"k": "v"}"#));
    let (_server, opened) = opened(&Arc::new(shelf)).await;
    let store = opened.values.expect("it holds values");
    assert_eq!(values_of(&*store, "id", DEPLOYMENT).await, Ok(pairs(&[("k", "v")])));
    let error =
        values_of(&*store, "none", DEPLOYMENT).await.expect_err("no absence: it may lie in the mount that is closed");
    assert!(
        matches!(&error, BackendError::Denied { .. }) && error.to_string().contains("`kv/data/zenml/none`"),
        "{error}"
    );
}

#[tokio::test]
async fn a_refused_or_unfit_value_is_no_absence() {
    let shelf = Shelf::with(&[("kv", "denied", by_id("{}")), ("kv", "number", by_id(r#"{"port": 5432}"#))]);
    shelf.denied.lock().expect("denied").push("denied");
    let (_server, opened) = opened(&shelf).await;
    let store = opened.values.expect("it holds values");
    let error = values_of(&*store, "denied", DEPLOYMENT).await.expect_err("denied");
    assert!(matches!(error, BackendError::Denied { .. }), "{error}");
    let error = values_of(&*store, "number", DEPLOYMENT).await.expect_err("unfit");
    assert!(matches!(error, BackendError::Unusable { .. }) && error.to_string().contains("`port`"), "{error}");
    assert!(!error.to_string().contains("5432"));
}

#[tokio::test]
async fn a_name_is_found_inside_the_secrets_and_remembered_by_its_place() {
    let shelf = Shelf::with(&[
        ("kv", "id-1", named("db", "workspace", r#"{"k": "public"}"#)),
        ("kv", "id-2", named("mine", "user", r#"{"k": "private"}"#)),
        ("kv", "id-3", by_id(r#"{"k": "later"}"#)),
    ]);
    let (server, opened) = opened(&shelf).await;
    let reader = &*opened.reader;
    let secret = reader.fetch("db", Scopes::PrivateFirst).await.expect("found").description;
    assert_eq!((secret.scope, secret.scope_label), (Scope::Public, Some(ScopeLabel::Workspace)));
    assert_eq!(secret.id.as_deref(), Some("id-1"));
    let cold = server.calls();
    // The folder of both mounts, and the one secret.
    assert_eq!(fetch(reader, "mine").await, Ok(pairs(&[("k", "private")])));
    assert_eq!(server.calls() - cold, 3);
    assert_eq!(
        reader.fetch("mine", Scopes::PublicOnly).await.err(),
        Some(BackendError::NotFound),
        "a user's secret is not the workspace's"
    );
}

#[tokio::test]
async fn what_changes_in_the_folder_is_seen_at_the_next_look() {
    let shelf = Shelf::with(&[("kv", "id-1", named("db", "workspace", r#"{"k": "1"}"#))]);
    let (_server, opened) = opened(&shelf).await;
    let reader = &*opened.reader;
    assert_eq!(fetch(reader, "db").await, Ok(pairs(&[("k", "1")])));
    // Renamed in place.
    shelf.put("kv", "id-1", named("base", "workspace", r#"{"k": "1"}"#));
    assert_eq!(fetch(reader, "db").await, Err(BackendError::NotFound));
    assert_eq!(fetch(reader, "base").await, Ok(pairs(&[("k", "1")])));
    // A new one of the same name, for one user.
    shelf.put("kv", "id-2", named("base", "user", r#"{"k": "2"}"#));
    assert_eq!(fetch(reader, "base").await, Ok(pairs(&[("k", "2")])));
    shelf.remove("kv", "id-2");
    assert_eq!(fetch(reader, "base").await, Ok(pairs(&[("k", "1")])));
    shelf.remove("kv", "id-1");
    assert_eq!(fetch(reader, "base").await, Err(BackendError::NotFound));
}

#[tokio::test]
async fn two_secrets_of_one_name_and_scope_are_not_chosen_from() {
    let shelf = Shelf::with(&[
        ("kv", "id-1", named("db", "user", r#"{"k": "1"}"#)),
        ("kv", "id-2", named("db", "user", r#"{"k": "2"}"#)),
    ]);
    let (_server, opened) = opened(&shelf).await;
    let error = failure(&*opened.reader, "db").await;
    assert!(matches!(error, BackendError::Unusable { .. }), "{error}");
    assert!(error.to_string().contains("id-1") && error.to_string().contains("id-2"), "{error}");
}

#[tokio::test]
async fn an_absence_is_none_while_a_secret_that_might_be_it_is_refused() {
    let shelf = Shelf::with(&[("kv", "id-1", named("db", "workspace", "{}")), ("kv", "id-2", by_id("{}"))]);
    shelf.denied.lock().expect("denied").push("id-2");
    let (_server, opened) = opened(&shelf).await;
    assert_eq!(fetch(&*opened.reader, "db").await, Ok(Vec::new()));
    let error = failure(&*opened.reader, "other").await;
    assert!(matches!(error, BackendError::Denied { .. }), "{error}");
}

#[tokio::test]
async fn many_cold_readers_of_names_read_the_folder_once() {
    let shelf = Shelf::with(&[
        ("kv", "id-1", named("a", "workspace", "{}")),
        ("kv", "id-2", named("b", "workspace", "{}")),
        ("kv", "id-3", named("c", "workspace", "{}")),
    ]);
    let (server, opened) = opened(&shelf).await;
    let reads = ["a", "b", "c", "a", "b", "c"].map(|name| fetch(&*opened.reader, name));
    for read in futures_util::future::join_all(reads).await {
        assert_eq!(read, Ok(Vec::new()));
    }
    // Both folders (and what the second mount is), three secrets to find the names, both folders once more for all who
    // asked when the first look had begun, and one secret for each reader.
    assert_eq!(server.calls(), 3 + 3 + 2 + 6, "{:?}", server.requests());
}
