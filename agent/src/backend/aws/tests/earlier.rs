//! What ZenML 0.43.1's own classes wrote is read: its secrets managers, and its central store with names in tags.

use keyside_config::settings::{Layout, ManagerScope};
use serde_json::{Value, json};

use super::super::super::BackendError;
use super::super::super::zenml_043::{self, CentralStore, Zenml043};
use super::{REGION, error, open, pairs, peer, reader, settings, uuid};

fn zenml(moto: &peer::Peer) -> Option<Zenml043> {
    let keys = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];
    Zenml043::find("boto3", &[&[("AWS_ENDPOINT_URL", moto.url.as_str())], &keys[..]].concat())
}

fn store() -> Value {
    json!({ "type": "aws", "region_name": REGION })
}

#[tokio::test]
async fn every_scope_of_zenml_0_43s_own_secrets_manager_is_read_on_real_moto() {
    let Some(moto) = peer::moto(&[]) else { return };
    let Some(zenml) = zenml(&moto) else { return };
    let scopes = [
        (json!({ "scope": "none" }), ManagerScope::None),
        (json!({ "scope": "global" }), ManagerScope::Global),
        // Where none is said: the component's.
        (json!({}), ManagerScope::Component(uuid(1))),
        (json!({ "scope": "namespace", "namespace": "team-a" }), ManagerScope::Namespace("team-a".to_owned())),
    ];
    let (expected, written) = zenml_043::values();
    let order = |what: &str, config: &Value, name: &str, schema: &str, values: Value| {
        let mut config = config.clone();
        config["region_name"] = json!(REGION);
        json!({ "manager": "aws", "id": uuid(1), "config": config, "do": what, "name": name, "schema": schema, "values": values })
    };
    let keys = json!({ "aws_access_key_id": "AKIA", "aws_secret_access_key": "x/y+z=" });
    let mut orders = Vec::new();
    for (number, (config, scope)) in scopes.iter().enumerate() {
        let value = json!({ "scope": number.to_string() });
        orders.push(order("register", config, "db", "arbitrary", written.clone()));
        orders.push(order("register", config, "keys", "aws", keys.clone()));
        orders.push(order("register", config, "seldon", "seldon_s3", json!({})));
        // It looks for what it changes with the filter `!zenml_scope`; moto then finds no secret without tags.
        if *scope == ManagerScope::None {
            continue;
        }
        orders.push(order("register", config, "changed", "arbitrary", json!({ "old": "value" })));
        orders.push(order("update", config, "changed", "arbitrary", value));
        orders.push(order("register", config, "gone", "arbitrary", json!({ "k": "v" })));
        orders.push(order("delete", config, "gone", "arbitrary", json!({})));
    }
    zenml.write(&store(), &orders);
    for (number, (_, scope)) in scopes.into_iter().enumerate() {
        let changes = scope != ManagerScope::None;
        let backend = reader(&moto.url, Layout::Manager(scope));
        assert_eq!(pairs(&*backend, "db").await, expected);
        let keys = [("aws_access_key_id", "AKIA"), ("aws_secret_access_key", "x/y+z=")];
        assert_eq!(pairs(&*backend, "keys").await, keys.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let seldon = zenml_043::SELDON.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(pairs(&*backend, "seldon").await, seldon);
        let mut listed: Vec<_> = backend.list().await.expect("a list").into_iter().map(|one| one.name).collect();
        listed.sort();
        assert_eq!(error(&*backend, "gone").await, BackendError::NotFound);
        if changes {
            assert_eq!(pairs(&*backend, "changed").await, [("scope".to_owned(), number.to_string())]);
            assert_eq!(listed, ["changed", "db", "keys", "seldon"]);
        } else {
            assert_eq!(listed, ["db", "keys", "seldon"]);
        }
    }
}

#[tokio::test]
async fn both_scopes_of_zenml_0_43s_own_central_store_are_read_on_real_moto() {
    let Some(moto) = peer::moto(&[]) else { return };
    let Some(zenml) = zenml(&moto) else { return };
    let written = CentralStore::written(&zenml, &store());
    written.check(&open(&settings(&moto.url, Layout::Store))).await;
}
