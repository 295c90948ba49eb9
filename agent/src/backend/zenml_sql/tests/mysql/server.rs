//! A real MariaDB: a server of its own for each test, ended with it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use keyside_config::settings::{MysqlSettings, NetworkSettings, SecretText};
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, MySqlConnection, Row as _};
use tempfile::TempDir;
use zeroize::Zeroizing;

/// The variable that names the server's program; `tests/peers/install-mariadb.sh` prints it.
const VARIABLE: &str = "KEYSIDE_MARIADB";

/// Longer than any start takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The password of the user `zenml`.
pub(super) const PASSWORD: &str = "Pässword'\"\\ 1";

/// A server.
pub(super) struct MariaDb {
    folder: TempDir,
    program: PathBuf,
    pub(super) port: u16,
    arguments: Vec<String>,
    child: Mutex<Option<Child>>,
}

impl MariaDb {
    /// Starts one with empty data bases `zenml` (of the server's own character set, `latin1`) and `wide` (`utf8mb4`). None,
    /// and a word on stderr, where MariaDB is not installed.
    pub(super) async fn start(arguments: &[&str]) -> Option<Self> {
        let Some(program) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
            skipped(format_args!(
                "{VARIABLE} is not set: real MariaDB is not installed (tests/peers/install-mariadb.sh)"
            ));
            return None;
        };
        let folder = tempfile::Builder::new().prefix("ksm").tempdir().expect("a folder");
        let made = Command::new("mariadb-install-db")
            .args([
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
            ])
            .arg(format!("--user={}", user()))
            .arg(format!("--datadir={}", folder.path().join("data").display()))
            .arg("--innodb-log-file-size=8M")
            // Every server clears its directory of temporary files when it starts, another's files too.
            .arg(format!("--tmpdir={}", folder.path().display()))
            .output()
            .expect("mariadb-install-db starts");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let server = Self { folder, program, port, arguments, child: Mutex::new(None) };
        server.run().await;
        server
            .sql(
                "",
                "CREATE DATABASE zenml; CREATE DATABASE wide CHARACTER SET utf8mb4;
                 CREATE USER zenml@'127.0.0.1' IDENTIFIED BY 'P\u{e4}ssword''\"\\\\ 1';
                 GRANT ALL ON *.* TO zenml@'127.0.0.1'",
            )
            .await;
        Some(server)
    }

    /// Starts the program and waits until it answers.
    pub(super) async fn run(&self) {
        let log = std::fs::File::create(self.folder.path().join("log")).expect("a log");
        // It ends with us, whatever ends us.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program).arg("--no-defaults");
        command.arg(format!("--user={}", user()));
        command.arg(format!("--datadir={}", self.folder.path().join("data").display()));
        command.arg(format!("--tmpdir={}", self.folder.path().display()));
        command.arg(format!("--socket={}", self.socket().display()));
        command.arg(format!("--port={}", self.port));
        command.arg("--bind-address=127.0.0.1").args(["--skip-name-resolve", "--max-connections=50"]);
        command.args(["--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M"]);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        *self.child.lock().expect("no panic") = Some(command.spawn().expect("the server starts"));
        let began = Instant::now();
        while self.root("").connect().await.is_err() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let ended = self.child.lock().expect("no panic").as_mut().expect("started").try_wait().expect("our child");
            assert!(ended.is_none() && began.elapsed() < PATIENCE, "the server does not answer:\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it as a crash does.
    pub(super) fn kill(&self) {
        if let Some(mut child) = self.child.lock().expect("no panic").take() {
            child.kill().expect("our child");
            child.wait().expect("our child");
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.child.lock().expect("no panic").is_some()
    }

    /// Runs SQL as root.
    pub(super) async fn sql(&self, database: &str, sql: &str) {
        let mut connection = self.connection(database).await;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.expect(sql);
    }

    /// The first column of the first row, as text.
    pub(super) async fn ask(&self, database: &str, sql: &str) -> String {
        let mut connection = self.connection(database).await;
        let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await.expect(sql);
        rows.first().map_or_else(|| "nothing".to_owned(), |row| row.try_get_unchecked(0).unwrap_or_default())
    }

    /// A connection of root, past TCP.
    pub(super) async fn connection(&self, database: &str) -> MySqlConnection {
        let mut connection = self.root(database).connect().await.expect("a connection");
        sqlx::raw_sql("SET autocommit = 1").execute(&mut connection).await.expect("set");
        connection
    }

    /// Settings of the user `zenml`.
    pub(super) fn settings(&self, database: &str) -> MysqlSettings {
        MysqlSettings {
            host: "127.0.0.1".into(),
            port: self.port,
            user: "zenml".into(),
            password: Some(secret(PASSWORD)),
            database: database.into(),
            ssl_ca: None,
            ssl_cert: None,
            ssl_key: None,
            verify: true,
            iam: None,
        }
    }

    fn root(&self, database: &str) -> MySqlConnectOptions {
        let options =
            MySqlConnectOptions::new().socket(self.socket()).username("root").ssl_mode(MySqlSslMode::Disabled);
        if database.is_empty() { options } else { options.database(database) }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(super) fn secret(text: &str) -> SecretText {
    SecretText {
        text: Zeroizing::new(text.to_owned()),
        origin: "`password_env` (variable `PASSWORD`)".into(),
        file: None,
    }
}

/// The settings of a network that says nothing.
pub(super) fn no_network() -> NetworkSettings {
    NetworkSettings::default()
}

/// Says what this machine cannot show.
pub(super) fn skipped(reason: std::fmt::Arguments<'_>) {
    eprintln!("skipped: {reason}");
}

fn user() -> String {
    let uid = rustix::process::getuid();
    let name = nix::unistd::User::from_uid(uid.as_raw().into()).ok().flatten().map(|user| user.name);
    name.unwrap_or_else(|| uid.as_raw().to_string())
}
