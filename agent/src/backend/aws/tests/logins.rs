//! Roles: STS gives the credentials, and what it does wrong is no word of any secret.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use keyside_config::settings::{BackendKind, BackendSettings};

use super::faults::{refusal, value};
use super::{error, open, pairs, plain, settings};
use crate::backend::Scopes;
use crate::backend::contract::class;
use crate::backend::faulty::{Answer, Faulty, Reply, Request};
use crate::backend::outages;

/// A back-end that assumes a role; STS is at the same address.
fn with_role(url: &str) -> BackendSettings {
    let mut settings = settings(url, plain(""));
    let BackendKind::Aws(aws) = &mut settings.kind else { panic!("AWS's") };
    aws.role_arn = Some("arn:aws:iam::123456789012:role/keyside".to_owned());
    settings
}

fn is_login(request: &Request) -> bool {
    request.text().contains("Action=AssumeRole")
}

fn logins(server: &Faulty) -> usize {
    server.requests().iter().filter(|request| is_login(request)).count()
}

/// What STS answers; the access key is `ASIA` with this number.
fn assumed(number: usize) -> Reply {
    Reply::bytes(
        200,
        format!(
            "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><AssumedRoleUser>\
             <AssumedRoleId>AROA:keyside</AssumedRoleId><Arn>arn:aws:sts::123456789012:assumed-role/keyside/keyside</Arn>\
             </AssumedRoleUser><Credentials><AccessKeyId>ASIA{number}</AccessKeyId>\
             <SecretAccessKey>canary</SecretAccessKey><SessionToken>canary</SessionToken>\
             <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
        ),
    )
}

fn sound(request: &Request) -> Answer {
    if is_login(request) { assumed(1).into() } else { value("db").into() }
}

#[tokio::test]
async fn an_sts_that_is_not_to_be_believed_is_an_outage_and_says_why() {
    outages::of_certificates(sound, async |url, network| {
        let mut settings = with_role(url);
        settings.network = network;
        open(&settings).reader.fetch("db", Scopes::PrivateFirst).await.map(|_| ())
    })
    .await;
}

#[tokio::test]
async fn a_wave_of_refused_credentials_asks_sts_once() {
    let (given, good) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(1)));
    let (count, wanted) = (Arc::clone(&given), Arc::clone(&good));
    let server = Faulty::start(move |request| {
        if is_login(request) {
            return assumed(count.fetch_add(1, Ordering::SeqCst) + 1).into();
        }
        let key = format!("Credential=ASIA{}/", wanted.load(Ordering::SeqCst));
        match request.header("authorization").is_some_and(|header| header.contains(&key)) {
            true => value("db").into(),
            false => refusal(400, "ExpiredTokenException"),
        }
    })
    .await;
    let backend = open(&with_role(&server.url())).reader;
    let wave = async || futures_util::future::join_all((0..40).map(|_| pairs(&*backend, "db"))).await;
    wave().await;
    assert_eq!(logins(&server), 1, "forty cold readers");
    good.store(2, Ordering::SeqCst);
    wave().await;
    assert_eq!(logins(&server), 2, "forty readers with credentials that have ended");
}

#[tokio::test]
async fn what_sts_does_wrong_is_told_from_what_it_refuses() {
    let refused = |status: u16, code: &str| {
        Answer::from(Reply::bytes(
            status,
            format!("<ErrorResponse><Error><Code>{code}</Code><Message>canary</Message></Error></ErrorResponse>"),
        ))
    };
    for (answer, expected) in [
        (refused(403, "AccessDenied"), "identity"),
        (refused(403, "InvalidClientTokenId"), "identity"),
        (refused(400, "Throttling"), "transient"),
        (refused(503, "ServiceUnavailable"), "transient"),
        (Reply::bytes(502, "<html>canary</html>").into(), "transient"),
        (Reply::bytes(200, "<html>canary</html>").into(), "transient"),
        (Answer::Hang, "transient"),
        (Answer::HangAfter(assumed(1), 20), "transient"),
        (Answer::Truncated(assumed(1), 20), "transient"),
        (Answer::Trickle(assumed(1)), "transient"),
        (Answer::Endless(Reply::bytes(200, "")), "transient"),
        (Answer::GzipBomb, "transient"),
        (Answer::Close, "transient"),
    ] {
        let what = format!("{answer:?}");
        let server = Faulty::start(move |_| answer.clone()).await;
        let mut settings = with_role(&server.url());
        settings.timeout = Duration::from_millis(600);
        let error = error(&*open(&settings).reader, "db").await;
        assert_eq!((class(&error), server.calls()), (expected, 1), "{what}: {error}");
        let said = format!("{error} {:?}", error.hint());
        assert!(error.hint().is_some() && !said.contains("canary"), "{said}");
    }
}

#[tokio::test]
async fn an_sts_that_wants_to_be_left_alone_is() {
    let server = Faulty::start(|_| Reply::bytes(503, "").header("Retry-After", "30").into()).await;
    let backend = open(&with_role(&server.url())).reader;
    outages::check(&error(&*backend, "db").await, "busy", "no credentials of AWS for now", "STS");
    server.follow(sound);
    outages::check(&error(&*backend, "db").await, "in the pause", "asked to be left alone", "try again then");
    assert_eq!(server.calls(), 1);
}
