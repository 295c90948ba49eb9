//! TLS: who is believed, and who is not.

use keyside_config::settings::Pem;

use super::server::{PASSWORD, secret};
use super::*;
use crate::backend::certificates::Authority;

/// Files of an authority, of another, of servers' certificates for `127.0.0.1` and for another host, of an expired one, and
/// of a client's.
pub(super) struct Certificates(tempfile::TempDir);

impl Certificates {
    pub(super) fn make() -> Self {
        let certificates = Self(tempfile::tempdir().expect("a folder"));
        let authority = Authority::new("known");
        certificates.write("ca.pem", authority.pem());
        certificates.write("other-ca.pem", Authority::new("another").pem());
        let here = ["127.0.0.1", "localhost"];
        for (name, made) in [
            ("server", authority.server(&here)),
            ("elsewhere", authority.server(&["db.example.com"])),
            ("expired", authority.expired_server(&here)),
            ("client", authority.client("client")),
        ] {
            certificates.write(&format!("{name}.pem"), &made.pem);
            certificates.write(&format!("{name}.key"), &made.key);
        }
        certificates
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn file(&self, name: &str) -> Option<Pem> {
        Some(Pem::File(self.path(name)))
    }

    fn text(&self, name: &str) -> Option<Pem> {
        Some(Pem::Text(secret(&std::fs::read_to_string(self.path(name)).expect("made"))))
    }

    /// Arguments of a server that shows the certificate `name`.
    fn server(&self, name: &str) -> Vec<String> {
        ["ca.pem", &format!("{name}.pem"), &format!("{name}.key")]
            .iter()
            .zip(["--ssl-ca", "--ssl-cert", "--ssl-key"])
            .map(|(file, option)| format!("{option}={}", self.path(file).display()))
            .collect()
    }
}

async fn start(certificates: &Certificates, name: &str) -> Option<MariaDb> {
    let arguments = certificates.server(name);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = MariaDb::start(&arguments).await?;
    server.sql("zenml", TABLES).await;
    Some(server)
}

type Change<'a> = &'a dyn Fn(&mut keyside_config::settings::MysqlSettings, &mut NetworkSettings);

fn reader(server: &MariaDb, change: Change<'_>) -> std::sync::Arc<dyn Backend> {
    let (mut mysql, mut network) = (server.settings("zenml"), no_network());
    change(&mut mysql, &mut network);
    open_with(mysql, network, &Options::default()).expect("settings that can work").reader
}

#[tokio::test]
async fn a_certificate_is_checked_and_a_client_shows_its_own_on_real_mariadb() {
    let certificates = Certificates::make();
    let Some(server) = start(&certificates, "server").await else { return };
    server
        .sql(
            "",
            "CREATE USER shown@'127.0.0.1' IDENTIFIED BY 'pw' REQUIRE X509; GRANT ALL ON zenml.* TO shown@'127.0.0.1';
             CREATE USER secure@'127.0.0.1' IDENTIFIED BY 'pw' REQUIRE SSL; GRANT ALL ON zenml.* TO secure@'127.0.0.1'",
        )
        .await;
    let works = async |what: &str, change: Change<'_>| {
        assert_eq!(reader(&server, change).list().await.expect(what), []);
    };
    works("a path", &|mysql, _| mysql.ssl_ca = certificates.file("ca.pem")).await;
    works("content", &|mysql, _| mysql.ssl_ca = certificates.text("ca.pem")).await;
    works("ca_file", &|_, network| network.ca_file = Some(certificates.path("ca.pem"))).await;
    works("a host name", &|mysql, _| {
        mysql.host = "localhost".into();
        mysql.ssl_ca = certificates.file("ca.pem");
    })
    .await;
    // On this machine TLS is taken where it is offered.
    works("unchecked", &|mysql, _| (mysql.user, mysql.password) = ("secure".into(), Some(secret("pw")))).await;
    for content in [false, true] {
        works("a client's certificate", &|mysql, _| {
            let pem = |name| if content { certificates.text(name) } else { certificates.file(name) };
            (mysql.user, mysql.password) = ("shown".into(), Some(secret("pw")));
            (mysql.ssl_ca, mysql.ssl_cert, mysql.ssl_key) = (pem("ca.pem"), pem("client.pem"), pem("client.key"));
        })
        .await;
    }

    let fails = async |class: &str, words: &str, hint: &str, change: Change<'_>| {
        check_error(&error(&*reader(&server, change), "a").await, class, words, hint);
    };
    fails("transient", "authority that is not known", "`ssl_ca`", &|mysql, _| {
        mysql.ssl_ca = certificates.file("other-ca.pem");
    })
    .await;
    fails("identity", "refuses the login", "", &|mysql, _| {
        (mysql.user, mysql.password) = ("shown".into(), Some(secret("pw")));
        mysql.ssl_ca = certificates.file("ca.pem");
    })
    .await;
    fails("identity", "holds no certificate as PEM", "ssl_", &|mysql, _| {
        mysql.ssl_ca = certificates.file("client.key")
    })
    .await;
    fails("identity", "absent.pem", "ssl_", &|mysql, _| mysql.ssl_ca = certificates.file("absent.pem")).await;
    fails("identity", "no private key", "ssl_", &|mysql, _| {
        (mysql.ssl_cert, mysql.ssl_key) = (certificates.file("client.pem"), certificates.file("client.pem"));
    })
    .await;
    fails("identity", "cannot be logged in to", "ssl_", &|_, network| network.ca_file = Some("/".into())).await;
}

#[tokio::test]
async fn a_certificate_of_another_host_counts_only_where_names_are_not_checked_on_real_mariadb() {
    let certificates = Certificates::make();
    let Some(server) = start(&certificates, "elsewhere").await else { return };
    let checked = reader(&server, &|mysql, _| mysql.ssl_ca = certificates.file("ca.pem"));
    check_error(&error(&*checked, "a").await, "transient", "for another host", "`url`");
    let unchecked = reader(&server, &|mysql, _| {
        mysql.ssl_ca = certificates.file("ca.pem");
        mysql.verify = false;
    });
    assert_eq!(unchecked.list().await.expect("the authority is right"), []);
    let wrong = reader(&server, &|mysql, _| {
        mysql.ssl_ca = certificates.file("other-ca.pem");
        mysql.verify = false;
    });
    check_error(&error(&*wrong, "a").await, "transient", "authority that is not known", "");
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_an_outage_and_says_so_on_real_mariadb() {
    let certificates = Certificates::make();
    let Some(server) = start(&certificates, "expired").await else { return };
    let checked = reader(&server, &|mysql, _| mysql.ssl_ca = certificates.file("ca.pem"));
    let began = std::time::Instant::now();
    check_error(&error(&*checked, "a").await, "transient", "its certificate has expired", "renew the certificate");
    assert!(checked.list().await.expect_err("expired").is_transient());
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_due_on_real_mariadb() {
    let certificates = Certificates::make();
    let Some(server) = MariaDb::start(&[]).await else { return };
    server.sql("zenml", TABLES).await;
    assert_eq!(reader(&server, &|_, _| {}).list().await.expect("this machine may do without"), []);
    let due = reader(&server, &|mysql, _| mysql.ssl_ca = certificates.file("ca.pem"));
    check_error(&error(&*due, "a").await, "transient", "offers no TLS", "`allow_plaintext = true`");
    assert!(!PASSWORD.is_empty());
}
