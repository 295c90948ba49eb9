//! The local secrets manager of ZenML before 0.53: one YAML file, read whole for each call and never kept.
//!
//! `file` reads it so that nothing half-written passes for the whole; `version` tells two contents apart; `write`
//! replaces the file at one stroke; `watch` notices changes; `error` says what is wrong with a path. The form of the file
//! is [`crate::layout::local`].
//!
//! Files block, and those of a network may block for ever: all work is done on the runtime's own threads for that, a few
//! at a time, so that a file system that hangs costs its callers their deadline and nobody else anything.

mod error;
mod file;
#[cfg(test)]
mod tests;
mod version;
mod watch;
mod write;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use keyside_config::settings::{BackendSettings, LocalSettings};
use keyside_protocol::value::SecretValues;
use tokio::sync::{Semaphore, watch as changes};

use self::error::Place;
use self::file::{FileText, Memory};
use self::watch::Watch;
use super::{
    Backend, BackendError, Capabilities, Description, Opened, Scope, Scopes, Secret, Update, WriteBackend, WriteError,
};
use crate::layout::local::{DecodeError, Document};

/// Calls that may stand at the file at once. What hangs there keeps its place, so this is also the number of threads
/// that a file system can take away.
const MOST_CALLS: usize = 4;

/// Longest wait for another writer.
const MOST_WAITING: Duration = Duration::from_secs(5);

/// One file.
struct Local {
    store: Arc<Store>,
    places: Arc<Semaphore>,
    /// Runs from the first time that somebody wants to hear of changes.
    watch: Mutex<Option<Watch>>,
}

/// What the threads share.
struct Store {
    place: Place,
    max_value: u64,
    /// How long a write waits for another one's lock.
    patience: Duration,
    memory: Memory,
}

/// Opens the back-end that `settings` and `local` describe. Touches no file yet.
pub fn open(settings: &BackendSettings, local: &LocalSettings, max_value: u64) -> Result<Opened, BackendError> {
    let place = Place { backend: settings.name.clone(), path: local.path.clone(), base: local.base.clone() };
    let patience = (settings.timeout / 2).min(MOST_WAITING);
    let store = Arc::new(Store { place, max_value, patience, memory: Memory::default() });
    let places = Arc::new(Semaphore::new(settings.parallelism.clamp(1, MOST_CALLS)));
    let local = Arc::new(Local { store, places, watch: Mutex::default() });
    let writer = settings.writable.then(|| Arc::clone(&local) as Arc<dyn WriteBackend>);
    Ok(Opened { reader: local, writer, values: None })
}

impl Local {
    /// Does blocking work elsewhere. A caller that goes away leaves the work to its end, in its place.
    async fn at_the_file<T, E>(&self, work: impl FnOnce(&Store) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<BackendError> + Send + 'static,
    {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| closed())?;
        let store = Arc::clone(&self.store);
        let work = tokio::task::spawn_blocking(move || {
            let _place = place;
            work(&store)
        });
        work.await.map_err(|_| closed())?
    }
}

fn closed() -> BackendError {
    BackendError::Transient { what: "the back-end is closed: the agent is stopping".into(), hint: None }
}

/// This back-end has no scopes, so everything lies in the public one.
fn has_public(scopes: Scopes) -> bool {
    scopes.order().contains(&Scope::Public)
}

impl Store {
    /// Reads the file and passes what is in it on. None where there is no file.
    fn read<T>(&self, take: impl FnOnce(&Document<'_>) -> Result<T, BackendError>) -> Result<T, BackendError> {
        match self.read_text()? {
            Some(text) => take(&self.parse(&text)?),
            None => take(&Document::empty()),
        }
    }

    fn parse<'t>(&self, text: &'t FileText) -> Result<Document<'t>, BackendError> {
        // expose: taken apart here; values are decoded where they are asked for.
        let text = std::str::from_utf8(text.expose()).map_err(|_| self.place.not_text())?;
        Document::parse(text).map_err(|error| self.place.unreadable(error))
    }

    fn secret(&self, name: &str) -> Result<Secret, BackendError> {
        self.read(|document| {
            let entry = document.get(name).ok_or(BackendError::NotFound)?;
            let pairs = entry.and_then(|entry| entry.decode(self.max_value));
            let pairs = pairs.map_err(|error| self.unusable(name, &error))?;
            Ok(Secret { description: Description { keys: None, ..describe(document, name) }, values: pairs.values })
        })
    }

    fn unusable(&self, name: &str, error: &DecodeError) -> BackendError {
        let hint = match error {
            DecodeError::TooLarge(_) => "raise `[limits] value`",
            _ => "write it again with ZenML, or correct the file: each value is the standard base64 of a text",
        };
        BackendError::Unusable {
            what: format!("secret `{name}` in back-end `{}` cannot be read: {error}", self.place.backend),
            hint: Some(hint.into()),
        }
    }
}

/// Describes a secret that is there.
fn describe(document: &Document<'_>, name: &str) -> Description {
    let keys = document.get(name).and_then(Result::ok).map_or_else(Vec::new, |entry| entry.keys());
    Description {
        name: name.to_owned(),
        scope: Scope::Public,
        scope_label: None,
        id: None,
        version: version::of(document, name),
        keys: Some(keys),
    }
}

#[async_trait]
impl Backend for Local {
    fn capabilities(&self) -> Capabilities {
        // Names and keys stand in plain beside the values.
        Capabilities { keys_without_values: true, cheap_list: true }
    }

    async fn fetch(&self, name: &str, scopes: Scopes) -> Result<Secret, BackendError> {
        if !has_public(scopes) {
            return Err(BackendError::NotFound);
        }
        let name = name.to_owned();
        self.at_the_file(move |store| store.secret(&name)).await
    }

    async fn describe(&self, names: &[&str], scopes: Scopes) -> Result<Vec<Option<Description>>, BackendError> {
        if !has_public(scopes) {
            return Ok(vec![None; names.len()]);
        }
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.at_the_file(move |store| {
            store.read(|document| {
                let mut known: BTreeMap<&str, Option<Description>> = BTreeMap::new();
                for name in &names {
                    known.entry(name).or_insert_with(|| document.get(name).map(|_| describe(document, name)));
                }
                Ok(names.iter().map(|name| known[name.as_str()].clone()).collect())
            })
        })
        .await
    }

    async fn list(&self) -> Result<Vec<Description>, BackendError> {
        self.at_the_file(|store| {
            store.read(|document| Ok(document.iter().map(|(name, _)| describe(document, name)).collect()))
        })
        .await
    }

    fn changes(&self) -> Option<changes::Receiver<u64>> {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if watch.is_none() {
            match Watch::start(self.store.place.clone()) {
                Ok(started) => *watch = Some(started),
                Err(error) => {
                    let backend = &self.store.place.backend;
                    tracing::warn!(backend, %error, "no thread to watch the file; it is looked at once an interval");
                }
            }
        }
        watch.as_ref().map(Watch::subscribe)
    }

    async fn close(&self) {
        self.places.close();
        self.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[async_trait]
impl WriteBackend for Local {
    async fn create(&self, name: &str, scope: Scope, values: SecretValues) -> Result<Description, WriteError> {
        let name = name.to_owned();
        self.at_the_file(move |store| store.create(&name, scope, values)).await
    }

    async fn update(&self, name: &str, scope: Option<Scope>, update: Update) -> Result<Description, WriteError> {
        let name = name.to_owned();
        self.at_the_file(move |store| store.update(&name, scope, update)).await
    }

    async fn delete(
        &self,
        name: &str,
        scope: Option<Scope>,
        if_version: Option<&str>,
    ) -> Result<Description, WriteError> {
        let (name, if_version) = (name.to_owned(), if_version.map(str::to_owned));
        self.at_the_file(move |store| store.delete(&name, scope, if_version.as_deref())).await
    }
}
