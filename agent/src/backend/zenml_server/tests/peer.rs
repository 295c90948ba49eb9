//! A real ZenML server on a data base of the fixtures, and a wire to it that can be cut.

use std::fs::{self, File};
use std::net::TcpListener as StdListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use reqwest::{Client as HttpClient, Method};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::backend::Scope;

/// Which of the two real servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Release {
    V098,
    V043,
}

impl Release {
    fn variable(self) -> &'static str {
        match self {
            Self::V098 => "KEYSIDE_ZENML_SERVER_PYTHON",
            Self::V043 => "KEYSIDE_ZENML_043_PYTHON",
        }
    }

    fn fixture(self) -> &'static str {
        match self {
            Self::V098 => "zenml-0.98.0-plain.db",
            Self::V043 => "zenml-0.43.1-plain.db",
        }
    }
}

/// Returns the Python that has this ZenML; says that the test is skipped where there is none.
pub(super) fn python(release: Release) -> Option<PathBuf> {
    let variable = release.variable();
    let python = std::env::var_os(variable).map(PathBuf::from);
    if python.is_none() {
        eprintln!("skipped: {variable} does not say where the real ZenML is (./check.sh installs it)");
    }
    python
}

/// A running server; ends when it is dropped.
pub(super) struct Peer {
    child: Child,
    pub(super) folder: TempDir,
    python: PathBuf,
    pub(super) port: u16,
    pub(super) release: Release,
    page: Option<u32>,
    http: HttpClient,
    token: String,
}

impl Peer {
    /// Starts a server on a copy of the fixture, and logs in as `default`, whose password is empty. `page` is the most
    /// that a page may have.
    pub(super) async fn start(python: &Path, release: Release, page: Option<u32>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = folder.path().join("zenml/local_stores/default_zen_store");
        fs::create_dir_all(&store).expect("folders");
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/zenml/db");
        fs::copy(fixtures.join(release.fixture()), store.join("zenml.db")).expect("the fixture");
        // Given back at once: nobody else is likely to take it before the server does.
        let port = StdListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("bound").port();
        let child = launch(python, folder.path(), port, release, page, "a");
        let http = HttpClient::builder().no_proxy().build().expect("a client");
        let mut peer =
            Self { child, folder, python: python.to_owned(), port, release, page, http, token: String::new() };
        peer.wait().await;
        peer.log_in().await;
        peer
    }

    /// Ends the server and starts it again with another key for its tokens: those that it gave are worth nothing.
    pub(super) async fn restart(&mut self) {
        self.stop();
        self.child = launch(&self.python, self.folder.path(), self.port, self.release, self.page, "b");
        self.wait().await;
        self.log_in().await;
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    async fn wait(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(120);
        let health = format!("http://127.0.0.1:{}/health", self.port);
        while !self.http.get(&health).send().await.is_ok_and(|reply| reply.status().is_success()) {
            let ended = self.child.try_wait().expect("a child").is_some();
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(!ended && Instant::now() < deadline, "the server did not start:\n{}", log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    async fn log_in(&mut self) {
        let login = self.http.post(format!("{}/api/v1/login", self.url())).body("username=default&password=");
        let login = login.header("Content-Type", "application/x-www-form-urlencoded").send().await.expect("a login");
        let reply: Value = login.json().await.expect("JSON");
        self.token = reply["access_token"].as_str().expect("a token").to_owned();
    }

    /// Makes a request as the administrator; panics unless it succeeds.
    pub(super) async fn ask(&self, method: Method, target: &str, body: Option<Value>) -> Value {
        let mut request = self.http.request(method, format!("{}/api/v1{target}", self.url())).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let reply = request.send().await.expect("a reply");
        let status = reply.status();
        let text = reply.text().await.expect("text");
        assert!(status.is_success(), "{target}: {status} {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    pub(super) fn admin_token(&self) -> String {
        self.token.clone()
    }

    /// The body of a new secret, in the words of the release.
    pub(super) async fn new_secret(&self, name: &str, scope: Scope, values: &Value) -> Value {
        match self.release {
            Release::V098 => {
                let body = json!({"name": name, "private": scope == Scope::Private, "values": values});
                self.ask(Method::POST, "/secrets", Some(body)).await
            }
            Release::V043 => {
                let user = self.ask(Method::GET, "/current-user", None).await;
                let workspace = self.ask(Method::GET, "/workspaces/default", None).await;
                let scope = if scope == Scope::Private { "user" } else { "workspace" };
                let body = json!({"name": name, "scope": scope, "values": values,
                    "user": user["id"], "workspace": workspace["id"]});
                self.ask(Method::POST, "/workspaces/default/secrets", Some(body)).await
            }
        }
    }

    /// Runs SQL on the server's data base.
    pub(super) fn sql(&self, sql: &str) {
        let file = self.folder.path().join("zenml/local_stores/default_zen_store/zenml.db");
        let program =
            "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], timeout=20)\nc.execute(sys.argv[2])\nc.commit()";
        let status = Command::new(&self.python).args(["-c", program]).arg(file).arg(sql).status().expect("Python");
        assert!(status.success(), "{sql}");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn launch(python: &Path, folder: &Path, port: u16, release: Release, page: Option<u32>, signing_key: &str) -> Child {
    let log = File::create(folder.join("log")).expect("a log");
    let mut command = Command::new(python);
    // What the server signs its tokens with.
    let key = signing_key.repeat(64);
    command
        .args(["-m", "uvicorn", "zenml.zen_server.zen_server_api:app", "--host", "127.0.0.1", "--log-level", "warning"])
        .args(["--port", &port.to_string()])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", folder)
        .env("ZENML_CONFIG_PATH", folder.join("zenml"))
        .env("ZENML_ANALYTICS_OPT_IN", "false")
        .env("ZENML_SERVER", "true")
        .env("ZENML_SERVER_DEPLOYMENT_TYPE", "local")
        .env("ZENML_ENABLE_RICH_TRACEBACK", "false")
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log);
    match release {
        Release::V098 => {
            command.env("ZENML_SERVER_AUTH_SCHEME", "OAUTH2_PASSWORD_BEARER").env("ZENML_SERVER_JWT_SECRET_KEY", key);
        }
        Release::V043 => {
            command.env("ZENML_AUTH_TYPE", "OAUTH2_PASSWORD_BEARER").env("ZENML_JWT_SECRET_KEY", key);
        }
    }
    if let Some(page) = page {
        command.env("ZENML_PAGINATION_DEFAULT_LIMIT", page.to_string());
    }
    command.spawn().expect("the server's Python")
}

/// How a wire behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Whole,
    /// Connections end, and new ones end at once.
    Cut,
    /// Nothing moves.
    Still,
}

/// A wire to a server.
pub(super) struct Wire {
    pub(super) url: String,
    mode: watch::Sender<Mode>,
    acceptor: JoinHandle<()>,
}

impl Wire {
    pub(super) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (mode, changes) = watch::channel(Mode::Whole);
        let acceptor = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(carry(stream, port, changes.clone()));
            }
        });
        Self { url, mode, acceptor }
    }

    pub(super) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    pub(super) fn handle(&self) -> watch::Sender<Mode> {
        self.mode.clone()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn carry(mut near: TcpStream, port: u16, mut mode: watch::Receiver<Mode>) {
    let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let copy = copy_bidirectional(&mut near, &mut far);
    tokio::pin!(copy);
    loop {
        let now = *mode.borrow_and_update();
        match now {
            Mode::Cut => return,
            Mode::Still => {
                if mode.changed().await.is_err() {
                    return;
                }
            }
            Mode::Whole => tokio::select! {
                _ = &mut copy => return,
                changed = mode.changed() => if changed.is_err() { return },
            },
        }
    }
}
