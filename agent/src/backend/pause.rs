//! The pause that a server asks for.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// No server is left alone for longer, whatever it asks for.
const LONGEST: Duration = Duration::from_secs(60);

/// Until when a server wants to be left alone.
#[derive(Default)]
pub(super) struct Pause(Mutex<Option<Instant>>);

impl Pause {
    /// Takes in the status of a reply, and how long its server asks to be left alone.
    pub(super) fn note(&self, status: u16, retry_after: Option<Duration>) {
        if let 429 | 503 = status {
            self.begin(retry_after);
        }
    }

    /// Begins the pause that was asked for, if one was.
    pub(super) fn begin(&self, retry_after: Option<Duration>) {
        if let Some(pause) = retry_after {
            *self.until() = Some(Instant::now() + pause.min(LONGEST));
        }
    }

    /// Returns for how many more seconds no call is to be made, rounded up; `None` where calls are welcome.
    pub(super) fn seconds_left(&self) -> Option<u64> {
        let left = (*self.until())?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| left.as_secs() + 1)
    }

    fn until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_by_itself_and_is_never_longer_than_a_minute() {
        let pause = Pause::default();
        pause.note(500, Some(Duration::from_secs(5)));
        pause.note(429, None);
        assert_eq!(pause.seconds_left(), None, "nobody has asked for one");
        pause.note(503, Some(Duration::from_secs(1_000_000)));
        tokio::time::advance(Duration::from_millis(59_500)).await;
        assert_eq!(pause.seconds_left(), Some(1));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(pause.seconds_left(), None);
    }
}
