//! How long to leave a node alone.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Bounds of a node's own wish: one that asks to be tried at once for ever, or never again, is not
/// taken at its word.
const WISH_MIN: Duration = Duration::from_millis(10);
const WISH_MAX: Duration = Duration::from_secs(3600);

/// Exponential with jitter: each wait is drawn between half and the whole of its nominal length, so
/// that nodes that went down together do not come back together.
#[derive(Debug)]
pub struct Backoff {
    builder: ExponentialBuilder,
    delays: ExponentialBackoff,
    max: Duration,
}

impl Backoff {
    pub fn new(interval: Duration, max: Duration) -> Self {
        // backon adds between nothing and the whole of a delay, so it is given halves.
        let builder = ExponentialBuilder::new()
            .with_min_delay(interval / 2)
            .with_max_delay(max / 2)
            .with_factor(2.0)
            .with_jitter()
            .without_max_times();
        Backoff {
            builder,
            delays: builder.build(),
            max,
        }
    }

    /// The next wait; the node's own wish overrules it, within reason.
    pub fn next(&mut self, wish: Option<Duration>) -> Duration {
        let delay = self.delays.next().unwrap_or(self.max);
        wish.map_or(delay, |wish| wish.clamp(WISH_MIN, WISH_MAX))
    }

    /// The longest wait, for what time alone will not cure.
    pub fn longest(&self) -> Duration {
        self.max
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.delays = self.builder.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_from_the_interval_to_the_maximum_within_their_jitter_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        for _ in 0..2 {
            for nominal in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
                let nominal = Duration::from_secs(nominal);
                let delay = backoff.next(None);
                assert!(
                    delay >= nominal / 2 && delay <= nominal,
                    "{delay:?} of {nominal:?}"
                );
            }
            backoff.reset();
        }
    }

    #[test]
    fn two_nodes_do_not_wait_the_same() {
        let mut backoffs =
            [(); 2].map(|()| Backoff::new(Duration::from_secs(1), Duration::from_secs(60)));
        let delays = backoffs
            .each_mut()
            .map(|backoff| (0..8).map(|_| backoff.next(None)).collect::<Vec<_>>());
        assert_ne!(delays[0], delays[1]);
    }
}
