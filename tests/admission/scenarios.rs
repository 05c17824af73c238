//! One situation each.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use crate::common::clock::{paused, stepping};
use crate::world::{Answer, Calls, World, config, points, shard, taken, taken_by};
use bytes::Bytes;
use hinted_handoff::{
    Config,
    ConsistencyLevel::{Any, One},
    Durability, EnqueueError, Health, HintedHandoff, NodeId, OwnerError, Pause, PointsWriteError,
    ShardId, ShardWrite, WhenFull, WriteOrdering, WriteOutcome, database_config,
    internals::{CommitFault, Peek, PeekLimits, Reader},
    open_database,
};
use hinted_handoff_testkit::{Reply, ScriptedWriter};

type Scenario = (&'static str, fn());

pub const SCENARIOS: [Scenario; 17] = [
    ("by default a new write overtakes those that wait", || {
        paused(bypass())
    }),
    (
        "a write queues behind what waits, and goes directly once that is delivered",
        || paused(backlog()),
    ),
    (
        "writes come in the order of their calls, one at a time",
        || paused(one_at_a_time()),
    ),
    (
        "calls made one after the other keep their places on many threads",
        || on_threads(places()),
    ),
    (
        "a write that fails, hangs or panics lets nobody past",
        || paused(failures()),
    ),
    ("another shard or node does not wait", || {
        on_threads(others())
    }),
    (
        "what was found at open holds up every shard of its node",
        || paused(open_tail()),
    ),
    ("a node that another is renamed to has its backlog", || {
        paused(renamed())
    }),
    ("a node that was removed has no backlog", || {
        paused(removed())
    }),
    ("a buffered hint is not overtaken", || paused(buffered())),
    (
        "hints of write_shard and of transactions are not overtaken",
        || paused(other_ways()),
    ),
    ("the turn passes on when the client gives up", || {
        paused(given_up())
    }),
    (
        "a write that is rejected passes the turn on and leaves no hint",
        || paused(rejected()),
    ),
    ("a write after shutdown is an error and is not sent", || {
        paused(shut_down())
    }),
    (
        "a store that fails stops no turn, and nothing is sent past what it had",
        || on_threads(failed_store()),
    ),
    ("a shard whose replay is under way is not clear", || {
        on_threads(being_sent())
    }),
    (
        "a limit that takes the newest hint of a shard lets nobody past an older one",
        || paused(passed_over()),
    ),
];

pub fn on_threads(story: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(4).enable_all().build();
    runtime.unwrap().block_on(story);
}

const UP: Reply = Reply::Take;
const DOWN: Reply = Reply::Retry;

/// A receiver that answers direct writes like this.
fn direct(reply: Reply) -> Arc<ScriptedWriter> {
    Arc::new(ScriptedWriter::new(move |_| reply))
}

/// The receiver takes everything from now on, and hints are replayed.
async fn up(world: &World, writer: &ScriptedWriter) {
    writer.follow(|_| UP);
    world.handoff.resume_all().await.unwrap();
}

fn is_direct(write: &ShardWrite<Bytes>) -> bool {
    write.batches.iter().all(|batch| batch.hint.is_none())
}

/// Nothing is replayed until the receiver is [`up`], and the gate is kept out of it: no write takes
/// long enough to close that.
async fn open(config: Config, writer: &Arc<ScriptedWriter>) -> (World, Arc<Calls>) {
    let calls = Arc::new(Calls::default());
    (reopen(config, writer, &calls).await, calls)
}

async fn reopen(config: Config, writer: &Arc<ScriptedWriter>, calls: &Arc<Calls>) -> World {
    let config = Config {
        hint_after: config.write_timeout,
        fail_early: false,
        ..config
    };
    let world = World::open(config, writer, calls).await;
    world.handoff.pause_all(Pause::UntilRestart).await.unwrap();
    world
}

fn is_backlogged(answer: &Answer) -> bool {
    let Err(PointsWriteError::Backlogged(tally)) = answer else {
        return false;
    };
    tally.hinted == 1 && matches!(tally.cause, OwnerError::Backlogged)
}

const WRITTEN: WriteOutcome = WriteOutcome::Written { owners: 1 };
const QUEUED: WriteOutcome = WriteOutcome::Queued { owners: 1 };

/// Polls calls once each, in order.
async fn begin(calls: &mut [Pin<Box<dyn Future<Output = Answer> + Send + '_>>]) {
    for call in calls {
        let begun = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
        // A store that fails may answer at once.
        if let Poll::Ready(answer) = begun {
            *call = Box::pin(std::future::ready(answer));
        }
    }
}

async fn bypass() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Config::new("d").ordering, WriteOrdering::Bypass);
    let config = Config {
        ordering: WriteOrdering::default(),
        ..config(dir.path())
    };
    let writer = direct(DOWN);
    let (world, _) = open(config, &writer).await;
    let shard = shard(7, &[1]);
    assert_eq!(
        world.write(&shard, Any, points(0, 1)).await.unwrap(),
        QUEUED
    );
    writer.follow(|_| UP);
    assert_eq!(
        world.write(&shard, One, points(0, 2)).await.unwrap(),
        WRITTEN
    );
    up(&world, &writer).await;
    world.caught_up().await;
    assert_eq!(taken(&writer, 7), [2, 1]);
    assert_eq!(world.stats().backlogged, 0);
    world.close().await;
}

async fn backlog() {
    let dir = tempfile::tempdir().unwrap();
    let writer = direct(DOWN);
    let (world, calls) = open(config(dir.path()), &writer).await;
    let shard = shard(7, &[1]);
    let first = world.write(&shard, One, points(0, 1)).await;
    assert!(matches!(first, Err(PointsWriteError::Failed(_))));
    writer.follow(|_| UP);
    let second = world.write(&shard, One, points(0, 2)).await;
    assert!(is_backlogged(&second), "{second:?}");
    assert_eq!(
        world.write(&shard, Any, points(0, 3)).await.unwrap(),
        QUEUED
    );
    let stats = world.stats();
    assert_eq!((stats.direct, stats.hinted, stats.backlogged), (0, 3, 2));
    assert_eq!(writer.seen().len(), 1, "only the first was tried");
    up(&world, &writer).await;
    world.caught_up().await;
    assert_eq!(
        world.write(&shard, One, points(0, 4)).await.unwrap(),
        WRITTEN
    );
    assert_eq!(taken(&writer, 7), [1, 2, 3, 4]);
    world.close().await;
    calls.check(&writer);
}

async fn one_at_a_time() {
    const TAKES: Duration = Duration::from_secs(1);
    let dir = tempfile::tempdir().unwrap();
    let writer = direct(Reply::Slow(TAKES));
    let (world, calls) = open(config(dir.path()), &writer).await;
    let shard = shard(7, &[1]);
    let mut writing: Vec<_> = (0..10)
        .map(|number| Box::pin(world.write(&shard, One, points(0, number))) as Pin<Box<_>>)
        .collect();
    begin(&mut writing).await;
    // Whichever is waited for first.
    for writing in writing.into_iter().rev() {
        assert_eq!(writing.await.unwrap(), WRITTEN);
    }
    let seen = writer.seen();
    assert!(seen.windows(2).all(|pair| pair[1].at - pair[0].at >= TAKES));
    assert_eq!(taken(&writer, 7), Vec::from_iter(0..10));
    world.close().await;
    calls.check(&writer);
}

async fn places() {
    let dir = tempfile::tempdir().unwrap();
    let writer = direct(UP);
    let (world, calls) = open(config(dir.path()), &writer).await;
    let shard = shard(7, &[1, 2, 3]);
    for round in 0..20 {
        let numbers = round * 50..(round + 1) * 50;
        let mut writing: Vec<_> = numbers
            .map(|number| Box::pin(world.write(&shard, One, points(0, number))))
            .collect();
        for writing in &mut writing {
            // It may be answered within this, by another thread.
            let _ = poll_fn(|context| Poll::Ready(writing.as_mut().poll(context).is_ready())).await;
        }
        let all = || world.stats().direct == (round + 1) * 150;
        world.until("written", all).await;
    }
    assert_eq!(taken(&writer, 7), Vec::from_iter(0..1000));
    world.close().await;
    calls.check(&writer);
}

async fn failures() {
    for failure in [DOWN, Reply::Hang, Reply::Panic] {
        let dir = tempfile::tempdir().unwrap();
        let writer = direct(UP);
        let mut first = true;
        writer.follow(move |_| match std::mem::take(&mut first) {
            true => failure,
            false => UP,
        });
        let (world, calls) = open(config(dir.path()), &writer).await;
        let shard = shard(7, &[1]);
        let mut writing: Vec<_> = (0..10)
            .map(|number| Box::pin(world.write(&shard, Any, points(0, number))) as Pin<Box<_>>)
            .collect();
        begin(&mut writing).await;
        for writing in writing {
            assert_eq!(writing.await.unwrap(), QUEUED, "{failure:?}");
        }
        assert_eq!(world.stats().backlogged, 9, "{failure:?}");
        up(&world, &writer).await;
        world.caught_up().await;
        assert_eq!(taken(&writer, 7), Vec::from_iter(0..10), "{failure:?}");
        world.close().await;
        calls.check(&writer);
    }
}

async fn others() {
    let dir = tempfile::tempdir().unwrap();
    let writer = direct(UP);
    writer.follow(|write| match (write.node.0, write.shard.0) {
        (1, 7) => Reply::Hang,
        _ => UP,
    });
    let (world, _) = open(config(dir.path()), &writer).await;
    let hanging = shard(7, &[1]);
    let mut hangs = pin!(world.write(&hanging, One, points(0, 0)));
    assert!(poll_fn(|context| Poll::Ready(hangs.as_mut().poll(context).is_pending())).await);
    for (number, shard) in [(1, shard(8, &[1])), (2, shard(7, &[2]))] {
        let written = world.write(&shard, One, points(0, number)).await;
        assert_eq!(written.unwrap(), WRITTEN);
    }
    assert!(poll_fn(|context| Poll::Ready(hangs.as_mut().poll(context).is_pending())).await);
    world.count();
}

async fn open_tail() {
    let dir = tempfile::tempdir().unwrap();
    let writer = direct(DOWN);
    let (world, calls) = open(config(dir.path()), &writer).await;
    world
        .write(&shard(7, &[1]), Any, points(0, 1))
        .await
        .unwrap();
    world.close().await;

    let world = reopen(config(dir.path()), &writer, &calls).await;
    writer.follow(|_| UP);
    let other = shard(8, &[1]);
    let queued = world.write(&other, One, points(1, 1)).await;
    assert!(is_backlogged(&queued), "{queued:?}");
    let elsewhere = world.write(&shard(8, &[2]), One, points(1, 2)).await;
    assert_eq!(elsewhere.unwrap(), WRITTEN);
    up(&world, &writer).await;
    world.caught_up().await;
    for (number, shard) in [(3, other), (4, shard(7, &[1]))] {
        let written = world.write(&shard, One, points(1, number)).await;
        assert_eq!(written.unwrap(), WRITTEN);
    }
    assert_eq!(
        (taken(&writer, 7), taken(&writer, 8)),
        (vec![1, 4], vec![1, 3])
    );
    world.close().await;

    // With nothing found there is nothing to wait for.
    let world = reopen(config(dir.path()), &writer, &calls).await;
    let written = world.write(&shard(8, &[1]), One, points(1, 5)).await;
    assert_eq!(written.unwrap(), WRITTEN);
    world.close().await;
    calls.check(&writer);
}

async fn renamed() {
    let dir = tempfile::tempdir().unwrap();
    let writer = direct(DOWN);
    let (world, _) = open(config(dir.path()), &writer).await;
    world
        .write(&shard(7, &[1]), Any, points(0, 1))
        .await
        .unwrap();
    world
        .handoff
        .rename_node(NodeId(1), NodeId(2))
        .await
        .unwrap();
    // The node is up by now, under its new name; what it missed under the old one comes first.
    writer.follow(|_| UP);
    let written = world.write(&shard(7, &[2]), One, points(0, 2)).await;
    assert!(is_backlogged(&written), "{written:?}");
    up(&world, &writer).await;
    world.caught_up().await;
    assert_eq!(taken_by(&writer, 2, 7), [1, 2]);
    let written = world.write(&shard(7, &[2]), One, points(0, 3)).await;
    assert_eq!(written.unwrap(), WRITTEN);
    world.close().await;
}

async fn removed() {
    let dir = tempfile::tempdir().unwrap();
    let writer = direct(DOWN);
    for known_since_open in [false, true] {
        let (world, _) = open(config(dir.path()), &writer).await;
        let shard = shard(7, &[1]);
        if !known_since_open {
            world.write(&shard, Any, points(0, 1)).await.unwrap();
            world.handoff.remove_node(NodeId(1)).await.unwrap();
            world.write(&shard, Any, points(0, 2)).await.unwrap();
        } else {
            world.handoff.remove_node(NodeId(1)).await.unwrap();
            writer.follow(|_| UP);
            let written = world.write(&shard, One, points(0, 3)).await;
            assert_eq!(written.unwrap(), WRITTEN);
        }
        assert_eq!(world.stats().backlogged, 0);
        world.close().await;
    }
}

async fn buffered() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        durability: Durability::Buffered,
        ..config(dir.path())
    };
    let writer = direct(DOWN);
    let (world, calls) = open(config, &writer).await;
    for id in 0..50 {
        let shard = shard(id, &[1]);
        writer.follow(|_| DOWN);
        let first = world.write(&shard, Any, points(id, 1)).await;
        assert_eq!(first.unwrap(), QUEUED);
        writer.follow(|_| UP);
        // The one is answered and not durable yet.
        let second = world.write(&shard, One, points(id, 2)).await;
        assert!(is_backlogged(&second), "{second:?}");
        let third = world.write(&shard, One, points(id, 3)).await;
        assert!(is_backlogged(&third), "{third:?}");
    }
    up(&world, &writer).await;
    world.caught_up().await;
    for id in 0..50 {
        assert_eq!(taken(&writer, id), [1, 2, 3]);
    }
    world.close().await;
    calls.check(&writer);
}

async fn other_ways() {
    for durability in [Durability::Sync, Durability::Buffered] {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            durability,
            fail_early: false,
            ..config(dir.path())
        };
        let db = open_database(&database_config(&config.dir)).unwrap();
        let tree = db.open_tree("rows").unwrap();
        let writer = direct(UP);
        let handoff = HintedHandoff::open_in(&db, config, Arc::clone(&writer))
            .await
            .unwrap();
        let calls = Arc::new(Calls::default());
        let world = World::of(handoff, &writer, &calls);
        world.handoff.pause_all(Pause::UntilRestart).await.unwrap();
        let handoff = &world.handoff;
        for node in 1..=20 {
            let shard = shard(7, &[node]);
            // Into a queue that is not there yet.
            match node % 2 {
                0 => drop(
                    handoff
                        .write_shard(NodeId(node), shard.id, &points(node, 1))
                        .await
                        .unwrap(),
                ),
                _ => drop(
                    handoff
                        .transaction(&[&tree], |rows, hints| {
                            rows[0].insert("key", "value")?;
                            Ok(hints.enqueue(NodeId(node), ShardId(7), &points(node, 1))?)
                        })
                        .await
                        .unwrap(),
                ),
            }
            let queued = world.write(&shard, One, points(node, 2)).await;
            assert!(is_backlogged(&queued), "{durability:?}: {queued:?}");
        }
        up(&world, &writer).await;
        world.caught_up().await;
        for node in 1..=20 {
            let written = world.write(&shard(7, &[node]), One, points(node, 3)).await;
            assert_eq!(written.unwrap(), WRITTEN);
            assert_eq!(taken_by(&writer, node, 7), [1, 2, 3], "{durability:?}");
        }
        world.close().await;
    }
}

async fn given_up() {
    let dir = tempfile::tempdir().unwrap();
    let writer = direct(Reply::Hang);
    let mut replies = [Reply::Hang, UP].into_iter();
    writer.follow(move |_| replies.next().unwrap_or(UP));
    let (world, calls) = open(config(dir.path()), &writer).await;
    let shard = shard(7, &[1]);
    let mut writing: Vec<_> = (0..3)
        .map(|number| Box::pin(world.write(&shard, Any, points(0, number))) as Pin<Box<_>>)
        .collect();
    begin(&mut writing).await;
    // The first hangs, the second is in line.
    let last = writing.pop().unwrap();
    drop(writing);
    assert_eq!(last.await.unwrap(), QUEUED);
    up(&world, &writer).await;
    world.caught_up().await;
    assert_eq!(taken(&writer, 7), [0, 1, 2]);
    world.close().await;
    calls.check(&writer);
}

async fn rejected() {
    let dir = tempfile::tempdir().unwrap();
    let writer = direct(Reply::Reject);
    let (world, calls) = open(config(dir.path()), &writer).await;
    let shard = shard(7, &[1]);
    let refused = world.write(&shard, Any, points(0, 1)).await;
    assert!(matches!(refused, Err(PointsWriteError::Refused(_))));
    writer.follow(|_| UP);
    let written = world.write(&shard, One, points(0, 2)).await;
    assert_eq!(written.unwrap(), WRITTEN);
    assert_eq!((world.stats().rejected, world.stats().hinted), (1, 0));
    world.close().await;
    calls.check(&writer);
}

async fn shut_down() {
    let dir = tempfile::tempdir().unwrap();
    let writer = direct(UP);
    let (world, _) = open(config(dir.path()), &writer).await;
    stepping(world.handoff.shutdown()).await.unwrap();
    for number in 0..3 {
        let error = world.write(&shard(7, &[1]), Any, points(0, number)).await;
        assert!(
            matches!(error, Err(PointsWriteError::ShutDown)),
            "{error:?}"
        );
    }
    assert!(writer.seen().is_empty());
}

async fn failed_store() {
    let dir = tempfile::tempdir().unwrap();
    let writer = direct(DOWN);
    let (world, calls) = open(config(dir.path()), &writer).await;
    let shard = shard(7, &[1]);
    world.handoff.inject(CommitFault::Fail);
    let mut writing: Vec<_> = (0..20)
        .map(|number| Box::pin(world.write(&shard, Any, points(0, number))) as Pin<Box<_>>)
        .collect();
    begin(&mut writing).await;
    let first = writing.remove(0).await;
    let Err(PointsWriteError::NotStored(tally)) = first else {
        panic!("{first:?}")
    };
    assert!(matches!(
        tally.cause,
        OwnerError::NotHinted {
            hint: EnqueueError::Unknown(_),
            ..
        }
    ));
    // The node is back, and the store is not.
    writer.follow(|_| UP);
    for writing in writing {
        writing.await.unwrap_err();
    }
    world.write(&shard, Any, points(0, 20)).await.unwrap_err();
    assert_eq!(world.stats().direct, 0, "past a hint whose fate is unknown");

    world.handoff.disk_works_again();
    let serves = || matches!(world.handoff.health(), Health::Serving);
    world.until("serving again", serves).await;
    let pending = world.handoff.stats().nodes[0].pending.hints;
    assert_eq!(pending, 1, "this is about a hint that is there after all");
    let queued = world.write(&shard, One, points(0, 21)).await;
    assert!(is_backlogged(&queued), "{queued:?}");
    up(&world, &writer).await;
    world.caught_up().await;
    let written = world.write(&shard, One, points(0, 22)).await;
    assert_eq!(written.unwrap(), WRITTEN);
    assert_eq!(taken(&writer, 7), [0, 21, 22]);
    world.close().await;
    calls.check(&writer);
}

async fn being_sent() {
    let dir = tempfile::tempdir().unwrap();
    let writer = direct(DOWN);
    let (world, calls) = open(config(dir.path()), &writer).await;
    let shard = shard(7, &[1]);
    world.write(&shard, Any, points(0, 1)).await.unwrap();
    writer.follow(|write| match is_direct(write) {
        true => UP,
        false => Reply::Slow(Duration::from_millis(100)),
    });
    world.handoff.resume_all().await.unwrap();
    let sends = || writer.seen().len() > 1;
    world.until("sending", sends).await;
    let queued = world.write(&shard, One, points(0, 2)).await;
    assert!(is_backlogged(&queued), "{queued:?}");
    world.caught_up().await;
    assert_eq!(taken(&writer, 7), [1, 2]);
    world.close().await;
    calls.check(&writer);
}

/// The older one was being sent, so the limit could not have it; then the send failed.
async fn passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        max_hints_per_node: Some(3),
        when_full: WhenFull::DropOldest,
        ..config(dir.path())
    };
    let writer = direct(DOWN);
    let (world, calls) = open(config, &writer).await;
    let (contested, other) = (shard(7, &[1]), shard(8, &[1]));
    for (number, shard) in [(1, &contested), (2, &contested), (3, &other)] {
        let queued = world.write(shard, Any, points(0, number)).await;
        assert_eq!(queued.unwrap(), QUEUED);
    }
    let store = world.handoff.store_below();
    let one = PeekLimits {
        hints: 1,
        payload_bytes: 1,
    };
    let peeked = store.peek(&mut Reader::default(), NodeId(1), one);
    let Ok(Peek::Hints(mut sent)) = peeked else {
        panic!("{peeked:?}")
    };
    store.claim(NodeId(1), &mut sent);
    let queued = world.write(&other, Any, points(0, 4)).await;
    assert_eq!(queued.unwrap(), QUEUED);
    assert_eq!(world.handoff.stats().nodes[0].dropped.hints, 1);
    store.release(NodeId(1), &sent);

    writer.follow(|_| UP);
    let queued = world.write(&contested, One, points(0, 5)).await;
    assert!(is_backlogged(&queued), "{queued:?}");
    up(&world, &writer).await;
    world.caught_up().await;
    for (number, shard) in [(6, &contested), (7, &other)] {
        let written = world.write(shard, One, points(0, number)).await;
        assert_eq!(written.unwrap(), WRITTEN, "nothing waits any more");
    }
    world.close().await;
    calls.check(&writer);
}
