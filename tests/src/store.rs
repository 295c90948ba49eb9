//! ZenML's data on the disk: a directory as ZenML lays it out, copied from the fixtures.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::home::Home;
use crate::programs::package;
use crate::run::Running;

/// A ZenML configuration directory.
pub struct Store<'h> {
    home: &'h Home,
    directory: PathBuf,
}

impl Home {
    /// Copies the fixture `which` (such as `0.98.0-plain`) to where ZenML would have it.
    pub fn store(&self, which: &str) -> Store<'_> {
        let fixtures = package().join("fixtures/zenml");
        let directory = self.fresh("zenml");
        let data_base = directory.join("local_stores/default_zen_store/zenml.db");
        std::fs::create_dir_all(data_base.parent().expect("a directory")).expect("a directory");
        for (from, to) in [
            (format!("db/zenml-{which}.db"), &data_base),
            (format!("config/zenml-{which}.config.yaml"), &directory.join("config.yaml")),
        ] {
            let content = std::fs::read(fixtures.join(&from)).unwrap_or_else(|error| panic!("{from}: {error}"));
            std::fs::write(to, content).expect("room on the disk");
        }
        self.holds_values(&directory);
        Store { home: self, directory }
    }

    /// A store of the current era with the planted value in `canary.value`.
    pub fn planted(&self) -> Store<'_> {
        let store = self.store("0.98.0-plain");
        store.plant("canary", &json!({ "value": self.canary(), "user": "admin" }));
        store
    }

    /// A [`planted`](Self::planted) store with what steps ask for besides.
    pub fn stocked(&self) -> Store<'_> {
        let store = self.planted();
        for (name, values) in [
            ("db", json!({ "user": "reader", "password": self.canary(), "odd": "{{db.user}} ${HOME} $(id)" })),
            ("bulk", json!({ "ALPHA": "1", "beta.gamma-x": "2" })),
            ("later", json!({ "ALPHA": "late" })),
            ("evil", json!({ "LD_PRELOAD": "/tmp/x.so", "PATH": "/tmp" })),
        ] {
            store.plant(name, &values);
        }
        store
    }
}

impl Store<'_> {
    /// Returns what `ZENML_CONFIG_PATH` is to say.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the data base.
    pub fn file(&self) -> PathBuf {
        self.directory.join("local_stores/default_zen_store/zenml.db")
    }

    /// Returns a configuration of one back-end, `store`, with these keys besides.
    pub fn backend(&self, keys: &str) -> String {
        format!("[backend.store]\ntype = \"zenml-sql\"\nurl = \"sqlite:///{}\"\n{keys}\n", self.file().display())
    }

    /// Writes a public secret as ZenML does, past the agent.
    pub fn plant(&self, name: &str, values: &Value) {
        self.script(["plant", name]).stdin(values.to_string()).end().expect_code(0);
    }

    /// Deletes a secret as ZenML does, past the agent.
    pub fn remove(&self, name: &str) {
        self.script(["remove", name]).end().expect_code(0);
    }

    /// Gives every key of `name` the next number, again and again until what is returned is dropped.
    pub fn replacing(&self, name: &str) -> Running<'_> {
        self.script(["replace", name]).start()
    }

    /// Holds the data base locked until what is returned is dropped, as a writer does that never comes to an end.
    pub fn lock(&self) -> Running<'_> {
        let mut locker = self.script(["lock"]).start();
        crate::eventually::eventually("the data base is locked", || {
            (locker.stdout_so_far() == b"locked\n").then_some(()).filter(|()| locker.is_running())
        });
        locker
    }

    fn script<const N: usize>(&self, args: [&str; N]) -> crate::run::Run<'_> {
        self.home.python([package().join("peers/store.py"), self.file()]).args(args)
    }
}

/// The known content of every fixture: secrets by name, each with its pairs.
pub struct Cases {
    /// Public secrets, or those of the workspace.
    pub public: Vec<(String, Value)>,
    /// Private secrets, or those of the user.
    pub private: Vec<(String, Value)>,
    /// The key of the encrypted fixtures.
    pub encryption_key: String,
}

impl Cases {
    /// Reads it.
    pub fn read() -> Self {
        let text = std::fs::read(package().join("fixtures/zenml/cases.json")).expect("the fixtures are there");
        let cases: Value = serde_json::from_slice(&text).expect("JSON");
        let of = |part: &str| {
            let secrets = cases[part].as_object().unwrap_or_else(|| panic!("no {part} in the cases"));
            secrets.iter().map(|(name, values)| (name.clone(), values.clone())).collect()
        };
        let encryption_key = cases["encryption_key"].as_str().expect("a key").to_owned();
        Self { public: of("public"), private: of("private"), encryption_key }
    }
}
