//! Waiting for what has no event: asked again and again until a deadline.

use std::time::{Duration, Instant};

/// Longer than anything takes that works, so that a slow machine fails no test.
pub const LONG: Duration = Duration::from_secs(30);

/// Asks until `attempt` has an answer, and returns it with the time that took; panics with `what` after [`LONG`].
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> (T, Duration) {
    let started = Instant::now();
    loop {
        if let Some(answer) = attempt() {
            return (answer, started.elapsed());
        }
        assert!(started.elapsed() < LONG, "waited {LONG:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
