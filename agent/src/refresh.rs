//! Change detection: one cheap query for all secrets of a back-end, again and again; and what is asked for by itself,
//! because it is in use or watched.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Semaphore, watch};

use crate::backend::BackendError;
use crate::clock::Tick;
use crate::resolver::{Resolver, random_share};
use crate::timer::Timer;

/// Secrets that are asked for at the same time because they are watched; each back-end has its own limit besides.
const MOST_CALLS_FOR_WATCHERS: usize = 32;

/// Waits between tries until a back-end has answered for the first time.
const FIRST_ANSWER_WAITS: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// Asks every back-end once, so that `ready` can be answered, and goes on asking those that are polled; asks again for
/// what is in use; keeps those who watch up to date. `interval` is shortened by a random share of at most `jitter`, so a
/// poll is never later than promised. Runs until dropped.
pub async fn run(resolver: Arc<Resolver>, timer: Arc<Timer>, interval: Duration, jitter: f64) {
    let polls = (0..resolver.sources().len()).map(|backend| poll(&resolver, &timer, backend, interval, jitter));
    let renewals = (0..resolver.sources().len()).map(|backend| renew(&resolver, &timer, backend));
    tokio::join!(join_all(polls), join_all(renewals), attend(&resolver, &timer), beat(&resolver, &timer));
}

async fn poll(resolver: &Arc<Resolver>, timer: &Timer, backend: usize, interval: Duration, jitter: f64) {
    let source = Arc::clone(&resolver.sources()[backend]);
    let mut changes = if resolver.is_polled(backend) { source.changes() } else { None };
    let mut tries = 0;
    let mut failing = false;
    let mut failures = 0;
    loop {
        if let Some(changes) = &mut changes
            && changes.has_changed().unwrap_or_default()
        {
            changes.mark_unchanged();
            source.nudge();
        }
        source.polled();
        match resolver.list(backend).await {
            Ok(listing) if failing || tries == 0 => {
                if std::mem::take(&mut failing) {
                    resolver.watches().recovered();
                }
                tracing::info!(backend = source.name, secrets = listing.len(), "back-end answers");
            }
            Ok(_) => {}
            // It knows us, and what is asked for by name needs no list.
            Err(error @ BackendError::Unlisted { .. }) => {
                failing = false;
                if tries == 0 {
                    let hint = error.hint().unwrap_or_default();
                    tracing::info!(backend = source.name, %error, hint, "back-end answers, and lists nothing");
                }
            }
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
            () = changed(&mut changes) => source.nudge(),
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

/// Asks again for what is in use as soon as its ttl is over.
pub(crate) async fn renew(resolver: &Arc<Resolver>, timer: &Timer, backend: usize) {
    loop {
        let next = resolver.renew_overdue(backend).await;
        timer.sleep(next.since(Tick::now())).await;
    }
}

/// Looks at each watched name when something happened to it, and when time alone changes what is to be said of it.
pub(crate) async fn attend(resolver: &Arc<Resolver>, timer: &Timer) {
    let permits = Arc::new(Semaphore::new(MOST_CALLS_FOR_WATCHERS));
    let watches = resolver.watches();
    // One wait at a time, unless an earlier one is needed: what is given up stays with the timer until its end.
    let mut waits_until: Option<Tick> = None;
    let mut waiting: Pin<Box<dyn Future<Output = ()> + Send + '_>> = Box::pin(std::future::pending());
    loop {
        let touched = watches.touched();
        let now = Tick::now();
        for name in watches.take_due(now) {
            resolver.look_for_watchers(&name, &permits);
        }
        if let Some(at) = watches.next_look()
            && waits_until.is_none_or(|until| at < until)
        {
            waiting = Box::pin(timer.sleep(at.since(now)));
            waits_until = Some(at);
        }
        tokio::select! {
            () = touched => {}
            () = &mut waiting => {
                waits_until = None;
                waiting = Box::pin(std::future::pending());
            }
        }
    }
}

/// Reminds watchers that the agent lives, a group each second, while there are any.
async fn beat(resolver: &Arc<Resolver>, timer: &Timer) {
    loop {
        resolver.watches().first().await;
        timer.sleep(Duration::from_secs(1)).await;
        resolver.watches().beat();
    }
}
