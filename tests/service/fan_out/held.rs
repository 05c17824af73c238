//! A direct send that takes long has its hint made, which waits until the send has ended.

use std::time::Duration;

use hinted_handoff::{
    ConsistencyLevel::{One, Quorum},
    Durability, WhenFull, WriteOrdering, WriteOutcome,
};
use hinted_handoff_testkit::Reply;
use tokio::time::Instant;

use super::world::{DOWN, HANG, UP, World, paused, points, shard, stepping};

const WRITTEN: WriteOutcome = WriteOutcome::Written { owners: 2 };

#[test]
fn a_copy_that_the_answer_did_not_wait_for_is_a_hint_after_hint_after() {
    paused(async {
        let world = World::new(&[UP, UP, HANG], |_| {}).await;
        let began = Instant::now();
        assert_eq!(world.quorum(1).await.unwrap(), WRITTEN);
        assert!(
            began.elapsed() < Duration::from_millis(50),
            "it does not wait for it"
        );
        world
            .until("hinted", || world.node(3).enqueued.hints == 1)
            .await;
        let after = began.elapsed();
        let expected = Duration::from_millis(100)..Duration::from_secs(8);
        assert!(expected.contains(&after), "{after:?}");
        let node = world.node(3);
        assert_eq!((node.pending.hints, node.in_flight), (1, 1), "it is held");
        assert_eq!(node.direct.outstanding.hints, 1, "the send goes on");
        // Not before the send has ended is it sent as a hint.
        world.answers(3, [UP, UP, UP]);
        world.pass(Duration::from_secs(9)).await;
        assert_eq!(world.sent(3).1.len(), 0);
        world.until("delivered", || world.pending(3) == 0).await;
        let (direct, replayed) = world.sent(3);
        assert_eq!((direct.len(), replayed.len()), (1, 1));
        let waited = replayed[0].at - direct[0].at;
        assert!(waited >= Duration::from_secs(10), "{waited:?}");
        assert_eq!(world.handoff.stats().writes.hinted, 1);
        world.close().await;
    });
}

#[test]
fn a_send_that_succeeds_late_lets_its_hint_leave_unsent() {
    paused(async {
        for durability in [Durability::Sync, Durability::Buffered] {
            let slow = Reply::Slow(Duration::from_millis(400));
            let world = World::new(&[UP, UP, slow], |config| config.durability = durability).await;
            assert_eq!(world.quorum(1).await.unwrap(), WRITTEN);
            world
                .until("hinted", || world.node(3).enqueued.hints == 1)
                .await;
            world
                .until("taken", || world.node(3).direct.taken == 1)
                .await;
            world.until("acknowledged", || world.pending(3) == 0).await;
            let node = world.node(3);
            assert_eq!((node.delivered.hints, node.in_flight), (1, 0));
            world.pass(Duration::from_secs(30)).await;
            let (direct, replayed) = world.sent(3);
            assert_eq!((direct.len(), replayed.len()), (1, 0), "{durability:?}");
            let writes = world.handoff.stats().writes;
            assert_eq!((writes.direct, writes.hinted), (3, 0));
            world.close().await;
        }
    });
}

#[test]
fn later_hints_of_the_shard_wait_for_the_send_and_other_shards_do_not() {
    paused(async {
        let world = World::new(&[UP, UP, HANG], |_| {}).await;
        world.quorum(1).await.unwrap();
        world.until("hinted", || world.pending(3) == 1).await;
        // The node is there for replay, and the gate stays closed for a while.
        world.answers(3, [HANG, UP, UP]);
        let node = hinted_handoff::NodeId(3);
        for (shard, number) in [(7, 2), (8, 3)] {
            let shard = hinted_handoff::ShardId(shard);
            let points = points(number);
            let queued = world.handoff.write_shard(node, shard, &points);
            stepping(queued).await.unwrap();
        }
        world
            .until("another shard", || world.sent(3).1.len() == 1)
            .await;
        assert_eq!(world.sent(3).1[0].points, [points(3)]);
        world.pass(Duration::from_secs(5)).await;
        assert_eq!(world.pending(3), 2, "one is held and one behind it");
        world.until("all", || world.pending(3) == 0).await;
        let replayed = world.sent(3).1.into_iter().flat_map(|it| it.points);
        assert_eq!(
            replayed.collect::<Vec<_>>(),
            [points(3), points(1), points(2)]
        );
        world.close().await;
    });
}

#[test]
fn with_a_hint_after_of_0_the_hint_is_made_as_soon_as_the_level_is_reached() {
    paused(async {
        let world = World::new(&[UP, UP, HANG], |config| config.hint_after = Duration::ZERO).await;
        let began = Instant::now();
        world.quorum(1).await.unwrap();
        world.until("hinted", || world.pending(3) == 1).await;
        assert!(began.elapsed() < Duration::from_secs(8));
        world.close().await;

        // As long as the level is not reached there is nothing to keep.
        let config = |config: &mut hinted_handoff::Config| config.hint_after = Duration::ZERO;
        let world = World::new(&[UP, HANG, HANG], config).await;
        let error = world.quorum(1).await.unwrap_err();
        assert!(began.elapsed() >= Duration::from_secs(10), "{error}");
        world
            .until("hinted", || world.pending(2) + world.pending(3) == 2)
            .await;
        world.close().await;
    });
}

#[test]
fn beyond_max_outstanding_a_write_is_hinted_at_once() {
    paused(async {
        let world = World::new(&[UP, UP, HANG], |config| {
            config.max_outstanding = 4;
            // So that the gate stays open.
            config.hint_after = Duration::from_secs(5);
        })
        .await;
        for number in 0..10 {
            world.quorum(number).await.unwrap();
        }
        world.until("hinted", || world.pending(3) == 6).await;
        let node = world.node(3);
        assert_eq!(node.direct.outstanding.hints, 4);
        assert_eq!(node.direct.not_tried, 6);
        assert_eq!(world.sent(3).0.len(), 4);
        assert_eq!(
            world.node(1).direct.taken,
            10,
            "the others are not concerned"
        );
        world.close().await;
    });
}

#[test]
fn a_shutdown_makes_hints_of_what_is_outstanding() {
    paused(async {
        let world = World::new(&[UP, HANG, HANG], |config| {
            config.hint_after = Duration::from_secs(60);
            config.shutdown_grace = Duration::from_millis(50);
        })
        .await;
        let written = world.write(One, 1).await.unwrap();
        assert_eq!(written, WriteOutcome::Written { owners: 1 });
        assert_eq!(world.handoff.stats().store.pending.hints, 0);
        let world = world.reopen(&[UP, UP, UP], |_| {}).await;
        assert_eq!(world.node(2).delivered.hints + world.pending(2), 1);
        world
            .until("delivered", || world.writer.taken().len() == 2)
            .await;
        assert_eq!(world.writer.taken(), [points(1), points(1)]);
        world.close().await;
    });
}

#[test]
fn a_shutdown_lets_sends_finish_within_its_grace() {
    paused(async {
        let slow = Reply::Slow(Duration::from_secs(2));
        let world = World::new(&[UP, UP, slow], |config| {
            config.shutdown_grace = Duration::from_secs(4);
        })
        .await;
        assert_eq!(world.quorum(1).await.unwrap(), WRITTEN);
        let world = world.reopen(&[UP, UP, DOWN], |_| {}).await;
        let nodes = world.handoff.stats().nodes;
        assert!(nodes.iter().all(|it| it.pending.hints == 0), "{nodes:?}");
        world.close().await;
    });
}

/// An older write keeps the turn, as its hint waits for room. So one owner's fate stays unknown.
#[test]
fn a_hint_is_held_for_a_verdict_for_twice_write_timeout_at_most() {
    paused(async {
        let world = World::new(&[DOWN, DOWN], |config| {
            config.ordering = WriteOrdering::Strict;
            config.max_hints_per_node = Some(1);
            config.when_full = WhenFull::Block;
            config.block_timeout = Duration::from_secs(3600);
        })
        .await;
        world.fill_with(1).await;
        let first = shard(7, &[1]);
        let older = stepping(world.points_writer.write(&first, One, points(1))).await;
        older.unwrap_err();
        let began = Instant::now();
        let points_writer = world.points_writer.clone();
        let both = shard(7, &[1, 2]);
        let younger = async move { points_writer.write(&both, One, points(2)).await };
        let younger = tokio::spawn(younger);
        let pending = || world.handoff.stats().store.pending.hints;
        world.until("hinted", || pending() == 2).await;
        world.answers(2, [DOWN, UP, UP]);
        world.until("delivered", || world.pending(2) == 0).await;
        let held = began.elapsed();
        let expected = Duration::from_secs(20)..Duration::from_secs(40);
        assert!(expected.contains(&held), "{held:?}");
        younger.abort();
        world.close().await;
    });
}

#[test]
fn hints_of_sends_under_way_are_ordinary_ones_after_a_crash() {
    paused(async {
        let world = World::new(&[UP, UP, HANG], |_| {}).await;
        for number in 0..50 {
            world.write(Quorum, number).await.unwrap();
        }
        world.until("hinted", || world.pending(3) == 50).await;
        // As a crash leaves it: nothing is closed.
        let copy = crate::common::copy::copy_of(world.dir());
        let dir = std::sync::Arc::new(copy);
        let after = World::in_dir(dir, &[UP, UP, UP], |_| {}).await;
        let is_there = || {
            after
                .sent(3)
                .1
                .iter()
                .map(|it| it.points.len())
                .sum::<usize>()
                == 50
        };
        after.until("all 50", is_there).await;
        after.close().await;
        world.close().await;
    });
}

#[test]
fn a_copy_that_waits_in_line_behind_others_is_a_hint_after_hint_after_too() {
    paused(async {
        // Each is answered in time, and ten of them are not.
        let slow = Reply::Slow(Duration::from_millis(80));
        let strict = |config: &mut hinted_handoff::Config| config.ordering = WriteOrdering::Strict;
        let world = World::new(&[UP, UP, slow], strict).await;
        for number in 0..10 {
            assert_eq!(world.quorum(number).await.unwrap(), WRITTEN);
        }
        let is_settled = || {
            let node = world.node(3);
            node.direct.taken + node.delivered.hints >= 10
        };
        world.until("all ten", is_settled).await;
        let hinted = world.node(3).enqueued.hints;
        assert!(hinted > 0, "they waited in memory");
        let (mut direct, replayed) = world.sent(3);
        direct.extend(replayed);
        let came: Vec<_> = direct.iter().flat_map(|seen| seen.points.clone()).collect();
        assert_eq!(came, (0..10).map(points).collect::<Vec<_>>());
        world.close().await;
    });
}
