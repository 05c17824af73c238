//! Waiting at the service: told when it is over, not before, and whatever happens meanwhile.

use std::{
    path::Path,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Wake},
    time::Duration,
};

use bytes::Bytes;
use hinted_handoff::{
    Barrier, BarrierState, Config, Durability, Event, HandoffError, Health, HintedHandoff,
    LossReason, NodeId, Sequence, ShardId, ShardWrite, ShardWriter, WriteError,
    internals::{CommitFault, Store},
};
use hinted_handoff_testkit::{Reply, ScriptedWriter};
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use super::NODE;
use crate::common::{
    config,
    copy::copy_of,
    hints,
    letters::{claimed, deliver, lose},
    open,
};

const LONG: Duration = Duration::from_secs(3600);

async fn service(
    dir: &Path,
    durability: Durability,
) -> (HintedHandoff<Bytes>, Arc<ScriptedWriter>) {
    let writer = Arc::new(ScriptedWriter::down());
    let config = Config {
        durability,
        ..config(dir)
    };
    let handoff = HintedHandoff::open(config, Arc::clone(&writer))
        .await
        .unwrap();
    (handoff, writer)
}

async fn write(handoff: &HintedHandoff<Bytes>, count: usize) {
    for number in 0..count {
        let points = Bytes::from(format!("points {number}"));
        handoff
            .write_shard(NODE, ShardId(1), &points)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn buffered_answers_are_part_of_it_and_draining_waits_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let (handoff, writer) = service(dir.path(), Durability::Buffered).await;
    write(&handoff, 500).await;
    let made = handoff.barrier(&[NODE]).await.unwrap();
    assert_eq!(made.queues[0].through, Sequence(500));
    let BarrierState::Waiting { pending, .. } = handoff.wait(&made, Duration::ZERO).await.unwrap()
    else {
        panic!()
    };
    assert_eq!(pending.hints, 500);
    let never_hinted = handoff.drain(NodeId(99), LONG).await.unwrap();
    assert_eq!(never_hinted, BarrierState::Delivered);
    let of_none = handoff.barrier(&[]).await.unwrap_err();
    assert!(matches!(of_none, HandoffError::NoNodes), "{of_none}");
    writer.follow(|_| Reply::Take);
    writer.follow_pings(|_| Reply::Take);
    let drained = handoff.drain(NODE, Duration::from_secs(60)).await.unwrap();
    assert_eq!(drained, BarrierState::Delivered);
    assert_eq!(writer.taken().len(), 500);
    // Delivered is durable when it is told.
    let copy = copy_of(dir.path());
    assert_eq!(pending_of(&open(copy.path())), 0);
    let blocking = handoff.clone();
    let state = tokio::task::spawn_blocking(move || {
        let made = blocking.barrier_blocking(&[NODE]).unwrap();
        assert_eq!(
            blocking.drain_blocking(NODE, LONG).unwrap(),
            BarrierState::Delivered
        );
        blocking.wait_blocking(&made, LONG).unwrap()
    });
    assert_eq!(state.await.unwrap(), BarrierState::Delivered);
    handoff.shutdown().await.unwrap();
}

fn pending_of(store: &Store) -> u64 {
    store
        .nodes()
        .iter()
        .map(|(_, node)| node.pending().hints)
        .sum()
}

/// Nobody sends for this node, and time stands still but for whoever waits: to be rung late is to
/// wait for an hour.
async fn manual(dir: &Path) -> HintedHandoff<Bytes> {
    let config = Config {
        manual_nodes: [NODE].into(),
        ..config(dir)
    };
    let handoff = HintedHandoff::open(config, ScriptedWriter::down())
        .await
        .unwrap();
    write(&handoff, 20).await;
    handoff
}

#[tokio::test]
async fn many_who_wait_are_rung_by_the_last_hint_and_by_a_loss() {
    let dir = tempfile::tempdir().unwrap();
    let handoff = manual(dir.path()).await;
    let store = handoff.store_below();
    for ends_well in [true, false] {
        if !ends_well {
            write(&handoff, 20).await;
        }
        let made = handoff.barrier(&[NODE]).await.unwrap();
        let waiters: Vec<_> = (0..100)
            .map(|_| {
                let (handoff, made) = (handoff.clone(), made.clone());
                tokio::spawn(async move { handoff.wait(&made, LONG).await.unwrap() })
            })
            .collect();
        let peeked = hints(&store, 7);
        for (at, hint) in peeked.iter().enumerate() {
            match at == 10 && !ends_well {
                true => {
                    lose(&store, 7, hint, LossReason::Expired);
                }
                false => deliver(&store, 7, hint),
            }
            if at % 7 == 0 {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
        let rung = Instant::now();
        for waiter in waiters {
            let state = tokio::time::timeout(Duration::from_secs(20), waiter).await;
            let state = state.expect("a bell was not heard").unwrap();
            assert_eq!(matches!(state, BarrierState::Delivered), ends_well);
            assert_eq!(matches!(state, BarrierState::Lost { .. }), !ends_well);
        }
        println!(
            "barrier: 100 waiters told within {} ms",
            rung.elapsed().as_millis()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let handoff = manual(dir.path()).await;
    let made = handoff.barrier(&[NODE]).await.unwrap();
    let began = Instant::now();
    let state = handoff.wait(&made, Duration::from_secs(90)).await.unwrap();
    assert!(matches!(state, BarrierState::Waiting { .. }));
    assert_eq!(began.elapsed().as_secs(), 90);
}

/// In real time: the clock of a runtime that has nothing to do while the store works goes by.
#[tokio::test]
async fn whoever_waits_is_rung_when_the_last_hint_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let handoff = manual(dir.path()).await;
    let store = handoff.store_below();
    let mut rung = 0;
    for hint in hints(&store, 7) {
        let mut made = handoff.barrier(&[NODE]).await.unwrap();
        made.queues[0].through = hint.mark.sequence;
        let made = made.checksum_again();
        let waiting = {
            let handoff = handoff.clone();
            tokio::spawn(async move { handoff.wait(&made, LONG).await.unwrap() })
        };
        tokio::task::yield_now().await;
        deliver(&store, 7, &hint);
        // One who is not rung would wait for an hour.
        let told = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        assert_eq!(told.unwrap().unwrap(), BarrierState::Delivered);
        rung += 1;
    }
    println!("barrier: {rung} who waited were rung");
}

#[tokio::test]
async fn shutdown_and_failure_end_a_wait_with_a_typed_error() {
    for fails in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let handoff = manual(dir.path()).await;
        let made = handoff.barrier(&[NODE]).await.unwrap();
        let waiting = {
            let (handoff, made) = (handoff.clone(), made.clone());
            tokio::spawn(async move { handoff.wait(&made, LONG).await })
        };
        tokio::time::sleep(Duration::from_millis(30)).await;
        if fails {
            handoff.inject(CommitFault::Fail);
            handoff
                .write_shard(NODE, ShardId(1), &"fails".into())
                .await
                .unwrap_err();
        } else {
            handoff.shutdown().await.unwrap();
        }
        let ended = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        let error = ended.expect("it waits on").unwrap().unwrap_err();
        match fails {
            true => assert!(matches!(error, HandoffError::Storage(_)), "{error}"),
            false => assert!(matches!(error, HandoffError::ShutDown), "{error}"),
        }
        if fails {
            handoff.disk_works_again();
            while handoff.sync().await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let state = handoff.wait(&made, Duration::ZERO).await.unwrap();
            assert!(matches!(state, BarrierState::Waiting { .. }));
        }
    }
}

/// Takes a write once it is let.
struct Gate {
    has_begun: Notify,
    may_end: Semaphore,
}

impl ShardWriter<Bytes> for Gate {
    async fn write_shard(&self, _: ShardWrite<Bytes>) -> Result<(), WriteError> {
        self.has_begun.notify_one();
        let _open = self.may_end.acquire().await.map_err(WriteError::retry)?;
        Ok(())
    }
}

#[tokio::test]
async fn a_shutdown_that_waits_for_sends_does_not_keep_those_who_wait() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate {
        has_begun: Notify::new(),
        may_end: Semaphore::new(0),
    });
    let config = Config {
        send_timeout: LONG,
        shutdown_grace: LONG,
        ..config(dir.path())
    };
    let handoff = HintedHandoff::open(config, Arc::clone(&gate))
        .await
        .unwrap();
    write(&handoff, 1).await;
    gate.has_begun.notified().await;
    let made = handoff.barrier(&[NODE]).await.unwrap();
    let waiting = {
        let handoff = handoff.clone();
        tokio::spawn(async move { handoff.wait(&made, LONG).await })
    };
    let shutdown = {
        let handoff = handoff.clone();
        tokio::spawn(async move { handoff.shutdown().await })
    };
    let ended = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    let error = ended.expect("it waits on").unwrap().unwrap_err();
    assert!(matches!(error, HandoffError::ShutDown), "{error}");
    assert!(!shutdown.is_finished());
    gate.may_end.add_permits(1);
    shutdown.await.unwrap().unwrap();
}

/// A crash would take it back.
#[tokio::test]
async fn nobody_is_told_of_an_end_that_is_not_durable_yet() {
    for is_lost in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let handoff = manual(dir.path()).await;
        let store = handoff.store_below();
        let made = handoff.barrier(&[NODE]).await.unwrap();
        handoff.inject(CommitFault::Hang);
        for hint in hints(&store, NODE.0) {
            match is_lost {
                false => deliver(&store, NODE.0, &hint),
                true => {
                    let hint = claimed(&store, NODE.0, &hint);
                    store.lose(NODE, vec![hint], LossReason::Expired, drop);
                }
            }
        }
        // Until it can be seen.
        while is_lost && store.losses(0).unwrap().entries.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut waiting = pin!(handoff.wait(&made, LONG));
        let told = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
        assert!(told.is_err(), "{told:?}");
        handoff.disk_works_again();
        let state = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        match state.unwrap().unwrap() {
            BarrierState::Delivered => assert!(!is_lost),
            BarrierState::Lost { .. } => assert!(is_lost),
            state => panic!("{state:?}"),
        }
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// A wait that was polled once, has looked since, and does not know yet what it saw.
async fn has_looked(
    handoff: &HintedHandoff<Bytes>,
    barrier: &Barrier,
) -> Pin<Box<impl Future<Output = Result<BarrierState, HandoffError>>>> {
    for _ in 0..20 {
        let mut waiting = Box::pin(handoff.wait(barrier, LONG));
        let woken = Arc::new(Woken::default());
        let waker = Arc::clone(&woken).into();
        let polled = waiting.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        // A look so quick that it was over at once is no use here: then it waits for the store
        // already.
        for _ in 0..1000 {
            if woken.0.load(Relaxed) {
                return waiting;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    panic!("each look was over at once");
}

#[tokio::test]
async fn what_leaves_while_it_is_looked_is_heard_of() {
    let dir = tempfile::tempdir().unwrap();
    let handoff = manual(dir.path()).await;
    let store = handoff.store_below();
    let made = handoff.barrier(&[NODE]).await.unwrap();
    let waiting = has_looked(&handoff, &made).await;
    for hint in hints(&store, NODE.0) {
        deliver(&store, NODE.0, &hint);
    }
    let told = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    let state = told.expect("a bell was not heard").unwrap();
    assert_eq!(state, BarrierState::Delivered);
}

/// More queues than a group writes cursors of, so that the last one is not among those of the group
/// that fails.
#[tokio::test]
async fn an_acknowledgement_that_a_failure_undoes_while_nobody_looks_is_not_told_of() {
    const LAST: NodeId = NodeId(501);
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        manual_nodes: (1..=LAST.0).map(NodeId).collect(),
        durability: Durability::Buffered,
        ..config(dir.path())
    };
    let handoff = HintedHandoff::open(config, ScriptedWriter::down())
        .await
        .unwrap();
    let points = Bytes::from_static(b"points");
    for node in (1..=LAST.0).chain([1]).map(NodeId) {
        handoff
            .write_shard(node, ShardId(1), &points)
            .await
            .unwrap();
    }
    handoff.sync().await.unwrap();
    let store = handoff.store_below();
    let made = handoff.barrier(&[LAST]).await.unwrap();
    handoff.inject(CommitFault::Hang);
    let lost = claimed(&store, 1, &hints(&store, 1)[1]);
    store.lose(NodeId(1), vec![lost], LossReason::Expired, drop);
    // From here on what leaves does so in the next group.
    while store.losses(0).unwrap().entries.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for node in 1..=LAST.0 {
        deliver(&store, node, &hints(&store, node)[0]);
    }
    let mut waiting = has_looked(&handoff, &made).await;
    let mut events = handoff.events();
    handoff.inject(CommitFault::Fail);
    while !matches!(events.recv().await.unwrap(), Event::StoreFailed(_)) {}
    handoff.disk_works_again();
    while !matches!(events.recv().await.unwrap(), Event::Reopened) {}
    while !matches!(handoff.health(), Health::Serving) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let again = hints(&store, LAST.0);
    assert_eq!(again.len(), 1, "it was undone");
    let told = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(told.is_err(), "{told:?}");
    deliver(&store, LAST.0, &again[0]);
    let told = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    assert_eq!(told.unwrap().unwrap(), BarrierState::Delivered);
}
