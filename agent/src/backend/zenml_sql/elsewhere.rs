//! Values that lie elsewhere: another back-end then holds them by the secret's id, as ZenML keeps them since 0.55, and the
//! tables hold only names, or copies beside the names. A backup is asked where the first place fails, as ZenML does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keyside_config::settings::{self, BackendSettings};
use keyside_protocol::value::SecretValues;

use super::super::{BackendError, Description, Kept, ValueStore};
use super::connection::Connection;
use super::error::Place;
use super::read::dashed;
use super::tables::has_tables;

/// The other places, and which version of what they hold was read last.
pub(super) struct Elsewhere {
    values: Option<Holder>,
    backup: Option<Backup>,
    /// How long the first place may take where there is a second.
    patience: Duration,
    /// By the secret's id, dashed. A listing reads no other place, so it repeats what a fetch has found there; no value.
    versions: Mutex<HashMap<String, String>>,
}

/// A place for values.
pub(super) struct Holder {
    /// The name of the back-end.
    pub(super) name: String,
    pub(super) store: Arc<dyn ValueStore>,
}

/// Where copies of the values lie.
pub(super) enum Backup {
    /// In the tables, where the first place is another one.
    Tables,
    Other(Holder),
}

impl Elsewhere {
    /// `timeout` is the deadline of one call.
    pub(super) fn new(values: Option<Holder>, backup: Option<Backup>, timeout: Duration) -> Self {
        Self { values, backup, patience: timeout / 2, versions: Mutex::default() }
    }

    /// Tells whether the first place for values is not the tables.
    pub(super) fn holds_values(&self) -> bool {
        self.values.is_some()
    }

    /// Tells whether there is any other place.
    pub(super) fn is_anywhere(&self) -> bool {
        self.values.is_some() || self.backup.is_some()
    }

    /// Reads the values from the place that holds them, in place of the tables.
    ///
    /// Errors: `NotFound` when they are not there; the others as [`BackendError`] says.
    pub(super) async fn values_of(&self, id: &str, deployment: &str) -> Result<Kept, BackendError> {
        let Some(holder) = &self.values else { return Err(BackendError::NotFound) };
        let call = holder.store.values_of(id, deployment);
        if self.backup.is_none() {
            return call.await;
        }
        match tokio::time::timeout(self.patience, call).await {
            Ok(kept) => kept,
            Err(_) => Err(BackendError::Transient {
                what: format!("back-end `{}`: it did not answer in time", holder.name),
                hint: Some("is it up?".into()),
            }),
        }
    }

    /// The place to ask after the first has failed.
    pub(super) fn backup(&self) -> Option<&Backup> {
        self.backup.as_ref()
    }

    /// The answer for a secret that has a row, and no values in the place that holds them: that place's final word, and no
    /// absence, after which another back-end would be asked.
    pub(super) fn nothing_there(&self, name: &str) -> BackendError {
        let place = self.values.as_ref().map_or("another place", |holder| &holder.name);
        BackendError::Denied {
            what: format!("secret `{name}` has no values in back-end `{place}`"),
            hint: Some(
                "they were deleted there, or another deployment of ZenML wrote them; `zenml secret restore` brings them \
                 back from a backup"
                    .into(),
            ),
        }
    }

    /// Remembers which version was read elsewhere, `None` where the values came from the tables.
    pub(super) fn remember(&self, id: &str, version: Option<&str>) {
        let mut versions = self.versions();
        match version {
            Some(version) => drop(versions.insert(id.to_owned(), version.to_owned())),
            None => drop(versions.remove(id)),
        }
    }

    /// Forgets the secrets that are not among `listed`.
    pub(super) fn forget_others(&self, listed: &[Description]) {
        let mut versions = self.versions();
        if !versions.is_empty() {
            let ids: std::collections::HashSet<_> = listed.iter().filter_map(|one| one.id.as_deref()).collect();
            versions.retain(|id, _| ids.contains(id.as_str()));
        }
    }

    /// Adds what was read elsewhere to the version that the row has.
    pub(super) fn complete(&self, description: &mut Description) {
        let versions = self.versions();
        if let Some(version) = description.id.as_ref().and_then(|id| versions.get(id)) {
            description.version.push('+');
            description.version.push_str(version);
        }
    }

    pub(super) async fn close(&self) {
        let backup = match &self.backup {
            Some(Backup::Other(holder)) => Some(holder),
            Some(Backup::Tables) | None => None,
        };
        for holder in self.values.iter().chain(backup) {
            holder.store.close().await;
        }
    }

    fn versions(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the back-end that `settings` describe as a place for values. Makes no call.
///
/// Errors: `Identity` when it cannot be one.
pub(super) fn open(settings: &BackendSettings, max_value: u64) -> Result<Holder, BackendError> {
    let opened = super::super::open(settings, max_value)?;
    let store = opened.values.ok_or_else(|| BackendError::Identity {
        what: format!("back-end `{}` cannot hold values for another one", settings.name),
        hint: Some("values by id have the layout `store`, on AWS, GCP, Azure or Vault".into()),
    })?;
    Ok(Holder { name: settings.name.clone(), store })
}

/// Opens a backup, likewise.
pub(super) fn open_backup(backup: &settings::Backup, max_value: u64) -> Result<Backup, BackendError> {
    match backup {
        settings::Backup::Tables => Ok(Backup::Tables),
        settings::Backup::Backend(settings) => open(settings, max_value).map(Backup::Other),
    }
}

/// Returns the id of ZenML's deployment, dashed: what it marks values with that it keeps elsewhere.
pub(super) async fn deployment(place: &Place, connection: &mut Connection) -> Result<String, BackendError> {
    let failure = |error: sqlx::Error| place.failure(super::error::Doing::Reading, &error);
    let missing = || {
        place.identity(
            "does not say which deployment of ZenML it belongs to",
            "start the ZenML server on it once: it writes its id into `server_settings` (before 0.80: `identity`)"
                .into(),
        )
    };
    let tables = ["server_settings", "identity"];
    let found = has_tables(connection, &tables).await.map_err(failure)?;
    let (table, _) = tables.iter().zip(found).find(|(_, found)| *found).ok_or_else(missing)?;
    let rows = connection.rows(&format!("SELECT id FROM {table} LIMIT 1"), &[]).await.map_err(failure)?;
    rows.first().map(|row| dashed(&row.text(0))).filter(|id| !id.is_empty()).ok_or_else(missing)
}

/// What was found in a place: the values, and its version where that place is not the tables.
pub(super) struct Found {
    pub(super) values: SecretValues,
    pub(super) version: Option<String>,
}

impl From<Kept> for Found {
    fn from(kept: Kept) -> Self {
        Self { values: kept.values, version: Some(kept.version) }
    }
}
