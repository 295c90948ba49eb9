//! What ZenML 0.43.1's own classes wrote is read: its secrets managers, and its central store with names in labels.

use keyside_config::settings::{Layout, ManagerScope};
use serde_json::{Value, json};

use super::super::super::BackendError;
use super::super::super::zenml_043::{self, CentralStore, Zenml043};
use super::peer::Peer;
use super::{Options, failure, owned, pairs};

const COMPONENT: &str = "0a1b2c3d-9999-4000-8000-000000000001";

fn zenml(peer: &Peer) -> Option<Zenml043> {
    Zenml043::find("google.cloud.secretmanager", &[("CLOUD_URL", &peer.url)])
}

fn store() -> Value {
    json!({ "type": "gcp", "project_id": "p" })
}

#[tokio::test]
async fn every_scope_of_zenml_0_43s_own_secrets_manager_is_read_on_real_gcp() {
    let Some(peer) = Peer::start() else { return };
    let Some(zenml) = zenml(&peer) else { return };
    let scopes = [
        (json!({ "scope": "none" }), ManagerScope::None),
        (json!({ "scope": "global" }), ManagerScope::Global),
        // Where none is said: the component's.
        (json!({}), ManagerScope::Component(COMPONENT.into())),
        (json!({ "scope": "namespace", "namespace": "team-a" }), ManagerScope::Namespace("team-a".into())),
    ];
    let order = |what: &str, config: &Value, name: &str, schema: &str, values: Value| {
        let mut config = config.clone();
        config["project_id"] = json!("p");
        json!({ "manager": "gcp", "id": COMPONENT, "config": config, "do": what, "name": name, "schema": schema, "values": values })
    };
    // Without a scope each value is a payload of its own, and Google takes no empty one: ZenML fails in the middle.
    let values_in = |scope: &ManagerScope| {
        let (mut expected, mut written) = zenml_043::values();
        if *scope == ManagerScope::None {
            expected.retain(|(_, value)| !value.is_empty());
            written.as_object_mut().expect("an object").retain(|_, value| value != "");
        }
        (expected, written)
    };
    let mut orders = Vec::new();
    for (number, (config, scope)) in scopes.iter().enumerate() {
        let login = json!({ "username": "me", "password": "x y" });
        orders.push(order("register", config, "db", "arbitrary", values_in(scope).1));
        // Without a scope its ids begin as those of `db` do.
        orders.push(order("register", config, "db_login", "basic_auth", login));
        orders.push(order("register", config, "seldon", "seldon_s3", json!({})));
        orders.push(order("register", config, "changed", "arbitrary", json!({ "scope": "old", "kept": "as it was" })));
        orders.push(order("update", config, "changed", "arbitrary", json!({ "scope": number.to_string() })));
        orders.push(order("register", config, "gone", "arbitrary", json!({ "k": "v" })));
        orders.push(order("delete", config, "gone", "arbitrary", json!({})));
    }
    zenml.write(&store(), &orders);
    for (number, (_, scope)) in scopes.into_iter().enumerate() {
        let (expected, _) = values_in(&scope);
        let number = number.to_string();
        let mut changed = owned(&[("scope", &number)]);
        if scope == ManagerScope::None {
            // It writes the keys that it is given, and removes no other.
            changed.insert(0, ("kept".to_owned(), "as it was".to_owned()));
        }
        let opened = Options::at(&peer.url).layout(Layout::Manager(scope)).open();
        assert_eq!(pairs(&opened, "db").await, expected);
        assert_eq!(pairs(&opened, "db_login").await, owned(&[("password", "x y"), ("username", "me")]));
        assert_eq!(pairs(&opened, "seldon").await, owned(&zenml_043::SELDON));
        assert_eq!(pairs(&opened, "changed").await, changed);
        assert_eq!(failure(&opened, "gone").await, BackendError::NotFound);
        let mut listed: Vec<_> = opened.reader.list().await.expect("a list").into_iter().map(|one| one.name).collect();
        listed.sort();
        assert_eq!(listed, ["changed", "db", "db_login", "seldon"]);
    }
}

#[tokio::test]
async fn both_scopes_of_zenml_0_43s_own_central_store_are_read_on_real_gcp() {
    let Some(peer) = Peer::start() else { return };
    let Some(zenml) = zenml(&peer) else { return };
    let written = CentralStore::written(&zenml, &store());
    written.check(&Options::at(&peer.url).layout(Layout::Store).open()).await;
}
