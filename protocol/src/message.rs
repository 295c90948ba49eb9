//! Requests and replies on the socket, as JSON. Replies that hold values are written by the agent with
//! [`crate::json`]; the types here read them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::level::ValidationLevel;
use crate::value::{SecretValue, SecretValues};

/// An error reply: `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:keyside:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status again.
    pub status: u16,
    /// The stable code.
    pub code: Code,
    /// What failed, lower case, no stop.
    pub detail: String,
    /// What to try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Every failing reference of a resolve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
    /// The state of each back-end, where the agent is not ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<BackendState>,
}

/// One reference that could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// `{{name.key}}`, `name` for a whole secret, or the malformed part of a template.
    pub reference: String,
    /// Why.
    pub code: Code,
    /// The back-ends that were asked, in order; empty when none was.
    pub backends: Vec<String>,
    /// Whether trying again can help.
    pub retry: bool,
    /// What to try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// `POST /v1/resolve`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ResolveRequest {
    /// Caller's id to template text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub templates: BTreeMap<String, String>,
    /// Caller's id to whole-string reference.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub references: BTreeMap<String, String>,
    /// Names of secrets wanted whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
}

/// The answer to [`ResolveRequest`] when everything resolved.
#[derive(Deserialize)]
pub struct ResolveReply {
    /// Opaque; names one consistent set of values.
    pub generation: String,
    /// Caller's id to value, for templates and references alike.
    #[serde(default)]
    pub values: SecretValues,
    /// Whole secrets by name.
    #[serde(default)]
    pub secrets: BTreeMap<String, ResolvedSecret>,
}

/// A whole secret inside a [`ResolveReply`].
#[derive(Deserialize)]
pub struct ResolvedSecret {
    /// The back-end's version, opaque.
    pub version: String,
    /// The agent's counter.
    pub revision: u64,
    /// Past its ttl, not confirmed since.
    pub stale: bool,
    /// Seconds since the back-end last confirmed the value (boot-time clock).
    pub age_seconds: u64,
    /// The granted pairs.
    pub values: SecretValues,
}

/// `GET /v1/secrets/{name}`.
#[derive(Deserialize)]
pub struct SecretReply {
    /// The secret's name.
    pub name: String,
    /// The back-end's id; a dashed UUID in ZenML's stores.
    pub id: Option<String>,
    /// `private`, `public`, `user`, `workspace`, or none where the back-end has no scopes.
    pub scope: Option<String>,
    /// The back-end's name in the configuration.
    pub backend: String,
    /// The back-end's version, opaque.
    pub version: String,
    /// The agent's instance id.
    pub instance: String,
    /// The agent's counter for this secret.
    pub revision: u64,
    /// Seconds since the back-end last confirmed the value (boot-time clock).
    pub age_seconds: u64,
    /// Past its ttl, not confirmed since.
    pub stale: bool,
    /// The granted pairs.
    pub values: SecretValues,
}

/// One line of `GET /v1/secrets`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SecretSummary {
    /// The secret's name.
    pub name: String,
    /// As in [`SecretReply::scope`].
    pub scope: Option<String>,
    /// The back-end that would answer for it.
    pub backend: String,
    /// The granted keys; null when they are not known without reading values.
    pub keys: Option<Vec<String>>,
    /// Seconds since the cached value was confirmed; null when it is not cached.
    pub age_seconds: Option<u64>,
}

/// The answer to `GET /v1/secrets`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListReply {
    /// In byte order of the name.
    pub secrets: Vec<SecretSummary>,
    /// The `after` of the next page; null on the last.
    pub next: Option<String>,
    /// Back-ends that could not be listed.
    pub unavailable: Vec<String>,
}

/// `POST /v1/check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckRequest {
    /// `{{name.key}}` or `name.key`.
    pub references: Vec<String>,
    /// The caller's level, exactly as ZenML spells it; the agent's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// Ask the back-ends even for fresh entries.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_cache: bool,
}

/// What a check says of one reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// It is there, as far as the level asks.
    Ok,
    /// Level `NONE`: not asked.
    Skipped,
    /// No back-end has the secret.
    SecretMissing,
    /// The secret is there, the key is not.
    KeyMissing,
    /// The back-end refuses it to the agent.
    NotPermitted,
    /// A back-end could not answer; trying again may help.
    Unavailable,
    /// No reference at all.
    Invalid,
}

impl CheckStatus {
    /// Returns the spelling on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::SecretMissing => "secret_missing",
            Self::KeyMissing => "key_missing",
            Self::NotPermitted => "not_permitted",
            Self::Unavailable => "unavailable",
            Self::Invalid => "invalid",
        }
    }
}

/// One answered reference.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckResult {
    /// As it was asked.
    pub reference: String,
    /// The verdict.
    pub status: CheckStatus,
    /// The back-end that has it, or the ones that were asked, joined by `, `.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// A near miss, or what to try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The answer to `POST /v1/check`; every reference is answered, in the order asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckReply {
    /// The level that was applied.
    pub level: ValidationLevel,
    /// Whether every status is `ok` or `skipped`.
    pub ok: bool,
    /// One result a reference.
    pub results: Vec<CheckResult>,
    /// Calls made to back-ends for this check.
    pub backend_calls: u64,
}

/// The answer to `GET /v1/stack?name=NAME`: the references in the components of one of ZenML's stacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackReply {
    /// The stack's name.
    pub stack: String,
    /// The back-end that knows it.
    pub backend: String,
    /// By component, then by attribute.
    pub references: Vec<StackReference>,
}

/// One attribute of a stack's component that is a reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StackReference {
    /// The component's type and name, such as `experiment_tracker mlflow`.
    pub component: String,
    /// The attribute of its configuration.
    pub attribute: String,
    /// As it stands there.
    pub reference: String,
}

/// `POST /v1/secrets`.
#[derive(Deserialize)]
pub struct CreateRequest {
    /// The new secret's name.
    pub name: String,
    /// Private to the configured user; public by default.
    #[serde(default)]
    pub private: bool,
    /// The pairs; may be empty. A null is dropped, as in ZenML.
    #[serde(default)]
    pub values: BTreeMap<String, Option<SecretValue>>,
}

/// `PATCH /v1/secrets/{name}`: merges.
#[derive(Deserialize, Default)]
pub struct UpdateRequest {
    /// The new name, when the secret is to be renamed.
    #[serde(default)]
    pub name: Option<String>,
    /// Whether it is to be private from now on.
    #[serde(default)]
    pub private: Option<bool>,
    /// Keys to set; null removes one.
    #[serde(default)]
    pub values: BTreeMap<String, Option<SecretValue>>,
}

/// What a write answers: the secret as it is now, without values.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WriteReply {
    /// The secret's name.
    pub name: String,
    /// The back-end's id.
    pub id: Option<String>,
    /// As in [`SecretReply::scope`].
    pub scope: Option<String>,
    /// The back-end written to.
    pub backend: String,
    /// The new version; null after a delete.
    pub version: Option<String>,
    /// The keys it now has, in byte order; empty after a delete, null where they are not known without reading values.
    pub keys: Option<Vec<String>>,
}

/// `POST /v1/refresh`, `/v1/purge` and `/v1/shutdown`; an empty body is an empty object.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NamesRequest {
    /// Only these secrets; everything when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<String>>,
}

/// The answer to `POST /v1/refresh`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RefreshReply {
    /// Secrets that were asked for again and answered.
    pub refreshed: u64,
    /// What was not, as far as the peer may know of it.
    pub failed: Vec<RefreshFailure>,
}

/// What could not be refreshed: a secret, or the listing of a back-end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshFailure {
    /// The secret's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The back-end that could not be listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Why.
    pub code: Code,
    /// Whether trying again can help.
    pub retry: bool,
}

/// The answer to `POST /v1/purge`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PurgeReply {
    /// Values that were held and are no more.
    pub purged: u64,
}

/// The data of the first event of `GET /v1/watch`, `hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The agent's instance id: revisions of another one cannot be compared with these.
    pub instance: String,
    /// Each watched secret that is there, with its revision.
    pub revisions: BTreeMap<String, u64>,
}

/// The data of the events `change`, `delete`, `stale` and `fresh` of `GET /v1/watch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchEvent {
    /// The secret's name.
    pub secret: String,
    /// The back-end's version; that of the last value when it is deleted.
    pub version: String,
    /// The agent's counter; that of the last value when it is deleted.
    pub revision: u64,
}

/// The state of one back-end in `ready` and `status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackendState {
    /// Its name in the configuration.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it counts for `ready`.
    pub required: bool,
    /// `unknown` (never asked), `ok`, `unavailable`, `denied`, `misconfigured`.
    pub state: String,
    /// What the last failure said; null when the last call succeeded.
    pub error: Option<String>,
    /// What to try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// `GET /v1/ready`: 200, or 503 with the same fields inside a [`Problem`]'s `detail`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReadyReply {
    /// Whether every required back-end has answered once.
    pub ready: bool,
    /// The state of each back-end.
    pub backends: Vec<BackendState>,
}

/// `GET /v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusReply {
    /// The agent's version.
    pub version: String,
    /// The agent's instance id.
    pub instance: String,
    /// The agent's process id.
    pub pid: u32,
    /// Seconds since the agent started (boot-time clock).
    pub uptime_seconds: u64,
    /// Whether `ready` would say so.
    pub ready: bool,
    /// The agent's own validation level.
    pub validation_level: ValidationLevel,
    /// Which scope wins.
    pub scope_order: String,
    /// The back-ends in precedence order.
    pub backends: Vec<BackendState>,
    /// The cache at a glance.
    pub cache: CacheState,
    /// Open connections.
    pub connections: u64,
    /// Open streams of events among them.
    #[serde(default)]
    pub watchers: u64,
    /// Where the agent listens.
    pub listeners: Vec<String>,
    /// The audit log: `off`, `ok`, or `failing` while it cannot be written. Empty from an agent that does not say.
    #[serde(default)]
    pub audit: String,
}

/// The cache in [`StatusReply`]; only what the peer may read is counted in `names`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CacheState {
    /// Secrets held.
    pub entries: u64,
    /// Bytes they are charged for.
    pub bytes: u64,
    /// The budget in bytes.
    pub max_bytes: u64,
    /// Reads answered from memory, fresh.
    pub hits: u64,
    /// Reads answered from memory, stale.
    pub stale_hits: u64,
    /// Reads that waited for a back-end.
    pub misses: u64,
    /// Calls made to back-ends.
    pub backend_calls: u64,
    /// Names of cached secrets that the peer may read, in byte order.
    pub names: Vec<String>,
}
