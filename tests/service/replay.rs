//! Replay on paused time: when a node is tried, what is sent, in which order, and what is never
//! forgotten.
//!
//! The store's commit thread and its reads run in real time while tokio's clock stands still or
//! jumps, so each test queues its hints first, with the node down, and then measures on tokio's
//! clock alone.

mod abandoned;
mod held;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::common::{
    self,
    service::{queue_up, start, until_caught_up, until_node},
};
use bytes::Bytes;
use hinted_handoff::{Amount, Config, HintedHandoff, NodeId, NodeState, ShardId, ShardWrite};
use hinted_handoff_testkit::{Reply, ScriptedWriter, Seen};

const NODE: NodeId = NodeId(3);

fn config(dir: &tempfile::TempDir) -> Config {
    common::config(dir.path())
}

fn gaps(seen: &[Seen]) -> Vec<Duration> {
    seen.windows(2)
        .map(|pair| pair[1].at - pair[0].at)
        .collect()
}

fn texts(payloads: &[Bytes]) -> Vec<String> {
    payloads
        .iter()
        .map(|it| String::from_utf8(it.to_vec()).unwrap())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn backlog_found_at_open_is_replayed_by_itself_in_order_and_together_by_shard() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    queue_up(&config, NODE, [1, 1, 1, 2, 2, 1, 3]).await;
    let writer = Arc::new(ScriptedWriter::taking());
    let handoff = start(&config, &writer).await;
    let node = until_caught_up(&handoff, NODE).await;
    assert_eq!(node.delivered, Amount { hints: 7, bytes: 7 });
    let seen = writer.seen();
    let runs: Vec<_> = seen
        .iter()
        .map(|it| (it.shard.0, it.points.len()))
        .collect();
    assert_eq!(runs, [(1, 4), (2, 2), (3, 1)]);
    let sequences: Vec<_> = seen
        .iter()
        .flat_map(|it| &it.hints)
        .map(|id| id.sequence.0)
        .collect();
    assert_eq!(sequences, [1, 2, 3, 6, 4, 5, 7]);
    assert_eq!(writer.pings().len(), 1, "one ping a round");
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_bounded_by_its_bytes_and_a_larger_hint_goes_alone() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        batch_bytes: 100,
        ..config(&dir)
    };
    let handoff = HintedHandoff::open(config.clone(), ScriptedWriter::down())
        .await
        .unwrap();
    for bytes in [40, 40, 40, 250, 10] {
        let payload = Bytes::from(vec![b'x'; bytes]);
        handoff
            .write_shard(NODE, ShardId(1), &payload)
            .await
            .unwrap();
    }
    handoff.shutdown().await.unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    let handoff = start(&config, &writer).await;
    until_caught_up(&handoff, NODE).await;
    let sizes: Vec<Vec<_>> = writer
        .seen()
        .iter()
        .map(|it| it.points.iter().map(Bytes::len).collect())
        .collect();
    assert_eq!(sizes, [vec![40, 40], vec![40], vec![250], vec![10]]);
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_down_is_tried_at_growing_intervals_up_to_the_longest() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        retry_interval: Duration::from_secs(1),
        retry_max_interval: Duration::from_secs(8),
        ..config(&dir)
    };
    queue_up(&config, NODE, [1]).await;
    let writer = Arc::new(ScriptedWriter::new(|_| Reply::Retry));
    let handoff = start(&config, &writer).await;
    until_node(&handoff, NODE, |node| node.failures >= 8).await;
    let gaps = gaps(&writer.seen());
    for (gap, nominal) in gaps.iter().zip([1, 2, 4, 8, 8, 8]) {
        let nominal = Duration::from_secs(nominal);
        // tokio's timers have the grain of a millisecond.
        let most = nominal + Duration::from_millis(5);
        assert!(
            *gap >= nominal / 2 && *gap <= most,
            "{gap:?} of {nominal:?}"
        );
    }
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_success_starts_the_backoff_over() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        batch_bytes: 1,
        ..config(&dir)
    };
    queue_up(&config, NODE, [1, 1]).await;
    let calls = AtomicUsize::new(0);
    // Five failures, one success, then failures again.
    let script = move |_: &ShardWrite<Bytes>| match calls.fetch_add(1, Relaxed) {
        5 => Reply::Take,
        _ => Reply::Retry,
    };
    let writer = Arc::new(ScriptedWriter::new(script));
    let handoff = start(&config, &writer).await;
    until_node(&handoff, NODE, |node| node.failures >= 7).await;
    let gaps = gaps(&writer.seen());
    assert!(
        gaps[4] >= Duration::from_secs(8),
        "the fifth wait is long: {gaps:?}"
    );
    assert!(
        gaps[6] <= Duration::from_millis(1005),
        "the first after a success is short: {gaps:?}"
    );
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_nodes_own_wish_overrules_the_backoff_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    queue_up(&config, NODE, [1]).await;
    let calls = AtomicUsize::new(0);
    let wishes = [Duration::from_secs(300), Duration::from_millis(20)];
    let script = move |_: &ShardWrite<Bytes>| match wishes.get(calls.fetch_add(1, Relaxed)) {
        Some(after) => Reply::RetryAfter(*after),
        None => Reply::Take,
    };
    let writer = Arc::new(ScriptedWriter::new(script));
    let handoff = start(&config, &writer).await;
    until_caught_up(&handoff, NODE).await;
    for (gap, wish) in gaps(&writer.seen()).iter().zip(wishes) {
        assert!(
            *gap >= wish && *gap <= wish + Duration::from_millis(5),
            "{gap:?} of {wish:?}"
        );
    }
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failing_ping_keeps_writes_away_and_counts_as_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    queue_up(&config, NODE, [1]).await;
    let pings = AtomicUsize::new(0);
    let writer =
        Arc::new(
            ScriptedWriter::taking().with_pings(move |_| match pings.fetch_add(1, Relaxed) {
                0..3 => Reply::Retry,
                _ => Reply::Take,
            }),
        );
    let handoff = start(&config, &writer).await;
    let node = until_caught_up(&handoff, NODE).await;
    assert_eq!(
        (node.failures, writer.pings().len(), writer.seen().len()),
        (3, 4, 1)
    );
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_rate_limit_holds_to_fractions_of_a_second_with_a_burst_of_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        retry_rate_limit: 10_000,
        batch_bytes: 1000,
        ..config(&dir)
    };
    let handoff = HintedHandoff::open(config.clone(), ScriptedWriter::down())
        .await
        .unwrap();
    for _ in 0..20 {
        let payload = Bytes::from(vec![b'x'; 500]);
        handoff
            .write_shard(NODE, ShardId(1), &payload)
            .await
            .unwrap();
    }
    handoff.shutdown().await.unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    let handoff = start(&config, &writer).await;
    until_caught_up(&handoff, NODE).await;
    let seen = writer.seen();
    assert_eq!(seen.len(), 10);
    // The first batch is the burst; each other one waits a tenth of a second.
    for gap in gaps(&seen) {
        assert!((95..=106).contains(&gap.as_millis()), "{gap:?}");
    }
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn order_per_shard_holds_through_failures_of_every_kind_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        batch_bytes: 40,
        send_timeout: Duration::from_secs(2),
        ..config(&dir)
    };
    queue_up(&config, NODE, (0..300).map(|number| number % 7 / 3)).await;
    let calls = AtomicUsize::new(0);
    let script = move |_: &ShardWrite<Bytes>| match calls.fetch_add(1, Relaxed) % 11 {
        1 => Reply::Retry,
        3 => Reply::Panic,
        5 => Reply::Hang,
        7 => Reply::Slow(Duration::from_millis(700)),
        9 => Reply::RetryAfter(Duration::from_millis(3)),
        _ => Reply::Take,
    };
    let writer = Arc::new(ScriptedWriter::new(script));
    let handoff = start(&config, &writer).await;
    let node = until_caught_up(&handoff, NODE).await;
    let mut taken = BTreeMap::<ShardId, Vec<usize>>::new();
    for seen in writer.seen() {
        let numbers = texts(seen.taken()).into_iter();
        let numbers = numbers.map(|it| it.parse::<usize>().unwrap());
        taken.entry(seen.shard).or_default().extend(numbers);
    }
    for (shard, taken) in &taken {
        let of_shard = |number: &usize| (number % 7 / 3) as u64 == shard.0;
        let all: Vec<_> = (0..300).filter(of_shard).collect();
        assert_eq!(*taken, all, "each once, in the order of its shard");
    }
    assert_eq!(taken.len(), 3);
    assert!(node.failures > 10);
    assert_eq!(node.last_error, None, "told no more once the node is well");
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_hint_of_a_shard_that_is_gone_is_discarded_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    queue_up(&config, NODE, [1, 2, 2, 1]).await;
    let writer = Arc::new(ScriptedWriter::new(|write| match write.shard {
        ShardId(2) => Reply::Obsolete,
        _ => Reply::Take,
    }));
    let handoff = start(&config, &writer).await;
    let node = until_caught_up(&handoff, NODE).await;
    assert_eq!(texts(&writer.taken()), ["0", "3"]);
    assert_eq!(node.lost, Amount { hints: 2, bytes: 2 });
    assert_eq!(node.delivered, Amount { hints: 2, bytes: 2 });
    handoff.shutdown().await.unwrap();
}

/// Each of its shards would come back by itself, with the same intervals, and its ping says that
/// all is well.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_down_is_not_tried_more_often_for_having_many_shards() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    queue_up(&config, NODE, (0..200).map(|number| number % 64)).await;
    let writer = Arc::new(ScriptedWriter::new(|_| Reply::Retry));
    let handoff = start(&config, &writer).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let node = until_node(&handoff, NODE, |node| node.state == NodeState::Down).await;
    // 1, 2, 4, ... 60 s: about 20 rounds, each with as many sends as may be under way, and each
    // shard once besides, in case the node fails only some.
    let (sends, pings) = (writer.seen().len(), writer.pings().len());
    assert!(
        pings < 40 && sends <= pings * 8 + 64,
        "{sends} sends, {pings} pings"
    );
    assert!(node.stalled_by.is_some());

    writer.follow(|_| Reply::Take);
    let node = until_caught_up(&handoff, NODE).await;
    assert_eq!((node.delivered.hints, node.stalled_by), (200, None));
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_new_hint_does_not_wait_for_a_shard_that_is_left_alone_for_an_hour() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    queue_up(&config, NODE, [1, 1]).await;
    let hour = Duration::from_secs(3600);
    let writer = Arc::new(ScriptedWriter::new(move |write| match write.shard {
        ShardId(1) => Reply::RetryAfter(hour),
        _ => Reply::Take,
    }));
    let handoff = start(&config, &writer).await;
    let node = until_node(&handoff, NODE, |node| node.state == NodeState::Down).await;
    assert_eq!(node.stalled_by, Some(ShardId(1)));
    for number in 1..=3 {
        let before = tokio::time::Instant::now();
        // On another thread, so that tokio's clock stands still meanwhile; the bell rings after the
        // answer.
        let another = handoff.clone();
        let writing = tokio::task::spawn_blocking(move || {
            let points = Bytes::from_static(b"new");
            let written = another.write_shard_blocking(NODE, ShardId(2), &points);
            std::thread::sleep(Duration::from_millis(50));
            written
        });
        writing.await.unwrap().unwrap();
        writer.until_taken(number).await;
        let waited = before.elapsed();
        assert!(waited <= Duration::from_millis(1010), "{waited:?}");
        // From the second on the node is known to be well: nothing is waited for at all.
        assert!(
            number == 1 || waited < Duration::from_millis(10),
            "{waited:?}"
        );
    }
    assert_eq!(writer.seen().len(), 4, "the shard was left alone");
    handoff.shutdown().await.unwrap();
}

/// In real time: a polling task would need its interval, an hour here.
#[tokio::test]
async fn a_new_hint_wakes_its_node_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        retry_interval: Duration::from_secs(3600),
        retry_max_interval: Duration::from_secs(3600),
        ..config(&dir)
    };
    let writer = Arc::new(ScriptedWriter::taking());
    let handoff = start(&config, &writer).await;
    for number in 1..=5 {
        handoff
            .write_shard(NODE, ShardId(1), &Bytes::from_static(b"x"))
            .await
            .unwrap();
        let delivered = writer.until_taken(number);
        tokio::time::timeout(Duration::from_secs(20), delivered)
            .await
            .unwrap();
    }
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_node_that_hangs_does_not_hold_up_another() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        send_timeout: Duration::from_secs(86_400),
        ..config(&dir)
    };
    let writer = Arc::new(ScriptedWriter::new(|write| match write.node {
        NODE => Reply::Hang,
        _ => Reply::Take,
    }));
    let handoff = start(&config, &writer).await;
    handoff
        .write_shard(NODE, ShardId(1), &Bytes::from_static(b"hangs"))
        .await
        .unwrap();
    handoff
        .write_shard(NodeId(4), ShardId(1), &Bytes::from_static(b"goes"))
        .await
        .unwrap();
    writer.until_taken(1).await;
    assert_eq!(texts(&writer.taken())[..], ["goes"]);
    // Nor does it hold up the shutdown for longer than the grace.
    let before = tokio::time::Instant::now();
    handoff.shutdown().await.unwrap();
    assert!(
        before.elapsed() <= Duration::from_millis(5100),
        "{:?}",
        before.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_panics_or_lies_stops_neither_other_nodes_nor_the_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let (panics, pings_panic, never, at_once, well) = (11, 12, 13, 14, 15);
    let reply = move |node: NodeId| match node.0 {
        it if it == panics => Reply::Panic,
        it if it == never => Reply::RetryAfter(Duration::MAX),
        it if it == at_once => Reply::RetryAfter(Duration::ZERO),
        _ => Reply::Take,
    };
    let writer = ScriptedWriter::new(move |write| reply(write.node));
    let writer = Arc::new(writer.with_pings(move |node| match node.0 {
        it if it == pings_panic => Reply::Panic,
        _ => Reply::Take,
    }));
    let handoff = start(&config(&dir), &writer).await;
    for node in [panics, pings_panic, never, at_once, well] {
        handoff
            .write_shard(NodeId(node), ShardId(1), &Bytes::from(node.to_string()))
            .await
            .unwrap();
    }
    writer.until_taken(1).await;
    assert_eq!(texts(&writer.taken()), ["15"]);
    let before = writer.seen().len();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let calls = writer.seen().len() - before;
    assert!(calls < 1_100, "{calls} calls in 10 s");

    // They change their mind, and are heard within the hour.
    writer.follow(|_| Reply::Take);
    writer.follow_pings(|_| Reply::Take);
    let all = tokio::time::timeout(Duration::from_secs(3_700), writer.until_taken(5));
    all.await.unwrap();
    handoff.shutdown().await.unwrap();
}
