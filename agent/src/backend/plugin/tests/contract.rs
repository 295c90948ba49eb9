//! The contract suite on two plug-ins: one in Python, one in POSIX shell.

use std::any::Any;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::super::contract::{Subject, run};
use super::super::super::{Backend, Scope};
use super::super::Plugin;
use super::{has_python, peer, plugin_of};

const LIMIT: u64 = 1000;

/// What both are asked to do, in one form; each writes it down as its plug-in wants it.
#[derive(Default, Clone)]
struct Store {
    secrets: Vec<Value>,
    denied: Vec<String>,
    down: bool,
    stalled: bool,
    spoilt: bool,
    writes: u64,
}

type Save = fn(&Path, &Store);

struct PluginSubject {
    folder: TempDir,
    store: Mutex<Store>,
    save: Save,
    plugin: Plugin,
}

/// Mends what was stalled.
struct Stalled {
    path: PathBuf,
    store: Store,
    save: Save,
}

impl Drop for Stalled {
    fn drop(&mut self) {
        self.store.stalled = false;
        (self.save)(&self.path, &self.store);
    }
}

/// Puts a file in its place at one stroke.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("next");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

fn save_for_python(folder: &Path, store: &Store) {
    let Store { secrets, denied, down, stalled, spoilt, .. } = store;
    let whole = json!({"secrets": secrets, "denied": denied, "down": down, "stalled": stalled, "spoilt": spoilt});
    replace(&folder.join("store.json"), &whole.to_string());
}

fn save_for_shell(folder: &Path, store: &Store) {
    let mut lines = String::new();
    for secret in &store.secrets {
        let text = |key: &str| secret[key].as_str().unwrap().to_owned();
        let mut keys: Vec<&String> = secret["values"].as_object().unwrap().keys().collect();
        keys.sort_unstable();
        let fields = [
            secret["name"].to_string(),
            text("scope"),
            text("id"),
            text("version"),
            json!(keys).to_string(),
            secret["values"].to_string(),
        ];
        lines.push_str(&fields.join("\t"));
        lines.push('\n');
    }
    replace(&folder.join("secrets"), &lines);
    let denied: String = store.denied.iter().map(|name| format!("{}\n", json!(name))).collect();
    replace(&folder.join("denied"), &denied);
    for (name, is_set) in [("down", store.down), ("stalled", store.stalled), ("spoilt", store.spoilt)] {
        let path = folder.join(name);
        if is_set {
            fs::write(path, "").unwrap();
        } else if path.exists() {
            fs::remove_file(path).unwrap();
        }
    }
}

impl PluginSubject {
    fn new(command: impl FnOnce(&Path) -> Vec<String>, save: Save) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::default();
        save(folder.path(), &store);
        let plugin = plugin_of(command(folder.path()), LIMIT);
        Self { folder, store: Mutex::new(store), save, plugin }
    }

    fn change(&self, change: impl FnOnce(&mut Store)) {
        let mut store = self.store.lock().unwrap();
        change(&mut store);
        (self.save)(self.folder.path(), &store);
    }
}

fn word(scope: Scope) -> &'static str {
    match scope {
        Scope::Private => "private",
        Scope::Public => "public",
    }
}

#[async_trait]
impl Subject for PluginSubject {
    fn backend(&self) -> &dyn Backend {
        &self.plugin
    }

    fn max_value(&self) -> usize {
        usize::try_from(LIMIT).unwrap()
    }

    fn cannot(&self, _case: super::super::super::contract::Case) -> Option<&'static str> {
        None
    }

    async fn put(&self, name: &str, scope: Scope, pairs: &[(&str, &[u8])]) {
        let value = |bytes: &[u8]| match std::str::from_utf8(bytes) {
            Ok(text) => json!(text),
            Err(_) => json!({"base64": STANDARD.encode(bytes)}),
        };
        let values: serde_json::Map<_, _> =
            pairs.iter().map(|(key, bytes)| ((*key).to_owned(), value(bytes))).collect();
        self.change(|store| {
            store.spoilt = false;
            store.writes += 1;
            let version = store.writes.to_string();
            let place =
                store.secrets.iter().position(|secret| secret["name"] == name && secret["scope"] == word(scope));
            match place {
                Some(at) => {
                    store.secrets[at]["values"] = values.into();
                    store.secrets[at]["version"] = version.into();
                }
                None => store.secrets.push(json!({
                    "name": name, "scope": word(scope), "id": format!("id-{version}"), "version": version,
                    "values": values,
                })),
            }
        });
    }

    async fn remove(&self, name: &str, scope: Scope) {
        self.change(|store| store.secrets.retain(|secret| secret["name"] != name || secret["scope"] != word(scope)));
    }

    async fn deny(&self, name: &str) {
        self.change(|store| store.denied.push(name.to_owned()));
    }

    async fn break_down(&self) {
        self.change(|store| store.down = true);
    }

    async fn mend(&self) {
        self.change(|store| store.down = false);
    }

    async fn stall(&self) -> Box<dyn Any + Send> {
        self.change(|store| store.stalled = true);
        let store = self.store.lock().unwrap().clone();
        self.store.lock().unwrap().stalled = false;
        Box::new(Stalled { path: self.folder.path().to_owned(), store, save: self.save })
    }

    async fn spoil_values(&self) {
        self.change(|store| store.spoilt = true);
    }
}

#[tokio::test]
async fn a_plug_in_in_python_keeps_the_contract_of_all_back_ends() {
    if !has_python() {
        return;
    }
    let command = |folder: &Path| {
        let store = folder.join("store.json").display().to_string();
        vec!["/usr/bin/env".into(), "python3".into(), peer("plugin.py"), store]
    };
    let subject = PluginSubject::new(command, save_for_python);
    assert_eq!(run(&subject).await, []);
    subject.plugin.close().await;
}

#[tokio::test]
async fn a_plug_in_in_shell_keeps_the_contract_of_all_back_ends() {
    let command = |folder: &Path| vec!["/bin/sh".into(), peer("plugin.sh"), folder.display().to_string()];
    let subject = PluginSubject::new(command, save_for_shell);
    assert_eq!(run(&subject).await, []);
    subject.plugin.close().await;
}
