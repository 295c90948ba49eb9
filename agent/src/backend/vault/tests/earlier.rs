//! What ZenML 0.43.1's own classes wrote is read: its secrets managers, and its central store with names in the secrets.

use serde_json::{Value, json};

use super::super::super::zenml_043::{self, CentralStore, Zenml043};
use super::openbao::OpenBao;
use super::*;

const COMPONENT: &str = "0a1b2c3d-9999-4000-8000-000000000001";

fn zenml(bao: &OpenBao) -> Option<Zenml043> {
    Zenml043::find("hvac", &[("REQUESTS_CA_BUNDLE", bao.ca.to_str().expect("text"))])
}

fn store(bao: &OpenBao) -> Value {
    // It writes into the mount `secret` whatever is said here.
    json!({ "type": "hashicorp", "vault_addr": bao.url, "vault_token": bao.token, "mount_point": "kv" })
}

#[tokio::test]
async fn every_scope_of_zenml_0_43s_own_secrets_manager_is_read_on_real_openbao() {
    let Some(bao) = OpenBao::start().await else { return };
    let Some(zenml) = zenml(&bao) else { return };
    let scopes = [
        (json!({ "scope": "none" }), ManagerScope::None),
        (json!({ "scope": "global" }), ManagerScope::Global),
        // Where none is said: the component's.
        (json!({}), ManagerScope::Component(COMPONENT.into())),
        (json!({ "scope": "namespace", "namespace": "team-a" }), ManagerScope::Namespace("team-a".into())),
    ];
    let (expected, written) = zenml_043::values();
    let order = |what: &str, config: &Value, name: &str, schema: &str, values: Value| {
        let mut config = config.clone();
        for (key, value) in [("url", bao.url.as_str()), ("token", bao.token.as_str()), ("mount_point", "kv")] {
            config[key] = json!(value);
        }
        json!({ "manager": "vault", "id": COMPONENT, "config": config, "do": what, "name": name, "schema": schema, "values": values })
    };
    let mut orders = Vec::new();
    for (number, (config, _)) in scopes.iter().enumerate() {
        let value = json!({ "scope": number.to_string() });
        orders.push(order("register", config, "db", "arbitrary", written.clone()));
        orders.push(order("register", config, "login", "basic_auth", json!({ "username": "me", "password": "x y" })));
        orders.push(order("register", config, "seldon", "seldon_s3", json!({})));
        orders.push(order("register", config, "changed", "arbitrary", json!({ "old": "value" })));
        orders.push(order("update", config, "changed", "arbitrary", value));
        orders.push(order("register", config, "gone", "arbitrary", json!({ "k": "v" })));
        orders.push(order("delete", config, "gone", "arbitrary", json!({})));
    }
    zenml.write(&store(&bao), &orders);
    for (number, (_, scope)) in scopes.into_iter().enumerate() {
        let backend = Options { layout: Layout::Manager(scope), mount: "kv", ..bao.options() }.reader();
        assert_eq!(fetch(&*backend, "db").await.expect("found"), expected);
        let login = pairs(&[("password", "x y"), ("username", "me")]);
        assert_eq!(fetch(&*backend, "login").await.expect("found"), login);
        assert_eq!(fetch(&*backend, "seldon").await.expect("found"), pairs(&zenml_043::SELDON));
        assert_eq!(fetch(&*backend, "changed").await.expect("found"), pairs(&[("scope", &number.to_string())]));
        assert_eq!(failure(&*backend, "gone").await, BackendError::NotFound);
        let listed = backend.list().await.expect("listed");
        assert_eq!(
            listed.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(),
            ["changed", "db", "login", "seldon"]
        );
    }
}

#[tokio::test]
async fn both_scopes_of_zenml_0_43s_own_central_store_are_read_on_real_openbao() {
    let Some(bao) = OpenBao::start().await else { return };
    let Some(zenml) = zenml(&bao) else { return };
    let written = CentralStore::written(&zenml, &store(&bao));
    for mount in ["secret", "kv"] {
        written.check(&Options { layout: Layout::Store, mount, ..bao.options() }.open()).await;
    }
}
