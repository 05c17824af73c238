//! Hints that leave undelivered in the group that stores them: as a whole dead letters or lost, and
//! at no moment pending.
//!
//! Groups are made of what is handed in while a commit hangs, so each test says what shares one.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use crate::common::{
    self, EVERYTHING, config, copy, hint, hints, letters,
    letters::{
        append_undelivered, barrier, cause, claimed, deliver, letter, letters, make_dead_letter,
    },
    noise, open, payloads, sync,
};
use hinted_handoff::{
    Amount, BarrierState, Config, EnqueueError, Health, HintId, LossReason, NodeId, Sequence,
    internals::{CommitFault, Dead, Fate, Hint, NodeQueues, Peek, Place, Reader, Store},
};

const NODE: u64 = 7;

fn dead() -> Fate {
    Fate::Dead(cause("refused by this owner alone"))
}

fn queues(store: &Store, node: u64) -> NodeQueues {
    let mut nodes = store.nodes().into_iter();
    nodes.find(|(it, _)| it.0 == node).unwrap().1
}

fn amount(hints: u64, bytes: u64) -> Amount {
    Amount { hints, bytes }
}

/// The dead letters of the node, by their sequences and payloads.
fn dead_letters(store: &Store) -> Vec<(u64, String)> {
    let found = letters(store, NODE).into_iter();
    let read = |(place, _): (Place, Dead)| {
        let (_, hint) = letter(store, NODE, place);
        let payload = String::from_utf8(hint.payload.to_vec()).unwrap();
        (place.sequence.0, payload)
    };
    found.map(read).collect()
}

/// Hands in while a commit hangs, which the next group then takes all of. An answer each, in the
/// order of the calls.
struct Gathered<'a> {
    store: &'a Store,
    tell: mpsc::Sender<(usize, Result<HintId, EnqueueError>)>,
    told: mpsc::Receiver<(usize, Result<HintId, EnqueueError>)>,
    handed_in: usize,
}

impl<'a> Gathered<'a> {
    fn begin(store: &'a Store) -> Self {
        sync(store);
        store.inject(CommitFault::Hang);
        let (tell, told) = mpsc::channel();
        let mut gathered = Gathered {
            store,
            tell,
            told,
            handed_in: 0,
        };
        // The group that hangs.
        gathered.append(99, "held up");
        std::thread::sleep(Duration::from_millis(30));
        gathered
    }

    fn done(&mut self) -> Box<dyn FnOnce(Result<HintId, EnqueueError>) + Send> {
        let (tell, number) = (self.tell.clone(), self.handed_in);
        self.handed_in += 1;
        Box::new(move |answer| drop(tell.send((number, answer))))
    }

    fn append(&mut self, node: u64, payload: &str) {
        let done = self.done();
        let hint = hint(1, payload.to_owned());
        self.store.append(NodeId(node), hint, done);
    }

    fn undelivered(&mut self, hint: Hint, fate: Fate) {
        let done = self.done();
        self.store
            .append_undelivered(NodeId(NODE), hint, fate, done);
    }

    /// The answers to all but the first.
    fn end(self) -> Vec<Result<HintId, EnqueueError>> {
        self.store.inject(CommitFault::None);
        let wait = Duration::from_secs(20);
        let answers = (0..self.handed_in).map(|_| self.told.recv_timeout(wait).unwrap());
        let mut answers: Vec<_> = answers.collect();
        answers.sort_by_key(|(number, _)| *number);
        let answers = answers.into_iter().map(|(_, answer)| answer);
        answers.skip(1).collect()
    }
}

fn sequences(answers: Vec<Result<HintId, EnqueueError>>) -> Vec<u64> {
    let ids = answers.into_iter().map(Result::unwrap);
    ids.map(|id| id.sequence.0).collect()
}

#[test]
fn the_first_hint_of_a_node_may_be_a_dead_letter_at_once_and_rings_no_bell() {
    let dir = tempfile::tempdir().unwrap();
    let rung: Arc<Mutex<BTreeSet<NodeId>>> = Arc::default();
    let heard = Arc::clone(&rung);
    let on_durable = move |nodes: &BTreeSet<NodeId>| heard.lock().unwrap().extend(nodes);
    let store = Store::open(&config(dir.path()), Box::new(on_durable)).unwrap();
    let id = append_undelivered(&store, NODE, hint(3, "refused"), dead()).unwrap();
    assert_eq!((id.store, id.sequence), (store.id(), Sequence(1)));
    let known = queues(&store, NODE);
    assert_eq!(known.pending(), Amount::default());
    assert_eq!(
        (known.enqueued, known.dead_lettered),
        (amount(1, 7), amount(1, 7))
    );
    assert_eq!((known.delivered, known.lost), Default::default());
    assert_eq!(store.stats().enqueued, amount(1, 7));
    assert!(!store.has_pending(NodeId(NODE)) && payloads(&store, NODE).is_empty());
    assert!(rung.lock().unwrap().is_empty());
    let check = |store: &Store| {
        assert_eq!(dead_letters(store), [(1, "refused".to_owned())]);
        let (_, found) = letters(store, NODE).remove(0);
        assert_eq!(found.cause, cause("refused by this owner alone"));
        assert_eq!((found.shard.0, found.payload_bytes), (3, 7));
        assert!(payloads(store, NODE).is_empty());
        assert_eq!(queues(store, NODE).letters(), amount(1, 7));
        assert_eq!(store.losses(0).unwrap().entries, []);
        assert_eq!(store.stats().damage, []);
    };
    check(&store);
    // The next hint stands behind it.
    let next = common::append(&store, NODE, "ordinary");
    assert_eq!((next.queue, next.sequence), (id.queue, Sequence(2)));
    // The bell rings behind the answer.
    common::sync(&store);
    assert!(rung.lock().unwrap().contains(&NodeId(NODE)));
    deliver(&store, NODE, &hints(&store, NODE)[0]);
    let killed = copy::copy_of(dir.path());
    store.close().unwrap();
    for dir in [dir.path(), killed.path()] {
        let store = open(dir);
        if let Some(back) = hints(&store, NODE).first() {
            deliver(&store, NODE, back);
        }
        check(&store);
        // It is sent on as any other.
        let (place, _) = letters(&store, NODE).remove(0);
        letters::redrive(&store, NODE, place).unwrap().unwrap();
        assert_eq!(payloads(&store, NODE), ["refused"]);
        store.close().unwrap();
    }
}

#[test]
fn several_among_ordinary_hints_of_a_group_leave_and_the_others_wait_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    common::append(&store, NODE, "older");
    let marked = barrier(&store, &[NODE]).unwrap();
    let mut group = Gathered::begin(&store);
    group.append(NODE, "first");
    group.undelivered(hint(1, "dead 1"), dead());
    group.undelivered(hint(2, "lost 1"), Fate::Lost(LossReason::Obsolete));
    group.append(NODE, "second");
    group.undelivered(hint(1, "dead 2"), dead());
    group.append(8, "another node's");
    let groups = store.stats().groups;
    assert_eq!(sequences(group.end()), [2, 3, 4, 5, 6, 1]);
    assert!(store.stats().groups - groups <= 2, "they share a group");
    let check = |store: &Store| {
        assert_eq!(payloads(store, NODE), ["older", "first", "second"]);
        assert_eq!(payloads(store, 8), ["another node's"]);
        let expected = [(3, "dead 1".to_owned()), (6, "dead 2".to_owned())];
        assert_eq!(dead_letters(store), expected);
        let losses = store.losses(0).unwrap();
        let [(0, loss)] = &losses.entries[..] else {
            panic!("{losses:?}");
        };
        assert_eq!(loss.reason, LossReason::Obsolete);
        assert_eq!((loss.shard.unwrap().0, loss.amount), (2, amount(1, 6)));
        assert_eq!(loss.place.unwrap().first, Sequence(4));
        assert_eq!(queues(store, NODE).pending(), amount(3, 16));
        // What came later is no part of it.
        let BarrierState::Waiting {
            pending,
            dead_letters: 0,
            ..
        } = store.look_at(&marked).unwrap()
        else {
            panic!("it waits for the older one");
        };
        assert_eq!(pending.hints, 1);
    };
    check(&store);
    let known = queues(&store, NODE);
    assert_eq!(known.enqueued, amount(6, 34));
    assert_eq!(
        (known.dead_lettered, known.lost),
        (amount(2, 12), amount(1, 6))
    );
    let killed = copy::copy_of(dir.path());
    store.close().unwrap();
    for dir in [dir.path(), killed.path()] {
        let store = open(dir);
        assert_eq!(store.stats().damage, []);
        check(&store);
        for hint in hints(&store, NODE) {
            deliver(&store, NODE, &hint);
        }
        sync(&store);
        assert_eq!(store.look_at(&marked).unwrap(), BarrierState::Delivered);
        store.close().unwrap();
    }
}

/// The cursors of a group are written once more from what the registry knows, which is not all that
/// the transaction wrote.
#[test]
fn what_else_leaves_its_queue_with_the_same_group_brings_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for text in ["delivered", "dead-lettered", "sent on", "stays"] {
        common::append(&store, NODE, text);
    }
    let found = hints(&store, NODE);
    make_dead_letter(&store, NODE, &found[2]).unwrap();
    let (place, _) = letters(&store, NODE).remove(0);
    let again = letters::as_new(&store, NODE, place);
    let second = claimed(&store, NODE, &found[1]);
    let mut group = Gathered::begin(&store);
    let (tell, told) = mpsc::channel();
    let tell_too = tell.clone();
    store.redrive(NodeId(NODE), place, again, move |now| {
        tell_too.send(now.is_ok()).unwrap();
    });
    group.undelivered(hint(1, "dead at once"), dead());
    store.make_dead_letter(
        NodeId(NODE),
        second,
        cause("rejected"),
        move |dead_lettered| {
            tell.send(dead_lettered.is_ok()).unwrap();
        },
    );
    // In memory at once, and written with this group.
    deliver(&store, NODE, &found[0]);
    assert_eq!(sequences(group.end()), [6]);
    assert!(told.recv().unwrap() && told.recv().unwrap());
    let check = |store: &Store| {
        let expected = [
            (2, "dead-lettered".to_owned()),
            (6, "dead at once".to_owned()),
        ];
        assert_eq!(dead_letters(store), expected);
        assert_eq!(payloads(store, NODE), ["stays", "sent on"]);
    };
    check(&store);
    sync(&store);
    let killed = copy::copy_of(dir.path());
    store.close().unwrap();
    for dir in [dir.path(), killed.path()] {
        let store = open(dir);
        assert_eq!(store.stats().damage, []);
        check(&store);
        store.close().unwrap();
    }
}

#[test]
fn one_larger_than_a_group_leaves_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let large = noise(3_000_000, 5);
    let mut group = Gathered::begin(&store);
    group.append(NODE, "before");
    group.undelivered(hint(1, large.clone()), dead());
    group.append(NODE, "behind");
    assert_eq!(sequences(group.end()), [1, 2, 3]);
    store.close().unwrap();
    let store = open(dir.path());
    assert_eq!(payloads(&store, NODE), ["before", "behind"]);
    let (place, _) = letters(&store, NODE).remove(0);
    assert!(letter(&store, NODE, place).1.payload == large);
    store.close().unwrap();
}

#[test]
fn no_limit_counts_it_and_below_the_disk_reserve_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_hints_per_node: Some(1),
        max_hints: Some(1),
        ..config(dir.path())
    };
    let store = Store::open(&limited, Box::new(|_| {})).unwrap();
    for _ in 0..3 {
        append_undelivered(&store, NODE, hint(1, "refused"), dead()).unwrap();
    }
    let wanted = vec![(NodeId(NODE), amount(1, 1))];
    assert!(store.reserve(wanted).is_ok());
    store.close().unwrap();
    let reserve = Config {
        min_free_disk: u64::MAX / 2,
        ..config(dir.path())
    };
    let store = Store::open(&reserve, Box::new(|_| {})).unwrap();
    let refused = append_undelivered(&store, NODE, hint(1, "refused"), dead());
    assert!(matches!(refused, Err(EnqueueError::DiskReserve { .. })));
    assert_eq!(letters(&store, NODE).len(), 3);
    assert_eq!(store.stats().refused_for_space, 1);
    store.close().unwrap();
    let refused = append_undelivered(&store, NODE, hint(1, "late"), dead());
    assert!(matches!(refused, Err(EnqueueError::ShutDown)));
}

/// A cursor is one value, of what left one by one above it, too.
#[test]
fn however_many_leave_among_hints_that_wait_the_cursor_stays_small_and_none_comes_back() {
    const PAIRS: u64 = 2500;
    let dir = tempfile::tempdir().unwrap();
    let many = Config {
        max_dead_letters: 2 * PAIRS,
        ..config(dir.path())
    };
    let reopened = || Store::open(&many, Box::new(|_| {})).unwrap();
    let store = reopened();
    let mut group = Gathered::begin(&store);
    for pair in 0..PAIRS {
        group.append(NODE, &format!("waits {pair}"));
        group.undelivered(hint(1, format!("dead {pair}")), dead());
    }
    assert!(group.end().iter().all(Result::is_ok));
    let check = |store: &Store| {
        let mut waiting = Vec::new();
        let mut reader = Reader::default();
        let mut from = None;
        while let Peek::Hints(found) = store
            .peek_from(&mut reader, NodeId(NODE), from, EVERYTHING)
            .unwrap()
        {
            from = found.last().map(|it| it.mark.place().next());
            waiting.extend(found.into_iter().map(|it| it.hint.payload));
        }
        let expected = (0..PAIRS).map(|pair| format!("waits {pair}"));
        assert!(waiting.iter().eq(expected.collect::<Vec<_>>().iter()));
        let letters = dead_letters(store);
        assert_eq!(letters.len(), PAIRS as usize);
        let known = queues(store, NODE);
        let longest = known.queues.iter().map(|it| it.cursor.above.len()).max();
        // So many, and those of the group that came to that.
        assert!(longest.unwrap() <= 1100, "{longest:?} ranges");
        let closed: Vec<bool> = known.queues.iter().map(|it| it.closed).collect();
        assert_eq!(closed, [true, true, false]);
    };
    check(&store);
    store.close().unwrap();
    let store = reopened();
    check(&store);
    // Queues that were left are given up when they are drained, the last one goes on.
    for _ in 0..3 {
        let mut all = hints(&store, NODE);
        store.claim(NodeId(NODE), &mut all);
        store.deliver(NodeId(NODE), &all).unwrap();
        sync(&store);
    }
    let left = queues(&store, NODE);
    assert_eq!((left.queues.len(), left.pending().hints), (1, 0));
    store.close().unwrap();
}

#[test]
fn a_group_that_fails_has_it_as_a_dead_letter_or_nowhere() {
    for fault in [CommitFault::Fail, CommitFault::Panic] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        common::append(&store, NODE, "stays");
        store.inject(fault);
        let unknown = append_undelivered(&store, NODE, hint(1, "unknown"), dead());
        assert!(matches!(unknown, Err(EnqueueError::Unknown(_))));
        store.inject(CommitFault::None);
        let store = match fault {
            CommitFault::Fail => {
                while !matches!(store.health(), Health::Serving) {
                    std::thread::sleep(Duration::from_millis(2));
                }
                store
            }
            _ => {
                drop(store);
                open(dir.path())
            }
        };
        assert_eq!(payloads(&store, NODE), ["stays"]);
        let there = letters(&store, NODE).len();
        assert!(there <= 1);
        append_undelivered(&store, NODE, hint(1, "known"), dead()).unwrap();
        assert_eq!(letters(&store, NODE).len(), there + 1);
        assert_eq!(payloads(&store, NODE), ["stays"]);
        store.close().unwrap();
    }
}

/// 5,000 of 15,000 that are rejected make room for the others.
#[test]
fn what_the_quota_of_dead_letters_evicts_is_counted_and_the_sums_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut group = Gathered::begin(&store);
    for number in 0..15_000 {
        group.undelivered(hint(1, format!("{number:05}")), dead());
    }
    assert!(group.end().iter().all(Result::is_ok));
    let check = |store: &Store| {
        let known = queues(store, NODE);
        assert_eq!(
            (known.enqueued.hints, known.dead_lettered.hints),
            (15_000, 15_000)
        );
        assert_eq!(known.letters(), amount(10_000, 50_000));
        assert_eq!(known.letters_evicted, amount(5_000, 25_000));
        assert_eq!((known.lost, known.pending()), Default::default());
        let lost = store.losses(0).unwrap().by_reason;
        assert_eq!(lost[&LossReason::DeadLetterQuota], known.letters_evicted);
        assert_eq!(letters(store, NODE).len(), 10_000);
    };
    check(&store);
    // The counts outlive a failure that the store reopens from by itself.
    store.inject(CommitFault::Fail);
    common::try_append(&store, 8, vec![hint(1, "fails")]);
    store.inject(CommitFault::None);
    while !matches!(store.health(), Health::Serving) {
        std::thread::sleep(Duration::from_millis(2));
    }
    check(&store);
    store.close().unwrap();
}
