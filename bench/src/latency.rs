//! Latencies of one slice, and their quantiles.

use std::time::Duration;

/// Every latency that was seen; a slice is short enough to keep them all, so no quantile is rounded.
#[derive(Debug, Default, Clone)]
pub(crate) struct Latencies {
    nanoseconds: Vec<u64>,
}

impl Latencies {
    /// Room for one slice, so that no reallocation falls into a measured request.
    pub(crate) fn with_room() -> Self {
        Self { nanoseconds: Vec::with_capacity(1 << 20) }
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        self.nanoseconds.push(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn count(&self) -> usize {
        self.nanoseconds.len()
    }

    /// Brings the latencies into the order that `quantile_us` needs.
    pub(crate) fn sorted(mut self) -> Self {
        self.nanoseconds.sort_unstable();
        self.nanoseconds.shrink_to_fit();
        self
    }

    /// Microseconds below which the given share (0 to 1) of all requests stayed; not a number if there was none.
    /// Only after `sorted`.
    pub(crate) fn quantile_us(&self, share: f64) -> f64 {
        let last = self.nanoseconds.len().saturating_sub(1);
        let index = (share * last as f64).round() as usize;
        self.nanoseconds.get(index).map_or(f64::NAN, |&nanoseconds| nanoseconds as f64 / 1000.0)
    }
}

/// The median of what is a number; not a number if nothing is.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => f64::NAN,
        (length, middle) if length % 2 == 1 => values[middle],
        (_, middle) => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_taken_from_the_sorted_latencies() {
        let mut latencies = Latencies::default();
        for microseconds in (0..=100).rev() {
            latencies.record(Duration::from_micros(microseconds));
        }
        let latencies = latencies.sorted();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| latencies.quantile_us(share)), [0.0, 50.0, 99.0, 100.0]);
        assert!(Latencies::default().sorted().quantile_us(0.5).is_nan());
    }

    #[test]
    fn the_median_ignores_what_is_no_number() {
        assert_eq!(median([3.0, f64::NAN, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0].into_iter()), 2.5);
        assert!(median([f64::NAN].into_iter()).is_nan());
    }
}
