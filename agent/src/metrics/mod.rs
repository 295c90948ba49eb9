//! What is counted for `/metrics`, and its text form. Pure: who asks brings the figures; [`crate::api`] gathers them.
//!
//! Written by hand and not by a library: nearly every figure is kept already by the part that it is about (the cache, a
//! back-end, the audit log), so there is nothing to register, and the text is one line a sample.

pub mod families;
mod page;
pub mod process;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Method;
use keyside_protocol::code::Code;

pub use page::{Family, Kind, Page};

/// Upper bounds of the buckets of every histogram, in seconds.
pub const BUCKETS: [f64; 7] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0];

/// What a request is counted under. Few, and none says what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// One value.
    Value,
    /// One secret.
    Secret,
    /// The list of secrets.
    List,
    /// A resolve.
    Resolve,
    /// A check.
    Check,
    /// A change to a secret.
    Write,
    /// A stream of changes; its duration ends with its head.
    Watch,
    /// Refresh, purge, shutdown.
    Admin,
    /// `health` and `ready`.
    Probe,
    /// `status` and `/metrics`.
    Status,
    /// Whatever is no route.
    Other,
}

impl Route {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Value,
        Self::Secret,
        Self::List,
        Self::Resolve,
        Self::Check,
        Self::Write,
        Self::Watch,
        Self::Admin,
        Self::Probe,
        Self::Status,
        Self::Other,
    ];

    /// Tells what a request is counted under.
    pub fn of(method: &Method, path: &str) -> Self {
        match path {
            "/v1/health" | "/v1/ready" => return Self::Probe,
            "/v1/status" | "/metrics" => return Self::Status,
            "/v1/resolve" => return Self::Resolve,
            "/v1/check" => return Self::Check,
            "/v1/watch" => return Self::Watch,
            "/v1/refresh" | "/v1/purge" | "/v1/shutdown" => return Self::Admin,
            _ => {}
        }
        let Some(rest) = path.strip_prefix("/v1/secrets") else { return Self::Other };
        match (rest.split('/').count(), *method == Method::GET) {
            _ if !(rest.is_empty() || rest.starts_with('/')) => Self::Other,
            (1, true) => Self::List,
            (1, false) => Self::Write,
            (2, true) => Self::Secret,
            (2, false) => Self::Write,
            (3, _) => Self::Value,
            _ => Self::Other,
        }
    }

    /// Returns the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Secret => "secret",
            Self::List => "list",
            Self::Resolve => "resolve",
            Self::Check => "check",
            Self::Write => "write",
            Self::Watch => "watch",
            Self::Admin => "admin",
            Self::Probe => "probe",
            Self::Status => "status",
            Self::Other => "other",
        }
    }
}

/// Durations in buckets.
#[derive(Default)]
pub struct Histogram {
    /// How many fell into each bucket alone; the last has no upper bound.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Returns the counts up to each bound, the last for all, and the sum in seconds. `at_once` more took no time.
    pub fn read(&self, at_once: u64) -> ([u64; BUCKETS.len() + 1], f64) {
        let mut counts = [0; BUCKETS.len() + 1];
        let mut so_far = at_once;
        for (count, bucket) in counts.iter_mut().zip(&self.buckets) {
            so_far += bucket.load(Ordering::Relaxed);
            *count = so_far;
        }
        (counts, self.sum_us.load(Ordering::Relaxed) as f64 / 1e6)
    }
}

/// Why a connection was not served as it wished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The uid, or all together, have as many as they may, and the reserve for probes is taken.
    Limit,
    /// Likewise, but there is room in the reserve: probes alone are answered.
    ProbesOnly,
    /// The TCP listener has as many as it may.
    MetricsLimit,
}

/// What nobody else counts.
#[derive(Default)]
pub struct Metrics {
    from_memory: AtomicU64,
    /// For each route, the requests without an error, then those with each code.
    requests: [[AtomicU64; Code::ALL.len() + 1]; Route::ALL.len()],
    durations: [Histogram; Route::ALL.len()],
    opened: AtomicU64,
    refused: [AtomicU64; 3],
    cut_off: AtomicU64,
    reloads: [AtomicU64; 2],
    reloaded_at: AtomicU64,
}

impl Metrics {
    /// Counts a value that was served from memory. On the way of every warm read: one addition and no clock.
    pub fn served_from_memory(&self) {
        self.from_memory.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many those were.
    #[cfg(test)]
    pub(crate) fn count_from_memory(&self) -> u64 {
        self.from_memory.load(Ordering::Relaxed)
    }

    /// Counts any other request; `code` is that of its error.
    pub fn answered(&self, route: Route, code: Option<Code>, took: Duration) {
        self.requests[route as usize][code.map_or(0, |code| code as usize + 1)].fetch_add(1, Ordering::Relaxed);
        self.durations[route as usize].observe(took);
    }

    /// Counts a connection that was opened.
    pub fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that was not served.
    pub fn refused(&self, why: Refusal) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that was cut off: it broke a deadline, or outlived the grace.
    pub fn cut_off(&self) {
        self.cut_off.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a reload of the configuration. The one at the start is none.
    pub fn reloaded(&self, succeeded: bool) {
        self.reloads[usize::from(succeeded)].fetch_add(1, Ordering::Relaxed);
        if succeeded {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.reloaded_at.store(now.as_secs(), Ordering::Relaxed);
        }
    }

    /// Writes what is counted here.
    pub fn write_requests(&self, page: &mut Page) {
        let from_memory = self.from_memory.load(Ordering::Relaxed);
        let at_once = |route| if route == Route::Value { from_memory } else { 0 };
        page.begin(&families::REQUESTS);
        for route in Route::ALL {
            let counts = &self.requests[route as usize];
            page.sample(&[route.as_str(), "ok"], counts[0].load(Ordering::Relaxed) + at_once(route));
            for (code, count) in Code::ALL.iter().zip(&counts[1..]) {
                let count = count.load(Ordering::Relaxed);
                // Eleven routes with nineteen codes, nearly all of them nothing: a code appears with its first request.
                if count > 0 {
                    page.sample(&[route.as_str(), code.as_str()], count);
                }
            }
        }
        page.begin(&families::REQUEST_DURATION);
        for route in Route::ALL {
            page.histogram(&[route.as_str()], &self.durations[route as usize], at_once(route));
        }
    }

    /// Writes what became of connections.
    pub fn write_connections(&self, page: &mut Page) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        page.begin(&families::CONNECTIONS_OPENED);
        page.sample(&[], read(&self.opened));
        page.begin(&families::CONNECTIONS_REFUSED);
        page.sample(&["limit"], read(&self.refused[Refusal::Limit as usize]));
        page.sample(&["probes_only"], read(&self.refused[Refusal::ProbesOnly as usize]));
        page.sample(&["metrics_limit"], read(&self.refused[Refusal::MetricsLimit as usize]));
        page.begin(&families::CONNECTIONS_CUT_OFF);
        page.sample(&[], read(&self.cut_off));
    }

    /// Writes what became of reloads.
    pub fn write_reloads(&self, page: &mut Page) {
        page.begin(&families::RELOADS);
        page.sample(&["ok"], self.reloads[1].load(Ordering::Relaxed));
        page.sample(&["failed"], self.reloads[0].load(Ordering::Relaxed));
        page.begin(&families::LAST_RELOAD);
        let at = self.reloaded_at.load(Ordering::Relaxed);
        if at > 0 {
            page.sample(&[], at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_counted_under_one_of_few_routes() {
        for (method, path, route) in [
            (Method::GET, "/v1/secrets", Route::List),
            (Method::POST, "/v1/secrets", Route::Write),
            (Method::GET, "/v1/secrets/db", Route::Secret),
            (Method::PATCH, "/v1/secrets/db", Route::Write),
            (Method::GET, "/v1/secrets/db/password", Route::Value),
            (Method::GET, "/v1/secrets/db/a/b", Route::Other),
            (Method::GET, "/v1/secretsx/db", Route::Other),
            (Method::GET, "/metrics", Route::Status),
            (Method::GET, "/v1/ready", Route::Probe),
            (Method::GET, "/", Route::Other),
        ] {
            assert_eq!(Route::of(&method, path), route, "{method} {path}");
        }
        assert!(Route::ALL.iter().enumerate().all(|(number, route)| *route as usize == number));
    }

    #[test]
    fn buckets_are_cumulative_and_what_took_no_time_is_in_all_of_them() {
        let histogram = Histogram::default();
        for ms in [0, 1, 4, 30, 60_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let (counts, sum) = histogram.read(10);
        assert_eq!(counts, [12, 13, 13, 14, 14, 14, 14, 15]);
        assert!((sum - 60.035).abs() < 1e-9, "{sum}");
    }
}
