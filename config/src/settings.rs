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
    /// Whether the back-ends were found by ZenML's own settings: there are no `[backend.*]` then.
    pub found_in_zenml: bool,
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
    /// How it is reached.
    pub network: NetworkSettings,
}

/// What every back-end that is reached over a network has.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct NetworkSettings {
    /// Permits a connection without TLS to another machine.
    pub allow_plaintext: bool,
    /// A PEM file of further certificate authorities; absolute.
    pub ca_file: Option<PathBuf>,
    /// Such authorities as PEM text, from ZenML's own environment.
    pub ca_text: Option<String>,
    /// The proxy's URL, which may hold its password; `http://` or `https://`.
    pub proxy: Option<Zeroizing<String>>,
    /// Hosts, domains and networks that the proxy is not asked for, separated by commas.
    pub no_proxy: Option<String>,
}

/// The types of back-end that can be configured in this version.
#[derive(PartialEq, Eq)]
pub enum BackendKind {
    /// ZenML's own server.
    ZenmlServer(ZenmlServerSettings),
    /// ZenML's own tables in an SQL data base.
    ZenmlSql(Box<ZenmlSqlSettings>),
    /// AWS Secrets Manager.
    Aws(AwsSettings),
    /// Google Cloud Secret Manager.
    Gcp(GcpSettings),
    /// Azure Key Vault.
    Azure(AzureSettings),
    /// HashiCorp Vault, or OpenBao.
    Vault(VaultSettings),
    /// The YAML file of ZenML's local secrets manager.
    Local(LocalSettings),
    /// A program of the operator's own.
    Plugin(PluginSettings),
}

impl BackendKind {
    /// Returns the spelling of `type`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::ZenmlServer(_) => "zenml-server",
            Self::ZenmlSql(_) => "zenml-sql",
            Self::Aws(_) => "aws",
            Self::Gcp(_) => "gcp",
            Self::Azure(_) => "azure",
            Self::Vault(_) => "vault",
            Self::Local(_) => "local",
            Self::Plugin(_) => "plugin",
        }
    }

    /// Returns how secrets are written there, where that can be chosen.
    pub fn layout(&self) -> Option<&Layout> {
        match self {
            Self::Aws(aws) => Some(&aws.layout),
            Self::Gcp(gcp) => Some(&gcp.layout),
            Self::Azure(azure) => Some(&azure.layout),
            Self::Vault(vault) => Some(&vault.layout),
            Self::ZenmlServer(_) | Self::ZenmlSql(_) | Self::Local(_) | Self::Plugin(_) => None,
        }
    }
}

/// `type = "zenml-server"`.
#[derive(PartialEq, Eq)]
pub struct ZenmlServerSettings {
    /// The server's address without a slash at its end; `https`, or what [`NetworkSettings::allow_plaintext`] allows.
    pub url: String,
    /// How to log in; `None` asks without any (a server that wants none).
    pub login: Option<ServerLogin>,
    /// Name or id of the workspace (before 0.80); `None` means `default`.
    pub workspace: Option<String>,
}

/// How to log in to a ZenML server.
#[derive(PartialEq, Eq)]
pub enum ServerLogin {
    /// The API key of a service account.
    ApiKey(SecretText),
    /// A user's name and password.
    Password {
        /// The name.
        username: String,
        /// The password; may be empty.
        password: SecretText,
    },
    /// A token that another login gave; it cannot be renewed here.
    ApiToken(SecretText),
}

/// `type = "zenml-sql"`.
#[derive(PartialEq, Eq)]
pub struct ZenmlSqlSettings {
    /// Where the tables lie.
    pub database: SqlDatabase,
    /// The encryption key of what the tables hold, values or copies of them; `None` when that is not encrypted.
    pub encryption_key: Option<SecretText>,
    /// Name or id (dashes optional) of the user whose private or user-scoped secrets are visible.
    pub user: Option<String>,
    /// Whether a `user` that the data base does not know is an error; otherwise it owns nothing. `false` when the name
    /// is only ZenML's default and nobody wrote it down.
    pub user_required: bool,
    /// Name or id of the workspace (before 0.80); `None` means the only one, else `default`.
    pub workspace: Option<String>,
    /// The back-end that holds the values, by the secrets' ids, where the tables hold only names.
    pub values: Option<BackendSettings>,
    /// Where copies of the values lie, which are asked for when the first place fails or lacks them.
    pub backup: Option<Backup>,
}

/// Where ZenML's backup secrets store keeps its copies of values.
#[derive(PartialEq, Eq)]
pub enum Backup {
    /// In the tables themselves, beside the names; the values lie in another back-end then.
    Tables,
    /// In a back-end, by the secrets' ids.
    Backend(Box<BackendSettings>),
}

/// The data base of ZenML's tables.
#[derive(PartialEq, Eq)]
pub enum SqlDatabase {
    /// A file (`sqlite:////abs/path` in the configuration); absolute.
    Sqlite(PathBuf),
    /// MySQL or MariaDB.
    Mysql(Box<MysqlSettings>),
}

impl SqlDatabase {
    /// Returns the path of a file.
    pub fn file(&self) -> Option<&std::path::Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Mysql(_) => None,
        }
    }
}

/// A MySQL or MariaDB server.
#[derive(PartialEq, Eq)]
pub struct MysqlSettings {
    /// Host name or address.
    pub host: String,
    /// 3306 by default.
    pub port: u16,
    /// Who logs in.
    pub user: String,
    /// The password; `None` with [`MysqlSettings::iam`], or where the server asks for none.
    pub password: Option<SecretText>,
    /// The name of the data base.
    pub database: String,
    /// Certificate authorities, as PEM.
    pub ssl_ca: Option<Pem>,
    /// The client's certificate, as PEM.
    pub ssl_cert: Option<Pem>,
    /// Its key, as PEM.
    pub ssl_key: Option<Pem>,
    /// Whether the server's certificate is checked; `false` only where ZenML's own environment says so.
    pub verify: bool,
    /// How an RDS server is logged in to that takes AWS's tokens for passwords.
    pub iam: Option<RdsIam>,
}

/// A login to RDS by IAM: each connection has a token for its password, signed with AWS's credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RdsIam {
    /// The server's region.
    pub region: String,
    /// The role that signs; `None` for whom AWS's default chain finds.
    pub role: Option<AwsRole>,
}

/// A role of AWS, and what it is assumed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AwsRole {
    /// With the credentials that AWS's default chain finds.
    ByChain {
        /// The role's ARN.
        arn: String,
    },
    /// With a token of the pod's alone, as ZenML does it.
    ByWebIdentity {
        /// The role's ARN.
        arn: String,
        /// The token's file; absolute.
        token_file: PathBuf,
    },
}

/// A certificate or key as PEM: ZenML takes a path or the content itself.
#[derive(PartialEq, Eq)]
pub enum Pem {
    /// An absolute path.
    File(PathBuf),
    /// The text.
    Text(SecretText),
}

/// How secrets are written in a place that is not ZenML's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// As ZenML's central secrets store does.
    Store,
    /// As its secrets manager components did.
    Manager(ManagerScope),
    /// Secrets that ZenML never wrote.
    Plain {
        /// What every name in the place begins with; not part of the names here.
        prefix: String,
    },
}

/// The scope of a secrets manager component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManagerScope {
    /// Names stand alone, as before there were scopes.
    None,
    /// `zenml/global`.
    Global,
    /// `zenml/component/<uuid>`.
    Component(String),
    /// `zenml/namespace/<name>`.
    Namespace(String),
}

/// `type = "aws"`.
#[derive(PartialEq, Eq)]
pub struct AwsSettings {
    /// The region; `None` asks the default chain.
    pub region: Option<String>,
    /// Another address than AWS's own.
    pub endpoint_url: Option<String>,
    /// A profile of the shared files.
    pub profile: Option<String>,
    /// A role to assume with the credentials found.
    pub role_arn: Option<String>,
    /// Credentials that ZenML's own environment holds; `None` asks the default chain.
    pub keys: Option<AwsKeys>,
    /// How secrets are written there.
    pub layout: Layout,
}

/// Credentials of AWS.
#[derive(PartialEq, Eq)]
pub struct AwsKeys {
    /// The key's id.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: SecretText,
    /// The token of a temporary key.
    pub session_token: Option<SecretText>,
}

/// `type = "gcp"`.
#[derive(PartialEq, Eq)]
pub struct GcpSettings {
    /// The project's id.
    pub project: String,
    /// Another address than Google's own.
    pub endpoint: Option<String>,
    /// How to log in.
    pub login: GcpLogin,
    /// The service account to act as.
    pub impersonate: Option<String>,
    /// How secrets are written there.
    pub layout: Layout,
}

/// How to log in to Google Cloud.
#[derive(PartialEq, Eq)]
pub enum GcpLogin {
    /// Application Default Credentials.
    Default,
    /// A file of credentials: service account, external account or authorized user; absolute.
    File(PathBuf),
    /// The same as text, from ZenML's own environment.
    Json(SecretText),
    /// An OAuth 2.0 token, from ZenML's own environment; it cannot be renewed here.
    Token(SecretText),
}

/// `type = "azure"`.
#[derive(PartialEq, Eq)]
pub struct AzureSettings {
    /// The vault's address without a slash at its end, `https`.
    pub vault_url: String,
    /// How to log in.
    pub login: AzureLogin,
    /// Another authority than `https://login.microsoftonline.com`.
    pub authority: Option<String>,
    /// How secrets are written there.
    pub layout: Layout,
}

/// How to log in to Azure.
#[derive(PartialEq, Eq)]
pub enum AzureLogin {
    /// Workload identity, managed identity and the command line, in this order, with the client's and the tenant's id
    /// where they are known.
    Default {
        /// The client's (or the managed identity's) id.
        client_id: Option<String>,
        /// The tenant's id.
        tenant_id: Option<String>,
    },
    /// A service principal.
    ServicePrincipal {
        /// Its id.
        client_id: String,
        /// The tenant's id.
        tenant_id: String,
        /// Its secret.
        client_secret: SecretText,
    },
    /// A token, from ZenML's own environment; it cannot be renewed here.
    Token(SecretText),
}

/// `type = "vault"`.
#[derive(PartialEq, Eq)]
pub struct VaultSettings {
    /// The server's address without a slash at its end.
    pub url: String,
    /// Where the key-value engine is mounted.
    pub mount: String,
    /// Vault's own name space.
    pub namespace: Option<String>,
    /// The version of the key-value engine, 1 or 2.
    pub kv: u8,
    /// How to log in.
    pub login: VaultLogin,
    /// Where the login method is mounted; the method's own name by default.
    pub auth_mount: Option<String>,
    /// How secrets are written there.
    pub layout: Layout,
}

/// How to log in to Vault.
#[derive(PartialEq, Eq)]
pub enum VaultLogin {
    /// A token.
    Token(SecretText),
    /// `approle`.
    AppRole {
        /// The role's id.
        role_id: String,
        /// Its secret; `None` where the role needs none.
        secret_id: Option<SecretText>,
    },
    /// `kubernetes`, with the service account's token.
    Kubernetes {
        /// The role.
        role: String,
        /// The token's file; absolute.
        jwt_file: PathBuf,
    },
    /// `jwt`.
    Jwt {
        /// The role.
        role: Option<String>,
        /// The token's file; absolute.
        jwt_file: PathBuf,
    },
    /// `aws`, with the credentials of AWS's default chain.
    Aws {
        /// The role.
        role: Option<String>,
        /// What the server wants in `X-Vault-AWS-IAM-Server-ID`.
        header_value: Option<String>,
    },
}

/// `type = "plugin"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginSettings {
    /// The program, by absolute path or by a name that is looked up on `PATH`, and its arguments.
    pub command: Vec<String>,
    /// Variables that are added to its environment.
    pub env: BTreeMap<String, String>,
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

/// A secret that a setting points at, with the name of the setting for error messages.
pub struct SecretText {
    /// The configured string, exactly.
    pub text: Zeroizing<String>,
    /// Such as `encryption_key_env` (variable `X`) or `store.secrets_store.encryption_key` in `config.yaml`.
    pub origin: String,
    /// The file that it was read from, which may change meanwhile; absolute.
    pub file: Option<PathBuf>,
}

impl SecretText {
    /// Returns another one of the same, for what outlives the settings. Not `Clone`: every copy is to be seen.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self { text: self.text.clone(), origin: self.origin.clone(), file: self.file.clone() }
    }

    /// Returns the text as its file has it now, or as it was configured where no file holds it.
    ///
    /// Errors: what stands in the way of reading the file, with its path.
    pub fn current(&self) -> Result<Zeroizing<String>, String> {
        match &self.file {
            Some(file) => crate::key_material::text_of(file),
            None => Ok(self.text.clone()),
        }
    }
}

impl PartialEq for SecretText {
    /// Takes as long whether the texts differ at their beginning or at their end, or not at all.
    fn eq(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.text.as_bytes(), other.text.as_bytes());
        let difference = ours.iter().zip(theirs).fold(0, |difference, (our, their)| difference | (our ^ their));
        ours.len() == theirs.len()
            && std::hint::black_box(difference) == 0
            && self.origin == other.origin
            && self.file == other.file
    }
}

impl Eq for SecretText {}

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
