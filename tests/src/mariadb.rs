//! A real MariaDB: a server of its own for one scenario, ended with it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::remark::remark;

/// Longer than any start takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with the empty data base `zenml` and the user `zenml`, who has the password `pw`.
pub struct MariaDb {
    directory: TempDir,
    program: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl MariaDb {
    /// Starts one, as whoever runs the scenario. None, and a word on stderr, where MariaDB is not installed.
    pub fn start() -> Option<Self> {
        let Some(program) = std::env::var_os("KEYSIDE_MARIADB").map(PathBuf::from) else {
            remark(
                "skipped: KEYSIDE_MARIADB is not set: real MariaDB is not installed (tests/peers/install-mariadb.sh)",
            );
            return None;
        };
        let directory = tempfile::Builder::new().prefix("ksm").tempdir().expect("a directory");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let mut server = Self { directory, program, port, child: None };
        let made = Command::new("mariadb-install-db")
            .args([
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
            ])
            .args([server.user(), server.data(), server.temporary(), "--innodb-log-file-size=8M".to_owned()])
            .output()
            .expect("mariadb-install-db starts");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        server.run();
        server.sql(
            "CREATE DATABASE zenml; CREATE USER zenml@'127.0.0.1' IDENTIFIED BY 'pw';
             GRANT ALL ON zenml.* TO zenml@'127.0.0.1'",
        );
        Some(server)
    }

    /// Returns its URL, with this before the host: `zenml` or `zenml:pw`.
    pub fn url(&self, login: &str) -> String {
        format!("mysql://{login}@127.0.0.1:{}/zenml", self.port)
    }

    /// Starts the program and waits until it answers.
    pub fn run(&mut self) {
        let (log, socket) = (self.directory.path().join("log"), self.socket());
        // It ends with us, whatever ends us.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.program)
            .args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve", "--max-connections=50"])
            .args(["--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M"])
            .args([self.user(), self.data(), self.temporary(), self.socket(), format!("--port={}", self.port)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).expect("a log"))
            .spawn()
            .expect("the server starts");
        let child = self.child.insert(child);
        let began = Instant::now();
        loop {
            let ended = child.try_wait().expect("our child");
            let log = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(ended.is_none() && began.elapsed() < PATIENCE, "the server does not answer:\n{}", log());
            let asked = Command::new("mariadb").args(["--no-defaults", "-uroot", &socket, "-e", "SELECT 1"]).output();
            if asked.expect("the client starts").status.success() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("our child");
            child.wait().expect("our child");
        }
    }

    /// Runs SQL as root, and returns what it prints.
    pub fn sql(&self, sql: &str) -> String {
        let done =
            Command::new("mariadb").args(["--no-defaults", "-uroot", "-N", "-B", &self.socket(), "-e", sql]).output();
        let done = done.expect("the client starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    fn user(&self) -> String {
        let done = Command::new("id").arg("-un").output().expect("`id` starts");
        format!("--user={}", String::from_utf8_lossy(&done.stdout).trim())
    }

    fn data(&self) -> String {
        format!("--datadir={}", self.directory.path().join("data").display())
    }

    /// Every server clears its directory of temporary files when it starts, another's files too.
    fn temporary(&self) -> String {
        format!("--tmpdir={}", self.directory.path().display())
    }

    fn socket(&self) -> String {
        format!("--socket={}", self.directory.path().join("sock").display())
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.kill();
    }
}
