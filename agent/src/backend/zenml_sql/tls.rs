//! What a connection to a MySQL server is secured with: which certificates are believed, and which are shown.
//!
//! The library believes Mozilla's list of authorities in every case; the machine's own, `ca_file` and `ssl_ca` come
//! beside it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyside_config::settings::{MysqlSettings, NetworkSettings, Pem, SecretText};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sqlx::mysql::MySqlSslMode;
use zeroize::Zeroizing;

/// Largest file of certificates or keys in bytes.
const MOST_PEM_BYTES: u64 = 4 << 20;

/// What the settings say of TLS.
pub(super) struct Tls {
    mode: MySqlSslMode,
    ca_file: Option<PathBuf>,
    ssl_ca: Option<PemSource>,
    ssl_cert: Option<PemSource>,
    ssl_key: Option<PemSource>,
}

/// What one connection is secured with.
pub(super) struct Security {
    pub(super) mode: MySqlSslMode,
    /// Further authorities, as PEM; may be empty.
    pub(super) authorities: Vec<u8>,
    /// Our own certificate and its key, as PEM.
    pub(super) client: Option<(Vec<u8>, Zeroizing<String>)>,
}

/// A PEM with the name of its setting.
struct PemSource {
    setting: &'static str,
    pem: Pem,
}

impl Tls {
    pub(super) fn new(mysql: &MysqlSettings, network: &NetworkSettings) -> Self {
        let source = |setting, pem: &Option<Pem>| {
            let pem = match pem.as_ref()? {
                Pem::File(path) => Pem::File(path.clone()),
                Pem::Text(text) => Pem::Text(text.copy()),
            };
            Some(PemSource { setting, pem })
        };
        Self {
            mode: mode(mysql, network),
            ca_file: network.ca_file.clone(),
            ssl_ca: source("ssl_ca", &mysql.ssl_ca),
            ssl_cert: source("ssl_cert", &mysql.ssl_cert),
            ssl_key: source("ssl_key", &mysql.ssl_key),
        }
    }

    /// Tells whether a server without TLS is refused.
    pub(super) fn is_required(&self) -> bool {
        !matches!(self.mode, MySqlSslMode::Preferred | MySqlSslMode::Disabled)
    }

    /// Reads all files. Blocks.
    ///
    /// Errors: what is wrong, with the setting and the path.
    pub(super) fn security(&self) -> Result<Security, String> {
        let mut authorities = Vec::new();
        if matches!(self.mode, MySqlSslMode::VerifyCa | MySqlSslMode::VerifyIdentity) {
            authorities.extend_from_slice(machine_authorities().as_bytes());
            if let Some(path) = &self.ca_file {
                authorities.extend_from_slice(&authorities_of(read(path)?.as_bytes(), &shown("ca_file", path))?);
            }
            if let Some(source) = &self.ssl_ca {
                authorities.extend_from_slice(&authorities_of(source.text()?.as_bytes(), &source.shown())?);
            }
        }
        let client = match (&self.ssl_cert, &self.ssl_key) {
            (Some(certificate), Some(key)) => {
                let (chain, private) = (certificate.text()?, key.text()?);
                if CertificateDer::pem_slice_iter(chain.as_bytes()).next().is_none_or(|first| first.is_err()) {
                    return Err(format!("{} holds no certificate as PEM", certificate.shown()));
                }
                if PrivateKeyDer::from_pem_slice(private.as_bytes()).is_err() {
                    return Err(format!("{} holds no private key as PEM, or an encrypted one", key.shown()));
                }
                Some((chain.as_bytes().to_vec(), private))
            }
            _ => None,
        };
        Ok(Security { mode: self.mode, authorities, client })
    }
}

impl PemSource {
    fn shown(&self) -> String {
        match &self.pem {
            Pem::File(path) => shown(self.setting, path),
            Pem::Text(text) => text.origin.clone(),
        }
    }

    fn text(&self) -> Result<Zeroizing<String>, String> {
        match &self.pem {
            Pem::File(path) => read(path).map_err(|what| format!("`{}`: {what}", self.setting)),
            Pem::Text(text) => SecretText::current(text),
        }
    }
}

/// TLS with a certificate for this very host, unless the settings or the place ask for less.
fn mode(mysql: &MysqlSettings, network: &NetworkSettings) -> MySqlSslMode {
    if mysql.iam.is_some() {
        // A token is sent in clear inside: whoever reads it is logged in.
        return MySqlSslMode::VerifyIdentity;
    }
    let says_something = mysql.ssl_ca.is_some() || mysql.ssl_cert.is_some() || network.ca_file.is_some();
    if !says_something && (network.allow_plaintext || is_loopback(&mysql.host)) {
        // Encrypted where the server can: it costs nothing, and newer servers take passwords in no other way.
        MySqlSslMode::Preferred
    } else if mysql.verify {
        MySqlSslMode::VerifyIdentity
    } else if mysql.ssl_ca.is_some() || network.ca_file.is_some() {
        MySqlSslMode::VerifyCa
    } else {
        MySqlSslMode::Required
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn shown(setting: &str, path: &Path) -> String {
    format!("`{setting}` {}", path.display())
}

fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    let shown = path.display();
    let metadata = std::fs::metadata(path).map_err(|error| format!("{shown}: {}", error.kind()))?;
    if !metadata.is_file() || metadata.len() > MOST_PEM_BYTES {
        return Err(format!("{shown} is no file of certificates"));
    }
    let bytes = Zeroizing::new(std::fs::read(path).map_err(|error| format!("{shown}: {}", error.kind()))?);
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("{shown} is not PEM"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Checks that every certificate can be used: the library would give up at the first that cannot.
fn authorities_of(pem: &[u8], shown: &str) -> Result<Vec<u8>, String> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let usable = certificate.ok().is_some_and(|certificate| store.add(certificate).is_ok());
        if !usable {
            return Err(format!("{shown} holds a certificate that cannot be used"));
        }
    }
    if store.is_empty() {
        return Err(format!("{shown} holds no certificate as PEM"));
    }
    let mut pem = pem.to_vec();
    pem.push(b'\n');
    Ok(pem)
}

/// The authorities that this machine believes, as PEM; those that cannot be used are left out.
fn machine_authorities() -> &'static str {
    static AUTHORITIES: OnceLock<String> = OnceLock::new();
    AUTHORITIES.get_or_init(|| {
        let mut store = RootCertStore::empty();
        let mut pem = String::new();
        for certificate in rustls_native_certs::load_native_certs().certs {
            let text = STANDARD.encode(&certificate);
            if store.add(certificate).is_ok() {
                let _ = write!(pem, "-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
            }
        }
        pem
    })
}

#[cfg(test)]
mod tests {
    use keyside_config::settings::RdsIam;

    use super::*;

    #[test]
    fn a_certificate_is_checked_unless_the_place_or_the_settings_ask_for_less() {
        let check_with = |iam: bool, host: &str, ca: bool, verify: bool, plaintext: bool, expected: MySqlSslMode| {
            let pem = ca.then(|| Pem::File("/ca.pem".into()));
            let mysql = MysqlSettings {
                host: host.into(),
                port: 3306,
                user: "zenml".into(),
                password: None,
                database: "zenml".into(),
                ssl_ca: pem,
                ssl_cert: None,
                ssl_key: None,
                verify,
                iam: iam.then(|| RdsIam { region: "eu-central-1".into(), role: None }),
            };
            let network = NetworkSettings { allow_plaintext: plaintext, ..NetworkSettings::default() };
            let found = mode(&mysql, &network);
            assert!(
                std::mem::discriminant(&found) == std::mem::discriminant(&expected),
                "{host} {ca} {verify} {plaintext}: {found:?}"
            );
        };
        let check = |host: &str, ca, verify, plaintext, expected| {
            check_with(true, host, ca, verify, plaintext, MySqlSslMode::VerifyIdentity);
            check_with(false, host, ca, verify, plaintext, expected);
        };
        for local in ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST"] {
            check(local, false, true, false, MySqlSslMode::Preferred);
            check(local, true, true, false, MySqlSslMode::VerifyIdentity);
        }
        for other in ["db.example.com", "10.0.0.1", "127.example.com", "::2", "localhost.example.com"] {
            check(other, false, true, false, MySqlSslMode::VerifyIdentity);
            check(other, true, true, true, MySqlSslMode::VerifyIdentity);
            check(other, false, true, true, MySqlSslMode::Preferred);
            check(other, false, false, false, MySqlSslMode::Required);
            check(other, true, false, false, MySqlSslMode::VerifyCa);
        }
    }

    #[test]
    fn the_machine_s_own_authorities_can_all_be_used() {
        let pem = machine_authorities();
        if pem.is_empty() {
            return;
        }
        assert!(authorities_of(pem.as_bytes(), "here").is_ok());
    }

    #[test]
    fn what_is_no_certificate_is_named_and_not_quoted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "canary").expect("a file");
        let what = authorities_of(read(&path).expect("text").as_bytes(), &shown("ssl_ca", &path)).expect_err("no PEM");
        assert!(what.contains("`ssl_ca`") && what.contains("ca.pem") && !what.contains("canary"), "{what}");
        assert!(read(&folder.path().join("absent")).expect_err("absent").contains("absent"));
        assert!(read(folder.path()).is_err(), "a directory");
    }
}
