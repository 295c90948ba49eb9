//! The real ZenML: one Python process, driven by one JSON object a line. Importing it takes seconds, so a scenario file
//! starts it once.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::home::Home;
use crate::programs::package;
use crate::remark::remark;
use crate::run::Run;

/// A running ZenML client on a store whose tables it made itself.
pub struct Zenml {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    directory: PathBuf,
    log: PathBuf,
}

impl Zenml {
    /// Starts ZenML in `home`, with an empty SQLite store. None, and a word on stderr, where ZenML is not installed.
    pub fn start(home: &Home) -> Option<Self> {
        Self::start_with(home, &[])
    }

    /// Starts ZenML in `home` with these variables besides, which may name another store.
    pub fn start_with(home: &Home, variables: &[(&str, &str)]) -> Option<Self> {
        Self::start_program(home, &["real_zenml.py"], variables)
    }

    /// Starts ZenML in `home` by this program of the peers, the first word, with the others as its arguments.
    pub fn start_program(home: &Home, program: &[&str], variables: &[(&str, &str)]) -> Option<Self> {
        let (script, arguments) = program.split_first().expect("a program");
        let python = python()?;
        let directory = home.fresh("zenml");
        let log = home.fresh("zenml.txt");
        home.holds_values(&directory);
        // What ZenML itself prints is not ours to judge.
        home.holds_values(&log);
        let run = variables.iter().fold(Run::new(home, python), |run, (name, value)| run.env(name, value));
        let mut command = run
            .arg(package().join("peers").join(script))
            .args(arguments)
            .env("ZENML_CONFIG_PATH", &directory)
            .env("ZENML_ANALYTICS_OPT_IN", "false")
            .env("ZENML_LOGGING_VERBOSITY", "ERROR")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log).expect("a log"));
        let mut child = command.spawn().expect("ZenML's Python starts");
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut zenml = Self { child, orders, answers, directory, log };
        assert_eq!(zenml.answer(), "ready");
        Some(zenml)
    }

    /// Returns what `ZENML_CONFIG_PATH` says.
    pub fn directory(&self) -> &PathBuf {
        &self.directory
    }

    /// `Client().create_secret`.
    pub fn create(&mut self, name: &str, values: &Value) {
        self.order(&json!({ "do": "create", "name": name, "values": values }));
    }

    /// `Client().create_secret` with `private=True`.
    pub fn create_private(&mut self, name: &str, values: &Value) {
        self.order(&json!({ "do": "create", "name": name, "values": values, "private": true }));
    }

    /// `Client().update_secret`: adds and changes, and removes `removed`.
    pub fn update(&mut self, name: &str, values: &Value, removed: &[&str]) {
        self.order(&json!({ "do": "update", "name": name, "values": values, "remove": removed }));
    }

    /// `Client().delete_secret`.
    pub fn delete(&mut self, name: &str) {
        self.order(&json!({ "do": "delete", "name": name }));
    }

    /// `Client().get_secret_by_name_and_private_status`: the values, or null.
    pub fn get(&mut self, name: &str, private: bool) -> Value {
        self.order(&json!({ "do": "get", "name": name, "private": private }))
    }

    /// Creates, changes and deletes `count` secrets, and returns the longest that one of these took, in milliseconds.
    pub fn write_many(&mut self, count: usize, value: &str) -> u64 {
        self.order(&json!({ "do": "many", "count": count, "value": value })).as_u64().expect("milliseconds")
    }

    fn order(&mut self, order: &Value) -> Value {
        let orders = self.orders.as_mut().expect("open until dropped");
        writeln!(orders, "{order}").expect("ZenML listens");
        self.answer()
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("ZenML answers");
        let answer: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("ZenML ended:\n{}", std::fs::read_to_string(&self.log).unwrap_or_default()));
        assert!(answer["error"].is_null(), "ZenML failed: {}", answer["error"]);
        answer["result"].clone()
    }
}

impl Drop for Zenml {
    fn drop(&mut self) {
        // The end of its input is its end.
        self.orders = None;
        let _ = self.child.wait();
    }
}

/// Returns a Python that has PyYAML, which ZenML reads and writes files with; none, and a word on stderr, where there is
/// none.
pub fn python_with_yaml() -> Option<PathBuf> {
    let has_yaml = |python: &PathBuf| {
        let mut command = std::process::Command::new(python);
        let tried = command.args(["-c", "import yaml"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    let found = Some(crate::programs::python()).filter(has_yaml).or_else(|| python().filter(has_yaml));
    if found.is_none() {
        remark("skipped: no Python here has PyYAML");
    }
    found
}

/// Returns a Python that has ZenML: `KEYSIDE_ZENML_PYTHON`, else where `peers/install-zenml.sh` puts it.
fn python() -> Option<PathBuf> {
    let named = std::env::var_os("KEYSIDE_ZENML_PYTHON").map(PathBuf::from);
    let peers = std::env::var_os("KEYSIDE_PEERS")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/keyside-peers")));
    let python = named.or_else(|| peers.map(|peers| peers.join("zenml-0.98.0/bin/python")));
    // Another user's cache may be closed to us.
    let python = python.filter(|python| rustix::fs::access(python, rustix::fs::Access::EXEC_OK).is_ok());
    if python.is_none() {
        remark("skipped: real ZenML is not installed (tests/peers/install-zenml.sh)");
    }
    python
}
