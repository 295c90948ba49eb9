//! An agent: started, ready, and ended with the scenario by its own process id.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};

use rustix::process::Signal;

use crate::eventually::eventually;
use crate::home::Home;
use crate::run::{self, Ended, Run};
use crate::socket_client::Client;

/// An agent to be started.
pub struct AgentBuilder<'h> {
    home: &'h Home,
    run: Run<'h>,
    socket: PathBuf,
    named: bool,
    config: Option<PathBuf>,
}

impl Home {
    /// Prepares an agent on a socket of its own, without configuration.
    pub fn agent(&self) -> AgentBuilder<'_> {
        let (run, socket) = (self.keyside([] as [&str; 0]), self.fresh("agent.sock"));
        AgentBuilder { home: self, run, socket, named: true, config: None }
    }

    /// Starts an agent with this configuration and waits until it is ready.
    pub fn agent_with(&self, config: &str) -> Agent<'_> {
        self.agent().config(config).start()
    }
}

impl<'h> AgentBuilder<'h> {
    /// Gives it a configuration file of this content.
    pub fn config(mut self, content: &str) -> Self {
        let path = self.home.fresh("keyside.toml");
        let name = path.file_name().expect("it has one").to_string_lossy().into_owned();
        self.home.write(&name, content);
        self.run = self.run.arg("--config").arg(&path);
        self.config = Some(path);
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.run = self.run.env(name, value);
        self
    }

    /// Puts the socket at `path`.
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = path.into();
        self
    }

    /// Leaves the choice of the socket to the agent, which is expected to choose `path`.
    pub fn unnamed_socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.named = false;
        self.socket(path)
    }

    /// Runs it as `uid`, who must be able to read its configuration and to make its socket.
    pub fn as_user(mut self, uid: u32) -> Self {
        if let Some(config) = &self.config {
            std::os::unix::fs::chown(config, Some(uid), Some(uid)).expect("only root gives files away");
        }
        self.run = self.run.as_user(uid);
        self
    }

    /// Runs it under this umask.
    pub fn umask(mut self, umask: u32) -> Self {
        self.run = self.run.umask(umask);
        self
    }

    /// Runs it after these words of a shell.
    pub fn after(mut self, prelude: &str) -> Self {
        self.run = self.run.after(prelude);
        self
    }

    /// Starts it and waits until `/v1/ready` says so.
    pub fn start(self) -> Agent<'h> {
        self.start_until("/v1/ready")
    }

    /// Starts it and waits until it answers at all: its back-end may be broken.
    pub fn start_unready(self) -> Agent<'h> {
        self.start_until("/v1/health")
    }

    /// Runs it to its end, which it is expected to come to by itself.
    pub fn end(self) -> Ended {
        self.into_run().end()
    }

    fn into_run(self) -> Run<'h> {
        let run = if self.named { self.run.arg("--socket").arg(&self.socket) } else { self.run };
        run.arg("agent")
    }

    fn start_until(self, probe: &str) -> Agent<'h> {
        let (home, socket, config) = (self.home, self.socket.clone(), self.config.clone());
        let log = home.fresh("agent.log");
        let file = File::create(&log).expect("a log");
        let mut command = self.into_run().command();
        command.stdout(file.try_clone().expect("a descriptor")).stderr(file);
        let child = command.spawn().expect("the agent starts");
        let mut agent = Agent { home, child: Some(child), socket, config, log };
        eventually("the agent answers", || {
            let ended = agent.child.as_mut().expect("running").try_wait().expect("our own child");
            assert!(ended.is_none(), "the agent ended with {ended:?}:\n{}", agent.log());
            Client::try_connect(&agent.socket).ok().filter(|_| agent.client().get(probe).status == 200)
        });
        agent
    }
}

/// A running agent.
pub struct Agent<'h> {
    home: &'h Home,
    child: Option<Child>,
    socket: PathBuf,
    config: Option<PathBuf>,
    log: PathBuf,
}

impl<'h> Agent<'h> {
    /// Returns its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns its configuration file.
    pub fn config(&self) -> &Path {
        self.config.as_deref().expect("it was given one")
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// Returns what it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns the processor time that it has used, in hundredths of a second.
    pub fn cpu_hundredths(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        // utime and stime; the name before them may hold anything but a closing parenthesis at its end.
        let fields = stat.rsplit(')').next().expect("a name").split_whitespace();
        fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
    }

    /// Connects. What the replies say, values aside, is searched for the planted value.
    pub fn client(&self) -> Client<'h> {
        Client::connect(&self.socket).recorded(self.home)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        run::send(self.child.as_ref().expect("running"), signal);
    }

    /// Waits for its end.
    pub fn end(mut self) -> ExitStatus {
        run::end_of(&mut self.child.take().expect("running"), "the agent")
    }

    /// Ends it with SIGTERM and waits.
    pub fn stop(self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.end()
    }

    /// Ends it with SIGKILL and waits: nothing is cleaned up.
    pub fn kill(self) {
        self.signal(Signal::KILL);
        self.end();
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            if child.try_wait().is_ok_and(|ended| ended.is_none()) {
                run::send(&child, Signal::KILL);
            }
            let _ = child.wait();
        }
    }
}
