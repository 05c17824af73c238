//! An answer that means that no copy can be missing any more without a record.

use std::{sync::Arc, time::Duration};

use hinted_handoff::{
    AnswerWhen, Config, ConsistencyLevel::One, Durability, LossReason, PointsWriteError,
    internals::CommitFault,
};
use hinted_handoff_testkit::Reply;
use tokio::time::Instant;

use super::world::{DOWN, HANG, REJECT, UP, World, paused};
use crate::common::copy::copy_of;

/// What is not waited for takes longer: 10 s, the write timeout.
const LONG: Duration = Duration::from_secs(8);

fn accounted(config: &mut Config) {
    config.answer = AnswerWhen::Accounted;
}

/// What a crash right behind the answer leaves of the copy of node 3: hints, dead letters, losses.
async fn after_a_crash(world: &World) -> (u64, u64, u64) {
    let copy = Arc::new(copy_of(world.dir()));
    let after = World::in_dir(copy, &[DOWN, DOWN, DOWN], |_| {}).await;
    let losses = after.handoff.losses(0).await.unwrap().entries;
    let lost = losses.iter().map(|(_, loss)| loss.amount.hints).sum();
    let nodes = after.handoff.stats().nodes;
    let node = nodes.iter().find(|it| it.node.0 == 3);
    let found = node.map_or((0, 0, lost), |node| {
        (node.pending.hints, node.dead_letters.hints, lost)
    });
    after.close().await;
    found
}

#[test]
fn the_answer_waits_for_the_hint_of_the_last_copy_or_its_reply() {
    paused(async {
        for durability in [Durability::Sync, Durability::Buffered] {
            let change = |config: &mut Config| {
                accounted(config);
                config.durability = durability;
            };
            for (last, expected) in [
                (HANG, 100),
                (DOWN, 0),
                (Reply::Slow(Duration::from_millis(50)), 50),
            ] {
                let world = World::new(&[UP, UP, last], change).await;
                let began = Instant::now();
                world.quorum(1).await.unwrap();
                let expected = Duration::from_millis(expected);
                // The commit takes its time, and the clock goes on meanwhile.
                let took = began.elapsed();
                assert!((expected..LONG).contains(&took), "{last:?}: {took:?}");
                let left = after_a_crash(&world).await;
                let is_taken = world.node(3).direct.taken == 1;
                assert_eq!(
                    left,
                    (u64::from(!is_taken), 0, 0),
                    "{last:?} {durability:?}"
                );
                world.close().await;
            }
        }
    });
}

#[test]
fn a_copy_that_was_refused_is_a_dead_letter_durably() {
    paused(async {
        let world = World::new(&[UP, UP, REJECT], accounted).await;
        world.quorum(1).await.unwrap();
        assert_eq!(after_a_crash(&world).await, (0, 1, 0));
        world.close().await;
        let world = World::new(&[UP, UP, Reply::Obsolete], accounted).await;
        world.quorum(1).await.unwrap();
        assert_eq!(after_a_crash(&world).await, (0, 0, 1));
        world.close().await;
    });
}

#[test]
fn a_copy_that_could_not_be_stored_is_recorded_durably() {
    paused(async {
        let world = World::new(&[UP, UP, DOWN], |config| {
            accounted(config);
            config.max_hints_per_node = Some(1);
        })
        .await;
        world.quorum(1).await.unwrap();
        world.quorum(2).await.unwrap();
        assert_eq!(after_a_crash(&world).await, (1, 0, 1));
        let losses = world.handoff.losses(0).await.unwrap();
        assert_eq!(losses.by_reason[&LossReason::NotStored].hints, 1);
        world.close().await;
    });
}

/// Neither a hint nor a record can be made, so nobody is told that all is well.
#[test]
fn without_a_store_it_is_an_error_within_twice_the_write_timeout() {
    paused(async {
        let world = World::new(&[UP, UP, DOWN], accounted).await;
        world.handoff.inject(CommitFault::Fail);
        let began = Instant::now();
        let error = world.quorum(1).await.unwrap_err();
        let PointsWriteError::Unaccounted(tally) = error else {
            panic!("{error:?}");
        };
        assert_eq!((tally.written, tally.not_stored), (2, 1));
        assert!(began.elapsed() <= Duration::from_secs(21));
        // Where no store is needed there is nothing to wait for.
        world.answers(3, [UP, UP, UP]);
        world
            .until("open", || world.node(3).gate == hinted_handoff::Gate::Open)
            .await;
        world.write(One, 2).await.unwrap();
        world.handoff.disk_works_again();
        let _ = world.handoff.shutdown().await;
    });
}
