//! The store found from ZenML's own environment and global configuration, when no back-end is configured.
//!
//! The rules are those of ZenML's `GlobalConfiguration` (read in 0.98.0): variables of the store replace the file's
//! store whole if they name a type or a URL, else they lie over it; likewise for the secrets store.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::environment::Environment;
use crate::file::{self, MAX_CONFIG_BYTES, ReadError, Trust};
use crate::mistake::Mistake;
use crate::settings::{SecretText, SqlDatabase, ZenmlSqlSettings};
use crate::sqlite_url;

const STORE_URL: &str = "ZENML_STORE_URL";
const STORE_TYPE: &str = "ZENML_STORE_TYPE";
const SECRETS_STORE_TYPE: &str = "ZENML_SECRETS_STORE_TYPE";
const SECRETS_STORE_KEY: &str = "ZENML_SECRETS_STORE_ENCRYPTION_KEY";
const BACKUP_STORE_TYPE: &str = "ZENML_BACKUP_SECRETS_STORE_TYPE";
const CONFIG_PATH: &str = "ZENML_CONFIG_PATH";
const LOCAL_STORES_PATH: &str = "ZENML_LOCAL_STORES_PATH";
const WORKSPACE: &str = "ZENML_ACTIVE_WORKSPACE_NAME";
const ACTIVE_STACK: &str = "ZENML_ACTIVE_STACK_ID";
const USER: &str = "ZENML_DEFAULT_USER_NAME";

/// The file below the directory of local stores that ZenML makes by itself.
const DEFAULT_STORE: &str = "default_zen_store/zenml.db";

/// The store of ZenML's own client.
pub(crate) struct Found {
    pub(crate) store: ZenmlSqlSettings,
    /// The directory of local stores, where a local secrets manager keeps its file.
    pub(crate) local_stores: Option<PathBuf>,
    /// The id of the active stack.
    pub(crate) active_stack: Option<String>,
    /// Where it came from, one line a source.
    pub(crate) sources: Vec<String>,
    /// `config.yaml`, whether there is one or not.
    pub(crate) config_file: Option<PathBuf>,
}

/// ZenML's global `config.yaml`, as far as it matters here.
#[derive(Deserialize, Default)]
struct GlobalConfig {
    store: Option<Store>,
    active_workspace_name: Option<String>,
    active_stack_id: Option<String>,
}

#[derive(Deserialize, Default)]
struct Store {
    #[serde(rename = "type")]
    kind: Option<String>,
    url: Option<String>,
    secrets_store: Option<SecretsStore>,
    backup_secrets_store: Option<BackupSecretsStore>,
}

#[derive(Deserialize, Default)]
struct SecretsStore {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default, deserialize_with = "wiped_text")]
    encryption_key: Option<Zeroizing<String>>,
}

#[derive(Deserialize)]
struct BackupSecretsStore {
    #[serde(rename = "type")]
    kind: Option<String>,
}

fn wiped_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Zeroizing<String>>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Zeroizing::new))
}

/// Returns the id of the stack that is active for ZenML's own client; `None` where nothing names one, or what names it
/// cannot be read.
pub fn active_stack(environment: &Environment, uid: u32) -> Option<String> {
    let mut search = Search::new(environment, uid).ok()?;
    let named = search.filled_variable(ACTIVE_STACK).map(str::to_owned);
    named.or_else(|| search.read_config(false).active_stack_id)
}

/// Finds the store, or says everything that stands in the way.
pub(crate) fn find(environment: &Environment, uid: u32) -> Result<Found, Vec<Mistake>> {
    Search::new(environment, uid).map_err(|mistake| vec![mistake])?.run()
}

struct Search<'e> {
    environment: &'e Environment,
    /// Absolute; `None` when there is neither a variable nor a home directory.
    config_file: Option<PathBuf>,
    local_stores: Option<PathBuf>,
    mistakes: Vec<Mistake>,
    sources: Vec<String>,
}

impl<'e> Search<'e> {
    fn new(environment: &'e Environment, uid: u32) -> Result<Self, Mistake> {
        let directory = |name: &str| -> Result<Option<PathBuf>, Mistake> {
            environment
                .get(name)
                .filter(|value| !value.is_empty())
                .map(|value| std::path::absolute(value).map_err(|_| Mistake::of_variable(name, "is no path")))
                .transpose()
        };
        let config_dir = match directory(CONFIG_PATH)? {
            Some(directory) => Some(directory),
            None => file::user_config_dir(environment, uid).map(|directory| directory.join("zenml")),
        };
        let local_stores = match directory(LOCAL_STORES_PATH)? {
            Some(directory) => Some(directory),
            None => config_dir.as_ref().map(|directory| directory.join("local_stores")),
        };
        let config_file = config_dir.map(|directory| directory.join("config.yaml"));
        Ok(Self { environment, config_file, local_stores, mistakes: Vec::new(), sources: Vec::new() })
    }

    /// Takes a variable's text; one that is not UTF-8 is reported and counts as not set.
    fn variable(&mut self, name: &str) -> Option<&'e str> {
        self.environment.text(name).unwrap_or_else(|mistake| {
            self.mistakes.push(mistake);
            None
        })
    }

    fn filled_variable(&mut self, name: &str) -> Option<&'e str> {
        self.variable(name).filter(|text| !text.is_empty())
    }

    fn run(mut self) -> Result<Found, Vec<Mistake>> {
        let env_url = self.variable(STORE_URL);
        let env_type = self.variable(STORE_TYPE);
        let replaced = env_url.is_some() || env_type.is_some();
        let mut config = self.read_config(replaced);
        let file_store = config.store.take();
        let (path, secrets_store) = if replaced {
            (self.path_from_environment(env_url, env_type), None)
        } else {
            let store = file_store.unwrap_or_default();
            self.refuse_backup(store.backup_secrets_store.as_ref().and_then(|backup| backup.kind.as_deref()));
            let path = self.path_from_config(store.kind.as_deref(), store.url.as_deref());
            (path, store.secrets_store)
        };
        let encryption_key = self.encryption_key(secrets_store);
        let backup_type = self.filled_variable(BACKUP_STORE_TYPE);
        self.refuse_backup(backup_type);
        let workspace = self.filled_variable(WORKSPACE).map(str::to_owned).or(config.active_workspace_name);
        // The client acts as ZenML's default user; `user_id` in config.yaml is the installation's id, no row of `user`.
        let user = self.filled_variable(USER);
        let active_stack = self.filled_variable(ACTIVE_STACK).map(str::to_owned).or(config.active_stack_id);
        match path {
            Some(path) if self.mistakes.is_empty() => Ok(Found {
                store: ZenmlSqlSettings {
                    database: SqlDatabase::Sqlite(path),
                    encryption_key,
                    user: Some(user.unwrap_or("default").to_owned()),
                    user_required: user.is_some(),
                    workspace,
                    values: None,
                    backup: None,
                },
                local_stores: self.local_stores,
                active_stack,
                sources: self.sources,
                config_file: self.config_file,
            }),
            _ => Err(self.mistakes),
        }
    }

    /// Reads `config.yaml`. A home directory that is closed to us does not matter when variables name the store.
    fn read_config(&mut self, replaced: bool) -> GlobalConfig {
        let Some(path) = self.config_file.clone() else { return GlobalConfig::default() };
        let bytes = match file::read(&path, MAX_CONFIG_BYTES, Trust::Any) {
            Ok(bytes) => bytes,
            Err(ReadError::Absent) => return GlobalConfig::default(),
            Err(ReadError::NotPermitted) if replaced => {
                self.sources.push(format!("not {}, which the permissions do not allow reading", path.display()));
                return GlobalConfig::default();
            }
            Err(error) => {
                self.mistakes.push(error.into_mistake(&path));
                return GlobalConfig::default();
            }
        };
        match parse_config(&bytes, &path) {
            Ok(config) => {
                self.sources.push(format!("ZenML's environment and {}", path.display()));
                config
            }
            Err(mistake) => {
                self.mistakes.push(mistake);
                GlobalConfig::default()
            }
        }
    }

    fn path_from_environment(&mut self, url: Option<&str>, kind: Option<&str>) -> Option<PathBuf> {
        if let Some(kind) = kind
            && let Some(what) = refused_store_type(kind)
        {
            self.mistakes.push(Mistake::of_variable(STORE_TYPE, what));
        }
        let Some(url) = url else {
            self.mistakes.push(Mistake::of_variable(STORE_TYPE, format!("is set, but {STORE_URL} is not")));
            return None;
        };
        match sqlite_url::path_of(url) {
            Ok(path) => {
                self.sources.push(format!("variable {STORE_URL}"));
                Some(path)
            }
            Err(what) => {
                self.mistakes.push(Mistake::of_variable(STORE_URL, what));
                None
            }
        }
    }

    fn path_from_config(&mut self, kind: Option<&str>, url: Option<&str>) -> Option<PathBuf> {
        let config_file = self.config_file.clone().unwrap_or_default();
        if let Some(what) = kind.and_then(refused_store_type) {
            self.mistakes.push(in_config(&config_file, &format!("`store.type`: {what}")));
            return None;
        }
        let default = self.local_stores.as_ref().map(|directory| directory.join(DEFAULT_STORE));
        let Some(url) = url else {
            return match default {
                Some(path) if exists(&path) => {
                    self.sources.push(format!("ZenML's default data base {}", path.display()));
                    Some(path)
                }
                _ => {
                    self.nothing_found(None, default.as_deref());
                    None
                }
            };
        };
        let named = match sqlite_url::path_of(url) {
            Ok(named) => named,
            Err(what) => {
                self.mistakes.push(in_config(&config_file, &format!("`store.url`: {what}")));
                return None;
            }
        };
        if exists(&named) {
            return Some(named);
        }
        // The directory was copied or mounted from elsewhere: the URL still names the old place. Only where it named
        // ZenML's default file does the default file here stand for it; another store must not take its place.
        let moved = default.clone().filter(|path| named.ends_with(DEFAULT_STORE) && exists(path));
        match moved {
            Some(path) => {
                self.sources.push(format!(
                    "the data base {}, because there is no {}, which `store.url` names",
                    path.display(),
                    named.display()
                ));
                Some(path)
            }
            None => {
                self.nothing_found(Some(&named), default.as_deref());
                None
            }
        }
    }

    /// Takes the key where ZenML takes it. It ignores a key without `ZENML_SECRETS_STORE_TYPE` when variables replaced
    /// the store; we do not: whoever sets a key means it.
    fn encryption_key(&mut self, from_file: Option<SecretsStore>) -> Option<SecretText> {
        let env_type = self.filled_variable(SECRETS_STORE_TYPE);
        let env_key = self.variable(SECRETS_STORE_KEY);
        let from_file = from_file.unwrap_or_default();
        let config_file = self.config_file.clone().unwrap_or_default();
        match env_type {
            Some(kind) => {
                if let Some(what) = refused_secrets_store_type(kind) {
                    self.mistakes.push(Mistake::of_variable(SECRETS_STORE_TYPE, what));
                }
            }
            None => {
                if let Some(what) = from_file.kind.as_deref().and_then(refused_secrets_store_type) {
                    self.mistakes.push(in_config(&config_file, &format!("`store.secrets_store.type`: {what}")));
                }
            }
        }
        let key = match env_key {
            Some(key) => Some(SecretText {
                text: Zeroizing::new(key.to_owned()),
                origin: format!("variable {SECRETS_STORE_KEY}"),
                file: None,
            }),
            // A type in the environment replaces the file's secrets store whole.
            None if env_type.is_some() => None,
            None => from_file.encryption_key.map(|text| SecretText {
                text,
                origin: format!("`store.secrets_store.encryption_key` in {}", config_file.display()),
                file: None,
            }),
        };
        // To ZenML an empty key is none.
        key.filter(|key| !key.text.is_empty())
    }

    /// Says that a backup store is not asked; the values it was made for are those that the first store lost.
    fn refuse_backup(&mut self, kind: Option<&str>) {
        if kind.is_some_and(|kind| kind != "none") {
            self.sources.push("not ZenML's backup secrets store, which this version does not read yet".to_owned());
        }
    }

    fn nothing_found(&mut self, named: Option<&Path>, default: Option<&Path>) {
        // One cause is enough: a file that could not be read is the likelier one.
        if !self.mistakes.is_empty() {
            return;
        }
        let shown = |path: &Path| path.display().to_string();
        let config = match (&self.config_file, named) {
            (Some(path), Some(named)) => {
                format!("the data base {} (`store.url` in {})", shown(named), shown(path))
            }
            (Some(path), None) => format!("`store.url` in {}", shown(path)),
            (None, _) => format!("ZenML's config.yaml ({CONFIG_PATH} and HOME are not set)"),
        };
        let default = default.map_or_else(String::new, |path| format!(" and the data base {}", shown(path)));
        let what = format!(
            "no back-end is configured, and none was found from ZenML's environment: looked for {STORE_URL}, {config}{default}; \
             `keyside quickstart` makes a store to try"
        );
        let hint = format!(
            "set {CONFIG_PATH} to ZenML's configuration directory, or write a [backend.NAME] into keyside.toml"
        );
        self.mistakes.push(Mistake::plain(what).with_hint(hint));
    }
}

/// Parses `config.yaml`; the error has a place and no text from the file, which can hold the key.
fn parse_config(bytes: &[u8], path: &Path) -> Result<GlobalConfig, Mistake> {
    let text = std::str::from_utf8(bytes).map_err(|_| in_config(path, "this file is not UTF-8"))?;
    // An empty file is an empty configuration to ZenML.
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(GlobalConfig::default());
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_events: 100_000, max_aliases: 100, max_anchors: 100 },
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let location = error.location();
        Mistake {
            line: location.map(|location| location.line() as usize),
            column: location.map(|location| location.column() as usize),
            ..in_config(path, "this is not a configuration of ZenML, or not YAML")
        }
    })
}

/// A mistake in `config.yaml`.
fn in_config(path: &Path, what: &str) -> Mistake {
    Mistake::of_file(path, what).with_hint("write a [backend.NAME] into keyside.toml, which then counts alone")
}

fn refused_store_type(kind: &str) -> Option<&'static str> {
    match kind {
        "sql" => None,
        "rest" => Some("a ZenML server (type \"rest\") is not supported in this version yet"),
        _ => Some("unknown type of store; known are \"sql\" and \"rest\""),
    }
}

fn refused_secrets_store_type(kind: &str) -> Option<&'static str> {
    match kind {
        // `rest` is what older clients wrote; ZenML itself takes it for `sql` beside an SQL store.
        "sql" | "rest" => None,
        "none" => Some("ZenML's secrets store is switched off (type \"none\"), so there are no secrets to serve"),
        "aws" | "gcp" | "azure" | "hashicorp" | "custom" => {
            Some("only secrets stores of type \"sql\" are supported in this version")
        }
        _ => Some("unknown type of secrets store; this version supports \"sql\""),
    }
}

/// Tells whether something is there; what cannot be looked at may be there, and whoever opens it will say why not.
fn exists(path: &Path) -> bool {
    match path.try_exists() {
        Ok(exists) => exists,
        Err(error) => error.kind() != std::io::ErrorKind::NotADirectory,
    }
}
