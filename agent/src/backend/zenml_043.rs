//! ZenML 0.43.1's own classes, which write what the back-ends then read.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use keyside_protocol::value::SecretValues;
use serde_json::{Value, json};

use super::{BackendError, Opened, ScopeLabel, Scopes};

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

/// What the central store holds after all that its users can do with it.
pub(super) struct CentralStore {
    /// The first secret, and the deployment that made it.
    id: String,
    deployment: String,
}

impl CentralStore {
    /// Has ZenML make, change and delete secrets in a store with these settings.
    pub(super) fn written(zenml: &Zenml043, store: &Value) -> Self {
        let (_, values) = values();
        let order = |what: &str, name: &str, scope: &str, values: Value| json!({ "do": what, "name": name, "scope": scope, "values": values });
        let answers = zenml.write(
            store,
            &[
                order("create", "db", "workspace", values.clone()),
                order("create", "db", "user", json!({ "k": "mine" })),
                order("create", "mine", "user", values),
                order("create", "bare", "workspace", json!({})),
                order("create", "changed", "workspace", json!({ "k": "old", "kept": "as it was" })),
                order("update", "changed", "workspace", json!({ "k": "new" })),
                order("create", "gone", "workspace", json!({ "k": "v" })),
                order("delete", "gone", "workspace", json!({})),
            ],
        );
        let text = |key: &str| answers[0][key].as_str().expect("text").to_owned();
        Self { id: text("id"), deployment: text("deployment") }
    }

    /// Reads all of it by a back-end of layout `store`.
    pub(super) async fn check(&self, opened: &Opened) {
        let (expected, _) = values();
        let read = async |name: &str, scopes: Scopes| {
            let secret = opened.reader.fetch(name, scopes).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            (shown(&secret.values), secret.description.scope_label)
        };
        let owned = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let (user, workspace) = (Some(ScopeLabel::User), Some(ScopeLabel::Workspace));
        assert_eq!(read("db", Scopes::PublicFirst).await, (expected.clone(), workspace));
        assert_eq!(read("db", Scopes::PrivateFirst).await, (owned(&[("k", "mine")]), user));
        assert_eq!(read("mine", Scopes::PrivateFirst).await, (expected.clone(), user));
        assert_eq!(read("bare", Scopes::PrivateFirst).await, (Vec::new(), workspace));
        let changed = owned(&[("k", "new"), ("kept", "as it was")]);
        assert_eq!(read("changed", Scopes::PrivateFirst).await, (changed, workspace));
        let gone = opened.reader.fetch("gone", Scopes::PrivateFirst).await;
        assert_eq!(gone.err(), Some(BackendError::NotFound));
        let listed = opened.reader.list().await.expect("a list");
        let mut listed: Vec<_> = listed.iter().map(|one| (one.name.as_str(), one.scope_label)).collect();
        listed.sort_by_key(|(name, label)| (*name, label.map(ScopeLabel::as_str)));
        let all = [("bare", workspace), ("changed", workspace), ("db", user), ("db", workspace), ("mine", user)];
        assert_eq!(listed, all);
        // By id as well, as a ZenML that has been brought to 0.55 asks for them.
        let kept = opened.values.as_ref().expect("it holds values").values_of(&self.id, &self.deployment).await;
        assert_eq!(kept.map(|kept| shown(&kept.values)), Ok(expected));
    }
}

fn shown(values: &SecretValues) -> Vec<(String, String)> {
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).expect("text");
    values.iter().map(|(key, value)| (key.to_owned(), text(value.expose()))).collect()
}

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
