//! Whatever is intact in a damaged store is found again, and only what is not is lost; the damaged
//! files are kept as they were.
//!
//! Method: bytes of the log of a closed store are changed, as a failing disk would, at places that
//! sled handles in different ways: in the segment it would cut, in one that its snapshot covers,
//! and so that it opens nothing at all.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use crate::common::{
    letters::{letters_read, make_dead_letter_at, redrive_as_it_is},
    *,
};
use hinted_handoff::{
    DirectoryProblem, Health, NodeId, OpenError,
    internals::{Leave, Peek, Store},
    salvage,
};

const NODE: u64 = 2;

fn filled(dir: &Path, count: u64) {
    let store = open(dir);
    for number in 1..=count {
        append(&store, NODE, marked(number));
    }
    store.close().unwrap();
}

/// Takes everything, skipping what is damaged, and waiting while the store reopens itself.
fn drain(store: &Store) -> Vec<Vec<u8>> {
    let mut taken = Vec::new();
    let mut reader = hinted_handoff::internals::Reader::default();
    for _ in 0..2_000 {
        match store.peek(&mut reader, NodeId(NODE), EVERYTHING) {
            Ok(Peek::Empty) => return taken,
            Ok(Peek::Hints(hints)) => {
                let last = hints.last().unwrap().mark;
                taken.extend(hints.iter().map(|it| it.hint.payload.to_vec()));
                store.ack(NodeId(NODE), last, Leave::Delivered).unwrap();
            }
            Ok(Peek::Damaged(place)) => {
                let (tell, told) = std::sync::mpsc::channel();
                store.scrub(NodeId(NODE), place.queue, move |result| {
                    tell.send(result).unwrap()
                });
                let _failed_meanwhile = told.recv_timeout(Duration::from_secs(20)).unwrap();
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    panic!("not drained: {:?}", store.health());
}

fn aside(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.to_string_lossy().contains("aside-"))
        .collect()
}

#[test]
fn damage_in_the_segment_that_sled_would_cut_costs_one_hint_and_the_files_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 40);
    assert!(destroy(dir.path(), &marked(7)) > 0);
    let damaged = fs::read(generation(dir.path()).join("db")).unwrap();

    let store = open(dir.path());
    let moved = store.stats().moved_aside.unwrap();
    assert_eq!(fs::read(moved.join("db")).unwrap(), damaged);
    assert!(moved.join("CLEAN").exists());
    let expected: Vec<_> = (1..=40).filter(|it| *it != 7).map(marked).collect();
    assert_eq!(drain(&store), expected);
    assert_eq!(lost_ranges(&store), [(7, 7)]);

    // It goes on as any store does.
    append(&store, NODE, "more");
    store.close().unwrap();
    let store = open(dir.path());
    assert_eq!(payloads(&store, NODE), ["more"]);
    assert_eq!(store.stats().moved_aside, None);
    assert_eq!(lost_ranges(&store), []);
}

#[test]
fn damage_under_the_snapshot_is_met_by_a_read_and_the_store_rebuilds_itself() {
    let met_by_a_read = (0..10).any(|_| damage_under_the_snapshot());
    assert!(met_by_a_read, "it was noticed at open each time");
}

/// What becomes WAL records.
fn append_at_once(store: &Store, nodes: std::ops::Range<u64>) {
    let (tell, told) = std::sync::mpsc::channel();
    for node in nodes.clone() {
        let tell = tell.clone();
        let done = move |stored: Result<_, _>| tell.send(stored.map(drop)).unwrap();
        store.append(NodeId(node), hint(1, "at once"), Box::new(done));
    }
    nodes.for_each(|_| told.recv().unwrap().unwrap());
}

/// Whether it was noticed by a read, not at open.
fn damage_under_the_snapshot() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 1..=30 {
        append(&store, NODE, marked(number));
    }
    // Several segments, so that the damage lies far before the end.
    for number in 0..40 {
        append(&store, 9, noise(500_000, number));
    }
    store.close().unwrap();
    // From its own snapshot sled takes where each page lies, without reading it.
    open(dir.path()).close().unwrap();
    assert!(destroy(dir.path(), &marked(12)) > 0);

    let store = open(dir.path());
    // sled moves pages about as it likes: a copy that lies near the end is noticed at once.
    let met_by_a_read = store.stats().moved_aside.is_none();
    append_at_once(&store, 20..40);
    // The other hints of its leaf are lost with it, where no other copy of them is left.
    let taken = drain(&store);
    let lost: BTreeSet<u64> = lost_ranges(&store)
        .into_iter()
        .flat_map(|(first, last)| first..=last)
        .collect();
    let spread = lost
        .last()
        .zip(lost.first())
        .map(|(last, first)| last - first);
    assert!(lost.contains(&12) && spread < Some(16), "{lost:?}");
    let expected = (1..=30).filter(|number| !lost.contains(number));
    assert!(taken == expected.map(marked).collect::<Vec<_>>());
    assert!(matches!(store.health(), Health::Serving));
    assert_eq!(store.stats().reopened, u64::from(met_by_a_read));
    assert!(store.stats().moved_aside.is_some());
    // What was written by then is known to the store, not to the files alone.
    let id = append(&store, NODE, "more");
    assert_eq!(payloads(&store, NODE), ["more"]);
    assert_eq!(hints(&store, 9).len(), 40);
    for node in 20..40 {
        assert_eq!(payloads(&store, node), ["at once"], "node {node}");
    }
    store.close().unwrap();
    let store = open(dir.path());
    assert_eq!(payloads(&store, NODE), ["more"]);
    assert_eq!(hints(&store, NODE)[0].mark.queue.queue, id.queue);
    met_by_a_read
}

#[test]
fn a_block_that_sled_lost_is_found_again_in_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, NODE, marked(1));
    append(&store, NODE, noise(100_000, 5));
    append(&store, NODE, marked(3));
    store.close().unwrap();
    behind_its_back(dir.path(), |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        for key in chunk_keys(&hints, NODE) {
            hints.remove(key).unwrap();
        }
    });
    let store = open(dir.path());
    assert!(matches!(peek(&store, NODE), Peek::Damaged(_)));
    assert_eq!(drain(&store), [marked(1), noise(100_000, 5), marked(3)]);
    assert_eq!(lost_ranges(&store), []);
}

#[test]
fn a_store_whose_identity_sled_lost_is_rebuilt_with_it() {
    for record in ["store", "schema"] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 5);
        let id = open(dir.path()).id();
        behind_its_back(dir.path(), |db| {
            let meta = db.open_tree("hh/meta").unwrap();
            meta.remove(record).unwrap();
        });
        let store = open(dir.path());
        assert_eq!(store.id(), id, "{record}");
        assert_eq!(drain(&store), (1..=5).map(marked).collect::<Vec<_>>());
    }
}

/// Without `CLEAN` nobody knows what is missing, so nothing is rebuilt by itself.
#[test]
fn what_is_intact_in_an_unopenable_store_can_be_salvaged() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 20);
    let store = open(dir.path());
    let head = hints(&store, NODE);
    store
        .ack(NodeId(NODE), head[3].mark, Leave::Delivered)
        .unwrap();
    append(&store, 3, "for another");
    append(&store, 4, "for a removed one");
    let (tell, told) = std::sync::mpsc::channel();
    store.remove_node(NodeId(4), move |result| tell.send(result).unwrap());
    told.recv().unwrap().unwrap();
    let id = store.id();
    store.close().unwrap();

    let damaged = generation(dir.path());
    fs::remove_file(damaged.join("CLEAN")).unwrap();
    for entry in fs::read_dir(&damaged).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains("snap.") {
            fs::remove_file(path).unwrap();
        }
    }
    assert!(destroy(dir.path(), &marked(9)) > 0);
    // The segment's header: sled takes the log for empty.
    let mut log = fs::read(damaged.join("db")).unwrap();
    log[2] ^= 1;
    fs::write(damaged.join("db"), &log).unwrap();
    let before = fs::read(damaged.join("db")).unwrap();
    let error = Store::open(&config(dir.path()), Box::new(|_| {})).err();
    let Some(error @ OpenError::Unopenable { .. }) = error else {
        panic!("{error:?}");
    };
    assert!(error.to_string().contains("salvage()"), "{error}");
    assert!(fs::read(damaged.join("db")).unwrap() == before);

    let into = dir.path().join("salvaged");
    salvage(&damaged, &into).unwrap();
    let store = open(&into);
    assert_eq!(store.id(), id);
    let expected: Vec<_> = (5..=20).filter(|it| *it != 9).map(marked).collect();
    assert_eq!(drain(&store), expected);
    assert_eq!(lost_ranges(&store), [(9, 9)]);
    assert_eq!(payloads(&store, 3), ["for another"]);
    assert_eq!(payloads(&store, 4), [""; 0]);
    store.close().unwrap();

    let again = salvage(&damaged, &into).unwrap_err();
    assert!(
        matches!(
            &again,
            OpenError::Directory {
                problem: DirectoryProblem::Occupied { .. },
                ..
            }
        ),
        "{again}"
    );
    let nothing = dir.path().join("nothing");
    fs::create_dir(&nothing).unwrap();
    assert!(salvage(&nothing, dir.path().join("other")).is_err());
}

/// Its own record is damaged, and that of the name it had before says only that it is no more.
#[test]
fn salvage_takes_the_queues_of_a_renamed_node_whose_record_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3);
    let store = open(dir.path());
    told(|done| store.rename_node(NodeId(NODE), NodeId(5), done)).unwrap();
    append(&store, 4, "for a removed one");
    told(|done| store.remove_node(NodeId(4), done)).unwrap();
    store.close().unwrap();
    let damaged = generation(dir.path());
    fs::remove_file(damaged.join("CLEAN")).unwrap();
    changed_for_good(dir.path(), |db| {
        let nodes = db.open_tree("hh/nodes").unwrap();
        nodes.insert(5_u64.to_be_bytes(), "nonsense").unwrap();
    });
    let into = dir.path().join("salvaged");
    salvage(&damaged, &into).unwrap();
    let store = open(&into);
    let expected: Vec<_> = (1..=3).map(marked).collect();
    assert_eq!(
        payloads(&store, NODE),
        expected,
        "with the node in their keys"
    );
    assert_eq!(payloads(&store, 4), [""; 0]);
}

#[test]
fn what_a_crash_left_of_a_rebuild_is_moved_aside_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3);
    let open_quietly = || {
        let store = open(dir.path());
        assert_eq!(payloads(&store, NODE).len(), 3);
        store.close().unwrap();
    };
    // Before it was named, complete or not.
    fs::create_dir(dir.path().join("building")).unwrap();
    fs::create_dir(dir.path().join("gen-000002")).unwrap();
    fs::write(dir.path().join("gen-000002/db"), "never in use").unwrap();
    // What an operator put there is none of it.
    let copy = dir.path().join("gen-000001.bak");
    fs::create_dir(&copy).unwrap();
    open_quietly();
    assert!(!dir.path().join("gen-000002").exists());
    assert!(copy.exists());
    let [never_used] = aside(dir.path()).try_into().unwrap();
    assert_eq!(
        fs::read_to_string(never_used.join("db")).unwrap(),
        "never in use"
    );
    // After it was named, before the damaged one was moved aside.
    fs::rename(generation(dir.path()), dir.path().join("gen-000005")).unwrap();
    fs::write(dir.path().join("CURRENT"), "gen-000005\n").unwrap();
    fs::create_dir(generation(dir.path())).unwrap();
    fs::write(generation(dir.path()).join("db"), "the damaged one").unwrap();
    open_quietly();
    let mut found = aside(dir.path());
    found.retain(|path| *path != never_used);
    assert_eq!(
        fs::read_to_string(found[0].join("db")).unwrap(),
        "the damaged one"
    );
}

/// In the log they stand still, and what a rebuild finds there it cannot tell from one that is
/// kept.
#[test]
fn a_dead_letter_that_was_discarded_evicted_or_sent_on_does_not_come_back() {
    for by_salvage in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 30);
        let config = hinted_handoff::Config {
            max_dead_letters: 9,
            ..config(dir.path())
        };
        let store = Store::open(&config, Box::new(|_| {})).unwrap();
        // Every second one, with others between them that wait; the first two make room for the
        // last two.
        let mut places: Vec<_> = (1..=11)
            .map(|number| make_dead_letter_at(&store, NODE, number * 2, "rejected"))
            .collect();
        let kept = |store: &Store| -> Vec<u64> {
            letters_read(store, NODE)
                .iter()
                .map(|(at, _)| *at)
                .collect()
        };
        assert_eq!(kept(&store), (3..=11).map(|it| it * 2).collect::<Vec<_>>());
        // One by one, and several at once.
        let mut discard = |numbers: &[u64]| {
            let (gone, rest): (Vec<_>, Vec<_>) = places
                .drain(..)
                .partition(|it| numbers.contains(&it.sequence.0));
            places = rest;
            told(|done| store.discard(NodeId(NODE), gone, done)).unwrap();
        };
        discard(&[10]);
        discard(&[6, 16, 18]);
        let sent_on = places.iter().find(|it| it.sequence.0 == 20).unwrap();
        let now = redrive_as_it_is(&store, NODE, *sent_on);
        let waiting = hints(&store, NODE);
        let again = waiting.iter().find(|it| it.mark.sequence == now.sequence);
        let mut again = vec![again.unwrap().clone()];
        store.claim(NodeId(NODE), &mut again);
        store.deliver(NodeId(NODE), &again).unwrap();
        sync(&store);
        // Where two were discarded, and behind all of them.
        make_dead_letter_at(&store, NODE, 17, "rejected");
        make_dead_letter_at(&store, NODE, 29, "rejected");
        assert_eq!(kept(&store), [8, 12, 14, 17, 22, 29]);
        store.close().unwrap();

        assert!(destroy(dir.path(), &marked(1)) > 0);
        let path = match by_salvage {
            false => dir.path().to_owned(),
            true => {
                fs::remove_file(generation(dir.path()).join("CLEAN")).unwrap();
                let into = dir.path().join("salvaged");
                salvage(generation(dir.path()), &into).unwrap();
                into
            }
        };
        let store = open(&path);
        assert_eq!(store.stats().moved_aside.is_some(), !by_salvage);
        assert_eq!(kept(&store), [8, 12, 14, 17, 22, 29], "{by_salvage}");
        // Nor when that is rebuilt in its turn.
        let next = places.iter().find(|it| it.sequence.0 == 12).unwrap();
        told(|done| store.discard(NodeId(NODE), vec![*next], done)).unwrap();
        store.close().unwrap();
        assert!(destroy(&path, &marked(3)) > 0);
        let store = open(&path);
        assert!(store.stats().moved_aside.is_some());
        assert_eq!(kept(&store), [8, 14, 17, 22, 29], "{by_salvage}");
    }
}

#[test]
fn what_is_known_of_discarded_dead_letters_goes_with_their_queue() {
    let dir = tempfile::tempdir().unwrap();
    let known = || {
        behind_its_back(dir.path(), |db| {
            let losses = db.open_tree("hh/losses").unwrap();
            losses.scan_prefix([4]).count()
        })
    };
    filled(dir.path(), 3);
    let store = open(dir.path());
    let place = make_dead_letter_at(&store, NODE, 2, "rejected");
    told(|done| store.discard(NodeId(NODE), vec![place], done)).unwrap();
    store.close().unwrap();
    assert_eq!(known(), 1);
    let store = open(dir.path());
    told(|done| store.remove_node(NodeId(NODE), done)).unwrap();
    store.close().unwrap();
    open(dir.path()).close().unwrap();
    assert_eq!(known(), 0);
}
