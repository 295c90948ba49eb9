//! The process of a plug-in: its environment, its pipes, and its end, of which nothing is left.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::conversation::{self, Conversation, Table};
use super::stderr;

/// What it is given of our own environment; `env` of its settings comes on top.
const PASSED_ON: [&str; 6] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// Between closing its standard input, SIGTERM and SIGKILL.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// How long what it said last is read after its end: a process that it started may hold the pipe open for ever.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How to start a plug-in.
#[derive(Clone)]
pub(super) struct Launch {
    /// The name of the back-end, for the log.
    pub backend: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Variables on top of those that every plug-in gets.
    pub env: BTreeMap<String, String>,
    /// Longest line that is read from it.
    pub longest_line: usize,
    /// How long it may take to read one request.
    pub patience: Duration,
    /// Requests that may wait to be written.
    pub queue: usize,
}

/// A plug-in that runs. Dropped, it is ended: its standard input is closed, and what is still there after a while gets
/// SIGTERM, then SIGKILL.
pub(super) struct Running {
    /// Our side of its pipes.
    pub conversation: Conversation,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.conversation.close();
    }
}

/// Counts the processes that have not been reaped yet.
pub(super) type Living = watch::Sender<usize>;

impl Launch {
    /// Starts the program. Must be called on the runtime, whose thread it dies with.
    ///
    /// Errors: why it cannot be executed.
    pub(super) fn start(&self, living: &Arc<Living>) -> std::io::Result<Running> {
        let mut child = self.command()?.spawn()?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).ok_or_else(lost)?;
        // A process that has ended and was not waited for keeps its number, and its group's: what is killed by that
        // number is the right one. On an error `kill_on_drop` does the rest.
        let exit = crate::sys::child::watched(pidfd_open(pid, PidfdFlags::NONBLOCK)?)?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(lost());
        };
        let table = Table::new();
        let (conversation, queue) = Conversation::new(Arc::clone(&table), self.queue);
        let writer = tokio::spawn(conversation::write(Arc::clone(&table), queue, stdin, self.patience));
        let reader =
            tokio::spawn(conversation::read(Arc::clone(&table), self.backend.clone(), stdout, self.longest_line));
        let logger = tokio::spawn(stderr::log(self.backend.clone(), stderr));
        let process = Process { backend: self.backend.clone(), child, pid, exit, table, writer, reader, logger };
        living.send_modify(|living| *living += 1);
        let reaped = Reaped(Arc::clone(living));
        tokio::spawn(async move {
            process.keep().await;
            drop(reaped);
        });
        Ok(Running { conversation })
    }

    fn command(&self) -> std::io::Result<Command> {
        let program = self.command.first().ok_or_else(lost)?;
        let mut command = std::process::Command::new(program);
        let ours = PASSED_ON.iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)));
        command.args(&self.command[1..]).env_clear().envs(ours).envs(&self.env);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own: ^C on our terminal is not for it, and what it started ends with it.
        command.process_group(0);
        crate::sys::child::tie_to_us(&mut command);
        let mut command = Command::from(command);
        command.kill_on_drop(true);
        Ok(command)
    }
}

fn lost() -> std::io::Error {
    std::io::Error::other("the program could not be started")
}

/// Counts down when a process has been reaped, however that came about.
struct Reaped(Arc<Living>);

impl Drop for Reaped {
    fn drop(&mut self) {
        self.0.send_modify(|living| *living = living.saturating_sub(1));
    }
}

/// The process and everything that belongs to it.
struct Process {
    backend: String,
    child: Child,
    pid: Pid,
    /// Readable once it has ended.
    exit: AsyncFd<std::os::fd::OwnedFd>,
    table: Arc<Table>,
    writer: JoinHandle<()>,
    reader: JoinHandle<()>,
    logger: JoinHandle<()>,
}

impl Process {
    /// Waits until it ends or the conversation is over, and sees to it that it is gone.
    async fn keep(mut self) {
        let closed = tokio::select! {
            _ = self.exit.readable() => None,
            // Why, the table knows: it broke the protocol, or nobody wants it any more.
            () = self.table.until_over() => Some(""),
            _ = &mut self.reader => Some("it closed its standard output"),
            _ = &mut self.writer => Some("it closed its standard input"),
        };
        // Pipes close a moment before the process has ended, and its exit status tells more.
        let by_itself = closed.is_none()
            || (self.reader.is_finished() || self.writer.is_finished()) && self.ends_within(LAST_WORDS).await;
        if !by_itself {
            self.table.end(closed.unwrap_or_default());
            self.end_it().await;
        }
        // Whatever it started, and left running. It has ended and was not waited for: the group is still its own.
        let _ = kill_process_group(self.pid, Signal::KILL);
        // Answers that it gave before its end count.
        for task in [&mut self.reader, &mut self.logger] {
            if !task.is_finished() {
                let _ = timeout(LAST_WORDS, task).await;
            }
        }
        for task in [&self.writer, &self.reader, &self.logger] {
            task.abort();
        }
        let status = self.child.wait().await;
        let how = status.as_ref().map_or_else(|_| "it ended".to_owned(), |status| how(*status));
        let backend = &self.backend;
        match self.table.over() {
            Some(why) => tracing::info!(backend, "the plug-in is gone: {why}; {how}"),
            None => tracing::warn!(backend, "the plug-in is gone: {how}"),
        }
        self.table.end(&how);
    }

    async fn ends_within(&self, time: Duration) -> bool {
        timeout(time, self.exit.readable()).await.is_ok()
    }

    async fn end_it(&mut self) {
        // Drops its standard input. What it still prints is read, so that it can end.
        self.writer.abort();
        if self.ends_within(GRACE).await {
            return;
        }
        let _ = kill_process_group(self.pid, Signal::TERM);
        if self.ends_within(GRACE).await {
            return;
        }
        let _ = kill_process_group(self.pid, Signal::KILL);
        let _ = self.exit.readable().await;
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with exit status {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it ended".to_owned(),
    }
}
