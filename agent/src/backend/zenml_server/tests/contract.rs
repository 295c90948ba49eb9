//! The contract suite on the real servers.

use std::any::Any;
use std::path::Path;

use async_trait::async_trait;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::peer::{Mode, Peer, Release, Wire, python};
use super::*;
use crate::backend::Scope;
use crate::backend::contract::{Case, Subject, run};
use crate::backend::http::encoded;

const LIMIT: u64 = 1000;

struct ServerSubject {
    peer: Peer,
    wire: Wire,
    backend: Arc<ZenmlServer>,
}

impl ServerSubject {
    async fn start(python: &Path, release: Release) -> Self {
        let peer = Peer::start(python, release, None).await;
        let wire = Wire::to(peer.port).await;
        let backend = open_with(&wire.url, user("default", ""), LIMIT, Duration::from_secs(20));
        Self { peer, wire, backend }
    }

    /// The id of a secret.
    async fn find(&self, name: &str, scope: Scope) -> Option<String> {
        let all = self.peer.ask(Method::GET, &format!("/secrets?name=equals:{}", encoded(name)), None).await;
        let private = |item: &Value| match self.peer.release {
            Release::V098 => item["body"]["private"] == json!(true),
            Release::V043 => item["scope"] == json!("user"),
        };
        let items = all["items"].as_array().expect("items");
        let item = items.iter().find(|item| private(item) == (scope == Scope::Private))?;
        Some(item["id"].as_str().expect("an id").to_owned())
    }
}

/// Releases a wire when it is dropped.
struct Stalled(tokio::sync::watch::Sender<Mode>);

impl Drop for Stalled {
    fn drop(&mut self) {
        self.0.send_replace(Mode::Whole);
    }
}

#[async_trait]
impl Subject for ServerSubject {
    fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    fn max_value(&self) -> usize {
        usize::try_from(LIMIT).expect("small")
    }

    fn cannot(&self, case: Case) -> Option<&'static str> {
        match case {
            Case::Denied => Some("without ZenML Pro every user reads every public secret; shown on a scripted server"),
            Case::Bytes => Some("values are text in ZenML"),
            _ => None,
        }
    }

    async fn put(&self, name: &str, scope: Scope, pairs: &[(&str, &[u8])]) {
        let text = |bytes: &[u8]| Value::from(std::str::from_utf8(bytes).expect("text"));
        let values: Map<String, Value> = pairs.iter().map(|(key, value)| ((*key).to_owned(), text(value))).collect();
        let values = Value::Object(values);
        let written = match self.find(name, scope).await {
            // Spoilt values are not written over by every version.
            Some(id) if self.backend.fetch(name, Scopes::PrivateFirst).await.is_ok() => {
                self.peer.ask(Method::PUT, &format!("/secrets/{id}"), Some(json!({ "values": values }))).await
            }
            Some(_) => {
                self.remove(name, scope).await;
                self.peer.new_secret(name, scope, &values).await
            }
            None => self.peer.new_secret(name, scope, &values).await,
        };
        // The server has answered, so that nothing is in doubt.
        let updated = written["updated"].as_str().or(written["body"]["updated"].as_str()).expect("a time");
        self.backend.own_writes.remember(format!("{}:{updated}", written["id"].as_str().expect("an id")));
    }

    async fn remove(&self, name: &str, scope: Scope) {
        let id = self.find(name, scope).await.expect("a secret");
        // Spoilt ones the server cannot even delete.
        self.peer.sql(&format!("DELETE FROM secret WHERE id = '{}'", id.replace('-', "")));
    }

    async fn deny(&self, _name: &str) {
        unreachable!("said to be impossible");
    }

    async fn break_down(&self) {
        self.wire.set(Mode::Cut);
    }

    async fn mend(&self) {
        self.wire.set(Mode::Whole);
    }

    async fn stall(&self) -> Box<dyn Any + Send> {
        self.wire.set(Mode::Still);
        Box::new(Stalled(self.wire.handle()))
    }

    async fn spoil_values(&self) {
        self.peer.sql("UPDATE secret SET \"values\" = CAST('spoilt' AS BLOB)");
    }
}

async fn keeps_every_promise(release: Release) {
    let Some(python) = python(release) else { return };
    let subject = ServerSubject::start(&python, release).await;
    let skipped: Vec<_> = run(&subject).await.into_iter().map(|(case, _)| case).collect();
    assert_eq!(skipped, [Case::Denied, Case::Bytes]);
}

#[tokio::test]
async fn it_keeps_every_promise_of_a_back_end_on_real_zenml_server() {
    keeps_every_promise(Release::V098).await;
}

#[tokio::test]
async fn it_keeps_every_promise_of_a_back_end_on_real_zenml_043() {
    keeps_every_promise(Release::V043).await;
}
