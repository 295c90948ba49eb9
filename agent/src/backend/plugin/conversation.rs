//! Requests to one running plug-in and the answers to them, matched by id; any number at the same time, in any order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keyside_protocol::json::SecretBuffer;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::lines::{Lines, Next};
use super::reply::{self, Answer, Line};
use super::request::Params;

/// Calls in a row that may stay without an answer, none having come to any other call either, before the plug-in counts as
/// hung.
const MOST_SILENCES: u32 = 3;

/// Why a call got no answer of the plug-in's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// It did not answer in time.
    TooLate(Duration),
    /// Its answer was longer than allowed.
    TooLong,
    /// The conversation is over; why.
    Over(String),
}

/// Our side of the pipes.
pub(super) struct Conversation {
    table: Arc<Table>,
    requests: mpsc::Sender<SecretBuffer>,
}

/// What both directions share.
pub(super) struct Table {
    entries: Mutex<Entries>,
    over: watch::Sender<Option<String>>,
}

struct Entries {
    last_id: u64,
    waiting: HashMap<u64, oneshot::Sender<Result<Answer, Unanswered>>>,
    silences: u32,
    replies: u64,
}

impl Table {
    pub(super) fn new() -> Arc<Self> {
        let entries = Entries { last_id: 0, waiting: HashMap::new(), silences: 0, replies: 0 };
        Arc::new(Self { entries: Mutex::new(entries), over: watch::Sender::new(None) })
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the conversation: every call that waits fails, and so does every later one. The first reason stays.
    pub(super) fn end(&self, why: &str) {
        let why = self.over.borrow().clone().unwrap_or_else(|| why.to_owned());
        self.over.send_if_modified(|over| over.is_none() && over.replace(why.clone()).is_none());
        // After the reason is there: whoever registers from now on sees it.
        for (_, caller) in self.entries().waiting.drain() {
            let _ = caller.send(Err(Unanswered::Over(why.clone())));
        }
    }

    /// Returns why it is over; `None` while it is not.
    pub(super) fn over(&self) -> Option<String> {
        self.over.borrow().clone()
    }

    /// Waits until it is over.
    pub(super) async fn until_over(&self) {
        // We hold the sender.
        let _ = self.over.subscribe().wait_for(Option::is_some).await;
    }

    /// Passes an answer on. Of an answer to a request that nobody waits for any more nothing is kept.
    ///
    /// Errors: what is wrong, where it answers a request that was never made.
    fn answer(&self, id: u64, answer: Result<Answer, Unanswered>) -> Result<(), &'static str> {
        let mut entries = self.entries();
        if id == 0 || id > entries.last_id {
            return Err("an answer to a request that was never made");
        }
        entries.silences = 0;
        entries.replies += 1;
        let caller = entries.waiting.remove(&id);
        drop(entries);
        if let Some(caller) = caller {
            let _ = caller.send(answer);
        }
        Ok(())
    }
}

/// Takes a call out of the table when its caller leaves.
struct Waiting<'t> {
    table: &'t Table,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.table.entries().waiting.remove(&self.id);
    }
}

impl Conversation {
    /// Begins one: what is said goes to `requests`, of which `capacity` may wait.
    pub(super) fn new(table: Arc<Table>, capacity: usize) -> (Self, mpsc::Receiver<SecretBuffer>) {
        let (requests, queue) = mpsc::channel(capacity.max(1));
        (Self { table, requests }, queue)
    }

    /// Tells whether it is over, and why.
    pub(super) fn over(&self) -> Option<String> {
        self.table.over()
    }

    /// Ends it, and the plug-in with it.
    pub(super) fn close(&self) {
        self.table.end("it is being ended");
    }

    /// Asks, and waits for the answer at most for `patience`. Dropped, it leaves nothing behind but a request that may
    /// be on its way; its answer is dropped when it comes.
    pub(super) async fn ask(&self, method: &str, params: Params, patience: Duration) -> Result<Answer, Unanswered> {
        let (caller, answer) = oneshot::channel();
        let waiting = {
            let mut entries = self.table.entries();
            entries.last_id += 1;
            let id = entries.last_id;
            entries.waiting.insert(id, caller);
            Waiting { table: &self.table, id }
        };
        // Behind the entry, so that an end between the two is not missed.
        if let Some(why) = self.table.over() {
            return Err(Unanswered::Over(why));
        }
        let line = params.into_line(waiting.id, method);
        let replies_before = self.table.entries().replies;
        let exchange = async {
            let over = || Unanswered::Over(self.table.over().unwrap_or_else(|| "it takes no more requests".into()));
            self.requests.send(line).await.map_err(|_| over())?;
            answer.await.unwrap_or_else(|_| Err(over()))
        };
        let outcome = timeout(patience, exchange).await;
        outcome.unwrap_or_else(|_| {
            self.was_silent(replies_before);
            Err(Unanswered::TooLate(patience))
        })
    }

    fn was_silent(&self, replies_before: u64) {
        let mut entries = self.table.entries();
        if entries.replies != replies_before {
            return;
        }
        entries.silences += 1;
        if entries.silences >= MOST_SILENCES {
            drop(entries);
            self.table.end(&format!("it left {MOST_SILENCES} requests in a row without an answer"));
        }
    }
}

/// Writes requests, one after the other, until nobody has any more or nobody reads them; then closes the plug-in's
/// standard input.
pub(super) async fn write(
    table: Arc<Table>,
    mut queue: mpsc::Receiver<SecretBuffer>,
    mut to: impl AsyncWrite + Unpin,
    patience: Duration,
) {
    while let Some(line) = queue.recv().await {
        // expose: into the plug-in's standard input.
        match timeout(patience, to.write_all(line.expose())).await {
            Ok(Ok(())) => {}
            // It is ending, or will be ended: that decides why.
            Ok(Err(_)) => return,
            // Half a line may be in the pipe: nothing can be said to it any more.
            Err(_) => return table.end("it does not read its standard input"),
        }
    }
}

/// Reads answers until nothing more comes, or something that breaks the protocol.
pub(super) async fn read(table: Arc<Table>, backend: String, from: impl AsyncRead + Unpin, longest: usize) {
    let mut lines = Lines::of(from, longest);
    loop {
        let accepted = match lines.next().await {
            // expose: only whether it is blank.
            Next::Line(line) if line.expose().iter().all(u8::is_ascii_whitespace) => Ok(()),
            Next::Line(line) => match reply::parse(line) {
                Line::Reply { id, answer } => table.answer(id, Ok(answer)),
                Line::Notice => {
                    tracing::debug!(backend, "the plug-in said something that answers no request");
                    Ok(())
                }
                Line::Broken(what) => Err(what),
            },
            Next::TooLong(Some(id)) => table.answer(id, Err(Unanswered::TooLong)),
            Next::TooLong(None) => Err("a line that is too long and answers no request"),
            Next::Endless => Err("a line without end"),
            Next::End => return,
        };
        if let Err(what) = accepted {
            return table.end(&format!("it wrote {what} to its standard output"));
        }
    }
}
