//! Logins by IAM to a server that speaks as RDS does up to the first statement. No MariaDB has AWS's plug-in.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_credential_types::credential_fn::provide_credentials_fn;
use aws_credential_types::provider::{ProvideCredentials, error::CredentialsError};
use keyside_config::settings::{BackendSettings, MysqlSettings, RdsIam};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::super::super::error::{At, Place};
use super::super::super::{mysql, rds_iam};
use super::faults::{PLAIN, greeting, packet};
use super::secured::Certificates;
use super::*;
use crate::backend::aws::signer::Signer;

/// What a server can do besides, if it can speak TLS.
const TLS: u32 = 0x800;

/// What the server says to a token.
#[derive(Clone, Copy)]
enum Verdict {
    /// "Welcome", and then that it has no such data base.
    Accept,
    Deny,
}

/// Reads one packet and returns its body.
fn receive(stream: &mut impl Read) -> Vec<u8> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).expect("a packet's head");
    let mut body = vec![0; usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16];
    stream.read_exact(&mut body).expect("a packet's body");
    body
}

/// Serves one connection and returns the token that it brought.
fn serve_one(stream: TcpStream, tls: &Arc<ServerConfig>, verdict: Verdict) -> String {
    let mut stream = stream;
    stream.write_all(&packet(0, &greeting(PLAIN | TLS, "mysql_native_password"))).expect("sent");
    assert_eq!(receive(&mut stream).len(), 32, "a request for TLS, which names nobody");
    let connection = ServerConnection::new(Arc::clone(tls)).expect("settings that can work");
    let mut stream = StreamOwned::new(connection, stream);
    let login = receive(&mut stream);
    assert!(login.windows(6).any(|part| part == b"zenml\0"), "the user's name");
    assert!(!login.windows(6).any(|part| part == b"X-Amz-"), "nobody has asked for the token yet");
    stream.write_all(&packet(3, b"\xfemysql_clear_password\0")).expect("sent");
    let token = receive(&mut stream);
    match verdict {
        Verdict::Deny => {
            stream.write_all(&packet(5, b"\xff\x15\x04#28000Access denied for user 'canary'")).expect("sent");
        }
        Verdict::Accept => {
            stream.write_all(&packet(5, b"\0\0\0\x02\0\0\0")).expect("sent");
            assert_eq!(receive(&mut stream).first(), Some(&3), "a statement");
            stream.write_all(&packet(1, b"\xff\x19\x04#42000Unknown database")).expect("sent");
        }
    }
    let (nul, token) = token.split_last().expect("a token");
    assert_eq!(*nul, 0);
    String::from_utf8(token.to_vec()).expect("text")
}

fn tls(certificates: &Certificates) -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_file(certificates.path("server.pem")).expect("made");
    let key = PrivateKeyDer::from_pem_file(certificates.path("server.key")).expect("made");
    let config = ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key);
    Arc::new(config.expect("a certificate"))
}

/// A server that takes one connection for each verdict, and then tells the tokens.
fn serve(certificates: &Certificates, verdicts: &'static [Verdict]) -> (u16, JoinHandle<Vec<String>>) {
    let tls = tls(certificates);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let serve = move || {
        let one = |verdict: &Verdict| serve_one(listener.accept().expect("a call").0, &tls, *verdict);
        verdicts.iter().map(one).collect()
    };
    (port, std::thread::spawn(serve))
}

/// A back-end's settings with a login by IAM that asks for nothing else.
fn settings(port: u16, ssl_ca: Option<keyside_config::settings::Pem>) -> (BackendSettings, MysqlSettings) {
    let mysql = MysqlSettings {
        host: "127.0.0.1".into(),
        port,
        user: "zenml".into(),
        password: None,
        database: "zenml".into(),
        ssl_ca,
        ssl_cert: None,
        ssl_key: None,
        verify: false,
        iam: Some(RdsIam { region: "eu-central-1".into(), role: None }),
    };
    let mut settings = settings_of(SqlDatabase::Sqlite(PathBuf::new()), &Options::default());
    settings.network.allow_plaintext = true;
    (settings, mysql)
}

fn connections(
    (settings, mysql): &(BackendSettings, MysqlSettings),
    source: impl ProvideCredentials + 'static,
) -> mysql::Connections {
    let at = At::Server(format!("mysql://127.0.0.1:{}/zenml", mysql.port));
    let place = Place { backend: "store".into(), at };
    let iam = mysql.iam.as_ref().expect("a login by IAM");
    let signer = Signer::new(settings, Some(iam.region.clone()), None, Duration::from_secs(3)).expect("a signer");
    let iam = rds_iam::RdsIam::of(&place, mysql, iam, signer.with_source(source));
    mysql::Connections::with(place, settings, mysql, Some(iam))
}

/// Credentials that are called `AKIA0`, `AKIA1` and so on, each time that they are looked for.
fn numbered(lifetime: Option<Duration>) -> (impl ProvideCredentials + 'static, Arc<AtomicUsize>) {
    let searches = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&searches);
    let source = provide_credentials_fn(move || {
        let id = format!("AKIA{}", count.fetch_add(1, Ordering::SeqCst));
        let expiry = lifetime.map(|lifetime| SystemTime::now() + lifetime);
        async move { Ok(Credentials::new(id, "canary", Some("session".into()), expiry, "test")) }
    });
    (source, searches)
}

async fn failure(connections: &mysql::Connections) -> BackendError {
    match connections.reader().await {
        Ok(_) => panic!("the server gives no reader"),
        Err(error) => error,
    }
}

fn check_token(token: &str, port: u16, key: &str) {
    let address = format!("127.0.0.1:{port}/?Action=connect&DBUser=zenml&");
    assert!(token.starts_with(&address), "{token}");
    for part in ["X-Amz-Expires=900", "X-Amz-SignedHeaders=host", "X-Amz-Security-Token=session", "X-Amz-Signature="] {
        assert!(token.contains(part), "{token}");
    }
    assert!(token.contains(&format!("X-Amz-Credential={key}%2F")), "{token}");
    assert!(token.contains("%2Feu-central-1%2Frds-db%2Faws4_request") && !token.contains("canary"), "{token}");
}

#[tokio::test]
async fn a_token_is_the_password_and_credentials_are_looked_for_once() {
    let certificates = Certificates::make();
    let (port, server) = serve(&certificates, &[Verdict::Accept, Verdict::Accept]);
    let (source, searches) = numbered(None);
    let connections = connections(&settings(port, certificates.file("ca.pem")), source);
    for _ in 0..2 {
        // Past the login: what the server says then is about the data base.
        check_error(&failure(&connections).await, "identity", "has no such data base", "`url`");
    }
    for token in server.join().expect("no panic") {
        check_token(&token, port, "AKIA0");
    }
    assert_eq!(searches.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn each_connection_has_a_token_of_its_own() {
    let certificates = Certificates::make();
    let (port, server) = serve(&certificates, &[Verdict::Accept, Verdict::Accept]);
    // They end too soon to be kept, so a token that were used twice would name the first ones twice.
    let (source, _) = numbered(Some(Duration::from_secs(30)));
    let connections = connections(&settings(port, certificates.file("ca.pem")), source);
    for _ in 0..2 {
        check_error(&failure(&connections).await, "identity", "has no such data base", "`url`");
    }
    let tokens = server.join().expect("no panic");
    check_token(&tokens[0], port, "AKIA0");
    check_token(&tokens[1], port, "AKIA1");
}

#[tokio::test]
async fn a_refused_token_is_our_fault_and_the_next_is_signed_with_new_credentials() {
    let certificates = Certificates::make();
    let (port, server) = serve(&certificates, &[Verdict::Deny, Verdict::Accept]);
    let (source, _) = numbered(None);
    let connections = connections(&settings(port, certificates.file("ca.pem")), source);
    let refused = failure(&connections).await;
    check_error(&refused, "identity", "refuses the token of AWS for this user", "`rds-db:connect`");
    check_error(&refused, "identity", "", "IDENTIFIED WITH AWSAuthenticationPlugin");
    assert!(!refused.to_string().contains("canary"), "{refused}");
    check_error(&failure(&connections).await, "identity", "has no such data base", "`url`");
    let tokens = server.join().expect("no panic");
    check_token(&tokens[0], port, "AKIA0");
    check_token(&tokens[1], port, "AKIA1");
}

#[tokio::test]
async fn no_token_goes_to_a_server_without_tls_or_with_a_certificate_that_nobody_vouches_for() {
    let certificates = Certificates::make();
    // On this machine, with `allow_plaintext` and without a wish for checks: a password would be sent.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let plain = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a call");
        stream.write_all(&packet(0, &greeting(PLAIN, "mysql_native_password"))).expect("sent");
        let mut sent = Vec::new();
        let _ = stream.read_to_end(&mut sent);
        sent
    });
    let refused = failure(&connections(&settings(port, None), numbered(None).0)).await;
    check_error(&refused, "transient", "offers no TLS", "a token of AWS is sent over nothing else");
    assert_eq!(plain.join().expect("no panic"), b"", "not even the user's name");

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let tls = tls(&certificates);
    let stranger = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a call");
        stream.write_all(&packet(0, &greeting(PLAIN | TLS, "mysql_clear_password"))).expect("sent");
        receive(&mut stream);
        let connection = ServerConnection::new(tls).expect("settings that can work");
        let mut stream = StreamOwned::new(connection, stream);
        let mut sent = Vec::new();
        (stream.read_to_end(&mut sent).is_err(), sent)
    });
    let refused = failure(&connections(&settings(port, None), numbered(None).0)).await;
    check_error(&refused, "transient", "authority that is not known", "`ssl_ca`");
    let (broke_off, sent) = stranger.join().expect("no panic");
    assert!(broke_off && sent.is_empty(), "{sent:?}");
}

#[tokio::test]
async fn without_credentials_the_server_is_not_even_called() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let check = async |source: fn() -> CredentialsError, class: &str, words: &str, hint: &str| {
        let source = provide_credentials_fn(move || async move { Err(source()) });
        check_error(&failure(&connections(&settings(port, None), source)).await, class, words, hint);
    };
    check(
        || CredentialsError::not_loaded("canary"),
        "identity",
        "none of the usual places has any",
        "AWS_ACCESS_KEY_ID",
    )
    .await;
    let slow = || CredentialsError::provider_timed_out(Duration::from_secs(1));
    check(slow, "transient", "no credentials of AWS for now: their source does not answer in time", "").await;
    listener.set_nonblocking(true).expect("a socket");
    assert!(listener.accept().is_err(), "nobody came");
}

#[tokio::test]
async fn a_back_end_with_a_login_by_iam_opens_and_asks_nobody() {
    let (_, mysql) = settings(9, None);
    assert!(open_with(mysql, no_network(), &Options::default()).is_ok());
}
