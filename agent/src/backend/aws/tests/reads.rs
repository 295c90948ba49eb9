//! What ZenML and others wrote is read, in as few calls as there are: on moto, and the same on ministack.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use keyside_config::settings::{BackendKind, Layout, ManagerScope};
use keyside_protocol::level::ValidationLevel;
use keyside_protocol::message::CheckStatus;

use super::super::super::{BackendError, ScopeLabel, Scopes};
use super::peer::{self, Peer};
use super::relay::Relay;
use super::{DEPLOYMENT, Owner, error, open, pairs, plain, reader, settings, shown, uuid, values};
use crate::resolver::tests::{options, policy};
use crate::resolver::{Resolver, Selection, Source};

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// The layouts on one stand-in.
async fn every_layout_is_read(url: &str) {
    let owner = Owner::new(url);
    let manager = |scope| Layout::Manager(scope);
    let json = |value: &str| format!(r#"{{"user": "{value}", "zenml_schema_name": "arbitrary"}}"#);
    for (place, value) in [
        ("db", "none"),
        ("zenml/global/db", "global"),
        (&format!("zenml/component/{}/db", uuid(1)), "component"),
        ("zenml/namespace/team-a/db", "namespace"),
    ] {
        owner.put(place, &json(value), &[]).await;
    }
    for (scope, value) in [
        (ManagerScope::None, "none"),
        (ManagerScope::Global, "global"),
        (ManagerScope::Component(uuid(1)), "component"),
        (ManagerScope::Namespace("team-a".to_owned()), "namespace"),
    ] {
        let backend = reader(url, manager(scope));
        assert_eq!(pairs(&*backend, "db").await, [pair("user", value)]);
        let listed = backend.list().await.expect("a list");
        assert_eq!(listed.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["db"]);
    }
    let none = reader(url, manager(ManagerScope::Namespace("team-b".to_owned())));
    assert_eq!(error(&*none, "db").await, BackendError::NotFound);

    owner.put("app/text", "hunter2\n", &[]).await;
    owner.put("app/json", r#"{"port": 5432, "on": true, "no": null, "list": [1, "a"], "s": "x"}"#, &[]).await;
    owner.put("app/list", "[1]", &[]).await;
    owner.put_bytes("app/bytes", &[0, 159, 146, 150]).await;
    let app = reader(url, plain("app/"));
    assert_eq!(pairs(&*app, "text").await, [pair("value", "hunter2\n")]);
    let list = pair("list", r#"[1, "a"]"#);
    let expected = [list, pair("no", "null"), pair("on", "true"), pair("port", "5432"), pair("s", "x")];
    assert_eq!(pairs(&*app, "json").await, expected);
    assert_eq!(pairs(&*app, "list").await, [pair("value", "[1]")]);
    let bytes = app.fetch("bytes", Scopes::PublicFirst).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(bytes.values.get("value").map(|value| value.expose()), Some(&[0, 159, 146, 150][..]));

    // Not what the layout promises: there, and said so.
    owner.put("zenml/global/text", "hunter2", &[]).await;
    owner.put("zenml/global/lists", r#"{"ports": [5432]}"#, &[]).await;
    let global = reader(url, manager(ManagerScope::Global));
    for (name, words) in [("text", "not JSON"), ("lists", "JSON object of strings")] {
        let error = error(&*global, name).await;
        assert!(matches!(error, BackendError::Unusable { .. }), "{error:?}");
        assert!(error.to_string().contains(words) && !error.to_string().contains("hunter2"), "{error}");
    }
    let whole = reader(url, plain(""));
    let bytes = error(&*reader(url, manager(ManagerScope::None)), "app/bytes").await;
    assert!(matches!(bytes, BackendError::Unusable { .. }), "{bytes:?}");

    // Marked for deletion is absent to everybody, at once.
    owner.put("app/gone", "x", &[]).await;
    assert_eq!(pairs(&*whole, "app/gone").await, [pair("value", "x")]);
    owner.mark_for_deletion("app/gone").await;
    for name in ["app/gone", "app/never"] {
        assert_eq!(error(&*whole, name).await, BackendError::NotFound, "{name}");
    }
    let names = ["app/text", "app/gone", "app/json", "app/list", "app/bytes", "app/never"];
    let described = whole.describe(&names, Scopes::PrivateFirst).await.expect("descriptions");
    assert_eq!(described.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true, true, true, false]);
    let batch = whole.fetch_many(&names, Scopes::PrivateFirst).await.expect("answers");
    let found: Vec<bool> = batch.iter().map(Result::is_ok).collect();
    assert_eq!(found, [true, false, true, true, true, false]);
    assert!(batch.iter().filter_map(|one| one.as_ref().err()).all(|error| *error == BackendError::NotFound));

    // The central store until 0.53: names and scopes are tags.
    owner.put_tagged(&uuid(10), "mlflow", "workspace", "w", r#"{"k": "workspace"}"#).await;
    owner.put_tagged(&uuid(11), "mlflow", "user", "w", r#"{"k": "user"}"#).await;
    owner.put_tagged(&uuid(12), "mlflow_2", "workspace", "w", r#"{"k": "other"}"#).await;
    owner.put_tagged(&uuid(13), "twice", "workspace", "w", r#"{"k": "1"}"#).await;
    owner.put_tagged(&uuid(14), "twice", "workspace", "v", r#"{"k": "2"}"#).await;
    let store = reader(url, Layout::Store);
    for (scopes, value, label) in
        [(Scopes::PrivateFirst, "user", ScopeLabel::User), (Scopes::PublicFirst, "workspace", ScopeLabel::Workspace)]
    {
        let secret = store.fetch("mlflow", scopes).await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(shown(&secret.values), [pair("k", value)]);
        assert_eq!(secret.description.scope_label, Some(label));
        assert!(secret.description.id.is_some_and(|id| id.starts_with("5e0a1b2c-")), "ZenML's own id");
    }
    assert_eq!(error(&*store, "mlflo").await, BackendError::NotFound, "AWS compares beginnings, we do not");
    let ambiguous = error(&*store, "twice").await;
    assert!(matches!(ambiguous, BackendError::Unusable { .. }), "{ambiguous:?}");

    // Since 0.55: by id, for the deployment that wrote it.
    let by_id = values(url);
    let kept = by_id.values_of(&uuid(12), DEPLOYMENT).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(shown(&kept.values), [pair("k", "other")]);
    for (id, deployment) in
        [(uuid(12), uuid(1)), (uuid(999), DEPLOYMENT.to_owned()), ("global/db".into(), DEPLOYMENT.into())]
    {
        let error = by_id.values_of(&id, &deployment).await.err();
        assert_eq!(error, Some(BackendError::NotFound), "{id} {deployment}");
    }
}

#[tokio::test]
async fn every_layout_is_read_on_real_moto() {
    let Some(moto) = peer::moto(&[]) else { return };
    every_layout_is_read(&moto.url).await;
}

#[tokio::test]
async fn every_layout_is_read_on_real_ministack() {
    let Some(ministack) = peer::ministack() else { return };
    every_layout_is_read(&ministack.url).await;
}

/// Runs orders with the class of the installed ZenML; `false`, and a word on stderr, where there is none.
fn zenml(moto: &Peer, orders: &serde_json::Value) -> bool {
    let named = std::env::var_os("KEYSIDE_ZENML_PYTHON").map(std::path::PathBuf::from);
    let python = named.or_else(|| peer::peers().map(|peers| peers.join("zenml-0.98.0/bin/python")));
    let Some(python) = python.filter(|python| python.exists()) else {
        eprintln!("skipped: ZenML is not installed (tests/peers/install-zenml.sh)");
        return false;
    };
    let home = tempfile::tempdir().expect("a folder");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/peers/aws_store.py");
    let boto3 = Command::new(moto.place.join("bin/python"))
        .args(["-c", "import boto3, os; print(os.path.dirname(os.path.dirname(boto3.__file__)))"])
        .output()
        .expect("moto's Python runs");
    let mut child = Command::new(python)
        .arg(script)
        .arg(String::from_utf8_lossy(&boto3.stdout).trim())
        .env_clear()
        .envs([("PATH", "/usr/bin:/bin"), ("ZENML_ANALYTICS_OPT_IN", "false"), ("AWS_REGION", super::REGION)])
        .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
        .env("AWS_ENDPOINT_URL", &moto.url)
        .env("HOME", home.path())
        .env("ZENML_CONFIG_PATH", home.path().join("zenml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ZenML's Python starts");
    child.stdin.take().expect("piped").write_all(orders.to_string().as_bytes()).expect("orders");
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

#[tokio::test]
async fn what_zenmls_own_class_writes_is_read_by_id_on_real_moto() {
    let Some(moto) = peer::moto(&[]) else { return };
    let (id, other) = (uuid(1), uuid(2));
    let value = "naïve “q” 🔐 \u{7f}\n";
    let store = |id: &str, deployment: &str, value: &str| serde_json::json!({"do": "store", "id": id, "deployment": deployment, "values": {"k": value, "empty": ""}});
    let orders = serde_json::json!([store(&id, DEPLOYMENT, value), store(&other, &uuid(77), "theirs")]);
    if !zenml(&moto, &orders) {
        return;
    }
    let backend = values(&moto.url);
    let first = backend.values_of(&id, DEPLOYMENT).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(shown(&first.values), [pair("empty", ""), pair("k", value)]);
    assert_eq!(backend.values_of(&other, DEPLOYMENT).await.err(), Some(BackendError::NotFound), "another's");
    let update = serde_json::json!({"do": "update", "id": id, "deployment": DEPLOYMENT, "values": {"k": "new"}});
    let delete = serde_json::json!({"do": "delete", "id": other, "deployment": uuid(77)});
    assert!(zenml(&moto, &serde_json::json!([update, delete])));
    let second = backend.values_of(&id, DEPLOYMENT).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(shown(&second.values), [pair("k", "new")]);
    assert_ne!(first.version, second.version);
    assert_eq!(backend.values_of(&other, &uuid(77)).await.err(), Some(BackendError::NotFound), "deleted");
    // Names are in ZenML's own data base by now.
    let names = reader(&moto.url, Layout::Store);
    assert_eq!(names.list().await.expect("a list"), []);
}

fn resolver(url: &str, layout: Layout) -> Arc<Resolver> {
    let source = Source::new(options("cloud"), open(&settings(url, layout)));
    let bounds = crate::cache::Bounds { max_bytes: 1 << 24, max_entries: 10_000 };
    Arc::new(Resolver::new(vec![source], vec![policy()], bounds, Scopes::PrivateFirst))
}

#[tokio::test]
async fn a_check_of_a_thousand_references_to_two_hundred_secrets_takes_ten_calls_on_real_moto() {
    let Some(moto) = peer::moto(&[]) else { return };
    let owner = Owner::new(&moto.url);
    for n in 0..200 {
        owner.put(&format!("many/s{n:03}"), r#"{"a": "1", "b": "2", "c": "3", "d": "4", "e": "5"}"#, &[]).await;
        owner.put_tagged(&uuid(n), &format!("s{n:03}"), "workspace", "w", r#"{"a": "1"}"#).await;
    }
    let keys = ["a", "b", "c", "d", "e"];
    let references: Vec<String> = (0..200).flat_map(|n| keys.map(|key| format!("{{{{s{n:03}.{key}}}}}"))).collect();
    let relay = Relay::before(&moto.url).await;

    let cold = resolver(&relay.url(), plain("many/"));
    let checked = crate::check::tests::run_as_agent(&cold, &references, ValidationLevel::SecretAndKeyExists);
    let reply = checked.await;
    assert!(reply.results.iter().all(|result| result.status == CheckStatus::Ok), "{:?}", reply.results[0]);
    let calls = relay.take();
    assert_eq!(calls, vec!["BatchGetSecretValue"; 10]);
    assert_eq!(reply.backend_calls, 10);

    // Existence alone reads no value.
    for layout in [plain("many/"), Layout::Store] {
        let resolver = resolver(&relay.url(), layout.clone());
        let reply = crate::check::tests::run_as_agent(&resolver, &references, ValidationLevel::SecretExists).await;
        assert!(reply.ok, "{:?}", reply.results[0]);
        let calls = relay.take();
        assert!(calls.iter().all(|call| call == "ListSecrets"), "{calls:?}");
        let most = if layout == Layout::Store { 3 } else { 20 };
        assert!(calls.len() <= most, "{layout:?}: {} calls", calls.len());
    }
    let few = ["{{s000.a}}".to_owned(), "{{none.a}}".to_owned()];
    let one = resolver(&relay.url(), plain("many/"));
    let reply = crate::check::tests::run_as_agent(&one, &few, ValidationLevel::SecretExists).await;
    assert_eq!(reply.results[0].status, CheckStatus::Ok);
    assert_eq!(reply.results[1].status, CheckStatus::SecretMissing);
    assert_eq!(relay.take(), ["DescribeSecret", "DescribeSecret"]);

    // In the central store until 0.53 names are tags: a list of them first, a page for each hundred.
    let store = resolver(&relay.url(), Layout::Store);
    let first: Vec<String> = (0..200).map(|n| format!("{{{{s{n:03}.a}}}}")).collect();
    assert!(crate::check::tests::run_as_agent(&store, &first, ValidationLevel::SecretAndKeyExists).await.ok);
    let calls = relay.take();
    let lists = calls.iter().filter(|call| *call == "ListSecrets").count();
    let batches = calls.iter().filter(|call| *call == "BatchGetSecretValue").count();
    assert_eq!((batches, lists + batches), (10, calls.len()), "{calls:?}");
    assert!(lists <= 3, "{calls:?}");

    // A thousand cold readers of one secret are one call.
    let cold = resolver(&relay.url(), plain("many/"));
    let reads = (0..1000).map(|_| cold.secret("s000", Selection::default(), crate::cache::Want::Usual));
    let found = futures_util::future::join_all(reads).await;
    assert!(found.iter().all(Result::is_ok));
    assert_eq!(relay.take(), ["GetSecretValue"]);
}

#[tokio::test]
async fn a_role_is_assumed_and_its_refusal_is_ours_on_real_moto() {
    let Some(moto) = peer::moto(&[]) else { return };
    Owner::new(&moto.url).put("db", "x", &[]).await;
    let mut as_role = settings(&moto.url, plain(""));
    if let BackendKind::Aws(aws) = &mut as_role.kind {
        aws.role_arn = Some("arn:aws:iam::123456789012:role/keyside".to_owned());
    }
    assert_eq!(pairs(&*open(&as_role).reader, "db").await, [pair("value", "x")]);
}

#[tokio::test]
async fn unknown_credentials_are_a_fault_of_ours_and_not_of_the_secret_on_real_moto() {
    // From the first call on, moto looks at keys and signatures.
    let Some(moto) = peer::moto(&[("INITIAL_NO_AUTH_ACTION_COUNT", "0")]) else { return };
    let backend = reader(&moto.url, plain(""));
    let fetched = error(&*backend, "db").await;
    let listed = backend.list().await.expect_err("no rights");
    let described = backend.describe(&["db"], Scopes::PrivateFirst).await.expect_err("no rights");
    for error in [fetched, listed, described] {
        assert!(matches!(error, BackendError::Identity { .. }), "{error:?}");
        assert!(error.hint().is_some(), "{error:?}");
    }
}
