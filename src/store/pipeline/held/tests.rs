mod reopening;

use std::{
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use tempfile::TempDir;

use crate::{
    config::Config,
    error::{EnqueueError, FailedOutcome},
    store::{
        AppendDone, CommitFault, LossReason, NodeQueues, Peek, PeekLimits, Reader, Reservation,
        Store, pipeline::held::*,
    },
    types::{HintId, NodeId, Sequence, ShardId},
};

const NODE: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const PATIENCE: Duration = Duration::from_secs(20);
const ALL: PeekLimits = PeekLimits {
    hints: usize::MAX,
    payload_bytes: u64::MAX,
};

struct World {
    store: Store,
    /// Which nodes' bells rang, in order.
    rung: Arc<Mutex<Vec<NodeId>>>,
    dir: TempDir,
}

fn open(dir: TempDir, min_free_disk: u64) -> World {
    let config = Config {
        min_free_disk,
        ..Config::new(dir.path())
    };
    let rung = Arc::<Mutex<Vec<NodeId>>>::default();
    let heard = Arc::clone(&rung);
    let on_durable = move |nodes: &std::collections::BTreeSet<NodeId>| heard.lock().extend(nodes);
    World {
        store: Store::open(&config, Box::new(on_durable)).unwrap(),
        rung,
        dir,
    }
}

fn world() -> World {
    open(tempfile::tempdir().unwrap(), 0)
}

type Told = Receiver<Result<HintId, EnqueueError>>;

fn hint(shard: u64) -> Hint {
    Hint {
        shard: ShardId(shard),
        format: 0,
        enqueued_unix_ms: 0,
        payload: "ten bytes.".into(),
        origin: None,
        write: None,
        lifetime_ms: None,
    }
}

fn wait<T>(told: &Receiver<T>) -> T {
    told.recv_timeout(PATIENCE).unwrap()
}

impl World {
    fn hand_in(&self, node: NodeId, hint: Hint) -> (Held, Told) {
        let (tell, told) = mpsc::channel();
        let done: AppendDone = Box::new(move |id| drop(tell.send(id)));
        let reserved = Reservation::default();
        (
            self.store.append_held(reserved, node, hint, false, done),
            told,
        )
    }

    fn hand_in_held(&self, node: NodeId, shard: u64) -> (Held, Told) {
        self.hand_in(node, hint(shard))
    }

    /// A hint that is durable and held.
    fn held(&self, shard: u64) -> (Held, HintId) {
        let (held, told) = self.hand_in_held(NODE, shard);
        (held, wait(&told).unwrap())
    }

    fn append(&self, shard: u64) -> HintId {
        let (tell, told) = mpsc::channel();
        let done: AppendDone = Box::new(move |id| drop(tell.send(id)));
        self.store.append(NODE, hint(shard), done);
        wait(&told).unwrap()
    }

    fn sync(&self) {
        let (tell, told) = mpsc::channel();
        self.store.sync(move |result| drop(tell.send(result)));
        wait(&told).unwrap();
    }

    /// All that is pending for a node, in the order of its queues.
    fn pending(&self, node: NodeId) -> Vec<PeekedHint> {
        let (mut all, mut from, mut reader) = (Vec::new(), None, Reader::default());
        while let Peek::Hints(hints) = self.store.peek_from(&mut reader, node, from, ALL).unwrap() {
            from = hints.last().map(|hint| hint.mark.place().next());
            all.extend(hints);
        }
        all
    }

    /// What a send to a shard would claim: sequences, and how many are in front of what is held. It
    /// is given back.
    fn claimable(&self, node: NodeId, shard: u64) -> (Vec<u64>, usize) {
        let mut hints = self.pending(node);
        hints.retain(|hint| hint.hint.shard.0 == shard);
        let claimed = self.store.claim_in_order(node, ShardId(shard), &mut hints);
        self.store.release(node, &hints);
        (sequences(&hints), claimed.in_front)
    }

    fn in_order(&self, node: NodeId) -> Vec<u64> {
        let peeked = self.store.peek(&mut Reader::default(), node, ALL).unwrap();
        let hints = match peeked {
            Peek::Hints(hints) => hints,
            Peek::Empty => Vec::new(),
            Peek::Damaged(place) => panic!("{place:?}"),
        };
        assert_eq!(self.store.has_next(node), !hints.is_empty());
        sequences(&hints)
    }

    fn queues(&self, node: NodeId) -> NodeQueues {
        let mut nodes = self.store.nodes().into_iter();
        let found = nodes.find(|(it, _)| *it == node);
        found.map(|(_, queues)| queues).unwrap_or_default()
    }

    fn take_rung(&self) -> Vec<NodeId> {
        std::mem::take(&mut self.rung.lock())
    }

    /// Has the store fail with what `during` hands in, and open itself again.
    fn fail<T>(&self, during: impl FnOnce() -> T) -> T {
        let reopens = self.store.reopens();
        self.store.inject(CommitFault::Fail);
        let given = during();
        while self.store.check_serving().is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
        self.store.inject(CommitFault::None);
        while self.store.reopens() == reopens || self.store.check_serving().is_err() {
            thread::sleep(Duration::from_millis(1));
        }
        given
    }

    fn is_empty_of_holds(&self) -> bool {
        let registry = self.store.shared.registry.lock();
        registry.held.is_empty()
    }
}

fn sequences(hints: &[PeekedHint]) -> Vec<u64> {
    hints.iter().map(|hint| hint.mark.sequence.0).collect()
}

fn amount(hints: u64) -> Amount {
    Amount {
        hints,
        bytes: hints * 10,
    }
}

#[test]
fn nothing_of_its_shard_goes_past_a_held_hint_and_only_its_holder_lets_it_leave() {
    let world = world();
    world.append(7);
    let (held, id) = world.held(7);
    for shard in [8, 7, 8] {
        world.append(shard);
    }
    assert_eq!(world.claimable(NODE, 7), (vec![1], 1));
    assert_eq!(world.claimable(NODE, 8), (vec![3, 5], 2));
    assert_eq!(world.in_order(NODE), [1], "of any shard");
    let place = |sequence: usize| world.pending(NODE)[sequence - 1].mark.place();
    let is_behind = |sequence| {
        world
            .store
            .is_behind_held(NODE, ShardId(7), place(sequence))
    };
    assert_eq!([1, 2, 4].map(is_behind), [false, true, true]);
    // Neither a limit nor expiry takes it.
    let second = place(2);
    let head = world.store.head(NODE, Some(second)).unwrap();
    assert_eq!(head.place.sequence, Sequence(3));
    let mut all = world.pending(NODE);
    world.store.claim(NODE, &mut all);
    assert_eq!(sequences(&all), [1, 3, 4, 5]);
    assert_eq!(world.queues(NODE).in_flight(), 5);
    world.store.release(NODE, &all);
    assert!(!world.store.is_gone_in_order(NODE, id.queue, id.sequence));

    assert_eq!(held.deliver().unwrap(), amount(1));
    assert!(world.store.is_gone_in_order(NODE, id.queue, id.sequence));
    assert_eq!(world.claimable(NODE, 7), (vec![1, 4], 2));
    assert_eq!(world.in_order(NODE), [1, 3, 4, 5]);
    let queues = world.queues(NODE);
    assert_eq!((queues.delivered, queues.pending()), (amount(1), amount(4)));
    assert_eq!(queues.in_flight(), 0);
    assert!(world.is_empty_of_holds());
}

#[test]
fn what_is_withdrawn_is_counted_as_such_and_is_gone_for_good_after_a_sync() {
    let world = world();
    world.append(7);
    let (held, _) = world.held(7);
    assert_eq!(held.withdraw().unwrap(), amount(1));
    world.sync();
    let check = |world: &World, since_open: Amount| {
        let queues = world.queues(NODE);
        assert_eq!(queues.withdrawn, since_open);
        assert_eq!(queues.queues[0].cursor.withdrawn, amount(1));
        assert_eq!(queues.pending(), amount(1));
        assert_eq!(sequences(&world.pending(NODE)), [1]);
        let losses = world.store.losses(0).unwrap();
        assert!(losses.entries.is_empty() && losses.by_reason.is_empty());
    };
    check(&world, amount(1));
    world.fail(|| world.hand_in_held(OTHER, 1));
    check(&world, amount(1));
    world.store.close().unwrap();
    let World { dir, store, .. } = world;
    drop(store);
    check(&open(dir, 0), Amount::default());
}

#[test]
fn a_held_hint_rings_no_bell_until_it_is_let_go_or_something_behind_it_waits() {
    let world = world();
    let (first, _) = world.held(7);
    world.sync();
    assert!(world.take_rung().is_empty());
    drop(first);
    assert_eq!(world.take_rung(), [NODE], "it is as any other now");
    assert_eq!(world.claimable(NODE, 7), (vec![1], 1));

    let (second, _) = world.held(7);
    world.sync();
    assert!(world.take_rung().is_empty());
    world.append(7);
    world.sync();
    assert_eq!(world.take_rung(), [NODE], "it may be of another shard");
    assert_eq!(second.deliver().unwrap(), amount(1));
    assert_eq!(world.take_rung(), [NODE], "the third waited for it");
    let all = world.pending(NODE);
    world.store.deliver(NODE, &all).unwrap();
    let (last, _) = world.held(7);
    assert_eq!(last.withdraw().unwrap(), amount(1));
    assert_eq!(world.take_rung(), [NODE], "replay may wait for it");
}

#[test]
fn in_a_group_with_others_it_is_not_heard_of_and_they_are() {
    let world = world();
    // All of it is one group: the commit thread hangs in the one before.
    world.store.inject(CommitFault::Hang);
    let (tell, told) = mpsc::channel();
    let done: AppendDone = Box::new(move |id| drop(tell.send(id)));
    world.store.append(OTHER, hint(1), done);
    while world.store.shared.busy.turn().is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    let (alone, alone_told) = world.hand_in_held(NodeId(3), 7);
    let (held, held_told) = world.hand_in_held(NODE, 7);
    let (tell, beside_told) = mpsc::channel();
    let done: AppendDone = Box::new(move |id| drop(tell.send(id)));
    world.store.append(NODE, hint(7), done);
    world.store.inject(CommitFault::None);
    for told in [told, alone_told, held_told, beside_told] {
        wait(&told).unwrap();
    }
    world.sync();
    let rung: std::collections::BTreeSet<_> = world.take_rung().into_iter().collect();
    assert_eq!(rung, [NODE, OTHER].into());
    assert_eq!(world.claimable(NODE, 7), (vec![], 0));
    drop((alone, held));
}

#[test]
fn one_that_is_let_go_before_it_is_durable_is_an_ordinary_hint() {
    let world = world();
    for end in [
        |held: Held| drop(held),
        |held: Held| {
            assert_eq!(held.deliver().unwrap(), Amount::default());
        },
    ] {
        world.store.inject(CommitFault::Hang);
        let (held, told) = world.hand_in_held(NODE, 7);
        // With a sequence by now, or without.
        end(held);
        // One bell too many is none too few.
        world.take_rung();
        world.store.inject(CommitFault::None);
        let id = wait(&told).unwrap();
        world.sync();
        assert_eq!(world.take_rung(), [NODE]);
        assert!(world.is_empty_of_holds());
        let all = world.pending(NODE);
        assert_eq!(all.last().unwrap().mark.sequence, id.sequence);
        assert_eq!(world.claimable(NODE, 7).1, all.len());
    }
}

#[test]
fn one_that_is_refused_leaves_nothing_behind_and_holds_up_nobody() {
    let world = open(tempfile::tempdir().unwrap(), u64::MAX);
    let (held, told) = world.hand_in_held(NODE, 7);
    let refused = wait(&told).unwrap_err();
    assert!(matches!(refused, EnqueueError::DiskReserve { .. }));
    assert_eq!(held.deliver().unwrap(), Amount::default());
    assert!(world.is_empty_of_holds());
    world.store.close().unwrap();
    let (held, told) = world.hand_in_held(NODE, 7);
    assert!(wait(&told).is_err());
    assert!(matches!(held.withdraw(), Err(HandoffError::ShutDown)));
    assert!(world.is_empty_of_holds());
}

#[test]
fn one_of_a_removed_node_is_gone_with_it() {
    let world = world();
    let (held, id) = world.held(7);
    let (tell, told) = mpsc::channel();
    let done = move |removed| drop(tell.send(removed));
    world.store.remove_node(NODE, done);
    wait(&told).unwrap();
    let losses = world.store.losses(0).unwrap().entries;
    assert_eq!(losses.len(), 1);
    let (_, loss) = &losses[0];
    assert_eq!(
        (loss.place.map(|it| (it.queue, it.first)), loss.reason),
        (Some((id.queue, id.sequence)), LossReason::Discarded)
    );
    world.append(7);
    // A bell rings after the answer.
    world.sync();
    assert_eq!(world.claimable(NODE, 7).1, 1);
    world.take_rung();
    assert_eq!(held.deliver().unwrap(), Amount::default());
    assert!(world.take_rung().is_empty());
    assert!(world.is_empty_of_holds());
}

/// Each leaves a hole between hints that wait, and the list of holes is one value on the disk.
#[test]
fn however_many_are_withdrawn_among_hints_that_wait_the_cursor_stays_small() {
    const PAIRS: u64 = 1300;
    let world = world();
    for _ in 0..PAIRS {
        world.append(7);
        let (held, _) = world.held(8);
        assert_eq!(held.withdraw().unwrap().hints, 1);
    }
    let (_, queues) = world.store.nodes().remove(0);
    let longest = queues.queues.iter().map(|it| it.cursor.above.len()).max();
    assert!(longest.unwrap() <= 1000, "{longest:?} ranges");
    assert_eq!(queues.pending().hints, PAIRS);
}
