//! The contract suite on each layout, in the stand-in that the official client passes on, too.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use keyside_config::settings::{Layout, ManagerScope};
use serde_json::{Value, json};

use super::super::super::contract::{Case, Subject, run};
use super::super::super::{Backend, Opened, Scope};
use super::peer::Peer;
use super::{Options, namespace};

const LIMIT: usize = 1000;
const DEPLOYMENT: &str = "5a2ee0b8-4e73-4b79-a0b4-3f9f0ce1bd5c";

struct Cloud {
    peer: Peer,
    opened: Opened,
    layout: Layout,
    /// The ids that make up each secret.
    ids: Mutex<BTreeMap<(String, bool), Vec<String>>>,
}

/// One of Google's secrets: id, labels, payload.
type Piece = (String, Value, Vec<u8>);

impl Cloud {
    fn start(layout: Layout) -> Option<Self> {
        let peer = Peer::start()?;
        let options = Options { max_value: LIMIT as u64, ..Options::at(&peer.url) };
        let opened = options.layout(layout.clone()).open();
        Some(Self { peer, opened, layout, ids: Mutex::default() })
    }

    /// How ZenML 0.43 (or anybody) writes a secret in each layout.
    fn pieces(&self, name: &str, scope: Scope, pairs: &[(&str, &[u8])]) -> Vec<Piece> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let mut object: serde_json::Map<String, Value> =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), Value::from(text_or(value, text)))).collect();
        match &self.layout {
            Layout::Plain { prefix } => {
                vec![(format!("{prefix}{name}"), json!({}), Value::from(object).to_string().into_bytes())]
            }
            Layout::Manager(ManagerScope::None) => {
                let labels = json!({ "zenml-group-key": name, "zenml-schema-name": "arbitrary" });
                pairs.iter().map(|(key, value)| (format!("{name}_{key}"), labels.clone(), value.to_vec())).collect()
            }
            Layout::Manager(_) => {
                object.insert("zenml_schema_name".into(), "arbitrary".into());
                let labels = json!({
                    "zenml_scope": "namespace", "zenml_namespace": "team-a", "zenml_secret_name": name,
                    "zenml_component_name": "secrets", "zenml_component_uuid": DEPLOYMENT,
                    "zenml_secret_schema": "arbitrary",
                });
                vec![(format!("zenml-namespace-team-a-{name}"), labels, Value::from(object).to_string().into_bytes())]
            }
            Layout::Store => {
                let (word, digit) = if scope == Scope::Private { ("user", "1") } else { ("workspace", "2") };
                // Any id will do, as long as it is the same for the same secret.
                let sum = name.bytes().fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
                let id = format!("{digit}0000000-0000-4000-8000-{:012x}", sum & 0xffff_ffff_ffff);
                let labels = json!({
                    "zenml": DEPLOYMENT, "zenml_secret_id": id, "zenml_secret_name": name, "zenml_secret_scope": word,
                    "zenml_secret_workspace": DEPLOYMENT, "zenml_secret_user": DEPLOYMENT,
                    "zenml-secret-created": "2023-05-01-10-00-00", "zenml-secret-updated": "2023-05-01-10-00-00",
                });
                vec![(format!("zenml-{id}"), labels, Value::from(object).to_string().into_bytes())]
            }
        }
    }
}

/// Where a layout holds bytes no object is made of them.
fn text_or(value: &[u8], text: impl Fn(&[u8]) -> String) -> String {
    if std::str::from_utf8(value).is_ok() { text(value) } else { String::new() }
}

#[async_trait]
impl Subject for Cloud {
    fn backend(&self) -> &dyn Backend {
        &*self.opened.reader
    }

    fn max_value(&self) -> usize {
        LIMIT
    }

    fn cannot(&self, case: Case) -> Option<&'static str> {
        let is_unscoped = self.layout == Layout::Manager(ManagerScope::None);
        match case {
            Case::Scopes if self.layout != Layout::Store => Some("this layout has no scopes"),
            Case::Bytes if !is_unscoped => Some("JSON holds text"),
            Case::Found | Case::List if is_unscoped => Some("a secret without keys leaves nothing behind"),
            Case::Unicode if is_unscoped => Some("keys are parts of ids"),
            _ => None,
        }
    }

    async fn put(&self, name: &str, scope: Scope, pairs: &[(&str, &[u8])]) {
        self.peer.order(&json!({ "spoil": false })).await;
        let pieces = self.pieces(name, scope, pairs);
        let ids = pieces.iter().map(|(id, ..)| id.clone()).collect();
        for (id, labels, data) in pieces {
            self.peer.put(&id, &labels, &data);
        }
        self.ids.lock().unwrap().insert((name.to_owned(), scope == Scope::Private), ids);
    }

    async fn remove(&self, name: &str, scope: Scope) {
        let ids = self.ids.lock().unwrap().remove(&(name.to_owned(), scope == Scope::Private));
        for id in ids.expect("it was put") {
            self.peer.write(&json!({ "do": "remove", "id": id }));
        }
    }

    async fn deny(&self, name: &str) {
        let ids = self.ids.lock().unwrap()[&(name.to_owned(), false)].clone();
        self.peer.order(&json!({ "deny": ids })).await;
    }

    async fn break_down(&self) {
        self.peer.order(&json!({ "down": true })).await;
    }

    async fn mend(&self) {
        self.peer.order(&json!({ "down": false, "deny": [], "spoil": false })).await;
    }

    async fn stall(&self) -> Box<dyn Any + Send> {
        struct Stalled(String);
        impl Drop for Stalled {
            fn drop(&mut self) {
                let url = self.0.clone();
                // From a thread of its own: a destructor cannot wait in the runtime.
                let release = std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    let request = reqwest::Client::new().post(url).body(r#"{"hang": false}"#);
                    runtime.block_on(request.send()).unwrap();
                });
                release.join().unwrap();
            }
        }
        self.peer.order(&json!({ "hang": true })).await;
        Box::new(Stalled(format!("{}/fake/order", self.peer.url)))
    }

    async fn spoil_values(&self) {
        self.peer.order(&json!({ "spoil": true })).await;
    }
}

async fn check(layout: Layout, skipped: &[Case]) {
    let Some(cloud) = Cloud::start(layout) else { return };
    let cases: Vec<_> = run(&cloud).await.into_iter().map(|(case, _)| case).collect();
    assert_eq!(cases, skipped);
}

#[tokio::test]
async fn a_store_of_0_43_keeps_the_contract_of_all_back_ends_on_real_gcp() {
    check(Layout::Store, &[Case::Bytes]).await;
}

#[tokio::test]
async fn an_unscoped_manager_keeps_the_contract_of_all_back_ends_on_real_gcp() {
    check(Layout::Manager(ManagerScope::None), &[Case::Found, Case::Unicode, Case::Scopes, Case::List]).await;
}

#[tokio::test]
async fn a_scoped_manager_keeps_the_contract_of_all_back_ends_on_real_gcp() {
    check(namespace("team-a"), &[Case::Bytes, Case::Scopes]).await;
}

#[tokio::test]
async fn plain_secrets_keep_the_contract_of_all_back_ends_on_real_gcp() {
    check(Layout::Plain { prefix: "prod-".into() }, &[Case::Bytes, Case::Scopes]).await;
}
