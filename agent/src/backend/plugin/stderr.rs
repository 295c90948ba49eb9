//! What a plug-in says on standard error becomes lines of our log: bounded in length and in number.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::Instant;

use super::reply::words;

/// Longest line that is shown whole, in bytes.
const LONGEST: usize = 1000;

/// Lines that are shown in one [`PERIOD`].
const MOST_LINES: u32 = 100;

/// After it another [`MOST_LINES`] may come.
const PERIOD: Duration = Duration::from_secs(10);

/// Reads until the end, so that a plug-in that logs much never waits for us.
pub(super) async fn log(backend: String, mut from: impl AsyncRead + Unpin) {
    let mut buffer = vec![0; 4096];
    let mut line = Vec::with_capacity(LONGEST);
    let mut rate = Rate::default();
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        for &byte in &buffer[..read] {
            if byte == b'\n' {
                show(&backend, &mut line, &mut rate);
            } else if line.len() <= LONGEST {
                line.push(byte);
            }
        }
    }
    show(&backend, &mut line, &mut rate);
    rate.say_what_is_missing(&backend);
}

fn show(backend: &str, line: &mut Vec<u8>, rate: &mut Rate) {
    let text = words(&String::from_utf8_lossy(line), LONGEST);
    line.clear();
    if !text.is_empty() && rate.admits(backend, Instant::now()) {
        tracing::info!(backend, "plug-in: {text}");
    }
}

/// How many lines were shown lately.
#[derive(Default)]
struct Rate {
    since: Option<Instant>,
    shown: u32,
    missing: u64,
}

impl Rate {
    fn admits(&mut self, backend: &str, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= PERIOD) {
            self.say_what_is_missing(backend);
            *self = Self { since: Some(now), shown: 0, missing: 0 };
        }
        let admitted = self.shown < MOST_LINES;
        self.shown += u32::from(admitted);
        self.missing += u64::from(!admitted);
        admitted
    }

    fn say_what_is_missing(&self, backend: &str) {
        if self.missing > 0 {
            tracing::warn!(backend, lines = self.missing, "the plug-in logs more than is shown");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_are_shown_in_a_period_and_then_again() {
        let mut rate = Rate::default();
        let start = Instant::now();
        let shown = (0..1000).filter(|_| rate.admits("x", start)).count();
        assert_eq!(shown, 100);
        assert_eq!(rate.missing, 900);
        assert!(!rate.admits("x", start + PERIOD / 2));
        assert!(rate.admits("x", start + PERIOD));
        assert_eq!(rate.missing, 0);
    }
}
