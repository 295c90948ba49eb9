//! The routes over a real connection, on a back-end in memory.

use keyside_config::settings::{AuditSettings, GrantSettings, SecretPattern};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::backend::fake::FakeBackend;
use crate::backend::{Component, Opened, Scope, Scopes, Stack};
use crate::cache::Bounds;
use crate::resolver::Source;
use crate::resolver::tests::{options, policy};

mod admin;
mod resolve;
mod watch;

const OWN_UID: u32 = 7;

struct Setting {
    agent: Arc<Agent>,
    current: Arc<Current>,
}

fn setting(backends: &[(&str, &Arc<FakeBackend>, bool)], grants: Vec<GrantSettings>) -> Setting {
    setting_with_audit(backends, grants, &AuditSettings::default())
}

fn setting_with_audit(
    backends: &[(&str, &Arc<FakeBackend>, bool)],
    grants: Vec<GrantSettings>,
    audit: &AuditSettings,
) -> Setting {
    let sources = backends
        .iter()
        .map(|(name, fake, writable)| {
            let reader: Arc<FakeBackend> = Arc::clone(fake);
            let writer: Arc<FakeBackend> = Arc::clone(fake);
            Source::new(options(name), Opened { reader, writer: writable.then_some(writer as _), values: None })
        })
        .collect();
    let bounds = Bounds { max_bytes: 1 << 20, max_entries: 1000 };
    let policies = backends.iter().map(|_| policy()).collect();
    let agent = Arc::new(Agent {
        resolver: Arc::new(Resolver::new(sources, policies, bounds, Scopes::PrivateFirst)),
        access: Access::new(OWN_UID, grants, vec![("agent".to_owned(), None)]),
        audit: Arc::new(
            Audit::start(Audit::open_log(audit).expect("the log can be opened"), audit.required).expect("a thread"),
        ),
        limits: LimitSettings {
            value: 1 << 20,
            request: 4096,
            header: 16 << 10,
            entries: 1000,
            connections_per_uid: 10,
            watchers_per_uid: 10,
            grace: Duration::from_secs(1),
        },
        level: ValidationLevel::SecretAndKeyExists,
        request_timeout: Duration::from_secs(10),
        started: Tick::now(),
        listeners: vec!["/run/a.sock".to_owned()],
        connections: Arc::default(),
        max_cache_bytes: 1 << 20,
        metrics: Arc::default(),
        stop: tokio::sync::watch::channel(false).0,
    });
    Setting { current: Arc::new(Current::new(Arc::clone(&agent))), agent }
}

fn grant(uid: u32, read: &[(&str, Option<&[&str]>)]) -> GrantSettings {
    let pattern = |(secret, keys): &(&str, Option<&[&str]>)| SecretPattern {
        secret: (*secret).to_owned(),
        keys: keys.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect()),
    };
    GrantSettings {
        name: "team".to_owned(),
        uids: vec![uid],
        gids: Vec::new(),
        exes: Vec::new(),
        cgroups: Vec::new(),
        read: read.iter().map(pattern).collect(),
        write: Vec::new(),
        admin: false,
    }
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.split_once(": ").filter(|(key, _)| *key == name).map(|(_, value)| value))
    }
}

/// A connection that `uid` has opened.
fn connection(uid: u32) -> Connection {
    let peer = Peer { uid, gid: uid, pid: None, groups: Vec::new(), program: Default::default(), embedded: false };
    Connection {
        peer,
        listener: "agent".into(),
        pace: Arc::default(),
        probes_only: false,
        handover: Handover::default(),
    }
}

impl Setting {
    /// Sends `bytes` as `uid` and reads everything until the agent closes.
    async fn raw(&self, uid: u32, bytes: &[u8]) -> Vec<u8> {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let serving =
            tokio::spawn(crate::serve::serve_one(Arc::clone(&self.current), theirs, connection(uid), Arc::default()));
        let (mut read, mut write) = ours.into_split();
        write.write_all(bytes).await.expect("taken");
        drop(write);
        let mut answer = Vec::new();
        read.read_to_end(&mut answer).await.expect("an answer");
        serving.await.expect("no panic");
        answer
    }

    async fn ask_as(&self, uid: u32, method: &str, target: &str, headers: &[&str], body: &str) -> Answer {
        let mut request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        for header in headers {
            request.push_str(header);
            request.push_str("\r\n");
        }
        if !body.is_empty() {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        request.push_str(body);
        let answer = self.raw(uid, request.as_bytes()).await;
        let split = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a complete head");
        let head = String::from_utf8_lossy(&answer[..split]).into_owned();
        let status = head[9..12].parse().expect("a status");
        Answer { status, head, body: answer[split + 4..].to_vec() }
    }

    async fn get(&self, target: &str) -> Answer {
        self.ask_as(OWN_UID, "GET", target, &[], "").await
    }

    async fn post(&self, target: &str, body: &str) -> Answer {
        self.ask_as(OWN_UID, "POST", target, &[], body).await
    }
}

fn store() -> Arc<FakeBackend> {
    Arc::new(FakeBackend::new().with("db", &[("user", "u"), ("password", "p")]).with("With Spaces", &[("a b", " x ")]))
}

#[tokio::test]
async fn a_value_is_its_raw_bytes_and_a_secret_its_pairs() {
    let store = store();
    store.put_bytes("raw", Scope::Public, &[("k", &[0xff, 0])]);
    let setting = setting(&[("store", &store, false)], Vec::new());
    let answer = setting.get("/v1/secrets/With%20Spaces/a%20b").await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, b" x ".as_slice()));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("keyside-protocol"), Some("1"));
    assert_eq!(answer.header("keyside-stale"), Some("false"));
    assert_eq!(setting.get("/v1/secrets/raw/k").await.body, [0xff, 0]);
    assert_eq!(setting.get("/v1/secrets/raw").await.json()["values"]["k"]["base64"], "/wA=");
    let secret = setting.get("/v1/secrets/db").await.json();
    assert_eq!(secret["values"], serde_json::json!({ "user": "u", "password": "p" }));
    assert_eq!(secret["backend"], "store");
}

#[tokio::test]
async fn a_value_from_memory_is_the_same_reply_with_and_without_the_http_library() {
    let store = store();
    store.put("large", Scope::Public, &[("k", &"x".repeat(10_000))]);
    store.put("empty", Scope::Public, &[("k", "")]);
    store.put_bytes("raw", Scope::Public, &[("k", b"\r\n\r\n\xff\0")]);
    let setting = setting(&[("store", &store, false)], Vec::new());
    for (target, is_small) in
        [("db/user", true), ("empty/k", true), ("raw/k", true), ("large/k", false), ("db/none", false), ("no/k", false)]
    {
        let request = |more: &str| format!("GET /v1/secrets/{target} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
        // Now it is in memory.
        let _ = setting.raw(OWN_UID, request("X-Long: way\r\n").as_bytes()).await;
        let long = setting.raw(OWN_UID, request("X-Long: way\r\n").as_bytes()).await;
        let metrics = Arc::clone(&setting.current.agent().metrics);
        let before = metrics.count_from_memory();
        let short = setting.raw(OWN_UID, request("").as_bytes()).await;
        assert_eq!(metrics.count_from_memory() - before, u64::from(is_small), "{target}");
        assert_eq!(String::from_utf8_lossy(&short), String::from_utf8_lossy(&long), "{target}");
        let both = setting.raw(OWN_UID, format!("{}{}", request(""), request("X-Long: way\r\n")).as_bytes()).await;
        assert_eq!(both, [short, long].concat(), "{target}: one behind the other");
    }
}

#[tokio::test]
async fn a_reader_that_has_the_value_is_told_so() {
    let store = store();
    let setting = setting(&[("store", &store, false)], Vec::new());
    let etag = setting.get("/v1/secrets/db").await.header("etag").expect("a tag").to_owned();
    let header = format!("If-None-Match: {etag}");
    for target in ["/v1/secrets/db", "/v1/secrets/db/user"] {
        let answer = setting.ask_as(OWN_UID, "GET", target, &[&header], "").await;
        assert_eq!((answer.status, answer.body.len()), (304, 0));
    }
    store.put("db", Scope::Public, &[("user", "new")]);
    let answer = setting.ask_as(OWN_UID, "GET", "/v1/secrets/db/user", &[&header, "Cache-Control: no-cache"], "").await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"new".as_slice()));
}

#[tokio::test]
async fn outside_the_grant_there_is_one_answer_byte_for_byte_and_no_call() {
    let store = store();
    let grants = vec![grant(9, &[("db", Some(&["user"])), ("gone", None)])];
    let setting = setting(&[("store", &store, false)], grants);
    let mut answers = Vec::new();
    for target in [
        "/v1/secrets/With%20Spaces",
        "/v1/secrets/absent",
        "/v1/secrets/absent/key",
        "/v1/secrets/db/password",
        "/v1/secrets/db/absent",
    ] {
        let answer = setting.ask_as(9, "GET", target, &[], "").await;
        answers.push((answer.status, answer.head, answer.body));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(answers[0].0, 404);
    assert_eq!(store.calls(), 0);
    let shown = setting.ask_as(9, "GET", "/v1/secrets/db", &[], "").await.json();
    assert_eq!(shown["values"], serde_json::json!({ "user": "u" }));
    let listed = setting.ask_as(9, "GET", "/v1/secrets", &[], "").await.json();
    assert_eq!(listed["secrets"].as_array().map(Vec::len), Some(1));
    assert_eq!(listed["secrets"][0]["keys"], serde_json::json!(["user"]));
}

#[tokio::test]
async fn a_peer_without_a_grant_gets_health_and_ready_and_nothing_else() {
    let setting = setting(&[("store", &store(), false)], Vec::new());
    assert_eq!(setting.ask_as(99, "GET", "/v1/health", &[], "").await.status, 200);
    assert_eq!(setting.ask_as(99, "GET", "/v1/ready", &[], "").await.status, 503);
    for (method, target) in
        [("GET", "/v1/secrets/db"), ("GET", "/v1/status"), ("POST", "/v1/resolve"), ("GET", "/nonsense")]
    {
        let answer = setting.ask_as(99, method, target, &[], "").await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "peer_refused"), "{method} {target}");
    }
}

#[tokio::test]
async fn the_agents_own_uid_keeps_status_when_grants_name_others() {
    let setting = setting(&[("store", &store(), false)], vec![grant(9, &[("*", None)])]);
    assert_eq!(setting.get("/v1/status").await.status, 200);
    assert_eq!(setting.get("/v1/secrets/db").await.code(), "peer_refused");
}

#[tokio::test]
async fn what_cannot_be_right_is_refused_with_its_code() {
    let setting = setting(&[("store", &store(), false)], Vec::new());
    for (method, target, body, status, code) in [
        ("GET", "/v1/nothing", "", 404, "not_found"),
        ("GET", "/v1/secrets/a/b/c", "", 404, "not_found"),
        ("GET", "/v1/watch", "", 400, "invalid_request"),
        ("PUT", "/v1/secrets/db", "", 405, "method_not_allowed"),
        ("GET", "/v1/resolve", "", 405, "method_not_allowed"),
        ("GET", "/v1/secrets/db?x=1", "", 400, "invalid_request"),
        ("GET", "/v1/secrets?size=0", "", 400, "invalid_request"),
        ("GET", "/v1/secrets?size=1001", "", 400, "invalid_request"),
        ("GET", "/v1/secrets/db?backend=none", "", 400, "invalid_request"),
        ("GET", "/v1/secrets/db?scope=mine", "", 400, "invalid_request"),
        ("GET", "/v1/secrets/", "", 400, "invalid_request"),
        ("GET", "/v1/secrets/..", "", 400, "invalid_request"),
        ("GET", "/v1/secrets/%2e%2e", "", 400, "invalid_request"),
        ("GET", "/v1/secrets/a%00b", "", 400, "invalid_request"),
        ("GET", "/v1/secrets/a%0ab", "", 400, "invalid_request"),
        ("GET", "/v1/secrets/%ff", "", 400, "invalid_request"),
        ("GET", "/v1/secrets/none", "", 404, "secret_not_found"),
        ("GET", "/v1/secrets/db/none", "", 404, "key_not_found"),
        ("POST", "/v1/resolve", "", 400, "invalid_request"),
        ("POST", "/v1/resolve", "{", 400, "invalid_request"),
        ("POST", "/v1/check", "{\"references\":1}", 400, "invalid_request"),
        ("POST", "/v1/check", "{\"references\":[],\"level\":\"\"}", 400, "invalid_request"),
        ("POST", "/v1/secrets", "{\"name\":\"x\",\"values\":{}}", 403, "read_only"),
        ("DELETE", "/v1/secrets/db", "", 403, "read_only"),
    ] {
        let answer = setting.ask_as(OWN_UID, method, target, &[], body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {target} {body}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    let name = "x".repeat(256);
    assert_eq!(setting.get(&format!("/v1/secrets/{name}")).await.status, 400);
    let large = format!("{{\"references\":[\"{}\"]}}", "x".repeat(5000));
    assert_eq!(setting.post("/v1/check", &large).await.code(), "too_large");
}

#[tokio::test]
async fn nothing_after_a_refused_request_is_executed() {
    let store = store();
    let setting = setting(&[("store", &store, false)], Vec::new());
    let second = "GET /v1/secrets/db HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for first in [
        "POST /v1/check HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /v1/status HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "GET /v1/status HTTP/1.1\r\n\r\n",
        "GET http://localhost/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        "GET /v1/status HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
        "GET /v1/status HTTP/1.1\r\nHost: localhost\r\nOrigin: http://x\r\n\r\n",
        "GET /v1/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        let answer = setting.raw(OWN_UID, format!("{first}{second}").as_bytes()).await;
        let text = String::from_utf8_lossy(&answer);
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{first}\n{text}");
        assert!(text.starts_with("HTTP/1.1 4"), "{text}");
    }
    assert_eq!(store.calls(), 0);
}

#[tokio::test]
async fn a_resolve_is_complete_or_says_everything_that_is_wrong() {
    let store = store();
    let setting = setting(&[("store", &store, false)], Vec::new());
    let body = r#"{"templates":{"A":"{{db.user}}:{{ db.password | base64 }}"},"references":{"B":"{{db.user}}"},
        "secrets":["db"],"unknown":1}"#;
    let answer = setting.post("/v1/resolve", body).await.json();
    assert_eq!(answer["values"], serde_json::json!({ "A": "u:cA==", "B": "u" }));
    assert_eq!(answer["secrets"]["db"]["values"]["password"], "p");
    let body = r#"{"templates":{"A":"{{db.none}} {{no.k}}","C":"{{"},"references":{"B":"plain"},"secrets":["nope"]}"#;
    let answer = setting.post("/v1/resolve", body).await;
    assert_eq!((answer.status, answer.code().as_str()), (422, "unresolved"));
    let failures = answer.json()["failures"].clone();
    let codes: Vec<_> = failures
        .as_array()
        .expect("a list")
        .iter()
        .map(|failure| failure["code"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(
        codes,
        ["invalid_reference", "invalid_reference", "key_not_found", "secret_not_found", "secret_not_found"]
    );
    assert!(!answer.body.windows(3).any(|window| window == b"u:c"), "no value beside the failures");
}

#[tokio::test]
async fn a_resolve_may_be_tried_again_only_if_every_failure_is_transient() {
    let store = store();
    store.fail_name("db", FakeBackend::transient());
    let setting = setting(&[("store", &store, false)], Vec::new());
    let answer = setting.post("/v1/resolve", r#"{"references":{"A":"{{db.user}}"}}"#).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.json()["failures"][0]["retry"], true);
    let answer = setting.post("/v1/resolve", r#"{"references":{"A":"{{db.user}}","B":"{{no.k}}"}}"#).await;
    assert_eq!((answer.status, answer.header("retry-after")), (422, None));
}

#[tokio::test]
async fn a_stack_shows_its_references_to_whoever_may_read_every_secret() {
    let texts = [("password", "{{db.password}}"), ("bad", "{{.a.b}}"), ("none", "canary")];
    let texts = texts.map(|(attribute, text)| (attribute.to_owned(), text.to_owned())).to_vec();
    let component = Component { kind: "experiment_tracker".into(), name: "mlflow".into(), texts };
    let plain = store();
    let knowing = Arc::new(FakeBackend::new().with_stack(Stack { name: "gpu".into(), components: vec![component] }));
    let backends: [(&str, &Arc<FakeBackend>, bool); 2] = [("store", &plain, false), ("server", &knowing, false)];
    let open = setting(&backends, Vec::new());
    let answer = open.get("/v1/stack?name=gpu").await;
    assert_eq!((answer.status, answer.json()["backend"].as_str()), (200, Some("server")));
    let references = answer.json()["references"].clone();
    assert_eq!(references[0]["reference"], "{{.a.b}}", "what only looks like one is worth an answer");
    assert_eq!(references[1]["component"], "experiment_tracker mlflow");
    assert_eq!((references[1]["attribute"].as_str(), references.as_array().map(Vec::len)), (Some("password"), Some(2)));
    assert!(!String::from_utf8_lossy(&answer.body).contains("canary"), "nothing but references is shown");
    assert_eq!((open.get("/v1/stack?name=cpu").await.status, open.get("/v1/stack").await.status), (422, 400));
    let narrow = setting(&backends, vec![grant(7, &[("db", None)])]);
    assert_eq!(narrow.ask_as(7, "GET", "/v1/stack?name=gpu", &[], "").await.code(), "peer_refused");
    let broad = setting(&backends, vec![grant(7, &[("*", None)])]);
    assert_eq!(broad.ask_as(7, "GET", "/v1/stack?name=gpu", &[], "").await.status, 200);
    let none = setting(&backends[..1], Vec::new());
    assert_eq!(none.get("/v1/stack?name=gpu").await.code(), "unresolved");
}

#[tokio::test]
async fn a_written_secret_is_served_at_once() {
    let store = store();
    let setting = setting(&[("store", &store, true)], Vec::new());
    assert_eq!(setting.get("/v1/secrets/new").await.status, 404);
    let created = setting.post("/v1/secrets", r#"{"name":"new","values":{"k":"1"}}"#).await;
    assert_eq!((created.status, created.json()["keys"].clone()), (201, serde_json::json!(["k"])));
    assert_eq!(setting.get("/v1/secrets/new/k").await.body, b"1");
    assert_eq!(setting.post("/v1/secrets", r#"{"name":"new","values":{}}"#).await.code(), "conflict");
    let patch = r#"{"values":{"k":null,"j":"2"}}"#;
    let updated = setting.ask_as(OWN_UID, "PATCH", "/v1/secrets/new", &[], patch).await;
    assert_eq!((updated.status, updated.json()["keys"].clone()), (200, serde_json::json!(["j"])));
    assert_eq!(setting.get("/v1/secrets/new").await.json()["values"], serde_json::json!({ "j": "2" }));
    assert_eq!(setting.ask_as(OWN_UID, "DELETE", "/v1/secrets/new", &[], "").await.status, 200);
    assert_eq!(setting.get("/v1/secrets/new").await.status, 404);
    assert_eq!(setting.ask_as(OWN_UID, "DELETE", "/v1/secrets/new", &[], "").await.code(), "secret_not_found");
}

#[tokio::test]
async fn a_write_names_only_the_keys_that_its_peer_may_know_of() {
    let store = store();
    let mut grant = grant(9, &[("db", Some(&["user"]))]);
    grant.write = vec![SecretPattern { secret: "db".to_owned(), keys: Some(vec!["user".to_owned()]) }];
    let setting = setting(&[("store", &store, true)], vec![grant]);
    let patch = r#"{"values":{"user":"new"}}"#;
    let answer = setting.ask_as(9, "PATCH", "/v1/secrets/db", &[], patch).await;
    assert_eq!((answer.status, answer.json()["keys"].clone()), (200, serde_json::json!(["user"])));
}

#[tokio::test]
async fn a_null_is_dropped_when_a_secret_is_created_and_a_list_is_no_object() {
    let store = store();
    let setting = setting(&[("store", &store, true)], Vec::new());
    let created = setting.post("/v1/secrets", r#"{"name":"new","values":{"k":"1","n":null}}"#).await;
    assert_eq!((created.status, created.json()["keys"].clone()), (201, serde_json::json!(["k"])));
    assert_eq!(setting.post("/v1/secrets", r#"{"name":"bare"}"#).await.status, 201);
    for (target, body) in
        [("/v1/secrets", r#"["x",false,{}]"#), ("/v1/resolve", "[]"), ("/v1/check", r#"[["{{db.user}}"]]"#)]
    {
        assert_eq!(setting.post(target, body).await.code(), "invalid_request", "{target}");
    }
}

#[tokio::test]
async fn a_conditional_write_compares_with_what_the_back_end_has_now() {
    let store = store();
    let setting = setting(&[("store", &store, true)], Vec::new());
    let etag = setting.get("/v1/secrets/db").await.header("etag").expect("a tag").to_owned();
    let header = format!("If-Match: {etag}");
    store.put("db", Scope::Public, &[("user", "somebody else's change")]);
    let patch = r#"{"values":{"user":"mine"}}"#;
    let answer = setting.ask_as(OWN_UID, "PATCH", "/v1/secrets/db", &[&header], patch).await;
    assert_eq!(answer.code(), "precondition_failed");
    let etag = setting.get("/v1/secrets/db").await.header("etag").expect("a tag").to_owned();
    let header = format!("If-Match: {etag}");
    assert_eq!(setting.ask_as(OWN_UID, "PATCH", "/v1/secrets/db", &[&header], patch).await.status, 200);
    assert_eq!(setting.ask_as(OWN_UID, "DELETE", "/v1/secrets/db", &[&header], "").await.status, 412);
}

#[tokio::test]
async fn a_write_that_could_go_to_two_places_must_say_where() {
    let (first, second) = (store(), Arc::new(FakeBackend::new()));
    let setting = setting(&[("store", &first, true), ("legacy", &second, true)], Vec::new());
    let answer = setting.post("/v1/secrets", r#"{"name":"new","values":{}}"#).await;
    assert_eq!(answer.code(), "conflict");
    assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.contains("store, legacy")));
    assert_eq!(setting.post("/v1/secrets?backend=legacy", r#"{"name":"new","values":{}}"#).await.status, 201);
    let patch = r#"{"values":{"user":"x"}}"#;
    let answer = setting.ask_as(OWN_UID, "PATCH", "/v1/secrets/db", &[], patch).await;
    assert_eq!(answer.status, 200, "only one of them has it");
}

#[tokio::test]
async fn lists_come_in_byte_order_page_by_page() {
    let mut fake = FakeBackend::new().with_private("b", &[("k", "v")]);
    for name in ["b", "a", "Z", "ä", "c"] {
        fake = fake.with(name, &[("k", "v")]);
    }
    let store = Arc::new(fake);
    let setting = setting(&[("store", &store, false)], Vec::new());
    let mut seen = Vec::new();
    let mut target = "/v1/secrets?size=2".to_owned();
    loop {
        let page = setting.get(&target).await.json();
        for secret in page["secrets"].as_array().expect("a list") {
            seen.push(secret["name"].as_str().expect("a name").to_owned());
        }
        let Some(next) = page["next"].as_str() else { break };
        target = format!("/v1/secrets?size=2&after={next}");
    }
    assert_eq!(seen, ["Z", "a", "b", "c", "ä"]);
    let both = setting.get("/v1/secrets?backend=store&prefix=b").await.json();
    assert_eq!(both["secrets"].as_array().map(Vec::len), Some(2), "every entry of one back-end");
    store.fail_always(FakeBackend::transient());
    let answer = setting.get("/v1/secrets").await.json();
    assert_eq!(answer["unavailable"], serde_json::json!(["store"]));
    assert_eq!(store.value_reads(), 0);
}

#[tokio::test]
async fn ready_is_said_after_the_first_answer_and_kept() {
    let store = store();
    let setting = setting(&[("store", &store, false)], Vec::new());
    let answer = setting.get("/v1/ready").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "not_ready"));
    assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.contains("`store`: unknown")));
    assert_eq!(answer.json()["backends"][0]["state"], "unknown");
    setting.agent.resolver.list(0).await.expect("listed");
    assert_eq!(setting.get("/v1/ready").await.status, 200);
}

#[tokio::test]
async fn every_decision_about_a_secret_is_audited_without_its_value() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("audit.jsonl");
    let store = Arc::new(FakeBackend::new().with("db", &[("password", "canary-4711")]));
    let audit = AuditSettings { path: Some(path.clone()), required: true };
    let setting = setting_with_audit(&[("store", &store, true)], vec![grant(9, &[("db", None)])], &audit);
    setting.ask_as(9, "GET", "/v1/secrets/db/password", &[], "").await;
    setting.ask_as(9, "GET", "/v1/secrets/other", &[], "").await;
    setting.ask_as(10, "GET", "/v1/secrets/db", &[], "").await;
    setting.ask_as(9, "POST", "/v1/resolve", &[], r#"{"references":{"A":"{{db.password}}"}}"#).await;
    setting.ask_as(9, "DELETE", "/v1/secrets/db", &[], "").await;
    let Setting { agent, current } = setting;
    drop(current);
    let audit = Arc::into_inner(agent).expect("no connection is left").audit;
    Arc::into_inner(audit).expect("nobody else has it").close();
    let text = std::fs::read_to_string(path).expect("written");
    assert!(!text.contains("canary-4711"));
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            let part = |name: &str| line["secrets"][0][name].as_str().unwrap_or_default().to_owned();
            (text("operation"), format!("{} {}", part("secret"), part("key")), text("verdict"))
        })
        .collect();
    let expected = [
        ("read", "db password", "allow"),
        ("read", "other ", "deny"),
        ("connect", " ", "deny"),
        ("resolve", "db password", "allow"),
        ("delete", "db ", "deny"),
    ];
    assert_eq!(told, expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
    assert_eq!((&lines[0]["cache"], &lines[3]["cache"]), (&"miss".into(), &"hit".into()));
    let told: Vec<_> = store.fetched_for().into_iter().map(|request| request.expect("a request").to_string()).collect();
    assert_eq!(told, [lines[0]["request"].as_str().expect("text")], "the back-end is told which request it is for");
    assert_eq!(lines[0]["grant"], "team");
}

/// A body that stops half-way must not keep the reply of another connection waiting.
#[tokio::test]
async fn a_client_that_stops_in_its_body_hinders_nobody() {
    let setting = setting(&[("store", &store(), false)], Vec::new());
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let serving = tokio::spawn(crate::serve::serve_one(
        Arc::clone(&setting.current),
        theirs,
        connection(OWN_UID),
        Arc::default(),
    ));
    let (_read, mut write) = ours.into_split();
    write.write_all(b"POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{").await.expect("taken");
    assert_eq!(setting.get("/v1/secrets/db/user").await.body, b"u");
    serving.abort();
}

#[tokio::test]
async fn metrics_are_for_every_matched_peer_and_name_no_secret() {
    let store = store();
    let setting = setting(&[("store", &store, false)], vec![grant(9, &[("db", None)])]);
    assert_eq!(setting.ask_as(9, "GET", "/v1/secrets/db/password", &[], "").await.status, 200);
    assert_eq!(setting.ask_as(9, "GET", "/v1/secrets/db/password", &[], "").await.status, 200);
    assert_eq!(setting.ask_as(9, "GET", "/v1/secrets/db/none", &[], "").await.status, 404);
    for uid in [OWN_UID, 9] {
        let answer = setting.ask_as(uid, "GET", "/metrics", &[], "").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        let text = String::from_utf8(answer.body).expect("text");
        for line in [
            "keyside_requests_total{route=\"value\",code=\"ok\"} 2",
            "keyside_requests_total{route=\"value\",code=\"key_not_found\"} 1",
            "keyside_request_duration_seconds_count{route=\"value\"} 3",
            "keyside_cache_entries 1",
            "keyside_backend_calls_total{backend=\"store\"} 1",
            "keyside_backend_up{backend=\"store\"} 1",
        ] {
            assert!(text.lines().any(|other| other == line), "no {line} in\n{text}");
        }
        assert!(!text.contains("\"db\"") && !text.contains("password"), "{text}");
    }
    assert_eq!(setting.ask_as(12, "GET", "/metrics", &[], "").await.code(), "peer_refused");
    assert_eq!(setting.ask_as(9, "POST", "/metrics", &[], "").await.status, 405);
    assert_eq!(setting.ask_as(9, "GET", "/metrics?name=x", &[], "").await.status, 400);
}

#[test]
fn every_family_stands_on_the_page_once_with_its_help_and_its_type() {
    let store = store();
    let setting = setting(&[("store", &store, false)], Vec::new());
    let request = Request::builder().uri("/metrics").header("host", "127.0.0.1:9464").body(()).expect("a request");
    let own = "127.0.0.1:9464".parse().expect("an address");
    let reply = answer_scrape(&setting.agent, &request, own);
    assert_eq!(reply.status(), 200);
    let page = futures_util::FutureExt::now_or_never(http_body_util::BodyExt::collect(reply.into_body()));
    let page = page.expect("a whole body").expect("no error").to_bytes();
    let text = std::str::from_utf8(&page).expect("text");
    let types: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let expected: Vec<_> = crate::metrics::families::ALL
        .iter()
        .map(|family| format!("{} {}", family.name, family.kind.as_str()))
        .collect();
    assert_eq!(types, expected, "in the order of the list");
}

#[test]
fn a_scrape_passes_only_by_the_address_it_came_to() {
    let store = store();
    let setting = setting(&[("store", &store, false)], Vec::new());
    let status = |own: &str, host: &str, method: Method, target: &str, header: Option<(&str, &str)>| {
        let mut request = Request::builder().method(method).uri(target).header("host", host);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request = request.body(()).expect("a request");
        answer_scrape(&setting.agent, &request, own.parse().expect("an address")).status().as_u16()
    };
    let get = |own: &str, host: &str| status(own, host, Method::GET, "/metrics", None);
    assert_eq!(get("127.0.0.1:9464", "127.0.0.1:9464"), 200);
    assert_eq!(get("127.0.0.1:9464", "LocalHost:9464"), 200);
    assert_eq!(get("[::1]:9464", "[::1]:9464"), 200);
    assert_eq!(get("10.0.0.5:9464", "10.0.0.5:9464"), 200);
    assert_eq!(get("[::ffff:127.0.0.1]:9464", "127.0.0.1:9464"), 200);
    for host in ["127.0.0.1", "127.0.0.1:80", "localhost", "evil.example:9464", "keyside", ""] {
        assert_eq!(get("127.0.0.1:9464", host), 400, "{host}");
    }
    assert_eq!(get("10.0.0.5:9464", "localhost:9464"), 400, "not loopback");
    let other = |method: Method, target: &str| status("127.0.0.1:9464", "127.0.0.1:9464", method, target, None);
    for target in ["/", "/v1/health", "/v1/secrets/db", "/metrics/"] {
        assert_eq!(other(Method::GET, target), 404, "{target}");
    }
    assert_eq!((other(Method::POST, "/metrics"), other(Method::HEAD, "/metrics")), (405, 405));
    for header in ["origin", "sec-fetch-mode", "forwarded", "x-forwarded-for", "via"] {
        let refused = status("127.0.0.1:9464", "127.0.0.1:9464", Method::GET, "/metrics", Some((header, "x")));
        assert_eq!(refused, 400, "{header}");
    }
    let chunked = Some(("transfer-encoding", "chunked"));
    assert_eq!(status("127.0.0.1:9464", "127.0.0.1:9464", Method::GET, "/metrics", chunked), 411);
}

#[tokio::test]
async fn while_a_required_audit_log_cannot_be_written_reads_are_refused_and_then_served_again() {
    let store = store();
    let directory = tempfile::tempdir().expect("a directory");
    let full = AuditSettings { path: Some("/dev/full".into()), required: true };
    let setting = setting_with_audit(&[("store", &store, true)], Vec::new(), &full);
    // The first is served: its line is written behind it.
    setting.get("/v1/secrets/db/password").await;
    while !setting.agent.audit.blocks() {
        tokio::task::yield_now().await;
    }
    for target in ["/v1/secrets/db/password", "/v1/secrets/db", "/v1/secrets"] {
        assert_eq!(setting.get(target).await.code(), "audit_unavailable", "{target}");
    }
    let resolve = "{\"references\": {\"a\": \"{{db.password}}\"}}";
    assert_eq!(setting.post("/v1/resolve", resolve).await.code(), "audit_unavailable");
    let check = "{\"references\": [\"db.password\"]}";
    assert_eq!(setting.post("/v1/check", check).await.code(), "audit_unavailable");
    assert_eq!(setting.get("/v1/health").await.status, 200);
    let text = String::from_utf8(setting.get("/metrics").await.body).expect("text");
    assert!(text.contains("\nkeyside_audit_failing 1\n"), "{text}");

    let path = directory.path().join("audit.jsonl");
    let settings = AuditSettings { path: Some(path.clone()), required: true };
    let log = setting.agent.audit.open_anew(&settings).expect("writable");
    setting.agent.audit.go_on(log, true);
    while setting.agent.audit.blocks() {
        tokio::task::yield_now().await;
    }
    assert_eq!(setting.get("/v1/secrets/db/password").await.status, 200);
    setting.agent.audit.close();
    let lines = std::fs::read_to_string(path).expect("readable");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let operations: Vec<_> = lines.iter().map(|line| line["operation"].as_str().expect("text")).collect();
    assert_eq!(operations, ["read", "audit", "read"], "{lines:?}");
    assert_eq!((&lines[1]["refused"], &lines[1]["lost"]), (&5.into(), &0.into()));
}
