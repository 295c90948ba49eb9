//! Accepts connections and serves each until it ends, breaks its deadlines, or the agent stops.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::task::AtomicWaker;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::access::Peer;
use crate::api::{Agent, Connection, answer};
use crate::listen::Listener;
use crate::pace::{Pace, PacedStream};
use crate::timer::Timer;

/// How long accepting rests when the process is out of descriptors: a level-triggered loop would spin.
const OUT_OF_DESCRIPTORS_PAUSE: Duration = Duration::from_millis(50);

/// How often deadlines are looked at; the longest that one is overstepped.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// The whole reply to a connection beyond the limit of its uid.
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/problem+json\r\n\
Cache-Control: no-store\r\nKeyside-Protocol: 1\r\nConnection: close\r\nContent-Length: 160\r\n\r\n\
{\"type\":\"urn:keyside:problem:too_many_requests\",\"title\":\"too many requests\",\"status\":429,\
\"code\":\"too_many_requests\",\"detail\":\"too many connections of this uid\"}";

/// The connections of each uid.
#[derive(Default)]
struct Counts(Mutex<HashMap<u32, usize>>);

impl Counts {
    /// Counts one more, unless `uid` has `limit` already.
    fn enter(self: &Arc<Self>, uid: u32, limit: usize) -> Option<Counted> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(uid).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
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
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}

/// How often a socket is looked for at its path.
const PRESENCE_INTERVAL: Duration = Duration::from_secs(2);

/// Serves `listeners` until `stop` turns true, then finishes what is in flight within the grace and returns. With
/// `exit_with_last_client` it also returns once at least one client came and none is left.
pub async fn serve(
    agent: Arc<Agent>,
    listeners: Vec<Listener>,
    timer: Arc<Timer>,
    mut stop: watch::Receiver<bool>,
    exit_with_last_client: bool,
) {
    let guards = Arc::new(Guards::default());
    let sweeping = tokio::spawn({
        let (guards, timer) = (Arc::clone(&guards), Arc::clone(&timer));
        async move { guards.sweep(&timer).await }
    });
    let counts = Arc::new(Counts::default());
    let mut accepting = JoinSet::new();
    for listener in listeners {
        let hall = Hall { agent: Arc::clone(&agent), counts: Arc::clone(&counts), guards: Arc::clone(&guards) };
        accepting.spawn(keep_accepting(hall, listener, Arc::clone(&timer)));
    }
    let last_client_left = async {
        if !exit_with_last_client {
            std::future::pending::<()>().await;
        }
        guards.opened(|open| open.next > 0).await;
        guards.emptied().await;
    };
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        () = last_client_left => {}
    }
    // The sockets go with it, so that nobody connects to an agent that no longer answers.
    accepting.shutdown().await;
    guards.give_all(FINISH);
    if tokio::time::timeout(agent.limits.grace, guards.emptied()).await.is_err() {
        tracing::warn!("connections cut off: the grace is over");
        guards.give_all(CUT_OFF);
        guards.emptied().await;
    }
    sweeping.abort();
}

/// What connections on every socket share.
struct Hall {
    agent: Arc<Agent>,
    counts: Arc<Counts>,
    guards: Arc<Guards>,
}

/// Accepts on one socket until dropped, and makes it again when it vanishes from its path.
async fn keep_accepting(hall: Hall, mut listener: Listener, timer: Arc<Timer>) {
    let grants = listener.settings.grants.clone().map(Arc::from);
    loop {
        let path = listener.settings.path.display().to_string();
        match listener.socket().and_then(UnixListener::from_std) {
            Ok(socket) => {
                tokio::select! {
                    biased;
                    () = vanished(&listener, &timer) => {}
                    () = accept(&hall, &socket, &grants) => {}
                }
            }
            Err(error) => {
                tracing::error!(socket = path, %error, "cannot accept connections");
                timer.sleep(PRESENCE_INTERVAL).await;
            }
        }
        if listener.is_gone() {
            match listener.restore() {
                Ok(()) => tracing::warn!(socket = path, "the socket had vanished and was made again"),
                Err(error) => {
                    tracing::error!(socket = path, %error, hint = error.hint(), "the socket has vanished");
                    timer.sleep(PRESENCE_INTERVAL).await;
                }
            }
        }
    }
}

async fn vanished(listener: &Listener, timer: &Timer) {
    while !listener.is_gone() {
        timer.sleep(PRESENCE_INTERVAL).await;
    }
}

async fn accept(hall: &Hall, socket: &UnixListener, grants: &Option<Arc<[String]>>) {
    loop {
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            // The client was gone before we came to it.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections for a moment");
                tokio::time::sleep(OUT_OF_DESCRIPTORS_PAUSE).await;
                continue;
            }
        };
        let peer = match Peer::of(&stream, hall.agent.access.asks_for_groups()) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%error, "the kernel does not say who connected");
                continue;
            }
        };
        let Some(counted) = hall.counts.enter(peer.uid, hall.agent.limits.connections_per_uid) else {
            // Best effort: a client that does not read its refusal is cut off all the same.
            drop(stream.try_write(TOO_MANY));
            continue;
        };
        let served = serve_one(Arc::clone(&hall.agent), stream, peer, grants.clone(), Arc::clone(&hall.guards));
        tokio::spawn(async move {
            served.await;
            drop(counted);
        });
    }
}

/// Serves the one connection of an embedded agent until its client leaves.
pub async fn serve_embedded(
    agent: Arc<Agent>,
    stream: StdStream,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    let peer = Peer { embedded: true, ..Peer::of(&stream, false)? };
    let guards = Arc::new(Guards::default());
    let mut served = std::pin::pin!(serve_one(agent, stream, peer, None, Arc::clone(&guards)));
    tokio::select! {
        () = &mut served => return Ok(()),
        _ = stop.wait_for(|stop| *stop) => guards.give_all(FINISH),
    }
    served.await;
    Ok(())
}

pub(crate) async fn serve_one(
    agent: Arc<Agent>,
    stream: UnixStream,
    peer: Peer,
    grants: Option<Arc<[String]>>,
    guards: Arc<Guards>,
) {
    agent.connections.fetch_add(1, Ordering::Relaxed);
    let _open = Open(Arc::clone(&agent));
    let embedded = peer.embedded;
    let pace = Arc::new(Pace::new());
    let connection = Arc::new(Connection { peer, grants, pace: Arc::clone(&pace) });
    let service = service_fn(|request| answer(&agent, &connection, request).map(Ok::<_, Infallible>));
    let stream = TokioIo::new(PacedStream::new(stream, Arc::clone(&pace)));
    let head_limit = usize::try_from(agent.limits.header).unwrap_or(usize::MAX).max(8192);
    let served = http1::Builder::new()
        // A client may close its half once it has asked, as `nc -N` does: its answer is due all the same.
        .half_close(true)
        // One small buffer costs the kernel less than two: measured as a thirtieth of a warm read. The value is copied
        // into the connection's own buffer for it.
        .writev(false)
        .auto_date_header(false)
        .max_buf_size(head_limit)
        .serve_connection(stream, service);
    let mut served = std::pin::pin!(served);

    // An embedded agent's client is our own parent: it may think between two requests as long as it likes.
    let watched = guards.watch(pace, !embedded);
    let order = &watched.guarded.order;
    let mut finishing = false;
    std::future::poll_fn(|cx| {
        order.waker.register(cx.waker());
        match order.given.load(Ordering::Acquire) {
            CUT_OFF => {
                tracing::debug!("connection closed: a deadline has passed");
                return Poll::Ready(());
            }
            FINISH if !finishing => {
                finishing = true;
                served.as_mut().graceful_shutdown();
            }
            _ => {}
        }
        served.as_mut().poll(cx).map(|result| {
            if let Err(error) = result {
                tracing::debug!(%error, "connection ended");
            }
        })
    })
    .await;
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
            let open = self.lock();
            let late = open.guarded.values().filter(|guarded| guarded.has_deadlines && guarded.pace.is_exceeded());
            late.for_each(|guarded| guarded.order.give(CUT_OFF));
        }
    }
}

/// Keeps the count of open connections for `status`.
struct Open(Arc<Agent>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
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
        let first = counts.enter(7, 1).expect("room");
        assert!(counts.enter(7, 1).is_none());
        assert!(counts.enter(8, 1).is_some(), "another uid is not touched");
        drop(first);
        assert!(counts.enter(7, 1).is_some());
    }
}
