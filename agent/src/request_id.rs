//! The id of the request that is being answered, carried along to the back-ends that take one: the audit log's line and
//! the back-end's own log then tell of the same request.
//!
//! A call that several requests wait for has the id of the one that began it, and a call that nobody asked for (a poll,
//! a refresh behind a stale value's ttl) has none.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

tokio::task_local! {
    static CURRENT: Option<RequestId>;
}

/// One request's id: unlike any other of this agent, and of other runs of it. Opaque; ASCII without blanks, shown by
/// `Display`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId {
    run: Arc<str>,
    number: u64,
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.run, self.number)
    }
}

/// Gives out ids.
#[derive(Debug)]
pub struct RequestIds {
    run: Arc<str>,
    given: AtomicU64,
}

impl RequestIds {
    /// `run` tells the ids of this run from those of another.
    pub fn new(run: &str) -> Self {
        Self { run: run.into(), given: AtomicU64::new(0) }
    }

    /// Returns an id that nobody has yet.
    pub fn next(&self) -> RequestId {
        RequestId { run: Arc::clone(&self.run), number: self.given.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

/// Runs `future` as part of the request with this id.
pub async fn within<F: Future>(id: RequestId, future: F) -> F::Output {
    CURRENT.scope(Some(id), future).await
}

/// Makes `future`, which is about to become a task of its own, part of the request that it is made in, if any.
pub fn carried<F: Future>(future: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(current(), future)
}

/// Returns the id of the request that the running task is part of.
pub fn current() -> Option<RequestId> {
    CURRENT.try_with(Clone::clone).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_a_request_begins_is_part_of_it_and_others_are_not() {
        let ids = RequestIds::new("run");
        let (first, second) = (ids.next(), ids.next());
        assert_eq!((first.to_string(), second.to_string()), ("run-1".to_owned(), "run-2".to_owned()));
        assert_eq!(current(), None);
        let seen = within(first.clone(), async {
            let carried = tokio::spawn(carried(async { current() }));
            let left = tokio::spawn(async { current() });
            (carried.await.expect("no panic"), left.await.expect("no panic"))
        })
        .await;
        assert_eq!(seen, (Some(first), None));
        let outside = tokio::spawn(carried(async { current() })).await.expect("no panic");
        assert_eq!(outside, None);
    }
}
