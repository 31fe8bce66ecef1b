//! Histogram of times, in buckets whose width is at most 1/512 of the value.

use serde::Serialize;

const SUB_BITS: u32 = 9;
const SUB: u64 = 1 << SUB_BITS;

/// A distribution of nanoseconds in bounded memory.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    sum: u128,
    min: u64,
    max: u64,
}

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

impl Histogram {
    pub(crate) fn new() -> Histogram {
        Histogram { counts: Vec::new(), total: 0, sum: 0, min: u64::MAX, max: 0 }
    }

    pub(crate) fn add(&mut self, nanos: u64) {
        let bucket = bucket(nanos);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
        self.sum += u128::from(nanos);
        self.min = self.min.min(nanos);
        self.max = self.max.max(nanos);
    }

    pub(crate) fn merge(&mut self, other: &Histogram) {
        if other.counts.len() > self.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    pub(crate) fn count(&self) -> u64 {
        self.total
    }

    /// The smallest value that at least `fraction` of all values do not exceed, in nanoseconds; 0 if there are none.
    pub(crate) fn quantile(&self, fraction: f64) -> u64 {
        let wanted = ((self.total as f64 * fraction).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper(bucket).clamp(self.min, self.max);
            }
        }
        0
    }

    pub(crate) fn summary(&self) -> Option<Summary> {
        if self.total == 0 {
            return None;
        }
        let micros = |nanos: u64| nanos as f64 / 1e3;
        Some(Summary {
            count: self.total,
            min_us: micros(self.min),
            mean_us: self.sum as f64 / self.total as f64 / 1e3,
            median_us: micros(self.quantile(0.5)),
            p90_us: micros(self.quantile(0.9)),
            p99_us: micros(self.quantile(0.99)),
            p999_us: micros(self.quantile(0.999)),
            max_us: micros(self.max),
        })
    }
}

/// Values below 512 have one bucket each; each higher power of two is divided into 512 buckets.
fn bucket(value: u64) -> usize {
    if value < SUB {
        return value as usize;
    }
    let shift = value.ilog2() - SUB_BITS;
    ((u64::from(shift) + 1) * SUB + (value >> shift) - SUB) as usize
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB {
        return bucket;
    }
    let shift = bucket / SUB - 1;
    let first = (bucket % SUB + SUB) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_narrow_and_in_order() {
        let mut last = 0;
        for value in (0..5000).chain((13..64).map(|e| (1 << e) + 12_345 % (1 << (e - 1)))).chain([u64::MAX]) {
            let b = bucket(value);
            assert!(b >= last, "{value}");
            last = b;
            assert!(upper(b) >= value && upper(b) - value <= value / SUB, "{value}: {}", upper(b));
            assert_eq!(bucket(upper(b)), b);
        }
    }

    #[test]
    fn quantiles() {
        let mut h = Histogram::new();
        assert_eq!((h.quantile(0.5), h.summary()), (0, None));
        for n in 1..=1000 {
            h.add(n * 1000);
        }
        let mut other = Histogram::new();
        other.add(5_000_000_000);
        h.merge(&other);
        let near = |value: u64, expected: f64| (value as f64 / expected - 1.0).abs() < 0.003;
        assert!(near(h.quantile(0.5), 501_000.0), "{}", h.quantile(0.5));
        assert!(near(h.quantile(0.99), 991_000.0), "{}", h.quantile(0.99));
        let s = h.summary().unwrap();
        assert_eq!((s.count, s.min_us, s.max_us), (1001, 1.0, 5_000_000.0));
        assert_eq!(h.quantile(1.0), 5_000_000_000);
    }
}
