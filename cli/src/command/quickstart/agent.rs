//! The agent as a child process, with its socket in a fresh private directory; both end with us, however we end.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::home::Home;
use super::interrupt::Interrupts;
use crate::args::AgentArg;
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::{io_text, printable};
use crate::session::{self, Session};
use crate::sys;

/// How long the agent may take to become ready: a store on a slow disk, a machine under load.
const START: Duration = Duration::from_secs(30);
/// How long it may take to stop: longer than the grace of a stop.
const STOP: Duration = Duration::from_secs(15);
/// How often both are looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// A running agent; stopped, and its directory removed, when dropped.
pub(super) struct RunningAgent {
    child: Option<Child>,
    directory: PathBuf,
}

impl RunningAgent {
    /// Starts an agent on the store of `home`.
    pub(super) fn start(globals: &Globals, home: &Home) -> Result<Self, Failure> {
        let program = session::current_program()?;
        let mut agent = Self { child: None, directory: socket_directory()? };
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            // The user's own settings are for the user's own agent.
            let text = name.to_string_lossy();
            if (text.to_ascii_uppercase().starts_with("KEYSIDE_") && text != "KEYSIDE_LOG")
                || text == keyside_protocol::level::LEVEL_VARIABLE
            {
                command.env_remove(&name);
            }
        }
        command.arg("--config").arg(home.config()).arg("--socket").arg(agent.socket());
        // Its life is told by us; only what goes wrong is worth a line of its own.
        let (flag, times) = match globals.verbosity {
            0 if globals.log_filter.is_none() => ("--quiet", 1),
            more @ 0.. => ("--verbose", more),
            less => ("--quiet", -less),
        };
        command.args((0..times).map(|_| flag)).arg("agent").stdin(Stdio::null()).stdout(Stdio::null());
        // ^C is for the step; the agent is stopped after it.
        command.process_group(0);
        sys::end_with_parent(&mut command);
        let child = command
            .spawn()
            .map_err(|error| Failure::new(Exit::Unavailable, format!("cannot start the agent: {}", io_text(&error))))?;
        agent.child = Some(child);
        Ok(agent)
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join("agent.sock")
    }

    /// The options of a client of this agent.
    pub(super) fn globals(&self, globals: &Globals) -> Globals {
        Globals {
            config: None,
            socket: Some(self.socket()),
            agent: Some(AgentArg::Socket),
            agent_uid: None,
            ..globals.clone()
        }
    }

    /// Waits for it to be ready.
    ///
    /// Errors: it ended, or takes too long (69); a signal came.
    pub(super) fn wait_until_ready(&mut self, globals: &Globals, interrupts: &Interrupts) -> Result<(), Failure> {
        let globals = self.globals(globals);
        let end = Instant::now() + START;
        loop {
            interrupts.check()?;
            let last = match Session::of_running(&globals, Duration::ZERO)
                .and_then(|mut session| session.request("ask whether the agent is ready", "GET", "/v1/ready", None))
            {
                Ok(_) => return Ok(()),
                Err(failure) => failure,
            };
            let ended = self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended {
                self.child = None;
                return Err(Failure::new(Exit::Unavailable, "the agent ended before it was ready")
                    .hint("what it said stands above; `keyside -v quickstart` says more"));
            }
            if Instant::now() >= end {
                return Err(last);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Stops it gracefully and waits until it has gone.
    pub(super) fn stop(self) {
        drop(self);
    }
}

impl Drop for RunningAgent {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                // An error means that it has ended already; it was not reaped, so the id is still its own.
                let _ = kill_process(pid, Signal::TERM);
            }
            let end = Instant::now() + STOP;
            while Instant::now() < end && matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(PAUSE);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Makes a directory that only we can enter, under a path short enough for a socket.
fn socket_directory() -> Result<PathBuf, Failure> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| is_ours(dir));
    let parents = runtime.into_iter().chain([PathBuf::from("/tmp")]);
    let mut last = String::new();
    for parent in parents {
        for attempt in 0..100_u32 {
            // Not a secret, only unlikely to be taken; who takes it all the same costs one attempt.
            let nanos = std::time::UNIX_EPOCH.elapsed().map_or(0, |now| now.subsec_nanos());
            let directory =
                parent.join(format!("keyside-quickstart-{}-{:06x}", std::process::id(), (nanos ^ attempt) & 0xff_ffff));
            // 107 bytes at most, with `/agent.sock` and what the agent may put beside it.
            if directory.as_os_str().len() > 107 - 24 {
                break;
            }
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => {
                    let _ = fs::set_permissions(&directory, Permissions::from_mode(0o700));
                    return Ok(directory);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    last = format!("{}: {}", printable(&parent.to_string_lossy()), io_text(&error));
                    break;
                }
            }
        }
    }
    Err(Failure::new(Exit::Config, format!("cannot make a directory for the socket in {last}"))
        .hint("set XDG_RUNTIME_DIR to a directory of your own"))
}

/// `XDG_RUNTIME_DIR` counts only when it is what its specification says: absolute, ours, and nobody else's.
fn is_ours(dir: &Path) -> bool {
    let ours = |found: fs::Metadata| {
        found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0
    };
    dir.is_absolute() && dir.metadata().is_ok_and(ours)
}
