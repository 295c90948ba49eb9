//! The stand-in of Secret Manager as a process, and another that writes into it with the official client and with ZenML's
//! own class.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Names the Python that has the official client.
const VARIABLE: &str = "KEYSIDE_GCP_PYTHON";

/// A script that ends with its standard input.
struct Script {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Script {
    fn start(python: &Path, name: &str, argument: Option<&str>, folder: &Path) -> Self {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/peers");
        let mut child = Command::new(python)
            .arg(scripts.join(name))
            .args(argument)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", folder)
            .env("ZENML_CONFIG_PATH", folder.join("zenml"))
            .env("ZENML_ANALYTICS_OPT_IN", "false")
            .env("ZENML_LOGGING_VERBOSITY", "ERROR")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, answers }
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it answers");
        assert!(!line.is_empty(), "the script ended");
        line.trim_end().to_owned()
    }

    fn order(&mut self, order: &Value) -> String {
        writeln!(self.child.stdin.as_mut().expect("piped"), "{order}").expect("it listens");
        self.answer()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An empty Secret Manager.
pub(super) struct Peer {
    /// `http://127.0.0.1:PORT`.
    pub(super) url: String,
    /// Where its Python is.
    pub(super) python: PathBuf,
    writer: std::sync::Mutex<Script>,
    _server: Script,
    folder: TempDir,
}

impl Peer {
    /// Starts one; `None`, and a word on stderr, where there is nothing to start.
    pub(super) fn start() -> Option<Self> {
        let Some(python) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
            eprintln!("skipped: {VARIABLE} is not set; tests/peers/install-gcp.sh prints what it should be");
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let mut server = Script::start(&python, "gcp_fake.py", None, folder.path());
        let url = format!("http://127.0.0.1:{}", server.answer());
        let mut writer = Script::start(&python, "gcp_store.py", Some(&url), folder.path());
        assert_eq!(writer.answer(), "ready");
        Some(Self { url, python, writer: std::sync::Mutex::new(writer), _server: server, folder })
    }

    /// Writes as ZenML does; fails the test if that fails.
    pub(super) fn write(&self, order: &Value) {
        let answer = self.writer.lock().expect("not poisoned").order(order);
        assert_eq!(answer, "done", "{order}");
    }

    /// Makes or replaces one of Google's secrets.
    pub(super) fn put(&self, id: &str, labels: &Value, data: &[u8]) {
        self.write(&json!({ "do": "put", "id": id, "labels": labels, "data": STANDARD.encode(data) }));
    }

    /// Pulls one of its levers.
    pub(super) async fn order(&self, order: &Value) {
        let request = reqwest::Client::new().post(format!("{}/fake/order", self.url)).body(order.to_string());
        assert!(request.send().await.expect("it answers").status().is_success());
    }

    /// Returns how often each method was called so far.
    pub(super) async fn calls(&self) -> Value {
        self.get("calls").await
    }

    /// Returns what it says under `/fake/`.
    pub(super) async fn get(&self, what: &str) -> Value {
        let reply = reqwest::get(format!("{}/fake/{what}", self.url)).await.expect("it answers");
        reply.json().await.expect("JSON")
    }

    /// Writes a file into a folder of the test's own.
    pub(super) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        path
    }
}
