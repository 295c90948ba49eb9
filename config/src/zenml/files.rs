//! ZenML's global `config.yaml` and `credentials.yaml`, as far as they matter here.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::given::{self, Given, Table};
use super::section::in_file;
use crate::file::{self, MAX_CONFIG_BYTES, ReadError, Trust};
use crate::mistake::Mistake;

/// `config.yaml`.
#[derive(Deserialize, Default)]
pub(super) struct GlobalConfig {
    #[serde(default, deserialize_with = "given::table")]
    pub(super) store: Table,
    pub(super) active_workspace_name: Option<String>,
    pub(super) active_stack_id: Option<String>,
    /// The ZenML that wrote the file last.
    #[serde(default)]
    version: Option<Given>,
}

impl GlobalConfig {
    /// Returns the version of ZenML where it kept names in the secrets store itself, and not in its own tables: 0.35
    /// to 0.54.
    pub(super) fn version_before_tables(&self) -> Option<&str> {
        let Some(Given::Text(version)) = &self.version else { return None };
        let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
        let (major, minor) = (numbers.next()??, numbers.next()??);
        (major == 0 && minor < 55).then_some(version)
    }
}

/// `credentials.yaml`: by the address of the server, its login.
#[derive(Deserialize, Default)]
#[serde(transparent)]
pub(super) struct Credentials {
    #[serde(deserialize_with = "given::table")]
    servers: Table,
}

impl Credentials {
    /// Takes the login at a server, by its address without a slash at its end.
    pub(super) fn take(self, url: &str) -> Option<Table> {
        let found = self.servers.into_iter().find(|(server, _)| server.trim_end_matches('/') == url);
        match found {
            Some((_, Given::Table(login))) => Some(login),
            _ => None,
        }
    }
}

/// Why a file of ZenML's gave nothing.
pub(super) enum Unread {
    Absent,
    NotPermitted,
    Wrong(Mistake),
}

/// Reads one of ZenML's files; a mistake in it has a place and no text from the file, which can hold secrets.
pub(super) fn read<T: DeserializeOwned + Default>(path: &Path, what: &str) -> Result<T, Unread> {
    let bytes = file::read(path, MAX_CONFIG_BYTES, Trust::Any).map_err(|error| match error {
        ReadError::Absent => Unread::Absent,
        ReadError::NotPermitted => Unread::NotPermitted,
        ReadError::Other(_) => Unread::Wrong(error.into_mistake(path)),
    })?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Unread::Wrong(in_file(path, "this file is not UTF-8")))?;
    // An empty file is an empty configuration to ZenML.
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(T::default());
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_events: 100_000, max_aliases: 100, max_anchors: 100 },
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let location = error.location();
        Unread::Wrong(Mistake {
            line: location.map(|location| location.line() as usize),
            column: location.map(|location| location.column() as usize),
            ..in_file(path, &format!("this is not {what} of ZenML, or not YAML"))
        })
    })
}
