//! How long something took, counted in buckets.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Bounds double from this, in microseconds.
const FIRST_US: u64 = 64;
/// Bounds, of which the last is 67 s.
const BOUNDS: usize = 21;

/// How long something took, each time since open.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Durations {
    /// By how long it took, the shortest first.
    pub buckets: Vec<DurationBucket>,
    /// How often it was done.
    pub count: u64,
    /// How long all of them took together, in microseconds.
    pub sum_us: u64,
}

/// How often something took so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DurationBucket {
    /// It took at most this, in microseconds, and longer than the bucket before. `None` in the last
    /// one: longer than in all others.
    pub at_most_us: Option<u64>,
    /// How often.
    pub count: u64,
}

impl Durations {
    /// A time that so large a part of all took at most: `0.99` asks for the 99th percentile. It is
    /// the bound of a bucket, so up to twice the time itself. `None` if it was never done, or took
    /// longer than the last bound, 67 s.
    pub fn at_most(&self, part: f64) -> Option<Duration> {
        let wanted = (self.count as f64 * part.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.buckets.iter().find(|bucket| {
            seen += bucket.count;
            seen >= wanted
        });
        Some(Duration::from_micros(found?.at_most_us?))
    }
}

/// Counts them.
#[derive(Debug, Default)]
pub struct DurationCounts {
    /// One a bound, and one for what is longer.
    buckets: [AtomicU64; BOUNDS + 1],
    sum_us: AtomicU64,
}

impl DurationCounts {
    pub fn note(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let beyond_first = us.saturating_sub(1) / FIRST_US;
        let place = (u64::BITS - beyond_first.leading_zeros()) as usize;
        if let Some(bucket) = self.buckets.get(place.min(BOUNDS)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum_us.fetch_add(us, Relaxed);
    }

    pub fn seen(&self) -> Durations {
        let bounds = (0..BOUNDS)
            .map(|place| Some(FIRST_US << place))
            .chain([None]);
        let buckets = bounds
            .zip(&self.buckets)
            .map(|(at_most_us, count)| DurationBucket {
                at_most_us,
                count: count.load(Relaxed),
            });
        let buckets: Vec<_> = buckets.collect();
        Durations {
            count: buckets.iter().map(|bucket| bucket.count).sum(),
            buckets,
            sum_us: self.sum_us.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(times_us: &[u64]) -> Durations {
        let counts = DurationCounts::default();
        let note = |us: &u64| counts.note(Duration::from_micros(*us));
        times_us.iter().for_each(note);
        counts.seen()
    }

    #[test]
    fn each_time_is_in_the_first_bucket_that_holds_it() {
        for (us, at_most_us) in [
            (0, Some(64)),
            (64, Some(64)),
            (65, Some(128)),
            (128, Some(128)),
            (129, Some(256)),
            (67_108_864, Some(67_108_864)),
            (67_108_865, None),
            (u64::MAX, None),
        ] {
            let seen = noted(&[us]);
            let filled: Vec<_> = seen.buckets.iter().filter(|it| it.count > 0).collect();
            assert_eq!(filled.len(), 1, "{us}");
            assert_eq!(
                (filled[0].at_most_us, filled[0].count),
                (at_most_us, 1),
                "{us}"
            );
            assert_eq!((seen.count, seen.sum_us), (1, us));
        }
    }

    #[test]
    fn a_percentile_is_the_bound_of_the_bucket_that_it_falls_into() {
        let seen = noted(&[[50; 98].as_slice(), &[1000, 70_000_000]].concat());
        let at_most = |part| seen.at_most(part).map(|it| it.as_micros());
        assert_eq!(at_most(0.5), Some(64));
        assert_eq!(at_most(0.98), Some(64));
        assert_eq!(at_most(0.99), Some(1024));
        assert_eq!(at_most(1.0), None);
        assert_eq!(at_most(0.0), Some(64));
        assert_eq!(noted(&[]).at_most(0.5), None);
    }
}
