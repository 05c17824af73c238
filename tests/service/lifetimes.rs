//! Lifetimes of single hints: each leaves when its own is over, wherever it stands, and nobody is
//! given it after that.
//!
//! Both clocks are the test's: tokio's stands still until it is moved, and the wall clock follows
//! it.

use std::{path::Path, sync::Arc, time::Duration};

use crate::common::{
    self,
    frozen::{a_moment, freeze, pass, until},
    service::node_stats,
};
use bytes::Bytes;
use hinted_handoff::{
    Config, Expiring, HintedHandoff, LossReason, NodeId, Payload, Pong, Postcard, ShardId,
    ShardWrite, ShardWriter, WriteError, internals::WallClock,
};
use hinted_handoff_testkit::{Reply, ScriptedWriter};

type Handoff = HintedHandoff<Expiring<Bytes>>;

const NODE: NodeId = NodeId(1);
const SHARD: ShardId = ShardId(7);
const START: u64 = 1_700_000_000_000;
const TENTH: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Hands the points on without what is beside them.
struct Plain(Arc<ScriptedWriter>);

impl ShardWriter<Expiring<Bytes>> for Plain {
    async fn write_shard(&self, write: ShardWrite<Expiring<Bytes>>) -> Result<(), WriteError> {
        self.0.write_shard(write.map(|it| it.points)).await
    }

    async fn ping(&self, node: NodeId) -> Result<Pong, WriteError> {
        <ScriptedWriter as ShardWriter<Bytes>>::ping(&self.0, node).await
    }
}

fn config(dir: &Path) -> Config {
    Config {
        retry_interval: Duration::from_millis(50),
        retry_max_interval: Duration::from_millis(50),
        ..common::config(dir)
    }
}

async fn open(config: Config, clock: &WallClock) -> (Handoff, Arc<ScriptedWriter>) {
    let writer = Arc::new(ScriptedWriter::down());
    let plain = Plain(Arc::clone(&writer));
    let handoff = Handoff::open_by_clock(config, clock.clone(), plain).await;
    a_moment().await;
    (handoff.unwrap(), writer)
}

fn points(text: &'static str, after: Option<Duration>) -> Expiring<Bytes> {
    Expiring {
        points: Bytes::from_static(text.as_bytes()),
        after,
    }
}

async fn write(handoff: &Handoff, text: &'static str, after: Option<Duration>) {
    let written = handoff.write_shard(NODE, SHARD, &points(text, after)).await;
    written.unwrap();
}

fn payloads(handoff: &Handoff) -> Vec<Bytes> {
    common::payloads(&handoff.store_below(), NODE.0)
}

/// In steps until something is so; how long that took.
async fn passed_until(most: Duration, mut is_so: impl FnMut() -> bool) -> Duration {
    let mut passed = Duration::ZERO;
    while !is_so() {
        assert!(passed < most, "not so within {most:?}");
        pass(TENTH).await;
        passed += TENTH;
    }
    passed
}

#[tokio::test(start_paused = true)]
async fn each_hint_leaves_within_two_seconds_of_its_own_time_wherever_it_stands() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let (handoff, writer) = open(config(dir.path()), &WallClock::new(START)).await;
    write(&handoff, "for ever", None).await;
    write(&handoff, "an hour", Some(HOUR)).await;
    write(&handoff, "five seconds", Some(5 * SECOND)).await;
    write(&handoff, "three seconds", Some(3 * SECOND)).await;
    write(&handoff, "for ever too", None).await;
    let expired = |hints| {
        let handoff = &handoff;
        move || node_stats(handoff, NODE).expired.hints == hints
    };
    let took = passed_until(5 * SECOND, expired(1)).await;
    assert!((3 * SECOND..=5 * SECOND).contains(&took), "{took:?}");
    assert_eq!(
        payloads(&handoff),
        ["for ever", "an hour", "five seconds", "for ever too"]
    );
    let took = took + passed_until(4 * SECOND, expired(2)).await;
    assert!((5 * SECOND..=7 * SECOND).contains(&took), "{took:?}");
    // One that is shorter than the task sleeps.
    write(&handoff, "a second", Some(SECOND)).await;
    let took = passed_until(3 * SECOND, expired(3)).await;
    assert!(took >= SECOND, "{took:?}");
    pass(30 * MINUTE).await;
    assert_eq!(payloads(&handoff), ["for ever", "an hour", "for ever too"]);
    pass(31 * MINUTE).await;
    until("the hour is over", expired(4)).await;
    assert_eq!(payloads(&handoff), ["for ever", "for ever too"]);
    let losses = handoff.losses(0).await.unwrap().entries;
    assert!(
        losses
            .iter()
            .all(|(_, loss)| loss.reason == LossReason::Expired)
    );
    let lost: u64 = losses.iter().map(|(_, loss)| loss.amount.hints).sum();
    assert_eq!((lost, node_stats(&handoff, NODE).lost.hints), (4, 4));
    assert!(writer.taken().is_empty());
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_lives_longer_than_all_hints_may_leaves_with_the_others() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        max_age: MINUTE,
        ..config(dir.path())
    };
    let (handoff, _) = open(config, &WallClock::new(START)).await;
    write(&handoff, "an hour", Some(HOUR)).await;
    pass(59 * SECOND).await;
    assert_eq!(node_stats(&handoff, NODE).expired.hints, 0);
    passed_until(3 * SECOND, || node_stats(&handoff, NODE).expired.hints == 1).await;
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_hint_whose_time_is_over_is_not_sent_and_those_around_it_are_in_their_order() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let (handoff, writer) = open(config(dir.path()), &WallClock::new(START)).await;
    // The task looks once a second: it has seen the first of these, and sleeps when they are over.
    write(&handoff, "brief", Some(SECOND)).await;
    passed_until(3 * SECOND, || node_stats(&handoff, NODE).expired.hints == 1).await;
    pass(TENTH).await;
    for (text, after) in [
        ("one", None),
        ("over", Some(5 * TENTH)),
        ("two", Some(HOUR)),
        ("over too", Some(5 * TENTH)),
        ("three", None),
    ] {
        write(&handoff, text, after).await;
    }
    for _ in 0..6 {
        pass(TENTH).await;
    }
    assert_eq!(
        payloads(&handoff).len(),
        5,
        "the task has looked: nothing is shown"
    );
    writer.follow_pings(|_| Reply::Take);
    writer.follow(|_| Reply::Take);
    pass(TENTH).await;
    until("all is done", || {
        node_stats(&handoff, NODE).pending.hints == 0
    })
    .await;
    assert_eq!(writer.taken(), ["one", "two", "three"]);
    assert_eq!(node_stats(&handoff, NODE).expired.hints, 3);
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_consumer_is_not_given_what_is_over() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        manual_nodes: [NODE].into(),
        ..config(dir.path())
    };
    let (handoff, _) = open(config, &WallClock::new(START)).await;
    let mut consumer = handoff.consumer(NODE).unwrap();
    for (text, after) in [
        ("over", Some(5 * TENTH)),
        ("one", None),
        ("over too", Some(5 * TENTH)),
        ("two", None),
    ] {
        write(&handoff, text, after).await;
    }
    // Told of the time, but not the task: it looks a second after the last look.
    tokio::time::advance(6 * TENTH).await;
    let mut taken = Vec::new();
    while taken.len() < 2 {
        let peeked = consumer.peek(10).await.unwrap();
        taken.extend(peeked.iter().map(|it| it.points.points.clone()));
        consumer.ack(&peeked).await.unwrap();
    }
    assert_eq!(taken, ["one", "two"]);
    assert!(consumer.peek(10).await.unwrap().is_empty());
    until("they are counted", || {
        node_stats(&handoff, NODE).expired.hints == 2
    })
    .await;
    drop(consumer);
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_is_sent_on_has_what_is_left_of_its_time() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let (handoff, writer) = open(config(dir.path()), &WallClock::new(START)).await;
    writer.follow_pings(|_| Reply::Take);
    writer.follow(|_| Reply::Reject);
    write(&handoff, "over by then", Some(MINUTE)).await;
    write(&handoff, "an hour", Some(HOUR)).await;
    passed_until(MINUTE / 2, || {
        node_stats(&handoff, NODE).dead_letters.hints == 2
    })
    .await;
    writer.follow(|_| Reply::Retry);
    writer.follow_pings(|_| Reply::Retry);
    pass(30 * MINUTE).await;
    assert_eq!(
        node_stats(&handoff, NODE).dead_letters.hints,
        2,
        "dead letters are kept"
    );
    let redriven = handoff.redrive_all(NODE).await.unwrap();
    assert_eq!(redriven.hints.len(), 2);
    passed_until(3 * SECOND, || node_stats(&handoff, NODE).expired.hints == 1).await;
    assert_eq!(payloads(&handoff), ["an hour"]);
    pass(29 * MINUTE).await;
    assert_eq!(node_stats(&handoff, NODE).expired.hints, 1);
    pass(MINUTE).await;
    passed_until(3 * SECOND, || node_stats(&handoff, NODE).expired.hints == 2).await;
    assert_eq!(writer.taken(), [""; 0]);
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_loses_nothing_of_its_time_to_a_clock_that_is_not_believed_yet() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let clock = WallClock::new(START);
    let (handoff, writer) = open(config(dir.path()), &clock).await;
    writer.follow_pings(|_| Reply::Take);
    writer.follow(|_| Reply::Reject);
    write(&handoff, "ten hours", Some(10 * HOUR)).await;
    passed_until(MINUTE, || {
        node_stats(&handoff, NODE).dead_letters.hints == 1
    })
    .await;
    handoff.shutdown().await.unwrap();
    // The machine comes up with a clock that is a day ahead, and is set right half a minute later.
    clock.jump_forward(24 * HOUR);
    let (handoff, _) = open(config(dir.path()), &clock).await;
    assert_eq!(handoff.redrive_all(NODE).await.unwrap().hints.len(), 1);
    pass(MINUTE / 2).await;
    clock.jump_back(24 * HOUR);
    pass(2 * MINUTE).await;
    assert_eq!(payloads(&handoff), ["ten hours"]);
    // Late by what it had lived before, not early.
    pass(10 * HOUR).await;
    passed_until(3 * SECOND, || node_stats(&handoff, NODE).expired.hints == 1).await;
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn lifetimes_go_on_over_a_restart_also_behind_hints_that_have_none() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let clock = WallClock::new(START);
    let (handoff, _) = open(config(dir.path()), &clock).await;
    write(&handoff, "for ever", None).await;
    write(&handoff, "an hour", Some(HOUR)).await;
    write(&handoff, "two hours", Some(2 * HOUR)).await;
    handoff.shutdown().await.unwrap();
    pass(HOUR).await;
    let (handoff, _) = open(config(dir.path()), &clock).await;
    // Nothing that an earlier life stored expires for so long.
    pass(MINUTE).await;
    passed_until(3 * SECOND, || node_stats(&handoff, NODE).expired.hints == 1).await;
    assert_eq!(payloads(&handoff), ["for ever", "two hours"]);
    pass(57 * MINUTE).await;
    assert_eq!(node_stats(&handoff, NODE).expired.hints, 1);
    pass(2 * MINUTE).await;
    passed_until(3 * SECOND, || node_stats(&handoff, NODE).expired.hints == 2).await;
    assert_eq!(payloads(&handoff), ["for ever"]);
    handoff.shutdown().await.unwrap();
}

/// Of a table of a host's, which knows its grace period.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Row(String);

#[derive(Clone)]
struct Table(Postcard<Row, 0>);

impl Payload for Table {
    const FORMAT: u16 = 0;

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), hinted_handoff::EncodeError> {
        self.0.encode(out)
    }

    fn expires_after(&self) -> Option<Duration> {
        match self.0.0.0.as_str() {
            "panic" => panic!("no such table"),
            "eternal" => Some(Duration::MAX),
            _ => Some(MINUTE),
        }
    }

    fn decode(format: u16, bytes: Bytes) -> Result<Self, hinted_handoff::PayloadError> {
        Postcard::decode(format, bytes).map(Table)
    }
}

struct Nobody;

impl ShardWriter<Table> for Nobody {
    async fn write_shard(&self, _: ShardWrite<Table>) -> Result<(), WriteError> {
        Err(WriteError::retry("down"))
    }
}

#[tokio::test]
async fn a_hint_has_its_lifetime_whichever_call_made_it() {
    use hinted_handoff::{ConsistencyLevel, PointsWriter, Shard, database_config, open_database};
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let db = open_database(&database_config(&config.dir)).unwrap();
    let handoff = HintedHandoff::<Table>::open_in(&db, config, Nobody)
        .await
        .unwrap();
    let row = |text: &str| Table(Postcard(Row(text.to_owned())));
    handoff
        .write_shard(NODE, SHARD, &row("hint"))
        .await
        .unwrap();
    let enqueue = |_: &mut [hinted_handoff::Rows<'_>],
                   hints: &mut hinted_handoff::Hints<'_, Table>| {
        Ok(hints.enqueue(NODE, SHARD, &row("eternal"))?)
    };
    let rows = db.open_tree("rows").unwrap();
    handoff.transaction(&[&rows], enqueue).await.unwrap();
    let writer = PointsWriter::new(handoff.clone(), Nobody);
    let shard = Shard {
        id: SHARD,
        owners: vec![NODE],
    };
    let written = writer.write(&shard, ConsistencyLevel::Any, row("fan-out"));
    written.await.unwrap();
    assert!(
        handoff
            .write_shard(NODE, SHARD, &row("panic"))
            .await
            .is_err()
    );
    let store = handoff.store_below();
    let hints = common::hints(&store, NODE.0).into_iter();
    let lifetimes: Vec<_> = hints.map(|it| it.hint.lifetime_ms).collect();
    assert_eq!(lifetimes, [Some(60_000), Some(u64::MAX - 1), Some(60_000)]);
    handoff.shutdown().await.unwrap();
}
