//! The clock that ages are counted on.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A point on `CLOCK_BOOTTIME`: it goes on during suspend, which std's `Instant` does not, and no wall-clock jump moves
/// it. Everything below that decides by time takes a tick as an argument, so tests pass their own.
///
/// In nanoseconds, which is enough for five centuries: a hundred thousand cached secrets have one each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u64);

impl Tick {
    /// Reads the clock.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
        Self::at(Duration::new(seconds, nanoseconds))
    }

    /// A tick that lies `since_boot` after boot; for tests.
    pub fn at(since_boot: Duration) -> Self {
        Self(nanoseconds(since_boot))
    }

    /// Returns the time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Returns the tick `span` later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(span)))
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
