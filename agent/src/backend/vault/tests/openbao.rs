//! A real OpenBao for a test, with levers.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use reqwest::{Certificate, Client, Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::logins::eventually;
use super::*;

/// A server of one test's own, ended with it.
pub(super) struct OpenBao {
    child: Child,
    /// The end of its input is its end.
    input: Option<ChildStdin>,
    place: PathBuf,
    pub(super) url: String,
    pub(super) ca: PathBuf,
    pub(super) token: String,
    unseal_key: String,
    pid: Pid,
    client: Client,
    folder: TempDir,
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/peers")
}

impl OpenBao {
    /// Starts it, unsealed and with the mounts `secret` (version 2), `kv` (2) and `one` (1). None, and a word on stderr,
    /// where it is not installed.
    pub(super) async fn start() -> Option<Self> {
        let Some(place) = std::env::var_os("KEYSIDE_OPENBAO").map(PathBuf::from) else {
            eprintln!("skipped: OpenBao is not installed (tests/peers/install-openbao.sh, KEYSIDE_OPENBAO)");
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = Command::new("python3")
            .arg(scripts().join("openbao.py"))
            .args([place.as_path(), folder.path()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let mut line = String::new();
        let output: ChildStdout = child.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("a line");
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!("OpenBao ended:\n{}", std::fs::read_to_string(folder.path().join("server.log")).unwrap_or_default())
        });
        let text = |key: &str| said[key].as_str().expect("text").to_owned();
        let ca = PathBuf::from(text("ca"));
        let pem = std::fs::read(&ca).expect("a certificate");
        let certificates = Certificate::from_pem_bundle(&pem).expect("PEM");
        let client = Client::builder().no_proxy().tls_certs_merge(certificates).build().expect("a client");
        let bao = Self {
            input: child.stdin.take(),
            child,
            place,
            url: text("url"),
            ca,
            token: text("token"),
            unseal_key: text("unseal_key"),
            pid: Pid::from_raw(said["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a pid"))
                .expect("one"),
            client,
            folder,
        };
        for (mount, version) in [("secret", "2"), ("kv", "2"), ("one", "1")] {
            bao.set(&format!("sys/mounts/{mount}"), &json!({ "type": "kv", "options": { "version": version } })).await;
        }
        // A new engine of version 2 is not ready at once.
        for mount in ["secret", "kv"] {
            eventually(async || {
                let path = format!("{mount}/data/first");
                bao.call(Method::POST, &path, Some(&json!({ "data": {} }))).await.0.is_success().then_some(())
            })
            .await;
            bao.set_by(Method::DELETE, &format!("{mount}/metadata/first")).await;
        }
        Some(bao)
    }

    /// Makes a request as root, of whatever outcome.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let request =
            self.client.request(method, format!("{}/v1/{path}", self.url)).header("X-Vault-Token", &self.token);
        let request = match body {
            Some(body) => request.body(body.to_string()),
            None => request,
        };
        let reply = request.timeout(Duration::from_secs(30)).send().await.expect("OpenBao answers");
        let status = reply.status();
        let text = reply.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// Makes a request as root that succeeds, with a body.
    pub(super) async fn set(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.call(Method::POST, path, Some(body)).await;
        assert!(status.is_success(), "{path}: {status} {answer}");
        answer
    }

    /// The same without a body.
    pub(super) async fn set_by(&self, method: Method, path: &str) -> Value {
        let (status, answer) = self.call(method, path, None).await;
        assert!(status.is_success(), "{path}: {status} {answer}");
        answer
    }

    pub(super) async fn policy(&self, name: &str, rules: &str) {
        self.set(&format!("sys/policies/acl/{name}"), &json!({ "policy": rules })).await;
    }

    /// Returns a token with one policy beside the default one.
    pub(super) async fn token_with(&self, policy: &str) -> String {
        let answer = self.set("auth/token/create", &json!({ "policies": [policy] })).await;
        answer["auth"]["client_token"].as_str().expect("a token").to_owned()
    }

    pub(super) async fn seal(&self) {
        self.set_by(Method::POST, "sys/seal").await;
    }

    pub(super) async fn unseal(&self) {
        self.set("sys/unseal", &json!({ "key": self.unseal_key })).await;
        // No closure: whoever awaits this must be able to move between threads.
        let started = std::time::Instant::now();
        while !self.call(Method::GET, "sys/health", None).await.0.is_success() {
            assert!(started.elapsed() < Duration::from_secs(30), "it stays sealed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops it in its tracks until the guard is dropped.
    pub(super) async fn freeze(&self) -> Frozen {
        kill_process(self.pid, Signal::STOP).expect("it runs");
        let frozen = Frozen(self.pid);
        // The signal stops each thread when its turn comes, and one that runs meanwhile may still answer.
        let started = std::time::Instant::now();
        while !self.threads_are_stopped() {
            assert!(started.elapsed() < Duration::from_secs(30), "it goes on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        frozen
    }

    fn threads_are_stopped(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid.as_raw_nonzero())).expect("it is there");
        tasks.filter_map(Result::ok).all(|task| {
            let Ok(line) = std::fs::read_to_string(task.path().join("stat")) else { return true };
            // The program's name, in brackets, may hold blanks.
            line.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        })
    }

    /// Returns the settings to open a back-end on it as root.
    pub(super) fn options(&self) -> Options {
        Options {
            network: NetworkSettings { ca_file: Some(self.ca.clone()), ..NetworkSettings::default() },
            login: VaultLogin::Token(text(&self.token)),
            ..Options::at(self.url.clone())
        }
    }

    /// Starts whoever writes as ZenML does; `None`, and a word on stderr, where ZenML is wanted and is not installed.
    pub(super) fn writer(&self, with_zenml: bool) -> Option<Writer> {
        let python = if with_zenml {
            let peers = std::env::var_os("KEYSIDE_PEERS").map(PathBuf::from);
            let cache = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/keyside-peers"));
            let python = peers.or_else(cache).map(|peers| peers.join("zenml-0.98.0/bin/python"));
            match python.filter(|python| python.exists()) {
                Some(python) => python,
                None => {
                    eprintln!("skipped: real ZenML is not installed (tests/peers/install-zenml.sh)");
                    return None;
                }
            }
        } else {
            self.place.join("bin/python")
        };
        let mut child = Command::new(python)
            .arg(scripts().join("vault_writer.py"))
            .arg(&self.place)
            .args([&self.url, &self.token])
            .env("REQUESTS_CA_BUNDLE", &self.ca)
            .env("ZENML_CONFIG_PATH", self.folder.path().join("zenml"))
            .env("ZENML_ANALYTICS_OPT_IN", "false")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Some(Writer { input: child.stdin.take(), answers, child })
    }
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        let _ = kill_process(self.pid, Signal::CONT);
        self.input = None;
        let _ = self.child.wait();
    }
}

/// A server that does not move.
pub(super) struct Frozen(Pid);

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Writes as ZenML does.
pub(super) struct Writer {
    child: Child,
    input: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Writer {
    pub(super) fn order(&mut self, order: &Value) {
        writeln!(self.input.as_mut().expect("open until dropped"), "{order}").expect("it listens");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it answers");
        let answer: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(answer["error"], Value::Null, "{order}");
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}
