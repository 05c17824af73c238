//! Every wait ends when its default says, where nothing else is configured.
//!
//! On paused time that runs ahead to the next timer, so that an hour takes no longer than what
//! happens in it.

use std::{sync::Arc, time::Duration};

use crate::common::{self, service::start};
use bytes::Bytes;
use hinted_handoff::{
    Config, ConsistencyLevel, Durability, EnqueueError, HintedHandoff, NodeId, PointsWriteError,
    PointsWriter, Shard, ShardId, WhenFull, internals::WallClock,
};
use hinted_handoff_testkit::{Reply, ScriptedWriter};
use tokio::time::{Instant, timeout};

const NODE: NodeId = NodeId(3);
const SHARD: ShardId = ShardId(7);
const POINTS: Bytes = Bytes::from_static(b"cpu v=1");
const HOUR: Duration = Duration::from_secs(3600);

type Handoff = HintedHandoff<Bytes>;

fn seconds(span: Duration) -> f64 {
    span.as_secs_f64()
}

/// When something was called, from the first time on.
fn gaps(times: &[Instant]) -> Vec<f64> {
    let pairs = times.windows(2);
    pairs.map(|it| seconds(it[1] - it[0])).collect()
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_is_not_answered_fails_after_ten_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::taking().with_pings(|_| Reply::Hang));
    let handoff = start(common::config(dir.path()), &writer).await;
    handoff.write_shard(NODE, SHARD, &POINTS).await.unwrap();
    let (mut started, mut failed) = (None, None);
    while failed.is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        started = started.or(writer.pings().first().map(|(at, _)| *at));
        let stats = handoff.stats().nodes.remove(0);
        failed = stats.last_error.map(|error| (Instant::now(), error));
    }
    let (at, error) = failed.unwrap();
    let took = seconds(at - started.unwrap());
    assert!((10.0..10.1).contains(&took), "{took}");
    assert!(error.contains("send_timeout = 10s"), "{error}");
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_send_that_is_not_answered_is_repeated_after_ten_seconds_and_a_short_wait() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::new(|_| Reply::Hang));
    let handoff = start(common::config(dir.path()), &writer).await;
    handoff.write_shard(NODE, SHARD, &POINTS).await.unwrap();
    while writer.seen().len() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let times: Vec<_> = writer.seen().iter().map(|seen| seen.at).collect();
    // Between half of retry_interval and the whole of it.
    let took = gaps(&times)[0];
    assert!((10.5..11.1).contains(&took), "{took}");
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_down_is_left_alone_for_a_second_at_first_and_a_minute_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::down());
    let handoff = start(common::config(dir.path()), &writer).await;
    handoff.write_shard(NODE, SHARD, &POINTS).await.unwrap();
    while writer.pings().len() < 12 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let times: Vec<_> = writer.pings().iter().map(|(at, _)| *at).collect();
    let gaps = gaps(&times);
    for (waited, most) in gaps.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]) {
        assert!((most / 2.0..most + 0.1).contains(waited), "{gaps:?}");
    }
    assert!(
        gaps[6..].iter().all(|it| (30.0..60.1).contains(it)),
        "{gaps:?}"
    );
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_direct_write_that_is_not_answered_becomes_a_hint_after_ten_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let writer = ScriptedWriter::new(|_| Reply::Hang).with_pings(|_| Reply::Retry);
    let writer = Arc::new(writer);
    // Nobody waits for the disk, which takes real time.
    let config = Config {
        durability: Durability::Buffered,
        ..common::config(dir.path())
    };
    let handoff = start(config, &writer).await;
    let points_writer = PointsWriter::new(handoff.clone(), Arc::clone(&writer));
    let shard = Shard {
        id: SHARD,
        owners: vec![NODE],
    };
    let before = Instant::now();
    let level = ConsistencyLevel::One;
    let written = points_writer.write(&shard, level, POINTS).await;
    let took = seconds(before.elapsed());
    assert!((10.0..10.1).contains(&took), "{took}");
    let Err(PointsWriteError::TimedOut(tally)) = written else {
        panic!("{written:?}");
    };
    assert_eq!((tally.written, tally.hinted), (0, 1));
    handoff.sync().await.unwrap();
    assert_eq!(handoff.stats().nodes[0].pending.hints, 1);
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_write_waits_ten_seconds_for_room() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        max_hints: Some(1),
        when_full: WhenFull::Block,
        ..common::config(dir.path())
    };
    let handoff = start(config, &Arc::new(ScriptedWriter::down())).await;
    handoff.write_shard(NODE, SHARD, &POINTS).await.unwrap();
    let before = Instant::now();
    let refused = handoff.write_shard(NODE, SHARD, &POINTS).await;
    let took = seconds(before.elapsed());
    assert!((10.0..10.1).contains(&took), "{took}");
    assert!(
        matches!(refused, Err(EnqueueError::QueueFull { waited: Some(it), .. }) if seconds(it) >= 10.0)
    );
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_gives_what_is_being_sent_five_seconds() {
    for (answers_after, is_taken) in [(4_900, true), (5_100, false)] {
        let dir = tempfile::tempdir().unwrap();
        let reply = Reply::Slow(Duration::from_millis(answers_after));
        let writer = Arc::new(ScriptedWriter::new(move |_| reply));
        let handoff = start(common::config(dir.path()), &writer).await;
        handoff.write_shard(NODE, SHARD, &POINTS).await.unwrap();
        while writer.seen().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let before = Instant::now();
        handoff.shutdown().await.unwrap();
        let took = seconds(before.elapsed());
        assert!((4.5..5.1).contains(&took), "{took}");
        assert_eq!(handoff.stats().nodes[0].pending.hints, u64::from(!is_taken));
    }
}

#[tokio::test(start_paused = true)]
async fn by_default_no_hint_is_ever_too_old_or_tried_too_often() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::new(|_| Reply::Retry));
    // A wall clock that runs ahead with it.
    let clock = WallClock::new(1_700_000_000_000);
    let config = common::config(dir.path());
    let opened = Handoff::open_by_clock(config, clock, Arc::clone(&writer)).await;
    let handoff = opened.unwrap();
    handoff.write_shard(NODE, SHARD, &POINTS).await.unwrap();
    tokio::time::sleep(24 * HOUR).await;
    assert!(writer.seen().len() > 1_000);
    let stats = handoff.stats().nodes.remove(0);
    assert_eq!((stats.pending.hints, stats.dead_letters.hints), (1, 0));
    writer.follow(|_| Reply::Take);
    timeout(Duration::from_secs(61), writer.until_taken(1))
        .await
        .unwrap();
    handoff.shutdown().await.unwrap();
}
