//! What the vault does wrong: the class of the error and the number of calls.

use super::super::super::faulty::{Answer, Faulty, Reply};
use super::*;

/// The requests that carry a token, which are those that could read a value.
fn authorized(server: &Faulty) -> usize {
    server.requests().iter().filter(|request| request.header("authorization").is_some()).count()
}

#[tokio::test]
async fn every_fault_of_the_vault_has_its_class_and_costs_one_call() {
    let not_utf8 = b"{\"value\": \"canary\xff\", \"id\": \"https://v/secrets/db/1\"}".as_slice();
    let cases: Vec<(&str, Answer, &str)> = vec![
        ("absent", refusal(404, "SecretNotFound", "").into(), "not found"),
        ("disabled", refusal(403, "Forbidden", "SecretDisabled").into(), "denied"),
        ("forbidden", refusal(403, "Forbidden", "ForbiddenByRbac").into(), "denied"),
        ("no access policy", refusal(403, "Forbidden", "AccessDenied").into(), "identity"),
        ("firewall", refusal(403, "Forbidden", "ForbiddenByFirewall").into(), "identity"),
        ("another's 403", Reply::bytes(403, "blocked").into(), "transient"),
        ("throttled", refusal(429, "Throttled", "").into(), "transient"),
        ("an error of Key Vault", refusal(500, "InternalServerError", "").into(), "transient"),
        ("unavailable", refusal(503, "ServiceUnavailable", "").into(), "transient"),
        ("no value", Reply::json(200, r#"{"id": "https://v/secrets/db/1"}"#).into(), "transient"),
        (
            "a value twice",
            Reply::json(200, r#"{"value": "canary", "value": "b", "id": "https://v/secrets/db/1"}"#).into(),
            "transient",
        ),
        ("a value that is not UTF-8", Reply::bytes(200, not_utf8).into(), "transient"),
    ];
    for (what, answer, expected) in cases {
        let server = Faulty::start(|request| azure(request, |_, _| secret("db", "fine").into())).await;
        let opened = open(&settings(&server.url(), principal("right"), plain()));
        assert_eq!(fetch(&opened, "db").await.map(|secret| shown(&secret)), Ok("value=fine;".into()), "{what}");
        let before = server.calls();
        server.follow(move |request| azure(request, |_, _| answer.clone()));
        let error = error(&opened, "db").await;
        assert_eq!(class(&error), expected, "{what}: {error}");
        assert_eq!(server.calls() - before, 1, "{what}");
        let said = format!("{error} {:?}", error.hint());
        assert!(!said.contains("canary") && !said.contains("token-"), "{said}");
        server.follow(|request| azure(request, |_, _| secret("db", "again").into()));
        assert_eq!(fetch(&opened, "db").await.map(|secret| shown(&secret)), Ok("value=again;".into()), "{what}");
    }
}

#[tokio::test]
async fn a_list_follows_pages_on_its_own_vault_only() {
    let server = Faulty::start(|request| {
        azure(request, |request, _| {
            let (name, next) = match request.query().contains("skiptoken") {
                false => ("first", r#""https://evil.example/secrets?api-version=7.5&$skiptoken=2""#),
                true => ("second", "null"),
            };
            let item = format!(r#"{{"id": "https://v/secrets/{name}", "attributes": {{"enabled": true}}}}"#);
            Reply::json(200, format!(r#"{{"value": [{item}], "nextLink": {next}}}"#)).into()
        })
    })
    .await;
    let opened = open(&settings(&server.url(), principal("right"), plain()));
    let names: Vec<_> = opened.reader.list().await.expect("two pages").into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["first", "second"]);
    assert_eq!(authorized(&server), 2);
}

#[tokio::test]
async fn a_list_that_goes_round_in_circles_ends() {
    let server = Faulty::start(|request| {
        azure(request, |_, _| Reply::json(200, r#"{"value": [], "nextLink": "/secrets?$skiptoken=2"}"#).into())
    })
    .await;
    let opened = open(&settings(&server.url(), principal("right"), plain()));
    assert_eq!(class(&opened.reader.list().await.expect_err("endless")), "transient");
    assert!(authorized(&server) < 4, "{}", authorized(&server));
}

#[tokio::test]
async fn no_right_to_list_is_our_own_trouble_and_names_the_role() {
    let server =
        Faulty::start(|request| azure(request, |_, _| refusal(403, "Forbidden", "ForbiddenByRbac").into())).await;
    let opened = open(&settings(&server.url(), principal("right"), Layout::Store));
    for error in [opened.reader.list().await.expect_err("refused"), error(&opened, "db").await] {
        assert_eq!(class(&error), "identity", "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("Key Vault Reader")), "{error:?}");
    }
}

#[tokio::test]
async fn a_wave_of_readers_shares_one_list() {
    let server =
        Faulty::start(|request| azure(request, |_, _| Reply::json(200, r#"{"value": [], "nextLink": null}"#).into()))
            .await;
    let opened = open(&settings(&server.url(), principal("right"), Layout::Store));
    let names: Vec<String> = (0..100).map(|number| format!("db{number}")).collect();
    let results = futures_util::future::join_all(names.iter().map(|name| fetch(&opened, name))).await;
    assert!(results.iter().all(|result| matches!(result, Err(BackendError::NotFound))));
    // One that began before the others asked, and one that all of them share.
    assert!(authorized(&server) <= 2, "{}", authorized(&server));
}

#[tokio::test]
async fn a_name_that_key_vault_cannot_hold_costs_no_call() {
    let server = Faulty::start(|_| Answer::Close).await;
    let opened = open(&settings(&server.url(), principal("right"), plain()));
    let long = "x".repeat(128);
    for name in ["a_b", "a.b", "../deletedsecrets/a", "a/b", "a?b", "ключ", long.as_str()] {
        assert_eq!(error(&opened, name).await, BackendError::NotFound, "{name}");
        assert_eq!(opened.reader.describe(&[name], Scopes::PrivateFirst).await, Ok(vec![None]), "{name}");
        assert!(opened.reader.cannot_hold(name).is_some_and(|why| why.contains("`-` alone")), "{name}");
    }
    assert_eq!(opened.reader.cannot_hold("a-b"), None);
    assert_eq!(server.calls(), 0);
}
