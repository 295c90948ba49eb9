//! A real OpenBao, started and ended with its scenario.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use serde_json::{Value, json};

use crate::eventually::eventually;
use crate::home::Home;
use crate::programs::{package, python};
use crate::remark::remark;

/// A running server with the mount `secret` of version 2 of the key-value engine.
pub struct OpenBao {
    child: Child,
    /// The end of its input is its end.
    input: Option<ChildStdin>,
    /// Its address.
    pub url: String,
    /// Its certificate authority, as PEM.
    pub ca: PathBuf,
    /// A token that may do everything.
    pub token: String,
    unseal_key: String,
    place: PathBuf,
}

impl OpenBao {
    /// Starts one in `home`. None, and a word on stderr, where OpenBao is not installed.
    pub fn start(home: &Home) -> Option<Self> {
        let Some(place) = std::env::var_os("KEYSIDE_OPENBAO").map(PathBuf::from) else {
            remark("skipped: OpenBao is not installed (tests/peers/install-openbao.sh, KEYSIDE_OPENBAO)");
            return None;
        };
        let directory = home.fresh("openbao");
        std::fs::create_dir(&directory).expect("a directory");
        home.holds_values(&directory);
        let mut child = Command::new(python())
            .arg(package().join("peers/openbao.py"))
            .args([&place, &directory])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!("OpenBao ended:\n{}", std::fs::read_to_string(directory.join("server.log")).unwrap_or_default())
        });
        let text = |key: &str| said[key].as_str().expect("text").to_owned();
        let bao = Self {
            input: child.stdin.take(),
            child,
            url: text("url"),
            ca: text("ca").into(),
            token: text("token"),
            unseal_key: text("unseal_key"),
            place,
        };
        bao.order(&["secrets", "enable", "-path=secret", "-version=2", "kv"]);
        eventually("the engine is ready", || bao.try_order(&["kv", "put", "-mount=secret", "first", "k=v"]).ok());
        Some(bao)
    }

    /// Returns where it is installed, ZenML's client for it beside it.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Writes a secret of version 2 at `path` below `secret`.
    pub fn put(&self, path: &str, values: &Value) {
        let body = json!({ "data": values }).to_string();
        // Through stdin: an argument would show in the list of processes.
        self.write_to(&["write", &format!("secret/data/{path}"), "-"], &body);
    }

    /// Makes it forget its keys.
    pub fn seal(&self) {
        self.order(&["operator", "seal"]);
    }

    /// Ends [`seal`](Self::seal), and waits until it answers.
    pub fn unseal(&self) {
        self.order(&["operator", "unseal", &self.unseal_key]);
        eventually("it is unsealed", || self.try_order(&["secrets", "list"]).ok());
    }

    /// Runs its command line as whoever may do everything, and returns what it prints.
    pub fn order(&self, arguments: &[&str]) -> String {
        self.try_order(arguments).unwrap_or_else(|said| panic!("{arguments:?}: {said}"))
    }

    /// The same with `body` as its input.
    pub fn write_to(&self, arguments: &[&str], body: &str) -> String {
        self.run(arguments, body).unwrap_or_else(|said| panic!("{arguments:?}: {said}"))
    }

    fn try_order(&self, arguments: &[&str]) -> Result<String, String> {
        self.run(arguments, "")
    }

    fn run(&self, arguments: &[&str], body: &str) -> Result<String, String> {
        use std::io::Write as _;
        let mut child = Command::new(self.place.join("bao"))
            .args(arguments)
            .env("BAO_ADDR", &self.url)
            .env("BAO_CACERT", &self.ca)
            .env("BAO_TOKEN", &self.token)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        // One that reads nothing may have ended before.
        let _ = child.stdin.take().expect("piped").write_all(body.as_bytes());
        let ended = child.wait_with_output().expect("it ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if ended.status.success() { Ok(text(&ended.stdout)) } else { Err(text(&ended.stderr)) }
    }
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}
