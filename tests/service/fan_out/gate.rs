//! One gate a node: closed, writes are hinted at once; what opens it is that the node answers.

use std::time::Duration;

use hinted_handoff::{
    ConsistencyLevel::{self, All, One},
    Event, Gate, NodeId, OwnerError, Pause, PointsWriteError,
    internals::Hint,
};
use hinted_handoff_testkit::Reply;
use tokio::time::Instant;

use super::world::{DOWN, HANG, UP, World, paused, stepping};

fn is_closed(world: &World, node: u64) -> bool {
    matches!(world.node(node).gate, Gate::Closed { .. })
}

#[test]
fn a_node_that_hangs_gets_few_writes_and_the_others_are_hinted_at_once() {
    paused(async {
        let world = World::new(&[UP, UP, HANG], |_| {}).await;
        for number in 0..300 {
            world.quorum(number).await.unwrap();
            world.pass(Duration::from_millis(1)).await;
        }
        world
            .until("hinted", || world.node(3).enqueued.hints == 300)
            .await;
        let node = world.node(3);
        let Gate::Closed {
            why, since_unix_ms, ..
        } = node.gate
        else {
            panic!("it is open");
        };
        assert!(why.contains("100ms") && since_unix_ms > 0, "{why}");
        let tried = world.sent(3).0.len() as u64;
        assert!(tried < 250, "{tried} of 300 were sent");
        assert_eq!(node.direct.not_tried, 300 - tried);
        let events = world.events();
        let closed = events.iter().filter(|it| {
            matches!(
                it,
                Event::GateClosed {
                    node: NodeId(3),
                    ..
                }
            )
        });
        assert_eq!(closed.count(), 1);

        // The node is back: replay finds out, and writes are sent again.
        world.answers(3, [UP, UP, UP]);
        world.until("open", || !is_closed(&world, 3)).await;
        assert!(world.events().iter().any(|it| matches!(
            it,
            Event::GateOpened {
                node: NodeId(3),
                ..
            }
        )));
        world.write(All, 1000).await.unwrap();
        world.until("delivered", || world.pending(3) == 0).await;
        assert_eq!(
            world.writer.taken().len(),
            301 * 3,
            "each once, at each node"
        );
        world.close().await;
    });
}

#[test]
fn one_bad_shard_does_not_close_the_gate_and_two_do() {
    paused(async {
        let world = World::new(&[DOWN], |_| {}).await;
        // Pings are answered, so only the writes tell.
        world.answers(1, [DOWN, DOWN, UP]);
        let pausing = world.handoff.pause_all(Pause::UntilRestart);
        stepping(pausing).await.unwrap();
        for number in 0..5 {
            let error = world.write_to(7, One, number).await.unwrap_err();
            assert!(matches!(error, PointsWriteError::Failed(_)), "{error}");
        }
        assert_eq!(world.node(1).gate, Gate::Open);
        world.write_to(8, One, 5).await.unwrap_err();
        assert!(is_closed(&world, 1));
        let error = world.write_to(9, One, 6).await.unwrap_err();
        let PointsWriteError::Unreachable(tally) = error else {
            panic!("{error:?}");
        };
        assert!(matches!(tally.cause, OwnerError::GateClosed));
        assert_eq!(tally.hinted, 1);
        assert_eq!(world.sent(1).0.len(), 6, "the last was not tried");
        world.close().await;
    });
}

#[test]
fn a_failed_ping_closes_it() {
    paused(async {
        let world = World::new(&[DOWN, UP, UP], |_| {}).await;
        world.quorum(1).await.unwrap();
        world.until("pinged", || is_closed(&world, 1)).await;
        let Gate::Closed { why, .. } = world.node(1).gate else {
            panic!("open");
        };
        assert!(why.contains("ping"), "{why}");
        let began = Instant::now();
        world.quorum(2).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(8));
        world.until("hinted", || world.pending(1) == 2).await;
        assert_eq!(world.sent(1).0.len(), 1);
        world.close().await;
    });
}

#[test]
fn where_nothing_is_replayed_one_write_at_the_retry_interval_tries_it() {
    paused(async {
        let world = World::new(&[DOWN, UP, UP], |_| {}).await;
        world.quorum(1).await.unwrap();
        world.until("closed", || is_closed(&world, 1)).await;
        let pausing = world.handoff.pause(NodeId(1), Pause::UntilRestart);
        stepping(pausing).await.unwrap();
        world.pass(Duration::from_millis(500)).await;
        for number in 0..20 {
            world.quorum(number).await.unwrap();
        }
        world.until("hinted", || world.pending(1) == 21).await;
        assert_eq!(world.sent(1).0.len(), 2, "one has tried it");
        world.answers(1, [UP, UP, UP]);
        world.pass(Duration::from_millis(500)).await;
        world.quorum(30).await.unwrap();
        world.until("open", || !is_closed(&world, 1)).await;
        world.write(All, 31).await.unwrap();
        assert_eq!(world.pending(1), 21, "it is paused still");
        world.close().await;
    });
}

#[test]
fn a_node_that_is_slow_and_answers_keeps_its_gate_open_for_those_who_write_meanwhile() {
    paused(async {
        let slow = Reply::Slow(Duration::from_millis(150));
        let world = World::new(&[slow], |_| {}).await;
        // It closes for the first, which nobody answered before, and opens with its answer.
        world.write(One, 0).await.unwrap();
        assert_eq!(world.node(1).gate, Gate::Open);
        assert_eq!(world.pending(1), 0);
        assert_eq!(world.writer.taken().len(), 1);
        world.close().await;
    });
}

/// Replay, which opens a gate as a rule, has nothing to send where no hint can be stored.
#[test]
fn a_gate_opens_also_where_no_hint_of_the_node_can_be_stored() {
    paused(async {
        let world = World::new(&[UP, UP, DOWN], |config| config.max_hints = Some(1)).await;
        // Another node has all the room.
        world.answers(4, [DOWN, DOWN, DOWN]);
        world.fill_with(4).await;
        world.until("down", || world.node(4).failures > 0).await;
        for (shard, number) in [(7, 1), (8, 2)] {
            let written = world.write_to(shard, ConsistencyLevel::Quorum, number);
            written.await.unwrap();
        }
        world.until("closed", || is_closed(&world, 3)).await;
        world.answers(3, [UP, UP, UP]);
        world.pass(Duration::from_secs(1)).await;
        world.quorum(3).await.unwrap();
        world.until("open", || !is_closed(&world, 3)).await;
        world.write(All, 4).await.unwrap();
        world.close().await;
    });
}

#[test]
fn a_ping_opens_it_where_all_that_waits_is_of_an_unknown_format() {
    paused(async {
        let world = World::new(&[UP, UP, DOWN], |_| {}).await;
        let store = world.handoff.store_below();
        let (tell, told) = std::sync::mpsc::channel();
        let hint = Hint {
            format: 99,
            ..crate::common::hint(9, "newer")
        };
        store.append(NodeId(3), hint, Box::new(move |id| tell.send(id).unwrap()));
        told.recv().unwrap().unwrap();
        world.until("closed", || is_closed(&world, 3)).await;
        world.answers(3, [UP, UP, UP]);
        world.until("open", || !is_closed(&world, 3)).await;
        world.write(All, 1).await.unwrap();
        assert_eq!(world.pending(3), 1, "it waits for a build that reads it");
        world.close().await;
    });
}
