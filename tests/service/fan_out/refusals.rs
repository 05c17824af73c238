//! What a node refuses that others take, and what nobody takes.

use std::time::Duration;

use hinted_handoff::{
    ConsistencyLevel::{All, Any, One, Quorum},
    DeadReason, LossReason, NodeId, OwnerError, Pause, PointsWriteError, WriteOutcome,
};
use hinted_handoff_testkit::Reply;

use super::world::{DOWN, HANG, REJECT, UP, World, paused, points, stepping};

#[test]
fn what_one_owner_rejects_and_another_takes_is_a_dead_letter_of_the_first() {
    paused(async {
        let world = World::new(&[UP, REJECT, UP], |_| {}).await;
        let written = world.quorum(1).await.unwrap();
        assert_eq!(written, WriteOutcome::Written { owners: 2 });
        world
            .until("dead-lettered", || world.node(2).dead_lettered.hints == 1)
            .await;
        let node = world.node(2);
        assert_eq!(
            (
                node.pending.hints,
                node.dead_lettered.hints,
                node.direct.rejected
            ),
            (0, 1, 1)
        );
        let letters = world
            .handoff
            .dead_letters(NodeId(2), None, 10)
            .await
            .unwrap();
        let letter = &letters[0];
        assert_eq!(letter.reason, DeadReason::Rejected);
        assert!(
            letter.error.contains("field type conflict"),
            "{}",
            letter.error
        );
        assert_eq!(letter.attempts, 1);

        // Sent on it goes as any other.
        world.answers(2, [UP, UP, UP]);
        world.handoff.redrive(NodeId(2), letter.id).await.unwrap();
        world.until("sent on", || world.sent(2).1.len() == 1).await;
        assert_eq!(world.sent(2).1[0].points, [points(1)]);
        world.close().await;
    });
}

#[test]
fn what_every_owner_that_answers_refuses_leaves_nothing_behind() {
    paused(async {
        let world = World::new(&[DOWN, REJECT, REJECT], |_| {}).await;
        for level in [Any, One, Quorum, All] {
            for number in 0..10 {
                let refused = world.write(level, number).await.unwrap_err();
                assert!(
                    matches!(refused, PointsWriteError::Refused(_)),
                    "{level:?}: {refused}"
                );
                let PointsWriteError::Refused(tally) = refused else {
                    continue;
                };
                // The first of them that said why, not the one that is away.
                assert_eq!(tally.node, NodeId(2));
                assert!(matches!(tally.cause, OwnerError::Write(_)), "{tally:?}");
            }
        }
        let ended = || world.handoff.stats().writes.withdrawn == 40;
        world.until("40 withdrawn", ended).await;
        let stats = world.handoff.stats();
        assert_eq!(stats.store.pending.hints, 0);
        assert_eq!(
            world.node(1).withdrawn,
            world.node(1).enqueued,
            "its hints left"
        );
        assert!(stats.nodes.iter().all(|node| node.dead_letters.hints == 0));
        assert_eq!(world.handoff.losses(0).await.unwrap().total().hints, 0);
        // Nor does the node get any of it when it is back.
        world.answers(1, [UP, UP, UP]);
        world.pass(Duration::from_secs(3)).await;
        assert!(world.sent(1).1.is_empty());
        world.close().await;
    });
}

#[test]
fn an_owner_that_did_not_answer_in_time_keeps_its_hint_of_a_refused_write() {
    paused(async {
        let world = World::new(&[HANG, REJECT, DOWN], |config| config.fail_early = false).await;
        let refused = world.quorum(1).await.unwrap_err();
        assert!(matches!(refused, PointsWriteError::Refused(_)), "{refused}");
        let ended = || world.handoff.stats().writes.hinted == 1;
        world.until("the hint is an ordinary one", ended).await;
        assert_eq!((world.pending(1), world.pending(3)), (1, 0));
        assert_eq!(world.node(3).withdrawn, world.node(3).enqueued);
        world.answers(1, [UP, UP, UP]);
        world.until("delivered", || world.pending(1) == 0).await;
        world.close().await;
    });
}

#[test]
fn a_shard_that_is_gone_at_one_owner_is_told_by_the_loss_journal() {
    paused(async {
        let world = World::new(&[UP, UP, Reply::Obsolete], |_| {}).await;
        world.quorum(1).await.unwrap();
        world.until("lost", || world.node(3).lost.hints == 1).await;
        let losses = world.handoff.losses(0).await.unwrap();
        let (_, loss) = &losses.entries[0];
        assert_eq!((loss.node, loss.reason), (NodeId(3), LossReason::Obsolete));
        assert_eq!(world.pending(3), 0);
        world.close().await;
    });
}

/// The send is outstanding when its hint is made, and is refused then.
#[test]
fn a_late_refusal_makes_a_dead_letter_of_the_hint_in_one_step() {
    paused(async {
        let world = World::new(&[UP, UP, Reply::Slow(Duration::from_millis(300))], |_| {}).await;
        world.answers(3, [Reply::RejectLate(Duration::from_millis(300)), UP, UP]);
        world.quorum(1).await.unwrap();
        world.until("hinted", || world.pending(3) == 1).await;
        world
            .until("dead-lettered", || world.node(3).dead_letters.hints == 1)
            .await;
        assert_eq!(world.pending(3), 0, "never both");
        let node = world.node(3);
        assert_eq!(
            (
                node.enqueued.hints,
                node.withdrawn.hints,
                node.dead_lettered.hints
            ),
            (1, 0, 1)
        );
        assert!(world.sent(3).1.is_empty());
        world.close().await;
    });
}

/// The caller was told early; then the last owner takes it after all.
#[test]
fn what_was_told_as_refused_and_is_taken_late_is_a_dead_letter_of_those_who_refused() {
    paused(async {
        let late = Reply::Slow(Duration::from_secs(1));
        let world = World::new(&[REJECT, REJECT, late], |_| {}).await;
        let refused = world.quorum(1).await.unwrap_err();
        let PointsWriteError::Refused(tally) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!((tally.written, tally.pending), (0, 1));
        let dead_lettered =
            || world.node(1).dead_letters.hints + world.node(2).dead_letters.hints == 2;
        world.until("dead-lettered", dead_lettered).await;
        assert_eq!(world.pending(3), 0);
        world.close().await;
    });
}

/// It may have taken the write, and nothing brings it there: that is not withdrawn but recorded.
#[test]
fn an_owner_that_did_not_answer_and_has_no_room_for_a_hint_is_recorded_for_a_refused_write() {
    paused(async {
        let world = World::new(&[HANG, REJECT], |config| {
            config.fail_early = false;
            config.max_hints_per_node = Some(1);
        })
        .await;
        // Nothing is pinged, so the gate is open.
        stepping(world.handoff.pause_all(Pause::UntilRestart))
            .await
            .unwrap();
        world.fill_with(1).await;
        let refused = world.write(All, 1).await.unwrap_err();
        assert!(matches!(refused, PointsWriteError::Refused(_)), "{refused}");
        world
            .until("recorded", || world.node(1).not_stored.hints == 1)
            .await;
        world.close().await;
    });
}

#[test]
fn an_owner_whose_writer_panicked_keeps_its_hint_of_a_refused_write() {
    paused(async {
        let world = World::new(&[Reply::Panic, REJECT], |config| config.fail_early = false).await;
        let refused = world.write(All, 1).await.unwrap_err();
        assert!(matches!(refused, PointsWriteError::Refused(_)), "{refused}");
        let ended = || world.handoff.stats().writes.hinted == 1;
        world.until("hinted", ended).await;
        assert_eq!((world.pending(1), world.node(1).withdrawn.hints), (1, 0));
        world.close().await;
    });
}
