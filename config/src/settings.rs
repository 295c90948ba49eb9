//! What was meant: checked settings. Only these types travel; nothing here is read from text twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use keyside_protocol::level::ValidationLevel;
use keyside_protocol::settings::ExecSettings;
use zeroize::Zeroizing;

/// Everything the agent needs to run.
pub struct Settings {
    /// `[agent]` and `[listener.*]`.
    pub agent: AgentSettings,
    /// `[cache]`.
    pub cache: CacheSettings,
    /// The back-ends, in precedence order; at least one.
    pub backends: Vec<BackendSettings>,
    /// A back-end more that only the store itself can tell of; `None` where back-ends are configured.
    pub manager: Option<ManagerSearch>,
    /// `[grant.*]`; empty means that the agent's own uid may read everything and nobody else anything.
    pub grants: Vec<GrantSettings>,
    /// `[limits]`.
    pub limits: LimitSettings,
    /// `[metrics]`.
    pub metrics: MetricsSettings,
    /// `[audit]`.
    pub audit: AuditSettings,
    /// `[exec]`, parsed so that a mistake shows at once; the wrapper reads it again by itself.
    pub exec: ExecSettings,
    /// `[profile.*]`, likewise.
    pub profiles: BTreeMap<String, ExecSettings>,
    /// Where the settings came from, one line a source, for the log: `FILE`, or `ZenML's environment and FILE`.
    pub sources: Vec<String>,
    /// The files to look at again: the configuration file and the default paths before it, key files, ZenML's
    /// `config.yaml` where it was asked. One that was absent is here too. In the order of the looks, each once; as
    /// named, links not followed, and perhaps relative to the working directory.
    pub files: Vec<PathBuf>,
}

/// `[agent]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSettings {
    /// The sockets to listen on. The agent's own is called `agent` and comes first; it is missing when no flag,
    /// variable or file names one: the agent then adds a default path, beside any `[listener.*]` that is here.
    pub listeners: Vec<ListenerSettings>,
    /// `socket_mode`, for the default path; a listener has its own.
    pub socket_mode: u32,
    /// `socket_group`, likewise.
    pub socket_group: Option<String>,
    /// The level of a check that names none.
    pub validation_level: ValidationLevel,
    /// Which scope wins.
    pub scope_order: ScopeOrder,
    /// How long one request may take.
    pub request_timeout: Duration,
}

/// One socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSettings {
    /// `agent` for `[agent] socket`, else the key under `[listener]`.
    pub name: String,
    /// Absolute, shorter than 108 bytes.
    pub path: PathBuf,
    /// Exact under any umask; 0o600 by default.
    pub mode: u32,
    /// The socket's group, by name or number.
    pub group: Option<String>,
    /// Which grants count on this listener; `None` means all.
    pub grants: Option<Vec<String>>,
}

/// Which scope wins when both hold a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScopeOrder {
    /// `private-first`: what ZenML's documents promise.
    #[default]
    PrivateFirst,
    /// `public-first`: what ZenML 0.80 and later do.
    PublicFirst,
}

/// `[cache]`.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheSettings {
    /// How long a value is fresh.
    pub ttl: Duration,
    /// Age since the last confirmation after which nothing is served.
    pub max_stale: Duration,
    /// How long an absence is remembered.
    pub negative_ttl: Duration,
    /// Bytes of all values and keys together.
    pub max_bytes: u64,
    /// Whether change detection runs.
    pub poll: Poll,
    /// How often.
    pub poll_interval: Duration,
    /// Share of the interval that is drawn at random, 0 to 1.
    pub jitter: f64,
    /// What happens to cached values when our own login fails.
    pub on_identity_failure: OnIdentityFailure,
}

/// `[cache] poll`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Poll {
    /// Where one query covers all.
    #[default]
    Auto,
    /// Also where it is expensive.
    On,
    /// Never.
    Off,
}

/// `[cache] on_identity_failure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnIdentityFailure {
    /// Serve cached values as stale up to `max_stale`.
    #[default]
    Stale,
    /// Serve nothing.
    Deny,
}

/// One `[backend.NAME]`. Can be compared, so that a reload knows whether it must be opened anew.
#[derive(PartialEq, Eq)]
pub struct BackendSettings {
    /// The key under `[backend]`.
    pub name: String,
    /// What it is, with its own settings.
    pub kind: BackendKind,
    /// Counts for `ready`.
    pub required: bool,
    /// Calls at the same time.
    pub parallelism: usize,
    /// How long one call may take.
    pub timeout: Duration,
    /// Overrides `[cache] ttl`.
    pub ttl: Option<Duration>,
    /// Whether the socket may write.
    pub writable: bool,
    /// A refusal means absence.
    pub denied_means_absent: bool,
}

/// The types of back-end that can be configured in this version.
#[derive(PartialEq, Eq)]
pub enum BackendKind {
    /// ZenML's own tables in an SQL data base.
    ZenmlSql(ZenmlSqlSettings),
    /// The YAML file of ZenML's local secrets manager.
    Local(LocalSettings),
}

impl BackendKind {
    /// Returns the spelling of `type`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::ZenmlSql(_) => "zenml-sql",
            Self::Local(_) => "local",
        }
    }
}

/// `type = "zenml-sql"`.
#[derive(PartialEq, Eq)]
pub struct ZenmlSqlSettings {
    /// The data base file (`sqlite:////abs/path` in the configuration); absolute.
    pub path: PathBuf,
    /// The encryption key of ZenML's secrets store; `None` when values are not encrypted.
    pub encryption_key: Option<EncryptionKey>,
    /// Name or id (dashes optional) of the user whose private or user-scoped secrets are visible.
    pub user: Option<String>,
    /// Whether a `user` that the data base does not know is an error; otherwise it owns nothing. `false` when the name
    /// is only ZenML's default and nobody wrote it down.
    pub user_required: bool,
    /// Name or id of the workspace (before 0.80); `None` means the only one, else `default`.
    pub workspace: Option<String>,
}

/// `type = "local"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalSettings {
    /// The YAML file; absolute.
    pub path: PathBuf,
    /// The directory that must be there for a missing file to mean that there are no secrets; the file's own, or one
    /// above it where ZenML makes the directories between them only with the first secret.
    pub base: PathBuf,
}

/// Where to look for a local secrets manager of ZenML beside a store that was found from ZenML's own environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerSearch {
    /// The name of the back-end whose tables list the stack components.
    pub store: String,
    /// The name that the back-end gets.
    pub name: String,
    /// Whether it comes before the store.
    pub first: bool,
    /// The directory of local stores.
    pub local_stores: PathBuf,
    /// The id of the active stack, as ZenML's `config.yaml` or its environment has it.
    pub active_stack: Option<String>,
}

/// Key material, with the name of the setting it came from for error messages.
pub struct EncryptionKey {
    /// The configured string, exactly; hashed by the layout.
    pub text: Zeroizing<String>,
    /// Such as `encryption_key_env` (variable `X`) or `store.secrets_store.encryption_key` in `config.yaml`.
    pub origin: String,
}

impl PartialEq for EncryptionKey {
    /// Takes as long whether the keys differ at their beginning or at their end, or not at all.
    fn eq(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.text.as_bytes(), other.text.as_bytes());
        let difference = ours.iter().zip(theirs).fold(0, |difference, (our, their)| difference | (our ^ their));
        ours.len() == theirs.len() && std::hint::black_box(difference) == 0 && self.origin == other.origin
    }
}

impl Eq for EncryptionKey {}

/// One `[grant.NAME]`. A peer matches when it has one of the uids or gids (any but the overflow uid where both lists are
/// empty), and one of the programs where `exes` is not empty, and one of the cgroups where `cgroups` is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantSettings {
    /// The key under `[grant]`.
    pub name: String,
    /// Uids, or names already looked up.
    pub uids: Vec<u32>,
    /// Gids, or names already looked up; a peer's own gid or a supplementary one.
    pub gids: Vec<u32>,
    /// Programs, by absolute path; empty means any.
    pub exes: Vec<PathBuf>,
    /// Cgroup paths from the root of the hierarchy, such as `/system.slice/train.service`; `*` stands for any run of
    /// characters. Empty means any.
    pub cgroups: Vec<String>,
    /// What may be read.
    pub read: Vec<SecretPattern>,
    /// What may be written.
    pub write: Vec<SecretPattern>,
    /// refresh, purge, shutdown.
    pub admin: bool,
}

/// What a grant covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretPattern {
    /// A name; `*` stands for any run of characters.
    pub secret: String,
    /// Only these keys (`*` allowed); `None` means all.
    pub keys: Option<Vec<String>>,
}

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitSettings {
    /// Largest single value in bytes.
    pub value: u64,
    /// Largest request body in bytes.
    pub request: u64,
    /// Largest request head in bytes.
    pub header: u64,
    /// Most cached secrets.
    pub entries: usize,
    /// Open connections of one uid.
    pub connections_per_uid: usize,
    /// Open watch streams of one uid.
    pub watchers_per_uid: usize,
    /// How long shutdown waits for requests in flight.
    pub grace: Duration,
}

/// `[metrics]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetricsSettings {
    /// Where `/metrics` is served over TCP, beside the socket; the port is never 0. `None`: nowhere.
    pub listen: Option<SocketAddr>,
}

/// `[audit]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditSettings {
    /// One JSON line a decision; unset: only denials and writes, in the log.
    pub path: Option<PathBuf>,
    /// Reads fail while the audit log cannot be written.
    pub required: bool,
}
