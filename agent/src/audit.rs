//! What was decided, one JSON line a decision, written off the hot path, in order, bounded, never dropped silently.
//! Never a value, a hash of one, or a header.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keyside_config::settings::AuditSettings;
use keyside_protocol::code::Code;
use serde::Serialize;

use crate::access::Peer;

/// Lines that may wait for the disk.
const QUEUE: usize = 4096;

/// What a request turns out to be about, filled in while it is answered.
#[derive(Debug, Default)]
pub struct Draft {
    /// `read`, `list`, `resolve`, `check`, `create`, `update`, `delete`, `connect`; empty for probes.
    pub operation: &'static str,
    /// The grants that matched.
    pub grant: String,
    /// Which secrets and keys it is about.
    pub secrets: Vec<Subject>,
    /// `hit`, `stale` or `miss`.
    pub cache: &'static str,
    /// The back-end that answered.
    pub backend: String,
    /// The version that was served.
    pub version: String,
    /// A change to a back-end: always logged.
    pub write: bool,
    /// Outside the grant; the reply does not tell.
    pub outside: bool,
}

/// One secret, or one key of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// The secret's name.
    pub secret: String,
    /// The key; absent for the whole secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl Subject {
    /// A whole secret.
    pub fn secret(name: &str) -> Self {
        Self { secret: name.to_owned(), key: None }
    }

    /// One key of a secret.
    pub fn key(name: &str, key: &str) -> Self {
        Self { secret: name.to_owned(), key: Some(key.to_owned()) }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    request: u64,
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    grant: &'a str,
    operation: &'a str,
    secrets: &'a [Subject],
    verdict: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    cache: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    backend: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    ms: f64,
}

/// The audit log, or only the program's log when no path is configured.
pub struct Audit {
    queue: Option<SyncSender<Vec<u8>>>,
    writer: Option<JoinHandle<()>>,
    failing: Arc<AtomicBool>,
    dropped: AtomicU64,
    requests: AtomicU64,
    required: bool,
}

impl Audit {
    /// Opens the log for appending (created 0600); `None` when no path is configured. Errors: the file cannot be opened.
    pub fn open_log(settings: &AuditSettings) -> std::io::Result<Option<File>> {
        settings.path.as_deref().map(open_log).transpose()
    }

    /// Starts the log's writer. Errors: no thread can be had.
    pub fn start(log: Option<File>, required: bool) -> std::io::Result<Self> {
        let failing = Arc::new(AtomicBool::new(false));
        let (queue, writer) = match log {
            None => (None, None),
            Some(file) => {
                let (send, receive) = sync_channel(QUEUE);
                let failed = Arc::clone(&failing);
                let writer = std::thread::Builder::new()
                    .name("audit".to_owned())
                    .spawn(move || write_lines(file, &receive, &failed))?;
                (Some(send), Some(writer))
            }
        };
        Ok(Self { queue, writer, failing, dropped: AtomicU64::new(0), requests: AtomicU64::new(0), required })
    }

    /// Tells whether every decision is recorded, so that drafts are worth filling in.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Tells whether requests must be refused because the log is required and cannot be written.
    pub fn blocks(&self) -> bool {
        self.required && self.failing.load(Ordering::Relaxed)
    }

    /// Records how a request ended.
    pub fn record(&self, draft: &Draft, peer: &Peer, code: Option<Code>, took: Duration) {
        if draft.operation.is_empty() {
            return;
        }
        let denied = draft.outside || matches!(code, Some(Code::PeerRefused | Code::ReadOnly | Code::BackendDenied));
        let Some(queue) = &self.queue else {
            let names: Vec<_> = draft.secrets.iter().map(|subject| subject.secret.as_str()).collect();
            let (uid, operation, secrets) = (peer.uid, draft.operation, names.join(" "));
            if denied {
                tracing::warn!(uid, operation, secrets, code = code.map(Code::as_str), "refused");
            } else if draft.write {
                tracing::info!(uid, operation, secrets, code = code.map(Code::as_str), "write");
            }
            return;
        };
        let line = Line {
            time: timestamp(SystemTime::now()),
            request: self.requests.fetch_add(1, Ordering::Relaxed) + 1,
            uid: peer.uid,
            gid: peer.gid,
            pid: peer.pid,
            grant: &draft.grant,
            operation: draft.operation,
            secrets: &draft.secrets,
            verdict: if denied {
                "deny"
            } else if code.is_some() {
                "error"
            } else {
                "allow"
            },
            code: code.map(Code::as_str),
            cache: draft.cache,
            backend: &draft.backend,
            version: &draft.version,
            ms: took.as_secs_f64() * 1000.0,
        };
        let mut bytes = serde_json::to_vec(&line).expect("an audit line holds only text and numbers");
        bytes.push(b'\n');
        match queue.try_send(bytes) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.failing.store(true, Ordering::Relaxed);
                let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
                if dropped.is_power_of_two() {
                    tracing::error!(dropped, "audit lines lost: the log cannot be written fast enough");
                }
            }
        }
    }

    /// Writes what is queued, then ends the writer.
    pub fn close(mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing left to write.
            let _ = writer.join();
        }
    }
}

fn open_log(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NOCTTY)
        .open(path)
}

fn write_lines(mut file: File, lines: &Receiver<Vec<u8>>, failing: &AtomicBool) {
    while let Ok(line) = lines.recv() {
        match file.write_all(&line) {
            Ok(()) => failing.store(false, Ordering::Relaxed),
            Err(error) => {
                if !failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "the audit log cannot be written");
                }
            }
        }
    }
}

/// RFC 3339 in UTC with milliseconds, from the civil-from-days algorithm: the agent without back-ends links no date
/// library.
fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let days = i64::try_from(since.as_secs() / 86_400).unwrap_or(0) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let second_of_day = since.as_secs() % 86_400;
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_rfc_3339_in_utc() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1795389896, "2026-11-22T23:24:56.000Z"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn every_decision_is_one_line_in_order() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.jsonl");
        let log = Audit::open_log(&AuditSettings { path: Some(path.clone()), required: true }).expect("writable");
        let audit = Audit::start(log, true).expect("a thread");
        let peer = Peer { uid: 7, gid: 8, pid: None, groups: Vec::new(), program: Default::default(), embedded: false };
        let draft = Draft { operation: "read", secrets: vec![Subject::key("db", "password")], ..Draft::default() };
        audit.record(&draft, &peer, None, Duration::from_millis(2));
        audit.record(&draft, &peer, Some(Code::PeerRefused), Duration::ZERO);
        audit.record(&Draft::default(), &peer, None, Duration::ZERO);
        audit.close();
        let text = std::fs::read_to_string(path).expect("readable");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 2, "a probe is no decision");
        assert_eq!((&lines[0]["verdict"], &lines[1]["verdict"]), (&"allow".into(), &"deny".into()));
        assert_eq!(lines[0]["secrets"][0], serde_json::json!({ "secret": "db", "key": "password" }));
        assert!(lines[0].get("pid").is_none());
    }
}
