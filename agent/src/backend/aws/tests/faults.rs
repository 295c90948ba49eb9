//! Faults on a script: the class of the answer and the number of calls.

use crate::backend::contract::class;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use keyside_config::settings::Layout;

use super::super::super::faulty::{Answer, Faulty, Reply, Request};
use super::super::super::{BackendError, Scopes};
use super::{error, open, pairs, plain, reader, settings};

/// Long enough for a busy machine to answer, short to wait for.
const PATIENCE: Duration = Duration::from_millis(600);

pub(super) fn refusal(status: u16, code: &str) -> Answer {
    let body = format!(r#"{{"__type": "com.amazonaws.secretsmanager#{code}", "Message": "canary-message"}}"#);
    Reply::json(status, body).header("x-amzn-requestid", "r").into()
}

pub(super) fn value(name: &str) -> Reply {
    let body = serde_json::json!({
        "ARN": format!("arn:aws:secretsmanager:eu-central-1:1:secret:{name}-AbCdEf"),
        "Name": name,
        "VersionId": "v1",
        "SecretString": "canary",
        "VersionStages": ["AWSCURRENT"],
    });
    Reply::json(200, body.to_string())
}

fn description(name: &str, deleted: bool) -> Reply {
    let mut body = serde_json::json!({
        "ARN": format!("arn:aws:secretsmanager:eu-central-1:1:secret:{name}-AbCdEf"),
        "Name": name,
        "VersionIdsToStages": {"v1": ["AWSCURRENT"]},
    });
    if deleted {
        body["DeletedDate"] = 1_700_000_000.into();
    }
    Reply::json(200, body.to_string())
}

pub(super) fn target(request: &Request) -> &str {
    request.header("x-amz-target").unwrap_or_default().trim_start_matches("secretsmanager.")
}

async fn check(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static, expected: &str, calls: usize) {
    let server = Faulty::start(answer).await;
    let mut settings = settings(&server.url(), plain(""));
    settings.timeout = PATIENCE;
    let error = error(&*open(&settings).reader, "db").await;
    assert_eq!((class(&error), server.calls()), (expected, calls), "{error}");
    let words = format!("{error} {error:?}");
    assert!(!words.contains("canary"), "{words}");
    assert!(expected == "not found" || words.contains("cloud"), "it names the back-end: {words}");
}

#[tokio::test]
async fn every_refusal_of_aws_has_its_class_and_is_asked_once() {
    for (status, code, expected) in [
        (400, "ResourceNotFoundException", "not found"),
        (404, "ResourceNotFoundException", "not found"),
        (400, "AccessDeniedException", "denied"),
        (400, "ExpiredTokenException", "identity"),
        (403, "UnrecognizedClientException", "identity"),
        (403, "InvalidSignatureException", "identity"),
        (400, "ThrottlingException", "transient"),
        (429, "TooManyRequestsException", "transient"),
        (500, "InternalServiceError", "transient"),
        (503, "ServiceUnavailable", "transient"),
        (400, "DecryptionFailure", "unusable"),
        (400, "InvalidParameterException", "unusable"),
    ] {
        check(move |_| refusal(status, code), expected, 1).await;
    }
}

#[tokio::test]
async fn what_is_no_answer_of_aws_says_nothing_of_the_secret() {
    for body in ["{\"Name\": \"db\", \"SecretString\": \"canary", "{\"SecretString\": 5}"] {
        check(move |_| Reply::json(200, body).into(), "transient", 1).await;
    }
    check(|_| Reply::bytes(200, &b"{\"SecretString\": \"canary\xff\"}"[..]).into(), "transient", 1).await;
    // Another secret's value is not this one's.
    check(|_| value("db2").into(), "transient", 1).await;
    for status in [400, 401, 403, 404] {
        check(move |_| Reply::bytes(status, "<html>no</html>").into(), "transient", 1).await;
        check(move |_| Reply::json(status, "{}").into(), "transient", 1).await;
    }
}

#[tokio::test]
async fn of_a_member_that_stands_twice_the_last_counts_as_in_awss_own_client() {
    let twice = r#"{"ARN": "arn:db", "Name": "db", "VersionId": "1", "SecretString": "first", "SecretString": "last"}"#;
    let server = Faulty::start(move |_| Reply::json(200, twice).into()).await;
    let read = pairs(&*reader(&server.url(), plain("")), "db").await;
    assert_eq!(read, [("value".to_owned(), "last".to_owned())]);
}

#[tokio::test]
async fn a_mark_for_deletion_is_an_absence_whether_or_not_it_may_be_seen() {
    let state = |describe: Answer| {
        move |request: &Request| match target(request) {
            "GetSecretValue" => refusal(400, "InvalidRequestException"),
            _ => describe.clone(),
        }
    };
    check(state(description("db", true).into()), "not found", 2).await;
    check(state(refusal(400, "AccessDeniedException")), "not found", 2).await;
    check(state(refusal(400, "ResourceNotFoundException")), "not found", 2).await;
    check(state(description("db", false).into()), "unusable", 2).await;
    check(state(refusal(500, "InternalServiceError")), "transient", 2).await;
}

#[tokio::test]
async fn a_wave_of_refused_credentials_is_one_new_login() {
    let refuse = Arc::new(AtomicUsize::new(0));
    let script = Arc::clone(&refuse);
    let server = Faulty::start(move |request| {
        let id = if request.text().contains("\"b\"") { "b" } else { "a" };
        match script.load(Ordering::SeqCst) {
            0 => value(id).into(),
            _ => refusal(400, "ExpiredTokenException"),
        }
    })
    .await;
    let backend = reader(&server.url(), plain(""));
    assert_eq!(pairs(&*backend, "a").await.len(), 1);
    refuse.store(1, Ordering::SeqCst);
    let before = server.calls();
    let reads = futures_util::future::join_all((0..20).map(|_| error(&*backend, "b"))).await;
    assert!(reads.iter().all(|error| class(error) == "identity"), "{reads:?}");
    // Each once with the old credentials and once with the new ones.
    assert!(server.calls() - before <= 40, "{} calls", server.calls() - before);
    // The new ones were never accepted: nobody looks for others again so soon.
    let before = server.calls();
    error(&*backend, "b").await;
    assert_eq!(server.calls() - before, 1);
    refuse.store(0, Ordering::SeqCst);
    assert_eq!(pairs(&*backend, "b").await.len(), 1, "it recovers by itself");
}

#[tokio::test]
async fn a_batch_tells_for_each_secret_what_it_is() {
    let server = Faulty::start(|request| match target(request) {
        "BatchGetSecretValue" => {
            let entry = |name: &str| {
                let arn = format!("arn:aws:secretsmanager:eu-central-1:1:secret:{name}-AbCdEf");
                serde_json::json!({"ARN": arn, "Name": name, "VersionId": "v1", "SecretString": "canary"})
            };
            let error = |name: &str, code: &str| serde_json::json!({"SecretId": name, "ErrorCode": code});
            let body = serde_json::json!({
                "SecretValues": [entry("b"), entry("a"), entry("stranger")],
                "Errors": [
                    error("denied", "AccessDeniedException"),
                    error("missing", "ResourceNotFoundException"),
                    error("locked", "DecryptionFailure"),
                    error("marked", "InvalidRequestException"),
                ],
            });
            Reply::json(200, body.to_string()).into()
        }
        "DescribeSecret" => description("marked", true).into(),
        _ => value("silent").into(),
    })
    .await;
    let backend = reader(&server.url(), plain(""));
    let names = ["a", "denied", "b", "missing", "locked", "marked", "silent", "not:held"];
    let answers = backend.fetch_many(&names, Scopes::PrivateFirst).await.expect("answers");
    let told: Vec<_> = answers
        .iter()
        .map(|answer| answer.as_ref().map_or_else(|error| class(error), |secret| secret.description.name.as_str()))
        .collect();
    assert_eq!(told, ["a", "denied", "b", "not found", "unusable", "not found", "silent", "not found"]);
    // The batch, the description of what is in a strange state, and the read of what the batch was silent about.
    assert_eq!(server.calls(), 3);
}

#[tokio::test]
async fn without_the_right_to_batch_secrets_are_read_one_by_one() {
    for code in ["AccessDeniedException", "UnknownOperationException"] {
        let server = Faulty::start(move |request| match target(request) {
            "BatchGetSecretValue" => refusal(400, code),
            _ if request.text().contains("\"a\"") => value("a").into(),
            _ => refusal(400, "ResourceNotFoundException"),
        })
        .await;
        let backend = reader(&server.url(), plain(""));
        for calls in [3, 5] {
            let answers = backend.fetch_many(&["a", "b"], Scopes::PrivateFirst).await.expect("answers");
            assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false], "{code}");
            assert_eq!(server.calls(), calls, "{code}: it is not tried again at once");
        }
    }
}

#[tokio::test]
async fn a_batch_that_fails_as_a_whole_is_one_failure() {
    let server = Faulty::start(|_| refusal(500, "InternalServiceError")).await;
    let backend = reader(&server.url(), plain(""));
    let error = backend.fetch_many(&["a", "b"], Scopes::PrivateFirst).await.err().expect("down");
    assert_eq!((class(&error), server.calls()), ("transient", 1));
}

#[tokio::test]
async fn existence_needs_one_of_two_rights_and_says_which_is_missing() {
    let list = serde_json::json!({"SecretList": [
        {"ARN": "arn:a", "Name": "a", "SecretVersionsToStages": {"v1": ["AWSCURRENT"]}},
        {"ARN": "arn:c", "Name": "c", "SecretVersionsToStages": {"v1": ["AWSPENDING"]}},
    ]});
    let names = ["a", "b", "c", "d"];
    let present = |described: Result<Vec<Option<super::super::super::Description>>, BackendError>| {
        described.map(|all| all.iter().map(Option::is_some).collect::<Vec<_>>())
    };
    let described = async |script: Box<dyn Fn(&Request) -> Answer + Send + Sync>| {
        let server = Faulty::start(script).await;
        let backend = reader(&server.url(), plain(""));
        (present(backend.describe(&names, Scopes::PrivateFirst).await), server.calls())
    };
    // Both rights: what the list lacks is asked for by itself.
    let whole = list.clone();
    let (found, calls) = described(Box::new(move |request| match target(request) {
        "ListSecrets" => Reply::json(200, whole.to_string()).into(),
        _ if request.text().contains("\"b\"") => description("b", false).into(),
        _ => refusal(400, "ResourceNotFoundException"),
    }))
    .await;
    assert_eq!((found, calls), (Ok(vec![true, true, false, false]), 4));
    // Only to list: what it lacks is absent.
    let (found, _) = described(Box::new(move |request| match target(request) {
        "ListSecrets" => Reply::json(200, list.to_string()).into(),
        _ => refusal(400, "AccessDeniedException"),
    }))
    .await;
    assert_eq!(found, Ok(vec![true, false, false, false]));
    // Only to describe.
    let (found, _) = described(Box::new(|request| match target(request) {
        "ListSecrets" => refusal(400, "AccessDeniedException"),
        _ if request.text().contains("\"a\"") => description("a", false).into(),
        _ => refusal(400, "ResourceNotFoundException"),
    }))
    .await;
    assert_eq!(found, Ok(vec![true, false, false, false]));
    // Neither.
    let (found, _) = described(Box::new(|_| refusal(400, "AccessDeniedException"))).await;
    let error = found.expect_err("no right");
    assert_eq!(class(&error), "denied");
    assert!(error.hint().is_some_and(|hint| hint.contains("secretsmanager:DescribeSecret")), "{error:?}");
}

#[tokio::test]
async fn few_names_are_looked_for_in_a_list_by_who_may_not_describe() {
    let server = Faulty::start(|request| match target(request) {
        "ListSecrets" => {
            let one =
                serde_json::json!({"ARN": "arn:a", "Name": "a", "SecretVersionsToStages": {"v1": ["AWSCURRENT"]}});
            Reply::json(200, serde_json::json!({"SecretList": [one]}).to_string()).into()
        }
        _ => refusal(400, "AccessDeniedException"),
    })
    .await;
    let backend = reader(&server.url(), plain(""));
    let described = backend.describe(&["a", "b"], Scopes::PrivateFirst).await.expect("a list is enough");
    assert_eq!(described.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
}

#[tokio::test]
async fn a_word_about_one_secret_of_a_batch_says_nothing_about_the_others() {
    for code in ["ResourceNotFoundException", "InvalidRequestException", "DecryptionFailure"] {
        let server = Faulty::start(move |request| match target(request) {
            "BatchGetSecretValue" => refusal(400, code),
            _ if request.text().contains("\"spoilt\"") => refusal(400, code),
            _ => {
                let secret = serde_json::json!({"ARN": "arn:a", "Name": "a", "VersionId": "v1", "SecretString": "{\"k\": \"v\"}"});
                Reply::json(200, secret.to_string()).into()
            }
        })
        .await;
        let backend = reader(&server.url(), plain(""));
        let read = backend.fetch_many(&["a", "spoilt"], Scopes::PrivateFirst).await.expect("each by itself");
        assert!(read[0].is_ok(), "{code}");
        assert!(read[1].as_ref().err().is_some_and(|error| !error.is_transient()), "{code}");
    }
}

#[tokio::test]
async fn without_the_right_to_list_the_central_store_cannot_be_searched_and_says_so() {
    let server = Faulty::start(|_| refusal(400, "AccessDeniedException")).await;
    let error = error(&*reader(&server.url(), Layout::Store), "db").await;
    assert_eq!((class(&error), server.calls()), ("identity", 1));
    assert!(error.hint().is_some_and(|hint| hint.contains("secretsmanager:ListSecrets")), "{error:?}");
}

#[tokio::test]
async fn a_list_that_lags_makes_no_secret_absent() {
    let lists = Arc::new(AtomicUsize::new(0));
    let script = Arc::clone(&lists);
    let tags = |name: &str| {
        serde_json::json!([
            {"Key": "zenml", "Value": "d"}, {"Key": "zenml_secret_id", "Value": "i"},
            {"Key": "zenml_secret_name", "Value": name}, {"Key": "zenml_secret_scope", "Value": "workspace"},
        ])
    };
    let stages = serde_json::json!({"v1": ["AWSCURRENT"]});
    let server = Faulty::start(move |request| match (target(request), script.load(Ordering::SeqCst)) {
        ("ListSecrets", 0) => {
            let entry = serde_json::json!({"ARN": "arn:i", "Name": "zenml/i", "Tags": tags("db"), "SecretVersionsToStages": stages});
            Reply::json(200, serde_json::json!({"SecretList": [entry]}).to_string()).into()
        }
        ("ListSecrets", _) => Reply::json(200, r#"{"SecretList": []}"#).into(),
        ("DescribeSecret", 1) => {
            let secret = serde_json::json!({"ARN": "arn:i", "Name": "zenml/i", "Tags": tags("db"), "VersionIdsToStages": stages});
            Reply::json(200, secret.to_string()).into()
        }
        ("DescribeSecret", _) => refusal(400, "ResourceNotFoundException"),
        _ => {
            let secret = serde_json::json!({"ARN": "arn:i", "Name": "zenml/i", "VersionId": "v1", "SecretString": "{\"k\": \"v\"}"});
            Reply::json(200, secret.to_string()).into()
        }
    })
    .await;
    let backend = reader(&server.url(), Layout::Store);
    assert_eq!(pairs(&*backend, "db").await.len(), 1);
    lists.store(1, Ordering::SeqCst);
    assert_eq!(pairs(&*backend, "db").await.len(), 1, "the list lacks it, and it is there");
    lists.store(2, Ordering::SeqCst);
    assert_eq!(error(&*backend, "db").await, BackendError::NotFound, "now AWS itself says so");
}

#[tokio::test]
async fn a_list_without_end_is_no_list() {
    let server = Faulty::start(|_| Reply::json(200, r#"{"SecretList": [], "NextToken": "again"}"#).into()).await;
    let error = reader(&server.url(), plain("")).list().await.expect_err("endless");
    assert_eq!((class(&error), server.calls()), ("transient", 2));
}

#[tokio::test]
async fn opening_asks_nobody() {
    let server = Faulty::start(|_| Answer::Hang).await;
    for layout in [plain(""), Layout::Store] {
        drop(open(&settings(&server.url(), layout)));
    }
    assert_eq!(server.calls(), 0);
}

#[tokio::test]
async fn a_name_that_aws_cannot_hold_costs_no_call_and_is_told() {
    let server = Faulty::start(|_| Answer::Close).await;
    let backend = reader(&server.url(), plain("app/"));
    for name in ["a b", "a!", "ключ", "a%2fb"] {
        assert_eq!(error(&*backend, name).await, BackendError::NotFound, "{name}");
        assert!(backend.cannot_hold(name).is_some_and(|why| why.contains("alone")), "{name}");
    }
    assert_eq!((backend.cannot_hold("a/b_c+d=e.f@g-1"), server.calls()), (None, 0));
    // There the name is in a tag.
    assert_eq!(reader(&server.url(), Layout::Store).cannot_hold("a b"), None);
}
