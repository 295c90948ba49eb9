//! Accepts connections and serves each until it ends, breaks its deadlines, or the agent stops.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::task::AtomicWaker;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::access::Peer;
use crate::api::{Agent, Connection, answer};
use crate::pace::{Pace, PacedStream};

/// How long accepting rests when the process is out of descriptors: a level-triggered loop would spin.
const OUT_OF_DESCRIPTORS_PAUSE: Duration = Duration::from_millis(50);

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

/// One socket to accept on.
pub struct Door {
    /// The listening socket.
    pub listener: UnixListener,
    /// Which grants count on it; `None` means all.
    pub grants: Option<Arc<[String]>>,
}

/// Serves `doors` until `stop` turns true, then finishes what is in flight within the grace and returns. With
/// `exit_with_last_client` it also returns once at least one client came and none is left.
pub async fn serve(agent: Arc<Agent>, doors: Vec<Door>, mut stop: watch::Receiver<bool>, exit_with_last_client: bool) {
    let counts = Arc::new(Counts::default());
    let mut connections = JoinSet::new();
    let mut accepting = JoinSet::new();
    let (send, mut accepted) = tokio::sync::mpsc::channel::<(UnixStream, Option<Arc<[String]>>)>(64);
    for door in doors {
        let send = send.clone();
        accepting.spawn(async move {
            loop {
                match door.listener.accept().await {
                    Ok((stream, _)) => {
                        if send.send((stream, door.grants.clone())).await.is_err() {
                            return;
                        }
                    }
                    // The client was gone before we came to it.
                    Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept connections for a moment");
                        tokio::time::sleep(OUT_OF_DESCRIPTORS_PAUSE).await;
                    }
                }
            }
        });
    }
    drop(send);
    let told_to_stop = stop.clone();
    let mut had_clients = false;
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some((stream, grants)) = accepted.recv() => {
                had_clients = true;
                match Peer::of(&stream) {
                    Ok(peer) => match counts.enter(peer.uid, agent.limits.connections_per_uid) {
                        Some(counted) => {
                            let connection = serve_one(Arc::clone(&agent), stream, peer, grants, told_to_stop.clone());
                            connections.spawn(async move {
                                connection.await;
                                drop(counted);
                            });
                        }
                        // Best effort: a client that does not read its refusal is cut off all the same.
                        None => drop(stream.try_write(TOO_MANY)),
                    },
                    Err(error) => tracing::warn!(%error, "the kernel does not say who connected"),
                }
            }
            Some(_) = connections.join_next() => {
                if exit_with_last_client && had_clients && connections.is_empty() {
                    break;
                }
            }
        }
    }
    accepting.shutdown().await;
    drop(accepted);
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(agent.limits.grace, finish).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections cut off: the grace is over");
        connections.shutdown().await;
    }
}

/// Serves the one connection of an embedded agent until its client leaves.
pub async fn serve_embedded(agent: Arc<Agent>, stream: StdStream, stop: watch::Receiver<bool>) -> std::io::Result<()> {
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    let peer = Peer { embedded: true, ..Peer::of(&stream)? };
    serve_one(agent, stream, peer, None, stop).await;
    Ok(())
}

pub(crate) async fn serve_one(
    agent: Arc<Agent>,
    stream: UnixStream,
    peer: Peer,
    grants: Option<Arc<[String]>>,
    stop: watch::Receiver<bool>,
) {
    agent.connections.fetch_add(1, Ordering::Relaxed);
    let _open = Open(Arc::clone(&agent));
    let pace = Arc::new(Pace::new());
    let embedded = peer.embedded;
    let connection = Arc::new(Connection { peer, grants, pace: Arc::clone(&pace) });
    let service = service_fn(|request| answer(&agent, &connection, request).map(Ok::<_, Infallible>));
    let stream = TokioIo::new(PacedStream::new(stream, Arc::clone(&pace)));
    let head_limit = usize::try_from(agent.limits.header).unwrap_or(usize::MAX).max(8192);
    let served = http1::Builder::new()
        // A client may close its half once it has asked, as `nc -N` does: its answer is due all the same.
        .half_close(true)
        .auto_date_header(false)
        .max_buf_size(head_limit)
        .serve_connection(stream, service);
    let mut served = std::pin::pin!(served);

    // Deadlines and the stop are watched by a task of their own, so that no request pays for a timer.
    let order = Arc::new(Order::default());
    let guard = tokio::spawn(guard(pace, embedded, stop, Arc::clone(&order)));
    let mut finishing = false;
    std::future::poll_fn(|cx| {
        order.waker.register(cx.waker());
        match order.given.load(Ordering::Acquire) {
            CUT_OFF => return Poll::Ready(()),
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
    guard.abort();
}

const GO_ON: u8 = 0;
const FINISH: u8 = 1;
const CUT_OFF: u8 = 2;

/// What a connection's guard tells it to do.
struct Order {
    given: AtomicU8,
    waker: AtomicWaker,
}

impl Default for Order {
    fn default() -> Self {
        Self { given: AtomicU8::new(GO_ON), waker: AtomicWaker::new() }
    }
}

impl Order {
    fn give(&self, order: u8) {
        self.given.store(order, Ordering::Release);
        self.waker.wake();
    }
}

/// Cuts a connection off when a deadline has passed, and lets it finish when the agent stops.
async fn guard(pace: Arc<Pace>, embedded: bool, mut stop: watch::Receiver<bool>, order: Arc<Order>) {
    let exceeded = async {
        // An embedded agent's client is our own parent: it may think between two requests as long as it likes.
        if embedded {
            std::future::pending::<()>().await;
        }
        pace.exceeded().await;
        tracing::debug!("connection closed: a deadline has passed");
        order.give(CUT_OFF);
    };
    let stopped = async {
        let _ = stop.wait_for(|stop| *stop).await;
        order.give(FINISH);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = exceeded => {}
        () = stopped => {}
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
