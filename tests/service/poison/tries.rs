//! What a dead letter says of the tries that it had, those before a restart too.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hinted_handoff::{Config, DeadReason, HintedHandoff, internals::WallClock};
use hinted_handoff_testkit::{Reply, ScriptedWriter};
use tokio::time::Instant;

use super::{NODE, config};
use crate::common::service::{queue_up, start, until_node};

const HOUR: Duration = Duration::from_secs(3600);

/// A wall clock, and when by tokio's it began.
struct Wall {
    unix_ms: u64,
    began: Instant,
    clock: WallClock,
}

impl Wall {
    fn at(unix_ms: u64) -> Wall {
        Wall {
            unix_ms,
            began: Instant::now(),
            clock: WallClock::new(unix_ms),
        }
    }

    fn showed(&self, at: Instant) -> SystemTime {
        let since = (at - self.began).as_millis() as u64;
        UNIX_EPOCH + Duration::from_millis(self.unix_ms + since)
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_says_when_its_first_and_its_last_try_failed_before_a_restart_too() {
    for reason in [DeadReason::Attempts, DeadReason::Rejected] {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            max_attempts: match reason {
                DeadReason::Attempts => 12,
                _ => 0,
            },
            ..config(&dir)
        };
        queue_up(&config, NODE, [1]).await;
        let writer = Arc::new(ScriptedWriter::new(|_| Reply::Retry));
        let open_by = async |wall: &Wall| {
            let clock = wall.clock.clone();
            let opened = HintedHandoff::open_by_clock(config.clone(), clock, Arc::clone(&writer));
            opened.await.unwrap()
        };
        let before = Wall::at(1_700_000_000_000);
        let handoff = open_by(&before).await;
        until_node(&handoff, NODE, |node| node.attempts >= 3).await;
        handoff.shutdown().await.unwrap();
        let tries = writer.seen().len();
        assert!(tries < 10, "{tries}");

        let after = Wall::at(before.clock.unix_ms() + HOUR.as_millis() as u64);
        let handoff = open_by(&after).await;
        until_node(&handoff, NODE, |node| node.attempts as usize >= tries + 2).await;
        if reason == DeadReason::Rejected {
            writer.follow(|_| Reply::Reject);
        }
        until_node(&handoff, NODE, |node| node.dead_letters.hints == 1).await;
        let seen: Vec<_> = writer.seen().iter().map(|it| it.at).collect();
        let letter = handoff.dead_letters(NODE, None, 9).await.unwrap().remove(0);
        assert_eq!(
            (letter.reason, letter.attempts as usize),
            (reason, seen.len())
        );
        assert_eq!(letter.first_failed, before.showed(seen[0]));
        assert_eq!(letter.last_failed, after.showed(*seen.last().unwrap()));
        handoff.shutdown().await.unwrap();
        let handoff = start(&config, &writer).await;
        let again = handoff.dead_letters(NODE, None, 9).await.unwrap();
        assert_eq!(again, [letter]);
        handoff.shutdown().await.unwrap();
    }
}
