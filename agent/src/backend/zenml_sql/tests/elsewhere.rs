//! Values that lie in another back-end, and those of a backup; the tables are an SQLite file.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::super::elsewhere::{Backup, Elsewhere, Holder};
use super::super::read::dashed;
use super::*;
use crate::backend::contract::{Case, Subject, run};
use crate::backend::{Kept, Scope, ValueStore};

type Pairs = Vec<(String, Vec<u8>)>;

/// A place for values in memory.
#[derive(Default)]
struct Drawer {
    /// By deployment and id: the pairs and their version.
    kept: Mutex<HashMap<(String, String), (Pairs, u32)>>,
    failure: Mutex<Option<BackendError>>,
    hangs: std::sync::atomic::AtomicBool,
    calls: Mutex<Vec<(String, String)>>,
}

impl Drawer {
    fn put(&self, deployment: &str, id: &str, pairs: &[(&str, &[u8])]) {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec())).collect();
        let mut kept = self.kept.lock().expect("no panic");
        let version = kept.get(&(deployment.to_owned(), id.to_owned())).map_or(1, |(_, version)| version + 1);
        kept.insert((deployment.to_owned(), id.to_owned()), (pairs, version));
    }

    fn fail(&self, error: Option<BackendError>) {
        *self.failure.lock().expect("no panic") = error;
    }

    fn calls(&self) -> usize {
        self.calls.lock().expect("no panic").len()
    }
}

#[async_trait::async_trait]
impl ValueStore for Drawer {
    async fn values_of(&self, id: &str, deployment: &str) -> Result<Kept, BackendError> {
        let place = (deployment.to_owned(), id.to_owned());
        self.calls.lock().expect("no panic").push(place.clone());
        if self.hangs.load(std::sync::atomic::Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if let Some(error) = self.failure.lock().expect("no panic").clone() {
            return Err(error);
        }
        let kept = self.kept.lock().expect("no panic");
        let (pairs, version) = kept.get(&place).ok_or(BackendError::NotFound)?;
        let values = pairs.iter().map(|(key, value)| (key.clone(), SecretValue::copy_of(value))).collect();
        Ok(Kept { values, version: format!("v{version}") })
    }
}

/// Each way in which the first place fails.
fn failures() -> [BackendError; 4] {
    let what = || "cloud says no".to_owned();
    [
        BackendError::Denied { what: what(), hint: None },
        BackendError::Transient { what: what(), hint: None },
        BackendError::Identity { what: what(), hint: None },
        BackendError::Unusable { what: what(), hint: None },
    ]
}

const DEPLOYMENT: &str = "00000000-0000-0000-0000-0000000000dd";

/// A store whose table has names only, of the deployment [`DEPLOYMENT`].
async fn names_only() -> Store {
    let store = Store::new().await;
    store
        .sql(
            "CREATE TABLE server_settings (id CHAR(32), server_name VARCHAR);
             INSERT INTO server_settings VALUES ('000000000000000000000000000000dd', 'default')",
        )
        .await;
    store
}

/// Adds a row and returns the secret's id, dashed.
async fn row(store: &Store, name: &str, private: bool, stored: &str) -> String {
    let owner = store.ask("SELECT id FROM user").await;
    store
        .sql(&format!(
            "INSERT INTO secret VALUES (lower(hex(randomblob(16))), '2026-01-01 00:00:00.000000',
                 '2026-01-01 00:00:00.000000', '{name}', {private}, 0, {stored}, '{owner}')"
        ))
        .await;
    dashed(&store.ask(&format!("SELECT id FROM secret WHERE name = '{name}' AND private = {private}")).await)
}

fn holder(name: &str, drawer: &Arc<Drawer>) -> Holder {
    Holder { name: name.into(), store: Arc::clone(drawer) as Arc<dyn ValueStore> }
}

/// A backup in another back-end.
fn copies_in(drawer: &Arc<Drawer>) -> Backup {
    Backup::Other(holder("spare", drawer))
}

fn open(store: &Store, values: Option<&Arc<Drawer>>, backup: Option<Backup>, options: &Options) -> Arc<dyn Backend> {
    let settings = settings_of(SqlDatabase::Sqlite(store.path.clone()), options);
    let BackendKind::ZenmlSql(sql) = &settings.kind else { unreachable!("as made above") };
    let values = values.map(|drawer| holder("cloud", drawer));
    let elsewhere = Elsewhere::new(values, backup, settings.timeout);
    Arc::new(super::super::ZenmlSql::new(&settings, sql, options.max_value, elsewhere).expect("settings that can work"))
}

async fn version(backend: &dyn Backend, name: &str) -> String {
    backend.fetch(name, Scopes::PrivateFirst).await.map(|secret| secret.description.version).expect("it is there")
}

async fn listed(backend: &dyn Backend, name: &str) -> String {
    let all = backend.list().await.expect("list");
    all.into_iter().find(|one| one.name == name).expect("listed").version
}

#[tokio::test]
async fn names_come_from_the_tables_and_values_by_id_from_the_other_back_end() {
    let store = names_only().await;
    let id = row(&store, "db", false, "NULL").await;
    let cloud = Arc::new(Drawer::default());
    cloud.put(DEPLOYMENT, &id, &[("k", b"from the cloud")]);
    let backend = open(&store, Some(&cloud), None, &Options::default());
    assert_eq!(k(&*backend, "db", Scopes::PrivateFirst).await, "from the cloud");
    assert_eq!(*cloud.calls.lock().expect("no panic"), [(DEPLOYMENT.to_owned(), id.clone())]);
    // What is not a name here costs no call there, and existence is told by the tables alone.
    assert_eq!(error(&*backend, "absent").await, BackendError::NotFound);
    assert!(backend.describe(&["db"], Scopes::PrivateFirst).await.expect("describe")[0].is_some());
    backend.list().await.expect("list");
    assert_eq!(cloud.calls(), 1);
    // A version that changes with either place, the same in a listing.
    let first = version(&*backend, "db").await;
    assert_eq!(listed(&*backend, "db").await, first);
    cloud.put(DEPLOYMENT, &id, &[("k", b"changed there alone")]);
    let second = version(&*backend, "db").await;
    assert_ne!(second, first);
    assert_eq!(listed(&*backend, "db").await, second);
    store.sql("UPDATE secret SET updated = '2026-01-02 00:00:00.000000'").await;
    assert_ne!(listed(&*backend, "db").await, second);
    // What stands in the tables meanwhile is what ZenML does not read either.
    store.sql("UPDATE secret SET \"values\" = 'e30='").await;
    assert_eq!(k(&*backend, "db", Scopes::PrivateFirst).await, "changed there alone");
}

#[tokio::test]
async fn before_0_80_the_deployment_is_named_in_another_table() {
    let store = names_only().await;
    store.sql("DROP TABLE server_settings; CREATE TABLE identity (id CHAR(32))").await;
    let id = row(&store, "db", false, "NULL").await;
    let cloud = Arc::new(Drawer::default());
    let backend = open(&store, Some(&cloud), None, &Options::default());
    check_error(&error(&*backend, "db").await, "identity", "which deployment", "start the ZenML server");
    store.sql("INSERT INTO identity VALUES ('000000000000000000000000000000dd')").await;
    cloud.put(DEPLOYMENT, &id, &[("k", b"v")]);
    assert_eq!(k(&*backend, "db", Scopes::PrivateFirst).await, "v");
    // Earlier still, tables and cloud were never used together.
    let older = Store::fixture("zenml-0.43.1-plain");
    let backend = open(&older, Some(&cloud), None, &Options::default());
    check_error(&error(&*backend, "simple").await, "identity", "before 0.55", "remove `values`");
}

#[tokio::test]
async fn what_the_other_back_end_says_is_said_again() {
    let store = names_only().await;
    row(&store, "db", false, "NULL").await;
    let cloud = Arc::new(Drawer::default());
    let backend = open(&store, Some(&cloud), None, &Options::default());
    let missing = error(&*backend, "db").await;
    check_error(&missing, "denied", "`db` has no values in back-end `cloud`", "zenml secret restore");
    for failure in failures() {
        cloud.fail(Some(failure.clone()));
        assert_eq!(error(&*backend, "db").await, failure);
    }
    // A row that is new may be waiting for its values.
    cloud.fail(None);
    let now = super::super::timestamp::now();
    store.sql(&format!("UPDATE secret SET updated = '{now}'")).await;
    assert!(error(&*backend, "db").await.is_transient());
}

#[tokio::test]
async fn the_backup_is_read_where_the_first_place_fails_or_lacks_the_values() {
    let store = names_only().await;
    let id = row(&store, "db", false, "NULL").await;
    let (cloud, spare) = (Arc::new(Drawer::default()), Arc::new(Drawer::default()));
    spare.put(DEPLOYMENT, &id, &[("k", b"spare")]);
    let options = Options { timeout: Duration::from_millis(400), ..Options::default() };
    let backend = open(&store, Some(&cloud), Some(copies_in(&spare)), &options);
    assert_eq!(k(&*backend, "db", Scopes::PrivateFirst).await, "spare");
    cloud.put(DEPLOYMENT, &id, &[("k", b"cloud")]);
    assert_eq!(k(&*backend, "db", Scopes::PrivateFirst).await, "cloud");
    assert_eq!(spare.calls(), 1, "not asked where the first has them");
    let failure = BackendError::Transient { what: "down".into(), hint: None };
    cloud.fail(Some(failure.clone()));
    assert_eq!(k(&*backend, "db", Scopes::PrivateFirst).await, "spare");
    // Neither: the first one's word stays.
    spare.fail(Some(BackendError::Identity { what: "no login".into(), hint: None }));
    assert_eq!(error(&*backend, "db").await, failure);
    // One that hangs leaves the backup its time.
    cloud.fail(None);
    spare.fail(None);
    cloud.hangs.store(true, std::sync::atomic::Ordering::Relaxed);
    let fetched = tokio::time::timeout(options.timeout, backend.fetch("db", Scopes::PrivateFirst)).await;
    assert!(fetched.is_ok_and(|fetched| fetched.is_ok()));

    // The tables are the first place.
    let backend = open(&store, None, Some(copies_in(&spare)), &Options::default());
    assert_eq!(k(&*backend, "db", Scopes::PrivateFirst).await, "spare");
    let restored = listed(&*backend, "db").await;
    store.sql("UPDATE secret SET \"values\" = CAST('eyJrIjogInRhYmxlIn0=' AS BLOB)").await;
    assert_eq!(k(&*backend, "db", Scopes::PrivateFirst).await, "table");
    assert_ne!(listed(&*backend, "db").await, restored);
    store.sql("UPDATE secret SET \"values\" = 'damaged'").await;
    assert_eq!(k(&*backend, "db", Scopes::PrivateFirst).await, "spare");
    spare.fail(Some(BackendError::NotFound));
    check_error(&error(&*backend, "db").await, "unusable", "not base64", "");
}

#[tokio::test]
async fn copies_beside_the_names_are_read_after_any_failure_of_the_first_place() {
    let store = names_only().await;
    let id = row(&store, "db", false, "CAST('eyJrIjogImNvcHkifQ==' AS BLOB)").await;
    let cloud = Arc::new(Drawer::default());
    let options = Options { timeout: Duration::from_millis(400), ..Options::default() };
    let backend = open(&store, Some(&cloud), Some(Backup::Tables), &options);
    assert_eq!(k(&*backend, "db", Scopes::PrivateFirst).await, "copy", "the cloud lacks them");
    for failure in failures() {
        cloud.fail(Some(failure));
        assert_eq!(k(&*backend, "db", Scopes::PrivateFirst).await, "copy");
    }
    let copy = version(&*backend, "db").await;
    assert_eq!(listed(&*backend, "db").await, copy);
    // What the cloud has goes before the copy, and is another version.
    cloud.fail(None);
    cloud.put(DEPLOYMENT, &id, &[("k", b"cloud")]);
    assert_eq!(k(&*backend, "db", Scopes::PrivateFirst).await, "cloud");
    assert_ne!(listed(&*backend, "db").await, copy);
    // One that hangs leaves the tables their time.
    cloud.hangs.store(true, std::sync::atomic::Ordering::Relaxed);
    let fetched = tokio::time::timeout(options.timeout, backend.fetch("db", Scopes::PrivateFirst)).await;
    assert!(fetched.is_ok_and(|fetched| fetched.is_ok()));
    cloud.hangs.store(false, std::sync::atomic::Ordering::Relaxed);
    // No deployment is needed for what stands beside the name.
    store.sql("DROP TABLE server_settings").await;
    assert_eq!(k(&*backend, "db", Scopes::PrivateFirst).await, "copy");
}

#[tokio::test]
async fn where_the_tables_have_no_copy_that_can_be_read_the_first_failure_stays() {
    let store = names_only().await;
    for (name, stored) in [("null", "NULL"), ("empty", "''"), ("damaged", "'damaged'"), ("not_json", "'YWJj'")] {
        row(&store, name, false, stored).await;
    }
    let cloud = Arc::new(Drawer::default());
    let backend = open(&store, Some(&cloud), Some(Backup::Tables), &Options::default());
    for name in ["null", "empty", "damaged", "not_json"] {
        cloud.fail(None);
        let missing = error(&*backend, name).await;
        check_error(&missing, "denied", "has no values in back-end `cloud`", "zenml secret restore");
        for failure in failures() {
            cloud.fail(Some(failure.clone()));
            assert_eq!(error(&*backend, name).await, failure, "{name}");
        }
    }
    assert_eq!(error(&*backend, "absent").await, BackendError::NotFound);
}

#[tokio::test]
async fn copies_that_zenml_encrypted_are_read_with_the_key_of_the_backup() {
    let store = Store::fixture("zenml-0.98.0-enc");
    let cloud = Arc::new(Drawer::default());
    let open = |key| open(&store, Some(&cloud), Some(Backup::Tables), &Options { key, ..Options::default() });
    let backend = open(Some(super::fixtures::KEY));
    assert_eq!(k(&*backend, "both_scopes", Scopes::PrivateOnly).await, "private-or-user");
    for key in [None, Some("another")] {
        check_error(&error(&*open(key), "both_scopes").await, "denied", "has no values in back-end `cloud`", "");
    }
}

#[tokio::test]
async fn a_value_over_the_limit_is_refused_wherever_it_lies() {
    let store = names_only().await;
    let id = row(&store, "db", false, "NULL").await;
    let cloud = Arc::new(Drawer::default());
    cloud.put(DEPLOYMENT, &id, &[("k", &[b'x'; 101])]);
    let backend = open(&store, Some(&cloud), None, &Options { max_value: 100, ..Options::default() });
    check_error(&error(&*backend, "db").await, "unusable", "too large: 101 bytes", "`[limits] value`");
}

/// The contract's levers on names in a file and values in a drawer.
struct Levers {
    store: Store,
    cloud: Arc<Drawer>,
    backend: Arc<dyn Backend>,
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
            // The drawer answers alike for all.
            Case::Denied => Some("shown by a test of its own"),
            Case::Slow => Some("a listing does not hang where only the values do"),
            _ => None,
        }
    }

    async fn put(&self, name: &str, scope: Scope, pairs: &[(&str, &[u8])]) {
        let private = scope == Scope::Private;
        let count = format!("SELECT count(*) || '' FROM secret WHERE name = '{name}' AND private = {private}");
        let id = match self.store.ask(&count).await.as_str() {
            "0" => row(&self.store, name, private, "NULL").await,
            _ => dashed(
                &self.store.ask(&format!("SELECT id FROM secret WHERE name = '{name}' AND private = {private}")).await,
            ),
        };
        self.cloud.put(DEPLOYMENT, &id, pairs);
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
        self.cloud.fail(None);
    }

    async fn stall(&self) -> Box<dyn std::any::Any + Send> {
        unreachable!("not among the cases");
    }

    async fn spoil_values(&self) {
        self.cloud.fail(Some(BackendError::Unusable { what: "spoilt".into(), hint: None }));
    }
}

#[tokio::test]
async fn zenml_sql_with_values_elsewhere_keeps_the_contract() {
    let store = names_only().await;
    let cloud = Arc::new(Drawer::default());
    let backend = open(&store, Some(&cloud), None, &Options { max_value: 1000, ..Options::default() });
    let levers = Levers { store, cloud, backend };
    let skipped: Vec<_> = run(&levers).await.into_iter().map(|(case, _)| case).collect();
    assert_eq!(skipped, [Case::Denied, Case::Slow]);
}

#[test]
fn a_place_for_values_must_be_one_and_makes_the_store_read_only() {
    let store = Store::nowhere();
    let mut settings = settings_of(SqlDatabase::Sqlite(store.path.clone()), &Options::default());
    let other = settings_of(SqlDatabase::Sqlite(store.path.clone()), &Options::default());
    let BackendKind::ZenmlSql(sql) = &mut settings.kind else { unreachable!("as made above") };
    sql.values = Some(other);
    let error = super::super::super::open(&settings, MIB).err().expect("refused");
    check_error(&error, "identity", "cannot hold values for another one", "layout `store`");
}
