//! From "where is the agent" to a connection: a socket, or a private agent over a socketpair.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::client::{Client, ClientError, Trust};
use crate::report;
use crate::socket::{self, Located};
use crate::sys;
use crate::{AgentMode, Globals};

/// How often a socket that is not there yet is looked for.
const RETRY: Duration = Duration::from_millis(100);
/// How long a private agent may take to end by itself once its one client has left. It has nothing to save, and one that
/// still waits for a back-end must not keep the command, or its exit code, waiting too.
const EMBEDDED_END: Duration = Duration::from_millis(500);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Connecting failed, or the server is not to be trusted.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No socket was named and none exists at the default paths.
    #[error("no agent found: no socket is named and there is none at {}", list(.0))]
    Nowhere(Vec<PathBuf>),
    /// `--agent embedded` in a program that cannot start an agent.
    #[error("this program has no embedded agent")]
    NoEmbedded,
    /// The private agent could not be started.
    #[error("cannot start a private agent: {0}")]
    Embedded(#[source] std::io::Error),
    /// A variable that is part of the configuration holds nonsense.
    #[error("{name} is not a {expected}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
}

impl ConnectError {
    /// Returns what to try.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Client(error) => error.hint(),
            Self::Nowhere(_) => Some("start one with `keyside agent`, or name its socket with --socket".to_owned()),
            Self::NoEmbedded => Some("use `keyside exec`, or start an agent and name its socket".to_owned()),
            Self::Embedded(_) => Some("start one by hand with `keyside agent` and name its socket".to_owned()),
            Self::Variable { name, .. } => Some(format!("mend or unset {name}")),
        }
    }

    /// Tells whether trying again later can help: the agent cannot be reached, and nobody refused anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Client(error) => error.is_transient(),
            Self::Nowhere(_) => true,
            Self::NoEmbedded | Self::Embedded(_) | Self::Variable { .. } => false,
        }
    }
}

/// A connection, and the private agent behind it, if there is one.
pub struct Connection {
    client: Client,
    embedded: Option<Child>,
}

impl Connection {
    /// Returns the client, whose server has been checked.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Returns the client alone. A private agent ends when it is dropped, and is nobody's to wait for.
    pub fn into_client(self) -> Client {
        self.client
    }

    /// Tells whether the agent behind it is our own private one.
    pub fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// Closes the connection; a private agent is ended and reaped.
    pub fn end(self) {
        let Self { client, embedded } = self;
        drop(client);
        let Some(mut agent) = embedded else { return };
        let exited = i32::try_from(agent.id())
            .ok()
            .and_then(Pid::from_raw)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
            .is_some_and(|pidfd| ends_within(&pidfd, EMBEDDED_END));
        if !exited {
            // An error means that it ended in between, or was reaped because SIGCHLD is ignored.
            let _ = agent.kill();
        }
        let _ = agent.wait();
        sys::drop_pending_sigchld();
    }
}

fn ends_within(pidfd: &OwnedFd, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            result => return matches!(result, Ok(ready) if ready > 0),
        }
    }
}

/// Connects by the rule of the socket: a named one alone is tried, again and again for `wait` while nobody serves it;
/// otherwise the first default path at which anything exists, once. With neither, `auto` starts a private agent where
/// this program has one, and says so. `KEYSIDE_SOCKET` and `KEYSIDE_AGENT_UID` count where `globals` leave a gap.
pub fn connect(
    globals: &Globals,
    configured_socket: Option<&Path>,
    wait: Duration,
) -> Result<Connection, ConnectError> {
    let trust = Trust { agent_uid: globals.agent_uid.map_or_else(agent_uid_from_environment, |uid| Ok(Some(uid)))? };
    let mode = globals.agent.unwrap_or_default();
    if mode == AgentMode::Embedded {
        return embedded(globals, &trust);
    }
    let variable = std::env::var_os("KEYSIDE_SOCKET");
    let client = match socket::locate(globals.socket.as_deref(), variable.as_deref(), configured_socket) {
        Located::Named(path) => connect_within(&path, &trust, wait)?,
        Located::Default(path) => Client::connect(&path, &trust)?,
        Located::Nowhere if mode == AgentMode::Auto && globals.embedded.is_some() => {
            if globals.quiet == 0 {
                report::note("no agent's socket found; starting a private agent for this command");
            }
            return embedded(globals, &trust);
        }
        Located::Nowhere => return Err(ConnectError::Nowhere(socket::default_paths())),
    };
    Ok(Connection { client, embedded: None })
}

fn agent_uid_from_environment() -> Result<Option<u32>, ConnectError> {
    match std::env::var_os("KEYSIDE_AGENT_UID") {
        Some(text) if !text.is_empty() => text
            .to_str()
            .and_then(|text| text.parse().ok())
            .map(Some)
            .ok_or(ConnectError::Variable { name: "KEYSIDE_AGENT_UID", expected: "uid" }),
        _ => Ok(None),
    }
}

fn connect_within(path: &Path, trust: &Trust, wait: Duration) -> Result<Client, ConnectError> {
    let until = Instant::now() + wait;
    loop {
        match Client::connect(path, trust) {
            Err(error) if error.is_transient() && !is_no_socket(path) => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(error.into());
                }
                // There is no event for "somebody listens now".
                std::thread::sleep(RETRY.min(left));
            }
            result => return Ok(result?),
        }
    }
}

/// A file or a directory refuses a connect like a socket that nobody serves; waiting will not change it.
fn is_no_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    path.metadata().is_ok_and(|metadata| !metadata.file_type().is_socket())
}

fn embedded(globals: &Globals, trust: &Trust) -> Result<Connection, ConnectError> {
    let argv: &[OsString] = globals.embedded.as_deref().ok_or(ConnectError::NoEmbedded)?;
    let (program, arguments) = argv.split_first().ok_or(ConnectError::NoEmbedded)?;
    let (ours, theirs) = UnixStream::pair().map_err(ConnectError::Embedded)?;
    // As its stdin the socket needs no descriptor number that might be taken, and leaves ours close-on-exec.
    let agent = Command::new(program)
        .args(arguments)
        .args(["--fd", "0"])
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .map_err(ConnectError::Embedded)?;
    match Client::over(ours, trust) {
        Ok(client) => Ok(Connection { client, embedded: Some(agent) }),
        Err(error) => {
            if let Some(pid) = i32::try_from(agent.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
            Err(error.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_socket_that_is_missing_is_tried_for_the_whole_wait() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("agent.sock");
        let started = Instant::now();
        let error = connect_within(&path, &Trust::default(), Duration::from_millis(150)).err().expect("no agent");
        assert!(error.is_transient() && started.elapsed() >= Duration::from_millis(150));
    }

    #[test]
    fn a_file_in_the_place_of_a_socket_is_not_waited_for() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let started = Instant::now();
        let result = connect_within(file.path(), &Trust::default(), Duration::from_secs(30));
        assert!(result.is_err() && started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_program_without_an_embedded_agent_says_so() {
        let globals = Globals { agent: Some(AgentMode::Embedded), ..Globals::default() };
        assert!(matches!(connect(&globals, None, Duration::ZERO), Err(ConnectError::NoEmbedded)));
    }

    #[test]
    fn a_private_agent_answers_over_its_socketpair_and_is_reaped_at_the_end() {
        // Gets its socket as stdin, answers once, and ends when its one client leaves.
        let script = "read -r line; printf 'HTTP/1.1 204 No Content\\r\\nargs: %s %s\\r\\n\\r\\n' \"$0\" \"$1\" >&0; cat >/dev/null";
        let argv = ["/bin/sh", "-c", script].map(OsString::from).to_vec();
        let globals = Globals { embedded: Some(argv), agent: Some(AgentMode::Embedded), ..Globals::default() };
        let mut connection = connect(&globals, None, Duration::ZERO).expect("a private agent");
        let reply = connection.client().send("GET", "/v1/health", &[], None, Duration::from_secs(10)).expect("a reply");
        assert_eq!((reply.status, reply.header("args")), (204, Some("--fd 0")));
        let process = format!("/proc/{}", connection.embedded.as_ref().expect("embedded").id());
        assert!(Path::new(&process).exists());
        connection.end();
        assert!(!Path::new(&process).exists());
    }

    #[test]
    fn a_private_agent_that_does_not_end_by_itself_is_killed_and_reaped() {
        let argv = ["/bin/sh", "-c", "exec sleep 1000"].map(OsString::from).to_vec();
        let globals = Globals { embedded: Some(argv), agent: Some(AgentMode::Embedded), ..Globals::default() };
        let connection = connect(&globals, None, Duration::ZERO).expect("a private agent");
        let process = format!("/proc/{}", connection.embedded.as_ref().expect("embedded").id());
        connection.end();
        assert!(!Path::new(&process).exists());
    }
}
