//! Whatever keeps replay from running is seen, and told of, while hints go on being stored.
//!
//! Method: the runtime that the store was opened on is dropped, left undriven, or has no timers;
//! and code of the host's panics where nothing but the task of a node can catch it.

use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::common::config;
use bytes::Bytes;
use hinted_handoff::{
    Accepted, BarrierState, Config, ConsistencyLevel, EnqueueError, Event, HandoffError, Health,
    HintedHandoff, NodeId, NodeState, OpenError, PointsWriteError, PointsWriter, ReplayStopped,
    ReplayTask, RuntimeProblem, Shard, ShardId, ShardWrite, ShardWriter, WhenFull, WriteError,
};
use hinted_handoff_testkit::{Reply, ScriptedWriter};
use tokio::{
    runtime::{Builder, Runtime},
    sync::broadcast::error::TryRecvError,
};

const NODE: NodeId = NodeId(2);
const SHARD: ShardId = ShardId(7);
const SOON: Duration = Duration::from_secs(20);

type Handoff = HintedHandoff<Bytes>;

fn points() -> Bytes {
    Bytes::from_static(b"points")
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

fn open_on(runtime: &Runtime, config: Config, writer: &Arc<ScriptedWriter>) -> Handoff {
    HintedHandoff::open_blocking(config, Arc::clone(writer), runtime.handle().clone()).unwrap()
}

fn is_gone(handoff: &Handoff) -> bool {
    matches!(
        handoff.health(),
        Health::ReplayStopped(ReplayStopped::RuntimeGone)
    )
}

/// A store whose runtime was dropped while a hint waited for a node that is down.
fn without_runtime(dir: &Path, writer: &Arc<ScriptedWriter>, change: fn(&mut Config)) -> Handoff {
    let runtime = multi_thread();
    let mut config = config(dir);
    change(&mut config);
    let handoff = open_on(&runtime, config, writer);
    handoff
        .write_shard_blocking(NODE, SHARD, &points())
        .unwrap();
    drop(runtime);
    handoff
}

#[test]
fn a_runtime_that_is_dropped_is_told_of_and_hints_go_on_being_stored() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::down());
    let runtime = multi_thread();
    let handoff = open_on(&runtime, config(dir.path()), &writer);
    let mut events = handoff.events();
    assert!(matches!(handoff.health(), Health::Serving));
    drop(runtime);
    assert!(is_gone(&handoff));
    let stopped = std::iter::from_fn(|| events.try_recv().ok());
    let is_told = |it: &Event| matches!(it, Event::ReplayStopped(ReplayStopped::RuntimeGone));
    assert_eq!(stopped.filter(is_told).count(), 1);

    for _ in 0..10 {
        let stored = handoff.write_shard_blocking(NODE, SHARD, &points());
        assert!(matches!(stored, Ok(Accepted::Durable(_))), "{stored:?}");
    }
    handoff.sync_blocking().unwrap();
    let node = handoff.stats().nodes.remove(0);
    assert_eq!((node.state, node.pending.hints), (NodeState::Stopped, 10));
    assert_eq!(node.caught_up_in, None);

    handoff.shutdown_blocking().unwrap();
    let last = std::iter::from_fn(|| events.try_recv().ok()).last();
    assert!(matches!(last, Some(Event::ShutDown)), "{last:?}");
    assert!(matches!(events.try_recv(), Err(TryRecvError::Closed)));
    // The directory is free although a handle lives, and nothing is lost.
    let runtime = multi_thread();
    let writer = Arc::new(ScriptedWriter::taking());
    let again = open_on(&runtime, config(dir.path()), &writer);
    runtime
        .block_on(async { tokio::time::timeout(SOON, writer.until_taken(10)).await })
        .unwrap();
    again.shutdown_blocking().unwrap();
}

#[test]
fn calls_that_need_a_runtime_say_that_it_is_gone_and_none_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::down());
    let handoff = without_runtime(dir.path(), &writer, |config| {
        config.manual_nodes = [NodeId(9)].into();
    });
    let is_typed = |error: HandoffError| {
        assert!(matches!(error, HandoffError::ReplayStopped(_)), "{error:?}");
    };
    let began = Instant::now();
    is_typed(handoff.rename_node_blocking(NODE, NodeId(5)).unwrap_err());
    is_typed(handoff.remove_node_blocking(NODE).unwrap_err());
    is_typed(handoff.dead_letters_blocking(NODE, None, 1).unwrap_err());
    is_typed(handoff.losses_blocking(0).unwrap_err());
    is_typed(handoff.drain_blocking(NODE, SOON).unwrap_err());
    let drained = handoff.drain_and_remove_blocking(NODE, Duration::MAX);
    is_typed(drained.unwrap_err());
    let mut consumer = handoff.consumer(NodeId(9)).unwrap();
    is_typed(consumer.ready_blocking().unwrap_err());
    is_typed(consumer.peek_blocking(1).unwrap_err());
    let shard = Shard {
        id: SHARD,
        owners: vec![NODE],
    };
    let fan_out = PointsWriter::new(handoff.clone(), ScriptedWriter::taking());
    let written = fan_out.write_blocking(&shard, ConsistencyLevel::One, points());
    assert!(
        matches!(written, Err(PointsWriteError::ReplayStopped(_))),
        "{written:?}"
    );
    // On another runtime, too.
    let other = multi_thread();
    let barrier = handoff.barrier_blocking(&[NODE]).unwrap();
    let waited = other.block_on(handoff.wait(&barrier, Duration::MAX));
    is_typed(waited.unwrap_err());
    assert!(began.elapsed() < SOON);
    assert_eq!(handoff.stats().nodes[0].pending.hints, 1);
    drop((consumer, fan_out));
    other.block_on(handoff.shutdown()).unwrap();
}

#[test]
fn nobody_waits_for_room_that_nothing_can_make_without_a_runtime() {
    for when_full in [WhenFull::Block, WhenFull::DropOldest] {
        let dir = tempfile::tempdir().unwrap();
        let writer = Arc::new(ScriptedWriter::down());
        let runtime = multi_thread();
        let config = Config {
            max_hints: Some(1),
            when_full,
            block_timeout: Duration::from_secs(86_400),
            ..config(dir.path())
        };
        let handoff = open_on(&runtime, config, &writer);
        handoff
            .write_shard_blocking(NODE, SHARD, &points())
            .unwrap();
        let waiting = (when_full == WhenFull::Block).then(|| {
            let handoff = handoff.clone();
            std::thread::spawn(move || handoff.write_shard_blocking(NODE, SHARD, &points()))
        });
        if waiting.is_some() {
            // It waits by now, or else finds that there is no runtime: both must end.
            std::thread::sleep(Duration::from_millis(100));
        }
        drop(runtime);
        let late = handoff.write_shard_blocking(NODE, SHARD, &points());
        let waited = waiting.map(|waiting| waiting.join().unwrap());
        for refused in [Some(late), waited].into_iter().flatten() {
            assert!(
                matches!(refused, Err(EnqueueError::QueueFull { .. })),
                "{refused:?}"
            );
        }
        handoff.shutdown_blocking().unwrap();
    }
}

/// The only test here that must wait for real time: nothing but a look on a thread of the store's
/// finds out, since the runtime itself does nothing any more.
#[test]
fn a_runtime_that_nobody_drives_is_told_of_and_goes_on_or_is_closed_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    let opening = HintedHandoff::<Bytes>::open(config(dir.path()), Arc::clone(&writer));
    let handoff = runtime.block_on(opening).unwrap();
    let mut events = handoff.events();
    handoff
        .write_shard_blocking(NODE, SHARD, &points())
        .unwrap();
    // A wait by the clock of a runtime that stands still.
    let barrier = handoff.barrier_blocking(&[NODE]).unwrap();
    let waited = handoff.wait_blocking(&barrier, Duration::from_millis(1));
    assert!(
        matches!(
            waited,
            Err(HandoffError::ReplayStopped(
                ReplayStopped::RuntimeStalled { .. }
            ))
        ),
        "{waited:?}"
    );
    assert!(matches!(
        handoff.health(),
        Health::ReplayStopped(ReplayStopped::RuntimeStalled { .. })
    ));
    assert_eq!(handoff.stats().nodes[0].state, NodeState::Stopped);
    // The last thing that is done about it.
    let told = loop {
        match events.try_recv() {
            Err(TryRecvError::Empty) => std::thread::sleep(Duration::from_millis(1)),
            told => break told,
        }
    };
    assert!(matches!(told, Ok(Event::ReplayStopped(_))), "{told:?}");

    let drained = runtime.block_on(handoff.drain(NODE, SOON)).unwrap();
    assert!(matches!(drained, BarrierState::Delivered), "{drained:?}");
    assert!(matches!(handoff.health(), Health::Serving));
    let told: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    let is_resumed = |it: &Event| matches!(it, Event::ReplayResumed(_));
    assert!(told.iter().any(is_resumed), "{told:?}");
    // It stands still again.
    handoff.shutdown_blocking().unwrap();
    let (other, writer) = (multi_thread(), Arc::new(ScriptedWriter::taking()));
    open_on(&other, config(dir.path()), &writer)
        .shutdown_blocking()
        .unwrap();
}

#[test]
fn a_runtime_that_replay_cannot_run_on_is_an_error_of_the_open() {
    let dir = tempfile::tempdir().unwrap();
    let problem = |opened: Result<Handoff, OpenError>| match opened {
        Err(OpenError::Runtime(problem)) => problem,
        other => panic!("{:?}", other.map(drop)),
    };
    let open = || Handoff::open(config(dir.path()), ScriptedWriter::taking());
    let open_blocking = |runtime: &Runtime| {
        let (writer, on) = (ScriptedWriter::taking(), runtime.handle().clone());
        Handoff::open_blocking(config(dir.path()), writer, on)
    };
    let timerless = [
        Builder::new_current_thread().build().unwrap(),
        Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap(),
    ];
    for runtime in timerless {
        assert_eq!(problem(open_blocking(&runtime)), RuntimeProblem::NoTimers);
        let opened = runtime.block_on(open());
        assert_eq!(problem(opened), RuntimeProblem::NoTimers);
    }
    let none = pollster::block_on(open());
    assert_eq!(problem(none), RuntimeProblem::None);
    let runtime = multi_thread();
    let handle = runtime.handle().clone();
    drop(runtime);
    let gone = Handoff::open_blocking(config(dir.path()), ScriptedWriter::taking(), handle);
    assert_eq!(problem(gone), RuntimeProblem::ShutDown);
    // Nothing was made.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// A writer whose errors for one node panic, as long as there are charges left.
struct Bombs {
    charges: Arc<AtomicU64>,
    when: When,
    inner: ScriptedWriter,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    Dropped,
    Displayed,
}

#[derive(Debug)]
struct Bomb {
    when: When,
}

impl fmt::Display for Bomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        assert_ne!(self.when, When::Displayed, "scripted: no text");
        f.write_str("scripted: bomb")
    }
}

impl std::error::Error for Bomb {}

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.when == When::Dropped && !std::thread::panicking() {
            panic!("scripted: dropped");
        }
    }
}

impl ShardWriter<Bytes> for Bombs {
    async fn write_shard(&self, write: ShardWrite<Bytes>) -> Result<(), WriteError> {
        let take = |left: u64| match write.node {
            NODE => left.checked_sub(1),
            _ => None,
        };
        match self.charges.fetch_update(Relaxed, Relaxed, take) {
            Ok(_) => Err(WriteError::retry(Bomb { when: self.when })),
            Err(_) => self.inner.write_shard(write).await,
        }
    }
}

async fn bombed(dir: &Path, charges: u64, when: When) -> (Handoff, Arc<Bombs>) {
    let writer = Arc::new(Bombs {
        charges: Arc::new(AtomicU64::new(charges)),
        when,
        inner: ScriptedWriter::taking(),
    });
    let handoff = HintedHandoff::open(config(dir), Arc::clone(&writer));
    (handoff.await.unwrap(), writer)
}

#[tokio::test]
async fn a_task_of_replay_that_panics_is_told_of_and_started_again_until_all_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let (handoff, writer) = bombed(dir.path(), 2, When::Dropped).await;
    let mut events = handoff.events();
    handoff.write_shard(NODE, SHARD, &points()).await.unwrap();
    let mut told = Vec::new();
    while !matches!(told.last(), Some(Event::ReplayStopped(_))) {
        told.push(events.recv().await.unwrap());
    }
    let Some(Event::ReplayStopped(ReplayStopped::TaskFailed { task, error, .. })) = told.last()
    else {
        panic!("{told:?}");
    };
    assert_eq!(*task, ReplayTask::Node(NODE));
    assert!(error.contains("scripted: dropped"), "{error}");
    let health = handoff.health();
    assert!(
        matches!(
            health,
            Health::ReplayStopped(ReplayStopped::TaskFailed { .. })
        ),
        "{health:?}"
    );
    // Nobody else is concerned, and hints go on being stored.
    let other = NodeId(3);
    handoff.write_shard(NODE, SHARD, &points()).await.unwrap();
    handoff.write_shard(other, SHARD, &points()).await.unwrap();
    let stats = handoff.stats();
    assert_eq!(stats.nodes[0].state, NodeState::Stopped);
    assert_eq!(stats.nodes[0].pending.hints, 2);

    let delivered = tokio::time::timeout(SOON, writer.inner.until_taken(3)).await;
    delivered.unwrap();
    let resumed =
        async { while !matches!(events.recv().await.unwrap(), Event::ReplayResumed(_)) {} };
    tokio::time::timeout(SOON, resumed).await.unwrap();
    assert!(matches!(handoff.health(), Health::Serving));
    assert_eq!(handoff.stats().nodes[0].state, NodeState::CaughtUp);
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_node_whose_task_failed_can_be_removed_and_the_service_shut_down() {
    let dir = tempfile::tempdir().unwrap();
    let (handoff, _) = bombed(dir.path(), u64::MAX, When::Dropped).await;
    for node in [NODE, NodeId(3)] {
        handoff.write_shard(node, SHARD, &points()).await.unwrap();
    }
    while !matches!(handoff.health(), Health::ReplayStopped(_)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let removed = tokio::time::timeout(SOON, handoff.remove_node(NODE)).await;
    assert_eq!(removed.unwrap().unwrap().hints, 1);
    let stopped = tokio::time::timeout(SOON, handoff.shutdown()).await;
    stopped.unwrap().unwrap();
}

#[tokio::test]
async fn an_error_whose_text_panics_is_a_failed_send_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let (handoff, writer) = bombed(dir.path(), 1, When::Displayed).await;
    handoff.write_shard(NODE, SHARD, &points()).await.unwrap();
    let delivered = tokio::time::timeout(SOON, writer.inner.until_taken(1)).await;
    delivered.unwrap();
    assert!(matches!(handoff.health(), Health::Serving));
    assert_eq!(handoff.stats().nodes[0].failures, 1);
    handoff.shutdown().await.unwrap();
}

/// What a shutdown cannot wait for without a runtime is sent again after the next open.
#[test]
fn a_send_that_its_runtime_abandoned_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    writer.follow(|_| Reply::Hang);
    let runtime = multi_thread();
    let handoff = open_on(&runtime, config(dir.path()), &writer);
    handoff
        .write_shard_blocking(NODE, SHARD, &points())
        .unwrap();
    while writer.seen().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(runtime);
    handoff.shutdown_blocking().unwrap();
    let (runtime, writer) = (multi_thread(), Arc::new(ScriptedWriter::taking()));
    let again = open_on(&runtime, config(dir.path()), &writer);
    runtime
        .block_on(async { tokio::time::timeout(SOON, writer.until_taken(1)).await })
        .unwrap();
    again.shutdown_blocking().unwrap();
}
