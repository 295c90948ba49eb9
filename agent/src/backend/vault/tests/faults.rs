//! What each way to fail is taken for, and how many calls it costs.

use keyside_protocol::level::ValidationLevel;
use keyside_protocol::message::CheckStatus;

use super::*;
use crate::backend::contract::class;
use crate::backend::faulty::Faulty;
use crate::cache::Bounds;
use crate::check::tests::run_as_agent;
use crate::resolver::tests::{options, policy};
use crate::resolver::{Resolver, Source};

/// Answers the read of `db` so, and everything else as a sound server does.
async fn check(answer: Answer, expected: &str, calls: usize) -> BackendError {
    let shown = format!("{answer:?}");
    let server = Faulty::start(move |request| match request.path() {
        "/v1/secret/data/db" => answer.clone(),
        _ => otherwise(request),
    })
    .await;
    let backend = Options::at(server.url()).reader();
    let error = failure(&*backend, "db").await;
    assert_eq!(class(&error), expected, "{shown}: {error}");
    assert_eq!(server.calls(), calls, "{shown}: {error}: {:?}", server.requests());
    assert!(!error.to_string().contains(CANARY), "{error}");
    assert!(!format!("{error:?}").contains(CANARY), "{error:?}");
    if error != BackendError::NotFound {
        assert!(error.to_string().contains("`team`"), "it names the back-end: {error}");
        assert!(error.hint().is_some(), "it says what to try: {error}");
    }
    error
}

#[tokio::test]
async fn an_absence_is_believed_once_the_mount_is_known() {
    check(errors(404, ""), "not found", 2).await;
    let deleted = r#"{"data": {"data": null, "metadata": {"deletion_time": "2026-01-01T00:00:00Z", "version": 1}}}"#;
    check(Reply::json(404, deleted).into(), "not found", 2).await;
}

#[tokio::test]
async fn somebody_elses_404_is_no_absence() {
    check(Reply::json(404, "{}").into(), "transient", 1).await;
    check(Reply::json(404, "").into(), "transient", 1).await;
    let error = check(errors(404, "no handler for route"), "identity", 1).await;
    assert!(error.hint().is_some_and(|hint| hint.contains("`mount`")), "{error}");
    let other = r#"{"data": null, "warnings": ["Invalid path for a versioned K/V secrets engine"]}"#;
    let error = check(Reply::json(404, other).into(), "identity", 1).await;
    assert!(error.hint().is_some_and(|hint| hint.contains("`kv`")), "{error}");
}

#[tokio::test]
async fn a_refusal_of_one_path_is_the_secrets_own() {
    let error = check(errors(403, "permission denied"), "denied", 3).await;
    let hint = error.hint().expect("a hint");
    assert!(hint.contains(r#"path "secret/data/db" { capabilities = ["read"] }"#), "{hint}");
}

#[tokio::test]
async fn what_says_nothing_about_the_secret_is_transient() {
    for status in [412, 429, 472, 473, 500, 502, 503, 504, 301, 307] {
        let error = check(errors(status, CANARY), "transient", 1).await;
        assert!(error.to_string().contains(&status.to_string()), "{error}");
    }
    let sealed = check(errors(503, "Vault is sealed"), "transient", 1).await;
    assert!(sealed.to_string().contains("sealed"), "{sealed}");
}

#[tokio::test]
async fn a_success_that_is_none_is_transient_and_quoted_nowhere() {
    for body in [
        r#"{"data": null}"#,
        r#"{"data": {"data": null, "metadata": {"version": 1, "created_time": "t"}}}"#,
        r#"{"data": {"data": "canary-4f1d", "metadata": {"version": 1, "created_time": "t"}}}"#,
        r#"{"data": {"data": {"k": "canary-4f1d"}}}"#,
        r#"{"data": {"data": {"k": "canary-4f1d", "k": "v"}, "metadata": {"version": 1, "created_time": "t"}}}"#,
        r#"{"data": {"data": {"k": "canary-4f1d"#,
    ] {
        check(Reply::json(200, body).into(), "transient", 1).await;
    }
    let invalid = b"{\"data\": {\"data\": {\"k\": \"canary-4f1d\xff\"}, \"metadata\": {\"version\": 1, \"created_time\": \"t\"}}}";
    check(Reply::bytes(200, invalid.to_vec()).into(), "transient", 1).await;
}

#[tokio::test]
async fn a_request_that_is_refused_as_such_is_a_matter_of_settings() {
    for status in [400, 401, 405, 407] {
        check(errors(status, "no"), "identity", 1).await;
    }
}

#[tokio::test]
async fn a_value_over_the_limit_is_there_and_not_served() {
    let long = "x".repeat(4097);
    let error = check(data(&format!(r#"{{"k": "{long}"}}"#)), "unusable", 1).await;
    assert!(error.to_string().contains("4097") && !error.to_string().contains("xxxx"), "{error}");
}

#[tokio::test]
async fn an_engine_of_version_1_is_not_taken_for_an_empty_one_of_version_2() {
    let server = Faulty::start(|request| match request.path() {
        "/v1/sys/internal/ui/mounts/secret" => Reply::json(200, r#"{"data": {"type": "kv", "options": null}}"#).into(),
        _ => otherwise(request),
    })
    .await;
    let error = failure(&*Options::at(server.url()).reader(), "db").await;
    assert_eq!(class(&error), "identity");
    assert!(error.to_string().contains("version 1, not version 2"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("`kv`")));
}

#[tokio::test]
async fn a_mount_that_is_closed_to_us_altogether_is_a_matter_of_rights_and_no_refusal_of_one_secret() {
    let server = Faulty::start(|request| match request.path() {
        "/v1/auth/token/lookup-self" => otherwise(request),
        _ => errors(403, "permission denied"),
    })
    .await;
    let error = failure(&*Options::at(server.url()).reader(), "db").await;
    assert_eq!(class(&error), "identity", "{error}");
    assert!(error.to_string().contains("`secret`"), "{error}");
}

#[tokio::test]
async fn a_found_secret_costs_one_call_with_the_headers_that_vault_wants() {
    let server = Faulty::start(|_| data(r#"{"user": "me", "port": 5432}"#)).await;
    let options = Options { namespace: Some("/team/a/"), mount: "kv/apps", ..Options::at(server.url()) };
    let backend = options.reader();
    assert_eq!(server.calls(), 0, "nothing is asked before it is needed");
    assert_eq!(fetch(&*backend, "db/main 1%?#").await.expect("found"), pairs(&[("port", "5432"), ("user", "me")]));
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].target, "/v1/kv/apps/data/db/main%201%25%3F%23");
    let header = |name| requests[0].header(name);
    assert_eq!(header("x-vault-token"), Some("s.root"));
    assert_eq!(header("x-vault-namespace"), Some("team/a"));
    assert_eq!(header("x-vault-request"), Some("true"));
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_is_absent_without_a_call() {
    let server = Faulty::start(|_| data("{}")).await;
    let backend = Options { layout: plain("app"), ..Options::at(server.url()) }.reader();
    for name in ["../x", "a/../../x", "a//b", "/a", "a/", ".", ""] {
        assert_eq!(failure(&*backend, name).await, BackendError::NotFound, "{name}");
        assert!(backend.cannot_hold(name).is_some_and(|why| why.contains("no path")), "{name}");
    }
    assert_eq!(backend.cannot_hold("a/x"), None);
    assert_eq!(backend.describe(&["../x"], Scopes::PrivateFirst).await, Ok(vec![None]));
    assert_eq!(server.calls(), 0);
    // Encoded once: what is an escape in a name is none in the path.
    assert!(fetch(&*backend, "%2e%2e").await.is_ok());
    assert_eq!(server.requests()[0].target, "/v1/secret/data/app/%252e%252e");
}

#[tokio::test]
async fn existence_and_keys_are_told_without_a_value() {
    let server = Faulty::start(|request| match request.path() {
        "/v1/secret/subkeys/db" => Reply::json(
            200,
            r#"{"data": {"subkeys": {"b": null, "a": {"x": null}}, "metadata": {"version": 3, "created_time": "t"}}}"#,
        )
        .into(),
        "/v1/secret/subkeys/old" => errors(403, "permission denied"),
        "/v1/secret/metadata/old" => Reply::json(
            200,
            r#"{"data": {"current_version": 2, "versions": {"1": {"created_time": "s"}, "2": {"created_time": "t"}}}}"#,
        )
        .into(),
        "/v1/secret/subkeys/gone" => errors(404, "unsupported path"),
        "/v1/secret/metadata/gone" => Reply::json(
            200,
            r#"{"data": {"current_version": 1,
                "versions": {"1": {"created_time": "s", "deletion_time": "2026-01-01T00:00:00Z"}}}}"#,
        )
        .into(),
        "/v1/secret/subkeys/later" => errors(404, "unsupported path"),
        "/v1/secret/metadata/later" => Reply::json(
            200,
            r#"{"data": {"current_version": 1,
                "versions": {"1": {"created_time": "s", "deletion_time": "9999-01-01T00:00:00Z"}}}}"#,
        )
        .into(),
        _ => otherwise(request),
    })
    .await;
    let backend = Options::at(server.url()).reader();
    let described = backend.describe(&["db", "missing", "old", "gone", "later"], Scopes::PrivateFirst).await;
    let shown: Vec<_> =
        described.expect("described").into_iter().map(|one| one.map(|one| (one.name, one.version, one.keys))).collect();
    let keys = Some(vec!["a".to_owned(), "b".to_owned()]);
    assert_eq!(
        shown,
        [
            Some(("db".to_owned(), "3@t".to_owned(), keys)),
            None,
            Some(("old".to_owned(), "2@t".to_owned(), None)),
            None,
            Some(("later".to_owned(), "1@s".to_owned(), None)),
        ]
    );
    assert_eq!(server.requests().iter().filter(|request| request.path().contains("/data/")).count(), 0);
}

#[tokio::test]
async fn version_1_is_listed_to_see_what_is_there() {
    let server = Faulty::start(|request| match (request.path(), request.query()) {
        ("/v1/secret/app", "list=true") => Reply::json(200, r#"{"data": {"keys": ["db", "team/"]}}"#).into(),
        ("/v1/secret/app/team", "list=true") => Reply::json(200, r#"{"data": {"keys": ["db"]}}"#).into(),
        ("/v1/secret/app/db", "") => Reply::json(200, r#"{"data": {"k": "v"}, "lease_duration": 2764800}"#).into(),
        ("/v1/sys/internal/ui/mounts/secret", _) => {
            Reply::json(200, r#"{"data": {"type": "kv", "options": {"version": "1"}}}"#).into()
        }
        _ => otherwise(request),
    })
    .await;
    let backend = Options { kv: 1, layout: plain("app"), ..Options::at(server.url()) }.reader();
    assert!(!backend.capabilities().keys_without_values);
    let names = ["db", "team/db", "no", "team/no", "none/db", "db"];
    let described = backend.describe(&names, Scopes::PrivateFirst).await.expect("described");
    let there: Vec<_> = described.iter().map(|one| one.is_some()).collect();
    assert_eq!(there, [true, true, false, false, false, true]);
    let listed: Vec<_> = backend.list().await.expect("listed").into_iter().map(|one| one.name).collect();
    assert_eq!(listed, ["db", "team/db"]);
    assert_eq!(server.requests().iter().filter(|request| request.path().ends_with("/db")).count(), 0, "no value read");
    assert_eq!(fetch(&*backend, "db").await.expect("found"), pairs(&[("k", "v")]));
    assert_eq!(failure(&*backend, "no").await, BackendError::NotFound);
}

#[tokio::test]
async fn who_may_only_read_a_secret_may_check_it_and_its_keys() {
    let server = Faulty::start(|request| match request.path() {
        path if path.contains("/subkeys/") || path.contains("/metadata/") => errors(403, "permission denied"),
        "/v1/secret/data/db" => data(r#"{"user": "me"}"#),
        path if path.contains("/data/") => errors(404, ""),
        _ => otherwise(request),
    })
    .await;
    let (reader, writer, values) = (Options::at(server.url()).reader(), None, None);
    let source = Source::new(options("vault"), Opened { reader, writer, values });
    let bounds = Bounds { max_bytes: 1 << 20, max_entries: 100 };
    let resolver = Arc::new(Resolver::new(vec![source], vec![policy()], bounds, Scopes::PrivateFirst));
    let references = ["{{db.user}}", "{{db.none}}"].map(str::to_owned);
    let reply = run_as_agent(&resolver, &references, ValidationLevel::SecretAndKeyExists).await;
    let statuses: Vec<_> = reply.results.iter().map(|result| result.status).collect();
    assert_eq!(statuses, [CheckStatus::Ok, CheckStatus::KeyMissing]);
    // No value is read for existence, and the right that would tell it is named.
    let reply = run_as_agent(&resolver, &["{{other.x}}".to_owned()], ValidationLevel::SecretExists).await;
    assert_eq!(reply.results[0].status, CheckStatus::NotPermitted);
    assert!(reply.results[0].hint.as_ref().is_some_and(|hint| hint.contains("secret/subkeys/other")), "{reply:?}");
}

#[tokio::test]
async fn a_folder_that_may_not_be_listed_is_no_absence_of_secrets() {
    let server = Faulty::start(|request| match request.query() {
        "list=true" => errors(403, "permission denied"),
        _ => otherwise(request),
    })
    .await;
    // The store of ZenML before 0.55 is searched by lists; what has its name for a place is not.
    for (layout, expected) in [(plain("app"), "unlisted"), (Layout::Store, "identity")] {
        let backend = Options { layout, ..Options::at(server.url()) }.reader();
        let error = backend.list().await.expect_err("refused");
        assert_eq!(class(&error), expected, "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains(r#"capabilities = ["list"]"#)), "{error}");
    }
}
