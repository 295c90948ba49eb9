//! What rows may look like: visibility, users, workspaces, NULL, duplicates, sizes, migrations.

use super::*;
use crate::backend::contract::{Case, Subject, run};
use crate::backend::{Description, Scope, Secret};
use crate::layout::zenml::encode;

/// SQL for a row of a store of ZenML 0.98.
fn row(id: u32, name: &str, owner: &str, extra: &str, value: &str) -> String {
    let stored = encode(&values(&[("k", value)]), None).expect("text");
    let stored = std::str::from_utf8(stored.expose()).expect("base64");
    format!(
        "INSERT INTO secret (id, created, updated, name, user_id, private, internal, \"values\") \
         VALUES (printf('%032x', {id}), '2026-01-01 00:00:00.000000', '2026-01-01 00:00:00.000000', '{name}', \
         '{owner}', {extra}, CAST('{stored}' AS BLOB));"
    )
}

fn user(id: u32, name: &str, is_service_account: bool) -> String {
    format!(
        "INSERT INTO user (id, created, updated, name, is_service_account, full_name, active, is_admin) \
         VALUES ('{}', '2026-01-01', '2026-01-01', '{name}', {is_service_account}, '', 1, 0);",
        user_id(id)
    )
}

fn user_id(id: u32) -> String {
    format!("{id:032x}")
}

/// A store with two people and a service account, and secrets of each.
async fn shared_store() -> Store {
    let store = Store::new().await;
    let [anna, bob, robot] = [0xa, 0xb, 0xc].map(user_id);
    let sql = [
        user(0xa, "anna", false),
        user(0xb, "bob", false),
        user(0xc, "anna", true),
        row(1, "shared", &anna, "0, 0", "of all"),
        row(2, "mine", &anna, "1, 0", "anna's"),
        row(3, "mine", &bob, "1, 0", "bob's"),
        row(4, "mine", &robot, "1, 0", "the robot's"),
        row(5, "hidden", &anna, "0, 1", "internal"),
    ];
    store.sql(&sql.concat()).await;
    store
}

async fn names(backend: &dyn Backend) -> Vec<String> {
    let mut names: Vec<_> = backend.list().await.expect("list").into_iter().map(|one: Description| one.name).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn a_private_secret_is_seen_only_as_its_owner() {
    let store = shared_store().await;
    let check = async |user: Option<&'static str>, expected: Option<&str>| {
        let backend = store.open(&Options { user, ..Options::default() }).reader;
        assert_eq!(k(&*backend, "shared", Scopes::PrivateFirst).await, "of all");
        match expected {
            Some(value) => {
                assert_eq!(k(&*backend, "mine", Scopes::PrivateFirst).await, value, "{user:?}");
                assert_eq!(names(&*backend).await, ["mine", "shared"], "{user:?}");
            }
            None => {
                assert_eq!(error(&*backend, "mine").await, BackendError::NotFound, "{user:?}");
                assert_eq!(names(&*backend).await, ["shared"], "{user:?}");
            }
        }
    };
    check(None, None).await;
    check(Some("default"), None).await;
    check(Some("bob"), Some("bob's")).await;
    // A person comes before a service account of the same name; the id names either.
    check(Some("anna"), Some("anna's")).await;
    check(Some("0000000000000000000000000000000c"), Some("the robot's")).await;
    check(Some("00000000-0000-0000-0000-00000000000C"), Some("the robot's")).await;
}

#[tokio::test]
async fn internal_secrets_do_not_exist_for_us() {
    let store = shared_store().await;
    let backend = store.open(&Options { user: Some("anna"), ..Options::default() }).reader;
    assert_eq!(error(&*backend, "hidden").await, BackendError::NotFound);
    assert_eq!(backend.describe(&["hidden"], Scopes::PublicFirst).await.expect("describe"), [None]);
}

#[tokio::test]
async fn an_unknown_user_is_an_error_only_when_somebody_wrote_it_down() {
    let store = shared_store().await;
    let options = Options { user: Some("nobody"), ..Options::default() };
    let strict = store.open(&options).reader;
    check_error(&error(&*strict, "shared").await, "identity", "no user `nobody`", "set `user` of back-end `store`");
    assert!(strict.list().await.is_err());
    let lenient = store.open(&Options { user_required: false, ..options }).reader;
    assert_eq!(names(&*lenient).await, ["shared"]);
}

#[tokio::test]
async fn values_that_lie_elsewhere_are_said_to_be_elsewhere() {
    let store = shared_store().await;
    for nothing in ["NULL", "''", "X''"] {
        store.sql(&format!("UPDATE secret SET \"values\" = {nothing} WHERE name = 'shared'")).await;
        let backend = store.reader();
        let before = backend.describe(&["shared"], Scopes::PublicOnly).await.expect("describe")[0].clone();
        check_error(&error(&*backend, "shared").await, "unusable", "no values in this table", "zenml secret restore");
        assert!(before.expect("it is there").version.ends_with(":moved"));
    }
}

#[tokio::test]
async fn text_and_blob_are_read_alike() {
    let store = shared_store().await;
    store.sql("UPDATE secret SET \"values\" = CAST(\"values\" AS TEXT)").await;
    assert_eq!(store.ask("SELECT typeof(\"values\") FROM secret").await, "text");
    assert_eq!(k(&*store.reader(), "shared", Scopes::PublicOnly).await, "of all");
}

#[tokio::test]
async fn damaged_values_are_unusable_and_not_quoted() {
    let store = shared_store().await;
    // base64 of {"k": 12345}, and what is no base64 at all.
    for (stored, words) in [("eyJrIjogMTIzNDV9", "not an object of strings"), ("canary!", "not base64")] {
        store.sql(&format!("UPDATE secret SET \"values\" = '{stored}' WHERE name = 'shared'")).await;
        let error = error(&*store.reader(), "shared").await;
        check_error(&error, "unusable", words, "with ZenML");
        assert!(!error.to_string().contains("12345") && !error.to_string().contains("canary"), "{error}");
    }
}

#[tokio::test]
async fn a_monstrous_row_is_refused_before_it_is_read() {
    let store = shared_store().await;
    store.sql("UPDATE secret SET \"values\" = zeroblob(16777217) WHERE name = 'shared'").await;
    check_error(&error(&*store.reader(), "shared").await, "unusable", "too large: 16777217 bytes", "artifact store");
}

#[tokio::test]
async fn a_newer_table_is_noticed_on_an_open_connection() {
    let store = Store::new().await;
    let owner = store.ask("SELECT id FROM user").await;
    // As ZenML 0.80 had it: no column `internal` yet.
    let add = row(1, "connector", &owner, "0, 0", "v");
    store.sql(&format!("{add} ALTER TABLE secret DROP COLUMN internal")).await;
    let backend = store.reader();
    assert_eq!(k(&*backend, "connector", Scopes::PublicOnly).await, "v");
    assert_eq!(names(&*backend).await, ["connector"]);
    // The migration hides it: the very next call must know.
    store
        .sql("ALTER TABLE secret ADD COLUMN internal BOOLEAN NOT NULL DEFAULT 0; UPDATE secret SET internal = 1")
        .await;
    assert_eq!(error(&*backend, "connector").await, BackendError::NotFound);
    assert_eq!(names(&*backend).await, Vec::<String>::new());
}

/// SQL that makes an era B or C table with three workspaces' worth of rows.
fn older_tables(values_null: &str) -> String {
    format!(
        "CREATE TABLE user (id CHAR(32) PRIMARY KEY, name VARCHAR NOT NULL);
         CREATE TABLE workspace (id CHAR(32) PRIMARY KEY, name VARCHAR NOT NULL);
         CREATE TABLE secret (\"values\" TEXT {values_null}, workspace_id CHAR(32) NOT NULL, user_id CHAR(32) NOT NULL,
             id CHAR(32) PRIMARY KEY, created DATETIME NOT NULL, updated DATETIME NOT NULL, name VARCHAR NOT NULL,
             scope VARCHAR NOT NULL);
         INSERT INTO user VALUES ('{0}', 'default'), ('{1}', 'bob');
         INSERT INTO workspace VALUES ('{0}', 'red'), ('{1}', 'blue');",
        user_id(1),
        user_id(2)
    )
}

fn older_row(id: u32, name: &str, workspace: u32, scope: &str, owner: u32, created: &str, value: &str) -> String {
    let stored = encode(&values(&[("k", value)]), None).expect("text");
    let stored = std::str::from_utf8(stored.expose()).expect("base64");
    format!(
        "INSERT INTO secret VALUES ('{stored}', '{}', '{}', '{}', '{created}', '{created}', '{name}', '{scope}');",
        user_id(workspace),
        user_id(owner),
        user_id(id)
    )
}

#[tokio::test]
async fn before_0_80_a_secret_is_seen_in_its_workspace_and_by_its_user() {
    for values_null in ["NOT NULL", ""] {
        let store = Store::nowhere();
        let options = SqliteConnectOptions::new().filename(&store.path).create_if_missing(true);
        execute(
            &mut options.connect().await.expect("a new file"),
            &[
                older_tables(values_null),
                older_row(1, "a", 1, "workspace", 1, "2023-01-01 00:00:00.000000", "red"),
                older_row(2, "a", 2, "workspace", 1, "2023-01-01 00:00:00.000000", "blue"),
                older_row(3, "a", 1, "user", 2, "2023-01-01 00:00:00.000000", "bob in red"),
                // Nothing in the tables forbids the same name twice: the oldest counts.
                older_row(9, "twice", 1, "workspace", 1, "2023-01-01 00:00:00.000000", "older"),
                older_row(4, "twice", 1, "workspace", 2, "2023-01-02 00:00:00.000000", "younger"),
            ]
            .concat(),
        )
        .await;
        let open = |workspace, user| store.open(&Options { workspace, user, ..Options::default() }).reader;
        assert_eq!(k(&*open(Some("red"), None), "a", Scopes::PrivateFirst).await, "red");
        assert_eq!(k(&*open(Some("blue"), None), "a", Scopes::PrivateFirst).await, "blue");
        let blue = "00000000-0000-0000-0000-000000000002";
        assert_eq!(k(&*open(Some(blue), Some("bob")), "a", Scopes::PrivateFirst).await, "blue");
        let bob = open(Some("red"), Some("bob"));
        assert_eq!(k(&*bob, "a", Scopes::PrivateFirst).await, "bob in red");
        assert_eq!(k(&*bob, "a", Scopes::PublicFirst).await, "red");
        assert_eq!(k(&*bob, "twice", Scopes::PrivateFirst).await, "older");
        assert_eq!(names(&*bob).await, ["a", "a", "twice"]);

        check_error(&error(&*open(Some("green"), None), "a").await, "identity", "no workspace `green`", "`workspace`");
        let undecided = error(&*open(None, None), "a").await;
        check_error(&undecided, "identity", "none is called `default`: `blue`, `red`", "set `workspace`");
        store.sql("UPDATE workspace SET name = 'default' WHERE name = 'red'").await;
        assert_eq!(k(&*open(None, None), "a", Scopes::PrivateFirst).await, "red");
        store.sql("DELETE FROM workspace WHERE name = 'default'").await;
        assert_eq!(k(&*open(None, None), "a", Scopes::PrivateFirst).await, "blue");

        let refused = store.writer().create("b", Scope::Public, values(&[("k", "v")])).await;
        let refused = refused.expect_err("read-only").to_string();
        assert!(refused.contains("before 0.80"), "{refused}");
    }
}

#[tokio::test]
async fn more_rows_and_names_than_one_page_are_all_found() {
    let store = Store::new().await;
    let owner = store.ask("SELECT id FROM user").await;
    store
        .sql(&format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1300)
             INSERT INTO secret SELECT lower(hex(randomblob(16))), '2026-01-01', '2026-01-01', 'n' || i, 0, 0,
             CAST('e30=' AS BLOB), '{owner}' FROM n"
        ))
        .await;
    let backend = store.reader();
    assert_eq!(backend.list().await.expect("list").len(), 1300);
    let names: Vec<_> = (0..1302).map(|i| format!("n{i}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let described = backend.describe(&names, Scopes::PrivateFirst).await.expect("describe");
    let found: Vec<_> = described.iter().map(Option::is_some).collect();
    assert_eq!(found.iter().filter(|found| **found).count(), 1300);
    assert!(!found[0] && !found[1301]);

    // The same in a table without an index on names.
    let store = Store::nowhere();
    let options = SqliteConnectOptions::new().filename(&store.path).create_if_missing(true);
    let mut rows = older_tables("");
    rows.push_str("DELETE FROM workspace WHERE name = 'blue';");
    for id in 1..=600 {
        rows.push_str(&older_row(id, &format!("n{id}"), 1, "workspace", 1, "2023-01-01", "v"));
    }
    execute(&mut options.connect().await.expect("a new file"), &format!("BEGIN; {rows} COMMIT")).await;
    let backend = store.reader();
    assert_eq!(backend.list().await.expect("list").len(), 600);
    let described = backend.describe(&["n1", "n600", "n601", "n300"], Scopes::PrivateFirst).await.expect("describe");
    assert_eq!(described.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false, true]);
    assert_eq!(k(&*backend, "n599", Scopes::PrivateFirst).await, "v");
}

#[tokio::test]
async fn a_row_is_read_again_when_its_timestamp_has_only_just_been_written() {
    // ZenML commits the timestamp first and the values after it: what is read in between must not be kept.
    let store = shared_store().await;
    let backend = store.reader();
    let now = super::super::timestamp::now();
    store.sql(&format!("UPDATE secret SET updated = '{now}' WHERE name = 'shared'")).await;
    assert_eq!(k(&*backend, "shared", Scopes::PublicOnly).await, "of all");
    let age = super::super::timestamp::age(&now).expect("the past");
    assert!(age >= Duration::from_millis(250), "{age:?}");
    // On a busy machine the values may come later still: no listing shows this version, so the row is read again.
    let Ok(Secret { description: read, .. }) = backend.fetch("shared", Scopes::PublicOnly).await else {
        panic!("the secret is there");
    };
    let listed = backend.list().await.expect("listed");
    assert!(listed.iter().all(|listed| listed.version != read.version), "{}", read.version);
    // A row that is new and has no values is being created, one that is old has lost them.
    let now = super::super::timestamp::now();
    store.sql(&format!("UPDATE secret SET updated = '{now}', \"values\" = NULL WHERE name = 'shared'")).await;
    assert_eq!(error(&*backend, "shared").await, super::super::read::being_written("store", "shared"));
    store.sql("UPDATE secret SET updated = '2020-01-01 00:00:00.000000' WHERE name = 'shared'").await;
    check_error(&error(&*backend, "shared").await, "unusable", "no values", "");
}

/// The contract's levers on a real file.
struct Levers {
    store: Store,
    backend: std::sync::Arc<dyn Backend>,
    runs: std::sync::atomic::AtomicU32,
}

#[async_trait::async_trait]
impl Subject for Levers {
    fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    fn max_value(&self) -> usize {
        1000
    }

    fn cannot(&self, case: Case) -> Option<&'static str> {
        match case {
            Case::Bytes => Some("ZenML's values are text"),
            Case::Denied => Some("a table refuses no single row; what is another's does not exist"),
            _ => None,
        }
    }

    async fn put(&self, name: &str, scope: Scope, pairs: &[(&str, &[u8])]) {
        let values = pairs.iter().map(|(key, value)| ((*key).to_owned(), SecretValue::copy_of(value))).collect();
        let stored = encode(&values, None).expect("text");
        let stored = std::str::from_utf8(stored.expose()).expect("base64");
        let private = scope == Scope::Private;
        let run = self.runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let owner = self.store.ask("SELECT id FROM user").await;
        let updated = format!("2026-01-01 00:00:00.{run:06}");
        self.store
            .sql(&format!(
                "INSERT INTO secret VALUES (lower(hex(randomblob(16))), '{updated}', '{updated}', '{name}', {private},
                     0, CAST('{stored}' AS BLOB), '{owner}')
                 ON CONFLICT (name, private, user_id)
                 DO UPDATE SET updated = excluded.updated, \"values\" = excluded.\"values\""
            ))
            .await;
    }

    async fn remove(&self, name: &str, scope: Scope) {
        let private = scope == Scope::Private;
        self.store.sql(&format!("DELETE FROM secret WHERE name = '{name}' AND private = {private}")).await;
    }

    async fn deny(&self, _: &str) {
        unreachable!("not among the cases");
    }

    async fn break_down(&self) {
        fs::rename(&self.store.path, self.store.folder().join("away")).expect("rename");
    }

    async fn mend(&self) {
        let away = self.store.folder().join("away");
        if away.exists() {
            fs::rename(away, &self.store.path).expect("rename");
        }
    }

    async fn stall(&self) -> Box<dyn std::any::Any + Send> {
        let mut connection = self.store.other_program().await;
        execute(&mut connection, "BEGIN EXCLUSIVE").await;
        Box::new(connection)
    }

    async fn spoil_values(&self) {
        self.store.sql("UPDATE secret SET \"values\" = 'spoilt'").await;
    }
}

#[tokio::test]
async fn zenml_sql_keeps_the_contract() {
    let store = Store::new().await;
    let backend = store.open(&Options { max_value: 1000, ..Options::default() }).reader;
    let levers = Levers { store, backend, runs: 0.into() };
    let skipped: Vec<_> = run(&levers).await.into_iter().map(|(case, _)| case).collect();
    assert_eq!(skipped, [Case::Denied, Case::Bytes]);
}
