//! The fake vault of `tests/peers`, which Microsoft's own Python client passes as well, with data that ZenML's own code
//! wrote where it can be run.

use std::any::Any;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use async_trait::async_trait;
use keyside_config::settings::ManagerScope;
use serde_json::{Value, json};

use super::super::super::contract::{Case, Subject, run};
use super::super::super::{Backend, Scope};
use super::*;

const DEPLOYMENT: &str = "0a0a0a0a-1111-2222-3333-444444444444";

/// A running fake; ended when it is dropped.
pub(super) struct Peer {
    child: Child,
    pub(super) url: String,
    /// Where its Python and its authority are.
    pub(super) place: PathBuf,
    http: reqwest::Client,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Holds calls up as long as it lives.
struct Stalled(String, PathBuf);

impl Drop for Stalled {
    fn drop(&mut self) {
        let (url, place) = (self.0.clone(), self.1.clone());
        // The runtime's own thread is in this drop.
        let released = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(control(&client(&place), &url, &json!({ "stall": false })));
        });
        released.join().expect("released");
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/peers")
}

fn client(place: &Path) -> reqwest::Client {
    let pem = std::fs::read(place.join("ca.pem")).expect("an authority");
    let authorities = reqwest::Certificate::from_pem_bundle(&pem).expect("PEM");
    reqwest::Client::builder().tls_certs_merge(authorities).no_proxy().build().expect("a client")
}

async fn control(http: &reqwest::Client, url: &str, order: &Value) {
    let reply = http.post(format!("{url}/_control")).body(order.to_string()).send().await.expect("the fake answers");
    assert_eq!(reply.status(), 204);
}

impl Peer {
    /// Starts one; none, and a word on stderr, where it is not installed.
    pub(super) fn start() -> Option<Self> {
        let Some(place) = std::env::var_os("KEYSIDE_AZURE").map(PathBuf::from) else {
            eprintln!("skipped: the fake vault: KEYSIDE_AZURE does not say where tests/peers/install-azure.sh put it");
            return None;
        };
        let mut child = Command::new(place.join("bin/python"))
            .arg(scripts().join("azure_fake.py"))
            .args([place.join("server.pem"), place.join("server.key")])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let port = line.trim().strip_prefix("port ").expect("its port").to_owned();
        Some(Self { child, url: format!("https://localhost:{port}"), http: client(&place), place })
    }

    fn settings(&self, layout: Layout) -> BackendSettings {
        let mut settings = settings(&self.url, principal("right"), layout);
        settings.network.ca_file = Some(self.place.join("ca.pem"));
        settings
    }

    pub(super) fn open(&self, layout: Layout) -> Opened {
        open(&self.settings(layout))
    }

    /// Runs Microsoft's own client.
    fn official(&self, what: &str) {
        self.python("bin/python", "azure_official_client.py", what);
    }

    fn python(&self, python: &str, script: &str, last: &str) -> String {
        let output = Command::new(self.place.join(python))
            .arg(scripts().join(script))
            .arg(&self.url)
            .arg(self.place.join("ca.pem"))
            .arg(last)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("ZENML_ANALYTICS_OPT_IN", "false")
            .env("ZENML_CONFIG_PATH", std::env::temp_dir().join("keyside-no-zenml"))
            .output()
            .expect("Python starts");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    async fn control(&self, order: Value) {
        control(&self.http, &self.url, &order).await;
    }

    /// Returns how often what was called.
    pub(super) async fn calls(&self) -> BTreeMap<String, u64> {
        let reply = self.http.get(format!("{}/_control", self.url)).send().await.expect("the fake answers");
        serde_json::from_slice(&reply.bytes().await.expect("a body")).expect("an object")
    }

    /// Makes one call to the vault, which must succeed, and returns what it answers.
    pub(super) async fn call(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> Value {
        let login = self.http.post(format!("{}/tenant/oauth2/v2.0/token", self.url)).body("client_secret=right");
        let login = login.send().await.expect("a login").bytes().await.expect("a body");
        let login: Value = serde_json::from_slice(&login).expect("JSON");
        let request = self.http.request(method, format!("{}{path}?api-version=7.5", self.url));
        let request = request.bearer_auth(login["access_token"].as_str().expect("a token"));
        let request = if let Some(body) = body { request.body(body.to_string()) } else { request };
        let reply = request.send().await.expect("the fake answers");
        assert!(reply.status().is_success(), "{path}: {}", reply.status());
        serde_json::from_slice(&reply.bytes().await.expect("a body")).unwrap_or_default()
    }

    async fn set(&self, place: &str, value: &str, tags: Value) {
        let body = json!({ "value": value, "tags": tags });
        self.call(reqwest::Method::PUT, &format!("/secrets/{place}"), Some(body)).await;
    }

    async fn remove(&self, place: &str) {
        self.call(reqwest::Method::DELETE, &format!("/secrets/{place}"), None).await;
        self.call(reqwest::Method::DELETE, &format!("/deletedsecrets/{place}"), None).await;
    }
}

/// The contract's levers in one layout.
struct VaultSubject {
    peer: Peer,
    opened: Opened,
    layout: Layout,
    /// What lies where, by name and whether it is private.
    places: Mutex<BTreeMap<(String, bool), Vec<String>>>,
}

impl VaultSubject {
    fn new(peer: Peer, layout: Layout) -> Self {
        let opened = peer.open(layout.clone());
        Self { peer, opened, layout, places: Mutex::default() }
    }

    fn kept(&self, name: &str, scope: Scope) -> Vec<String> {
        let key = (name.to_owned(), scope == Scope::Private);
        self.places.lock().unwrap().get(&key).cloned().unwrap_or_default()
    }
}

#[async_trait]
impl Subject for VaultSubject {
    fn backend(&self) -> &dyn Backend {
        &*self.opened.reader
    }

    fn max_value(&self) -> usize {
        usize::try_from(LIMIT).unwrap()
    }

    fn cannot(&self, case: Case) -> Option<&'static str> {
        match (case, &self.layout) {
            (Case::Bytes, _) => Some("Key Vault holds text"),
            (Case::Scopes, Layout::Manager(_) | Layout::Plain { .. }) => Some("the layout has no scopes"),
            (Case::Found | Case::List, Layout::Manager(ManagerScope::None)) => {
                Some("a secret without pairs leaves no trace")
            }
            _ => None,
        }
    }

    async fn put(&self, name: &str, scope: Scope, pairs: &[(&str, &[u8])]) {
        self.peer.control(json!({ "spoil": false })).await;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut object: BTreeMap<&str, String> = pairs.iter().map(|(key, value)| (*key, text(value))).collect();
        let before = self.kept(name, scope);
        let mut written = Vec::new();
        match &self.layout {
            Layout::Store => {
                let id = before.first().map_or_else(
                    || format!("{:08x}-0000-4000-8000-000000000000", self.places.lock().unwrap().len()),
                    |place| place.strip_prefix("zenml-").unwrap().to_owned(),
                );
                let label = if scope == Scope::Private { "user" } else { "workspace" };
                let tags = json!({
                    "zenml": DEPLOYMENT, "zenml_secret_id": id, "zenml_secret_name": name, "zenml_secret_scope": label,
                });
                written.push(format!("zenml-{id}"));
                self.peer.set(&written[0], &json!(object).to_string(), tags).await;
            }
            Layout::Manager(ManagerScope::None) => {
                for (key, value) in object {
                    let place = hex(&format!("{name}-{key}"));
                    let tags =
                        json!({ "zenml-group-key": name, "zenml-key-name": key, "zenml-schema-name": "arbitrary" });
                    self.peer.set(&place, &value, tags).await;
                    written.push(place);
                }
            }
            Layout::Manager(_) => {
                object.insert("zenml_schema_name", "arbitrary".into());
                let tags = json!({ "zenml_scope": "namespace", "zenml_namespace": "n", "zenml_secret_name": name });
                written.push(format!("zenml-namespace-n-{name}"));
                self.peer.set(&written[0], &json!(object).to_string(), tags).await;
            }
            Layout::Plain { prefix } => {
                written.push(format!("{prefix}{name}"));
                self.peer.set(&written[0], &json!(object).to_string(), json!({})).await;
            }
        }
        for place in before.iter().filter(|place| !written.contains(place)) {
            self.peer.remove(place).await;
        }
        self.places.lock().unwrap().insert((name.to_owned(), scope == Scope::Private), written);
    }

    async fn remove(&self, name: &str, scope: Scope) {
        for place in self.kept(name, scope) {
            self.peer.remove(&place).await;
        }
        self.places.lock().unwrap().remove(&(name.to_owned(), scope == Scope::Private));
    }

    async fn deny(&self, name: &str) {
        let places: Vec<_> = self.kept(name, Scope::Public).iter().map(|place| place.to_lowercase()).collect();
        self.peer.control(json!({ "deny": places })).await;
    }

    async fn break_down(&self) {
        self.peer.control(json!({ "down": true })).await;
    }

    async fn mend(&self) {
        self.peer.control(json!({ "down": false })).await;
    }

    async fn stall(&self) -> Box<dyn Any + Send> {
        self.peer.control(json!({ "stall": true })).await;
        Box::new(Stalled(self.peer.url.clone(), self.peer.place.clone()))
    }

    async fn spoil_values(&self) {
        self.peer.control(json!({ "spoil": true })).await;
    }
}

async fn contract_on_real_azure(layout: Layout, expected: &[Case]) {
    let Some(peer) = Peer::start() else { return };
    let skipped = run(&VaultSubject::new(peer, layout)).await;
    assert_eq!(skipped.iter().map(|(case, _)| *case).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn the_store_keeps_the_contract_on_real_azure() {
    contract_on_real_azure(Layout::Store, &[Case::Bytes]).await;
}

#[tokio::test]
async fn an_unscoped_manager_keeps_the_contract_on_real_azure() {
    let cannot = [Case::Found, Case::Bytes, Case::Scopes, Case::List];
    contract_on_real_azure(Layout::Manager(ManagerScope::None), &cannot).await;
}

#[tokio::test]
async fn a_scoped_manager_keeps_the_contract_on_real_azure() {
    contract_on_real_azure(Layout::Manager(ManagerScope::Namespace("n".into())), &[Case::Bytes, Case::Scopes]).await;
}

#[tokio::test]
async fn plain_secrets_keep_the_contract_on_real_azure() {
    contract_on_real_azure(Layout::Plain { prefix: "p-".into() }, &[Case::Bytes, Case::Scopes]).await;
}

#[tokio::test]
async fn microsofts_own_client_is_content_on_real_azure() {
    let Some(peer) = Peer::start() else { return };
    peer.official("check");
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

async fn read(opened: &Opened, name: &str) -> Result<String, &'static str> {
    fetch(opened, name).await.map(|secret| shown(&secret)).map_err(|error| class(&error))
}

#[tokio::test]
async fn what_no_single_user_of_zenml_wrote_is_no_secret_on_real_azure() {
    let Some(peer) = Peer::start() else { return };
    peer.official("write");
    let store = peer.open(Layout::Store);
    assert_eq!(read(&store, "spoilt").await, Err("unusable"));
    assert_eq!(read(&store, "plain-text").await, Err("not found"));
    let ambiguous = error(&store, "twice").await;
    assert!(class(&ambiguous) == "unusable" && ambiguous.to_string().contains('2'), "{ambiguous}");
}

#[tokio::test]
async fn what_others_keep_is_read_as_key_vault_gives_it_on_real_azure() {
    let Some(peer) = Peer::start() else { return };
    peer.official("write");
    let plain = peer.open(Layout::Plain { prefix: "plain-".into() });
    assert_eq!(read(&plain, "object").await, Ok("nested={\"a\": [1]};none=null;port=5432;user=u;".into()));
    assert_eq!(read(&plain, "text").await, Ok("value=hunter2\n;".into()));
    assert_eq!(read(&plain, "expired").await, Ok("value=old;".into()));
    assert_eq!(read(&plain, "not-yet").await, Ok("value=young;".into()));
    assert_eq!(read(&plain, "deleted").await, Err("not found"));
    assert_eq!(read(&plain, "OBJECT").await, Err("not found"), "a name is exact, though Key Vault's has no case");
    let disabled = error(&plain, "disabled").await;
    assert!(class(&disabled) == "denied" && disabled.to_string().contains("disabled"), "{disabled}");

    let before = peer.calls().await;
    let few = ["object", "deleted", "disabled", "none"];
    let described = plain.reader.describe(&few, Scopes::PrivateFirst).await.expect("described");
    assert_eq!(described.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true, false]);
    let many: Vec<String> = (0..200).map(|number| format!("none{number}")).chain(["text".to_owned()]).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let described = plain.reader.describe(&many, Scopes::PrivateFirst).await.expect("described");
    assert_eq!(described.iter().flatten().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["text"]);
    let after = peer.calls().await;
    assert_eq!(after.get("value"), before.get("value"), "existence costs no value");
    let calls = |counts: &BTreeMap<String, u64>| {
        ["list", "versions", "missing"].iter().filter_map(|what| counts.get(*what)).sum::<u64>()
    };
    assert!(calls(&after) - calls(&before) <= 6, "four names, and one list for two hundred: {after:?}");
}

#[tokio::test]
async fn what_zenmls_own_store_wrote_is_read_by_id_on_real_azure() {
    let Some(peer) = Peer::start() else { return };
    let zenml = std::fs::read_to_string(peer.place.join("zenml-python")).expect("the real ZenML's Python");
    let packages =
        std::fs::read_dir(peer.place.join("lib")).expect("a venv").next().expect("Python").expect("readable");
    let packages = packages.path().join("site-packages");
    let ids = peer.python(&zenml, "azure_zenml_store.py", packages.to_str().expect("text"));
    let ids: Value = serde_json::from_str(ids.lines().last().expect("a line")).expect("an object");
    let [kept, gone, deployment] = ["kept", "gone", "deployment"].map(|name| ids[name].as_str().expect("an id"));
    let values = peer.open(Layout::Store).values.expect("values by id");
    let found = values.values_of(kept, deployment).await.map_err(|error| error.to_string()).expect("found");
    let pairs: Vec<_> = found.values.iter().map(|(key, value)| (key, value.expose())).collect();
    assert_eq!(pairs, [("empty", b"".as_slice()), ("password", "naïve 🔐".as_bytes())]);
    for (id, owner) in [(gone, deployment), (kept, gone), (deployment, deployment), ("../x", deployment)] {
        let result = values.values_of(id, owner).await;
        assert!(matches!(result, Err(BackendError::NotFound)), "{id} {owner}");
    }
    assert_eq!(peer.open(Layout::Store).reader.list().await, Ok(Vec::new()), "names lie elsewhere since 0.55");
}

#[tokio::test]
async fn a_vault_behind_an_unknown_authority_is_not_spoken_to_on_real_azure() {
    let Some(peer) = Peer::start() else { return };
    let mut settings = peer.settings(plain());
    settings.network.ca_file = None;
    let error = error(&open(&settings), "x").await;
    assert!(class(&error) == "transient" && error.to_string().contains("certificate"), "{error}");
    assert_eq!(peer.calls().await, BTreeMap::new());
}

#[tokio::test]
async fn forgotten_tokens_are_replaced_and_a_wrong_secret_is_named_on_real_azure() {
    let Some(peer) = Peer::start() else { return };
    peer.set("x", "v", json!({})).await;
    let opened = peer.open(plain());
    assert_eq!(read(&opened, "x").await, Ok("value=v;".into()));
    peer.control(json!({ "forget": true })).await;
    assert_eq!(read(&opened, "x").await, Ok("value=v;".into()));
    let mut wrong = peer.settings(plain());
    let BackendKind::Azure(azure) = &mut wrong.kind else { panic!("Azure's") };
    azure.login = principal("wrong");
    let error = error(&open(&wrong), "x").await;
    assert!(class(&error) == "identity" && error.to_string().contains("AADSTS7000215"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("`SECRET`")), "{error:?}");
}
