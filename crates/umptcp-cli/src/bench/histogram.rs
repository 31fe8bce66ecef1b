//! Histogram of times.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::Duration;

/// Longer times are counted as this one.
const LONGEST: Duration = Duration::from_secs(3600);

/// Times in nanoseconds, to three digits.
#[derive(Clone, Debug)]
pub(crate) struct Times(Histogram<u64>);

/// Summary of a distribution, in microseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) min_us: f64,
    pub(crate) mean_us: f64,
    pub(crate) median_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
}

impl Times {
    pub(crate) fn new() -> Times {
        let histogram = Histogram::new_with_bounds(1, nanoseconds(LONGEST), 3);
        Times(histogram.expect("the bounds are constants, and 3 digits are few enough"))
    }

    pub(crate) fn add(&mut self, time: Duration) {
        self.0.saturating_record(nanoseconds(time));
    }

    pub(crate) fn merge(&mut self, other: &Times) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The smallest value that at least `fraction` of all values do not exceed, in nanoseconds; 0 if there
    /// are none.
    pub(crate) fn quantile(&self, fraction: f64) -> u64 {
        self.0.value_at_quantile(fraction)
    }

    pub(crate) fn summary(&self) -> Option<Summary> {
        if self.0.is_empty() {
            return None;
        }
        let micros = |nanos: u64| nanos as f64 / 1e3;
        Some(Summary {
            count: self.count(),
            min_us: micros(self.0.min()),
            mean_us: self.0.mean() / 1e3,
            median_us: micros(self.quantile(0.5)),
            p90_us: micros(self.quantile(0.9)),
            p99_us: micros(self.quantile(0.99)),
            p999_us: micros(self.quantile(0.999)),
            max_us: micros(self.0.max()),
        })
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let mut times = Times::new();
        assert_eq!((times.quantile(0.5), times.summary()), (0, None));
        for n in 1..=1000 {
            times.add(Duration::from_micros(n));
        }
        let mut other = Times::new();
        other.add(Duration::from_secs(5));
        times.merge(&other);
        let near = |value: f64, expected: f64| (value / expected - 1.0).abs() < 0.003;
        assert!(near(times.quantile(0.5) as f64, 501_000.0), "{}", times.quantile(0.5));
        let s = times.summary().unwrap();
        assert_eq!(s.count, 1001);
        assert!(near(s.min_us, 1.0) && near(s.max_us, 5e6) && near(s.p99_us, 991.0), "{s:?}");
        assert!(near(s.mean_us, (500_500.0 + 5e6) / 1001.0), "{s:?}");
        assert!(near(times.quantile(1.0) as f64, 5e9), "{}", times.quantile(1.0));
    }

    #[test]
    fn a_time_beyond_all_bounds_counts_as_the_longest() {
        let mut times = Times::new();
        times.add(Duration::MAX);
        times.add(Duration::ZERO);
        let s = times.summary().unwrap();
        assert!((s.count, s.min_us) == (2, 0.0) && (3.6e9..3.61e9).contains(&s.max_us), "{s:?}");
    }
}
