//! `GET /v1/watch`: a stream of events about secrets, never with a value.
//!
//! The head is answered here and not by hyper: a stream may be open for weeks, and what hyper keeps for a connection is
//! more than what it needs. The connection is taken over with [`Handover`]; from then on it is this task, the names, and a
//! buffer while something is being written.

use std::io::{ErrorKind, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::Request;
use hyper::body::Incoming;
use keyside_protocol::PROTOCOL_VERSION;
use keyside_protocol::code::Code;
use keyside_protocol::message::{Hello, WatchEvent};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::read::accountable;
use super::request::{decode, valid_name};
use super::respond::{ApiError, plain};
use super::{Agent, Connection, Current, Reply};
use crate::access::Viewer;
use crate::audit::{Draft, Subject};
use crate::pace::Pace;
use crate::watch::{Event, Subscription};

/// The most names of one stream.
const MOST_NAMES: usize = 1000;

/// Names that are read at the same time for a new stream; each back-end has its own limit besides.
const MOST_READS_AT_ONCE: usize = 32;

/// As many bytes are made ready before they are written; a stream needs about as much while its client is slow.
const ENOUGH: usize = 4096;

/// What a client may send on a stream before it is closed: there is nothing to say on it.
const MOST_CHATTER: usize = 4096;

/// Opens a stream over the query's names.
pub(super) async fn open(
    current: &Arc<Current>,
    agent: &Arc<Agent>,
    connection: &Connection,
    viewer: &Viewer<'_>,
    request: &Request<Incoming>,
    draft: &mut Draft,
) -> Result<Reply, ApiError> {
    draft.operation = "watch";
    let names = names(request.uri().query())?;
    let outside: Vec<_> =
        names.iter().filter(|name| !viewer.may_read(name)).map(|name| Subject::secret(name)).collect();
    if !outside.is_empty() {
        draft.secrets = outside;
        draft.outside = true;
        return Err(ApiError::outside_grant());
    }
    if agent.audit.is_on() {
        draft.secrets = names.iter().map(|name| Subject::secret(name)).collect();
    }
    accountable(agent)?;
    let limit = agent.limits.watchers_per_uid;
    let uid = connection.peer.uid;
    let judged = current.reloads();
    let subscription = agent.resolver.watches().enter(uid, limit, &names).ok_or_else(|| {
        ApiError::new(Code::TooManyRequests, format!("uid {uid} has {limit} open watch streams already"))
            .hint("watch several secrets in one stream, or raise [limits] watchers_per_uid")
            .retry()
    })?;
    // A back-end that does not answer delays the hello, and only so far that it comes within the request's own deadline;
    // what is missing there is told when it comes.
    let resolver = &agent.resolver;
    let reads = stream::iter(names.clone()).map(|name| async move { resolver.read_for_watcher(&name).await });
    let reads = reads.buffer_unordered(MOST_READS_AT_ONCE).collect::<()>();
    if tokio::time::timeout(agent.request_timeout.mul_f64(0.9), reads).await.is_err() {
        names.iter().for_each(|name| agent.resolver.watches().touch(name, false));
    }
    let mut out = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\
         Keyside-Protocol: {PROTOCOL_VERSION}\r\nConnection: close\r\n\r\n"
    )
    .into_bytes();
    let revisions = subscription.hello().into_iter().map(|(name, revision)| (name.to_string(), revision)).collect();
    push(&mut out, "hello", &Hello { instance: agent.resolver.instance().to_owned(), revisions });
    connection.handover.put(WatchStream {
        subscription,
        judged,
        current: Arc::clone(current),
        names: names.into_boxed_slice(),
        out,
        written: 0,
        more: false,
        half_closed: false,
        chatter: 0,
    });
    // Never sent: it stands for the stream.
    Ok(plain(200, "text/event-stream", Bytes::new()))
}

/// Reads the `secret` parameters: at least one, each name once, in order.
fn names(query: Option<&str>) -> Result<Vec<String>, ApiError> {
    let wrong = |what: &str| ApiError::new(Code::InvalidRequest, what).hint("as in /v1/watch?secret=NAME&secret=NAME");
    let mut names = Vec::new();
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let Some(("secret", name)) = pair.split_once('=') else { return Err(wrong("unknown query parameter")) };
        let name = decode(name)?;
        valid_name(&name)?;
        names.push(name.into_owned());
    }
    names.sort_unstable();
    names.dedup();
    match names.len() {
        0 => Err(wrong("no secret is named")),
        1..=MOST_NAMES => Ok(names),
        _ => Err(ApiError::new(Code::InvalidRequest, format!("more than {MOST_NAMES} secrets in one stream"))
            .hint("open several streams")),
    }
}

fn push(out: &mut Vec<u8>, event: &str, data: &impl serde::Serialize) {
    let data = serde_json::to_string(data).expect("names, numbers and versions are always JSON");
    write!(out, "event: {event}\ndata: {data}\n\n").expect("memory takes it");
}

fn push_event(out: &mut Vec<u8>, event: Event) {
    let (word, name, version, revision) = match event {
        Event::Change { name, version, revision } => ("change", name, version, revision),
        Event::Delete { name, version, revision } => ("delete", name, version, revision),
        Event::Stale { name, version, revision } => ("stale", name, version, revision),
        Event::Fresh { name, version, revision } => ("fresh", name, version, revision),
    };
    push(out, word, &WatchEvent { secret: name.to_string(), version, revision });
}

/// Takes a connection from HTTP: a request puts the stream here that is to go on in its place.
#[derive(Default)]
pub struct Handover {
    stream: Mutex<Option<Box<WatchStream>>>,
    given: AtomicBool,
}

impl Handover {
    fn slot(&self) -> MutexGuard<'_, Option<Box<WatchStream>>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, stream: WatchStream) {
        *self.slot() = Some(Box::new(stream));
    }

    /// Gives the stream that a request has put here over, or drops it when its request came to nothing; tells whether
    /// there is one.
    pub(super) fn settle(&self, good: bool) -> bool {
        let mut slot = self.slot();
        if !good {
            *slot = None;
        }
        self.given.store(slot.is_some(), Ordering::Release);
        slot.is_some()
    }

    /// Tells whether the connection is to be taken over.
    pub fn is_given(&self) -> bool {
        self.given.load(Ordering::Acquire)
    }

    /// Returns the stream that goes on.
    pub fn take(&self) -> Option<Box<WatchStream>> {
        self.slot().take()
    }
}

/// The rest of a connection that watches.
pub struct WatchStream {
    subscription: Subscription,
    current: Arc<Current>,
    /// The reload after which its peer was last found to be allowed.
    judged: usize,
    names: Box<[String]>,
    out: Vec<u8>,
    written: usize,
    /// There was more to tell than was made ready.
    more: bool,
    /// The client will say nothing more, and may still listen.
    half_closed: bool,
    chatter: usize,
}

/// How far a write came.
enum Wrote {
    Everything,
    Waits,
    Failed,
}

impl WatchStream {
    /// Carries on until there is nothing to do but wait; ready when the stream is at its end.
    pub fn poll(&mut self, cx: &mut Context<'_>, socket: &UnixStream, connection: &Connection) -> Poll<()> {
        self.subscription.register(cx.waker());
        if !self.is_allowed(connection) {
            tracing::debug!(uid = connection.peer.uid, "stream closed: its peer may no longer watch");
            return Poll::Ready(());
        }
        loop {
            if self.out.is_empty() && (self.more | self.subscription.is_rung()) {
                self.fill();
            }
            if self.out.is_empty() {
                break;
            }
            match self.write(cx, socket, &connection.pace) {
                Wrote::Everything => self.out = Vec::new(),
                Wrote::Waits => break,
                Wrote::Failed => return Poll::Ready(()),
            }
        }
        self.listen(cx, socket)
    }

    /// Tells whether the peer may still watch every name; judged again after each reload.
    fn is_allowed(&mut self, connection: &Connection) -> bool {
        let reloads = self.current.reloads();
        if reloads == self.judged {
            return true;
        }
        self.judged = reloads;
        let agent = self.current.agent();
        let viewer = agent.access.viewer(&connection.peer, &connection.listener);
        viewer.is_some_and(|viewer| self.names.iter().all(|name| viewer.may_read(name)))
    }

    /// Makes ready what there is to tell, or enough of it.
    fn fill(&mut self) {
        if self.subscription.takes_beat() {
            self.out.extend_from_slice(b": the agent lives\n\n");
        }
        self.more = true;
        while self.out.len() < ENOUGH {
            match self.subscription.next_event() {
                Some(event) => push_event(&mut self.out, event),
                None => {
                    self.more = false;
                    break;
                }
            }
        }
    }

    /// Writes past the runtime's idea of whether the socket takes anything: [`listen`](Self::listen) needs that for
    /// itself.
    fn write(&mut self, cx: &mut Context<'_>, socket: &UnixStream, pace: &Pace) -> Wrote {
        let mut armed = false;
        while self.written < self.out.len() {
            let rest = &self.out[self.written..];
            match rustix::net::send(socket, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(sent) => {
                    self.written += sent;
                    pace.write_moved();
                }
                Err(Errno::INTR) => {}
                // Armed first and tried again: room that appears in between is told of.
                Err(Errno::AGAIN) if !armed => {
                    forget_room(socket);
                    armed = true;
                }
                Err(Errno::AGAIN) => {
                    pace.write_waits();
                    if socket.poll_write_ready(cx).is_pending() {
                        return Wrote::Waits;
                    }
                    armed = false;
                }
                Err(_) => return Wrote::Failed,
            }
        }
        self.written = 0;
        pace.write_moved();
        Wrote::Everything
    }

    /// Waits for the client to leave. What it sends is read and dropped.
    fn listen(&mut self, cx: &mut Context<'_>, socket: &UnixStream) -> Poll<()> {
        loop {
            if self.half_closed {
                // The end of what it says is told again and again; that it is gone comes as a new event.
                forget_room(socket);
                if has_left(socket) || ready!(socket.poll_write_ready(cx)).is_err() {
                    return Poll::Ready(());
                }
                continue;
            }
            if ready!(socket.poll_read_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            match socket.try_read(&mut [0; 512]) {
                Ok(0) if has_left(socket) => return Poll::Ready(()),
                Ok(0) => self.half_closed = true,
                Ok(count) => {
                    self.chatter += count;
                    if self.chatter > MOST_CHATTER {
                        return Poll::Ready(());
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => return Poll::Ready(()),
            }
        }
    }
}

/// Has the runtime wait for the next event that says that the socket takes something, or is closed.
fn forget_room(socket: &UnixStream) {
    let _ = socket.try_io(Interest::WRITABLE, || Err::<(), _>(ErrorKind::WouldBlock.into()));
}

/// Tells whether the other end is closed, and not only for what it would say.
fn has_left(socket: &UnixStream) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut fds, Some(&now)) {
        Ok(_) => fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR),
        Err(_) => false,
    }
}
