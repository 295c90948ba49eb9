//! ZenML's own tables in an SQLite file: read beside a live ZenML, and written as ZenML 0.80 and later writes them.
//!
//! `era` tells from the columns which ZenML made the table; `sqlite` keeps connections and never a lock between two
//! statements; `read` and `write` are the statements; `error` turns SQLite's result codes into classes; `create` makes
//! a new store; `components` finds secrets managers. The encoding of the values is [`crate::layout::zenml`].

mod components;
mod create;
mod era;
mod error;
mod read;
mod sqlite;
#[cfg(test)]
mod tests;
mod timestamp;
mod write;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use keyside_config::settings::{BackendSettings, ZenmlSqlSettings};
use keyside_protocol::value::SecretValues;

pub use self::components::LocalManager;
pub use self::create::create_store;
use self::error::Place;
use self::sqlite::Connections;
use self::write::OwnWrites;
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
}

/// Opens the back-end that `settings` and `sql` describe. Touches no file yet: a store may appear later.
pub fn open(settings: &BackendSettings, sql: &ZenmlSqlSettings, max_value: u64) -> Result<Opened, BackendError> {
    let store = Arc::new(ZenmlSql::new(settings, sql, max_value));
    let writer = settings.writable.then(|| Arc::clone(&store) as Arc<dyn WriteBackend>);
    Ok(Opened { reader: store, writer, values: None })
}

/// Returns the local secrets managers that the data base lists.
pub async fn local_managers(
    settings: &BackendSettings,
    sql: &ZenmlSqlSettings,
) -> Result<Vec<LocalManager>, BackendError> {
    let store = ZenmlSql::new(settings, sql, 0);
    let managers = store.local_managers().await;
    store.connections.close().await;
    managers
}

impl ZenmlSql {
    fn new(settings: &BackendSettings, sql: &ZenmlSqlSettings, max_value: u64) -> Self {
        let place =
            Place { backend: settings.name.clone(), path: sql.database.file().map(Path::to_owned).unwrap_or_default() };
        if !wipe_freed_sqlite_memory() {
            tracing::debug!(backend = settings.name, "SQLite was in use before: what it frees is not wiped");
        }
        Self {
            connections: Connections::new(place.clone(), settings.timeout, settings.parallelism),
            place,
            key: sql.encryption_key.as_ref().and_then(|key| StoreKey::derive(&key.text)),
            key_origin: sql.encryption_key.as_ref().map_or_else(String::new, |key| key.origin.clone()),
            user: sql.user.clone(),
            user_required: sql.user_required,
            workspace: sql.workspace.clone(),
            max_value,
            own_writes: OwnWrites::default(),
        }
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
