//! What ZenML 0.43.1's own classes wrote is read: its secrets managers, and its central store with names in tags.

use keyside_config::settings::{Layout, ManagerScope};
use serde_json::{Value, json};

use super::super::super::zenml_043::{self, CentralStore, Zenml043};
use super::peer::Peer;
use super::*;

const COMPONENT: &str = "0a1b2c3d-9999-4000-8000-000000000001";

fn zenml(peer: &Peer) -> Option<Zenml043> {
    let authority = peer.place.join("ca.pem");
    let variables = [("CLOUD_URL", peer.url.as_str()), ("REQUESTS_CA_BUNDLE", authority.to_str().expect("text"))];
    Zenml043::find("azure.identity, azure.keyvault.secrets", &variables)
}

fn store() -> Value {
    json!({ "type": "azure", "key_vault_name": "v" })
}

fn order(what: &str, config: &Value, name: &str, schema: &str, values: &Value) -> Value {
    let mut config = config.clone();
    config["key_vault_name"] = json!("v");
    json!({ "manager": "azure", "id": COMPONENT, "config": config, "do": what, "name": name, "schema": schema, "values": values })
}

async fn pairs(opened: &Opened, name: &str) -> Vec<(String, String)> {
    match fetch(opened, name).await {
        Ok(secret) => pairs_of(&secret.values),
        Err(error) => panic!("{name}: {error}"),
    }
}

fn pairs_of(values: &keyside_protocol::value::SecretValues) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    values.iter().map(|(key, value)| (key.to_owned(), text(value.expose()))).collect()
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn every_scope_of_zenml_0_43s_own_secrets_manager_is_read_on_real_azure() {
    let Some(peer) = Peer::start() else { return };
    let Some(zenml) = zenml(&peer) else { return };
    let scopes = [
        (json!({ "scope": "none" }), ManagerScope::None),
        (json!({ "scope": "global" }), ManagerScope::Global),
        // Where none is said: the component's.
        (json!({}), ManagerScope::Component(COMPONENT.into())),
        (json!({ "scope": "namespace", "namespace": "Team-A" }), ManagerScope::Namespace("Team-A".into())),
    ];
    let (expected, written) = zenml_043::values();
    let login = json!({ "username": "me", "password": "x y" });
    let mut orders = Vec::new();
    for (number, (config, scope)) in scopes.iter().enumerate() {
        let (old, new) = (json!({ "scope": "old", "kept": "as it was" }), json!({ "scope": number.to_string() }));
        orders.push(order("register", config, "db", "arbitrary", &written));
        orders.push(order("register", config, "B-login", "basic_auth", &login));
        // Without a scope ZenML gives Key Vault the truth value itself, which is no text: nobody says what comes of it.
        if *scope != ManagerScope::None {
            orders.push(order("register", config, "seldon", "seldon_s3", &json!({})));
        }
        orders.push(order("register", config, "changed", "arbitrary", &old));
        orders.push(order("update", config, "changed", "arbitrary", &new));
        orders.push(order("register", config, "gone", "arbitrary", &json!({ "k": "v" })));
        orders.push(order("delete", config, "gone", "arbitrary", &json!({})));
    }
    zenml.write(&store(), &orders);
    for (number, (_, scope)) in scopes.into_iter().enumerate() {
        let number = number.to_string();
        let mut names = vec!["B-login", "changed", "db"];
        let mut changed = owned(&[("scope", &number)]);
        if scope == ManagerScope::None {
            // Each key has a secret of its own: it writes those that it is given, and removes no other.
            changed.insert(0, ("kept".to_owned(), "as it was".to_owned()));
        } else {
            names.push("seldon");
        }
        let opened = peer.open(Layout::Manager(scope));
        assert_eq!(pairs(&opened, "db").await, expected);
        assert_eq!(pairs(&opened, "B-login").await, owned(&[("password", "x y"), ("username", "me")]));
        if names.contains(&"seldon") {
            assert_eq!(pairs(&opened, "seldon").await, owned(&zenml_043::SELDON));
        }
        assert_eq!(pairs(&opened, "changed").await, changed);
        assert_eq!(error(&opened, "gone").await, BackendError::NotFound);
        let mut listed: Vec<_> = opened.reader.list().await.expect("a list").into_iter().map(|one| one.name).collect();
        listed.sort();
        assert_eq!(listed, names);
    }
    let other = peer.open(Layout::Manager(ManagerScope::Namespace("Team".into())));
    assert_eq!(error(&other, "A-db").await, BackendError::NotFound, "the place of another namespace's secret");
    assert_eq!(other.reader.describe(&["A-db"], Scopes::PrivateFirst).await, Ok(vec![None]));
}

#[tokio::test]
async fn key_names_of_zenml_0_43s_manager_without_a_scope_cost_no_value_on_real_azure() {
    let Some(peer) = Peer::start() else { return };
    let Some(zenml) = zenml(&peer) else { return };
    // Where neither is part of the vault's name for it, ZenML lets any name and any key be.
    let name = "ware house/1";
    let values = json!({ "a.b": "dotted", "user": "admin" });
    zenml.write(&store(), &[order("register", &json!({ "scope": "none" }), name, "arbitrary", &values)]);
    let opened = peer.open(Layout::Manager(ManagerScope::None));
    assert!(opened.reader.capabilities().keys_without_values);
    let described = opened.reader.describe(&[name, "none"], Scopes::PrivateFirst).await.expect("described");
    let keys = described[0].as_ref().and_then(|one| one.keys.clone());
    assert_eq!(keys, Some(vec!["a.b".to_owned(), "user".to_owned()]));
    assert_eq!(described[1], None);
    assert_eq!(peer.calls().await.get("value"), None);
    assert_eq!(pairs(&opened, name).await, owned(&[("a.b", "dotted"), ("user", "admin")]));

    let listed = peer.call(reqwest::Method::GET, "/secrets", None).await;
    let id = listed["value"][0]["id"].as_str().expect("an id");
    let place = id.rsplit('/').next().expect("a name");
    let off = json!({ "attributes": { "enabled": false } });
    peer.call(reqwest::Method::PATCH, &format!("/secrets/{place}/"), Some(off)).await;
    assert_eq!(class(&error(&opened, name).await), "denied", "one key is disabled");
    let described = opened.reader.describe(&[name], Scopes::PrivateFirst).await.expect("described");
    assert!(described[0].as_ref().is_some_and(|one| one.keys.is_none()), "only a read tells");
}

#[tokio::test]
async fn both_scopes_of_zenml_0_43s_own_central_store_are_read_on_real_azure() {
    let Some(peer) = Peer::start() else { return };
    let Some(zenml) = zenml(&peer) else { return };
    let written = CentralStore::written(&zenml, &store());
    written.check(&peer.open(Layout::Store)).await;
}
