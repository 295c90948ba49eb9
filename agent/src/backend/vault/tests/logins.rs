//! Logging in, renewing, and what a dead token costs.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;

use super::super::super::faulty::Faulty;
use super::*;

fn granted(token: &str, lease: u64, renewable: bool) -> Answer {
    let auth = format!(r#"{{"client_token": "{token}", "lease_duration": {lease}, "renewable": {renewable}}}"#);
    Reply::json(200, format!(r#"{{"auth": {auth}}}"#)).into()
}

fn app_role(url: String) -> Options {
    let login = VaultLogin::AppRole { role_id: "role".into(), secret_id: Some(text(CANARY)) };
    Options { login, ..Options::at(url) }
}

/// A server of one live token at a time: logins give `s.1`, `s.2`, ..., and only the last one given works.
struct Tokens {
    given: AtomicUsize,
    live: Mutex<Option<String>>,
}

impl Tokens {
    fn new() -> Arc<Self> {
        Arc::new(Self { given: AtomicUsize::new(0), live: Mutex::default() })
    }

    fn answer(&self, request: &Request, lease: u64) -> Answer {
        if request.path().ends_with("/login") {
            let token = format!("s.{}", self.given.fetch_add(1, Ordering::SeqCst) + 1);
            *self.live.lock().expect("live") = Some(token.clone());
            return granted(&token, lease, false);
        }
        let live = self.live.lock().expect("live").clone();
        match (request.header("x-vault-token") == live.as_deref(), request.path()) {
            (false, _) => errors(403, "permission denied"),
            (true, path) if path.contains("/data/denied") => errors(403, "permission denied"),
            (true, path) if path.contains("/data/") => data(r#"{"k": "v"}"#),
            (true, _) => otherwise(request),
        }
    }

    fn revoke(&self) {
        *self.live.lock().expect("live") = None;
    }
}

#[tokio::test]
async fn many_cold_readers_log_in_once() {
    let tokens = Tokens::new();
    let server = Faulty::start(move |request| tokens.answer(request, 3600)).await;
    let backend = app_role(server.url()).reader();
    let names: Vec<String> = (0..40).map(|number| format!("db{number}")).collect();
    for result in join_all(names.iter().map(|name| fetch(&*backend, name))).await {
        assert_eq!(result.expect("found"), pairs(&[("k", "v")]));
    }
    assert_eq!((server.calls_to("/login"), server.calls()), (1, 41));
    let login = &server.requests()[0];
    assert_eq!((login.method.as_str(), login.path()), ("POST", "/v1/auth/approle/login"));
    assert_eq!(login.text(), format!(r#"{{"role_id":"role","secret_id":"{CANARY}"}}"#));
    assert_eq!(login.header("x-vault-token"), None);
}

#[tokio::test]
async fn a_revoked_token_costs_a_wave_of_readers_one_login() {
    let tokens = Tokens::new();
    let script = Arc::clone(&tokens);
    let server = Faulty::start(move |request| script.answer(request, 3600)).await;
    let backend = app_role(server.url()).reader();
    fetch(&*backend, "db").await.expect("found");
    tokens.revoke();
    for result in join_all((0..20).map(|_| fetch(&*backend, "db"))).await {
        assert_eq!(result.expect("found by the new token"), pairs(&[("k", "v")]));
    }
    assert_eq!(server.calls_to("/login"), 2);
    // Of the dead token, and of the new one, which tells whether tokens here may ask at all.
    assert_eq!(server.calls_to("/lookup-self"), 2);
}

#[tokio::test]
async fn a_refusal_to_a_live_token_costs_no_login() {
    let tokens = Tokens::new();
    let server = Faulty::start(move |request| tokens.answer(request, 3600)).await;
    let backend = app_role(server.url()).reader();
    for _ in 0..3 {
        assert!(matches!(failure(&*backend, "denied").await, BackendError::Denied { .. }));
    }
    assert_eq!(server.calls_to("/login"), 1);
}

#[tokio::test]
async fn a_token_that_may_not_ask_about_itself_is_replaced_once_and_then_believed() {
    let logins = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&logins);
    let server = Faulty::start(move |request| match request.path() {
        path if path.ends_with("/login") => {
            granted(&format!("s.{}", count.fetch_add(1, Ordering::SeqCst)), 3600, false)
        }
        path if path.contains("/data/denied") || path.ends_with("/lookup-self") => errors(403, "permission denied"),
        path if path.contains("/data/") => data(r#"{"k": "v"}"#),
        _ => otherwise(request),
    })
    .await;
    let backend = app_role(server.url()).reader();
    fetch(&*backend, "db").await.expect("found");
    for _ in 0..4 {
        assert!(matches!(failure(&*backend, "denied").await, BackendError::Denied { .. }));
    }
    assert_eq!(logins.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_given_token_that_may_not_ask_about_itself_is_alive_where_it_is_shown_its_mount() {
    let dead = Arc::new(AtomicBool::new(false));
    let revoked = Arc::clone(&dead);
    let server = Faulty::start(move |request| match request.path() {
        path if path.ends_with("/lookup-self") || revoked.load(Ordering::SeqCst) => errors(403, "permission denied"),
        // To every token that has a right to anything in the mount, whatever comes behind its name.
        path if path.starts_with("/v1/sys/internal/ui/mounts/secret/") => {
            Reply::json(200, r#"{"data": {"type": "kv", "options": {"version": "2"}}}"#).into()
        }
        path if path.contains("/subkeys/") || path.contains("/metadata/") => errors(403, "permission denied"),
        path if path.contains("/data/denied") => errors(403, "permission denied"),
        path if path.contains("/data/") => data(r#"{"k": "v"}"#),
        _ => otherwise(request),
    })
    .await;
    let backend = Options::at(server.url()).reader();
    let denied = backend.describe(&["db"], Scopes::PrivateFirst).await.expect_err("whoever asks may read instead");
    assert!(matches!(denied, BackendError::Denied { .. }), "{denied}");
    assert!(matches!(failure(&*backend, "denied").await, BackendError::Denied { .. }));
    fetch(&*backend, "db").await.expect("found");
    dead.store(true, Ordering::SeqCst);
    let error = failure(&*backend, "db").await;
    assert!(
        matches!(error, BackendError::Identity { .. }) && error.to_string().contains("expired or revoked"),
        "{error}"
    );
}

#[tokio::test]
async fn a_login_that_is_refused_is_shared_and_given_a_pause() {
    let server = Faulty::start(|_| errors(400, "invalid role or secret ID")).await;
    let backend = app_role(server.url()).reader();
    for error in join_all((0..20).map(|_| failure(&*backend, "db"))).await {
        let BackendError::Identity { what, hint } = error else { panic!("{error:?}") };
        assert!(what.contains("auth/approle") && what.contains("400") && !what.contains(CANARY), "{what}");
        assert!(hint.is_some());
    }
    assert!(matches!(failure(&*backend, "db").await, BackendError::Identity { .. }));
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn a_login_without_an_answer_is_transient_and_tried_again() {
    let server = Faulty::start(|_| errors(503, "Vault is sealed")).await;
    let backend = app_role(server.url()).reader();
    let error = failure(&*backend, "db").await;
    assert!(error.is_transient() && error.to_string().contains("sealed"), "{error}");
    let tokens = Tokens::new();
    server.follow(move |request| tokens.answer(request, 3600));
    fetch(&*backend, "db").await.expect("found");
}

#[tokio::test]
async fn a_method_that_is_not_there_and_an_answer_without_a_token_are_said() {
    for (answer, word) in [
        (errors(404, "no handler for route"), "auth/team/approle (404)"),
        (Reply::json(200, r#"{"auth": {"client_token": "", "mfa_requirement": {}}}"#).into(), "no token"),
    ] {
        let server = Faulty::start(move |_| answer.clone()).await;
        let backend = Options { auth_mount: Some("team/approle"), ..app_role(server.url()) }.reader();
        let error = failure(&*backend, "db").await;
        assert!(matches!(error, BackendError::Identity { .. }) && error.to_string().contains(word), "{error}");
        assert_eq!(server.requests()[0].path(), "/v1/auth/team/approle/login");
    }
}

#[tokio::test]
async fn kubernetes_and_jwt_log_in_with_what_their_files_hold_now() {
    let folder = tempfile::tempdir().expect("a folder");
    let jwt_file = folder.path().join("token");
    for (login, path, body) in [
        (
            VaultLogin::Kubernetes { role: "step".into(), jwt_file: jwt_file.clone() },
            "/v1/auth/kubernetes/login",
            r#"{"role":"step","jwt":"e.y.J"}"#,
        ),
        (VaultLogin::Jwt { role: None, jwt_file: jwt_file.clone() }, "/v1/auth/jwt/login", r#"{"jwt":"e.y.J"}"#),
    ] {
        let _ = std::fs::remove_file(&jwt_file);
        let tokens = Tokens::new();
        let server = Faulty::start(move |request| tokens.answer(request, 3600)).await;
        let backend = Options { login, ..Options::at(server.url()) }.reader();
        let error = failure(&*backend, "db").await;
        assert!(matches!(error, BackendError::Identity { .. }) && error.to_string().contains("jwt_file"), "{error}");
        assert_eq!(server.calls(), 0);
        std::fs::write(&jwt_file, "e.y.J\n").expect("written");
        // The pause after a failed login.
        let found = eventually(async || fetch(&*backend, "db").await.ok()).await;
        assert_eq!(found, pairs(&[("k", "v")]));
        assert_eq!((server.requests()[0].path(), server.requests()[0].text().as_str()), (path, body));
    }
}

#[tokio::test]
async fn a_token_file_that_changes_is_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    std::fs::write(&path, "s.old\n").expect("written");
    let server = Faulty::start(|request| match request.header("x-vault-token") {
        Some("s.old" | "s.new") if request.path().contains("/data/") => data(r#"{"k": "v"}"#),
        _ => errors(403, "permission denied"),
    })
    .await;
    let backend = Options { login: VaultLogin::Token(file(&path)), ..Options::at(server.url()) }.reader();
    let last = || server.requests().last().and_then(|request| request.header("x-vault-token").map(str::to_owned));
    fetch(&*backend, "db").await.expect("found");
    assert_eq!(last().as_deref(), Some("s.old"));
    std::fs::write(&path, "s.new\n").expect("written");
    fetch(&*backend, "db").await.expect("found");
    assert_eq!(last().as_deref(), Some("s.new"));
    // Between two files the last token is used on.
    std::fs::remove_file(&path).expect("removed");
    fetch(&*backend, "db").await.expect("found");
    std::fs::write(&path, "s.dead\n").expect("written");
    let error = failure(&*backend, "db").await;
    assert!(matches!(error, BackendError::Identity { .. }), "{error}");
    assert!(!error.to_string().contains("s.dead"));
}

#[tokio::test]
async fn a_lease_is_renewed_in_good_time_and_replaced_when_renewals_end() {
    let renewals = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&renewals);
    let server = Faulty::start(move |request| match request.path() {
        "/v1/auth/approle/login" => granted("s.login", 1, true),
        "/v1/auth/token/renew-self" => match count.fetch_add(1, Ordering::SeqCst) {
            0 => granted("s.login", 1, true),
            _ => errors(403, "permission denied"),
        },
        _ => data(r#"{"k": "v"}"#),
    })
    .await;
    let backend = app_role(server.url()).reader();
    fetch(&*backend, "db").await.expect("found");
    assert_eq!((server.calls_to("/login"), server.calls_to("/renew-self")), (1, 0));
    eventually(async || {
        fetch(&*backend, "db").await.expect("found");
        (server.calls_to("/renew-self") == 1).then_some(())
    })
    .await;
    eventually(async || {
        fetch(&*backend, "db").await.expect("found");
        (server.calls_to("/login") > 1).then_some(())
    })
    .await;
    let renewal = server.requests().into_iter().find(|request| request.path().ends_with("/renew-self"));
    let renewal = renewal.expect("a renewal");
    assert_eq!((renewal.method.as_str(), renewal.header("x-vault-token")), ("POST", Some("s.login")));
}

/// Asks again and again until there is an answer.
pub(super) async fn eventually<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let started = std::time::Instant::now();
    loop {
        if let Some(answer) = attempt().await {
            return answer;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "waited in vain");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
