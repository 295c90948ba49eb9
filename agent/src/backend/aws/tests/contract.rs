//! The contract suite on moto, in each layout.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use keyside_config::settings::{Layout, ManagerScope};
use tokio::sync::watch;

use super::super::super::contract::{Case, Subject, run};
use super::super::super::{Backend, Scope};
use super::relay::{Mode, Relay};
use super::{Owner, peer, plain, settings, uuid};

const MOST_VALUE: usize = 1000;

struct Account {
    backend: Arc<dyn Backend>,
    relay: Relay,
    owner: Owner,
    layout: Layout,
    ids: Mutex<HashMap<(String, bool), u32>>,
}

impl Account {
    fn place(&self, name: &str, scope: Scope) -> (String, u32) {
        let mut ids = self.ids.lock().expect("no panic");
        let next = u32::try_from(ids.len()).expect("few");
        let id = *ids.entry((name.to_owned(), scope == Scope::Private)).or_insert(next);
        let place = match &self.layout {
            Layout::Store => format!("zenml/{}", uuid(id)),
            layout => crate::layout::aws::place_of(layout, name).expect("a name that AWS holds"),
        };
        (place, id)
    }
}

#[async_trait]
impl Subject for Account {
    fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    fn max_value(&self) -> usize {
        MOST_VALUE
    }

    fn cannot(&self, case: Case) -> Option<&'static str> {
        match case {
            Case::Denied => Some("moto knows no rights for one secret"),
            Case::Bytes => Some("a JSON object has no bytes"),
            Case::Scopes if self.layout != Layout::Store => Some("there are no scopes"),
            _ => None,
        }
    }

    async fn put(&self, name: &str, scope: Scope, pairs: &[(&str, &[u8])]) {
        let text = |bytes: &[u8]| serde_json::Value::from(std::str::from_utf8(bytes).expect("text"));
        let mut object: serde_json::Map<_, _> = pairs.iter().map(|(key, value)| ((*key).into(), text(value))).collect();
        if matches!(self.layout, Layout::Manager(_)) {
            object.insert("zenml_schema_name".into(), "arbitrary".into());
        }
        let (place, id) = self.place(name, scope);
        let text = serde_json::Value::from(object).to_string();
        if self.layout == Layout::Store {
            let scope = if scope == Scope::Private { "user" } else { "workspace" };
            self.owner.put_tagged(&uuid(id), name, scope, "w", &text).await;
        } else {
            self.owner.put(&place, &text, &[]).await;
        }
    }

    async fn remove(&self, name: &str, scope: Scope) {
        self.owner.remove(&self.place(name, scope).0).await;
    }

    async fn deny(&self, _: &str) {}

    async fn break_down(&self) {
        self.relay.set(Mode::Close);
    }

    async fn mend(&self) {
        self.relay.set(Mode::Pass);
    }

    async fn stall(&self) -> Box<dyn Any + Send> {
        struct Stalled(watch::Sender<Mode>);
        impl Drop for Stalled {
            fn drop(&mut self) {
                self.0.send_replace(Mode::Pass);
            }
        }
        self.relay.set(Mode::Stall);
        Box::new(Stalled(self.relay.lever()))
    }

    async fn spoil_values(&self) {
        self.relay.set(Mode::CloseReads);
    }
}

#[tokio::test]
async fn every_layout_keeps_the_contract_on_real_moto() {
    let Some(moto) = peer::moto(&[]) else { return };
    let manager = |scope| Layout::Manager(scope);
    let layouts = [
        Layout::Store,
        manager(ManagerScope::None),
        manager(ManagerScope::Global),
        manager(ManagerScope::Component(uuid(1))),
        manager(ManagerScope::Namespace("team-a".to_owned())),
        plain("prod/"),
    ];
    for layout in layouts {
        let relay = Relay::before(&moto.url).await;
        let settings = settings(&relay.url(), layout.clone());
        let opened = super::super::super::open(&settings, MOST_VALUE as u64).expect("settings that can work");
        let owner = Owner::new(&moto.url);
        let account = Account { backend: opened.reader, relay, owner, layout: layout.clone(), ids: Mutex::default() };
        let skipped: Vec<_> = run(&account).await.into_iter().map(|(case, _)| case).collect();
        let expected: &[Case] = if layout == Layout::Store {
            &[Case::Denied, Case::Bytes]
        } else {
            &[Case::Denied, Case::Bytes, Case::Scopes]
        };
        assert_eq!(skipped, expected, "{layout:?}");
    }
}
