//! Tokens: when a new one is asked for, and what it means when there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use azure_core::credentials::TokenCredential as _;
use azure_core::http::Url;

use super::super::super::faulty::{Answer, Faulty, Reply, refused_url};
use super::super::error::Place;
use super::super::login::Login;
use super::super::source::Identities;
use super::*;
use crate::request_id::{self, RequestIds};

fn logins(server: &Faulty) -> usize {
    server.calls_to("/oauth2/v2.0/token")
}

#[tokio::test]
async fn opening_makes_no_call_and_writing_is_refused() {
    let server = Faulty::start(|_| Answer::Close).await;
    let mut settings = settings(&server.url(), principal("right"), Layout::Store);
    let opened = open(&settings);
    assert!(opened.writer.is_none() && opened.values.is_some());
    assert_eq!(server.calls(), 0);
    settings.writable = true;
    let Err(error) = super::super::super::open(&settings, LIMIT) else { panic!("opened") };
    assert!(error.to_string().contains("only be read") && error.hint().is_some(), "{error}");
}

#[tokio::test]
async fn a_wave_of_401_costs_one_new_login() {
    let issued = Arc::new(AtomicUsize::new(0));
    let good = Arc::new(AtomicUsize::new(1));
    let (count, wanted) = (Arc::clone(&issued), Arc::clone(&good));
    let server = Faulty::start(move |request| {
        if request.path().ends_with("/oauth2/v2.0/token") {
            return given(&format!("token-{}", count.fetch_add(1, Ordering::SeqCst) + 1));
        }
        let expected = format!("Bearer token-{}", wanted.load(Ordering::SeqCst));
        if request.header("authorization") == Some(&expected) { secret("db", "v").into() } else { challenge() }
    })
    .await;
    let opened = open(&settings(&server.url(), principal("right"), plain()));
    fetch(&opened, "db").await.map(|_| ()).expect("the first token");
    assert_eq!(logins(&server), 1);
    // From now on the first token is refused.
    good.store(2, Ordering::SeqCst);
    let results = futures_util::future::join_all((0..40).map(|_| fetch(&opened, "db"))).await;
    for result in results {
        assert_eq!(result.map(|secret| shown(&secret)), Ok("value=v;".into()));
    }
    assert_eq!(logins(&server), 2);
}

#[tokio::test]
async fn a_login_whose_tokens_are_refused_is_not_repeated_at_once() {
    let server = Faulty::start(|request| match request.path().ends_with("/oauth2/v2.0/token") {
        true => given("token"),
        false => challenge(),
    })
    .await;
    let opened = open(&settings(&server.url(), principal("right"), plain()));
    for _ in 0..5 {
        let error = error(&opened, "db").await;
        assert_eq!(class(&error), "identity", "{error}");
    }
    assert_eq!(logins(&server), 1);
}

#[tokio::test]
async fn every_fault_of_the_login_has_its_class_and_costs_one_call() {
    let entra = |number: u32| {
        let body = format!(
            r#"{{"error": "invalid_client", "error_description": "AADSTS{number}: canary", "error_codes": [{number}]}}"#
        );
        Reply::json(401, body)
    };
    let cases: Vec<(&str, Answer, &str, &str)> = vec![
        ("a wrong secret", entra(7_000_215).into(), "identity", "AADSTS7000215"),
        ("an expired secret", entra(7_000_222).into(), "identity", "AADSTS7000222"),
        ("another error", entra(1).into(), "identity", "HTTP 401"),
        (
            "no such tenant",
            Reply::json(400, r#"{"error_codes": [90002], "error_description": "x"}"#).into(),
            "identity",
            "AADSTS90002",
        ),
        ("nothing there", Reply::bytes(404, "canary").into(), "identity", "HTTP 404"),
        ("throttled", Reply::json(429, "{}").into(), "transient", "429"),
        ("down", Reply::bytes(503, "<html>canary").into(), "transient", "503"),
        ("a page", Reply::bytes(200, "<html>canary").into(), "transient", "not the login service"),
        ("a page of a proxy", Reply::bytes(403, "<html>canary").into(), "transient", "not the login service"),
        ("closed", Answer::Close, "transient", "service principal"),
        ("silent", Answer::Hang, "transient", "in time"),
        ("cut off", Answer::Truncated(Reply::json(200, r#"{"access_token": "canary"}"#), 9), "transient", "broke off"),
    ];
    for (what, answer, expected, words) in cases {
        let server = Faulty::start(move |request| match request.path().ends_with("/oauth2/v2.0/token") {
            true => answer.clone(),
            false => challenge(),
        })
        .await;
        let mut settings = settings(&server.url(), principal("canary-secret"), plain());
        settings.timeout = Duration::from_millis(1500);
        let opened = open(&settings);
        let error = error(&opened, "db").await;
        assert_eq!(class(&error), expected, "{what}: {error}");
        assert_eq!(logins(&server), 1, "{what}");
        let said = format!("{error} {:?}", error.hint());
        assert!(said.contains(words), "{what}: {said}");
        assert!(!said.contains("canary"), "{what}: {said}");
    }
}

#[tokio::test]
async fn a_wave_of_readers_shares_a_failing_login() {
    let server = Faulty::start(|request| match request.path().ends_with("/oauth2/v2.0/token") {
        true => Reply::json(503, "{}").into(),
        false => challenge(),
    })
    .await;
    let opened = open(&settings(&server.url(), principal("right"), plain()));
    let results = futures_util::future::join_all((0..40).map(|_| fetch(&opened, "db"))).await;
    assert!(results.iter().all(|result| matches!(result, Err(error) if error.is_transient())));
    assert_eq!(logins(&server), 1);
}

#[tokio::test]
async fn a_configured_token_is_read_again_and_never_repeated_after_a_refusal() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "old").expect("written");
    let server = Faulty::start(|request| {
        azure(request, |_, token| if token == "new" { secret("db", "v").into() } else { challenge() })
    })
    .await;
    let token = SecretText { text: "old".to_owned().into(), origin: "`token_file`".into(), file: Some(file.clone()) };
    let opened = open(&settings(&server.url(), AzureLogin::Token(token), plain()));
    let refused = error(&opened, "db").await;
    assert_eq!(class(&refused), "identity", "{refused}");
    std::fs::write(&file, "new").expect("written");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    tokio::time::resume();
    assert_eq!(fetch(&opened, "db").await.map(|secret| shown(&secret)), Ok("value=v;".into()));
    assert_eq!(logins(&server), 0);
}

#[tokio::test]
async fn a_vault_that_asks_for_a_login_to_another_service_gets_none() {
    // As a proxy, this server answers in place of any host, as a forged vault would.
    let server = Faulty::start(|_| challenge()).await;
    let mut settings = settings("http://v.vault.example", principal("right"), plain());
    settings.network.allow_plaintext = true;
    settings.network.proxy = Some(server.url().into());
    let error = error(&open(&settings), "db").await;
    assert_eq!(class(&error), "identity", "{error}");
    assert!(error.to_string().contains("another service"), "{error}");
    assert_eq!(server.calls(), 1);
}

/// The login of a machine whose metadata service is `server`.
fn on_a_machine(server: &str, client_id: Option<&str>) -> Login {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = || reqwest::Client::builder().no_proxy().build().expect("a client");
    let metadata = Some(Url::parse(server).expect("a URL"));
    let identities =
        Identities { backend: "kv".into(), outside: client(), inside: client(), metadata, authority: None };
    let place = Place { backend: "kv".into(), vault: "https://v.vault.azure.net".into() };
    let settings = AzureLogin::Default { client_id: client_id.map(str::to_owned), tenant_id: None };
    Login::new(Arc::new(place), settings, identities)
}

async fn log_in(login: &Login) -> Result<String, BackendError> {
    match login.get_token(&["https://vault.azure.net/.default"], None).await {
        Ok(token) => Ok(token.token.secret().to_owned()),
        Err(error) => Err(error.downcast_ref::<BackendError>().expect("ours").clone()),
    }
}

#[tokio::test]
async fn a_machine_gives_its_own_identity_and_the_library_asks_once() {
    let short_lived = |request: &Request| {
        let soon =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs() + 60;
        assert_eq!(request.header("metadata"), Some("true"));
        let body = format!(
            r#"{{"access_token": "machine's", "expires_on": "{soon}", "token_type": "Bearer", "resource": "https://vault.azure.net"}}"#
        );
        Reply::json(200, body).into()
    };
    let server = Faulty::start(short_lived).await;
    let login = on_a_machine(&server.url(), Some("user-assigned"));
    assert_eq!(log_in(&login).await, Ok("machine's".into()));
    assert!(server.requests()[0].query().contains("client_id=user-assigned"), "{}", server.requests()[0].target);
    // The token is about to expire, so each call asks again: from now on this identity alone.
    for (status, expected) in
        [(503, "transient"), (410, "transient"), (429, "transient"), (404, "identity"), (400, "identity")]
    {
        let before = server.calls();
        server.follow(move |_| Reply::json(status, "{}").into());
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(2)).await;
        tokio::time::resume();
        let error = log_in(&login).await.expect_err("refused");
        assert_eq!(class(&error), expected, "{status}: {error}");
        assert_eq!(server.calls() - before, 1, "{status}");
    }
}

#[tokio::test]
async fn a_metadata_service_in_trouble_is_no_reason_to_log_in_as_somebody_else() {
    let server = Faulty::start(|_| Reply::json(500, "{}").into()).await;
    let error = log_in(&on_a_machine(&server.url(), None)).await.expect_err("down");
    assert!(class(&error) == "transient" && error.to_string().contains("managed identity"), "{error}");
    assert_eq!(server.calls(), 1);
    let reached = on_a_machine(&refused_url(), None);
    if let Err(error) = log_in(&reached).await {
        assert!(class(&error) == "identity" && error.to_string().contains("Azure command line"), "{error}");
    }
}

#[tokio::test]
async fn key_vault_is_told_which_request_a_call_is_for() {
    let server = Faulty::start(|request| azure(request, |_, _| secret("db", "fine").into())).await;
    let opened = open(&settings(&server.url(), principal("right"), plain()));
    let id = RequestIds::new("run").next();
    request_id::within(id, fetch(&opened, "db")).await.expect("found");
    let told: Vec<_> =
        server.requests().iter().filter(|request| request.path().starts_with("/secrets")).cloned().collect();
    assert!(!told.is_empty());
    for request in told {
        let ids: Vec<_> = request.headers.iter().filter(|(name, _)| name == "x-ms-client-request-id").collect();
        assert_eq!(ids.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>(), ["run-1"]);
    }
}
