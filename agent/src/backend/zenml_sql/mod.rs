//! ZenML's own tables in an SQLite file or on a MySQL or MariaDB server: read beside a live ZenML, and written as ZenML
//! 0.80 and later writes them.
//!
//! `connection` is one connection to either, with what differs between their SQL; `sqlite`, `mysql` and `tls` make and
//! keep connections, and never a lock between two statements; `rds_iam` makes passwords of AWS's credentials. `tables` and `era` tell from the columns which ZenML made
//! the tables; `read` and `write` are the statements; `elsewhere` asks for values that lie in another back-end. `error`
//! and `mysql_error` turn codes into classes; `create` makes a new store; `components` finds secrets managers. The
//! encoding of the values is [`crate::layout::zenml`].

mod components;
mod connection;
mod connections;
mod create;
mod elsewhere;
mod era;
mod error;
mod mysql;
mod mysql_error;
mod rds_iam;
mod read;
mod sqlite;
mod tables;
#[cfg(test)]
mod tests;
mod timestamp;
mod tls;
mod write;

use std::sync::Arc;

use async_trait::async_trait;
use keyside_config::settings::{BackendSettings, SqlDatabase, ZenmlSqlSettings};
use keyside_protocol::value::SecretValues;

pub use self::components::SecretsManager;
use self::connections::Connections;
pub use self::create::create_store;
use self::elsewhere::Elsewhere;
use self::era::Era;
use self::error::{At, Place};
use super::own_writes::OwnWrites;
use super::{
    Backend, BackendError, Capabilities, Description, Opened, Scope, Scopes, Secret, Update, WriteBackend, WriteError,
};
use crate::layout::zenml::StoreKey;
use crate::sys::sqlite_memory::wipe_freed_sqlite_memory;

/// One data base of ZenML.
struct ZenmlSql {
    place: Place,
    connections: Connections,
    key: Option<StoreKey>,
    key_origin: String,
    user: Option<String>,
    user_required: bool,
    workspace: Option<String>,
    max_value: u64,
    own_writes: OwnWrites,
    elsewhere: Elsewhere,
}

/// Opens the back-end that `settings` and `sql` describe. Touches no file and asks no server yet: a store may appear later.
///
/// Errors: `Identity` when the settings cannot work, or the places for its values cannot be opened.
pub fn open(settings: &BackendSettings, sql: &ZenmlSqlSettings, max_value: u64) -> Result<Opened, BackendError> {
    let values = sql.values.as_ref().map(|values| elsewhere::open(values, max_value)).transpose()?;
    let backup = sql.backup.as_ref().map(|backup| elsewhere::open_backup(backup, max_value)).transpose()?;
    let elsewhere = Elsewhere::new(values, backup, settings.timeout);
    let is_whole = !elsewhere.is_anywhere();
    if settings.writable && !is_whole {
        tracing::warn!(
            backend = settings.name,
            hint = "write with ZenML, which keeps both places alike",
            "it is read-only although `writable` is true: its values, or a backup of them, lie in another back-end"
        );
    }
    let store = Arc::new(ZenmlSql::new(settings, sql, max_value, elsewhere)?);
    let writer = (settings.writable && is_whole).then(|| Arc::clone(&store) as Arc<dyn WriteBackend>);
    Ok(Opened { reader: store, writer, values: None })
}

/// Tells whether the tables are of a ZenML before 0.55: where that one kept values elsewhere, it kept names there too.
pub async fn keeps_names_with_values(settings: &BackendSettings, sql: &ZenmlSqlSettings) -> Result<bool, BackendError> {
    let store = ZenmlSql::new(settings, sql, 0, Elsewhere::new(None, None, settings.timeout))?;
    let era = store.era().await;
    store.connections.close().await;
    era.map(|era| era == Some(Era::B))
}

/// Returns the secrets managers that the data base lists.
pub async fn secrets_managers(
    settings: &BackendSettings,
    sql: &ZenmlSqlSettings,
) -> Result<Vec<SecretsManager>, BackendError> {
    let store = ZenmlSql::new(settings, sql, 0, Elsewhere::new(None, None, settings.timeout))?;
    let managers = store.secrets_managers().await;
    store.connections.close().await;
    managers
}

impl ZenmlSql {
    fn new(
        settings: &BackendSettings,
        sql: &ZenmlSqlSettings,
        max_value: u64,
        elsewhere: Elsewhere,
    ) -> Result<Self, BackendError> {
        let (place, connections) = match &sql.database {
            SqlDatabase::Sqlite(path) => {
                if !wipe_freed_sqlite_memory() {
                    tracing::debug!(backend = settings.name, "SQLite was in use before: what it frees is not wiped");
                }
                let place = Place::of_file(&settings.name, path);
                let connections = sqlite::Connections::new(place.clone(), settings.timeout, settings.parallelism);
                (place, Connections::Sqlite(connections))
            }
            SqlDatabase::Mysql(server) => {
                let at = At::Server(format!("mysql://{}:{}/{}", server.host, server.port, server.database));
                let place = Place { backend: settings.name.clone(), at };
                let connections = mysql::Connections::new(place.clone(), settings, server)?;
                (place, Connections::Mysql(Box::new(connections)))
            }
        };
        Ok(Self {
            connections,
            place,
            key: sql.encryption_key.as_ref().and_then(|key| StoreKey::derive(&key.text)),
            key_origin: sql.encryption_key.as_ref().map_or_else(String::new, |key| key.origin.clone()),
            user: sql.user.clone(),
            user_required: sql.user_required,
            workspace: sql.workspace.clone(),
            max_value,
            own_writes: OwnWrites::default(),
            elsewhere,
        })
    }
}

#[async_trait]
impl Backend for ZenmlSql {
    fn capabilities(&self) -> Capabilities {
        // Keys lie inside the encoded values.
        Capabilities { keys_without_values: false, cheap_list: true }
    }

    async fn fetch(&self, name: &str, scopes: Scopes) -> Result<Secret, BackendError> {
        self.read_secret(name, scopes).await
    }

    async fn describe(&self, names: &[&str], scopes: Scopes) -> Result<Vec<Option<Description>>, BackendError> {
        self.describe_secrets(names, scopes).await
    }

    async fn list(&self) -> Result<Vec<Description>, BackendError> {
        self.list_secrets().await
    }

    async fn close(&self) {
        self.connections.close().await;
        self.elsewhere.close().await;
    }
}

#[async_trait]
impl WriteBackend for ZenmlSql {
    async fn create(&self, name: &str, scope: Scope, values: SecretValues) -> Result<Description, WriteError> {
        self.create_secret(name, scope, values).await
    }

    async fn update(&self, name: &str, scope: Option<Scope>, update: Update) -> Result<Description, WriteError> {
        self.update_secret(name, scope, update).await
    }

    async fn delete(
        &self,
        name: &str,
        scope: Option<Scope>,
        if_version: Option<&str>,
    ) -> Result<Description, WriteError> {
        self.delete_secret(name, scope, if_version).await
    }
}
