//! One mount of the key-value engine: what is asked of it, and what its answers mean.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keyside_protocol::json::SecretBuffer;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{BackendError, fingerprint};
use super::api::{Answer, Api};
use super::error::Missing;
use crate::layout::vault::Object;

/// A mount.
pub(super) struct Kv {
    pub(super) api: Arc<Api>,
    mount: Vec<String>,
    version: u8,
    /// It is known to be what it is configured as.
    sure: AtomicBool,
}

/// What lies at a path.
pub(super) enum Look {
    /// The body of the reply.
    Found(SecretBuffer),
    /// Nothing, definitely.
    Absent,
    /// It is refused to us; the error says so.
    Denied(BackendError),
    /// Such a path means nothing there, or all of the mount is closed to us; the error says so.
    Unsupported(BackendError),
}

impl Look {
    /// Returns the body, or `None` for an absence.
    pub(super) fn found(self) -> Result<Option<SecretBuffer>, BackendError> {
        match self {
            Self::Found(body) => Ok(Some(body)),
            Self::Absent => Ok(None),
            Self::Denied(error) | Self::Unsupported(error) => Err(error),
        }
    }
}

/// What is known of a mount.
enum Mounted {
    /// Nothing speaks against what is configured.
    Right,
    /// Something else; the error says so.
    Otherwise(BackendError),
    /// It is not there, or we have no right to anything in it.
    Hidden,
}

#[derive(Deserialize)]
struct Body<T> {
    data: T,
}

/// The answer of `data/` (version 2).
#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    data: Object<'a>,
    metadata: Stamp,
}

/// The answer of `subkeys/`.
#[derive(Deserialize)]
struct Subkeys<'a> {
    #[serde(borrow)]
    subkeys: Object<'a>,
    metadata: Stamp,
}

/// The answer of `metadata/`.
#[derive(Deserialize)]
struct Metadata {
    current_version: u64,
    versions: BTreeMap<u64, Version>,
}

#[derive(Deserialize)]
struct Version {
    created_time: String,
    #[serde(default)]
    deletion_time: String,
    #[serde(default)]
    destroyed: bool,
}

/// The answer of a list.
#[derive(Deserialize)]
struct Keys {
    keys: Vec<String>,
}

/// The answer about a mount.
#[derive(Deserialize)]
struct Mount {
    options: Option<BTreeMap<String, String>>,
    #[serde(rename = "type")]
    kind: String,
}

/// Which version of a secret an answer is about.
#[derive(Deserialize)]
struct Stamp {
    version: u64,
    created_time: String,
}

/// Numbers begin again when a secret is deleted with all its metadata and made anew, so the time stands beside them.
fn version_of(number: u64, created_time: &str) -> String {
    format!("{number}@{created_time}")
}

impl Kv {
    /// Makes no call.
    pub(super) fn new(api: Arc<Api>, mount: &str, version: u8) -> Self {
        Self { api, mount: mount.split('/').map(str::to_owned).collect(), version, sure: AtomicBool::new(false) }
    }

    pub(super) fn is_versioned(&self) -> bool {
        self.version == 2
    }

    /// A list that is refused is a general right that we lack: it tells nothing about any one secret.
    pub(super) fn may_not_list(&self, folder: &[String], pieces: &[&str]) -> BackendError {
        let path = self.path("metadata", folder, pieces).join("/");
        BackendError::Unlisted {
            what: format!("back-end `{}`: its token may not list `{path}` (403)", self.api.words.backend),
            hint: Some(format!("a policy must say: path \"{path}/*\" {{ capabilities = [\"list\"] }}")),
        }
    }

    fn path<'p>(&'p self, kind: &'p str, folder: &'p [String], pieces: &[&'p str]) -> Vec<&'p str> {
        let mount = self.mount.iter().map(String::as_str);
        let kind = self.is_versioned().then_some(kind);
        mount.chain(kind).chain(folder.iter().map(String::as_str)).chain(pieces.iter().copied()).collect()
    }

    /// Reads what lies at a path of one kind (`data`, `subkeys`, `metadata`; they are one in version 1).
    ///
    /// Errors: `Transient` and `Identity`, when nothing is known of the path.
    pub(super) async fn look(&self, kind: &str, folder: &[String], pieces: &[&str]) -> Result<Look, BackendError> {
        let path = self.path(kind, folder, pieces);
        let answer = self.api.read(&path).await?;
        self.judge(answer, &path, "read").await
    }

    /// Returns what a folder holds, names of folders with a slash at their ends; `None` where there is no folder.
    ///
    /// Errors: as [`look`](Self::look).
    pub(super) async fn list(
        &self,
        folder: &[String],
        pieces: &[&str],
    ) -> Result<Result<Vec<String>, Look>, BackendError> {
        let path = self.path("metadata", folder, pieces);
        let answer = self.api.list(&path).await?;
        match self.judge(answer, &path, "list").await? {
            Look::Found(body) => {
                // expose: parsed; it holds names alone.
                let body: Body<Keys> = serde_json::from_slice(body.expose()).map_err(|_| self.api.words.malformed())?;
                Ok(Ok(body.data.keys))
            }
            Look::Absent => Ok(Ok(Vec::new())),
            other => Ok(Err(other)),
        }
    }

    async fn judge(&self, answer: Answer, path: &[&str], right: &str) -> Result<Look, BackendError> {
        let words = &self.api.words;
        let mount = self.mount.join("/");
        Ok(match answer {
            Answer::Found(body) => Look::Found(body),
            Answer::Missing(Missing::Absent) => match self.examine().await? {
                Mounted::Otherwise(error) => Look::Unsupported(error),
                Mounted::Right | Mounted::Hidden => Look::Absent,
            },
            Answer::Missing(Missing::NoRoute) => Look::Unsupported(words.identity(
                &format!("nothing is mounted at `{mount}` that knows `{}` (404)", path.join("/")),
                "look at `mount` and `namespace`: `vault secrets list` tells what is there",
            )),
            Answer::Missing(Missing::OtherVersion) => Look::Unsupported(self.other_version(None)),
            Answer::Missing(Missing::Foreign) => return Err(words.malformed()),
            Answer::Denied => {
                match self.examine().await? {
                    Mounted::Otherwise(error) => return Ok(Look::Unsupported(error)),
                    Mounted::Hidden => {
                        return Ok(Look::Unsupported(words.identity(
                            &format!("nothing is mounted at `{mount}`, or its token has no right there at all (403)"),
                            "look at `mount` and `namespace`, and at the policies of its role",
                        )));
                    }
                    Mounted::Right => {}
                }
                let path = path.join("/");
                Look::Denied(BackendError::Denied {
                    what: format!("back-end `{}`: its token may not {right} `{path}` (403)", words.backend),
                    hint: Some(format!("a policy must say: path \"{path}\" {{ capabilities = [\"{right}\"] }}")),
                })
            }
            // The server takes no character for a name that it could not print.
            Answer::Unacceptable if !path.iter().all(|piece| piece.is_ascii()) => Look::Absent,
            Answer::Unacceptable => {
                return Err(words.identity(
                    &format!("the server takes `{}` for no path (400)", path.join("/")),
                    "look at `mount`, `namespace` and the layout's settings",
                ));
            }
        })
    }

    fn other_version(&self, found: Option<&str>) -> BackendError {
        let (mount, ours) = (self.mount.join("/"), self.version);
        let found = found.map_or_else(|| "another one".to_owned(), |found| format!("version {found}"));
        self.api.words.identity(
            &format!("the engine at `{mount}` is {found}, not version {ours} of the key-value engine"),
            "set `kv` to the version that `vault secrets list -detailed` tells, or `mount` to another",
        )
    }

    /// Asks once what is mounted there, before the first absence or refusal is believed: to the paths of version 2 an
    /// engine of version 1 has nothing but absences, and a mount that is not there nothing but refusals. A server that
    /// does not know the question is believed.
    async fn examine(&self) -> Result<Mounted, BackendError> {
        if self.sure.load(Ordering::Relaxed) {
            return Ok(Mounted::Right);
        }
        let mut path = vec!["sys", "internal", "ui", "mounts"];
        path.extend(self.mount.iter().map(String::as_str));
        match self.api.read(&path).await? {
            Answer::Found(body) => {
                // expose: parsed; it holds settings alone.
                let body: Body<Mount> =
                    serde_json::from_slice(body.expose()).map_err(|_| self.api.words.malformed())?;
                let version = body.data.options.as_ref().and_then(|options| options.get("version"));
                let version = version.map_or("1", String::as_str);
                match body.data.kind.as_str() {
                    "kv" | "generic" if version != self.version.to_string() => {
                        return Ok(Mounted::Otherwise(self.other_version(Some(version))));
                    }
                    "kv" | "generic" => {}
                    // The cubbyhole is a key-value engine of version 1 in all but name.
                    "cubbyhole" if self.version == 1 => {}
                    _ => return Ok(Mounted::Otherwise(self.other_version(None))),
                }
            }
            Answer::Denied => return Ok(Mounted::Hidden),
            Answer::Missing(_) | Answer::Unacceptable => {}
        }
        self.sure.store(true, Ordering::Relaxed);
        Ok(Mounted::Right)
    }

    /// Takes the body of a secret apart and passes on what it holds, with its version.
    ///
    /// Errors: `Transient` when it is no secret's.
    pub(super) fn parse_data<T>(
        &self,
        body: &SecretBuffer,
        take: impl FnOnce(&Object<'_>) -> T,
    ) -> Result<(T, String), BackendError> {
        let malformed = |_| self.api.words.malformed();
        // expose: taken apart where it lies; the layout copies values into wiped memory.
        let text = body.expose();
        self.sure.store(true, Ordering::Relaxed);
        if self.is_versioned() {
            let body: Body<Data<'_>> = serde_json::from_slice(text).map_err(malformed)?;
            let version = version_of(body.data.metadata.version, &body.data.metadata.created_time);
            return Ok((take(&body.data.data), version));
        }
        let body: Body<&RawValue> = serde_json::from_slice(text).map_err(malformed)?;
        let object: Object<'_> = serde_json::from_str(body.data.get()).map_err(malformed)?;
        Ok((take(&object), fingerprint::of(|update| update(body.data.get().as_bytes()))))
    }

    /// The same of the body of its subkeys.
    pub(super) fn parse_subkeys<T>(
        &self,
        body: &SecretBuffer,
        take: impl FnOnce(&Object<'_>) -> T,
    ) -> Result<(T, String), BackendError> {
        // expose: parsed; it holds keys alone.
        let body: Body<Subkeys<'_>> = serde_json::from_slice(body.expose()).map_err(|_| self.api.words.malformed())?;
        let version = version_of(body.data.metadata.version, &body.data.metadata.created_time);
        Ok((take(&body.data.subkeys), version))
    }

    /// Returns the version that the body of a secret's metadata tells; `None` when the last one is deleted.
    pub(super) fn parse_metadata(&self, body: &SecretBuffer) -> Result<Option<String>, BackendError> {
        // expose: parsed; it holds no value.
        let body: Body<Metadata> = serde_json::from_slice(body.expose()).map_err(|_| self.api.words.malformed())?;
        let number = body.data.current_version;
        let Some(version) = body.data.versions.get(&number) else { return Ok(None) };
        // A time to come is a deletion to come.
        let is_past = |time: &str| time.parse::<jiff::Timestamp>().is_ok_and(|time| time <= jiff::Timestamp::now());
        let is_deleted = version.destroyed || is_past(&version.deletion_time);
        Ok((!is_deleted).then(|| version_of(number, &version.created_time)))
    }
}
