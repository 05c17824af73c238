//! Room on the disk, and when it will be used up.

use std::time::Duration;

use hinted_handoff::StoreStats;
use tokio::time::Instant;

/// Samples that the rate is from: the last minutes.
const LOOK_BACK: Duration = Duration::from_secs(300);
/// Fewer tell nothing: those of a minute.
const SAMPLES_MIN: usize = 7;
/// What takes longer than a year is no trend.
const FAR: Duration = Duration::from_secs(365 * 86_400);

/// Whether the disk fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filling {
    /// There are too few samples, or nothing bounds the store that is known.
    Unknown,
    /// Room does not become less.
    No,
    /// So long until nothing is accepted any more.
    FullIn(Duration),
}

impl Filling {
    /// How long it takes, if it fills.
    pub fn full_in(self) -> Option<Duration> {
        match self {
            Filling::FullIn(time) => Some(time),
            Filling::Unknown | Filling::No => None,
        }
    }
}

/// Bytes until free disk space is down to the reserve, or the log as long as it may be. `None`
/// where neither is known, or while the store is closed, which has no log then.
pub fn room(store: &StoreStats, max_disk_bytes: Option<u64>) -> Option<u64> {
    if store.log_bytes == 0 {
        return None;
    }
    let free = store.free_disk_bytes;
    let free = free.map(|free| free.saturating_sub(store.reserve_bytes));
    let log = max_disk_bytes.map(|max| max.saturating_sub(store.log_bytes));
    [free, log].into_iter().flatten().min()
}

/// Whether room, as it was at these moments, becomes less: by a straight line through the last
/// minutes of them. The oldest is first.
pub fn filling(room: &[(Instant, u64)], now: Instant) -> Filling {
    let recent = room.iter().filter_map(|(at, bytes)| {
        let ago = now.saturating_duration_since(*at);
        (ago <= LOOK_BACK).then_some((-ago.as_secs_f64(), *bytes as f64))
    });
    let points: Vec<(f64, f64)> = recent.collect();
    match points.last() {
        Some((_, 0.0)) => Filling::FullIn(Duration::ZERO),
        Some((_, last)) if points.len() >= SAMPLES_MIN => {
            let lost = -slope(&points);
            let seconds = if lost > 0.0 {
                last / lost
            } else {
                f64::INFINITY
            };
            let time = Duration::try_from_secs_f64(seconds).ok();
            let time = time.filter(|time| *time <= FAR);
            time.map_or(Filling::No, Filling::FullIn)
        }
        _ => Filling::Unknown,
    }
}

/// Of the line with the least squares. Points that are all at one moment have none.
fn slope(points: &[(f64, f64)]) -> f64 {
    let many = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / many;
    let (middle_x, middle_y) = (mean(|it| it.0), mean(|it| it.1));
    let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
        let each = points.iter().map(|(x, y)| of(x - middle_x, y - middle_y));
        each.sum()
    };
    let (rise, run) = (sum(&|x, y| x * y), sum(&|x, _| x * x));
    if run > 0.0 { rise / run } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hinted_handoff::{Config, HintedHandoff};
    use hinted_handoff_testkit::{Reply, ScriptedWriter};

    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// A sample each ten seconds, the last one now.
    fn every_ten_seconds(room: &[u64], now: Instant) -> Vec<(Instant, u64)> {
        let ago = |number: usize| Duration::from_secs(10 * (room.len() - 1 - number) as u64);
        let samples = room.iter().enumerate();
        samples
            .map(|(number, room)| (now - ago(number), *room))
            .collect()
    }

    fn of(room: &[u64]) -> Filling {
        let now = Instant::now() + Duration::from_secs(86_400);
        filling(&every_ten_seconds(room, now), now)
    }

    #[tokio::test]
    async fn room_is_the_less_of_free_space_and_of_what_the_log_may_grow_by() {
        let dir = tempfile::tempdir().unwrap();
        let writer = ScriptedWriter::new(|_| Reply::Take);
        let config = Config {
            min_free_disk: 0,
            ..Config::new(dir.path().join("hints"))
        };
        let handoff = HintedHandoff::<Bytes>::open(config, writer).await.unwrap();
        let mut store = handoff.stats().store;
        handoff.shutdown().await.unwrap();
        (store.free_disk_bytes, store.reserve_bytes) = (Some(1_000), 300);
        store.log_bytes = 50;
        assert_eq!(room(&store, None), Some(700), "the reserve is kept");
        assert_eq!(room(&store, Some(80)), Some(30));
        assert_eq!(room(&store, Some(10_000)), Some(700));
        assert_eq!(room(&store, Some(40)), Some(0));
        store.reserve_bytes = 2_000;
        assert_eq!(room(&store, None), Some(0));
        store.free_disk_bytes = None;
        assert_eq!(room(&store, Some(80)), Some(30));
        assert_eq!(room(&store, None), None);
        store.log_bytes = 0;
        assert_eq!(room(&store, Some(80)), None, "the store is closed");
    }

    #[test]
    fn a_disk_that_fills_evenly_is_full_when_its_rate_says() {
        let falling: Vec<u64> = (0..7).map(|at| 1_000 * MIB - at * 10 * MIB).collect();
        let Filling::FullIn(time) = of(&falling) else {
            panic!("{:?}", of(&falling));
        };
        // 940 MiB at 1 MiB a second.
        assert_eq!(time.as_secs_f64().round(), 940.0);
    }

    #[test]
    fn what_fills_in_steps_fills_at_the_rate_of_its_mean() {
        let steps: Vec<u64> = (0..31).map(|at| 1_000 * MIB - at / 3 * 30 * MIB).collect();
        let Filling::FullIn(time) = of(&steps) else {
            panic!("{:?}", of(&steps));
        };
        assert!((600..800).contains(&time.as_secs()), "{time:?}");
    }

    #[test]
    fn a_disk_that_does_not_fill_is_told_as_that() {
        assert_eq!(of(&[MIB; 31]), Filling::No);
        let rising: Vec<u64> = (0..31).map(|at| at * MIB + 1).collect();
        assert_eq!(of(&rising), Filling::No);
        // A byte in ten seconds is no trend.
        let hardly: Vec<u64> = (0..31).map(|at| 1_000 * MIB - at).collect();
        assert_eq!(of(&hardly), Filling::No);
    }

    #[test]
    fn too_few_samples_or_old_ones_tell_nothing_but_what_is_full_is_full() {
        let falling: Vec<u64> = (0..31).map(|at| 1_000 * MIB - at * MIB).collect();
        assert_eq!(of(&[]), Filling::Unknown);
        assert_eq!(of(&falling[..SAMPLES_MIN - 1]), Filling::Unknown);
        assert_ne!(of(&falling[..SAMPLES_MIN]), Filling::Unknown);
        let now = Instant::now() + Duration::from_secs(86_400);
        let samples = every_ten_seconds(&falling, now);
        assert_ne!(filling(&samples, now), Filling::Unknown);
        assert_eq!(filling(&samples, now + LOOK_BACK), Filling::Unknown);
        assert_eq!(of(&[0]), Filling::FullIn(Duration::ZERO));
        let at_once = vec![(now, MIB); 20];
        assert_eq!(filling(&at_once, now), Filling::No);
    }

    #[test]
    fn what_was_long_ago_says_nothing_of_now() {
        let mut room: Vec<u64> = (0..100).map(|at| 2_000 * MIB - at * 10 * MIB).collect();
        room.extend([1_000 * MIB; 31]);
        assert_eq!(of(&room), Filling::No);
    }
}
