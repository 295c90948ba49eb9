//! What ZenML and others wrote, read from the stand-in that the official client passes on, too.

use std::process::Command;

use keyside_config::settings::{GcpLogin, Layout, ManagerScope};
use serde_json::{Value, json};

use super::super::super::{BackendError, Scopes, ValueStore};
use super::peer::Peer;
use super::{Options, class, failure, owned, pairs, shown, text};

const DEPLOYMENT: &str = "5a2ee0b8-4e73-4b79-a0b4-3f9f0ce1bd5c";
const ID: &str = "0c5a9b6e-8f2d-4b57-9a53-1f6f3f0a7a10";

#[test]
fn the_official_client_passes_on_real_gcp() {
    let Some(peer) = Peer::start() else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/peers/gcp_check.py");
    let ended = Command::new(&peer.python).arg(script).arg(&peer.url).output().expect("Python starts");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(ended.stdout, b"passed\n");
}

#[tokio::test]
async fn what_zenml_0_98_stored_is_read_by_id_on_real_gcp() {
    let Some(peer) = Peer::start() else { return };
    let opened = Options::at(&peer.url).layout(Layout::Store).open();
    let store: &dyn ValueStore = &**opened.values.as_ref().expect("a store holds values by id");
    let absent = store.values_of(ID, DEPLOYMENT).await.err();
    assert_eq!(absent, Some(BackendError::NotFound));

    let stored = |values: Value| json!({ "do": "stored", "id": ID, "deployment": DEPLOYMENT, "values": values });
    peer.write(&stored(json!({ "user": "admin", "password": "a \"b\"\n\u{e9}\u{1f510}", "empty": "" })));
    let kept = store.values_of(ID, DEPLOYMENT).await.expect("stored");
    let expected = owned(&[("empty", ""), ("password", "a \"b\"\n\u{e9}\u{1f510}"), ("user", "admin")]);
    assert_eq!(shown(&kept.values), expected);
    assert_eq!(store.values_of(ID, DEPLOYMENT).await.expect("stored").version, kept.version);

    peer.write(&stored(json!({ "user": "other" })));
    let changed = store.values_of(ID, DEPLOYMENT).await.expect("stored");
    assert_eq!(shown(&changed.values), owned(&[("user", "other")]));
    assert_ne!(changed.version, kept.version);

    // Another deployment's, and what bears the id of another secret, is not there.
    assert_eq!(store.values_of(ID, ID).await.err(), Some(BackendError::NotFound));
    assert_eq!(store.values_of("no id", DEPLOYMENT).await.err(), Some(BackendError::NotFound));
    // Since 0.55 nothing here has a name.
    assert_eq!(opened.reader.list().await, Ok(Vec::new()));

    peer.write(&json!({ "do": "unstored", "id": ID, "deployment": DEPLOYMENT }));
    assert_eq!(store.values_of(ID, DEPLOYMENT).await.err(), Some(BackendError::NotFound));
}

#[tokio::test]
async fn only_a_store_holds_values_by_id_on_real_gcp() {
    let Some(peer) = Peer::start() else { return };
    assert!(Options::at(&peer.url).open().values.is_none());
    assert!(Options::at(&peer.url).layout(Layout::Manager(ManagerScope::None)).open().values.is_none());
}

#[tokio::test]
async fn an_unscoped_managers_keys_are_known_without_a_value_on_real_gcp() {
    let Some(peer) = Peer::start() else { return };
    let labels = |name: &str| json!({ "zenml-group-key": name, "zenml-schema-name": "arbitrary" });
    for (id, name, value) in [
        ("db_user", "db", "admin"),
        ("db_pass_word", "db", "x"),
        ("db_main_user", "db_main", "other"),
        ("db_odd", "another", "of another name than its id says"),
    ] {
        peer.put(id, &labels(name), value.as_bytes());
    }
    peer.put("db_foreign", &json!({}), b"not of ZenML");
    let opened = Options::at(&peer.url).layout(Layout::Manager(ManagerScope::None)).open();
    let described = opened.reader.describe(&["db", "db_main", "none"], Scopes::PrivateFirst).await.expect("described");
    let keys: Vec<_> = described.into_iter().map(|one| one.and_then(|one| one.keys)).collect();
    assert_eq!(keys, [Some(vec!["pass_word".to_owned(), "user".to_owned()]), Some(vec!["user".to_owned()]), None]);
    assert_eq!(opened.reader.list().await.expect("a list").len(), 2);
    assert_eq!(peer.calls().await["access_secret_version"], Value::Null, "no value was read");

    assert_eq!(pairs(&opened, "db").await, owned(&[("pass_word", "x"), ("user", "admin")]));
    assert_eq!(pairs(&opened, "db_main").await, owned(&[("user", "other")]));
    // One key of two is being written: its secret is there, and it is no secret yet.
    peer.write(&json!({ "do": "put", "id": "db_new", "labels": labels("db"), "data": null }));
    assert_eq!(class(&failure(&opened, "db").await), "unusable");
}

#[tokio::test]
async fn an_id_that_two_scopes_share_belongs_to_one_on_real_gcp() {
    let Some(peer) = Peer::start() else { return };
    let labels = json!({ "zenml_scope": "namespace", "zenml_namespace": "a", "zenml_secret_name": "b-c" });
    peer.put("zenml-namespace-a-b-c", &labels, br#"{"k": "v", "zenml_schema_name": "arbitrary"}"#);
    let open = |name: &str| Options::at(&peer.url).layout(super::namespace(name)).open();
    assert_eq!(pairs(&open("a"), "b-c").await, owned(&[("k", "v")]));
    assert_eq!(failure(&open("a-b"), "c").await, BackendError::NotFound);
    assert_eq!(peer.calls().await["access_secret_version"], 1, "what is another's is not read");
}

#[tokio::test]
async fn what_anybody_wrote_is_read_on_real_gcp() {
    let Some(peer) = Peer::start() else { return };
    peer.put("json", &json!({}), br#"{"port": 5432, "tls": true, "hosts": ["a", "b"], "user": "u"}"#);
    peer.put("text", &json!({}), b"just a token\n");
    peer.put("bytes", &json!({}), b"\x00\xc3\x28");
    peer.put("largest", &json!({}), &[b'x'; 65536]);
    let opened = Options::at(&peer.url).open();
    let expected = owned(&[("hosts", r#"["a", "b"]"#), ("port", "5432"), ("tls", "true"), ("user", "u")]);
    assert_eq!(pairs(&opened, "json").await, expected);
    assert_eq!(pairs(&opened, "text").await, owned(&[("value", "just a token\n")]));
    let bytes = opened.reader.fetch("bytes", Scopes::PrivateFirst).await.expect("read");
    assert_eq!(bytes.values.get("value").expect("one key").expose(), b"\x00\xc3\x28");
    assert_eq!(pairs(&opened, "largest").await[0].1.len(), 65536);

    peer.put("off", &json!({}), b"v1");
    peer.write(&json!({ "do": "disable", "id": "off" }));
    let disabled = failure(&opened, "off").await;
    assert!(class(&disabled) == "denied" && disabled.to_string().contains("disabled"), "{disabled}");
    peer.write(&json!({ "do": "destroy", "id": "off" }));
    assert_eq!(class(&failure(&opened, "off").await), "denied");
    peer.put("off", &json!({}), b"v2");
    assert_eq!(pairs(&opened, "off").await, owned(&[("value", "v2")]));
    peer.write(&json!({ "do": "put", "id": "without", "labels": {}, "data": null }));
    assert_eq!(failure(&opened, "without").await, BackendError::NotFound);

    peer.order(&json!({ "corrupt": ["text"] })).await;
    assert_eq!(class(&failure(&opened, "text").await), "transient");
}

#[tokio::test]
async fn a_secret_made_again_under_its_id_has_another_version_on_real_gcp() {
    let Some(peer) = Peer::start() else { return };
    let opened = Options::at(&peer.url).open();
    let version =
        async || opened.reader.fetch("db", Scopes::PrivateFirst).await.map(|secret| secret.description.version);
    peer.put("db", &json!({}), b"one");
    let first = version().await.expect("read");
    peer.write(&json!({ "do": "remove", "id": "db" }));
    peer.put("db", &json!({}), b"two");
    assert_ne!(version().await.expect("read"), first);
}

#[tokio::test]
async fn every_kind_of_credentials_logs_in_on_real_gcp() {
    let Some(peer) = Peer::start() else { return };
    peer.put("db", &json!({}), b"v");
    let account = peer.get("service-account").await;
    let token = peer.file("platform-token", "a-token-of-the-platform");
    let user = json!({
        "type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r",
        "token_uri": format!("{}/oauth/token", peer.url),
    });
    let external = json!({
        "type": "external_account", "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/a/providers/b",
        "token_url": format!("{}/sts/token", peer.url), "credential_source": { "file": token },
    });
    let impersonated = json!({
        "type": "impersonated_service_account", "source_credentials": user,
        "service_account_impersonation_url":
            format!("{}/v1/projects/-/serviceAccounts/robot@p.iam.gserviceaccount.com:generateAccessToken", peer.url),
    });
    for (kind, json) in
        [("service_account", &account), ("user", &user), ("external", &external), ("impersonated", &impersonated)]
    {
        let file = peer.file(&format!("{kind}.json"), &json.to_string());
        for login in [GcpLogin::File(file), GcpLogin::Json(text(&json.to_string()))] {
            let opened = Options { login, ..Options::at(&peer.url) }.open();
            assert_eq!(pairs(&opened, "db").await, owned(&[("value", "v")]), "{kind}");
        }
    }
    let calls = peer.calls().await;
    assert_eq!((&calls["external"], &calls["impersonated"]), (&json!(2), &json!(2)));

    let revoked = json!({ "type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "revoked",
        "token_uri": format!("{}/oauth/token", peer.url) });
    let login = |login| Options { login, ..Options::at(&peer.url) }.open();
    assert_eq!(class(&failure(&login(GcpLogin::Json(text(&revoked.to_string()))), "db").await), "identity");
    assert_eq!(class(&failure(&login(GcpLogin::Token(text("wrong"))), "db").await), "identity");
    assert_eq!(class(&failure(&login(GcpLogin::Token(text("powerless"))), "db").await), "identity");
}

#[tokio::test]
async fn a_revoked_token_is_replaced_without_a_word_on_real_gcp() {
    let Some(peer) = Peer::start() else { return };
    peer.put("db", &json!({}), b"v");
    let user = json!({ "type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r",
        "token_uri": format!("{}/oauth/token", peer.url) });
    let opened = Options { login: GcpLogin::Json(text(&user.to_string())), ..Options::at(&peer.url) }.open();
    assert_eq!(pairs(&opened, "db").await, owned(&[("value", "v")]));
    peer.order(&json!({ "revoke": true })).await;
    assert_eq!(pairs(&opened, "db").await, owned(&[("value", "v")]));
    assert_eq!(peer.calls().await["user"], 2);
}
