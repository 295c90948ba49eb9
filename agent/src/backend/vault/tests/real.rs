//! The back-end on a real OpenBao.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use reqwest::Method;
use serde_json::{Value, json};

use super::super::super::Scope;
use super::super::super::contract::{self, Case, Subject};
use super::logins::eventually;
use super::openbao::OpenBao;
use super::*;

const DEPLOYMENT: &str = "0a1b2c3d-0000-4000-8000-000000000001";

/// A back-end under the contract suite, with a token of its own whose policy is the lever.
struct OnOpenBao {
    bao: OpenBao,
    backend: Arc<dyn Backend>,
    layout: Layout,
    kv: u8,
    mount: &'static str,
    sealed: std::sync::Mutex<bool>,
    ids: AtomicU64,
    /// Ids of the secrets of layout `store`, by name and scope.
    known: std::sync::Mutex<std::collections::BTreeMap<(String, bool), String>>,
}

impl OnOpenBao {
    async fn start(layout: Layout, mount: &'static str, kv: u8) -> Option<Self> {
        let bao = OpenBao::start().await?;
        bao.policy("agent", &Self::all(mount)).await;
        let token = bao.token_with("agent").await;
        let login = VaultLogin::Token(text(&token));
        let backend = Options { login, layout: layout.clone(), mount, kv, ..bao.options() }.reader();
        let (sealed, ids, known) = Default::default();
        Some(Self { bao, backend, layout, kv, mount, sealed, ids, known })
    }

    fn all(mount: &str) -> String {
        format!(r#"path "{mount}/*" {{ capabilities = ["read", "list"] }}"#)
    }

    fn id_of(&self, name: &str, scope: Scope) -> String {
        let mut known = self.known.lock().expect("known");
        let next = || format!("00000000-0000-4000-8000-{:012}", self.ids.fetch_add(1, Ordering::SeqCst));
        known.entry((name.to_owned(), scope == Scope::Private)).or_insert_with(next).clone()
    }

    fn path(&self, kind: &str, name: &str, scope: Scope) -> String {
        let folder = crate::layout::vault::folder(&self.layout).expect("a folder").join("/");
        let name = if self.layout == Layout::Store { self.id_of(name, scope) } else { name.to_owned() };
        let kind = if self.kv == 2 { format!("/{kind}") } else { String::new() };
        let folder = if folder.is_empty() { folder } else { format!("/{folder}") };
        format!("{}{kind}{folder}/{name}", self.mount)
    }

    fn body(&self, name: &str, scope: Scope, pairs: &[(&str, &[u8])]) -> Value {
        let mut values = serde_json::Map::new();
        for (key, value) in pairs {
            values.insert((*key).to_owned(), json!(std::str::from_utf8(value).expect("text")));
        }
        match self.layout {
            Layout::Store => json!({
                "zenml_secret_values": values,
                "zenml_secret_metadata": {
                    "zenml": DEPLOYMENT,
                    "zenml_secret_id": self.id_of(name, scope),
                    "zenml_secret_name": name,
                    "zenml_secret_scope": if scope == Scope::Private { "user" } else { "workspace" },
                    "zenml_secret_workspace": "w",
                    "zenml_secret_user": "u",
                },
                "zenml_secret_created": "2026-01-01T00:00:00",
                "zenml_secret_updated": "2026-01-01T00:00:00",
            }),
            Layout::Manager(_) => {
                values.insert("zenml_schema_name".to_owned(), json!("arbitrary"));
                Value::Object(values)
            }
            Layout::Plain { .. } => Value::Object(values),
        }
    }
}

#[async_trait]
impl Subject for OnOpenBao {
    fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    fn max_value(&self) -> usize {
        4096
    }

    fn cannot(&self, case: Case) -> Option<&'static str> {
        match case {
            Case::Bytes => Some("Vault holds JSON: there are no bytes but text"),
            Case::Scopes if self.layout != Layout::Store => Some("this layout has no scopes"),
            Case::List | Case::Describe if self.kv == 1 => Some("version 1 has no versions and no keys without values"),
            // What a list of an engine of version 1 holds must not be empty.
            Case::Found if self.kv == 1 => Some("version 1 takes no empty secret"),
            _ => None,
        }
    }

    async fn put(&self, name: &str, scope: Scope, pairs: &[(&str, &[u8])]) {
        let body = self.body(name, scope, pairs);
        let body = if self.kv == 2 { json!({ "data": body }) } else { body };
        self.bao.set(&self.path("data", name, scope), &body).await;
    }

    async fn remove(&self, name: &str, scope: Scope) {
        self.bao.set_by(Method::DELETE, &self.path("metadata", name, scope)).await;
        self.known.lock().expect("known").remove(&(name.to_owned(), scope == Scope::Private));
    }

    async fn deny(&self, name: &str) {
        let path = self.path("data", name, Scope::Public);
        let rules = format!("{}\npath \"{path}\" {{ capabilities = [\"deny\"] }}", Self::all(self.mount));
        self.bao.policy("agent", &rules).await;
    }

    async fn break_down(&self) {
        self.bao.seal().await;
        *self.sealed.lock().expect("sealed") = true;
    }

    async fn mend(&self) {
        let sealed = std::mem::take(&mut *self.sealed.lock().expect("sealed"));
        if sealed {
            self.bao.unseal().await;
        }
        self.bao.policy("agent", &Self::all(self.mount)).await;
    }

    async fn stall(&self) -> Box<dyn Any + Send> {
        Box::new(self.bao.freeze().await)
    }

    async fn spoil_values(&self) {
        // The names of this layout stand inside the secrets: it is the documented exception.
        if self.layout == Layout::Store {
            return;
        }
        let mount = self.mount;
        let rules = ["subkeys", "metadata"]
            .map(|kind| format!("path \"{mount}/{kind}/*\" {{ capabilities = [\"read\", \"list\"] }}\n"));
        self.bao.policy("agent", &rules.concat()).await;
    }
}

async fn contract_of(layout: Layout, mount: &'static str, kv: u8, expected: &[Case]) {
    let Some(subject) = OnOpenBao::start(layout, mount, kv).await else { return };
    let skipped: Vec<Case> = contract::run(&subject).await.into_iter().map(|(case, _)| case).collect();
    assert_eq!(skipped, expected);
}

#[tokio::test]
async fn the_contract_holds_on_real_openbao_in_layout_plain() {
    contract_of(plain("team/app"), "secret", 2, &[Case::Bytes, Case::Scopes]).await;
}

#[tokio::test]
async fn the_contract_holds_on_real_openbao_in_layout_manager() {
    let layout = Layout::Manager(ManagerScope::Namespace("team-a".into()));
    contract_of(layout, "kv", 2, &[Case::Bytes, Case::Scopes]).await;
}

#[tokio::test]
async fn the_contract_holds_on_real_openbao_in_layout_store_of_zenml_0_43() {
    contract_of(Layout::Store, "secret", 2, &[Case::Bytes]).await;
}

#[tokio::test]
async fn the_contract_holds_on_real_openbao_with_version_1() {
    let expected = [Case::Found, Case::Bytes, Case::Scopes, Case::List, Case::Describe];
    contract_of(plain(""), "one", 1, &expected).await;
}

#[tokio::test]
async fn what_zenml_itself_stored_is_read_on_real_openbao() {
    let Some(bao) = OpenBao::start().await else { return };
    let Some(mut writer) = bao.writer(true) else { return };
    let id = "11111111-2222-4333-8444-555555555555";
    let order = |what: &str, mount: Value, values: Value| json!({ "do": what, "id": id, "deployment": DEPLOYMENT, "mount": mount, "values": values });
    let store = Options { layout: Layout::Store, mount: "kv", ..bao.options() }.open();
    let values = store.values.expect("it holds values");
    let read =
        async |deployment: &str| values.values_of(id, deployment).await.map(|kept| (shown(&kept.values), kept.version));
    assert_eq!(read(DEPLOYMENT).await, Err(BackendError::NotFound));
    // As ZenML up to 0.80 did whatever mount was configured, and where 0.98 does without one.
    writer.order(&order("create", Value::Null, json!({ "user": "me", "empty": "" })));
    let (found, old) = read(DEPLOYMENT).await.expect("found in the other mount");
    assert_eq!(found, pairs(&[("empty", ""), ("user", "me")]));
    writer.order(&order("create", json!("kv"), json!({ "k": " naïve\n\u{1f510}" })));
    let (found, first) = read(DEPLOYMENT).await.expect("found in the mount");
    assert_eq!(found, pairs(&[("k", " naïve\n\u{1f510}")]));
    writer.order(&order("update", json!("kv"), json!({ "k": "new" })));
    let (found, second) = read(DEPLOYMENT).await.expect("found");
    assert_eq!(found, pairs(&[("k", "new")]));
    assert!(old != first && first != second, "{old} {first} {second}");
    assert_eq!(read("99999999-2222-4333-8444-555555555555").await, Err(BackendError::NotFound));
    writer.order(&order("delete", json!("kv"), Value::Null));
    writer.order(&order("delete", Value::Null, Value::Null));
    assert_eq!(read(DEPLOYMENT).await, Err(BackendError::NotFound));
}

#[tokio::test]
async fn every_scope_of_a_secrets_manager_is_read_on_real_openbao() {
    let Some(bao) = OpenBao::start().await else { return };
    let Some(mut writer) = bao.writer(false) else { return };
    let uuid = "0a1b2c3d-9999-4000-8000-000000000001";
    let scopes = [
        (ManagerScope::None, "db".to_owned()),
        (ManagerScope::Global, "zenml/global/db".to_owned()),
        (ManagerScope::Component(uuid.into()), format!("zenml/component/{uuid}/db")),
        (ManagerScope::Namespace("team-a".into()), "zenml/namespace/team-a/db".to_owned()),
    ];
    for (number, (_, path)) in scopes.iter().enumerate() {
        let values = json!({ "zenml_schema_name": "arbitrary", "k": format!("v{number}"), "on": true, "none": null });
        writer.order(&json!({ "do": "put", "mount": "kv", "path": path, "values": values }));
    }
    writer.order(&json!({ "do": "put", "mount": "kv", "path": "foreign", "values": { "k": "v" } }));
    for (number, (scope, _)) in scopes.into_iter().enumerate() {
        let backend = Options { layout: Layout::Manager(scope), mount: "kv", ..bao.options() }.reader();
        let expected = pairs(&[("k", &format!("v{number}")), ("on", "True")]);
        assert_eq!(fetch(&*backend, "db").await.expect("found"), expected);
        assert_eq!(failure(&*backend, "foreign").await, BackendError::NotFound, "no secrets manager's");
        let listed = backend.list().await.expect("listed");
        assert_eq!(listed.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["db"]);
        let described = backend.describe(&["db", "foreign", "zenml/global/db"], Scopes::PrivateFirst).await;
        assert_eq!(described.expect("described"), [listed.into_iter().next(), None, None]);
    }
}

#[tokio::test]
async fn what_was_deleted_is_absent_and_comes_back_as_another_version_on_real_openbao() {
    let Some(bao) = OpenBao::start().await else { return };
    let backend = bao.options().reader();
    let put = async || bao.set("secret/data/db", &json!({ "data": { "k": "v" } })).await;
    let version = async || backend.fetch("db", Scopes::PrivateFirst).await.map(|secret| secret.description.version);
    put().await;
    let first = version().await.expect("found");
    for (method, path, body) in [
        (Method::DELETE, "secret/data/db", None),
        (Method::POST, "secret/undelete/db", Some(json!({ "versions": [1] }))),
        (Method::POST, "secret/destroy/db", Some(json!({ "versions": [1] }))),
    ] {
        let (status, answer) = bao.call(method, path, body.as_ref()).await;
        assert!(status.is_success(), "{path}: {answer}");
        let described = backend.describe(&["db"], Scopes::PrivateFirst).await.expect("described");
        let listed = backend.list().await.expect("listed");
        if path.contains("undelete") {
            assert_eq!(version().await.as_ref(), Ok(&first));
            assert_eq!((described[0].is_some(), listed.len()), (true, 1));
        } else {
            assert_eq!(version().await, Err(BackendError::NotFound), "{path}");
            assert_eq!((described[0].is_none(), listed.len()), (true, 0), "{path}");
        }
    }
    bao.set_by(Method::DELETE, "secret/metadata/db").await;
    put().await;
    assert_ne!(version().await.expect("found"), first, "version 1 again, and another one");
}

#[tokio::test]
async fn app_role_logs_in_renews_and_comes_back_after_a_revocation_on_real_openbao() {
    let Some(bao) = OpenBao::start().await else { return };
    bao.policy("app", r#"path "secret/data/*" { capabilities = ["read"] }"#).await;
    bao.set("sys/auth/approle", &json!({ "type": "approle" })).await;
    let role = json!({ "token_policies": "app", "token_ttl": "2s", "token_max_ttl": "6s" });
    bao.set("auth/approle/role/agent", &role).await;
    let role_id = bao.set_by(Method::GET, "auth/approle/role/agent/role-id").await;
    let role_id = role_id["data"]["role_id"].as_str().expect("an id").to_owned();
    let secret_id = bao.set("auth/approle/role/agent/secret-id", &json!({})).await;
    let secret_id = secret_id["data"]["secret_id"].as_str().expect("an id").to_owned();
    bao.set("secret/data/db", &json!({ "data": { "k": "v" } })).await;
    let login = |secret_id: &str| VaultLogin::AppRole { role_id: role_id.clone(), secret_id: Some(text(secret_id)) };
    let backend = Options { login: login(&secret_id), ..bao.options() }.reader();
    // Past several leases, and past the largest life of one token.
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        assert_eq!(fetch(&*backend, "db").await.expect("found"), pairs(&[("k", "v")]));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    bao.set("sys/leases/revoke-prefix/auth/approle", &json!({})).await;
    assert_eq!(fetch(&*backend, "db").await.expect("found after the revocation"), pairs(&[("k", "v")]));
    let wrong = Options { login: login("wrong"), ..bao.options() }.reader();
    let error = failure(&*wrong, "db").await;
    assert!(matches!(error, BackendError::Identity { .. }) && error.to_string().contains("auth/approle"), "{error}");
    bao.seal().await;
    let error = failure(&*backend, "db").await;
    assert!(error.is_transient() && error.to_string().contains("sealed"), "{error}");
    bao.unseal().await;
    assert_eq!(fetch(&*backend, "db").await.expect("found after unsealing"), pairs(&[("k", "v")]));
}

#[tokio::test]
async fn a_given_token_tells_a_refusal_from_a_revocation_on_real_openbao() {
    let Some(bao) = OpenBao::start().await else { return };
    bao.policy("app", r#"path "secret/data/app/*" { capabilities = ["read"] }"#).await;
    let token = bao.token_with("app").await;
    for name in ["app/db", "other/db"] {
        bao.set(&format!("secret/data/{name}"), &json!({ "data": { "k": "v" } })).await;
    }
    let backend = Options { login: VaultLogin::Token(text(&token)), ..bao.options() }.reader();
    assert!(matches!(failure(&*backend, "other/db").await, BackendError::Denied { .. }));
    assert_eq!(fetch(&*backend, "app/db").await.expect("found"), pairs(&[("k", "v")]));
    let mount = Options { login: VaultLogin::Token(text(&token)), mount: "nowhere", ..bao.options() }.reader();
    let error = failure(&*mount, "app/db").await;
    assert!(matches!(error, BackendError::Identity { .. }) && error.to_string().contains("`nowhere`"), "{error}");
    bao.set("auth/token/revoke", &json!({ "token": token })).await;
    let error = failure(&*backend, "app/db").await;
    assert!(matches!(error, BackendError::Identity { .. }), "{error}");
    assert!(error.to_string().contains("expired or revoked") && !error.to_string().contains(&token), "{error}");
}

#[tokio::test]
async fn the_wrong_version_and_the_wrong_mount_are_named_on_real_openbao() {
    let Some(bao) = OpenBao::start().await else { return };
    for (mount, kv, word) in [("one", 2, "version 1"), ("secret", 1, "not version 1"), ("nowhere", 2, "`nowhere`")] {
        let backend = Options { mount, kv, ..bao.options() }.reader();
        let error = failure(&*backend, "db").await;
        assert!(matches!(error, BackendError::Identity { .. }) && error.to_string().contains(word), "{error}");
    }
    let stranger = Options { network: NetworkSettings::default(), ..bao.options() }.reader();
    let error = failure(&*stranger, "db").await;
    assert!(error.is_transient() && error.to_string().contains("ertificate"), "{error}");
}

#[tokio::test]
async fn a_namespace_has_secrets_of_its_own_on_real_openbao() {
    let Some(bao) = OpenBao::start().await else { return };
    bao.set("sys/namespaces/team", &json!({})).await;
    bao.set("team/sys/mounts/secret", &json!({ "type": "kv", "options": { "version": "2" } })).await;
    eventually(async || {
        let body = json!({ "data": { "k": "team" } });
        bao.call(Method::POST, "team/secret/data/db", Some(&body)).await.0.is_success().then_some(())
    })
    .await;
    bao.set("secret/data/db", &json!({ "data": { "k": "root" } })).await;
    let team = Options { namespace: Some("team"), ..bao.options() }.reader();
    assert_eq!(fetch(&*team, "db").await.expect("found"), pairs(&[("k", "team")]));
    assert_eq!(fetch(&*bao.options().reader(), "db").await.expect("found"), pairs(&[("k", "root")]));
    let error = failure(&*Options { namespace: Some("none"), ..bao.options() }.reader(), "db").await;
    assert!(matches!(error, BackendError::Identity { .. }), "{error}");
}

#[tokio::test]
async fn jwt_logs_in_with_a_key_of_the_tests_own_on_real_openbao() {
    let Some(bao) = OpenBao::start().await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (key, public, jwt) = (folder.path().join("key"), folder.path().join("public"), folder.path().join("jwt"));
    let openssl = |arguments: &[&std::ffi::OsStr]| {
        let done = std::process::Command::new("openssl").args(arguments).output().expect("openssl starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        done.stdout
    };
    let words = |text: &'static str| text.split(' ').map(std::ffi::OsStr::new).collect::<Vec<_>>();
    openssl(&[words("genrsa -out"), vec![key.as_os_str(), "2048".as_ref()]].concat());
    openssl(&[words("rsa -pubout -in"), vec![key.as_os_str(), "-out".as_ref(), public.as_os_str()]].concat());
    let encode = |bytes: &[u8]| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
    };
    let expires = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now").as_secs() + 600;
    let claims = json!({ "iss": "keyside-test", "sub": "step", "aud": "vault", "nbf": expires - 900, "exp": expires });
    let signed = format!("{}.{}", encode(br#"{"alg":"RS256","typ":"JWT"}"#), encode(claims.to_string().as_bytes()));
    let input = folder.path().join("input");
    std::fs::write(&input, &signed).expect("written");
    let signature = openssl(&[words("dgst -sha256 -sign"), vec![key.as_os_str(), input.as_os_str()]].concat());
    std::fs::write(&jwt, format!("{signed}.{}\n", encode(&signature))).expect("written");

    bao.policy("app", r#"path "secret/data/*" { capabilities = ["read"] }"#).await;
    bao.set("sys/auth/pods", &json!({ "type": "jwt" })).await;
    let public = std::fs::read_to_string(&public).expect("a key");
    bao.set("auth/pods/config", &json!({ "jwt_validation_pubkeys": [public], "bound_issuer": "keyside-test" })).await;
    let role = json!({
        "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], "token_policies": ["app"],
    });
    bao.set("auth/pods/role/step", &role).await;
    bao.set("secret/data/db", &json!({ "data": { "k": "v" } })).await;
    let login = |role: &str| VaultLogin::Jwt { role: Some(role.into()), jwt_file: jwt.clone() };
    // The path that logs in is the same for `kubernetes`, but for the mount's own default.
    let backend = Options { login: login("step"), auth_mount: Some("pods"), ..bao.options() }.reader();
    assert_eq!(fetch(&*backend, "db").await.expect("found"), pairs(&[("k", "v")]));
    let wrong = Options { login: login("none"), auth_mount: Some("pods"), ..bao.options() }.reader();
    assert!(matches!(failure(&*wrong, "db").await, BackendError::Identity { .. }));
}
