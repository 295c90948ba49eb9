//! Waiting that does not touch the thread that serves.
//!
//! A timer of the runtime turns every one of its waits for requests into one with a time-out, which the kernel must set
//! up and tear down: measured as a twentieth of a warm read. What waits for seconds waits here, on a thread of its own.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// The thread that waits. It ends when this is dropped; whoever still waits then is never woken.
pub struct Timer(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    waiting: HashMap<u64, oneshot::Sender<()>>,
    next: u64,
    closed: bool,
}

impl Timer {
    /// Starts the thread. Errors: none can be had.
    pub fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let waiting = Arc::clone(&shared);
        std::thread::Builder::new().name("timer".to_owned()).spawn(move || waiting.run())?;
        Ok(Self(shared))
    }

    /// Waits for `span` on the monotonic clock. Dropping the future is fine at any time.
    pub async fn sleep(&self, span: Duration) {
        if self.register(span).await.is_err() {
            // The timer is gone: so is what it was for.
            std::future::pending::<()>().await;
        }
    }

    fn register(&self, span: Duration) -> oneshot::Receiver<()> {
        let (send, receive) = oneshot::channel();
        let at = Instant::now() + span;
        let mut state = self.0.lock();
        let first = state.due.peek().map(|Reverse((at, _))| *at);
        let id = state.next;
        state.next += 1;
        state.due.push(Reverse((at, id)));
        state.waiting.insert(id, send);
        drop(state);
        if first.is_none_or(|first| at < first) {
            self.0.changed.notify_one();
        }
        receive
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.closed {
            let now = Instant::now();
            match state.due.peek() {
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Reverse((at, _))) if *at > now => {
                    let span = *at - now;
                    state = self.changed.wait_timeout(state, span).unwrap_or_else(PoisonError::into_inner).0;
                }
                Some(Reverse((_, id))) => {
                    let id = *id;
                    state.due.pop();
                    if let Some(waiter) = state.waiting.remove(&id) {
                        // Nobody may be waiting any more.
                        let _ = waiter.send(());
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_shorter_wait_ends_first_whatever_the_order_they_began_in() {
        let timer = Timer::start().expect("a thread");
        let mut ended = Vec::new();
        {
            let mut long = std::pin::pin!(timer.sleep(Duration::from_secs(60)));
            let mut short = std::pin::pin!(timer.sleep(Duration::from_millis(20)));
            tokio::select! {
                biased;
                () = &mut long => ended.push("long"),
                () = &mut short => ended.push("short"),
            }
        }
        assert_eq!(ended, ["short"]);
    }
}
