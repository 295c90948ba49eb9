//! ZenML 0.43.1's own classes, which write what the back-ends then read.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// An installed ZenML 0.43.1 that writes with one set of variables.
pub(super) struct Zenml043 {
    python: PathBuf,
    variables: Vec<(&'static str, String)>,
}

impl Zenml043 {
    /// Finds it. `None`, and a word on stderr, where it is not installed, or these modules are not, the client that its
    /// classes write with.
    #[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
    pub(super) fn find(client: &str, variables: &[(&'static str, &str)]) -> Option<Self> {
        let peers = std::env::var_os("KEYSIDE_PEERS").map(PathBuf::from);
        let cache = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/keyside-peers"));
        let python = peers.or_else(cache).map(|peers| peers.join("zenml-0.43.1/bin/python"));
        let python = python.filter(|python| {
            let import = format!("import {client}");
            let imported = Command::new(python).args(["-c", &import]).stderr(Stdio::null()).status();
            imported.is_ok_and(|status| status.success())
        });
        if python.is_none() {
            eprintln!("skipped: ZenML 0.43.1 is not installed with its clients (tests/peers/install-zenml-0.43.sh)");
        }
        let variables = variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        python.map(|python| Self { python, variables })
    }

    /// Does orders for a deployment of their own, whose central store has these settings; panics unless all succeed.
    pub(super) fn write(&self, store: &Value, orders: &[Value]) -> Vec<Value> {
        let home = tempfile::tempdir().expect("a folder");
        let mut child = Command::new(&self.python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/peers/zenml_043_writer.py"))
            .arg(home.path().join("zenml"))
            .env_clear()
            .envs([("PATH", "/usr/bin:/bin"), ("PYTHONDONTWRITEBYTECODE", "1")])
            .env("HOME", home.path())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ZenML's Python starts");
        let request = json!({ "store": store, "orders": orders }).to_string();
        child.stdin.take().expect("piped").write_all(request.as_bytes()).expect("it listens");
        let output = child.wait_with_output().expect("its end");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

/// What a secret of schema `seldon_s3` has that was given nothing, as ZenML's references give it: one is a truth value.
pub(super) const SELDON: [(&str, &str); 3] =
    [("rclone_config_s3_env_auth", "False"), ("rclone_config_s3_provider", "aws"), ("rclone_config_s3_type", "s3")];

/// Values as ZenML's users have them, which no reader may change: sorted by key, as text and as JSON.
pub(super) fn values() -> (Vec<(String, String)>, Value) {
    let pairs = [
        ("empty", ""),
        ("json", r#"{"port": 5432, "on": true}"#),
        ("number", "007"),
        ("spaces", " \ttwo lines\r\nand an end\n"),
        ("text", "naïve “q” 'q' \\ \u{7f} \u{1f510}"),
        ("word", "null"),
    ];
    let object = pairs.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    (pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(), Value::Object(object))
}
