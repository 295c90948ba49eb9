//! What readers and checks cost at the place itself, for each type of back-end: a thousand cold readers of a secret as much
//! as one, and a check for existence no value. The places are scripted servers, files and a small program.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::future::join_all;
use keyside_config::settings::{
    AwsKeys, AwsSettings, AzureLogin, AzureSettings, BackendKind, BackendSettings, GcpLogin, GcpSettings, Layout,
    LocalSettings, NetworkSettings, PluginSettings, SecretText, SqlDatabase, VaultLogin, VaultSettings,
    ZenmlServerSettings, ZenmlSqlSettings,
};
use keyside_protocol::level::ValidationLevel;
use keyside_protocol::value::SecretValue;
use serde_json::json;

use super::tests::{options, policy};
use super::*;
use crate::backend::faulty::{Answer, Faulty, Reply, Request};
use crate::backend::{Backend, Capabilities, Description, Opened, Secret, zenml_sql};
use crate::check::tests::run_as_agent;

const READERS: usize = 1000;

/// Counts the secrets that a back-end is asked for with their values.
struct Counted {
    inner: Arc<dyn Backend>,
    fetches: Arc<AtomicUsize>,
}

#[async_trait]
impl Backend for Counted {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn fetch(&self, name: &str, scopes: Scopes) -> Result<Secret, BackendError> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        self.inner.fetch(name, scopes).await
    }

    fn most_at_once(&self) -> usize {
        self.inner.most_at_once()
    }

    async fn fetch_many(
        &self,
        names: &[&str],
        scopes: Scopes,
    ) -> Result<Vec<Result<Secret, BackendError>>, BackendError> {
        self.fetches.fetch_add(names.len(), Ordering::Relaxed);
        self.inner.fetch_many(names, scopes).await
    }

    async fn describe(&self, names: &[&str], scopes: Scopes) -> Result<Vec<Option<Description>>, BackendError> {
        self.inner.describe(names, scopes).await
    }

    async fn list(&self) -> Result<Vec<Description>, BackendError> {
        self.inner.list().await
    }
}

fn open(kind: BackendKind) -> Opened {
    // The tables are filled by the back-end itself.
    let writable = matches!(kind, BackendKind::ZenmlSql(_));
    let settings = BackendSettings {
        name: "place".into(),
        kind,
        required: true,
        parallelism: 8,
        timeout: Duration::from_secs(20),
        ttl: None,
        writable,
        denied_means_absent: false,
        network: NetworkSettings::default(),
    };
    crate::backend::open(&settings, 1 << 20).unwrap_or_else(|error| panic!("{error}"))
}

fn secret_text(text: &str) -> SecretText {
    SecretText { text: text.to_owned().into(), origin: "the test".into(), file: None }
}

fn plain() -> Layout {
    Layout::Plain { prefix: String::new() }
}

/// A resolver on one back-end that knows nothing yet, and how many secrets that back-end was asked for.
fn cold(kind: BackendKind) -> (Arc<Resolver>, Arc<AtomicUsize>) {
    let opened = open(kind);
    let fetches = Arc::<AtomicUsize>::default();
    let reader = Arc::new(Counted { inner: opened.reader, fetches: Arc::clone(&fetches) });
    let source = Source::new(options("place"), Opened { reader, writer: None, values: None });
    let bounds = Bounds { max_bytes: 1 << 20, max_entries: 1000 };
    (Arc::new(Resolver::new(vec![source], vec![policy()], bounds, Scopes::PrivateFirst)), fetches)
}

async fn read(resolver: &Arc<Resolver>, readers: usize) {
    let reads = (0..readers).map(|_| resolver.secret("db", Selection::default(), Want::Usual));
    for found in join_all(reads).await {
        let found = found.unwrap_or_else(|miss| panic!("{}", miss.error));
        assert_eq!(found.hit.cached.secret.get("k").expect("the key is there").expose(), b"v");
    }
}

/// Checks a place: `kind` says how to open it, `calls` how many calls it has had, and how many of them read a value.
async fn check(kind: impl Fn() -> BackendKind, calls: impl Fn() -> (usize, usize)) {
    let since = |before: (usize, usize)| (calls().0 - before.0, calls().1 - before.1);
    let (one, _) = cold(kind());
    let name = kind().type_name();
    let before = calls();
    read(&one, 1).await;
    let alone = since(before);

    let (many, fetches) = cold(kind());
    let before = calls();
    read(&many, READERS).await;
    assert_eq!(fetches.load(Ordering::Relaxed), 1, "{name}");
    assert_eq!(since(before), alone, "{name}: a crowd costs the place what one reader costs");
    assert!(alone.1 <= 1, "{name}: {alone:?}");

    let (checked, fetches) = cold(kind());
    let references: Vec<String> = (0..READERS).map(|key| format!("{{{{db.k{key}}}}}")).collect();
    let before = calls();
    let reply = run_as_agent(&checked, &references, ValidationLevel::SecretExists).await;
    assert!(reply.ok, "{name}: {:?}", reply.results[0]);
    assert_eq!((fetches.load(Ordering::Relaxed), since(before).1), (0, 0), "{name}: existence is told without a value");
}

/// The same for a server that answers as `script` says; `reads` tells the requests that read a value.
async fn check_server(
    script: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    reads: impl Fn(&Request) -> bool,
    kind: impl Fn(&str) -> BackendKind,
) {
    let server = Faulty::start(script).await;
    let url = server.url();
    check(|| kind(&url), || (server.calls(), server.requests().iter().filter(|request| reads(request)).count())).await;
    assert!(server.requests().iter().any(reads), "some request did read the value");
}

fn ok(body: &serde_json::Value) -> Answer {
    Reply::json(200, body.to_string()).into()
}

fn unknown() -> Answer {
    Reply::json(404, r#"{"errors": []}"#).into()
}

#[tokio::test]
async fn on_a_zenml_server_a_crowd_reads_once_and_existence_reads_nothing() {
    const ID: &str = "11be8523-7e1c-46a2-89c5-74b124f573a8";
    let item = |values: serde_json::Value| {
        let body = json!({
            "created": "2026-01-01T00:00:00.000000", "updated": "2026-01-01T00:00:01.000000", "private": false,
            "user_id": "c8a56173-ecb5-4035-927e-9e597d2218db", "values": values,
        });
        json!({"body": body, "metadata": null, "resources": null, "id": ID, "permission_denied": false, "name": "db"})
    };
    let script = move |request: &Request| match request.path() {
        "/api/v1/info" => ok(&json!({"version": "0.98.0"})),
        "/api/v1/login" => ok(&json!({"access_token": "token", "token_type": "bearer"})),
        "/api/v1/secrets" => {
            ok(&json!({"index": 1, "max_size": 20, "total_pages": 1, "total": 1, "items": [item(json!({}))]}))
        }
        path if path.ends_with(ID) => ok(&item(json!({"k": "v"}))),
        _ => unknown(),
    };
    let kind = |url: &str| {
        let login = keyside_config::settings::ServerLogin::ApiKey(secret_text("key"));
        BackendKind::ZenmlServer(ZenmlServerSettings { url: url.into(), login: Some(login), workspace: None })
    };
    check_server(script, |request| request.path().ends_with(ID), kind).await;
}

#[tokio::test]
async fn on_aws_a_crowd_reads_once_and_existence_reads_nothing() {
    fn target(request: &Request) -> &str {
        request.header("x-amz-target").unwrap_or_default().trim_start_matches("secretsmanager.")
    }
    let arn = "arn:aws:secretsmanager:eu-central-1:1:secret:db-AbCdEf";
    let value = json!({"ARN": arn, "Name": "db", "VersionId": "v1", "SecretString": r#"{"k": "v"}"#, "VersionStages": ["AWSCURRENT"]});
    let description = json!({"ARN": arn, "Name": "db", "VersionIdsToStages": {"v1": ["AWSCURRENT"]}});
    let script = move |request: &Request| match target(request) {
        "GetSecretValue" => ok(&value),
        "DescribeSecret" => ok(&description),
        _ => unknown(),
    };
    let kind = |url: &str| {
        let (secret_access_key, access_key_id) = (secret_text("test"), "AKIATEST".to_owned());
        BackendKind::Aws(AwsSettings {
            region: Some("eu-central-1".into()),
            endpoint_url: Some(url.into()),
            profile: None,
            role_arn: None,
            keys: Some(AwsKeys { access_key_id, secret_access_key, session_token: None }),
            layout: plain(),
        })
    };
    check_server(script, |request| target(request).contains("SecretValue"), kind).await;
}

#[tokio::test]
async fn on_gcp_a_crowd_reads_once_and_existence_reads_nothing() {
    use base64::Engine as _;
    let data = base64::engine::general_purpose::STANDARD.encode(r#"{"k": "v"}"#);
    let script = move |request: &Request| match request.path() {
        path if path.ends_with(":access") => {
            ok(&json!({"name": "projects/12/secrets/db/versions/3", "payload": {"data": data}}))
        }
        "/v1/projects/p/secrets/db" => ok(&json!({"name": "projects/12/secrets/db", "etag": "\"e\""})),
        _ => unknown(),
    };
    let kind = |url: &str| {
        BackendKind::Gcp(GcpSettings {
            project: "p".into(),
            endpoint: Some(url.into()),
            login: GcpLogin::Token(secret_text("reader")),
            impersonate: None,
            layout: plain(),
        })
    };
    check_server(script, |request| request.path().ends_with(":access"), kind).await;
}

#[tokio::test]
async fn on_azure_a_crowd_reads_once_and_existence_reads_nothing() {
    fn reads(request: &Request) -> bool {
        request.header("authorization").is_some() && matches!(request.path(), "/secrets/db" | "/secrets/db/")
    }
    let id = "https://v.vault.azure.net/secrets/db/0123456789abcdef0123456789abcdef";
    let attributes = json!({"enabled": true, "created": 1_700_000_000, "updated": 1_700_000_000});
    let value = json!({"value": r#"{"k": "v"}"#, "id": id, "attributes": attributes});
    let versions = json!({"value": [{"id": id, "attributes": attributes}], "nextLink": null});
    let script = move |request: &Request| match request.path() {
        path if path.ends_with("/oauth2/v2.0/token") => {
            ok(&json!({"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": "token"}))
        }
        _ if request.header("authorization").is_none() => {
            let scheme = r#"Bearer authorization="https://login.invalid/tenant", resource="https://vault.azure.net""#;
            let body = json!({"error": {"code": "Unauthorized", "message": "AKV10000"}}).to_string();
            Reply::json(401, body).header("WWW-Authenticate", scheme).into()
        }
        _ if reads(request) => ok(&value),
        "/secrets/db/versions" => ok(&versions),
        _ => unknown(),
    };
    let kind = |url: &str| {
        let login = AzureLogin::ServicePrincipal {
            client_id: "client".into(),
            tenant_id: "tenant".into(),
            client_secret: secret_text("right"),
        };
        let (vault_url, authority) = (url.to_owned(), Some(url.to_owned()));
        BackendKind::Azure(AzureSettings { vault_url, login, authority, layout: plain() })
    };
    check_server(script, reads, kind).await;
}

#[tokio::test]
async fn on_vault_a_crowd_reads_once_and_existence_reads_nothing() {
    let metadata = json!({"created_time": "2026-01-02T03:04:05.678901234Z", "deletion_time": "", "destroyed": false, "version": 3});
    let script = move |request: &Request| match request.path() {
        "/v1/auth/token/lookup-self" => ok(&json!({"data": {"ttl": 0}})),
        "/v1/secret/data/db" => ok(&json!({"data": {"data": {"k": "v"}, "metadata": metadata}})),
        "/v1/secret/subkeys/db" => ok(&json!({"data": {"subkeys": {"k": null}, "metadata": metadata}})),
        _ => unknown(),
    };
    let kind = |url: &str| {
        BackendKind::Vault(VaultSettings {
            url: url.into(),
            mount: "secret".into(),
            namespace: None,
            kv: 2,
            login: VaultLogin::Token(secret_text("s.root")),
            auth_mount: None,
            layout: plain(),
        })
    };
    check_server(script, |request| request.path() == "/v1/secret/data/db", kind).await;
}

/// What a file costs is not counted in calls; that it is read for one reader alone shows above it.
fn uncounted() -> (usize, usize) {
    (0, 0)
}

#[tokio::test]
async fn on_zenmls_tables_a_crowd_reads_once_and_existence_reads_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("zenml.db");
    zenml_sql::create_store(&path).await.expect("a new store");
    let kind = || {
        BackendKind::ZenmlSql(Box::new(ZenmlSqlSettings {
            database: SqlDatabase::Sqlite(path.clone()),
            encryption_key: None,
            user: Some("default".into()),
            user_required: true,
            workspace: None,
            values: None,
            backup: None,
        }))
    };
    let writer = open(kind()).writer.expect("writable");
    let values = [("k".to_owned(), SecretValue::copy_of(b"v"))].into_iter().collect();
    writer.create("db", crate::backend::Scope::Public, values).await.expect("created");
    check(kind, uncounted).await;
}

#[tokio::test]
async fn on_a_local_file_a_crowd_reads_once_and_existence_reads_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secrets.yaml");
    fs::write(&path, "db:\n  k: dg==\n  zenml_schema_name: arbitrary\n").expect("room");
    let kind = || BackendKind::Local(LocalSettings { path: path.clone(), base: folder.path().to_owned() });
    check(kind, uncounted).await;
}

#[tokio::test]
async fn on_a_plug_in_a_crowd_reads_once_and_existence_reads_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let secrets = "\"db\"\tpublic\ti1\t1\t[\"k\"]\t{\"k\":\"v\"}\n";
    fs::write(folder.path().join("secrets"), secrets).expect("room");
    let requests = folder.path().join("requests");
    let peer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/peers/plugin.sh");
    // Each request is kept before the plug-in sees it.
    let keeper = r#"while IFS= read -r line; do
        printf '%s\n' "$line" >>"$2/requests"; printf '%s\n' "$line"
    done | "$1" "$2""#;
    let command = ["/bin/sh", "-c", keeper, "sh"].map(str::to_owned);
    let words = [peer.display().to_string(), folder.path().display().to_string()];
    let command: Vec<String> = command.into_iter().chain(words).collect();
    let kind = || BackendKind::Plugin(PluginSettings { command: command.clone(), env: BTreeMap::new() });
    let calls = || {
        let asked = fs::read_to_string(&requests).unwrap_or_default();
        (asked.lines().count(), asked.lines().filter(|line| line.contains("\"method\":\"fetch\"")).count())
    };
    check(kind, calls).await;
    assert!(calls().1 > 0, "some request did read the value");
}
