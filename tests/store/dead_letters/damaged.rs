//! Dead letters and the loss journal outlive what a disk does to them: what is intact is found,
//! what is not is reported, and nothing is left behind that nobody looks at.

use std::{fs, path::Path};

use crate::common::{
    letters::{letters_read, lose_at, make_dead_letter_at, redrive_as_it_is},
    *,
};
use hinted_handoff::{
    Amount, BarrierState, HintId, LossReason, NodeId, QueueId, Sequence,
    internals::{Place, QueueRef, Store},
    sled,
};

pub const NODE: u64 = 2;
const QUEUE: QueueRef = QueueRef {
    node: NodeId(NODE),
    queue: QueueId(1),
};
const BLOCK: u8 = 2;
pub const RECORD: u8 = 3;

pub fn id(store: &Store, sequence: u64) -> HintId {
    HintId {
        store: store.id(),
        queue: QueueId(1),
        sequence: Sequence(sequence),
    }
}

pub fn key(kind: u8, sequence: u64) -> Vec<u8> {
    let numbers = [NODE.to_be_bytes(), 1_u64.to_be_bytes()].concat();
    let chunk: &[u8] = if kind == BLOCK { &[0, 0] } else { &[] };
    [numbers.as_slice(), &[kind], &sequence.to_be_bytes(), chunk].concat()
}

/// Six hints: 3 and 5 are dead letters, 4 was one and is 7 now, 6 is lost.
pub fn filled(dir: &Path) {
    let store = open(dir);
    for number in 1..=6 {
        append(&store, NODE, marked(number));
    }
    for sequence in [3, 4, 5] {
        make_dead_letter_at(&store, NODE, sequence, "rejected");
    }
    let four = Place {
        queue: QUEUE,
        sequence: Sequence(4),
    };
    assert_eq!(redrive_as_it_is(&store, NODE, four).sequence, Sequence(7));
    lose_at(&store, NODE, 6, LossReason::Expired);
    store.close().unwrap();
}

pub fn pending(store: &Store) -> Vec<u64> {
    let hints = hints(store, NODE);
    hints.iter().map(|it| it.mark.sequence.0).collect()
}

pub fn deliver_all(store: &Store) {
    let mut hints = hints(store, NODE);
    store.claim(NodeId(NODE), &mut hints);
    store.deliver(NodeId(NODE), &hints).unwrap();
    for _ in 0..3 {
        sync(store);
        append(store, 9, "gives the commit thread something to trim with");
    }
}

pub fn stop_uncleanly(store: &Store, dir: &Path) {
    store.close().unwrap();
    fs::remove_file(generation(dir).join("CLEAN")).unwrap();
}

/// How many keys of the node there are, by kind.
pub fn keys(dir: &Path) -> [usize; 4] {
    let mut counts = [0; 4];
    for key in super::keys(dir) {
        counts[usize::from(key[16])] += usize::from(key.starts_with(&NODE.to_be_bytes()));
    }
    counts
}

pub fn flip(hints: &sled::Tree, key: &[u8]) {
    let mut value = hints.get(key).unwrap().unwrap().to_vec();
    let last = value.len() - 1;
    value[last] ^= 0x10;
    hints.insert(key, value).unwrap();
}

fn damaged(change: impl FnOnce(&sled::Tree)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    changed_for_good(dir.path(), |db| change(&db.open_tree("hh/hints").unwrap()));
    dir
}

#[test]
fn a_dead_letter_whose_record_is_damaged_is_one_still_and_only_how_it_came_to_be_is_lost() {
    let dir = damaged(|hints| flip(hints, &key(RECORD, 3)));
    let store = open(dir.path());
    let damage = store.stats().damage;
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!((damage[0].queue, damage[0].lost), (QueueId(1), None));
    let both = [(3, marked(3).into()), (5, marked(5).into())];
    assert_eq!(letters_read(&store, NODE), both);
    let (_, dead) = store.letters(NodeId(NODE), None, 1).unwrap().remove(0);
    assert!(dead.cause.error.contains("damaged"), "{dead:?}");
    assert_eq!(store.losses(0).unwrap().total().hints, 1);
    let (_, queues) = store.nodes().remove(0);
    let bytes = marked(3).len() + marked(5).len();
    assert_eq!(
        (queues.letters().hints, queues.letters().bytes),
        (2, bytes as u64)
    );

    store.close().unwrap();
    let store = open(dir.path());
    assert_eq!(store.stats().damage, []);
    assert_eq!(letters_read(&store, NODE), both);
}

#[test]
fn a_dead_letter_of_which_nothing_reads_is_reported_and_recorded_as_lost() {
    let dir = damaged(|hints| {
        flip(hints, &key(RECORD, 3));
        flip(hints, &key(BLOCK, 3));
    });
    for times in 0..2 {
        let store = open(dir.path());
        let damage = store.stats().damage;
        let lost: Vec<_> = damage.iter().filter_map(|it| it.lost).collect();
        let expected = [(Sequence(3), Sequence(3))];
        assert_eq!(lost, expected[times..], "reported once");
        assert_eq!(letters_read(&store, NODE), [(5, marked(5).into())]);
        let losses = store.losses(0).unwrap();
        assert_eq!(losses.entries.len(), 2);
        let (_, loss) = &losses.entries[1];
        assert_eq!(
            (loss.reason, loss.place.unwrap().first, loss.amount.hints),
            (LossReason::Damaged, Sequence(3), 1)
        );
        deliver_all(&store);
        store.close().unwrap();
    }
    let [_, _, blocks, records] = keys(dir.path());
    assert_eq!((blocks, records), (1, 1), "only those of 5 are left");
}

/// sled drops records without a word; after a clean stop it is known how many there were.
#[test]
fn a_dead_letter_that_is_not_there_after_a_clean_stop_is_recorded_as_lost_and_barriers_tell() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let store = open(dir.path());
    let barrier = told(|done| store.barrier([NodeId(NODE)].into(), done)).unwrap();
    store.close().unwrap();
    changed_for_good(dir.path(), |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        hints.remove(key(RECORD, 5)).unwrap();
        hints.remove(key(BLOCK, 5)).unwrap();
    });
    for times in 0..2 {
        let store = open(dir.path());
        let lost = store.stats().damage.into_iter().filter_map(|it| it.lost);
        let expected = [(Sequence(3), Sequence(5))];
        assert_eq!(Vec::from_iter(lost), expected[times..], "reported once");
        assert_eq!(letters_read(&store, NODE), [(3, marked(3).into())]);
        assert_eq!(pending(&store), [1, 2, 7], "and nothing else");
        let losses = store.losses(0).unwrap();
        assert_eq!(losses.entries.len(), 2);
        let (_, loss) = &losses.entries[1];
        let bytes = marked(5).len() as u64;
        let all = (
            loss.node,
            loss.place.unwrap().queue,
            loss.shard,
            loss.reason,
            loss.amount,
        );
        let amount = Amount { hints: 1, bytes };
        let expected = (NodeId(NODE), QueueId(1), None, LossReason::Damaged, amount);
        assert_eq!(all, expected);
        let state = store.look_at(&barrier).unwrap();
        let BarrierState::Lost {
            losses,
            dead_letters: 1,
            ..
        } = state
        else {
            panic!("{state:?}")
        };
        assert_eq!(losses.entries.len(), 1);
        store.close().unwrap();
    }
}

/// Puts back all that the disk had of a node before `change`, as if what was written since were
/// lost.
fn forgotten(dir: &Path, change: impl FnOnce(&Store)) {
    let trees = ["hh/nodes", "hh/hints"];
    let before = behind_its_back(dir, |db| {
        trees.map(|tree| {
            let tree = db.open_tree(tree).unwrap();
            let entries = tree.scan_prefix(NODE.to_be_bytes()).map(Result::unwrap);
            entries.collect::<Vec<_>>()
        })
    });
    let store = open(dir);
    change(&store);
    store.close().unwrap();
    changed_for_good(dir, |db| {
        for (tree, entries) in trees.into_iter().zip(before) {
            let tree = db.open_tree(tree).unwrap();
            for (key, value) in entries {
                tree.insert(key, value).unwrap();
            }
        }
        let nodes = db.open_tree("hh/nodes").unwrap();
        for key in nodes.iter().keys().map(Result::unwrap) {
            if key != NODE.to_be_bytes() {
                nodes.remove(key).unwrap();
            }
        }
    });
}

#[test]
fn a_rename_that_the_disk_forgot_after_a_clean_stop_holds() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    forgotten(dir.path(), |store| {
        told(|done| store.rename_node(NodeId(NODE), NodeId(5), done)).unwrap();
    });
    for times in 0..2 {
        let store = open(dir.path());
        assert_eq!(store.stats().damage.is_empty(), times == 1);
        let moved = hints(&store, 5);
        let moved: Vec<_> = moved.iter().map(|it| it.mark.sequence.0).collect();
        assert_eq!((moved, pending(&store)), (vec![1, 2, 7], Vec::new()));
        let both = [(3, marked(3).into()), (5, marked(5).into())];
        assert_eq!(letters_read(&store, 5), both);
        assert_eq!(letters_read(&store, NODE), []);
        assert_eq!(store.losses(0).unwrap().total().hints, 1);
        // A queue that was moved takes no hints: its keys are another node's.
        assert_ne!(append(&store, 5, "new").queue, QueueId(1));
        store.close().unwrap();
    }
}

#[test]
fn a_rename_that_the_disk_forgot_holds_for_a_queue_that_has_nothing_but_dead_letters() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let store = open(dir.path());
    deliver_all(&store);
    store.close().unwrap();
    forgotten(dir.path(), |store| {
        told(|done| store.rename_node(NodeId(NODE), NodeId(5), done)).unwrap();
    });
    for _ in 0..2 {
        let store = open(dir.path());
        deliver_all(&store);
        let both = [(3, marked(3).into()), (5, marked(5).into())];
        assert_eq!(letters_read(&store, 5), both);
        assert_eq!(
            (letters_read(&store, NODE), hints(&store, 5).len()),
            (vec![], 0)
        );
        store.close().unwrap();
    }
}

#[test]
fn a_removal_that_the_disk_forgot_after_a_clean_stop_holds_for_dead_letters_too() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    forgotten(dir.path(), |store| {
        told(|done| store.remove_node(NodeId(NODE), done)).unwrap();
    });
    for times in 0..2 {
        let store = open(dir.path());
        assert_eq!(store.stats().damage.is_empty(), times == 1);
        assert_eq!(
            (pending(&store), letters_read(&store, NODE)),
            (vec![], vec![])
        );
        assert_eq!(store.losses(0).unwrap().total().hints, 6, "as it was told");
        deliver_all(&store);
        store.close().unwrap();
    }
    assert_eq!(keys(dir.path()), [0; 4]);
}

#[test]
fn a_pointer_that_is_damaged_costs_nothing_but_itself() {
    let dir = damaged(|hints| flip(hints, &key(RECORD, 4)));
    let store = open(dir.path());
    let damage = store.stats().damage;
    assert_eq!((damage.len(), damage[0].lost), (1, None), "{damage:?}");
    assert_eq!(pending(&store), [1, 2, 7]);
    assert_eq!(letters_read(&store, NODE).len(), 2);
    assert_eq!(store.losses(0).unwrap().total().hints, 1);
    deliver_all(&store);
    store.close().unwrap();
    assert_eq!(keys(dir.path())[usize::from(RECORD)], 2);
}

#[test]
fn a_dead_letter_whose_payload_is_damaged_or_gone_says_so_and_can_be_discarded() {
    for gone in [false, true] {
        let dir = damaged(|hints| match gone {
            true => drop(hints.remove(key(BLOCK, 3)).unwrap()),
            false => flip(hints, &key(BLOCK, 3)),
        });
        let store = open(dir.path());
        let listed = store.letters(NodeId(NODE), None, 9).unwrap();
        assert_eq!(listed.len(), 2);
        assert!(store.letter(NodeId(NODE), id(&store, 3)).is_err());
        assert!(store.letter(NodeId(NODE), id(&store, 5)).unwrap().is_some());
        assert!(store.letter(NodeId(NODE), id(&store, 4)).unwrap().is_none());
        let places = vec![listed[0].0];
        let left = told(|done| store.discard(NodeId(NODE), places, done)).unwrap();
        assert_eq!((left.hints, left.bytes), (1, marked(3).len() as u64));
        assert_eq!(letters_read(&store, NODE), [(5, marked(5).into())]);
        assert_eq!(store.losses(0).unwrap().total().hints, 2);
        assert!(store.letter(NodeId(NODE), id(&store, 3)).unwrap().is_none());
    }
}

#[test]
fn a_lost_node_record_loses_no_dead_letter_whether_its_queue_is_drained_or_not() {
    for (drained, clean) in [(false, false), (false, true), (true, false), (true, true)] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        if drained {
            stop_uncleanly(&open(dir.path()), dir.path());
            let store = open(dir.path());
            deliver_all(&store);
            store.close().unwrap();
            assert_eq!(keys(dir.path()), [0, 0, 2, 2], "but for dead letters");
        }
        changed_for_good(dir.path(), |db| {
            let nodes = db.open_tree("hh/nodes").unwrap();
            nodes.remove(NODE.to_be_bytes()).unwrap();
        });
        if !clean {
            fs::remove_file(generation(dir.path()).join("CLEAN")).unwrap();
        }
        let store = open(dir.path());
        assert!(!store.stats().damage.is_empty());
        let both = [(3, marked(3).into()), (5, marked(5).into())];
        assert_eq!(letters_read(&store, NODE), both);
        let left: &[u64] = if drained { &[] } else { &[1, 2, 7] };
        assert_eq!(pending(&store), left);
        deliver_all(&store);
        store.close().unwrap();
        let store = open(dir.path());
        assert_eq!(store.stats().damage, [], "{drained} {clean}");
        assert_eq!(letters_read(&store, NODE), both);
    }
}

/// The first dead letter of its queue, so that no record says that the queue has any.
#[test]
fn a_block_that_a_crash_left_without_its_record_goes_and_its_queue_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, NODE, marked(1));
    store.close().unwrap();
    behind_its_back(dir.path(), |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        for chunk in [0, 1] {
            let mut key = key(BLOCK, 1);
            key[26] = chunk;
            hints.insert(key, marked(1)).unwrap();
        }
    });
    fs::remove_file(generation(dir.path()).join("CLEAN")).unwrap();
    let store = open(dir.path());
    assert_eq!(letters_read(&store, NODE), []);
    deliver_all(&store);
    store.close().unwrap();
    assert_eq!(keys(dir.path()), [0; 4]);
    assert_eq!(open(dir.path()).stats().damage, []);
}

#[test]
fn what_points_to_a_queue_that_is_gone_is_removed_by_an_open() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    // The pointer is moved to a queue of its own: 4 is to be found in queue 77, which is no more.
    changed_for_good(dir.path(), |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        let mut value = vec![1, 1, 2, 77, 7, 100];
        let crc = crc32c::crc32c(&[key(RECORD, 4).as_slice(), &value].concat());
        value.extend(crc.to_be_bytes());
        hints.insert(key(RECORD, 4), value).unwrap();
    });
    let store = open(dir.path());
    assert_eq!(store.stats().damage, []);
    assert_eq!(letters_read(&store, NODE).len(), 2);
    assert_eq!(pending(&store), [1, 2, 7]);
    store.close().unwrap();
    assert_eq!(keys(dir.path())[usize::from(RECORD)], 2);
}
