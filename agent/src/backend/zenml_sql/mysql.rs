//! Connections to a MySQL or MariaDB server: over TLS unless it is this machine, each statement for itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use keyside_config::settings::{BackendSettings, MysqlSettings, SecretText};
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _, MySqlConnection};
use zeroize::Zeroizing;

use super::super::{BackendError, tls_fault};
use super::connection::Connection;
use super::error::{Doing, Place};
use super::mysql_error::{Server, is_login_refused};
use super::rds_iam::RdsIam;
use super::tls::{Security, Tls};

/// Longest wait until a connection stands, within the time of the whole call.
const MOST_CONNECTING: Duration = Duration::from_secs(5);

/// Longest wait for another program's lock.
const MOST_BUSY: Duration = Duration::from_secs(5);

/// Connections kept open between calls; more calls at the same time open more and close them again.
const MOST_IDLE: usize = 4;

/// How long one is kept.
const IDLE: Duration = Duration::from_secs(60);

/// A connection that was idle for longer is asked whether it still stands: servers and proxies end idle ones.
const TRUSTED: Duration = Duration::from_secs(1);

/// Gives out connections to one server.
pub(super) struct Connections {
    place: Place,
    server: Server,
    login: Arc<Login>,
    /// Makes the passwords, where they are tokens of AWS.
    iam: Option<RdsIam>,
    connecting: Duration,
    busy: Duration,
    most_idle: usize,
    /// `None` once closed.
    idle: Mutex<Option<Vec<Idle>>>,
}

struct Idle {
    connection: Box<MySqlConnection>,
    since: Instant,
}

/// How to log in. Files are read at each connection, so that what was rotated counts at once.
struct Login {
    host: String,
    port: u16,
    user: String,
    database: String,
    password: Option<SecretText>,
    tls: Tls,
}

/// What one connection is made with.
struct Material {
    password: Option<Zeroizing<String>>,
    security: Security,
}

impl Connections {
    /// Makes no call.
    ///
    /// Errors: `Identity` where the settings ask for something that cannot be done.
    pub(super) fn new(place: Place, settings: &BackendSettings, mysql: &MysqlSettings) -> Result<Self, BackendError> {
        let backend = &place.backend;
        if settings.network.proxy.is_some() {
            return Err(place.identity(
                "cannot be reached through `proxy`: the MySQL protocol is not HTTP",
                format!("remove `proxy` from back-end `{backend}`, and let the network or a tunnel lead there"),
            ));
        }
        // The rest of the time is for the connection itself.
        let patience = connecting(settings.timeout) * 3 / 4;
        let iam = mysql.iam.as_ref().map(|iam| RdsIam::new(&place, settings, mysql, iam, patience)).transpose()?;
        Ok(Self::with(place, settings, mysql, iam))
    }

    /// The same with a login by IAM that is there already.
    pub(super) fn with(place: Place, settings: &BackendSettings, mysql: &MysqlSettings, iam: Option<RdsIam>) -> Self {
        let timeout = settings.timeout;
        let tls = Tls::new(mysql, &settings.network);
        Self {
            server: Server {
                may_be_plain: !tls.is_required(),
                has_client_key: mysql.ssl_key.is_some(),
                takes_tokens: iam.is_some(),
            },
            login: Arc::new(Login {
                host: mysql.host.clone(),
                port: mysql.port,
                user: mysql.user.clone(),
                database: mysql.database.clone(),
                password: mysql.password.as_ref().map(SecretText::copy),
                tls,
            }),
            iam,
            place,
            connecting: connecting(timeout),
            // Half of the deadline, so that "locked" is said before the deadline says only "slow".
            busy: (timeout / 2).min(MOST_BUSY),
            most_idle: settings.parallelism.clamp(1, MOST_IDLE),
            idle: Mutex::new(Some(Vec::new())),
        }
    }

    /// Returns a connection that reads.
    pub(super) async fn reader(&self) -> Result<Connection, BackendError> {
        while let Some(idle) = self.take()? {
            let mut connection = idle.connection;
            if idle.since.elapsed() < TRUSTED || connection.ping().await.is_ok() {
                return Ok(Connection::Mysql(connection));
            }
        }
        let connection = self.connect("SET SESSION TRANSACTION READ ONLY").await?;
        Ok(Connection::Mysql(connection))
    }

    /// Takes a reader back after its last statement has ended well.
    pub(super) async fn keep(&self, connection: Box<MySqlConnection>) {
        if let Some(idle) = self.idle().as_mut()
            && idle.len() < self.most_idle
        {
            idle.push(Idle { connection, since: Instant::now() });
            return;
        }
        Connection::Mysql(connection).close().await;
    }

    /// Returns a connection that writes, for one transaction.
    pub(super) async fn writer(&self) -> Result<Connection, BackendError> {
        if self.idle().is_none() {
            return Err(closed());
        }
        // What does not fit is refused, not cut, whatever the server's own mode.
        let strict = "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')";
        Ok(Connection::Mysql(self.connect(strict).await?))
    }

    /// Ends all kept readers; no further connection is given out.
    pub(super) async fn close(&self) {
        let idle = self.idle().take();
        for idle in idle.into_iter().flatten() {
            Connection::Mysql(idle.connection).close().await;
        }
    }

    fn take(&self) -> Result<Option<Idle>, BackendError> {
        let mut idle = self.idle();
        let idle = idle.as_mut().ok_or_else(closed)?;
        idle.retain(|idle| idle.since.elapsed() < IDLE);
        Ok(idle.pop())
    }

    async fn connect(&self, mode: &str) -> Result<Box<MySqlConnection>, BackendError> {
        // Boxed: most reads need no connection of their own, and each is no smaller than what it may wait for.
        match tokio::time::timeout(self.connecting, Box::pin(self.connect_unbounded(mode))).await {
            Ok(connection) => connection,
            Err(_) => Err(self.place.slow()),
        }
    }

    async fn connect_unbounded(&self, mode: &str) -> Result<Box<MySqlConnection>, BackendError> {
        // On another thread: a hanging network file system must not stop ours.
        let login = Arc::clone(&self.login);
        let material = tokio::task::spawn_blocking(move || login.material()).await.map_err(|_| closed())?;
        let mut material = material.map_err(|what| {
            let hint = format!("look at the `ssl_*` and `password_*` keys of back-end `{}`", self.place.backend);
            self.place.identity(&format!("cannot be logged in to: {what}"), hint)
        })?;
        if let Some(iam) = &self.iam {
            material.password = Some(iam.token().await?);
        }
        let mut made = self.options(&material, material.security.mode).connect().await;
        if matches!(material.security.mode, MySqlSslMode::Preferred)
            && made.as_ref().is_err_and(|error| tls_fault::of(error).is_some())
        {
            // Certificates that servers make for themselves are not always of a kind that TLS takes here. They would not
            // have been checked, and this place may go without.
            made = self.options(&material, MySqlSslMode::Disabled).connect().await;
        }
        if let Some(iam) = self.iam.as_ref().filter(|_| made.as_ref().is_err_and(is_login_refused)) {
            iam.forget();
        }
        let mut connection = made.map_err(|error| self.place.no_connection(self.server, &error))?;
        // No transaction outlives a statement by the server's default, and nobody's lock is waited for as long as that.
        let busy = self.busy.as_secs().max(1);
        let sql = format!(
            "SET SESSION autocommit = 1, lock_wait_timeout = {busy}, innodb_lock_wait_timeout = {busy}; {mode}"
        );
        let set = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await;
        set.map_err(|error| self.place.failure(Doing::Reading, &error))?;
        Ok(Box::new(connection))
    }

    fn options(&self, material: &Material, mode: MySqlSslMode) -> MySqlConnectOptions {
        let login = &self.login;
        let mut options = MySqlConnectOptions::new()
            .host(&login.host)
            .port(login.port)
            .username(&login.user)
            .database(&login.database)
            .ssl_mode(mode)
            // Tokens are taken by this plug-in alone; they never meet a mode without a checked certificate.
            .enable_cleartext_plugin(self.iam.is_some())
            .disable_statement_logging();
        if let Some(password) = &material.password {
            // expose: into the library's own copy, which is wiped when it is freed.
            options = options.password(password);
        }
        options = options.ssl_ca_from_pem(material.security.authorities.clone());
        if let Some((certificate, key)) = &material.security.client {
            // expose: the same.
            options = options.ssl_client_cert_from_pem(certificate).ssl_client_key_from_pem(key.as_bytes());
        }
        options
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Option<Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Login {
    fn material(&self) -> Result<Material, String> {
        let password = self.password.as_ref().map(SecretText::current).transpose()?;
        Ok(Material { password, security: self.tls.security()? })
    }
}

/// Returns how long a connection may take within the deadline of one call.
fn connecting(timeout: Duration) -> Duration {
    (timeout / 2).min(MOST_CONNECTING)
}

fn closed() -> BackendError {
    BackendError::Transient { what: "the back-end is closed: the agent is stopping".into(), hint: None }
}
