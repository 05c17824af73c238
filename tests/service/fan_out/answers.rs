//! When a write is answered, and what.

use std::time::Duration;

use hinted_handoff::{
    ConsistencyLevel::{All, Any, Quorum},
    OwnerError, PointsWriteError, WhenFull, WriteOutcome,
};
use tokio::time::Instant;

use super::world::{DOWN, HANG, REJECT, UP, World, paused};

#[test]
fn as_soon_as_the_level_cannot_be_reached_the_caller_is_told() {
    paused(async {
        for (first, kind) in [(REJECT, "refused"), (DOWN, "not written")] {
            // Long enough for the slowest disk.
            let long = Duration::from_secs(100);
            let world = World::new(&[first, first, HANG], |it| it.write_timeout = long).await;
            let began = Instant::now();
            let error = world.quorum(1).await.unwrap_err();
            let told = began.elapsed();
            assert!(told < long * 8 / 10, "{told:?}");
            assert!(error.to_string().starts_with(kind), "{error}");
            let (PointsWriteError::Refused(tally) | PointsWriteError::Failed(tally)) = error else {
                panic!("{error:?}");
            };
            assert_eq!((tally.written, tally.pending), (0, 1), "{kind}");
            // The last copy goes on.
            world.until("hinted", || world.pending(3) == 1).await;
            world.close().await;
        }
    });
}

#[test]
fn the_old_way_waits_until_the_fate_of_each_copy_is_known() {
    paused(async {
        let world = World::new(&[DOWN, DOWN, HANG], |config| config.fail_early = false).await;
        let began = Instant::now();
        let error = world.quorum(1).await.unwrap_err();
        assert!(began.elapsed() >= Duration::from_secs(10));
        let PointsWriteError::Failed(tally) = error else {
            panic!("{error:?}");
        };
        assert_eq!((tally.hinted, tally.pending), (3, 0));
        world.close().await;
    });
}

#[test]
fn any_is_queued_once_each_owner_has_failed_or_is_late() {
    paused(async {
        let world = World::new(&[HANG, DOWN, HANG], |_| {}).await;
        let began = Instant::now();
        let queued = world.write(Any, 1).await.unwrap();
        assert_eq!(queued, WriteOutcome::Queued { owners: 3 });
        let took = began.elapsed();
        assert!(
            (Duration::from_millis(100)..Duration::from_secs(8)).contains(&took),
            "{took:?}"
        );
        world.close().await;
    });
}

/// With a refusal nobody can tell before the last owner has answered.
#[test]
fn any_is_refused_if_every_owner_that_answered_refused() {
    paused(async {
        let world = World::new(&[REJECT, DOWN, HANG], |_| {}).await;
        let error = world.write(Any, 1).await.unwrap_err();
        assert!(matches!(error, PointsWriteError::Refused(_)), "{error}");
        world.close().await;
    });
}

#[test]
fn an_error_says_what_was() {
    paused(async {
        // All answered: 404, say. That is not "none could be reached".
        let world = World::new(&[DOWN, DOWN, DOWN], |_| {}).await;
        let error = world.write(All, 1).await.unwrap_err();
        assert!(matches!(error, PointsWriteError::Failed(_)), "{error}");
        assert!(!error.to_string().contains("reached"), "{error}");
        // Now it is known that none does.
        let closed = || {
            world
                .handoff
                .stats()
                .nodes
                .iter()
                .all(|it| it.direct.failed == 1)
        };
        world.until("failed", closed).await;
        world
            .until("pinged", || world.writer.pings().len() >= 3)
            .await;
        let error = world.write(All, 2).await.unwrap_err();
        let PointsWriteError::Unreachable(tally) = error else {
            panic!("{error:?}");
        };
        assert!(matches!(tally.cause, OwnerError::GateClosed));
        world.close().await;
    });
}

#[test]
fn a_node_that_is_only_written_to_directly_is_in_the_statistics() {
    paused(async {
        let world = World::new(&[UP, UP, UP], |_| {}).await;
        world.write(All, 1).await.unwrap();
        let stats = world.handoff.stats();
        assert_eq!(stats.nodes.len(), 3);
        assert!(stats.nodes.iter().all(|node| node.direct.taken == 1));
        world.answers(2, [REJECT, UP, UP]);
        world.answers(3, [DOWN, UP, UP]);
        world.write(Quorum, 2).await.unwrap_err();
        world
            .until("counted", || world.handoff.stats().writes.hinted == 1)
            .await;
        assert_eq!(
            (world.node(2).direct.rejected, world.node(3).direct.failed),
            (1, 1)
        );
        world.close().await;
    });
}

/// Hints that wait for room are not waited for.
#[test]
fn an_early_error_does_not_wait_for_hints_that_have_no_room() {
    paused(async {
        let world = World::new(&[DOWN, DOWN, HANG], |config| {
            config.max_hints = Some(1);
            config.when_full = WhenFull::Block;
            config.block_timeout = Duration::from_secs(3600);
        })
        .await;
        world.answers(4, [DOWN, DOWN, DOWN]);
        world.fill_with(4).await;
        let began = Instant::now();
        let error = world.quorum(1).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(8));
        let PointsWriteError::Failed(tally) = error else {
            panic!("{error:?}");
        };
        assert_eq!((tally.hinted, tally.pending), (0, 3));
        world.close().await;
    });
}
