//! The service from the host's side: open, write from tasks and threads, shut down, open again.

use std::{sync::Arc, time::Duration};

use crate::common::{self, service::start, within};
use bytes::Bytes;
use hinted_handoff::{
    Accepted, Config, Durability, EnqueueError, FailedOutcome, HandoffError, Health, HintedHandoff,
    NodeId, OpenError, Sequence, ShardId,
};
use hinted_handoff_testkit::{Reply, ScriptedWriter};

const SHARD: ShardId = ShardId(1);
const NODE: NodeId = NodeId(2);

fn payload(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[tokio::test]
async fn hints_survive_a_shutdown_and_are_delivered_after_the_next_open() {
    let dir = tempfile::tempdir().unwrap();
    let down = Arc::new(ScriptedWriter::down());
    let handoff = start(common::config(dir.path()), &down).await;
    let accepted = handoff
        .write_shard(NODE, SHARD, &payload("kept"))
        .await
        .unwrap();
    let Accepted::Durable(id) = accepted else {
        panic!("{accepted:?}")
    };
    assert_eq!(id.sequence, Sequence(1));
    handoff.shutdown().await.unwrap();

    // A second open right after the shutdown succeeds.
    let taking = Arc::new(ScriptedWriter::taking());
    let handoff = start(common::config(dir.path()), &taking).await;
    within(taking.until_taken(1)).await;
    assert_eq!(taking.taken(), ["kept"]);
    assert_eq!(
        taking.seen()[0].hints,
        [id],
        "the id is the one that the writer was told"
    );
    handoff.shutdown().await.unwrap();

    // And what was delivered does not come again.
    let taking = Arc::new(ScriptedWriter::taking());
    let handoff = start(common::config(dir.path()), &taking).await;
    assert_eq!(handoff.stats().nodes[0].pending.hints, 0);
    handoff.shutdown().await.unwrap();
    assert!(taking.seen().is_empty());
}

#[tokio::test]
async fn dropping_the_last_handle_loses_nothing_that_was_answered() {
    for durability in [Durability::Sync, Durability::Buffered] {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            durability,
            ..common::config(dir.path())
        };
        let handoff = HintedHandoff::open(config, ScriptedWriter::down())
            .await
            .unwrap();
        for number in 0..500 {
            handoff
                .write_shard(NODE, SHARD, &payload(&number.to_string()))
                .await
                .unwrap();
        }
        drop(handoff);
        let taking = Arc::new(ScriptedWriter::taking());
        let handoff = start(common::config(dir.path()), &taking).await;
        within(taking.until_taken(500)).await;
        let expected: Vec<_> = (0..500)
            .map(|number| payload(&number.to_string()))
            .collect();
        assert_eq!(taking.taken(), expected);
        handoff.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn threads_without_a_runtime_write_beside_tasks() {
    let dir = tempfile::tempdir().unwrap();
    let taking = Arc::new(ScriptedWriter::taking());
    let handoff = start(common::config(dir.path()), &taking).await;
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let handoff = handoff.clone();
            std::thread::spawn(move || {
                for number in 0..25 {
                    let text = format!("thread {thread} {number}");
                    handoff
                        .write_shard_blocking(NODE, SHARD, &payload(&text))
                        .unwrap();
                }
                handoff.sync_blocking().unwrap();
            })
        })
        .collect();
    let tasks: Vec<_> = (0..4)
        .map(|task| {
            let handoff = handoff.clone();
            tokio::spawn(async move {
                for number in 0..25 {
                    let text = format!("task {task} {number}");
                    handoff
                        .write_shard(NODE, SHARD, &payload(&text))
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    within(taking.until_taken(200)).await;
    for task in tasks {
        task.await.unwrap();
    }
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let taken: std::collections::HashSet<_> = taking.taken().into_iter().collect();
    assert_eq!(taken.len(), 200);
    handoff.shutdown().await.unwrap();
}

#[test]
fn a_host_without_async_opens_writes_and_shuts_down() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let taking = Arc::new(ScriptedWriter::taking());
    let config = common::config(dir.path());
    let handoff =
        HintedHandoff::open_blocking(config, Arc::clone(&taking), runtime.handle().clone())
            .unwrap();
    handoff
        .write_shard_blocking(NODE, SHARD, &payload("from a thread"))
        .unwrap();
    runtime.block_on(within(taking.until_taken(1)));
    assert_eq!(
        handoff
            .remove_node_blocking(NodeId(99))
            .unwrap_err()
            .to_string(),
        "node 99 has no queue; nothing was ever hinted for it"
    );
    handoff.shutdown_blocking().unwrap();
}

#[tokio::test]
async fn bad_points_are_refused_by_name_and_cost_no_sequence() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        max_entry_bytes: 1000,
        ..common::config(dir.path())
    };
    let handoff = HintedHandoff::open(config, ScriptedWriter::down())
        .await
        .unwrap();
    let empty = handoff
        .write_shard(NODE, SHARD, &Bytes::new())
        .await
        .unwrap_err();
    assert!(matches!(empty, EnqueueError::EmptyPoints));
    let large = handoff
        .write_shard(NODE, SHARD, &Bytes::from(vec![1; 1001]))
        .await
        .unwrap_err();
    assert!(matches!(
        large,
        EnqueueError::EntryTooLarge {
            bytes: 1001,
            max: 1000,
            ..
        }
    ));
    assert_eq!(large.outcome(), FailedOutcome::Refused);
    let fits = handoff
        .write_shard(NODE, SHARD, &Bytes::from(vec![1; 1000]))
        .await
        .unwrap();
    assert!(matches!(fits, Accepted::Durable(id) if id.sequence == Sequence(1)));
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_hint_of_the_largest_size_goes_through() {
    let dir = tempfile::tempdir().unwrap();
    let taking = Arc::new(ScriptedWriter::new(|_| Reply::Take));
    let handoff = start(common::config(dir.path()), &taking).await;
    let large = Bytes::from(common::noise(16 << 20, 5));
    handoff
        .write_shard(NODE, SHARD, &payload("before"))
        .await
        .unwrap();
    handoff.write_shard(NODE, SHARD, &large).await.unwrap();
    handoff
        .write_shard(NODE, SHARD, &payload("behind"))
        .await
        .unwrap();
    within(taking.until_taken(3)).await;
    assert!(taking.taken() == [payload("before"), large, payload("behind")]);
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn writes_after_shutdown_are_refused_and_shutdown_again_is_fine() {
    let dir = tempfile::tempdir().unwrap();
    let handoff = start(
        common::config(dir.path()),
        &Arc::new(ScriptedWriter::down()),
    )
    .await;
    let clone = handoff.clone();
    let (first, second) = tokio::join!(handoff.shutdown(), clone.shutdown());
    assert!(first.is_ok() && second.is_ok());
    let late = handoff
        .write_shard(NODE, SHARD, &payload("late"))
        .await
        .unwrap_err();
    assert!(matches!(late, EnqueueError::ShutDown));
    assert!(matches!(handoff.sync().await, Err(HandoffError::ShutDown)));
    assert!(matches!(
        handoff.remove_node(NODE).await,
        Err(HandoffError::ShutDown)
    ));
    assert!(matches!(handoff.health(), Health::ShutDown));
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_second_open_of_an_open_store_says_who_holds_which_lock() {
    let dir = tempfile::tempdir().unwrap();
    let handoff = start(
        common::config(dir.path()),
        &Arc::new(ScriptedWriter::down()),
    )
    .await;
    let second =
        HintedHandoff::<Bytes>::open(common::config(dir.path()), ScriptedWriter::down()).await;
    let error = second.err().unwrap();
    assert!(matches!(error, OpenError::Locked { .. }));
    let text = error.to_string();
    assert!(
        text.contains("LOCK file") && text.contains("this very process"),
        "{text}"
    );
    // The open that failed did no harm.
    handoff
        .write_shard(NODE, SHARD, &payload("fine"))
        .await
        .unwrap();
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_removed_node_is_forgotten_and_a_later_hint_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::down());
    let handoff = start(common::config(dir.path()), &writer).await;
    let Accepted::Durable(before) = handoff
        .write_shard(NODE, SHARD, &payload("old"))
        .await
        .unwrap()
    else {
        panic!();
    };
    let discarded = within(handoff.remove_node(NODE)).await.unwrap();
    assert_eq!((discarded.hints, discarded.bytes), (1, 3));
    assert!(handoff.stats().nodes.is_empty());
    for unknown in [NODE, NodeId(77)] {
        assert!(matches!(
            handoff.remove_node(unknown).await,
            Err(HandoffError::UnknownNode { node, .. }) if node == unknown
        ));
    }

    writer.follow(|_| Reply::Take);
    let writer = Arc::new(ScriptedWriter::taking());
    handoff.shutdown().await.unwrap();
    let handoff = start(common::config(dir.path()), &writer).await;
    let Accepted::Durable(after) = handoff
        .write_shard(NODE, SHARD, &payload("new"))
        .await
        .unwrap()
    else {
        panic!();
    };
    assert!(after.queue > before.queue);
    within(writer.until_taken(1)).await;
    assert_eq!(writer.taken(), ["new"]);
    handoff.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_written_while_their_node_is_removed_are_delivered_or_discarded_never_stuck() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    let handoff = start(common::config(dir.path()), &writer).await;
    handoff
        .write_shard(NODE, SHARD, &payload("first"))
        .await
        .unwrap();
    for round in 0..300 {
        // Its last hint comes at a different moment of the removal each time; nothing rings for the
        // node after it.
        let writing = tokio::spawn({
            let handoff = handoff.clone();
            async move {
                for _ in 0..=round % 6 {
                    handoff
                        .write_shard(NODE, SHARD, &payload("beside"))
                        .await
                        .unwrap();
                }
            }
        });
        let _ = handoff.remove_node(NODE).await;
        writing.await.unwrap();
        within(async {
            while handoff
                .stats()
                .nodes
                .iter()
                .any(|node| node.pending.hints > 0)
            {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn dropping_the_future_of_a_write_leaves_the_hint() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    let handoff = start(common::config(dir.path()), &writer).await;
    let points = payload("nobody waits for it");
    let mut write = Box::pin(handoff.write_shard(NODE, SHARD, &points));
    // Polled once, so it is in the pipeline; then dropped.
    let polled = futures_poll_once(&mut write);
    assert!(polled.is_none() || matches!(polled, Some(Ok(_))));
    drop(write);
    within(writer.until_taken(1)).await;
    handoff.shutdown().await.unwrap();
}

fn futures_poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let waker = std::task::Waker::noop();
    let mut context = std::task::Context::from_waker(waker);
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn a_reset_identity_makes_another_store_of_the_same_hints() {
    let dir = tempfile::tempdir().unwrap();
    let handoff = start(
        common::config(dir.path()),
        &Arc::new(ScriptedWriter::down()),
    )
    .await;
    let Accepted::Durable(before) = handoff
        .write_shard(NODE, SHARD, &payload("x"))
        .await
        .unwrap()
    else {
        panic!();
    };
    handoff.shutdown().await.unwrap();
    let taking = Arc::new(ScriptedWriter::taking());
    let config = Config {
        reset_identity: true,
        ..common::config(dir.path())
    };
    let handoff = HintedHandoff::open(config, Arc::clone(&taking))
        .await
        .unwrap();
    within(taking.until_taken(1)).await;
    let after = taking.seen()[0].hints[0];
    assert_ne!(after.store, before.store);
    assert_eq!(
        (after.queue, after.sequence),
        (before.queue, before.sequence)
    );
    handoff.shutdown().await.unwrap();
}
