//! Age: what is too old leaves whether its node is up or down, in order, and the wall clock is
//! believed only when it can be.
//!
//! Both clocks are the test's: tokio's stands still until it is moved, the wall clock follows it
//! and jumps when it is told to.

use std::{path::Path, sync::Arc, time::Duration};

use crate::common::{
    self,
    frozen::{a_moment, freeze, pass, pass_in_steps, soon, until},
    service::node_stats,
};
use bytes::Bytes;
use hinted_handoff::{
    Config, HintedHandoff, NodeId, ShardId,
    internals::{Peek, PeekLimits, Reader, WallClock},
};
use hinted_handoff_testkit::{Reply, ScriptedWriter};

type Handoff = HintedHandoff<Bytes>;

const NODE: NodeId = NodeId(1);
const START: u64 = 1_700_000_000_000;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn config(dir: &Path) -> Config {
    Config {
        max_age: HOUR,
        ..common::config(dir)
    }
}

async fn open(config: Config, clock: &WallClock) -> (Handoff, Arc<ScriptedWriter>) {
    let writer = Arc::new(ScriptedWriter::down());
    let handoff = Handoff::open_by_clock(config, clock.clone(), Arc::clone(&writer)).await;
    // The service's own task begins.
    a_moment().await;
    (handoff.unwrap(), writer)
}

async fn write(handoff: &Handoff, text: &'static str) {
    let points = Bytes::from_static(text.as_bytes());
    handoff
        .write_shard(NODE, ShardId(1), &points)
        .await
        .unwrap();
}

fn pending(handoff: &Handoff) -> u64 {
    node_stats(handoff, NODE).pending.hints
}

fn payloads(handoff: &Handoff) -> Vec<Bytes> {
    common::payloads(&handoff.store_below(), NODE.0)
}

#[tokio::test(start_paused = true)]
async fn hints_of_a_node_that_is_down_leave_when_they_are_too_old_and_no_sooner() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let (handoff, writer) = open(config(dir.path()), &WallClock::new(START)).await;
    write(&handoff, "first").await;
    pass(MINUTE).await;
    write(&handoff, "second").await;
    assert_eq!(node_stats(&handoff, NODE).oldest_age, Some(MINUTE));
    pass_in_steps(58 * MINUTE).await;
    pass(Duration::from_secs(59)).await;
    assert_eq!(pending(&handoff), 2);
    pass(Duration::from_secs(2)).await;
    until("the first is gone", || {
        node_stats(&handoff, NODE).expired.hints == 1
    })
    .await;
    a_moment().await;
    assert_eq!(payloads(&handoff), ["second"]);
    let stats = node_stats(&handoff, NODE);
    assert_eq!(
        (stats.expired.hints, stats.expired.bytes, stats.lost.hints),
        (1, 5, 1)
    );
    assert_eq!(stats.dropped.hints, 0);
    assert_eq!(stats.oldest_age, Some(59 * MINUTE + Duration::from_secs(1)));
    pass(MINUTE).await;
    soon("the second is gone", || pending(&handoff) == 0).await;
    assert_eq!(node_stats(&handoff, NODE).oldest_age, None);
    assert!(writer.seen().is_empty());
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_long_backlog_that_is_too_old_leaves_whole_for_every_node() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let manual = Config {
        manual_nodes: [NodeId(2)].into(),
        ..config(dir.path())
    };
    let (handoff, _) = open(manual, &WallClock::new(START)).await;
    for node in 1..=3 {
        let mut old: Vec<_> = (0..2500).map(|_| common::hint(1, "old")).collect();
        old.iter_mut()
            .for_each(|hint| hint.enqueued_unix_ms = START);
        common::try_append(&handoff.store_below(), node, old);
    }
    pass_in_steps(30 * MINUTE).await;
    for node in 1..=3 {
        let points = Bytes::from_static(b"young");
        handoff
            .write_shard(NodeId(node), ShardId(1), &points)
            .await
            .unwrap();
    }
    assert_eq!(handoff.stats().store.pending.hints, 7503);
    pass_in_steps(31 * MINUTE).await;
    soon("the old ones are gone", || {
        let nodes = handoff.stats().nodes;
        nodes.iter().all(|it| it.expired.hints == 2500)
    })
    .await;
    assert_eq!(handoff.stats().store.pending.hints, 3);
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_hint_in_flight_does_not_expire_and_those_behind_it_do() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let manual = Config {
        manual_nodes: [NODE].into(),
        ..config(dir.path())
    };
    let (handoff, _) = open(manual, &WallClock::new(START)).await;
    for text in ["in flight", "old", "also in flight", "old too"] {
        write(&handoff, text).await;
    }
    let store = handoff.store_below();
    let limits = PeekLimits {
        hints: 9,
        payload_bytes: 999,
    };
    let Peek::Hints(hints) = store.peek(&mut Reader::default(), NODE, limits).unwrap() else {
        panic!();
    };
    let mut claimed = vec![hints[0].clone(), hints[2].clone()];
    store.claim(NODE, &mut claimed);
    assert_eq!(claimed.len(), 2);
    pass_in_steps(HOUR + 2 * MINUTE).await;
    soon("the old ones are gone", || pending(&handoff) == 2).await;
    assert_eq!(payloads(&handoff), ["in flight", "also in flight"]);
    assert_eq!(
        node_stats(&handoff, NODE).oldest_age,
        Some(HOUR + 2 * MINUTE)
    );
    // It was not delivered: now it is as old as any.
    store.release(NODE, &claimed);
    pass(MINUTE).await;
    soon("they are gone too", || pending(&handoff) == 0).await;
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_expires_for_a_while_after_open() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let clock = WallClock::new(START);
    let (handoff, _) = open(config(dir.path()), &clock).await;
    write(&handoff, "old").await;
    handoff.shutdown().await.unwrap();
    pass(2 * HOUR).await;
    let (handoff, _) = open(config(dir.path()), &clock).await;
    pass(Duration::from_secs(59)).await;
    assert_eq!(pending(&handoff), 1);
    assert_eq!(
        node_stats(&handoff, NODE).oldest_age,
        Some(2 * HOUR + Duration::from_secs(59))
    );
    pass(Duration::from_secs(2)).await;
    soon("it is gone", || pending(&handoff) == 0).await;
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_is_not_believed_for_a_while() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let clock = WallClock::new(START);
    let (handoff, _) = open(config(dir.path()), &clock).await;
    write(&handoff, "of an earlier life").await;
    handoff.shutdown().await.unwrap();
    // To this life the hint is of the future, until the clock is set, a day too far.
    clock.jump_back(HOUR);
    let (handoff, _) = open(config(dir.path()), &clock).await;
    pass_in_steps(2 * MINUTE).await;
    clock.jump_forward(25 * HOUR);
    pass(MINUTE).await;
    assert_eq!(
        pending(&handoff),
        1,
        "the jump was taken for time that passed"
    );
    // It is set right within the grace: nothing is lost.
    clock.jump_back(24 * HOUR);
    pass_in_steps(10 * MINUTE).await;
    assert_eq!(pending(&handoff), 1);
    // Once more, and this time it stays.
    clock.jump_forward(24 * HOUR);
    pass(MINUTE).await;
    assert_eq!(pending(&handoff), 1);
    pass_in_steps(2 * MINUTE).await;
    soon("it is gone", || pending(&handoff) == 0).await;
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_ahead_makes_no_hint_immortal_and_one_set_back_expires_nothing() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let clock = WallClock::new(START + 1000 * HOUR.as_millis() as u64);
    let (handoff, _) = open(config(dir.path()), &clock).await;
    write(&handoff, "stamped ahead").await;
    pass_in_steps(2 * MINUTE).await;
    clock.jump_back(1000 * HOUR);
    pass_in_steps(2 * MINUTE).await;
    write(&handoff, "stamped right").await;
    assert_eq!(node_stats(&handoff, NODE).oldest_age, Some(4 * MINUTE));
    pass_in_steps(50 * MINUTE).await;
    assert_eq!(pending(&handoff), 2);
    pass_in_steps(7 * MINUTE).await;
    soon("the first is gone", || pending(&handoff) == 1).await;
    assert_eq!(payloads(&handoff), ["stamped right"]);
    pass_in_steps(3 * MINUTE).await;
    soon("the second is gone", || pending(&handoff) == 0).await;
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn hints_from_the_future_of_an_earlier_life_count_from_when_they_are_first_seen() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let clock = WallClock::new(START + 1000 * HOUR.as_millis() as u64);
    let (handoff, _) = open(config(dir.path()), &clock).await;
    write(&handoff, "stamped ahead").await;
    handoff.shutdown().await.unwrap();
    clock.jump_back(1000 * HOUR);
    let (handoff, _) = open(config(dir.path()), &clock).await;
    pass_in_steps(59 * MINUTE).await;
    assert_eq!(pending(&handoff), 1);
    pass_in_steps(3 * MINUTE).await;
    soon("it is gone", || pending(&handoff) == 0).await;
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn how_old_a_backlog_is_is_known_after_a_restart_though_its_node_is_down() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let clock = WallClock::new(START);
    let ageless = Config {
        max_age: Duration::ZERO,
        ..config(dir.path())
    };
    let (handoff, _) = open(ageless.clone(), &clock).await;
    write(&handoff, "old").await;
    pass(HOUR).await;
    write(&handoff, "young").await;
    handoff.shutdown().await.unwrap();
    let (handoff, _) = open(ageless, &clock).await;
    until("it was read", || {
        node_stats(&handoff, NODE).oldest_age.is_some()
    })
    .await;
    assert_eq!(node_stats(&handoff, NODE).oldest_age, Some(HOUR));
    pass(100 * HOUR).await;
    assert_eq!(pending(&handoff), 2);
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_grace_of_nothing_is_none() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let clock = WallClock::new(START);
    let hasty = Config {
        expiry_grace: Duration::ZERO,
        ..config(dir.path())
    };
    let (handoff, _) = open(hasty.clone(), &clock).await;
    write(&handoff, "old").await;
    handoff.shutdown().await.unwrap();
    pass(2 * HOUR).await;
    let (handoff, _) = open(hasty, &clock).await;
    soon("it is gone", || pending(&handoff) == 0).await;
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_short_age_is_kept_to_the_second_though_nothing_waited_before() {
    let _frozen = freeze();
    for max_age in [1, 2, 5, 20].map(Duration::from_secs) {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            max_age,
            ..common::config(dir.path())
        };
        let (handoff, _) = open(config, &WallClock::new(START)).await;
        // The task has looked, found nothing, and sleeps.
        pass(Duration::from_millis(300)).await;
        write(&handoff, "short-lived").await;
        let step = Duration::from_millis(100);
        let mut age = Duration::ZERO;
        while age + step < max_age {
            pass(step).await;
            age += step;
        }
        assert_eq!(pending(&handoff), 1, "it left before {max_age:?}");
        while pending(&handoff) > 0 && age < max_age + 10 * MINUTE {
            pass(step).await;
            age += step;
        }
        let late = age - max_age;
        assert!(late <= Duration::from_secs(2), "{max_age:?}: {late:?} late");
        handoff.shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_is_too_old_is_not_sent_though_nobody_has_looked_since() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        max_age: Duration::from_secs(1),
        retry_interval: Duration::from_millis(50),
        retry_max_interval: Duration::from_millis(50),
        ..common::config(dir.path())
    };
    let (handoff, writer) = open(config, &WallClock::new(START)).await;
    let tenth = Duration::from_millis(100);
    // The task looks once a second: now, and half a second after each of these is too old.
    for _ in 0..5 {
        pass(tenth).await;
    }
    write(&handoff, "old").await;
    for _ in 0..11 {
        pass(tenth).await;
    }
    write(&handoff, "young").await;
    assert_eq!(
        pending(&handoff),
        2,
        "the task has looked: nothing is shown"
    );
    writer.follow_pings(|_| Reply::Take);
    writer.follow(|_| Reply::Take);
    pass(tenth).await;
    until("all is done", || pending(&handoff) == 0).await;
    assert_eq!(writer.taken(), ["young"]);
    assert_eq!(node_stats(&handoff, NODE).expired.hints, 1);
    handoff.shutdown().await.unwrap();
}
