//! A circuit breaker for one back-end: after repeated transient failures, calls fail at once for a while instead of each
//! waiting for its time-out. Pure: the clock is an argument.

use std::time::Duration;

use crate::clock::Tick;

/// Transient failures in a row that open the circuit.
const FAILURES_TO_OPEN: u32 = 5;

/// How long the circuit stays open the first time; doubles with each failed trial.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause. Short, so that a back-end that recovered is noticed soon.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The breaker's state.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: u32,
    open_until: Option<Tick>,
    trial: bool,
}

impl Breaker {
    /// Tells whether a call may be made at `now`. Once the pause is over, one trial call is let through at a time.
    pub fn admits(&mut self, now: Tick) -> bool {
        match self.open_until {
            None => true,
            Some(until) if now >= until && !self.trial => {
                self.trial = true;
                true
            }
            Some(_) => false,
        }
    }

    /// Tells whether calls fail at once, but for a trial now and then.
    pub fn is_open(&self) -> bool {
        self.open_until.is_some()
    }

    /// The back-end answered, with whatever.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// The back-end did not answer. `spread`, 0 to 1, is the random share of the pause.
    pub fn failed(&mut self, now: Tick, spread: f64) {
        self.failures = self.failures.saturating_add(1);
        self.trial = false;
        if self.failures >= FAILURES_TO_OPEN {
            let doublings = (self.failures - FAILURES_TO_OPEN).min(10);
            let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
            self.open_until = Some(now.after(pause.mul_f64(spread.clamp(0.0, 1.0))));
        }
    }

    /// There is news of the back-end itself: the pause is over, and the next failure begins the first one again.
    pub fn nudged(&mut self) {
        if self.open_until.take().is_some() {
            *self = Self { failures: FAILURES_TO_OPEN - 1, ..Self::default() };
        }
    }

    /// A call that was let through ended without telling anything about the back-end.
    pub fn abandoned(&mut self) {
        self.trial = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Tick {
        Tick::at(Duration::from_millis(ms))
    }

    #[test]
    fn five_failures_in_a_row_open_the_circuit_and_one_trial_closes_it() {
        let mut breaker = Breaker::default();
        for _ in 0..5 {
            assert!(breaker.admits(at(0)));
            breaker.failed(at(0), 1.0);
        }
        assert!(!breaker.admits(at(999)) && breaker.is_open());
        assert!(breaker.admits(at(1000)), "the pause is over");
        assert!(!breaker.admits(at(1000)), "one trial at a time");
        breaker.succeeded();
        assert!(breaker.admits(at(1000)) && !breaker.is_open());
        assert!(breaker.admits(at(1000)));
    }

    #[test]
    fn a_failed_trial_doubles_the_pause_up_to_five_seconds() {
        let mut breaker = Breaker::default();
        for _ in 0..5 {
            breaker.failed(at(0), 1.0);
        }
        assert!(breaker.admits(at(1_000)));
        breaker.failed(at(1_000), 1.0);
        assert!(!breaker.admits(at(2_999)));
        assert!(breaker.admits(at(3_000)));
        for _ in 0..20 {
            breaker.failed(at(3_000), 1.0);
        }
        assert!(breaker.admits(at(8_000)));
    }

    #[test]
    fn news_of_the_back_end_ends_the_pause_and_a_failure_begins_the_first_again() {
        let mut breaker = Breaker::default();
        breaker.nudged();
        for _ in 0..9 {
            breaker.failed(at(0), 1.0);
        }
        assert!(!breaker.admits(at(4_000)));
        breaker.nudged();
        assert!(breaker.admits(at(4_000)) && !breaker.is_open());
        breaker.failed(at(4_000), 1.0);
        assert!(!breaker.admits(at(4_999)), "one failure is enough");
        assert!(breaker.admits(at(5_000)));
        breaker.nudged();
        assert!(breaker.admits(at(5_000)), "whatever a trial under way may bring");
        breaker.nudged();
        breaker.failed(at(5_000), 1.0);
        assert!(breaker.is_open(), "being told again is no answer");
    }

    #[test]
    fn an_answer_in_between_starts_the_count_again() {
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            breaker.failed(at(0), 1.0);
        }
        breaker.succeeded();
        breaker.failed(at(0), 1.0);
        assert!(breaker.admits(at(0)));
    }
}
