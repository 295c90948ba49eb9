//! A new store: an SQLite file with the tables that ZenML 0.98 keeps secrets in.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection as _};

use super::super::BackendError;
use super::connection::Connection;
use super::era::Era;
use super::error::{Doing, Place, inspect};
use super::tables::Tables;
use super::timestamp;
use super::write::new_id;
use crate::sys::sqlite_memory::wipe_freed_sqlite_memory;

/// Column for column what ZenML 0.98 makes.
const TABLES: &str = r#"
CREATE TABLE user (
    id CHAR(32) NOT NULL,
    created DATETIME NOT NULL,
    updated DATETIME NOT NULL,
    name VARCHAR NOT NULL,
    is_service_account BOOLEAN NOT NULL,
    full_name VARCHAR NOT NULL,
    description TEXT,
    email VARCHAR,
    avatar_url TEXT,
    active BOOLEAN NOT NULL,
    password VARCHAR,
    password_changed_at DATETIME,
    activation_token VARCHAR,
    email_opted_in BOOLEAN,
    external_user_id CHAR(32),
    is_admin BOOLEAN NOT NULL,
    user_metadata VARCHAR,
    oidc_claims JSON,
    default_project_id CHAR(32),
    PRIMARY KEY (id),
    UNIQUE (name, is_service_account),
    CONSTRAINT fk_user_default_project_id_project FOREIGN KEY(default_project_id) REFERENCES project (id)
        ON DELETE SET NULL
);
CREATE TABLE secret (
    id CHAR(32) NOT NULL,
    created DATETIME NOT NULL,
    updated DATETIME NOT NULL,
    name VARCHAR NOT NULL,
    private BOOLEAN NOT NULL,
    internal BOOLEAN NOT NULL,
    "values" VARCHAR(16777215),
    user_id CHAR(32) NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT unique_secret_name_private_scope_user UNIQUE (name, private, user_id),
    CONSTRAINT fk_secret_user_id_user FOREIGN KEY(user_id) REFERENCES user (id) ON DELETE CASCADE
);
CREATE TABLE secret_resource (
    id CHAR(32) NOT NULL,
    created DATETIME NOT NULL,
    updated DATETIME NOT NULL,
    secret_id CHAR(32) NOT NULL,
    resource_id CHAR(32) NOT NULL,
    resource_type VARCHAR(255) NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT fk_secret_resource_secret_id_secret FOREIGN KEY(secret_id) REFERENCES secret (id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX ix_secret_resource_resource_id_resource_type_secret_id
    ON secret_resource (resource_id, resource_type, secret_id);
"#;

/// Makes a store at `path` (mode 0600) with one user, `default`, and no secrets. A store that is there already is left
/// as it is; anything else there is an error, and is left alone. The folder must exist.
///
/// It is not a whole ZenML data base: ZenML itself cannot be pointed at it.
pub async fn create_store(path: &Path) -> Result<(), BackendError> {
    let place = Place::of_file("store", path);
    if fs::symlink_metadata(path).is_ok() {
        return check_store(&place).await;
    }
    // Made beside and moved into place whole: a second process sees all of it or nothing.
    let draft = draft_path(path);
    let made = make(&place, &draft).await;
    let moved = made.and_then(|()| match renameat_with(CWD, &draft, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::EXIST) => Ok(false),
        Err(errno) => Err(cannot_make(&place, errno.raw_os_error())),
    });
    match moved {
        Ok(true) => Ok(()),
        other => {
            // Whatever is left of the draft is ours; that it cannot be removed changes nothing.
            let _ = fs::remove_file(&draft);
            other?;
            check_store(&place).await
        }
    }
}

fn draft_path(path: &Path) -> std::path::PathBuf {
    let mut draft = path.to_owned().into_os_string();
    draft.push(format!(".{}", &new_id()[..12]));
    draft.into()
}

fn cannot_make(place: &Place, errno: i32) -> BackendError {
    place.identity(&format!("cannot be made (errno {errno})"), "check that its folder exists and may be written".into())
}

async fn make(place: &Place, draft: &Path) -> Result<(), BackendError> {
    // Before the first connection of this process, whoever it is that makes the store.
    let _ = wipe_freed_sqlite_memory();
    let io = |error: std::io::Error| cannot_make(place, error.raw_os_error().unwrap_or(0));
    // Ours from the first byte: SQLite would make it with the umask's mode.
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft).map_err(io)?;
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(io)?;
    drop(file);
    let failure = |error: sqlx::Error| place.failure(Doing::Writing, &error);
    // Foreign keys off: `project` is not among the tables.
    let options = SqliteConnectOptions::new().filename(draft).foreign_keys(false).disable_statement_logging();
    let mut connection = options.connect().await.map_err(failure)?;
    let mut transaction = connection.begin().await.map_err(failure)?;
    sqlx::raw_sql(TABLES).execute(&mut *transaction).await.map_err(failure)?;
    let sql = "INSERT INTO user (id, created, updated, name, is_service_account, full_name, active, is_admin, \
               oidc_claims) VALUES (?1, ?2, ?2, 'default', 0, '', 1, 1, 'null')";
    let query = sqlx::query(sql).bind(new_id()).bind(timestamp::now());
    query.execute(&mut *transaction).await.map_err(failure)?;
    transaction.commit().await.map_err(failure)?;
    connection.close().await.map_err(failure)
}

async fn check_store(place: &Place) -> Result<(), BackendError> {
    inspect(place.path()).map_err(|fault| place.file_fault(fault))?;
    let failure = |error: sqlx::Error| place.failure(Doing::Reading, &error);
    let options = SqliteConnectOptions::new().filename(place.path()).read_only(true);
    let options = options.busy_timeout(Duration::from_secs(5)).disable_statement_logging();
    let mut connection = Connection::Sqlite(options.connect().await.map_err(failure)?);
    let found = check_tables(place, &mut connection).await;
    connection.close().await;
    found
}

async fn check_tables(place: &Place, connection: &mut Connection) -> Result<(), BackendError> {
    let failure = |error: sqlx::Error| place.failure(Doing::Reading, &error);
    let tables = Tables::of(connection).await.map_err(failure)?;
    let hint = || "move it away, or use another folder".to_owned();
    match Era::of(&tables.secret) {
        Some(Era::D { .. }) if !tables.user.is_empty() => {}
        _ => return Err(place.identity("is not a secrets store of ZenML 0.80 or later", hint())),
    }
    let users = connection.rows("SELECT 1 FROM user LIMIT 1", &[]).await.map_err(failure)?;
    if users.iter().any(|row| row.truth(0)) {
        Ok(())
    } else {
        Err(place.identity("is a secrets store without any user", hint()))
    }
}
