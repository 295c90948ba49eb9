//! The back-end on files that the real ZenML wrote, and on broken ones.

mod contract;
mod reads;
mod watching;
mod writes;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyside_config::settings::{BackendKind, BackendSettings, LocalSettings, NetworkSettings};
use keyside_protocol::value::{SecretValue, SecretValues};
use tempfile::TempDir;

use super::super::{Backend, BackendError, Scopes, WriteBackend};

/// Written by ZenML 0.43.1.
const REAL: &str = include_str!("../../../../../tests/fixtures/zenml/local_secrets_manager_secrets.yaml");

const MIB: u64 = 1024 * 1024;

/// A file in a directory of its own, below another that always stays.
struct Place {
    folder: TempDir,
    path: PathBuf,
}

impl Place {
    fn nowhere() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = folder.path().join("manager");
        fs::create_dir(&directory).expect("a directory");
        Self { path: directory.join("secrets.yaml"), folder }
    }

    fn of(text: impl AsRef<[u8]>) -> Self {
        let place = Self::nowhere();
        place.write(text);
        place
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn directory(&self) -> &Path {
        self.path.parent().expect("a directory")
    }

    /// Writes the file as ZenML does, and some time ago.
    fn write(&self, text: impl AsRef<[u8]>) {
        fs::write(&self.path, text).expect("room");
        settle(&self.path);
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.path).expect("a file")
    }

    fn reader(&self) -> Arc<dyn Backend> {
        open(&self.path, MIB).reader
    }

    fn writer(&self) -> Arc<dyn WriteBackend> {
        open(&self.path, MIB).writer.expect("writable")
    }

    /// The names of everything in the directory.
    fn listing(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory()).expect("a directory");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    }
}

/// Makes a file or directory look as if nobody had touched it for long.
fn settle(path: &Path) {
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    // Distinct, so that every change shows.
    let long_ago = long_ago + Duration::from_nanos(u64::from(std::process::id()));
    fs::File::open(path).and_then(|file| file.set_modified(long_ago)).expect("ours");
}

fn settings(path: &Path) -> BackendSettings {
    let local = LocalSettings { path: path.to_owned(), base: path.parent().expect("a directory").to_owned() };
    BackendSettings {
        name: "manager".into(),
        kind: BackendKind::Local(local),
        required: true,
        parallelism: 8,
        timeout: Duration::from_secs(1),
        ttl: None,
        writable: true,
        denied_means_absent: false,
        network: NetworkSettings::default(),
    }
}

fn open(path: &Path, max_value: u64) -> super::super::Opened {
    super::super::open(&settings(path), max_value).expect("settings that can work")
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn values(pairs: &[(&str, &str)]) -> SecretValues {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), SecretValue::copy_of(value.as_bytes()))).collect()
}

/// The pairs of a secret, as text.
async fn pairs(backend: &dyn Backend, name: &str) -> Vec<(String, String)> {
    let secret = match backend.fetch(name, Scopes::PrivateFirst).await {
        Ok(secret) => secret,
        Err(error) => panic!("{name}: {error}, {:?}", error.hint()),
    };
    let text = |value: &SecretValue| String::from_utf8(value.expose().to_vec()).expect("text");
    secret.values.iter().map(|(key, value)| (key.to_owned(), text(value))).collect()
}

async fn k(backend: &dyn Backend, name: &str) -> String {
    pairs(backend, name).await.into_iter().find(|(key, _)| key == "k").expect("a key `k`").1
}

async fn error(backend: &dyn Backend, name: &str) -> BackendError {
    match backend.fetch(name, Scopes::PrivateFirst).await {
        Ok(_) => panic!("{name} was found"),
        Err(error) => error,
    }
}

/// Checks class, words of the error, and that there is advice.
fn check_error(error: &BackendError, class: &str, words: &str) {
    let found = crate::backend::contract::class(error);
    assert_eq!(found, class, "{error}");
    let text = error.to_string();
    assert!(text.contains(words) && text.contains("back-end `manager`"), "{text}");
    assert!(!text.contains('\n') && !text.ends_with('.'), "one line without a stop: {text}");
    assert!(error.hint().is_some(), "no hint: {text}");
}
