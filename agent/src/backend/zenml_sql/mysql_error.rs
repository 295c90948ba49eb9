//! What went wrong, from the error numbers of MySQL and MariaDB alone; never from a message's text, which may quote what
//! was written.

use sqlx::mysql::MySqlDatabaseError;

use super::super::{BackendError, WriteError, tls_fault};
use super::error::Place;

/// What a connection was tried with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Server {
    /// Whether it may do without TLS.
    pub(super) may_be_plain: bool,
    /// Whether a certificate of our own was shown.
    pub(super) has_client_key: bool,
    /// Whether the password was a token of AWS.
    pub(super) takes_tokens: bool,
}

/// The numbers that mean something here (the reference of server errors of MySQL 8.4; MariaDB has them too where no other
/// name is given).
mod number {
    pub(super) const TOO_MANY_CONNECTIONS: u16 = 1040;
    pub(super) const HANDSHAKE: u16 = 1043;
    pub(super) const NO_RIGHT_ON_DATABASE: u16 = 1044;
    pub(super) const ACCESS_DENIED: u16 = 1045;
    pub(super) const NO_DATABASE: u16 = 1046;
    pub(super) const UNKNOWN_DATABASE: u16 = 1049;
    pub(super) const SHUTDOWN: u16 = 1053;
    pub(super) const UNKNOWN_COLUMN: u16 = 1054;
    pub(super) const DUPLICATE: u16 = 1062;
    pub(super) const UNKNOWN_TABLE: u16 = 1109;
    pub(super) const HOST_BLOCKED: u16 = 1129;
    pub(super) const HOST_NOT_ALLOWED: u16 = 1130;
    pub(super) const NO_RIGHT_ON_TABLE: u16 = 1142;
    pub(super) const NO_RIGHT_ON_COLUMN: u16 = 1143;
    pub(super) const NO_SUCH_TABLE: u16 = 1146;
    pub(super) const PACKET_TOO_LARGE: u16 = 1153;
    pub(super) const LOCK_WAIT: u16 = 1205;
    pub(super) const DEADLOCK: u16 = 1213;
    pub(super) const USER_CONNECTIONS: u16 = 1203;
    pub(super) const USER_LIMIT: u16 = 1226;
    pub(super) const NO_PRIVILEGE: u16 = 1227;
    pub(super) const OLD_PASSWORD: u16 = 1251;
    pub(super) const COLLATIONS: u16 = 1267;
    pub(super) const READ_ONLY_SERVER: u16 = 1290;
    pub(super) const WRONG_CHARACTERS: u16 = 1366;
    pub(super) const NO_EXECUTE: u16 = 1370;
    pub(super) const TOO_LONG: u16 = 1406;
    pub(super) const REFERENCED: u16 = 1451;
    pub(super) const NO_PARENT: u16 = 1452;
    pub(super) const NO_PLUGIN: u16 = 1524;
    pub(super) const ACCESS_DENIED_NO_PASSWORD: u16 = 1698;
    pub(super) const READ_ONLY_TRANSACTION: u16 = 1792;
    pub(super) const READ_ONLY_MODE: u16 = 1836;
    pub(super) const PASSWORD_EXPIRED: u16 = 1820;
    pub(super) const PASSWORD_EXPIRED_LOGIN: u16 = 1862;
    pub(super) const TIME_LIMIT: u16 = 1969;
    pub(super) const TIME_LIMIT_MYSQL: u16 = 3024;
    pub(super) const TLS_REQUIRED: u16 = 3159;
    pub(super) const ACCOUNT_LOCKED: u16 = 3118;
    pub(super) const CHECK: u16 = 3819;
    pub(super) const CANNOT_CONVERT: u16 = 3988;
    pub(super) const CHECK_MARIADB: u16 = 4025;
    pub(super) const ACCOUNT_LOCKED_MARIADB: u16 = 4151;
}

/// Returns the number of an error that the server sent.
pub(super) fn number_of(error: &sqlx::Error) -> Option<u16> {
    Some(error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>()?.number())
}

/// Tells whether the server knows neither user nor password.
pub(super) fn is_login_refused(error: &sqlx::Error) -> bool {
    matches!(number_of(error), Some(number::ACCESS_DENIED | number::ACCESS_DENIED_NO_PASSWORD))
}

impl Place {
    /// The error for a call that hangs.
    pub(super) fn slow(&self) -> BackendError {
        self.transient("did not answer in time", &self.reachable())
    }

    fn reachable(&self) -> String {
        format!("is it up, and does the network lead there? {}", self.url())
    }

    fn login(&self) -> String {
        let backend = &self.backend;
        format!("check the user in `url`, and `password_env` or `password_file`, of back-end `{backend}`")
    }

    /// Classifies an error in making a connection.
    pub(super) fn no_connection(&self, server: Server, error: &sqlx::Error) -> BackendError {
        let backend = &self.backend;
        if let Some(fault) = tls_fault::of(error) {
            let trust = format!("`ssl_ca` or `ca_file` of back-end `{backend}`");
            let hint = tls_fault::advice(fault, &trust, &format!("`url` of back-end `{backend}`"));
            return self.transient(&format!("cannot be reached over TLS: {}", tls_fault::in_words(fault)), &hint);
        }
        match error {
            sqlx::Error::Database(_) if server.takes_tokens && is_login_refused(error) => self.identity(
                "refuses the token of AWS for this user",
                format!(
                    "create the user there `IDENTIFIED WITH AWSAuthenticationPlugin AS 'RDS'`, give the agent's identity \
                     `rds-db:connect` for it in its policy, and check `iam_region` and `url` of back-end `{backend}`, whose \
                     host must be the server's own endpoint"
                ),
            ),
            sqlx::Error::Database(_) => self.server_failure(error),
            sqlx::Error::Io(error) => self.transient(&format!("cannot be reached: {}", error.kind()), &self.reachable()),
            sqlx::Error::Tls(_) if server.takes_tokens => self.transient(
                "offers no TLS, or none that is understood here",
                "switch TLS on there: a token of AWS is sent over nothing else",
            ),
            sqlx::Error::Tls(_) => self.transient(
                "offers no TLS, or none that is understood here",
                &format!("switch TLS on there; only with `allow_plaintext = true` does back-end `{backend}` go without"),
            ),
            // The library has no RSA, by which such a password would be encrypted by itself.
            sqlx::Error::Configuration(_) if server.may_be_plain => self.identity(
                "takes this user's password over TLS only (plug-in `caching_sha2_password` or `sha256_password`)",
                "switch TLS on there, or give the user the plug-in `mysql_native_password`".into(),
            ),
            sqlx::Error::Configuration(_) if server.has_client_key => self.identity(
                "cannot be shown our certificate",
                format!("check `ssl_cert` and `ssl_key` of back-end `{backend}`"),
            ),
            sqlx::Error::Protocol(_) => self.transient(
                "does not speak as a MySQL server, or asks for a login of a kind that is not known here",
                &format!(
                    "check `url` of back-end `{backend}`; known are `mysql_native_password`, `caching_sha2_password` and \
                     `sha256_password`"
                ),
            ),
            _ => self.transient("cannot be reached", &self.reachable()),
        }
    }

    /// Classifies an error of a statement.
    pub(super) fn server_failure(&self, error: &sqlx::Error) -> BackendError {
        match number_of(error) {
            Some(number) => self.number(number),
            None => self.transient("could not be asked: the connection ended", &self.reachable()),
        }
    }

    /// Classifies one of the server's numbers.
    pub(super) fn number(&self, number: u16) -> BackendError {
        let rights = |what: &str| {
            let hint = "give it SELECT on ZenML's tables (docs/backends/zenml-sql.md lists them), and for writing INSERT, \
                        UPDATE and DELETE on `secret`";
            self.identity(what, hint.into())
        };
        match number {
            number::ACCESS_DENIED | number::ACCESS_DENIED_NO_PASSWORD => {
                self.identity("refuses the login (wrong user or password)", self.login())
            }
            number::PASSWORD_EXPIRED | number::PASSWORD_EXPIRED_LOGIN => {
                self.identity("says that the user's password has expired", "set it anew there".into())
            }
            number::ACCOUNT_LOCKED | number::ACCOUNT_LOCKED_MARIADB => {
                self.identity("says that the user is locked", "unlock it there".into())
            }
            number::OLD_PASSWORD | number::NO_PLUGIN => {
                self.identity("asks for a login of a kind that is not known here", self.login())
            }
            number::TLS_REQUIRED => self.identity(
                "takes connections over TLS only",
                format!("set `ssl_ca` of back-end `{}`: it then speaks TLS", self.backend),
            ),
            number::HOST_NOT_ALLOWED => {
                self.identity("lets no user in from this machine", "allow the user from this host there".into())
            }
            number::HOST_BLOCKED => self.transient(
                "blocks this machine after many failed connections",
                "end what fails, then `mariadb-admin flush-hosts` or FLUSH HOSTS there",
            ),
            number::NO_RIGHT_ON_DATABASE => rights("gives this user no right on the data base, or there is none"),
            number::NO_RIGHT_ON_TABLE | number::NO_RIGHT_ON_COLUMN | number::NO_EXECUTE => {
                rights("lacks a right for this user: it may not do this with one of ZenML's tables")
            }
            number::NO_PRIVILEGE => rights("lacks a right for this user"),
            number::UNKNOWN_DATABASE | number::NO_DATABASE => self.identity("has no such data base", self.url()),
            number::TOO_MANY_CONNECTIONS | number::USER_CONNECTIONS | number::USER_LIMIT => {
                self.transient("has no connection left", "raise `max_connections` there, or lower `parallelism` here")
            }
            number::SHUTDOWN => self.transient("is shutting down", "try again when it is up"),
            number::HANDSHAKE => self.transient("ended the connection while it was made", &self.reachable()),
            number::LOCK_WAIT => self.transient(
                "is locked by another program",
                "try again; if it stays locked, a ZenML migration or a stopped program holds it",
            ),
            number::DEADLOCK => self.transient("was being written by another program", "try again"),
            number::TIME_LIMIT | number::TIME_LIMIT_MYSQL => {
                self.transient("ended the statement: it took too long", "look at the server's load and its time limits")
            }
            number::READ_ONLY_SERVER | number::READ_ONLY_MODE | number::READ_ONLY_TRANSACTION => self
                .identity("is read-only", format!("name the primary server in `url` of back-end `{}`", self.backend)),
            number::NO_SUCH_TABLE | number::UNKNOWN_COLUMN | number::UNKNOWN_TABLE => self.transient(
                "has tables that changed while they were read, or of a kind this version does not know",
                "try again when ZenML has migrated it; else look for a newer version of Keyside",
            ),
            number::PACKET_TOO_LARGE => BackendError::Unusable {
                what: self.text("holds a row that is too large to be sent"),
                hint: Some("raise `max_allowed_packet` there".into()),
            },
            _ => self.transient(&format!("could not be asked (MySQL error {number})"), "try again"),
        }
    }

    /// Classifies an error while changing the secret `name`.
    pub(super) fn server_write_failure(&self, name: &str, error: &sqlx::Error) -> WriteError {
        match number_of(error) {
            Some(number) => self.write_number(name, number),
            None => WriteError::Backend(self.server_failure(error)),
        }
    }

    /// Classifies one of the server's numbers while changing the secret `name`.
    pub(super) fn write_number(&self, name: &str, number: u16) -> WriteError {
        let invalid = |what: String, hint: &str| WriteError::Invalid { what, hint: Some(hint.into()) };
        match number {
            number::DUPLICATE => WriteError::Exists(format!("a secret `{name}` is there already")),
            // Webhooks refer to their secret by ON DELETE RESTRICT.
            number::REFERENCED => invalid(
                format!("secret `{name}` is in use by something else in ZenML"),
                "remove what uses it first, with ZenML",
            ),
            number::TOO_LONG => invalid(
                format!("secret `{name}` is too large for the table"),
                "split the secret, or upgrade ZenML, which widens the column",
            ),
            number::WRONG_CHARACTERS | number::COLLATIONS | number::CANNOT_CONVERT => invalid(
                format!("the data base cannot hold the characters of `{name}`"),
                "use plain letters, or convert its tables to the character set utf8mb4",
            ),
            number::NO_PARENT | number::CHECK | number::CHECK_MARIADB => invalid(
                format!("secret `{name}` was refused by the table's own rules (MySQL error {number})"),
                "write it with ZenML",
            ),
            _ => WriteError::Backend(self.number(number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::At;
    use super::*;

    fn place() -> Place {
        Place { backend: "store".into(), at: At::Server("mysql://db:3306/zenml".into()) }
    }

    fn class(error: &BackendError) -> &'static str {
        match error {
            BackendError::Transient { .. } => "transient",
            BackendError::Identity { .. } | BackendError::Unlisted { .. } => "identity",
            BackendError::Unusable { .. } => "unusable",
            BackendError::NotFound | BackendError::Denied { .. } => "authoritative",
        }
    }

    #[test]
    fn every_number_has_its_class() {
        let check = |number, expected: &str, words: &str| {
            let error = place().number(number);
            assert_eq!(class(&error), expected, "{number}");
            assert!(error.to_string().contains(words), "{number}: {error}");
            assert!(error.to_string().starts_with("back-end `store`: `mysql://db:3306/zenml`"), "{error}");
            assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{number}");
        };
        check(1045, "identity", "refuses the login");
        check(1698, "identity", "refuses the login");
        check(1820, "identity", "expired");
        check(1862, "identity", "expired");
        check(3118, "identity", "locked");
        check(4151, "identity", "locked");
        check(1251, "identity", "not known here");
        check(1524, "identity", "not known here");
        check(3159, "identity", "TLS only");
        check(1130, "identity", "this machine");
        check(1129, "transient", "blocks");
        check(1044, "identity", "no right on the data base");
        check(1142, "identity", "lacks a right");
        check(1143, "identity", "lacks a right");
        check(1227, "identity", "lacks a right");
        check(1049, "identity", "no such data base");
        check(1046, "identity", "no such data base");
        check(1040, "transient", "no connection left");
        check(1203, "transient", "no connection left");
        check(1226, "transient", "no connection left");
        check(1053, "transient", "shutting down");
        check(1043, "transient", "while it was made");
        check(1205, "transient", "locked by another program");
        check(1213, "transient", "being written");
        check(1969, "transient", "too long");
        check(3024, "transient", "too long");
        check(1290, "identity", "read-only");
        check(1792, "identity", "read-only");
        check(1836, "identity", "read-only");
        check(1146, "transient", "does not know");
        check(1054, "transient", "does not know");
        check(1153, "unusable", "too large");
        check(1064, "transient", "MySQL error 1064");
        check(9999, "transient", "MySQL error 9999");
    }

    #[test]
    fn every_number_of_a_write_has_its_kind() {
        let check = |number, kind: fn(&WriteError) -> bool| {
            let error = place().write_number("db", number);
            assert!(kind(&error), "{number}: {error:?}");
        };
        check(1062, |error| matches!(error, WriteError::Exists(_)));
        for number in [1451, 1406, 1366, 1267, 3988, 1452, 3819, 4025] {
            check(number, |error| matches!(error, WriteError::Invalid { hint: Some(_), .. }));
        }
        check(1205, |error| matches!(error, WriteError::Backend(BackendError::Transient { .. })));
        check(1213, |error| matches!(error, WriteError::Backend(BackendError::Transient { .. })));
        check(1290, |error| matches!(error, WriteError::Backend(BackendError::Identity { .. })));
        check(1142, |error| matches!(error, WriteError::Backend(BackendError::Identity { .. })));
    }

    #[test]
    fn what_keeps_a_connection_from_being_made_is_said() {
        let check = |may_be_plain, error: sqlx::Error, expected: &str, words: &str| {
            let server = Server { may_be_plain, has_client_key: false, takes_tokens: false };
            let found = place().no_connection(server, &error);
            assert_eq!(class(&found), expected, "{error:?}");
            assert!(found.to_string().contains(words), "{found}");
        };
        let io = |kind: std::io::ErrorKind| sqlx::Error::Io(kind.into());
        let tls = |fault: rustls::Error| sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::InvalidData, fault));
        let certificate = |error| tls(rustls::Error::InvalidCertificate(error));
        use rustls::CertificateError::{Expired, NotValidForName, UnknownIssuer};
        check(false, io(std::io::ErrorKind::ConnectionRefused), "transient", "connection refused");
        check(false, io(std::io::ErrorKind::UnexpectedEof), "transient", "unexpected end of file");
        check(false, certificate(Expired), "transient", "has expired");
        check(false, certificate(UnknownIssuer), "transient", "authority");
        check(false, certificate(NotValidForName), "transient", "another host");
        check(false, sqlx::Error::Tls("server does not support TLS".into()), "transient", "no TLS");
        check(true, sqlx::Error::Configuration("RSA".into()), "identity", "caching_sha2_password");
        check(false, sqlx::Error::Protocol("garbage".into()), "transient", "does not speak");
        check(false, sqlx::Error::WorkerCrashed, "transient", "cannot be reached");
    }
}
