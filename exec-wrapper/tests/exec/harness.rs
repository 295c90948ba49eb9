//! A scripted agent on a socket of its own, and a hermetic way to run the wrapper.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The value that must never be seen in what the wrapper itself prints.
pub(crate) const CANARY: &str = "canary-7f3a\"\\&-value";

/// What the scripted agent saw.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<(String, String)>>>);

impl Seen {
    /// Request lines with their bodies, in order.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        self.0.lock().expect("not poisoned").clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.all().len()
    }

    pub(crate) fn forget(&self) {
        self.0.lock().expect("not poisoned").clear();
    }
}

/// Gets the number of the request (from 0), its line and its body; returns a whole HTTP reply.
type Script = dyn Fn(usize, &str, &str) -> String + Send + Sync;

/// Listens at `path` and answers by `script`, one request after the other.
pub(crate) fn agent_at(path: &Path, script: impl Fn(usize, &str, &str) -> String + Send + Sync + 'static) -> Seen {
    let listener = UnixListener::bind(path).expect("a free path");
    let seen = Seen::default();
    let (record, script): (Seen, Arc<Script>) = (seen.clone(), Arc::new(script));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (record, script) = (record.clone(), script.clone());
            thread::spawn(move || serve(stream, &record, &*script));
        }
    });
    seen
}

fn serve(mut stream: UnixStream, record: &Seen, script: &Script) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |text| text.parse().expect("a number"));
            if bytes.len() < end + 4 + length {
                break;
            }
            let body = String::from_utf8_lossy(&bytes[end + 4..end + 4 + length]).into_owned();
            bytes.drain(..end + 4 + length);
            let line = head.lines().next().unwrap_or_default().to_owned();
            let number = {
                let mut all = record.0.lock().expect("not poisoned");
                all.push((line.clone(), body.clone()));
                all.len() - 1
            };
            if stream.write_all(script(number, &line, &body).as_bytes()).is_err() {
                return;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

/// A whole HTTP reply.
pub(crate) fn reply(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nKeyside-Protocol: 1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A 503 or 422 with one failure a reference.
pub(crate) fn failures(status: u16, code: &str, retry: bool, references: &[&str]) -> String {
    let failures: Vec<_> = references
        .iter()
        .map(|reference| serde_json::json!({"reference": reference, "code": code, "backends": ["store"], "retry": retry, "hint": "try this"}))
        .collect();
    let problem = serde_json::json!({"type": "urn:x", "title": "t", "status": status, "code": if status == 422 { "unresolved" } else { "backend_unavailable" }, "detail": "d", "failures": failures});
    reply(status, &problem.to_string())
}

/// The secrets that [`answer`] knows.
fn known() -> BTreeMap<&'static str, BTreeMap<&'static str, &'static str>> {
    BTreeMap::from([
        ("db", BTreeMap::from([("password", CANARY), ("user", "alice"), ("template", "{{db.user}} ${HOME}")])),
        ("tls", BTreeMap::from([("cert.pem", "CERT\n"), ("key", "KEY")])),
        ("evil", BTreeMap::from([("LD_PRELOAD", "/evil.so"), ("OK", "1")])),
        ("proxy", BTreeMap::from([("http_proxy", "http://evil")])),
        ("odd", BTreeMap::from([("a b", "1"), ("1x", "2")])),
        ("nul", BTreeMap::from([("key", "a\0b")])),
        ("path", BTreeMap::from([("../x", "1")])),
        ("case", BTreeMap::from([("a", "1"), ("A", "2")])),
    ])
}

/// Answers a resolve as the agent would.
pub(crate) fn answer(body: &str) -> String {
    let request: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let (mut values, mut secrets, mut missing) = (serde_json::Map::new(), serde_json::Map::new(), Vec::new());
    let known = known();
    for (id, reference) in request["references"].as_object().into_iter().flatten() {
        let reference = reference.as_str().expect("text");
        let (name, key) = reference.trim_matches(['{', '}']).split_once('.').expect("a reference");
        match (name, known.get(name).and_then(|secret| secret.get(key))) {
            ("big", _) => drop(values.insert(id.clone(), "x".repeat(key.parse().expect("a size")).into())),
            (_, Some(value)) => drop(values.insert(id.clone(), (*value).into())),
            _ => missing.push(reference.to_owned()),
        }
    }
    for name in request["secrets"].as_array().into_iter().flatten() {
        let name = name.as_str().expect("text");
        match known.get(name) {
            Some(pairs) => drop(secrets.insert(
                name.to_owned(),
                serde_json::json!({"version": "1", "revision": 1, "stale": false, "age_seconds": 0, "values": pairs}),
            )),
            None => missing.push(name.to_owned()),
        }
    }
    if missing.is_empty() {
        reply(200, &serde_json::json!({"generation": "g", "values": values, "secrets": secrets}).to_string())
    } else {
        failures(422, "secret_not_found", false, &missing.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// A hermetic place: an empty home, a socket path, an agent if one is started.
pub(crate) struct Place {
    root: tempfile::TempDir,
    /// Whether every run's output is searched for the canary.
    pub(crate) seen: Seen,
}

impl Place {
    /// A place with an agent that knows its secrets.
    pub(crate) fn with_agent() -> Self {
        Self::with_script(|_, _, body| answer(body))
    }

    /// A place with an agent that answers by a script.
    pub(crate) fn with_script(script: impl Fn(usize, &str, &str) -> String + Send + Sync + 'static) -> Self {
        let mut place = Self::without_agent();
        place.seen = agent_at(&place.socket(), script);
        place
    }

    /// A place where nobody listens.
    pub(crate) fn without_agent() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        for directory in ["home", "config/keyside", "work", "runtime"] {
            std::fs::create_dir_all(root.path().join(directory)).expect("made");
        }
        Self { root, seen: Seen::default() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("agent.sock")
    }

    /// Writes a file below the place's root.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    /// A program with a cleared environment but for what every run needs.
    pub(crate) fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", self.path("home"))
            .env("KEYSIDE_SOCKET", self.socket())
            .env("PATH", "/usr/bin:/bin")
            .env("RUST_BACKTRACE", "0")
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_RUNTIME_DIR", self.path("runtime"))
            .current_dir(self.path("work"))
            .stdin(Stdio::null());
        command
    }

    /// The wrapper with these arguments.
    pub(crate) fn wrapper(&self, args: &[&str]) -> Command {
        let mut command = self.program(WRAPPER);
        command.args(args);
        command
    }

    /// Runs the wrapper.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        ran(&mut self.wrapper(args))
    }
}

/// The program under test.
pub(crate) const WRAPPER: &str = env!("CARGO_BIN_EXE_keyside-exec");

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs to the end; stderr, which is the wrapper's alone in these tests, must never hold the canary.
pub(crate) fn ran(command: &mut Command) -> Ran {
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    let ran = Ran {
        code: status.code(),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    };
    assert!(!ran.stderr.contains(CANARY), "the canary is on stderr");
    ran
}

impl Ran {
    /// The command ran and ended well.
    #[track_caller]
    pub(crate) fn printed(self, stdout: &str) {
        assert_eq!((self.code, self.stdout.as_str(), self.stderr.as_str()), (Some(0), stdout, ""));
    }

    /// The command did not run; the wrapper said each of `said` in its own form.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, said: &[&str]) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        for text in said {
            assert!(self.stderr.contains(text), "{text:?} is not in {}", self.stderr);
        }
        for line in self.stderr.lines() {
            assert!(line.starts_with("keyside: ") || line.starts_with("hint: "), "{line:?}");
        }
        assert!(self.stderr.starts_with("keyside: "), "{self:?}");
        self.stderr
    }
}

/// Waits for something to become true.
#[track_caller]
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < until, "never: {what}");
        thread::yield_now();
    }
}

/// Whether these tests run as root; where a test needs it and does not have it, it says so.
#[allow(clippy::print_stderr, reason = "a test that is not run must be seen not to have been")]
pub(crate) fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED, needs root: {test}");
    }
    root
}

/// Whether these tests may mount; where a test needs it and does not have it, it says so.
#[allow(clippy::print_stderr, reason = "a test that is not run must be seen not to have been")]
pub(crate) fn may_mount(test: &str) -> bool {
    let may = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    let may = may.is_ok_and(|status| status.success());
    if !may {
        eprintln!("SKIPPED, needs CAP_SYS_ADMIN: {test}");
    }
    may
}

/// Returns the options of `unshare` for a pid namespace: as root, or else within a user namespace. Where there is
/// neither, says so.
#[allow(clippy::print_stderr, reason = "a test that is not run must be seen not to have been")]
pub(crate) fn pid_namespace(place: &Place, test: &str) -> Option<&'static [&'static str]> {
    const WAYS: [&[&str]; 2] =
        [&["--pid", "--fork", "--kill-child"], &["--user", "--map-root-user", "--pid", "--fork", "--kill-child"]];
    let works = |way: &&[&str]| {
        let status = place.program("unshare").args(*way).arg("true").stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let way = WAYS.into_iter().find(works);
    if way.is_none() {
        eprintln!("SKIPPED, needs a pid namespace: {test}");
    }
    way
}

/// A program that runs, with a pipe to its stdin and one from its stdout. Dropped, it is killed.
pub(crate) struct Step {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

impl Step {
    /// Starts it; stderr is passed on.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("started");
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("piped"));
        Self { child, stdin, lines: BufReader::new(stdout) }
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid")
    }

    /// Waits for the next line that it prints.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("text");
        line.trim_end_matches('\n').to_owned()
    }

    /// Writes a line to it.
    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.stdin.as_ref().expect("not closed"), "{line}").expect("it reads");
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
    }

    /// Closes its stdin and waits for its end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        drop(self.stdin.take());
        self.child.wait().expect("reaped")
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A fresh directory on memory that these tests own.
pub(crate) fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("/dev/shm is there")
}

/// Tells whether nothing is in a directory, or it is not there.
pub(crate) fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}
