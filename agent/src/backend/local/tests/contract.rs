//! The contract suite on a file.

use std::any::Any;
use std::fmt::Write as _;
use std::fs;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::super::super::contract::{Case, Subject, run};
use super::super::super::{Backend, BackendError, Scope};
use super::super::file::Memory;
use super::super::{Local, Store};
use super::{Place, base64};

struct FileSubject {
    place: Place,
    backend: Local,
    /// Reads the same file and accepts no value at all.
    valueless: Local,
    spoilt: Mutex<bool>,
}

const LIMIT: u64 = 1000;

fn local(place: &Place, max_value: u64) -> Local {
    let directory = place.directory().to_owned();
    let store = Store {
        place: super::super::error::Place { backend: "manager".into(), path: place.path.clone(), base: directory },
        max_value,
        patience: std::time::Duration::from_secs(1),
        memory: Memory::default(),
    };
    Local { store: Arc::new(store), places: Arc::new(Semaphore::new(2)), watch: Mutex::default() }
}

impl FileSubject {
    fn new() -> Self {
        let place = Place::of("{}");
        Self { backend: local(&place, LIMIT), valueless: local(&place, 0), spoilt: Mutex::new(false), place }
    }

    /// Takes the lines of a secret out, and puts others in.
    fn edit(&self, name: &str, lines: &str) {
        *self.spoilt.lock().unwrap() = false;
        let text = self.place.text();
        let mut kept = String::new();
        let mut inside = false;
        for line in text.lines().filter(|line| *line != "{}") {
            if !line.starts_with(' ') {
                inside = line == format!("{name:?}:");
            }
            if !inside {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        kept.push_str(lines);
        self.place.write(if kept.is_empty() { "{}\n".to_owned() } else { kept });
    }
}

#[async_trait]
impl Subject for FileSubject {
    fn backend(&self) -> &dyn Backend {
        if *self.spoilt.lock().unwrap() { &self.valueless } else { &self.backend }
    }

    fn max_value(&self) -> usize {
        usize::try_from(LIMIT).unwrap()
    }

    fn cannot(&self, case: Case) -> Option<&'static str> {
        match case {
            Case::Denied => Some("a file is readable as a whole or not at all"),
            Case::Scopes => Some("a local secrets manager has no scopes"),
            _ => None,
        }
    }

    async fn put(&self, name: &str, _scope: Scope, pairs: &[(&str, &[u8])]) {
        let mut lines = format!("{name:?}:\n  zenml_schema_name: arbitrary\n");
        for (key, value) in pairs {
            // JSON's escapes are YAML's.
            writeln!(lines, "  {}: '{}'", serde_json::to_string(key).unwrap(), base64(value)).unwrap();
        }
        self.edit(name, &lines);
    }

    async fn remove(&self, name: &str, _scope: Scope) {
        self.edit(name, "");
    }

    async fn deny(&self, _name: &str) {}

    async fn break_down(&self) {
        fs::rename(self.place.directory(), self.place.folder().join("away")).unwrap();
    }

    async fn mend(&self) {
        let away = self.place.folder().join("away");
        if away.exists() {
            fs::rename(away, self.place.directory()).unwrap();
        }
    }

    async fn stall(&self) -> Box<dyn Any + Send> {
        // As when threads hang in the file system: none is left.
        Box::new(Arc::clone(&self.backend.places).acquire_many_owned(2).await.unwrap())
    }

    async fn spoil_values(&self) {
        *self.spoilt.lock().unwrap() = true;
        for name in ["list-a", "describe-a"] {
            match self.valueless.fetch(name, super::Scopes::PrivateFirst).await {
                Err(BackendError::Unusable { .. } | BackendError::NotFound) => {}
                _ => panic!("a value could be read"),
            }
        }
    }
}

#[tokio::test]
async fn a_file_keeps_the_contract_of_all_back_ends() {
    let skipped = run(&FileSubject::new()).await;
    assert_eq!(skipped.iter().map(|(case, _)| *case).collect::<Vec<_>>(), [Case::Denied, Case::Scopes]);
}
