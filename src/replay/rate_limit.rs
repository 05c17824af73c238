//! Bytes a second, by governor's GCRA on tokio's clock (so that paused time works).

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use tokio::sync::Semaphore;

#[derive(Debug, Clone, Copy, Default)]
struct TokioClock;

impl Clock for TokioClock {
    type Instant = Instant;

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Instant>>;

/// No limit at all where it is set to 0.
#[derive(Debug)]
pub struct RateLimit {
    limiter: Option<(Limiter, NonZeroU32)>,
    /// One permit: who has it is next. Given out in the order of asking, so nothing small goes past
    /// a large send that waits.
    turn: Semaphore,
    /// What a send larger than the burst has not paid for yet. The next one waits for that first.
    /// Changed by who has the turn.
    debt: AtomicU64,
}

impl RateLimit {
    /// `bytes_per_second`, in bursts of up to `burst_bytes`.
    pub fn new(bytes_per_second: u64, burst_bytes: u64) -> Self {
        let saturated = |bytes: u64| NonZeroU32::new(u32::try_from(bytes).unwrap_or(u32::MAX));
        let limiter = saturated(bytes_per_second).map(|rate| {
            let burst = saturated(burst_bytes).unwrap_or(NonZeroU32::MIN);
            let quota = Quota::per_second(rate).allow_burst(burst);
            (RateLimiter::direct_with_clock(quota, TokioClock), burst)
        });
        RateLimit {
            limiter,
            turn: Semaphore::new(1),
            debt: AtomicU64::new(0),
        }
    }

    /// Waits until `bytes` more may be sent, behind all that waited before. A send larger than the
    /// burst goes as soon as a burst may, and those behind it wait for the rest.
    pub async fn wait(&self, bytes: u64) {
        let Some((limiter, burst)) = &self.limiter else {
            return;
        };
        let burst = u64::from(burst.get());
        // Never closed.
        let _turn = self.turn.acquire().await;
        while let owed @ 1.. = self.debt.load(Relaxed) {
            let part = owed.min(burst);
            pay(limiter, part).await;
            self.debt.fetch_sub(part, Relaxed);
        }
        let part = bytes.min(burst);
        pay(limiter, part).await;
        self.debt.store(bytes - part, Relaxed);
    }
}

/// Waits until so much, a burst at most, may be sent.
async fn pay(limiter: &Limiter, part: u64) {
    let Some(part) = NonZeroU32::new(u32::try_from(part).unwrap_or(u32::MAX)) else {
        return;
    };
    while let Ok(Err(not_until)) = limiter.check_n(part) {
        tokio::time::sleep(not_until.wait_time_from(TokioClock.now())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn waited(limit: &RateLimit, bytes: u64) -> Duration {
        let before = tokio::time::Instant::now();
        limit.wait(bytes).await;
        before.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_at_once_and_then_the_rate_holds_to_fractions_of_a_second() {
        let limit = RateLimit::new(1000, 500);
        assert_eq!(waited(&limit, 500).await, Duration::ZERO);
        // 250 bytes at 1,000 a second: a quarter of a second. InfluxDB's limiter rounded this away.
        let quarter = waited(&limit, 250).await;
        assert!((250..=252).contains(&quarter.as_millis()), "{quarter:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_send_larger_than_the_burst_goes_in_its_turn_and_the_next_one_waits_for_it() {
        let limit = RateLimit::new(1000, 500);
        assert_eq!(waited(&limit, 500).await, Duration::ZERO);
        let (large, small) = tokio::join!(
            biased;
            waited(&limit, 10_500),
            waited(&limit, 10),
        );
        assert!((500..=502).contains(&large.as_millis()), "{large:?}");
        assert!((10_510..=10_540).contains(&small.as_millis()), "{small:?}");
    }

    /// One that gives up its turn leaves no more debt than there was.
    #[tokio::test(start_paused = true)]
    async fn one_that_gives_up_waiting_costs_nothing() {
        let limit = RateLimit::new(1000, 500);
        waited(&limit, 500).await;
        let given_up = tokio::time::timeout(Duration::from_millis(100), limit.wait(10_500)).await;
        assert!(given_up.is_err());
        let next = waited(&limit, 500).await;
        assert!((398..=402).contains(&next.as_millis()), "{next:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn zero_is_no_limit() {
        assert_eq!(
            waited(&RateLimit::new(0, 1), u64::MAX).await,
            Duration::ZERO
        );
    }
}
