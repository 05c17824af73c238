//! Bytes a second to one node, by governor's GCRA on tokio's clock (so that paused time works).

use std::{num::NonZeroU32, time::Instant};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};

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
        RateLimit { limiter }
    }

    /// Waits until `bytes` more may be sent. A send larger than the burst is paid in bursts, so it waits its full time.
    pub async fn wait(&self, bytes: u64) {
        let Some((limiter, burst)) = &self.limiter else {
            return;
        };
        let mut left = bytes;
        while let Some(part) = NonZeroU32::new(left.min(u64::from(burst.get())) as u32) {
            match limiter.check_n(part) {
                Ok(Ok(())) => left -= u64::from(part.get()),
                Ok(Err(not_until)) => {
                    tokio::time::sleep(not_until.wait_time_from(TokioClock.now())).await;
                }
                // Cannot be: a part is never over the burst.
                Err(_) => return,
            }
        }
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
    async fn a_send_larger_than_the_burst_waits_its_full_time() {
        let limit = RateLimit::new(1000, 500);
        let long = waited(&limit, 10_500).await;
        assert!((10_000..=10_030).contains(&long.as_millis()), "{long:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn zero_is_no_limit() {
        assert_eq!(
            waited(&RateLimit::new(0, 1), u64::MAX).await,
            Duration::ZERO
        );
    }
}
