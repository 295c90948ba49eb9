//! Places that store secrets. One file or folder a back-end; [`open`] is the one list of all of them.
//!
//! A back-end never caches and never logs a value. It answers or fails; freshness, staleness and retries are decided
//! above it, by the error's class alone.

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(feature = "azure")]
pub mod azure;
#[cfg(all(test, any(feature = "http", feature = "zenml-sql")))]
pub mod certificates;
#[cfg(test)]
pub mod contract;
#[cfg(all(feature = "zenml-sql", feature = "local"))]
pub mod discover;
#[cfg(test)]
pub mod fake;
#[cfg(all(test, feature = "http"))]
pub mod faulty;
#[cfg(any(feature = "gcp", feature = "local", feature = "plugin", feature = "vault"))]
mod fingerprint;
#[cfg(feature = "gcp")]
pub mod gcp;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "local")]
pub mod local;
#[cfg(any(feature = "azure", feature = "gcp", feature = "vault"))]
mod names_elsewhere;
#[cfg(all(test, feature = "http"))]
pub mod outages;
#[cfg(any(feature = "zenml-server", feature = "zenml-sql"))]
mod own_writes;
#[cfg(feature = "http")]
mod pause;
#[cfg(feature = "plugin")]
pub mod plugin;
#[cfg(any(feature = "http", feature = "zenml-sql"))]
mod tls_fault;
#[cfg(feature = "vault")]
pub mod vault;
#[cfg(all(test, any(feature = "aws", feature = "azure", feature = "gcp", feature = "vault")))]
mod zenml_043;
#[cfg(feature = "zenml-server")]
pub mod zenml_server;
#[cfg(feature = "zenml-sql")]
pub mod zenml_sql;

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
#[allow(unused_imports, reason = "a program without any back-end names no kind of one")]
use keyside_config::settings::BackendKind;
use keyside_config::settings::{BackendSettings, Settings};
use keyside_protocol::value::{SecretValue, SecretValues};
use tokio::sync::watch;

/// Whose namespace a secret lies in: ZenML's private and public, or user and workspace before 0.80.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Private (0.80 and later) or user scope (before).
    Private,
    /// Public (0.80 and later) or workspace scope (before); the only one where a back-end has no scopes.
    Public,
}

/// What ZenML calls a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScopeLabel {
    /// 0.80 and later.
    Private,
    /// 0.80 and later.
    Public,
    /// Before 0.80.
    User,
    /// Before 0.80.
    Workspace,
}

impl ScopeLabel {
    /// Returns ZenML's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Public => "public",
            Self::User => "user",
            Self::Workspace => "workspace",
        }
    }
}

/// Which scopes a look-up may take a secret from, in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scopes {
    /// The private one hides the public one of the same name.
    PrivateFirst,
    /// The public one hides the private one: the order of ZenML 0.80 and later.
    PublicFirst,
    /// Only the private one.
    PrivateOnly,
    /// Only the public one.
    PublicOnly,
}

impl Scopes {
    /// Returns the scopes in the order they are tried.
    pub fn order(self) -> &'static [Scope] {
        match self {
            Self::PrivateFirst => &[Scope::Private, Scope::Public],
            Self::PublicFirst => &[Scope::Public, Scope::Private],
            Self::PrivateOnly => &[Scope::Private],
            Self::PublicOnly => &[Scope::Public],
        }
    }
}

/// What is known of a secret without reading its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Exact, case-sensitive.
    pub name: String,
    /// Where it lies.
    pub scope: Scope,
    /// What that scope is called there; `None` without scopes.
    pub scope_label: Option<ScopeLabel>,
    /// The back-end's own id; a dashed UUID in ZenML's stores.
    pub id: Option<String>,
    /// Changes whenever the values change; opaque. Of a description without values only where
    /// [`Capabilities::cheap_list`] says so.
    pub version: String,
    /// The keys in byte order where they are known without reading values.
    pub keys: Option<Vec<String>>,
}

/// A secret with its values.
pub struct Secret {
    /// Everything but the values; `keys` is `None` (the values have them).
    pub description: Description,
    /// The pairs; may be empty.
    pub values: SecretValues,
}

/// Why a back-end did not answer with what was asked. The class decides what happens to a cached value. `what` names the
/// back-end and holds no value; it is shown to whoever may read the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// Authoritative: the back-end definitely has no such secret.
    #[error("no such secret")]
    NotFound,
    /// Authoritative: the back-end refuses this secret to us.
    #[error("{what}")]
    Denied {
        /// What was refused.
        what: String,
        /// What to try.
        hint: Option<String>,
    },
    /// The back-end could not answer now; trying again may help.
    #[error("{what}")]
    Transient {
        /// What failed.
        what: String,
        /// What to try.
        hint: Option<String>,
    },
    /// Our own access is wrong: a login, a key, a setting. Says nothing about any one secret.
    #[error("{what}")]
    Identity {
        /// What failed.
        what: String,
        /// The setting to look at.
        hint: Option<String>,
    },
    /// Our login is known there and may not list; what is asked for by name can be read all the same.
    #[error("{what}")]
    Unlisted {
        /// What is refused.
        what: String,
        /// The right that is missing.
        hint: Option<String>,
    },
    /// The secret is there but cannot be served: larger than the limit, or not what the layout promises.
    #[error("{what}")]
    Unusable {
        /// What is wrong with it.
        what: String,
        /// What to try.
        hint: Option<String>,
    },
}

impl BackendError {
    /// Tells whether this is the back-end's own, final word on the secret.
    pub fn is_authoritative(&self) -> bool {
        matches!(self, Self::NotFound | Self::Denied { .. })
    }

    /// Tells whether trying the same again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. })
    }

    /// Where nothing can be found without a list, a list that is refused is a general right that we lack.
    #[must_use]
    pub fn of_lists_alone(self) -> Self {
        match self {
            Self::Unlisted { what, hint } => Self::Identity { what, hint },
            other => other,
        }
    }

    /// Says of a back-end that was found, not configured, where its settings are: a hint that names a table or a key of one
    /// cannot be followed.
    #[must_use]
    pub fn of_found(mut self) -> Self {
        const WHERE: &str = "its settings are ZenML's own here, `ZENML_STORE_*` and `ZENML_SECRETS_STORE_*`: \
                             docs/configuration.md has a table, under \"No back-end configured\"";
        let (Self::Denied { hint, .. }
        | Self::Transient { hint, .. }
        | Self::Identity { hint, .. }
        | Self::Unlisted { hint, .. }
        | Self::Unusable { hint, .. }) = &mut self
        else {
            return self;
        };
        let names_keys =
            |hint: &String| ["[backend.", "_env`", "_file`", "`ssl_"].iter().any(|word| hint.contains(word));
        if let Some(hint) = hint.as_mut().filter(|hint| names_keys(hint)) {
            hint.push_str("; ");
            hint.push_str(WHERE);
        }
        self
    }

    /// Returns the advice, if any.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::NotFound => None,
            Self::Denied { hint, .. }
            | Self::Transient { hint, .. }
            | Self::Identity { hint, .. }
            | Self::Unlisted { hint, .. }
            | Self::Unusable { hint, .. } => hint.as_deref(),
        }
    }
}

/// What a back-end can do beyond the trait's minimum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// [`Backend::describe`] fills `keys` without reading values.
    pub keys_without_values: bool,
    /// [`Backend::list`] is one cheap query for all secrets, complete and consistent, so it serves as change detection.
    pub cheap_list: bool,
}

/// Reads secrets. Calls may come concurrently; each ends within the deadline its caller puts around it, and dropping
/// the future cancels it.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Says what this back-end can do; constant.
    fn capabilities(&self) -> Capabilities;

    /// Reads the secret of exactly `name` from the first scope that has it.
    ///
    /// Errors: `NotFound` when no wanted scope has it; the others as [`BackendError`] says.
    async fn fetch(&self, name: &str, scopes: Scopes) -> Result<Secret, BackendError>;

    /// How many secrets one [`fetch_many`](Self::fetch_many) is best asked for; constant, and 1 where reading several
    /// together saves no call.
    fn most_at_once(&self) -> usize {
        1
    }

    /// Reads several secrets as [`fetch`](Self::fetch) reads one, in as few calls as there are; in the order asked.
    ///
    /// Errors: what failed for all of them alike.
    async fn fetch_many(
        &self,
        names: &[&str],
        scopes: Scopes,
    ) -> Result<Vec<Result<Secret, BackendError>>, BackendError> {
        Ok(join_all(names.iter().map(|name| self.fetch(name, scopes))).await)
    }

    /// Describes each of `names` without reading any value, in the order asked; `None` is a definite absence.
    async fn describe(&self, names: &[&str], scopes: Scopes) -> Result<Vec<Option<Description>>, BackendError>;

    /// Describes every secret we may see, in every scope, without reading any value; order not promised.
    async fn list(&self) -> Result<Vec<Description>, BackendError>;

    /// Says why no secret of this name can be here, whatever anybody writes; `None` where one could be. No call.
    fn cannot_hold(&self, name: &str) -> Option<&'static str> {
        let _ = name;
        None
    }

    /// Tells whether [`stack`](Self::stack) knows ZenML's stacks; constant.
    fn knows_stacks(&self) -> bool {
        false
    }

    /// Reads the components of the stack with this name or id.
    ///
    /// Errors: `NotFound` when there is no such stack; the others as [`BackendError`] says.
    async fn stack(&self, name: &str) -> Result<Stack, BackendError> {
        let _ = name;
        Err(BackendError::NotFound)
    }

    /// Starts telling of changes, where the back-end notices them by itself: the number grows with each, a moment after
    /// the last of several. What has changed, a list says. `None` where only asking again tells.
    fn changes(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// Ends connections; further calls fail. Called once at shutdown.
    async fn close(&self) {}
}

/// One of ZenML's stacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Its name.
    pub name: String,
    /// Its components, in no order.
    pub components: Vec<Component>,
}

/// A component of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Such as `experiment_tracker`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The attributes of its configuration that are texts.
    pub texts: Vec<(String, String)>,
}

/// Why a write did not happen; nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A secret of that name (and scope) is there already.
    #[error("{0}")]
    Exists(String),
    /// The name lies in more than one scope and none was named.
    #[error("{what}")]
    Ambiguous {
        /// The choice, in words.
        what: String,
    },
    /// A key to remove is not there.
    #[error("the secret has no key `{0}`")]
    KeyNotFound(String),
    /// The back-end cannot hold this: a name, a size, a value that is not text.
    #[error("{what}")]
    Invalid {
        /// What is wrong.
        what: String,
        /// What to try.
        hint: Option<String>,
    },
    /// The version is not the one the caller named.
    #[error("the secret has changed since")]
    VersionMismatch,
    /// Everything that can also go wrong when reading.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// A change to one secret. `None` leaves things as they are.
#[derive(Default)]
pub struct Update {
    /// The new name.
    pub rename: Option<String>,
    /// The new scope.
    pub scope: Option<Scope>,
    /// Keys to set, or to remove (`None`).
    pub values: Vec<(String, Option<SecretValue>)>,
    /// The version the caller saw; the write fails when it is no longer that.
    pub if_version: Option<String>,
}

/// Writes secrets; implemented only where ZenML's own layout can be written exactly. What a write returns describes the
/// secret as it is then; `keys` is filled in where the write has seen them.
#[async_trait]
pub trait WriteBackend: Send + Sync {
    /// Creates a secret.
    async fn create(&self, name: &str, scope: Scope, values: SecretValues) -> Result<Description, WriteError>;

    /// Changes the secret of exactly `name`; merges values.
    async fn update(&self, name: &str, scope: Option<Scope>, update: Update) -> Result<Description, WriteError>;

    /// Deletes the secret of exactly `name`; `if_version` as in [`Update`].
    async fn delete(
        &self,
        name: &str,
        scope: Option<Scope>,
        if_version: Option<&str>,
    ) -> Result<Description, WriteError>;
}

/// Holds values by the id of their secret, for a store whose own tables have only names (ZenML since 0.55).
#[async_trait]
pub trait ValueStore: Send + Sync {
    /// Reads the values of the secret with this id, a dashed UUID, as the deployment with this id wrote them.
    ///
    /// Errors: `NotFound` when nothing is there, or what is there belongs to another deployment; the others as
    /// [`BackendError`] says.
    async fn values_of(&self, id: &str, deployment: &str) -> Result<Kept, BackendError>;

    /// Ends connections; further calls fail. Called once at shutdown.
    async fn close(&self) {}
}

/// Values that a [`ValueStore`] holds.
pub struct Kept {
    /// The pairs; may be empty.
    pub values: SecretValues,
    /// Changes whenever the values change; opaque.
    pub version: String,
}

/// One opened back-end: its reader, and its writer where the settings say `writable = true`.
pub struct Opened {
    /// Reads.
    pub reader: Arc<dyn Backend>,
    /// Writes; `None` unless the back-end is writable by its settings and by its nature.
    pub writer: Option<Arc<dyn WriteBackend>>,
    /// Holds values for another back-end; `None` where its layout has no secrets by id.
    pub values: Option<Arc<dyn ValueStore>>,
}

/// Opens the back-end that `settings` describe: the one list of all back-ends. Makes no call yet.
///
/// `max_value` is `[limits] value`: no single value larger than this many bytes is accepted.
///
/// Errors: `Identity` when the settings cannot work (a key file that cannot be read, for one).
pub fn open(settings: &BackendSettings, max_value: u64) -> Result<Opened, BackendError> {
    match &settings.kind {
        #[cfg(feature = "zenml-server")]
        BackendKind::ZenmlServer(server) => zenml_server::open(settings, server, max_value),
        #[cfg(feature = "aws")]
        BackendKind::Aws(aws) => aws::open(settings, aws, max_value),
        #[cfg(feature = "zenml-sql")]
        BackendKind::ZenmlSql(sql) => zenml_sql::open(settings, sql, max_value),
        #[cfg(feature = "gcp")]
        BackendKind::Gcp(gcp) => gcp::open(settings, gcp, max_value),
        #[cfg(feature = "azure")]
        BackendKind::Azure(azure) => azure::open(settings, azure, max_value),
        #[cfg(feature = "local")]
        BackendKind::Local(local) => local::open(settings, local, max_value),
        #[cfg(feature = "vault")]
        BackendKind::Vault(vault) => vault::open(settings, vault, max_value),
        #[cfg(feature = "plugin")]
        BackendKind::Plugin(plugin) => plugin::open(settings, plugin, max_value),
        #[allow(unreachable_patterns, reason = "with every feature on, all types are above")]
        _ => Err(not_built(settings, max_value)),
    }
}

/// Opens every back-end of a configuration and closes it again; no call is made. Returns what an agent would refuse to
/// start with.
pub fn refusals(settings: &Settings) -> Vec<BackendError> {
    let refusal = |backend| open_of(settings, backend).err();
    settings.backends.iter().filter_map(refusal).collect()
}

/// Opens a back-end of these settings. Errors: as [`open`].
pub(crate) fn open_of(settings: &Settings, backend: &BackendSettings) -> Result<Opened, BackendError> {
    let opened = open(backend, settings.limits.value);
    opened.map_err(|error| if settings.found_in_zenml { error.of_found() } else { error })
}

fn not_built(settings: &BackendSettings, _max_value: u64) -> BackendError {
    let kind = settings.kind.type_name();
    BackendError::Identity {
        what: format!("back-end `{}`: this program was built without `{kind}`", settings.name),
        hint: Some(format!("build it with `--features {kind}`")),
    }
}
