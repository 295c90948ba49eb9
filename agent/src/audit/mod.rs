//! What was decided, one JSON line a decision, written off the hot path, in order, bounded, never dropped silently.
//! Never a value, a hash of one, or a header.

mod writer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keyside_config::settings::AuditSettings;
use keyside_protocol::code::Code;
use serde::Serialize;

use crate::access::Peer;
use crate::request_id::{RequestId, RequestIds};
pub use writer::Log;
use writer::Queue;

/// What a request turns out to be about, filled in while it is answered.
#[derive(Debug, Default)]
pub struct Draft {
    /// `read`, `list`, `resolve`, `check`, `watch`, `create`, `update`, `delete`, `refresh`, `purge`, `shutdown`,
    /// `connect`; empty for probes.
    pub operation: &'static str,
    /// The request's id, which back-ends are told too; without one the line gets another.
    pub request: Option<RequestId>,
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
    request: String,
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exe: Option<std::borrow::Cow<'a, str>>,
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
    queue: Arc<Queue>,
    writer: Mutex<Option<JoinHandle<()>>>,
    on: AtomicBool,
    required: AtomicBool,
    /// Another run that wrote to the same file has others.
    requests: RequestIds,
}

impl Audit {
    /// Opens the log for appending (created 0600); `None` when no path is configured. Errors: the file cannot be opened.
    pub fn open_log(settings: &AuditSettings) -> std::io::Result<Option<Log>> {
        settings.path.as_deref().map(Log::open).transpose()
    }

    /// Starts the log's writer. Errors: no thread can be had.
    pub fn start(log: Option<Log>, required: bool) -> std::io::Result<Self> {
        let audit = Self {
            queue: Arc::default(),
            writer: Mutex::default(),
            on: AtomicBool::new(false),
            required: AtomicBool::new(required),
            requests: RequestIds::new(&crate::resolver::random_id()),
        };
        if log.is_some() {
            audit.start_writer()?;
        }
        audit.go_on(log, required);
        Ok(audit)
    }

    /// Opens the log of `settings` in advance, for [`go_on`](Self::go_on); the one in use stays in use.
    ///
    /// Errors: the file cannot be opened, or no thread can be had.
    pub fn open_anew(&self, settings: &AuditSettings) -> std::io::Result<Option<Log>> {
        let log = Self::open_log(settings)?;
        if log.is_some() {
            self.start_writer()?;
        }
        Ok(log)
    }

    /// Goes on with `log`, because the one before was moved away or another is configured: what is queued is written to
    /// it. Without one, nothing more is recorded; what is queued is written to the one before.
    pub fn go_on(&self, log: Option<Log>, required: bool) {
        self.on.store(log.is_some(), Ordering::Relaxed);
        self.required.store(required, Ordering::Relaxed);
        if let Some(log) = log {
            self.queue.replace(log);
        }
    }

    fn start_writer(&self) -> std::io::Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.is_none() {
            let queue = Arc::clone(&self.queue);
            *writer = Some(std::thread::Builder::new().name("audit".to_owned()).spawn(move || queue.write())?);
        }
        Ok(())
    }

    /// Returns an id for a request that begins.
    pub fn next_request(&self) -> RequestId {
        self.requests.next()
    }

    /// Tells whether every decision is recorded, so that drafts are worth filling in.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Tells whether requests must be refused because the log is required and cannot be written: from the first write
    /// that failed, or line that found no room, until one is written again. The writer goes on trying by itself.
    pub fn blocks(&self) -> bool {
        self.required.load(Ordering::Relaxed) && self.is_failing()
    }

    /// Tells whether the log is on and cannot be written.
    pub fn is_failing(&self) -> bool {
        self.is_on() && self.queue.is_failing()
    }

    /// Returns the lines written, and those that found no room.
    pub fn counts(&self) -> (u64, u64) {
        (self.queue.written(), self.queue.lost())
    }

    /// Records how a request ended. False when the log is required and has no room for it: then what was read must not
    /// leave the agent.
    #[must_use]
    pub fn record(&self, draft: &Draft, peer: &Peer, code: Option<Code>, took: Duration) -> bool {
        if draft.operation.is_empty() {
            return true;
        }
        let denied = draft.outside || matches!(code, Some(Code::PeerRefused | Code::ReadOnly | Code::BackendDenied));
        if !self.is_on() {
            let names: Vec<_> = draft.secrets.iter().map(|subject| subject.secret.as_str()).collect();
            let (uid, operation, secrets) = (peer.uid, draft.operation, names.join(" "));
            if denied {
                tracing::warn!(uid, operation, secrets, code = code.map(Code::as_str), "refused");
            } else if draft.write {
                tracing::info!(uid, operation, secrets, code = code.map(Code::as_str), "write");
            }
            return true;
        }
        if code == Some(Code::AuditUnavailable) {
            self.queue.refused();
            return true;
        }
        let line = Line {
            time: timestamp(SystemTime::now()),
            request: draft.request.clone().unwrap_or_else(|| self.next_request()).to_string(),
            uid: peer.uid,
            gid: peer.gid,
            pid: peer.pid,
            exe: peer.program.exe.as_deref().map(std::path::Path::to_string_lossy),
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
        self.queue.push(bytes) || !self.required.load(Ordering::Relaxed)
    }

    /// Writes what is queued, then ends the writer. What cannot be written even now is counted in the program's log.
    pub fn close(&self) {
        self.queue.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // A writer that panicked has nothing left to write.
            let _ = writer.join();
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
    use std::path::Path;

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
        let audit = audit_on(&path, true);
        let exe = Some("/usr/bin/python3".into());
        let peer = Peer { program: crate::program::Program { exe, cgroup: None }, ..peer() };
        let draft = Draft { operation: "read", secrets: vec![Subject::key("db", "password")], ..Draft::default() };
        assert!(audit.record(&draft, &peer, None, Duration::from_millis(2)));
        assert!(audit.record(&draft, &peer, Some(Code::PeerRefused), Duration::ZERO));
        assert!(audit.record(&Draft::default(), &peer, None, Duration::ZERO));
        audit.close();
        let lines = lines(&path);
        assert_eq!(lines.len(), 2, "a probe is no decision");
        assert_eq!((&lines[0]["verdict"], &lines[1]["verdict"]), (&"allow".into(), &"deny".into()));
        assert_eq!(lines[0]["secrets"][0], serde_json::json!({ "secret": "db", "key": "password" }));
        assert!(lines[0].get("pid").is_none());
        assert_eq!(lines[0]["exe"], "/usr/bin/python3");
        assert_ne!(lines[0]["request"], lines[1]["request"]);
    }

    fn settings(path: &Path, required: bool) -> AuditSettings {
        AuditSettings { path: Some(path.to_owned()), required }
    }

    fn audit_on(path: &Path, required: bool) -> Audit {
        let settings = settings(path, required);
        Audit::start(Audit::open_log(&settings).expect("writable"), required).expect("a thread")
    }

    fn reopen(audit: &Audit, settings: &AuditSettings) {
        let log = audit.open_anew(settings).expect("writable");
        audit.go_on(log, settings.required);
    }

    fn peer() -> Peer {
        Peer { uid: 7, gid: 8, pid: None, groups: Vec::new(), program: Default::default(), embedded: false }
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).expect("readable");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn record(audit: &Audit, name: &str) {
        let draft = Draft { operation: "read", secrets: vec![Subject::secret(name)], ..Draft::default() };
        assert!(audit.record(&draft, &peer(), None, Duration::ZERO));
    }

    fn eventually(what: &str, holds: impl Fn() -> bool) {
        let end = std::time::Instant::now() + Duration::from_secs(30);
        while !holds() {
            assert!(std::time::Instant::now() < end, "waited in vain until {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn after_a_log_was_moved_away_and_opened_anew_lines_go_to_the_new_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, moved) = (directory.path().join("audit.jsonl"), directory.path().join("audit.jsonl.1"));
        let audit = audit_on(&path, false);
        record(&audit, "first");
        eventually("the line is written", || audit.counts().0 == 1);
        std::fs::rename(&path, &moved).expect("ours");
        record(&audit, "second");
        eventually("the line is written", || audit.counts().0 == 2);
        reopen(&audit, &settings(&path, false));
        record(&audit, "third");
        audit.close();
        assert_eq!(lines(&moved).len(), 2, "until it is told, the writer stays with its file");
        assert_eq!(lines(&path)[0]["secrets"][0]["secret"], "third");
    }

    #[test]
    fn a_required_log_on_a_full_disk_blocks_until_it_can_be_written_and_then_has_every_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.jsonl");
        let audit = audit_on(Path::new("/dev/full"), true);
        assert!(!audit.blocks(), "nothing has failed yet");
        record(&audit, "first");
        eventually("the failure is noticed", || audit.blocks());
        record(&audit, "second");
        reopen(&audit, &settings(&path, true));
        // Nobody asks for anything in between: the writer notices by itself.
        eventually("the log can be written again", || !audit.blocks());
        audit.close();
        let names: Vec<_> = lines(&path).iter().map(|line| line["secrets"][0]["secret"].clone()).collect();
        assert_eq!(names, ["first", "second"]);
    }

    #[test]
    fn a_log_that_cannot_be_opened_anew_leaves_the_old_one_in_use() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.jsonl");
        let audit = audit_on(&path, false);
        assert!(audit.open_anew(&settings(&directory.path().join("none/audit.jsonl"), true)).is_err());
        record(&audit, "first");
        audit.close();
        assert_eq!(lines(&path).len(), 1);
        assert!(!audit.blocks(), "what the refused settings asked for does not count either");
    }

    #[test]
    fn a_log_can_be_turned_on_and_off_while_the_agent_runs() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.jsonl");
        let audit = Audit::start(None, false).expect("nothing to start");
        record(&audit, "before");
        reopen(&audit, &settings(&path, true));
        record(&audit, "recorded");
        reopen(&audit, &AuditSettings::default());
        assert!(!audit.is_on());
        record(&audit, "after");
        audit.close();
        assert_eq!(lines(&path).len(), 1);
    }
}
