//! What is written, as ZenML would have written it.

use super::*;
use crate::backend::{Description, Scope, Update, WriteError};

const KEY: &str = "k";

fn update() -> Update {
    Update::default()
}

fn set(key: &str, value: &str) -> (String, Option<SecretValue>) {
    (key.to_owned(), Some(SecretValue::copy_of(value.as_bytes())))
}

fn drop_key(key: &str) -> (String, Option<SecretValue>) {
    (key.to_owned(), None)
}

async fn create(store: &Store, name: &str, scope: Scope, pairs: &[(&str, &str)]) -> Description {
    store.writer().create(name, scope, values(pairs)).await.expect("created")
}

#[tokio::test]
async fn a_created_row_is_what_zenml_would_have_written() {
    for (key, class, read_by) in [(None, "blob", None), (Some(KEY), "text", Some(KEY))] {
        let store = Store::fixture("zenml-0.98.0-plain");
        let opened = store.open(&Options { key, ..Options::default() });
        let pairs_in = values(&[("b", "2 ü"), ("a", "1")]);
        let created = opened.writer.expect("writable").create("new", Scope::Public, pairs_in).await.expect("created");
        let ask = async |column: &str| store.ask(&format!("SELECT {column} FROM secret WHERE name = 'new'")).await;
        let id = ask("id").await;
        assert_eq!(created.id.as_deref(), Some(super::super::read::dashed(&id).as_str()));
        assert!(id.len() == 32 && id.as_bytes()[12] == b'4' && b"89ab".contains(&id.as_bytes()[16]), "{id}");
        assert_eq!(ask("private || internal || (created = updated)").await, "001");
        assert_eq!(
            ask("created GLOB '20[0-9][0-9]-[01][0-9]-[0-3][0-9] [0-2][0-9]:*.[0-9][0-9][0-9][0-9][0-9][0-9]'").await,
            "1"
        );
        assert_eq!(ask("length(created)").await, "26");
        assert_eq!(ask("user_id").await, store.ask("SELECT id FROM user").await);
        assert_eq!(ask("typeof(\"values\")").await, class);
        if key.is_none() {
            // base64 of {"a": "1", "b": "2 \u00fc"}
            assert_eq!(ask("CAST(\"values\" AS TEXT)").await, "eyJhIjogIjEiLCAiYiI6ICIyIFx1MDBmYyJ9");
        }
        let reader = store.open(&Options { key: read_by, ..Options::default() }).reader;
        let secret = reader.fetch("new", Scopes::PublicOnly).await.map_err(|error| error.to_string());
        let secret = secret.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(created.keys, Some(vec!["a".to_owned(), "b".to_owned()]));
        // This reader has not written it, and the row is young: its version ends with the mark of doubt.
        let version = format!("{}~", created.version);
        assert_eq!(secret.description, Description { keys: None, version, ..created });
        assert_eq!(shown(&secret.values), shown(&values(&[("a", "1"), ("b", "2 ü")])));
    }
}

#[tokio::test]
async fn two_nonces_are_never_the_same() {
    let store = Store::new().await;
    let writer = store.open(&Options { key: Some(KEY), ..Options::default() }).writer.expect("writable");
    for name in ["a", "b"] {
        writer.create(name, Scope::Public, values(&[("k", "v")])).await.expect("created");
    }
    assert_eq!(store.ask("SELECT count(DISTINCT substr(\"values\", 1, 16)) FROM secret").await, "2");
}

#[tokio::test]
async fn names_are_unique_as_in_zenml() {
    let store = Store::new().await;
    store
        .sql(
            "INSERT INTO user (id, created, updated, name, is_service_account, full_name, active, is_admin)
             VALUES ('0000000000000000000000000000000b', '2026-01-01', '2026-01-01', 'bob', 0, '', 1, 0)",
        )
        .await;
    let bob = store.open(&Options { user: Some("bob"), ..Options::default() }).writer.expect("writable");
    create(&store, "a", Scope::Public, &[]).await;
    create(&store, "a", Scope::Private, &[]).await;
    bob.create("a", Scope::Private, values(&[])).await.expect("another's private namespace");
    bob.create("A", Scope::Public, values(&[])).await.expect("another name");
    // One public name for all users; one private name for each.
    for scope in [Scope::Public, Scope::Private] {
        let error = bob.create("a", scope, values(&[])).await.expect_err("there already");
        assert!(matches!(&error, WriteError::Exists(text) if text.contains("`a` is there already")), "{error}");
    }
    // A hidden secret takes its name as well.
    store.sql("UPDATE secret SET internal = 1 WHERE name = 'A'").await;
    assert!(matches!(bob.create("A", Scope::Public, values(&[])).await, Err(WriteError::Exists(_))));
}

#[tokio::test]
async fn an_update_merges_removes_and_keeps_the_id() {
    let store = Store::new().await;
    let created = create(&store, "a", Scope::Public, &[("keep", "1"), ("change", "2"), ("drop", "3")]).await;
    let changes = vec![set("change", "new"), set("add", ""), drop_key("drop")];
    let updated = store.writer().update("a", None, Update { values: changes, ..update() }).await.expect("updated");
    assert_eq!(updated.id, created.id);
    assert_ne!(updated.version, created.version);
    let expected = values(&[("keep", "1"), ("change", "new"), ("add", "")]);
    assert_eq!(pairs(&*store.reader(), "a", Scopes::PublicOnly).await, shown(&expected));
    assert_eq!(store.ask("SELECT updated > created FROM secret").await, "1");

    let missing = Update { values: vec![set("other", "x"), drop_key("no such")], ..update() };
    assert_eq!(store.writer().update("a", None, missing).await, Err(WriteError::KeyNotFound("no such".into())));
    assert_eq!(pairs(&*store.reader(), "a", Scopes::PublicOnly).await, shown(&expected), "nothing has changed");
    let no_secret = store.writer().update("b", None, update()).await;
    assert_eq!(no_secret, Err(WriteError::Backend(BackendError::NotFound)));
}

#[tokio::test]
async fn a_rename_keeps_values_and_respects_other_names() {
    let store = Store::new().await;
    let created = create(&store, "a", Scope::Public, &[("k", "v")]).await;
    create(&store, "taken", Scope::Public, &[]).await;
    let rename = |to: &str| Update { rename: Some(to.into()), ..update() };
    assert!(matches!(store.writer().update("a", None, rename("taken")).await, Err(WriteError::Exists(_))));
    assert_eq!(k(&*store.reader(), "a", Scopes::PublicOnly).await, "v");
    let renamed = store.writer().update("a", None, rename("b")).await.expect("renamed");
    assert_eq!((renamed.name.as_str(), &renamed.id), ("b", &created.id));
    assert_eq!(k(&*store.reader(), "b", Scopes::PublicOnly).await, "v");
    assert_eq!(error(&*store.reader(), "a").await, BackendError::NotFound);
    // To its own name: no clash with itself.
    store.writer().update("b", None, rename("b")).await.expect("the same name");
}

#[tokio::test]
async fn the_scope_changes_only_for_its_owner_and_without_a_clash() {
    let store = Store::new().await;
    store
        .sql(
            "INSERT INTO user (id, created, updated, name, is_service_account, full_name, active, is_admin)
             VALUES ('0000000000000000000000000000000b', '2026-01-01', '2026-01-01', 'bob', 0, '', 1, 0)",
        )
        .await;
    create(&store, "a", Scope::Public, &[("k", "v")]).await;
    let to_private = || Update { scope: Some(Scope::Private), ..update() };
    let bob = store.open(&Options { user: Some("bob"), ..Options::default() }).writer.expect("writable");
    let refused = bob.update("a", None, to_private()).await.expect_err("not bob's");
    assert!(matches!(&refused, WriteError::Backend(BackendError::Denied { .. })), "{refused}");
    // A plain user may change another's public values, as in ZenML.
    bob.update("a", None, Update { values: vec![set("k", "bob's")], ..update() }).await.expect("updated");
    assert_eq!(k(&*store.reader(), "a", Scopes::PublicOnly).await, "bob's");

    let private = store.writer().update("a", None, to_private()).await.expect("its owner's");
    assert_eq!(private.scope_label, Some(ScopeLabel::Private));
    assert_eq!(
        error(&*store.open(&Options { user: Some("bob"), ..Options::default() }).reader, "a").await,
        BackendError::NotFound
    );
    create(&store, "a", Scope::Public, &[("k", "public")]).await;
    let clash = Update { scope: Some(Scope::Public), ..update() };
    assert!(matches!(store.writer().update("a", Some(Scope::Private), clash).await, Err(WriteError::Exists(_))));
    // Two of one name now: a write must say which.
    for result in [store.writer().update("a", None, update()).await, store.writer().delete("a", None, None).await] {
        assert!(matches!(&result, Err(WriteError::Ambiguous { what }) if what.contains("`a`")), "{result:?}");
    }
    store.writer().delete("a", Some(Scope::Public), None).await.expect("deleted");
    assert_eq!(k(&*store.reader(), "a", Scopes::PrivateFirst).await, "bob's");
}

#[tokio::test]
async fn a_stale_version_changes_nothing() {
    let store = Store::new().await;
    let first = create(&store, "a", Scope::Public, &[("k", "1")]).await;
    let with = |version: &str, value: &str| Update {
        if_version: Some(version.into()),
        values: vec![set("k", value)],
        ..update()
    };
    let second = store.writer().update("a", None, with(&first.version, "2")).await.expect("the version is current");
    let stale = store.writer().update("a", None, with(&first.version, "3")).await;
    assert_eq!(stale, Err(WriteError::VersionMismatch));
    let stale = store.writer().delete("a", None, Some(&first.version)).await;
    assert_eq!(stale, Err(WriteError::VersionMismatch));
    assert_eq!(k(&*store.reader(), "a", Scopes::PublicOnly).await, "2");
    store.writer().delete("a", None, Some(&second.version)).await.expect("deleted");
}

#[tokio::test]
async fn a_deletion_takes_the_links_of_stacks_with_it() {
    let store = Store::fixture("zenml-0.98.0-plain");
    let id = store.ask("SELECT id FROM secret WHERE name = 'simple'").await;
    store
        .sql(&format!(
            "INSERT INTO secret_resource VALUES ('{id}', '2026-01-01', '2026-01-01', '{id}', '{id}', 'stack')"
        ))
        .await;
    let deleted = store.writer().delete("simple", None, None).await.expect("deleted");
    assert_eq!(deleted.name, "simple");
    assert_eq!(error(&*store.reader(), "simple").await, BackendError::NotFound);
    assert_eq!(store.ask("SELECT count(*) FROM secret_resource").await, "0");
    assert_eq!(store.ask("PRAGMA integrity_check").await, "ok");
    let again = store.writer().delete("simple", None, None).await;
    assert_eq!(again, Err(WriteError::Backend(BackendError::NotFound)));
}

#[tokio::test]
async fn a_secret_that_something_depends_on_is_not_deleted() {
    let store = Store::fixture("zenml-0.98.0-plain");
    store
        .sql(
            "INSERT INTO webhook SELECT s.id, s.created, s.updated, 'hook', p.id, s.user_id, s.id, 'custom', 1
             FROM secret s, project p WHERE s.name = 'simple'",
        )
        .await;
    let error = store.writer().delete("simple", None, None).await.expect_err("in use");
    assert!(matches!(&error, WriteError::Invalid { what, .. } if what.contains("in use")), "{error}");
    assert_eq!(pairs(&*store.reader(), "simple", Scopes::PublicOnly).await.len(), 2);
}

#[tokio::test]
async fn what_zenml_cannot_hold_is_refused_and_not_quoted() {
    let store = Store::new().await;
    let check = async |name: &str, values: SecretValues, words: &str| {
        let error = store.writer().create(name, Scope::Public, values).await.expect_err("invalid");
        assert!(matches!(&error, WriteError::Invalid { what, .. } if what.contains(words)), "{error}");
        assert!(!error.to_string().contains("canary"), "{error}");
    };
    let large = format!("canary{}", "x".repeat(64 * 1024));
    check("a", values(&[("k", &large)]), "65543 bytes").await;
    let bytes = [("k".to_owned(), SecretValue::new(b"canary\xff".to_vec()))].into_iter().collect();
    check("a", bytes, "`k` is not UTF-8").await;
    check("", values(&[]), "empty name").await;
    check("a\nb", values(&[]), "control character").await;
    check(&"ü".repeat(256), values(&[]), "more than 255").await;
    check("a", values(&[("", "canary")]), "empty name").await;
    check("a", values(&[("a\0", "canary")]), "control character").await;
    assert_eq!(store.ask("SELECT count(*) FROM secret").await, "0");
    // On the edge of the limit, and a name on the edge of its.
    create(&store, &"ü".repeat(255), Scope::Public, &[("k", &"x".repeat(64 * 1024 - 1))]).await;
    let over = store.writer().update(&"ü".repeat(255), None, Update { values: vec![set("a", "")], ..update() }).await;
    assert!(matches!(over, Err(WriteError::Invalid { .. })), "{over:?}");
    let small = store.open(&Options { max_value: 3, ..Options::default() }).writer.expect("writable");
    let over = small.create("a", Scope::Public, values(&[("k", "four")])).await;
    assert!(matches!(over, Err(WriteError::Invalid { .. })), "{over:?}");
}

#[tokio::test]
async fn values_that_cannot_be_decoded_are_never_overwritten() {
    let store = Store::fixture("zenml-0.98.0-enc");
    let before = store.ask("SELECT \"values\" || updated FROM secret WHERE name = 'simple'").await;
    for key in [None, Some("wrong")] {
        let writer = store.open(&Options { key, ..Options::default() }).writer.expect("writable");
        let change = Update { values: vec![set("password", "new")], ..update() };
        let error = writer.update("simple", None, change).await.expect_err("wrong key");
        assert!(matches!(&error, WriteError::Backend(BackendError::Identity { .. })), "{error}");
    }
    assert_eq!(store.ask("SELECT \"values\" || updated FROM secret WHERE name = 'simple'").await, before);
}

#[tokio::test]
async fn values_that_have_vanished_are_made_anew() {
    let store = Store::new().await;
    create(&store, "a", Scope::Public, &[("k", "v")]).await;
    store.sql("UPDATE secret SET \"values\" = NULL").await;
    let change = Update { values: vec![set("k", "new")], ..update() };
    store.writer().update("a", None, change).await.expect("updated");
    assert_eq!(k(&*store.reader(), "a", Scopes::PublicOnly).await, "new");
}

#[tokio::test]
async fn a_new_secret_belongs_to_a_user_that_exists() {
    let store = Store::new().await;
    let default = store.ask("SELECT id FROM user").await;
    let nobody = |user| store.open(&Options { user, user_required: false, ..Options::default() }).writer;
    let none = nobody(None).expect("writable");
    none.create("public", Scope::Public, values(&[])).await.expect("the user `default` owns it");
    assert_eq!(store.ask("SELECT user_id FROM secret").await, default);
    let private = none.create("private", Scope::Private, values(&[])).await.expect_err("whose?");
    assert!(private.to_string().contains("no user is configured"), "{private}");
    let unknown = nobody(Some("bob")).expect("writable").create("b", Scope::Public, values(&[])).await;
    assert!(unknown.expect_err("no bob").to_string().contains("no user `bob`"));
    // The only person, whatever the name; of two, none.
    store.sql("UPDATE user SET name = 'anna'").await;
    none.create("second", Scope::Public, values(&[])).await.expect("the only user owns it");
    store
        .sql(
            "INSERT INTO user (id, created, updated, name, is_service_account, full_name, active, is_admin)
             VALUES ('0000000000000000000000000000000b', '2026-01-01', '2026-01-01', 'bob', 0, '', 1, 0)",
        )
        .await;
    let undecided = none.create("third", Scope::Public, values(&[])).await.expect_err("anna or bob?");
    assert!(undecided.to_string().contains("none is called `default`"), "{undecided}");
}

#[tokio::test]
async fn a_table_of_an_earlier_0_8x_is_written_too() {
    let store = Store::new().await;
    store.sql("ALTER TABLE secret DROP COLUMN internal").await;
    create(&store, "a", Scope::Private, &[("k", "v")]).await;
    assert_eq!(k(&*store.reader(), "a", Scopes::PrivateOnly).await, "v");
}

#[test]
fn without_writable_there_is_no_writer() {
    let store = Store::nowhere();
    assert!(store.open(&Options { writable: false, ..Options::default() }).writer.is_none());
    assert!(store.open(&Options::default()).writer.is_some());
}

#[tokio::test]
async fn a_new_store_is_private_whole_and_made_once() {
    use std::os::unix::fs::PermissionsExt;
    let store = Store::new().await;
    assert_eq!(fs::metadata(&store.path).expect("it is there").permissions().mode() & 0o7777, 0o600);
    assert_eq!(store.reader().list().await.expect("list"), []);
    create(&store, "a", Scope::Private, &[("k", "v")]).await;
    super::super::create_store(&store.path).await.expect("reused");
    assert_eq!(k(&*store.reader(), "a", Scopes::PrivateOnly).await, "v");
    let names: Vec<_> =
        fs::read_dir(store.folder()).expect("the folder").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(names, ["zenml.db"], "no draft is left");
    // Column for column what the real library makes.
    let real = Store::fixture("zenml-0.98.0-plain");
    for table in ["secret", "user", "secret_resource"] {
        let columns = format!(
            "SELECT group_concat(name || ' ' || type || ' ' || \"notnull\" || ' ' || pk, ', ')
             FROM pragma_table_info('{table}')"
        );
        assert_eq!(store.ask(&columns).await, real.ask(&columns).await);
        let indexes = format!(
            "SELECT group_concat(i.\"unique\" || ' ' || c.name) FROM pragma_index_list('{table}') i,
             pragma_index_info(i.name) c ORDER BY i.name, c.seqno"
        );
        assert_eq!(store.ask(&indexes).await, real.ask(&indexes).await);
        let keys = format!(
            "SELECT group_concat(\"table\" || \"from\" || \"to\" || on_delete) FROM pragma_foreign_key_list('{table}')"
        );
        assert_eq!(store.ask(&keys).await, real.ask(&keys).await);
    }
}

#[tokio::test]
async fn a_store_is_not_made_over_something_else() {
    let store = Store::nowhere();
    fs::write(&store.path, "precious").expect("a file");
    let error = super::super::create_store(&store.path).await.expect_err("something else");
    check_error(&error, "transient", "not an SQLite data base", "");
    assert_eq!(fs::read(&store.path).expect("still there"), b"precious");
    let older = Store::fixture("zenml-0.43.1-plain");
    let error = super::super::create_store(&older.path).await.expect_err("an older store");
    check_error(&error, "identity", "0.80 or later", "another folder");
    let nowhere = store.folder().join("missing/zenml.db");
    let error = super::super::create_store(&nowhere).await.expect_err("no folder");
    check_error(&error, "identity", "cannot be made", "folder");
}
