//! The back-end on files that the real ZenML made, and on broken ones.

mod components;
mod elsewhere;
mod files;
mod fixtures;
mod locks;
mod mysql;
mod tables;
mod writes;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keyside_config::settings::{
    BackendKind, BackendSettings, NetworkSettings, SecretText, SqlDatabase, ZenmlSqlSettings,
};
use keyside_protocol::value::{SecretValue, SecretValues};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Row as _, SqliteConnection};
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::super::{Backend, BackendError, Opened, ScopeLabel, Scopes, WriteBackend};

pub(super) const MIB: u64 = 1024 * 1024;

/// A copy of a data base in a folder of its own.
pub(super) struct Store {
    folder: TempDir,
    pub(super) path: PathBuf,
}

/// How a test opens a store.
pub(super) struct Options {
    pub(super) key: Option<&'static str>,
    pub(super) user: Option<&'static str>,
    pub(super) user_required: bool,
    pub(super) workspace: Option<&'static str>,
    pub(super) writable: bool,
    pub(super) max_value: u64,
    pub(super) timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            key: None,
            user: Some("default"),
            user_required: true,
            workspace: None,
            writable: true,
            max_value: MIB,
            timeout: Duration::from_secs(8),
        }
    }
}

impl Store {
    /// A copy of `NAME.db` of the fixtures.
    pub(super) fn fixture(name: &str) -> Self {
        let store = Self::nowhere();
        fs::copy(fixtures_folder().join("db").join(format!("{name}.db")), &store.path).expect("the fixture");
        store
    }

    /// A path in a new folder, with nothing there.
    pub(super) fn nowhere() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("zenml.db");
        Self { folder, path }
    }

    /// A new store with the user `default`.
    pub(super) async fn new() -> Self {
        let store = Self::nowhere();
        super::create_store(&store.path).await.expect("a new store");
        store
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn open(&self, options: &Options) -> Opened {
        open_path(&self.path, options)
    }

    pub(super) fn reader(&self) -> std::sync::Arc<dyn Backend> {
        self.open(&Options::default()).reader
    }

    pub(super) fn writer(&self) -> std::sync::Arc<dyn WriteBackend> {
        self.open(&Options::default()).writer.expect("writable")
    }

    /// A connection of another program: as ZenML's, but without its busy time-out.
    pub(super) async fn other_program(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(&self.path).busy_timeout(Duration::ZERO);
        options.foreign_keys(false).connect().await.expect("a connection")
    }

    /// Runs SQL as another program.
    pub(super) async fn sql(&self, sql: &str) {
        execute(&mut self.other_program().await, sql).await;
    }

    /// The first column of the first row, as text.
    pub(super) async fn ask(&self, sql: &str) -> String {
        let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(&mut self.other_program().await).await;
        rows.expect("rows")
            .first()
            .map_or_else(|| "nothing".to_owned(), |row| row.try_get_unchecked(0).unwrap_or_default())
    }
}

pub(super) fn open_path(path: &Path, options: &Options) -> Opened {
    let settings = settings_of(SqlDatabase::Sqlite(path.to_owned()), options);
    super::super::open(&settings, options.max_value).expect("settings that can work")
}

pub(super) fn settings_of(database: SqlDatabase, options: &Options) -> BackendSettings {
    let key = options.key.map(|text| SecretText {
        text: Zeroizing::new(text.to_owned()),
        origin: "`encryption_key_env` (variable `KEY`)".into(),
        file: None,
    });
    let sql = ZenmlSqlSettings {
        database,
        encryption_key: key,
        user: options.user.map(str::to_owned),
        user_required: options.user_required,
        workspace: options.workspace.map(str::to_owned),
        values: None,
        backup: None,
    };
    BackendSettings {
        name: "store".into(),
        kind: BackendKind::ZenmlSql(Box::new(sql)),
        required: true,
        parallelism: 8,
        timeout: options.timeout,
        ttl: None,
        writable: options.writable,
        denied_means_absent: false,
        network: NetworkSettings::default(),
    }
}

pub(super) async fn execute(connection: &mut SqliteConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.expect("SQL that works");
}

pub(super) fn fixtures_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/zenml")
}

pub(super) fn values(pairs: &[(&str, &str)]) -> SecretValues {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), SecretValue::copy_of(value.as_bytes()))).collect()
}

pub(super) fn shown(values: &SecretValues) -> Vec<(String, String)> {
    let text = |value: &SecretValue| String::from_utf8(value.expose().to_vec()).expect("text");
    values.iter().map(|(key, value)| (key.to_owned(), text(value))).collect()
}

/// The pairs of a secret, as text.
pub(super) async fn pairs(backend: &dyn Backend, name: &str, scopes: Scopes) -> Vec<(String, String)> {
    match backend.fetch(name, scopes).await {
        Ok(secret) => shown(&secret.values),
        Err(error) => panic!("{name}: {error}, {:?}", error.hint()),
    }
}

/// The value of `k`.
pub(super) async fn k(backend: &dyn Backend, name: &str, scopes: Scopes) -> String {
    pairs(backend, name, scopes).await.into_iter().find(|(key, _)| key == "k").expect("a key `k`").1
}

pub(super) async fn error(backend: &dyn Backend, name: &str) -> BackendError {
    match backend.fetch(name, Scopes::PrivateFirst).await {
        Ok(_) => panic!("{name} was found"),
        Err(error) => error,
    }
}

/// Checks class, words of the error, and words of the hint.
pub(super) fn check_error(error: &BackendError, class: &str, words: &str, hint: &str) {
    let found = crate::backend::contract::class(error);
    assert_eq!(found, class, "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert!(error.hint().unwrap_or_default().contains(hint), "{error}: {:?}", error.hint());
    let text = error.to_string();
    assert!(!text.contains('\n') && !text.ends_with('.'), "one line without a stop: {text}");
}
