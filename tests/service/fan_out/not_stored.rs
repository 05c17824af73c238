//! A copy that could be neither sent nor hinted is recorded.

use std::time::Duration;

use hinted_handoff::{
    BarrierState, ConsistencyLevel::Any, Durability, Event, LossReason, NodeId, OnNotStored, Pause,
    PointsWriteError, ShardId, WhenFull, internals::CommitFault,
};

use super::world::{DOWN, HANG, UP, World, paused, points, stepping};

async fn recorded(world: &World, node: u64) -> u64 {
    let losses = world.handoff.losses(0).await.unwrap().entries;
    let of_node = losses.iter().filter(|(_, loss)| {
        assert_eq!(loss.place, None, "it has no queue");
        (loss.node, loss.reason) == (NodeId(node), LossReason::NotStored)
    });
    of_node.map(|(_, loss)| loss.amount.hints).sum()
}

#[test]
fn copies_that_a_limit_keeps_out_are_in_the_loss_journal_and_told() {
    paused(async {
        let world = World::new(&[UP, UP, DOWN], |config| {
            config.max_hints_per_node = Some(10)
        })
        .await;
        let (shard, points) = (ShardId(7), points(0));
        let first = world.handoff.write_shard(NodeId(3), shard, &points);
        stepping(first).await.unwrap();
        let barrier = world.handoff.barrier(&[NodeId(3)]).await.unwrap();
        for number in 1..1000 {
            world.quorum(number).await.unwrap();
        }
        let unstored = || world.handoff.stats().writes.unstored == 990;
        world.until("990 not stored", unstored).await;
        assert_eq!(world.node(3).not_stored.hints, 990);
        assert_eq!(world.pending(3), 10);
        assert_eq!(recorded(&world, 3).await, 990);
        let told = world.events().into_iter();
        let told = told.filter(|event| {
            matches!(
                event,
                Event::NotStored {
                    node: NodeId(3),
                    ..
                }
            )
        });
        // A listener that is slow misses the oldest.
        assert!(told.count() > 300);
        let state = world.handoff.wait(&barrier, Duration::ZERO).await.unwrap();
        let BarrierState::Lost { losses, .. } = state else {
            panic!("{state:?}");
        };
        assert_eq!(losses.not_stored.hints, 990);
        world.close().await;
    });
}

#[test]
fn a_write_with_such_a_copy_is_an_error_if_the_host_wants_that() {
    paused(async {
        let world = World::new(&[UP, UP, DOWN], |config| {
            config.max_hints_per_node = Some(1);
            config.on_not_stored = OnNotStored::Fail;
        })
        .await;
        world.quorum(1).await.unwrap();
        let error = world.quorum(2).await.unwrap_err();
        let PointsWriteError::NotStored(tally) = error else {
            panic!("{error:?}");
        };
        assert_eq!(
            (tally.written, tally.not_stored, tally.node),
            (2, 1, NodeId(3))
        );
        world
            .until("recorded", || world.node(3).not_stored.hints == 1)
            .await;
        assert_eq!(recorded(&world, 3).await, 1);
        world.close().await;

        // It waits for a copy that is under way, until that has a hint or none.
        let world = World::new(&[UP, UP, HANG], |config| {
            config.max_hints_per_node = Some(1);
            config.on_not_stored = OnNotStored::Fail;
        })
        .await;
        world.quorum(1).await.unwrap();
        assert_eq!(world.pending(3), 1);
        let error = world.quorum(2).await.unwrap_err();
        assert!(matches!(error, PointsWriteError::NotStored(_)), "{error}");
        world.close().await;
    });
}

#[test]
fn while_the_store_fails_they_are_summed_and_written_when_it_serves_again() {
    paused(async {
        let world = World::new(&[UP, UP, DOWN], |_| {}).await;
        world.handoff.inject(CommitFault::Fail);
        for number in 0..20 {
            world.quorum(number).await.unwrap();
        }
        let unstored = || world.handoff.stats().writes.unstored == 20;
        world.until("20 not stored", unstored).await;
        world.handoff.disk_works_again();
        let serves = || matches!(world.handoff.health(), hinted_handoff::Health::Serving);
        world.until("serving again", serves).await;
        // A group whose outcome was unknown may be there as well: never less than what is missing.
        assert!(recorded(&world, 3).await >= 20);
        world.close().await;
    });
}

#[test]
fn a_hint_that_had_no_room_is_tried_again_when_its_send_has_failed() {
    paused(async {
        let world = World::new(&[UP, UP, HANG], |config| {
            config.max_hints_per_node = Some(1);
        })
        .await;
        // Nothing is pinged, so the gate is open.
        stepping(world.handoff.pause_all(Pause::UntilRestart))
            .await
            .unwrap();
        world.fill_with(3).await;
        world.quorum(1).await.unwrap();
        world.until("refused", || world.node(3).refused == 1).await;
        assert_eq!(world.pending(3), 1, "there is no room for the second");
        world.answers(3, [HANG, UP, UP]);
        stepping(world.handoff.resume_all()).await.unwrap();
        world
            .until("hinted and delivered", || world.sent(3).1.len() == 2)
            .await;
        assert_eq!(world.node(3).not_stored.hints, 0);
        world.close().await;
    });
}

#[test]
fn after_a_shutdown_a_write_is_an_error_before_anything_is_sent() {
    paused(async {
        let world = World::new(&[UP, UP, UP], |_| {}).await;
        world.handoff.shutdown().await.unwrap();
        let error = world.write(Any, 1).await.unwrap_err();
        assert!(matches!(error, PointsWriteError::ShutDown), "{error}");
        assert!(world.writer.seen().is_empty());
        assert_eq!(world.handoff.stats().writes.unstored, 0);
    });
}

/// Below the disk reserve, where a buffered hint counts as stored once it is in the pipeline.
#[test]
fn a_buffered_hint_that_is_refused_is_never_told_as_queued() {
    paused(async {
        for on_not_stored in [OnNotStored::Report, OnNotStored::Fail] {
            let world = World::new(&[DOWN, DOWN, DOWN], |config| {
                config.durability = Durability::Buffered;
                config.min_free_disk = u64::MAX;
                config.on_not_stored = on_not_stored;
            })
            .await;
            for number in 0..5 {
                let error = world.write(Any, number).await.unwrap_err();
                assert!(matches!(error, PointsWriteError::NotStored(_)), "{error}");
            }
            world
                .until("recorded", || world.node(3).not_stored.hints == 5)
                .await;
            world.close().await;
        }
    });
}

/// They wait for room when it begins, and get none any more.
#[test]
fn a_shutdown_records_the_copies_that_wait_for_room() {
    paused(async {
        let full = |config: &mut hinted_handoff::Config| {
            config.max_hints_per_node = Some(1);
            config.when_full = WhenFull::Block;
            config.block_timeout = Duration::from_secs(3600);
        };
        let world = World::new(&[UP, UP, DOWN], full).await;
        for number in 0..20 {
            world.quorum(number).await.unwrap();
        }
        world.until("one is in", || world.pending(3) == 1).await;
        let world = world.reopen(&[UP, UP, DOWN], full).await;
        assert_eq!(recorded(&world, 3).await, 19);
        assert_eq!(world.pending(3), 1);
        world.close().await;
    });
}
