//! One program: run to its end, or kept running.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::agent::Agent;
use crate::eventually::eventually;
use crate::home::Home;
use crate::programs;

/// A program to be run in a home.
pub struct Run<'h> {
    home: &'h Home,
    program: PathBuf,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    stdin: Option<Vec<u8>>,
    uid: Option<u32>,
    prelude: Option<String>,
    directory: Option<PathBuf>,
    prints_values: bool,
}

impl<'h> Run<'h> {
    /// Prepares `program`, with nothing in its environment but what leads into the home.
    pub fn new(home: &'h Home, program: PathBuf) -> Self {
        let mut run = Self {
            home,
            program,
            args: Vec::new(),
            env: BTreeMap::new(),
            stdin: None,
            uid: None,
            prelude: None,
            directory: None,
            prints_values: false,
        };
        for (name, path) in [
            ("HOME", home.path().to_owned()),
            ("XDG_RUNTIME_DIR", home.runtime().to_owned()),
            ("XDG_CONFIG_HOME", home.join(".config")),
            ("XDG_CACHE_HOME", home.join(".cache")),
            ("XDG_DATA_HOME", home.join(".local/share")),
            ("XDG_STATE_HOME", home.join(".local/state")),
        ] {
            run.env.insert(name.into(), path.into());
        }
        run.env("PATH", programs::search_path()).env("RUST_BACKTRACE", "0").env("KEYSIDE_LOG", "trace")
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Removes a variable.
    pub fn without(mut self, name: &str) -> Self {
        self.env.remove(OsStr::new(name));
        self
    }

    /// Names the agent's socket, by `KEYSIDE_SOCKET`.
    pub fn with(self, agent: &Agent<'_>) -> Self {
        self.env("KEYSIDE_SOCKET", agent.socket())
    }

    /// Gives it something to read; else it reads nothing.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Runs it as `uid`, with no other group. Only for root.
    pub fn as_user(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// Runs it under this umask.
    pub fn umask(self, umask: u32) -> Self {
        self.after(format!("umask {umask:03o}"))
    }

    /// Runs it after these words of a shell, which it then takes the place of.
    pub fn after(mut self, prelude: impl Into<String>) -> Self {
        self.prelude = Some(prelude.into());
        self
    }

    /// Runs it in this directory.
    pub fn in_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Says that it is its job, or that of the step it starts, to print values on stdout. Its stderr is searched still.
    pub fn prints_values(mut self) -> Self {
        self.prints_values = true;
        self
    }

    /// Returns the program and arguments as a command, with nothing on stdin.
    pub fn command(&self) -> Command {
        let program = match self.uid {
            Some(_) => reachable(self.home, &self.program),
            None => self.program.clone(),
        };
        let mut command = match &self.prelude {
            // Without `unsafe` nothing of ours can run between fork and exec.
            Some(prelude) => {
                let mut shell = Command::new("/bin/sh");
                shell.arg("-c").arg(format!("{prelude}; exec \"$0\" \"$@\"")).arg(program);
                shell
            }
            None => Command::new(program),
        };
        command.args(&self.args).env_clear().envs(&self.env).stdin(Stdio::null());
        command.current_dir(self.directory.as_deref().unwrap_or(self.home.path()));
        if let Some(uid) = self.uid {
            // std drops the supplementary groups with it.
            command.uid(uid).gid(uid);
        }
        command
    }

    /// Starts it and returns while it runs.
    pub fn start(self) -> Running<'h> {
        // Files, not pipes: a pipe ends only when the last descendant has closed it.
        let (stdout, stderr) = (scratch(), scratch());
        let mut command = self.command();
        command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
        if let Some(bytes) = &self.stdin {
            let mut file = scratch();
            file.write_all(bytes).and_then(|()| file.rewind()).expect("room on the disk");
            command.stdin(file);
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("{} starts: {error}", self.program.display()));
        let called = self.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Running { home: self.home, called, child, stdout, stderr, prints_values: self.prints_values }
    }

    /// Runs it to its end.
    pub fn end(self) -> Ended {
        self.start().end()
    }
}

/// A program that runs. Dropped, it is killed.
pub struct Running<'h> {
    home: &'h Home,
    called: String,
    child: Child,
    stdout: File,
    stderr: File,
    prints_values: bool,
}

impl Running<'_> {
    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_none()
    }

    /// Returns what it has printed on stdout so far.
    pub fn stdout_so_far(&mut self) -> Vec<u8> {
        content(&mut self.stdout)
    }

    /// Returns what it has said on stderr so far.
    pub fn stderr_so_far(&mut self) -> String {
        String::from_utf8_lossy(&content(&mut self.stderr)).into_owned()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ended {
        let status = end_of(&mut self.child, &self.called);
        let ended = Ended {
            status,
            stdout: content(&mut self.stdout),
            stderr: String::from_utf8_lossy(&content(&mut self.stderr)).into_owned(),
        };
        if !self.prints_values {
            self.home.record(format!("the stdout of {}", self.called), ended.stdout.clone());
        }
        self.home.record(format!("the stderr of {}", self.called), ended.stderr.clone());
        ended
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it said.
    pub stderr: String,
}

impl Ended {
    /// Returns its exit code, if it was not killed.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Returns the signal that ended it.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Returns stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Panics unless it ended with `code`.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "stdout: {}\nstderr: {}", self.text(), self.stderr);
        self
    }

    /// Panics unless it ended with `code` and complained in the promised form about each of `named`, with a hint.
    #[track_caller]
    pub fn expect_complaint(self, code: i32, named: &[&str]) -> Self {
        let ended = self.expect_form(code, named);
        let stderr = &ended.stderr;
        assert!(stderr.lines().any(|line| line.trim_start().starts_with("hint: ")), "no hint in:\n{stderr}");
        ended
    }

    /// Panics unless it ended with 1, the answer is no, and said so of each of `named`; there may be no advice on that.
    #[track_caller]
    pub fn expect_no(self, named: &[&str]) -> Self {
        self.expect_form(1, named)
    }

    #[track_caller]
    fn expect_form(self, code: i32, named: &[&str]) -> Self {
        let ended = self.expect_code(code);
        let stderr = &ended.stderr;
        let complaints = stderr.lines().filter_map(|line| line.strip_prefix("keyside: "));
        let mut complaints = complaints.filter(|line| !line.starts_with("warning: "));
        let complaint = complaints.next().unwrap_or_else(|| panic!("no `keyside: ` line in:\n{stderr}"));
        assert!(!complaint.ends_with('.') && complaint.len() < 400, "not one short line: {complaint}");
        assert!(!complaint.starts_with(char::is_uppercase) || begins_with_variable(complaint), "{complaint}");
        for name in named {
            assert!(stderr.contains(name), "`{name}` is not named in:\n{stderr}");
        }
        assert!(!stderr.contains("panicked") && !stderr.contains("internal error"), "{stderr}");
        ended
    }
}

/// A complaint is in lower case, but the name of a variable is upper case throughout.
fn begins_with_variable(complaint: &str) -> bool {
    let word = complaint.split([' ', ':', '=']).next().unwrap_or_default();
    word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// Waits for the end of `child`; one that never ends is killed.
pub fn end_of(child: &mut Child, called: &str) -> ExitStatus {
    eventually(&format!("{called} ends"), || child.try_wait().expect("our own child")).0
}

/// Sends a signal to `child`, which has not been waited for.
pub fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
    // Not yet waited for, so the number is still our child's.
    kill_process(pid, signal).expect("our own child");
}

fn scratch() -> File {
    tempfile::tempfile().expect("room for output")
}

fn content(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Its own descriptor would share the offset with the writer's.
    let mut own = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file))).expect("ours");
    own.read_to_end(&mut bytes).expect("readable");
    bytes
}

/// Copies `program` to where another user may run it: the build may lie in a home that is closed to him.
fn reachable(home: &Home, program: &Path) -> PathBuf {
    if program.starts_with("/usr") || program.starts_with("/bin") {
        return program.to_owned();
    }
    let copy = home.join("bin").join(program.file_name().expect("a program has a name"));
    if !copy.exists() {
        std::fs::create_dir_all(home.join("bin")).expect("a directory");
        std::fs::copy(program, &copy).expect("room for a copy");
        for path in [&home.join("bin"), &copy] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("ours");
        }
    }
    copy
}
