//! How fast a node takes hints, lately.

use tokio::time::Instant;

/// What happened so long ago counts for a third.
const MEMORY_SECONDS: f64 = 10.0;

/// An average that forgets: each hint counts when it is taken, and less and less afterwards.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rate {
    /// When it began, and when it was last added to.
    known: Option<(Instant, Instant)>,
    /// As of then, the hints that are remembered.
    remembered: f64,
}

impl Rate {
    pub fn add(&mut self, hints: u64, now: Instant) {
        let begun = match self.known {
            Some((begun, last)) => {
                self.remembered *= kept(last, now);
                begun
            }
            None => now,
        };
        self.remembered += hints as f64;
        self.known = Some((begun, now));
    }

    /// Hints a second.
    pub fn per_second(&self, now: Instant) -> f64 {
        let Some((begun, last)) = self.known else {
            return 0.0;
        };
        // So much of the memory is filled; at first it is not what a second holds.
        let filled = (1.0 - kept(begun, now)).max(0.1 / MEMORY_SECONDS);
        self.remembered * kept(last, now) / (MEMORY_SECONDS * filled)
    }
}

/// How much is kept from one moment to another.
fn kept(from: Instant, to: Instant) -> f64 {
    let seconds = to.saturating_duration_since(from).as_secs_f64();
    (-seconds / MEMORY_SECONDS).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_steady_stream_is_shown_from_the_first_second_on_and_forgotten_when_it_ends() {
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(Instant::now()), 0.0);
        for tenth in 1..=600 {
            rate.add(50, Instant::now());
            tokio::time::advance(Duration::from_millis(100)).await;
            if tenth >= 10 {
                let shown = rate.per_second(Instant::now());
                assert!(
                    (480.0..520.0).contains(&shown),
                    "{shown} after {tenth} tenths"
                );
            }
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(rate.per_second(Instant::now()) < 2.0);
    }
}
