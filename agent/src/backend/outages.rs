//! What every back-end that speaks HTTP makes of a server in trouble, shown on each of them through a [`Subject`].
//!
//! Whatever it is, it is transient, is said in words with something to try, costs one call and no more than the time of
//! one, and is over when the server is well again. What only one kind of server can say is in that back-end's own tests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keyside_config::settings::NetworkSettings;

use super::certificates::{Authority, Certificate};
use super::faulty::{Answer, Faulty, Reply, Request, refused_url};
use super::{Backend, BackendError, Scopes};

/// Long enough for a busy machine to answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// Shorter than a byte a second takes; short to wait for.
const SHORT: Duration = Duration::from_millis(700);

/// What a machine may take to notice that time is up.
const MARGIN: Duration = Duration::from_secs(3);

/// A back-end under test.
pub struct Subject {
    /// Opens it on the server at this address, over this network, with this much time a call.
    pub open: fn(&str, NetworkSettings, Duration) -> Arc<dyn Backend>,
    /// Answers as a sound server does that holds the secret [`name`](Self::name).
    pub sound: fn(&Request) -> Answer,
    /// A secret's name.
    pub name: &'static str,
}

impl Subject {
    async fn read(&self, backend: &dyn Backend) -> Result<(), BackendError> {
        backend.fetch(self.name, Scopes::PrivateFirst).await.map(|_| ())
    }

    async fn must_read(&self, backend: &dyn Backend, when: &str) {
        if let Err(error) = self.read(backend).await {
            panic!("{when}: {error}, {:?}", error.hint());
        }
    }

    /// Reads what cannot be read, in the time of one call.
    async fn outage(&self, backend: &dyn Backend, within: Duration, what: &str) -> BackendError {
        let began = Instant::now();
        let error = self.read(backend).await.expect_err(what);
        assert!(began.elapsed() < within + MARGIN, "{what}: {:?}", began.elapsed());
        check(&error, what, "", "");
        error
    }
}

/// Checks that an error is a transient one with these words and this advice, and quotes nothing.
pub fn check(error: &BackendError, what: &str, words: &str, hint: &str) {
    let shown = format!("{what}: {error}, {:?}", error.hint());
    assert!(error.is_transient(), "{shown}");
    assert!(error.to_string().starts_with("back-end `") && error.to_string().contains(words), "{shown}");
    assert!(error.hint().is_some_and(|advice| !advice.is_empty() && advice.contains(hint)), "{shown}");
    assert!(!shown.contains("canary"), "{shown}");
}

/// Certificates for a server of this machine that are not to be believed: what is wrong, and what to try.
pub fn doubtful(authority: &Authority) -> [(Certificate, &'static str, &'static str); 3] {
    let here = ["127.0.0.1"];
    [
        (authority.expired_server(&here), "its certificate has expired", "renew the certificate"),
        (authority.server(&["elsewhere.example"]), "its certificate is for another host", "the name that"),
        (
            Authority::new("nobody knows it").server(&here),
            "its certificate is of an authority that is not known here",
            "`ca_file`",
        ),
    ]
}

/// Makes `attempt` on servers whose certificates nobody should believe, each opened anew and trusting one authority: no
/// request is made, and one handshake. Then on one that should be believed.
pub async fn of_certificates(
    sound: fn(&Request) -> Answer,
    attempt: impl AsyncFn(&str, NetworkSettings) -> Result<(), BackendError>,
) {
    let authority = Authority::new("known");
    let folder = tempfile::tempdir().expect("a folder");
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).expect("written");
    let network = || NetworkSettings { ca_file: Some(ca_file.clone()), ..NetworkSettings::default() };
    for (certificate, words, hint) in doubtful(&authority) {
        let server = Faulty::start_tls(&certificate, sound).await;
        let began = Instant::now();
        let error = attempt(&server.url(), network()).await.expect_err(words);
        assert!(began.elapsed() < MARGIN, "{words}: {:?}", began.elapsed());
        check(&error, words, words, hint);
        assert_eq!((server.connections(), server.calls()), (1, 0), "{words}");
    }
    let server = Faulty::start_tls(&authority.server(&["127.0.0.1"]), sound).await;
    let unknown = attempt(&server.url(), NetworkSettings::default()).await.expect_err("without `ca_file`");
    check(&unknown, "without `ca_file`", "authority that is not known", "`ca_file`");
    assert_eq!((server.connections(), server.calls()), (1, 0));
    if let Err(error) = attempt(&server.url(), network()).await {
        panic!("a good certificate: {error}, {:?}", error.hint());
    }
    assert!(server.calls() > 0);
}

/// TLS that cannot be believed, and such as is not even begun.
pub async fn of_tls(subject: &Subject) {
    of_certificates(subject.sound, async |url, network| subject.read(&*(subject.open)(url, network, PATIENCE)).await)
        .await;
    // Connections are made here, and nobody takes them.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port");
    let url = format!("https://{}", silent.local_addr().expect("bound"));
    let backend = (subject.open)(&url, NetworkSettings::default(), SHORT);
    let error = subject.outage(&*backend, SHORT, "a handshake without an answer").await;
    assert!(error.to_string().contains("in time"), "{error}");
}

/// Nobody there, and no such host.
pub async fn of_the_way_there(subject: &Subject) {
    for (url, hint) in [(refused_url(), ""), ("https://keyside-does-not-exist.invalid".to_owned(), "name service")] {
        let backend = (subject.open)(&url, NetworkSettings::default(), PATIENCE);
        let error = subject.outage(&*backend, PATIENCE, &url).await;
        check(&error, &url, "no connection", hint);
        assert!(backend.list().await.expect_err(&url).is_transient(), "{url}");
        let described = backend.describe(&[subject.name], Scopes::PrivateFirst).await;
        assert!(described.expect_err(&url).is_transient(), "{url}");
    }
}

/// Replies that say nothing of a secret, whoever gives them.
pub fn faults() -> Vec<(&'static str, Answer)> {
    let whole = |body: &str| Reply::json(200, body);
    let object = || whole(r#"{"canary": "canary", "canaries": ["canary"]}"#);
    let page = |status| Reply::bytes(status, "<html>canary</html>").header("Content-Type", "text/html");
    vec![
        ("500", Reply::json(500, "{}").into()),
        ("501", Reply::json(501, "{}").into()),
        ("502", page(502).into()),
        ("503", Reply::bytes(503, "no healthy upstream").into()),
        ("504", Reply::bytes(504, "").into()),
        ("429", Reply::json(429, "{}").into()),
        ("somebody else's 404", page(404).into()),
        ("a redirect", Reply::bytes(302, "").header("Location", "http://127.0.0.1:9/elsewhere").into()),
        ("a page", page(200).into()),
        ("nothing", whole("").into()),
        ("null", whole("null").into()),
        ("an empty object", whole("{}").into()),
        ("a list", whole("[]").into()),
        ("another object", object().into()),
        ("half of an object", whole(r#"{"canary": "cana"#).into()),
        ("not UTF-8", Reply::bytes(200, b"{\"canary\": \"\xff\"}".as_slice()).into()),
        ("cut off", Answer::Truncated(object(), 8)),
        ("endless", Answer::Endless(whole(""))),
        ("a gzip bomb", Answer::GzipBomb),
        ("no HTTP", Answer::Garbage),
        ("closed", Answer::Close),
        ("silent", Answer::Hang),
        ("silent in the middle", Answer::HangAfter(object(), 8)),
        ("a byte a second", Answer::Trickle(object())),
    ]
}

/// Each of the [`faults`], met by a back-end that has just read: one call, no more time than one, and the next read is
/// well again.
pub async fn of_replies(subject: &Subject) {
    let server = Faulty::start(subject.sound).await;
    let backend = (subject.open)(&server.url(), NetworkSettings::default(), SHORT);
    subject.must_read(&*backend, "before all").await;
    for (what, fault) in faults() {
        server.follow(move |_| fault.clone());
        let before = server.calls();
        subject.outage(&*backend, SHORT, what).await;
        assert_eq!(server.calls() - before, 1, "{what}: no try but the first");
        server.follow(subject.sound);
        subject.must_read(&*backend, what).await;
    }
}

/// A server that fails for long: each read is one call, and the first after it is answered.
pub async fn of_a_storm(subject: &Subject) {
    let server = Faulty::start(subject.sound).await;
    let backend = (subject.open)(&server.url(), NetworkSettings::default(), PATIENCE);
    subject.must_read(&*backend, "before the storm").await;
    let before = server.calls();
    server.follow(|_| Reply::bytes(503, "<html>canary</html>").into());
    for number in 1..=20 {
        subject.outage(&*backend, MARGIN, "a storm").await;
        assert_eq!(server.calls() - before, number);
    }
    server.follow(subject.sound);
    subject.must_read(&*backend, "after the storm").await;
}

/// `Retry-After`: kept, for a minute at most, and nonsense is not.
pub async fn of_retry_after(subject: &Subject) {
    for (status, retry_after, is_kept) in [
        (429, "30", true),
        (503, "30", true),
        (429, "18446744073709551615", true),
        (429, "0", false),
        (429, "", false),
        (429, "soon", false),
        (429, "-5", false),
        (429, "1e9", false),
        (503, "99999999999999999999999", false),
        (429, "Wed, 21 Oct 2065 07:28:00 GMT", false),
        // No status that asks for a pause.
        (500, "30", false),
    ] {
        let what = format!("{status} {retry_after}");
        let server = Faulty::start(subject.sound).await;
        let backend = (subject.open)(&server.url(), NetworkSettings::default(), PATIENCE);
        subject.must_read(&*backend, &what).await;
        server.follow(move |_| Reply::json(status, "{}").header("Retry-After", retry_after).into());
        subject.outage(&*backend, PATIENCE, &what).await;
        server.follow(subject.sound);
        if !is_kept {
            subject.must_read(&*backend, &what).await;
            continue;
        }
        let before = server.calls();
        let error = subject.outage(&*backend, MARGIN, &what).await;
        check(&error, &what, "asked to be left alone, for ", "try again then");
        let seconds = error.to_string().split(' ').find_map(|word| word.parse::<u64>().ok()).expect("seconds");
        assert!(seconds <= 60, "{what}: {seconds}");
        assert!(backend.list().await.expect_err("in the pause").is_transient(), "{what}");
        assert_eq!(server.calls(), before, "{what}: no call at all");
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(61)).await;
        tokio::time::resume();
        subject.must_read(&*backend, &what).await;
    }
}
