//! Accepts connections and serves each until it ends, breaks its deadlines, or the agent stops.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::task::AtomicWaker;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use keyside_config::settings::ListenerSettings;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;

use crate::access::Peer;
use crate::api::{Connection, Current, Handover, WarmReads, answer};
use crate::capacity::Capacity;
use crate::listen::{ListenError, Listener};
use crate::metrics::{Metrics, Refusal};
use crate::pace::{Pace, PacedStream};
use crate::timer::Timer;

/// How long accepting rests when the process is out of descriptors: a level-triggered loop would spin.
const OUT_OF_DESCRIPTORS_PAUSE: Duration = Duration::from_millis(50);

/// The smallest buffer that the HTTP library can work with.
const SMALLEST_BUFFER: usize = 8192;

/// How often deadlines are looked at; the longest that one is overstepped.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// So many connections hold megabytes; when most of them have left, what they held is given back to the system.
const CROWD: usize = 256;

/// The whole reply to a connection beyond the limit of its uid.
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/problem+json\r\n\
Cache-Control: no-store\r\nKeyside-Protocol: 1\r\nConnection: close\r\nContent-Length: 160\r\n\r\n\
{\"type\":\"urn:keyside:problem:too_many_requests\",\"title\":\"too many requests\",\"status\":429,\
\"code\":\"too_many_requests\",\"detail\":\"too many connections of this uid\"}";

/// The connections of each uid, and of all.
#[derive(Default)]
struct Counts(Mutex<Counters>);

#[derive(Default)]
struct Counters {
    by_uid: HashMap<u32, usize>,
    all: usize,
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more, unless `uid` has `per_uid` already, or there are `total` in all.
    fn enter(self: &Arc<Self>, uid: u32, per_uid: usize, total: usize) -> Option<Counted> {
        let mut counters = self.lock();
        if counters.all >= total {
            return None;
        }
        let count = counters.by_uid.entry(uid).or_default();
        if *count >= per_uid {
            return None;
        }
        *count += 1;
        counters.all += 1;
        Some(Counted { counts: Arc::clone(self), uid })
    }
}

/// One counted connection.
struct Counted {
    counts: Arc<Counts>,
    uid: u32,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counters = self.counts.lock();
        counters.all -= 1;
        if let Some(count) = counters.by_uid.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                counters.by_uid.remove(&self.uid);
            }
        }
    }
}

/// How often a socket is looked for at its path.
const PRESENCE_INTERVAL: Duration = Duration::from_secs(2);

/// What connections on every socket share, and the sockets themselves, which a reload adds to and takes from.
pub struct Hall {
    current: Arc<Current>,
    timer: Arc<Timer>,
    capacity: Capacity,
    counts: Arc<Counts>,
    /// Places beyond the limits, for probes of life.
    reserve: Arc<Semaphore>,
    guards: Arc<Guards>,
    sockets: Mutex<HashMap<PathBuf, Socket>>,
}

/// One socket that is listened on.
struct Socket {
    listener: Arc<Mutex<Listener>>,
    accepting: JoinHandle<()>,
}

impl Hall {
    /// A hall without sockets.
    pub fn new(current: Arc<Current>, timer: Arc<Timer>, capacity: Capacity) -> Arc<Self> {
        Arc::new(Self {
            current,
            timer,
            capacity,
            counts: Arc::default(),
            reserve: Arc::new(Semaphore::new(capacity.reserve)),
            guards: Arc::default(),
            sockets: Mutex::default(),
        })
    }

    fn sockets(&self) -> MutexGuard<'_, HashMap<PathBuf, Socket>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to accept on one more socket.
    pub fn open(self: &Arc<Self>, listener: Listener) {
        let settings = listener.settings.clone();
        tracing::info!(listener = settings.name, socket = %settings.path.display(), "listening");
        let listener = Arc::new(Mutex::new(listener));
        let accepting = tokio::spawn(keep_accepting(Arc::clone(self), Arc::clone(&listener)));
        self.sockets().insert(settings.path, Socket { listener, accepting });
    }

    /// Stops accepting on the socket at `path` and removes it; open connections stay.
    pub async fn close(&self, path: &Path) {
        let Some(socket) = self.sockets().remove(path) else { return };
        socket.accepting.abort();
        // Only when the task is gone is its share of the listener gone.
        let _ = socket.accepting.await;
    }

    /// Returns the settings of every open socket, in no order.
    pub fn open_settings(&self) -> Vec<ListenerSettings> {
        self.sockets().values().map(|socket| locked(&socket.listener).settings.clone()).collect()
    }

    /// Gives the socket at the path of `settings` their name, mode and group.
    ///
    /// Errors: the kernel refuses; all is then as it was.
    pub fn adjust(&self, settings: &ListenerSettings) -> Result<(), ListenError> {
        match self.sockets().get(&settings.path) {
            Some(socket) => locked(&socket.listener).adjust(settings),
            None => Ok(()),
        }
    }

    /// Serves until `stop` turns true, then finishes what is in flight within the grace and returns. With
    /// `exit_with_last_client` it also returns once at least one client came and none is left.
    pub async fn serve(self: Arc<Self>, mut stop: watch::Receiver<bool>, exit_with_last_client: bool) {
        let sweeping = tokio::spawn({
            let hall = Arc::clone(&self);
            async move { hall.guards.sweep(&hall.timer).await }
        });
        let last_client_left = async {
            if !exit_with_last_client {
                std::future::pending::<()>().await;
            }
            self.guards.opened(|open| open.next > 0).await;
            self.guards.emptied().await;
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = last_client_left => {}
        }
        // The sockets go first, so that nobody connects to an agent that no longer answers.
        let paths: Vec<PathBuf> = self.sockets().keys().cloned().collect();
        for path in paths {
            self.close(&path).await;
        }
        self.guards.give_all(FINISH);
        if tokio::time::timeout(self.current.agent().limits.grace, self.guards.emptied()).await.is_err() {
            tracing::warn!("connections cut off: the grace is over");
            self.guards.give_all(CUT_OFF);
            self.guards.emptied().await;
        }
        sweeping.abort();
    }
}

/// Every change to a listener is complete before anything in it can panic.
fn locked(listener: &Mutex<Listener>) -> MutexGuard<'_, Listener> {
    listener.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Accepts on one socket until dropped, and makes it again when its path no longer leads to it. While that cannot be
/// done it goes on accepting: whoever still comes to the old socket, by a bind mount for example, is served.
async fn keep_accepting(hall: Arc<Hall>, listener: Arc<Mutex<Listener>>) {
    let path = locked(&listener).settings.path.display().to_string();
    loop {
        let socket = locked(&listener).socket();
        match socket.and_then(UnixListener::from_std) {
            Ok(socket) => {
                tokio::select! {
                    biased;
                    () = made_again(&path, &listener, &hall.timer) => {}
                    () = accept(&hall, &socket, &listener) => {}
                }
            }
            Err(error) => {
                tracing::error!(socket = path, %error, "cannot accept connections");
                hall.timer.sleep(PRESENCE_INTERVAL).await;
            }
        }
    }
}

/// Looks after the socket at `path`; returns once it had to be made again.
async fn made_again(path: &str, listener: &Mutex<Listener>, timer: &Timer) {
    let mut failures: u32 = 0;
    loop {
        let restored = {
            let mut listener = locked(listener);
            listener.is_gone().then(|| listener.restore())
        };
        match restored {
            None => failures = 0,
            Some(Ok(())) => {
                tracing::warn!(socket = path, "the socket had vanished or was replaced, and was made again");
                return;
            }
            Some(Err(error)) => {
                // At once, and then about once a minute.
                if failures.is_multiple_of(30) {
                    let hint = error.hint();
                    tracing::error!(socket = path, %error, hint, "nobody can connect: the path leads elsewhere");
                }
                failures += 1;
            }
        }
        timer.sleep(PRESENCE_INTERVAL).await;
    }
}

async fn accept(hall: &Hall, socket: &UnixListener, listener: &Mutex<Listener>) {
    let mut is_short = false;
    loop {
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            // The client was gone before we came to it.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => continue,
            Err(error) => {
                if !is_short {
                    tracing::warn!(%error, "cannot accept connections for now; those that come wait");
                    is_short = true;
                }
                tokio::time::sleep(OUT_OF_DESCRIPTORS_PAUSE).await;
                continue;
            }
        };
        if is_short {
            tracing::info!("connections are accepted again");
            is_short = false;
        }
        let agent = hall.current.agent();
        // A reload may have given the socket another name.
        let name = Arc::from(&*locked(listener).settings.name);
        let peer = match Peer::of(&stream) {
            Ok(peer) => peer.with_program(&stream, agent.access.asks_for()),
            Err(error) => {
                tracing::warn!(%error, "the kernel does not say who connected");
                continue;
            }
        };
        let per_uid = agent.limits.connections_per_uid.min(hall.capacity.per_uid);
        let place = match hall.counts.enter(peer.uid, per_uid, hall.capacity.total) {
            Some(counted) => Ok(counted),
            None => match Arc::clone(&hall.reserve).try_acquire_owned() {
                Ok(reserved) => {
                    agent.metrics.refused(Refusal::ProbesOnly);
                    Err(reserved)
                }
                Err(_) => {
                    agent.metrics.refused(Refusal::Limit);
                    // Best effort: a client that does not read its refusal is cut off all the same.
                    drop(stream.try_write(TOO_MANY));
                    continue;
                }
            },
        };
        let pace = if place.is_ok() { Pace::new() } else { Pace::hurried() };
        let connection = Connection {
            peer,
            listener: name,
            pace: Arc::new(pace),
            probes_only: place.is_err(),
            handover: Handover::default(),
        };
        let served = serve_one(Arc::clone(&hall.current), stream, connection, Arc::clone(&hall.guards));
        tokio::spawn(async move {
            served.await;
            drop(place);
        });
    }
}

/// Serves the one connection of an embedded agent until its client leaves.
pub async fn serve_embedded(
    current: Arc<Current>,
    stream: StdStream,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    let peer = Peer { embedded: true, ..Peer::of(&stream)? };
    let guards = Arc::new(Guards::default());
    let connection = Connection {
        peer,
        listener: Arc::from("embedded"),
        pace: Arc::new(Pace::new()),
        probes_only: false,
        handover: Handover::default(),
    };
    let mut served = std::pin::pin!(serve_one(current, stream, connection, Arc::clone(&guards)));
    tokio::select! {
        () = &mut served => return Ok(()),
        _ = stop.wait_for(|stop| *stop) => guards.give_all(FINISH),
    }
    served.await;
    Ok(())
}

pub(crate) async fn serve_one(current: Arc<Current>, stream: UnixStream, connection: Connection, guards: Arc<Guards>) {
    let agent = current.agent();
    let _open = Open::count(&agent.connections);
    agent.metrics.opened();
    let metrics = Arc::clone(&agent.metrics);
    let header = agent.limits.header;
    drop(agent);
    let connection = Arc::new(connection);
    // An embedded agent's client is our own parent: it may think between two requests as long as it likes.
    let watched = guards.watch(Arc::clone(&connection.pace), !connection.peer.embedded);
    let order = &watched.guarded.order;
    // Apart from this task: a stream of events that goes on for weeks shall not keep HTTP's room.
    let socket = Box::pin(serve_requests(current, stream, &connection, header, order, &metrics)).await;
    if let (Some(socket), Some(mut stream)) = (socket, connection.handover.take()) {
        watched.guards.handed_over.fetch_add(1, Ordering::Relaxed);
        std::future::poll_fn(|cx| {
            order.waker.register(cx.waker());
            match order.given.load(Ordering::Acquire) {
                CUT_OFF => {
                    tracing::debug!("stream closed: its client takes nothing");
                    metrics.cut_off();
                    Poll::Ready(())
                }
                FINISH => Poll::Ready(()),
                _ => stream.poll(cx, &socket, &connection),
            }
        })
        .await;
    }
}

/// Answers requests until the connection is closed; returns the socket when a stream of events takes it over.
async fn serve_requests(
    current: Arc<Current>,
    stream: UnixStream,
    connection: &Arc<Connection>,
    header: u64,
    order: &Order,
    metrics: &Metrics,
) -> Option<UnixStream> {
    let pace = &connection.pace;
    let warm = WarmReads::new(Arc::clone(&current), Arc::clone(connection));
    // On the heap while there is a request, so that idle connections stay small.
    let service = service_fn(|request| {
        Box::pin(answer(Arc::clone(&current), Arc::clone(connection), request)).map(Ok::<_, Infallible>)
    });
    let stream = TokioIo::new(PacedStream::new(stream, Arc::clone(pace), warm));
    let head_limit = usize::try_from(header).unwrap_or(usize::MAX);
    let mut served = http1::Builder::new()
        // A client may close its half once it has asked, as `nc -N` does: its answer is due all the same.
        .half_close(true)
        // Head and body are put together by `PacedStream`: hyper would keep a copy of the value.
        .writev(true)
        .auto_date_header(false)
        .max_header_size(head_limit)
        // The library takes no less; a part of a body may stand behind a head in it.
        .max_buf_size(head_limit.max(SMALLEST_BUFFER))
        .serve_connection(stream, service);
    let mut finishing = false;
    let end = std::future::poll_fn(|cx| {
        order.waker.register(cx.waker());
        match order.given.load(Ordering::Acquire) {
            CUT_OFF => {
                tracing::debug!("connection closed: a deadline has passed");
                metrics.cut_off();
                return Poll::Ready(End::Closed);
            }
            FINISH if !finishing => {
                finishing = true;
                Pin::new(&mut served).graceful_shutdown();
            }
            _ => {}
        }
        match Pin::new(&mut served).poll(cx) {
            Poll::Ready(result) => {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection ended");
                }
                Poll::Ready(End::Closed)
            }
            // The replies before it must have been taken first.
            Poll::Pending if connection.handover.is_given() && !pace.is_write_waiting() => Poll::Ready(End::HandedOver),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    match end {
        End::Closed => None,
        // What the client sent behind its request is dropped with the buffer it was read into.
        End::HandedOver => Some(served.into_parts().io.into_inner().into_inner()),
    }
}

/// New streams whose connections have freed about a megabyte: from there on giving it back is worth its while.
const MANY_STREAMS: usize = 100;

/// How a connection's requests come to their end.
enum End {
    /// It is closed.
    Closed,
    /// What is left of it is a stream of events.
    HandedOver,
}

// Orders to a connection; 0 is none.
const FINISH: u8 = 1;
const CUT_OFF: u8 = 2;

/// What a connection is told to do.
struct Order {
    given: AtomicU8,
    waker: AtomicWaker,
}

impl Order {
    fn give(&self, order: u8) {
        self.given.store(order, Ordering::Release);
        self.waker.wake();
    }
}

struct Guarded {
    order: Order,
    pace: Arc<Pace>,
    has_deadlines: bool,
}

/// Every open connection: their deadlines are looked at together, so that no request pays for a
/// timer, and the stop reaches all of them at once.
#[derive(Default)]
pub(crate) struct Guards {
    open: Mutex<OpenConnections>,
    opened: Notify,
    emptied: Notify,
    /// Streams that took a connection over since freed memory was last given back.
    handed_over: AtomicUsize,
}

#[derive(Default)]
struct OpenConnections {
    next: u64,
    guarded: HashMap<u64, Arc<Guarded>>,
    /// The order that connections begin with.
    first_order: u8,
}

/// One watched connection; no longer watched once dropped.
struct Watched {
    guards: Arc<Guards>,
    id: u64,
    guarded: Arc<Guarded>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut open = self.guards.lock();
        open.guarded.remove(&self.id);
        if open.guarded.is_empty() {
            self.guards.emptied.notify_waiters();
        }
    }
}

impl Guards {
    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(self: Arc<Self>, pace: Arc<Pace>, has_deadlines: bool) -> Watched {
        let mut open = self.lock();
        let given = AtomicU8::new(open.first_order);
        let guarded = Arc::new(Guarded { order: Order { given, waker: AtomicWaker::new() }, pace, has_deadlines });
        let id = open.next;
        open.next += 1;
        open.guarded.insert(id, Arc::clone(&guarded));
        drop(open);
        self.opened.notify_waiters();
        Watched { guards: self, id, guarded }
    }

    /// Gives an order to every connection, those that come later too.
    fn give_all(&self, order: u8) {
        let mut open = self.lock();
        open.first_order = order;
        open.guarded.values().for_each(|guarded| guarded.order.give(order));
    }

    /// Waits until `enough` have been opened.
    async fn opened(&self, enough: fn(&OpenConnections) -> bool) {
        let mut opened = std::pin::pin!(self.opened.notified());
        loop {
            // Before looking, so that nothing that happens in between is missed.
            opened.as_mut().enable();
            if enough(&self.lock()) {
                return;
            }
            opened.as_mut().await;
            opened.set(self.opened.notified());
        }
    }

    /// Waits until no connection is open.
    async fn emptied(&self) {
        let mut emptied = std::pin::pin!(self.emptied.notified());
        loop {
            emptied.as_mut().enable();
            if self.lock().guarded.is_empty() {
                return;
            }
            emptied.as_mut().await;
            emptied.set(self.emptied.notified());
        }
    }

    /// Cuts off whatever is past a deadline, again and again while connections are open. Runs until dropped.
    async fn sweep(&self, timer: &Timer) {
        loop {
            self.opened(|open| !open.guarded.is_empty()).await;
            timer.sleep(SWEEP_INTERVAL).await;
            let mut open = self.lock();
            let late = open.guarded.values().filter(|guarded| guarded.has_deadlines && guarded.pace.is_exceeded());
            late.for_each(|guarded| guarded.order.give(CUT_OFF));
            // The table's room tells how many there were, however short they stayed.
            let room = open.guarded.capacity();
            let left = room >= CROWD && open.guarded.len() < room / 4;
            if left {
                open.guarded.shrink_to_fit();
            }
            drop(open);
            // A stream needs little of what its connection needed before it.
            let handed_over = self.handed_over.load(Ordering::Relaxed) >= MANY_STREAMS;
            if left || handed_over {
                self.handed_over.store(0, Ordering::Relaxed);
                crate::sys::give_back_freed_memory();
            }
        }
    }
}

/// Keeps the count of open connections for `status`.
struct Open(Arc<AtomicU64>);

impl Open {
    fn count(connections: &Arc<AtomicU64>) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connections))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_of_a_connection_is_one_complete_reply() {
        let text = std::str::from_utf8(TOO_MANY).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head} / {}", body.len());
        let problem: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(problem["code"], "too_many_requests");
    }

    #[test]
    fn a_uid_has_at_most_its_limit_and_gets_room_back() {
        let counts = Arc::new(Counts::default());
        let first = counts.enter(7, 1, 2).expect("room");
        assert!(counts.enter(7, 1, 2).is_none());
        let second = counts.enter(8, 1, 2).expect("another uid is not touched");
        assert!(counts.enter(9, 1, 2).is_none(), "that is all there is");
        drop(first);
        assert!(counts.enter(7, 1, 2).is_some());
        drop(second);
        assert!(counts.lock().by_uid.is_empty() && counts.lock().all == 0);
    }
}
