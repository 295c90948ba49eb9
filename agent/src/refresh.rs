//! Change detection: one cheap query for all secrets of a back-end, again and again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::resolver::{Resolver, random_share};
use crate::timer::Timer;

/// Waits between tries until a back-end has answered for the first time.
const FIRST_ANSWER_WAITS: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// Asks every back-end once, so that `ready` can be answered, and goes on asking those that are polled. `interval` is
/// shortened by a random share of at most `jitter`, so a poll is never later than promised. Runs until dropped.
pub async fn run(resolver: Arc<Resolver>, timer: Arc<Timer>, interval: Duration, jitter: f64) {
    let polls = (0..resolver.sources().len()).map(|backend| poll(&resolver, &timer, backend, interval, jitter));
    futures_util::future::join_all(polls).await;
}

async fn poll(resolver: &Arc<Resolver>, timer: &Timer, backend: usize, interval: Duration, jitter: f64) {
    let source = Arc::clone(&resolver.sources()[backend]);
    let mut changes = if resolver.is_polled(backend) { source.changes() } else { None };
    let mut tries = 0;
    let mut failing = false;
    let mut failures = 0;
    loop {
        if let Some(changes) = &mut changes {
            changes.mark_unchanged();
        }
        source.polled();
        match resolver.list(backend).await {
            Ok(listing) if failing || tries == 0 => {
                failing = false;
                tracing::info!(backend = source.name, secrets = listing.len(), "back-end answers");
            }
            Ok(_) => {}
            Err(error) if !failing => {
                failing = true;
                let hint = error.hint().unwrap_or_default();
                tracing::warn!(backend = source.name, %error, hint, "back-end does not answer");
            }
            Err(error) => tracing::debug!(backend = source.name, %error, "back-end does not answer"),
        }
        failures = if failing { failures + 1 } else { 0 };
        let answered = source.has_answered();
        if answered && !resolver.is_polled(backend) {
            return;
        }
        let wait = if failing && answered && changes.is_some() {
            // What was noticed must not wait for the interval because one look at it failed.
            FIRST_ANSWER_WAITS[failures.min(FIRST_ANSWER_WAITS.len()) - 1].min(interval)
        } else if answered {
            interval.mul_f64(1.0 - jitter.clamp(0.0, 1.0) * random_share())
        } else {
            FIRST_ANSWER_WAITS[tries.min(FIRST_ANSWER_WAITS.len() - 1)].min(interval)
        };
        tries += 1;
        tokio::select! {
            () = timer.sleep(wait) => {}
            () = changed(&mut changes) => {}
        }
    }
}

/// Waits for the back-end's own word that something has changed; forever where it gives none.
async fn changed(changes: &mut Option<watch::Receiver<u64>>) {
    if let Some(receiver) = changes
        && receiver.changed().await.is_ok()
    {
        return;
    }
    *changes = None;
    std::future::pending::<()>().await;
}
