//! One back-end behind its limits: how many calls at a time, how long each, a pause after repeated failures, and what is
//! told of it all.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keyside_protocol::message::BackendState;
use tokio::sync::{Semaphore, watch};

use super::gather::Due;
use super::{lock, random_share};
use crate::backend::{Backend, BackendError, Capabilities, Opened, Stack, WriteBackend};
use crate::breaker::Breaker;
use crate::clock::Tick;
use crate::metrics::Histogram;

/// One back-end as the resolver uses it.
pub struct Source {
    /// Its name in the configuration.
    pub name: String,
    /// Its type.
    pub kind: &'static str,
    /// Whether it counts for `ready`.
    pub required: bool,
    pub(super) reader: Arc<dyn Backend>,
    /// Writes, where the configuration allows it.
    pub writer: Option<Arc<dyn WriteBackend>>,
    pub(super) capabilities: Capabilities,
    pub(super) denied_means_absent: bool,
    found_in_zenml: bool,
    timeout: Duration,
    pub(super) permits: Semaphore,
    breaker: Mutex<Breaker>,
    health: Mutex<Health>,
    pub(super) calls: AtomicU64,
    durations: Histogram,
    /// Calls that failed, by [`FAILURE_CLASSES`].
    failures: [AtomicU64; FAILURE_CLASSES.len()],
    polls: AtomicU64,
    /// Names from the last complete listing, for near-miss hints: one text, a NUL behind each.
    pub(super) listed: Mutex<Option<Arc<str>>>,
    /// How many secrets one call is best asked for.
    pub(super) most_at_once: usize,
    /// What is asked for in this moment, where one call can read several secrets.
    pub(super) gathered: Mutex<Vec<Due>>,
}

/// Labels of failed calls; an absence is an answer.
const FAILURE_CLASSES: [&str; 4] = ["transient", "identity", "denied", "unusable"];

pub(super) fn failure_class(error: &BackendError) -> Option<usize> {
    match error {
        BackendError::NotFound => None,
        BackendError::Transient { .. } => Some(0),
        BackendError::Identity { .. } | BackendError::Unlisted { .. } => Some(1),
        BackendError::Denied { .. } => Some(2),
        BackendError::Unusable { .. } => Some(3),
    }
}

/// How calls to a back-end went, for metrics.
pub struct Figures<'a> {
    /// Calls made.
    pub calls: u64,
    /// How long they took, with the wait for a free place.
    pub durations: &'a Histogram,
    /// Those that failed, by class.
    pub failures: [(&'static str, u64); FAILURE_CLASSES.len()],
    /// Whether the last one was answered.
    pub is_up: bool,
    /// Whether calls fail at once for now.
    pub is_paused: bool,
    /// How long ago it answered last.
    pub since_success: Option<Duration>,
    /// Queries for changes.
    pub polls: u64,
}

#[derive(Default)]
struct Health {
    answered_once: bool,
    answered_at: Option<Tick>,
    last: Option<Result<(), BackendError>>,
    /// The last failure came from reading a value, so no listing clears it.
    failed_reading: bool,
}

/// Whether a call reads values: a listing works without the key that values need.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    Values,
    Names,
}

impl Health {
    fn note(&mut self, reads: Reads, error: Option<&BackendError>) {
        let failed = error.filter(|error| {
            matches!(
                error,
                BackendError::Transient { .. } | BackendError::Identity { .. } | BackendError::Denied { .. }
            )
        });
        match failed {
            Some(error) => {
                self.answered_once |= error.is_authoritative();
                self.failed_reading = reads == Reads::Values && matches!(error, BackendError::Identity { .. });
                self.last = Some(Err(error.clone()));
            }
            None => {
                self.answered_once = true;
                self.answered_at = Some(Tick::now());
                if reads == Reads::Values || !self.failed_reading {
                    self.failed_reading = false;
                    self.last = Some(Ok(()));
                }
            }
        }
    }
}

/// Everything about one back-end but the connection.
pub struct SourceOptions {
    /// Its name in the configuration.
    pub name: String,
    /// Its type.
    pub kind: &'static str,
    /// Whether it counts for `ready`.
    pub required: bool,
    /// A refusal means absence.
    pub denied_means_absent: bool,
    /// It was found by ZenML's own settings: it has no table that a hint could speak of.
    pub found_in_zenml: bool,
    /// How long one call may take.
    pub timeout: Duration,
    /// Calls at the same time.
    pub parallelism: usize,
}

impl Source {
    /// Puts a back-end behind its limits.
    pub fn new(options: SourceOptions, opened: Opened) -> Self {
        let capabilities = opened.reader.capabilities();
        let most_at_once = opened.reader.most_at_once();
        Self {
            name: options.name,
            kind: options.kind,
            required: options.required,
            reader: opened.reader,
            writer: opened.writer,
            capabilities,
            denied_means_absent: options.denied_means_absent,
            found_in_zenml: options.found_in_zenml,
            timeout: options.timeout,
            permits: Semaphore::new(options.parallelism.max(1)),
            breaker: Mutex::default(),
            health: Mutex::default(),
            calls: AtomicU64::new(0),
            durations: Histogram::default(),
            failures: Default::default(),
            polls: AtomicU64::new(0),
            listed: Mutex::default(),
            most_at_once,
            gathered: Mutex::default(),
        }
    }

    /// Says what the back-end can do.
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Says why no secret of this name can be here; `None` where one could be. No call.
    pub fn cannot_hold(&self, name: &str) -> Option<&'static str> {
        self.reader.cannot_hold(name)
    }

    /// Tells whether a refusal means absence here.
    pub fn denies_by_absence(&self) -> bool {
        self.denied_means_absent
    }

    /// Reads the components of a stack; `None` where the place knows of no stacks at all. Counts as one call.
    pub async fn stack(&self, name: &str) -> Result<Option<Stack>, BackendError> {
        if !self.reader.knows_stacks() {
            return Ok(None);
        }
        self.call(Reads::Names, self.reader.stack(name)).await.map(Some)
    }

    /// Starts telling of changes, where the back-end notices them by itself.
    pub fn changes(&self) -> Option<watch::Receiver<u64>> {
        self.reader.changes()
    }

    /// Takes in that the back-end itself has told of a change: what was wrong with it may be right now, so that no pause
    /// keeps a call from finding out.
    pub fn nudge(&self) {
        lock(&self.breaker).nudged();
    }

    /// Tells whether it has answered at least once, with whatever.
    pub fn has_answered(&self) -> bool {
        lock(&self.health).answered_once
    }

    /// Returns its state for `ready` and `status`.
    pub fn state(&self) -> BackendState {
        let health = lock(&self.health);
        let (state, error) = match &health.last {
            None => ("unknown", None),
            Some(Ok(()) | Err(BackendError::NotFound | BackendError::Unusable { .. })) => ("ok", None),
            Some(Err(error @ BackendError::Denied { .. })) => ("denied", Some(error)),
            Some(Err(error @ BackendError::Transient { .. })) => ("unavailable", Some(error)),
            Some(Err(error @ (BackendError::Identity { .. } | BackendError::Unlisted { .. }))) => {
                ("misconfigured", Some(error))
            }
        };
        BackendState {
            name: self.name.clone(),
            kind: self.kind.to_owned(),
            required: self.required,
            state: state.to_owned(),
            error: error.map(ToString::to_string),
            hint: error.and_then(BackendError::hint).map(str::to_owned),
        }
    }

    /// Says how calls to it went.
    pub fn figures(&self) -> Figures<'_> {
        let health = lock(&self.health);
        let mut failures = FAILURE_CLASSES.map(|class| (class, 0));
        for ((_, count), failed) in failures.iter_mut().zip(&self.failures) {
            *count = failed.load(Ordering::Relaxed);
        }
        Figures {
            calls: self.calls.load(Ordering::Relaxed),
            durations: &self.durations,
            failures,
            is_up: matches!(&health.last, Some(Ok(()))),
            is_paused: lock(&self.breaker).is_open(),
            since_success: health.answered_at.map(|at| Tick::now().since(at)),
            polls: self.polls.load(Ordering::Relaxed),
        }
    }

    /// Counts a query for changes.
    pub fn polled(&self) {
        self.polls.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes one call within the back-end's limits and takes note of how it went.
    pub(super) async fn call<T>(
        &self,
        reads: Reads,
        call: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let began = Tick::now();
        if !lock(&self.breaker).admits(began) {
            let last = lock(&self.health).last.clone();
            return Err(match last {
                Some(Err(error @ BackendError::Transient { .. })) => error,
                _ => did_not_answer(&self.name, "failed repeatedly and is given a pause"),
            });
        }
        let outcome = async {
            let _permit = self.permits.acquire().await.map_err(|_| did_not_answer(&self.name, "is closing"))?;
            self.calls.fetch_add(1, Ordering::Relaxed);
            call.await
        };
        let trial = Trial { breaker: &self.breaker };
        let outcome = tokio::time::timeout(self.timeout, outcome)
            .await
            .unwrap_or_else(|_| Err(did_not_answer(&self.name, &format!("did not answer within {:?}", self.timeout))));
        let outcome = outcome.map_err(|error| if self.found_in_zenml { error.of_found() } else { error });
        self.durations.observe(Tick::now().since(began));
        self.failed(outcome.as_ref().err().and_then(failure_class));
        trial.ended(outcome.as_ref().err());
        lock(&self.health).note(reads, outcome.as_ref().err());
        outcome
    }

    pub(super) fn failed(&self, class: Option<usize>) {
        if let Some(class) = class {
            self.failures[class].fetch_add(1, Ordering::Relaxed);
        }
    }
}

pub(super) fn did_not_answer(backend: &str, what: &str) -> BackendError {
    BackendError::Transient { what: format!("back-end `{backend}` {what}"), hint: None }
}

/// Gives a breaker's trial back even when the call is dropped.
struct Trial<'a> {
    breaker: &'a Mutex<Breaker>,
}

impl Trial<'_> {
    fn ended(self, error: Option<&BackendError>) {
        let mut breaker = lock(self.breaker);
        match error {
            Some(BackendError::Transient { .. }) => breaker.failed(Tick::now(), random_share()),
            _ => breaker.succeeded(),
        }
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        lock(self.breaker).abandoned();
    }
}
