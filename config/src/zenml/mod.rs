//! The store found from ZenML's own environment and global configuration, when no back-end is configured.
//!
//! The rules are those of ZenML's `GlobalConfiguration` (read in 0.98.0): variables of the store replace the file's
//! store whole if they name a type or a URL, else they lie over it; likewise for the secrets store and its backup.
//!
//! * `variables`: ZenML's variables, parts joined.
//! * `files`: `config.yaml` and `credentials.yaml`; `given`: any value in them.
//! * `section`: the fields of one part, variables over the file, each with its origin.
//! * `place`: what kind of store it is; `server`, `sql`: the store itself.
//! * `secrets_store`: where its values lie; `aws`, `gcp`, `azure`, `vault`: each type with its ways to log in.

mod aws;
mod azure;
mod files;
mod gcp;
mod given;
mod place;
mod secrets_store;
mod section;
mod server;
mod sql;
mod variables;
mod vault;

use std::path::PathBuf;

use self::files::{Credentials, GlobalConfig, Unread};
use self::given::{Given, Table};
use self::place::Place;
use self::secrets_store::Holder;
use self::section::{Origin, Section, switch_of};
use self::variables::Variables;
use crate::environment::Environment;
use crate::file;
use crate::mistake::Mistake;
use crate::settings::{BackendKind, BackendSettings, Backup, SecretText, ServerLogin, SqlDatabase, ZenmlSqlSettings};

const STORE: &str = "ZENML_STORE_";
const SECRETS_STORE: &str = "ZENML_SECRETS_STORE_";
const BACKUP: &str = "ZENML_BACKUP_SECRETS_STORE_";

/// The prefixes of what is read here.
const PREFIXES: &[&str] = &[STORE, SECRETS_STORE, BACKUP];

const STORE_URL: &str = "ZENML_STORE_URL";
const STORE_TYPE: &str = "ZENML_STORE_TYPE";
const CONFIG_PATH: &str = "ZENML_CONFIG_PATH";
const LOCAL_STORES_PATH: &str = "ZENML_LOCAL_STORES_PATH";
const WORKSPACE: &str = "ZENML_ACTIVE_WORKSPACE_NAME";
const ACTIVE_STACK: &str = "ZENML_ACTIVE_STACK_ID";
const USER: &str = "ZENML_DEFAULT_USER_NAME";
const NO_CREDENTIALS: &str = "ZENML_DISABLE_CREDENTIALS_DISK_CACHING";

/// The other variables that are read here.
const SINGLE: &[&str] = &[WORKSPACE, ACTIVE_STACK, USER, NO_CREDENTIALS];

/// The store of ZenML's own client.
pub(crate) struct Found {
    /// The back-end, under the name that was asked for.
    pub(crate) store: BackendSettings,
    /// The directory of local stores, where a local secrets manager keeps its file.
    pub(crate) local_stores: Option<PathBuf>,
    /// The id of the active stack.
    pub(crate) active_stack: Option<String>,
    /// Where it came from, one line a source.
    pub(crate) sources: Vec<String>,
    /// `config.yaml`, and `credentials.yaml` where it was asked; whether they are there or not.
    pub(crate) files: Vec<PathBuf>,
}

/// Returns the id of the stack that is active for ZenML's own client; `None` where nothing names one, or what names it
/// cannot be read.
pub fn active_stack(environment: &Environment, uid: u32) -> Option<String> {
    let mut search = Search::new(environment, uid).ok()?;
    let named = search.variables.filled(ACTIVE_STACK).map(str::to_owned);
    named.or_else(|| search.read_config(false).active_stack_id)
}

/// Finds the store, or says everything that stands in the way.
pub(crate) fn find(name: &str, environment: &Environment, uid: u32) -> Result<Found, Vec<Mistake>> {
    Search::new(environment, uid).map_err(|mistake| vec![mistake])?.run(name)
}

struct Search<'e> {
    environment: &'e Environment,
    variables: Variables,
    /// Absolute; `None` when there is neither a variable nor a home directory.
    config_dir: Option<PathBuf>,
    local_stores: Option<PathBuf>,
    mistakes: Vec<Mistake>,
    sources: Vec<String>,
    files: Vec<PathBuf>,
}

impl<'e> Search<'e> {
    fn new(environment: &'e Environment, uid: u32) -> Result<Self, Mistake> {
        let mut mistakes = Vec::new();
        let variables = Variables::of(environment, &mut mistakes);
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
        let (sources, files) = (Vec::new(), Vec::new());
        Ok(Self { environment, variables, config_dir, local_stores, mistakes, sources, files })
    }

    fn run(mut self, name: &str) -> Result<Found, Vec<Mistake>> {
        let replaced = self.variables.get(STORE_URL).is_some() || self.variables.get(STORE_TYPE).is_some();
        let mut config = self.read_config(replaced);
        let config_file = self.config_file().unwrap_or_default();
        let mut of_file = std::mem::take(&mut config.store);
        let mut table_of = |key: &str| match of_file.remove(key) {
            Some(Given::Table(table)) if !replaced => table,
            Some(Given::Table(_) | Given::Nothing) | None => Table::new(),
            Some(_) => {
                let origin = Origin::File(config_file.clone(), format!("store.{key}"));
                self.mistakes.push(origin.mistake("must be a table"));
                Table::new()
            }
        };
        let (of_secrets, of_backup) = (table_of("secrets_store"), table_of("backup_secrets_store"));
        let mut store = Section::new("ZenML's store", STORE);
        if !replaced {
            store.add_file(of_file, &config_file, "store");
        }
        store.add_variables(self.variables.of_prefix(STORE));
        let part = |noun: &str, prefix: &str, table, parents: &str| {
            let mut section = Section::new(noun, prefix);
            let variables = self.variables.of_prefix(prefix);
            // A type in the environment replaces the file's secrets store whole.
            if !variables.iter().any(|(key, _, value)| key == "type" && !value.is_empty()) {
                section.add_file(table, &config_file, parents);
            }
            section.add_variables(
                variables
                    .into_iter()
                    .filter(|(key, _, value)| {
                        // An empty type is none, and the file's stays.
                        key != "type" || !value.is_empty()
                    })
                    .collect(),
            );
            section
        };
        let mut secrets = part("ZenML's secrets store", SECRETS_STORE, of_secrets, "store.secrets_store");
        let mut backup = part("ZenML's backup secrets store", BACKUP, of_backup, "store.backup_secrets_store");
        let workspace = self.variables.filled(WORKSPACE).map(str::to_owned).or(config.active_workspace_name.take());
        let active_stack = self.variables.filled(ACTIVE_STACK).map(str::to_owned).or(config.active_stack_id.take());

        let found = match self.place(&store, replaced) {
            None => None,
            Some(Place::Server(url)) => {
                let login = self.login(&store, &url);
                let (server, network) = server::read(url, &store, login, workspace, &mut self.mistakes);
                Some((BackendKind::ZenmlServer(server), network))
            }
            Some(place) => {
                let database = match place {
                    Place::Sqlite(path) => {
                        self.refuse_login(&store, replaced);
                        Some(SqlDatabase::Sqlite(path))
                    }
                    _ => sql::mysql(&store, self.environment, &mut self.mistakes, &mut self.sources)
                        .map(SqlDatabase::Mysql),
                };
                let values = self.values(&mut secrets, &format!("{name}-values"));
                let copies = self.backup(&mut backup, &format!("{name}-backup"), values.is_some());
                let of_tables = if matches!(copies, Some(Backup::Tables)) { &backup } else { &secrets };
                let encryption_key = self.encryption_key(of_tables);
                self.sql(database, encryption_key, workspace, values, copies, &config)
            }
        };
        match found {
            Some((kind, network)) if self.mistakes.is_empty() => Ok(Found {
                store: secrets_store::settings(name, kind, network),
                local_stores: self.local_stores,
                active_stack,
                sources: self.sources,
                files: self.files,
            }),
            _ => Err(self.mistakes),
        }
    }

    fn config_file(&self) -> Option<PathBuf> {
        self.config_dir.as_ref().map(|directory| directory.join("config.yaml"))
    }

    /// Reads `config.yaml`. A home directory that is closed to us does not matter when variables name the store.
    fn read_config(&mut self, replaced: bool) -> GlobalConfig {
        let Some(path) = self.config_file() else { return GlobalConfig::default() };
        self.files.push(path.clone());
        match files::read::<GlobalConfig>(&path, "a configuration") {
            Ok(config) => {
                self.sources.push(format!("ZenML's environment and {}", path.display()));
                return config;
            }
            Err(Unread::Absent) => {}
            Err(Unread::NotPermitted) if replaced => {
                self.sources.push(format!("not {}, which the permissions do not allow reading", path.display()));
            }
            Err(Unread::NotPermitted) => {
                self.mistakes.push(file::ReadError::NotPermitted.into_mistake(&path));
            }
            Err(Unread::Wrong(mistake)) => self.mistakes.push(mistake),
        }
        GlobalConfig::default()
    }

    /// The login at a server: what the store says, else what `zenml login` left in `credentials.yaml`.
    fn login(&mut self, store: &Section, url: &str) -> Option<ServerLogin> {
        let before = self.mistakes.len();
        if let Some(login) = server::login(store, &mut self.mistakes) {
            return Some(login);
        }
        if self.mistakes.len() > before {
            return None;
        }
        let is_off = self.variables.filled(NO_CREDENTIALS).and_then(switch_of) == Some(true);
        let path = self.config_dir.as_ref().filter(|_| !is_off).map(|directory| directory.join("credentials.yaml"))?;
        self.files.push(path.clone());
        match files::read::<Credentials>(&path, "the credentials") {
            Ok(credentials) => {
                let table = credentials.take(url)?;
                let mut section = Section::new("ZenML's login", STORE);
                section.add_file(table, &path, &format!("\"{url}\""));
                let login = server::login(&section, &mut self.mistakes);
                if login.is_some() {
                    self.sources.push(path.display().to_string());
                }
                login
            }
            Err(Unread::Absent) => None,
            Err(Unread::NotPermitted) => {
                self.mistakes.push(file::ReadError::NotPermitted.into_mistake(&path));
                None
            }
            Err(Unread::Wrong(mistake)) => {
                self.mistakes.push(mistake);
                None
            }
        }
    }

    /// Says that a login has no use for a file: most likely the address of the server was forgotten.
    fn refuse_login(&mut self, store: &Section, replaced: bool) {
        let forgotten: &[&str] = if replaced { &[] } else { &["api_key", "api_token"] };
        for key in ["username", "password"].iter().chain(forgotten) {
            if let Some(origin) = store.origin(key) {
                let what = format!("has no meaning for a store in an SQLite file; {STORE_URL} names a server");
                self.mistakes.push(origin.mistake(&what));
            }
        }
    }

    /// Reads who holds the values, where that is not the tables.
    fn values(&mut self, secrets: &mut Section, name: &str) -> Option<Box<BackendSettings>> {
        match secrets_store::read(secrets, name, Holder::Tables, self.environment, &mut self.mistakes)? {
            Holder::Tables => None,
            Holder::None => {
                let what = "ZenML's secrets store is switched off (type \"none\"), so there are no secrets to serve; a \
                            [backend.NAME] of type \"plugin\" asks a program of yours";
                self.mistakes.extend(secrets.origin("type").map(|origin| origin.mistake(what)));
                None
            }
            Holder::Other(holder) => {
                self.sources.push(format!("values from ZenML's secrets store of type \"{}\"", holder.kind.type_name()));
                Some(holder)
            }
        }
    }

    /// Reads who holds the backup.
    fn backup(&mut self, backup: &mut Section, name: &str, has_values: bool) -> Option<Backup> {
        match secrets_store::read(backup, name, Holder::None, self.environment, &mut self.mistakes)? {
            Holder::None => None,
            // Where the tables hold the values, such a backup is the same column again.
            Holder::Tables if !has_values => None,
            Holder::Tables => {
                self.sources.push("a backup of type \"sql\", in the tables themselves".to_owned());
                Some(Backup::Tables)
            }
            Holder::Other(holder) => {
                self.sources.push(format!("a backup of type \"{}\"", holder.kind.type_name()));
                Some(Backup::Backend(holder))
            }
        }
    }

    /// Takes the key of the tables from the secrets store that lies in them. ZenML ignores a key without
    /// `ZENML_SECRETS_STORE_TYPE` when variables replaced the store; we do not: whoever sets a key means it. To ZenML an
    /// empty key is none.
    fn encryption_key(&mut self, of_tables: &Section) -> Option<SecretText> {
        of_tables.secret("encryption_key", &mut self.mistakes)
    }

    fn sql(
        &mut self,
        database: Option<SqlDatabase>,
        encryption_key: Option<SecretText>,
        workspace: Option<String>,
        values: Option<Box<BackendSettings>>,
        backup: Option<Backup>,
        config: &GlobalConfig,
    ) -> Option<(BackendKind, crate::settings::NetworkSettings)> {
        let values = match (values, config.version_before_tables()) {
            (Some(holder), Some(version)) => {
                // Its tables have no names then: the secrets store is all there is.
                self.sources.push(format!("names too from the secrets store, as ZenML {version} kept them"));
                return Some((holder.kind, holder.network));
            }
            (values, _) => values,
        };
        // The client acts as ZenML's default user; `user_id` in config.yaml is the installation's id, no row of `user`.
        let user = self.variables.filled(USER);
        let sql = ZenmlSqlSettings {
            database: database?,
            encryption_key,
            user: Some(user.unwrap_or("default").to_owned()),
            user_required: user.is_some(),
            workspace,
            values: values.map(|values| *values),
            backup,
        };
        Some((BackendKind::ZenmlSql(Box::new(sql)), Default::default()))
    }
}
