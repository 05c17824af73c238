//! Damage in the middle of a log that was not closed ends it for sled, as a crash does. It is told
//! from one where records of several commit groups stand behind, each of which was durable before
//! the next was written.
//!
//! Method: the files of an open store are copied, as a kill leaves them, and bytes are changed in
//! the copy.

use std::{fs, path::Path};

use crate::common::{copy::copy_of, *};
use hinted_handoff::{
    Damage, NodeId,
    internals::{Leave, Peek, Reader, Store},
    offline::{ClosedStore, Selection, Severity, Verified, verify},
    salvage,
};

const NODE: u64 = 2;

/// Hints in a group each.
fn append_each(store: &Store, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        append(store, NODE, marked(number));
    }
}

/// Damages the place where these bytes were written first.
fn damage_first(dir: &Path, bytes: &[u8]) {
    let log = generation(dir).join("db");
    let mut content = fs::read(&log).unwrap();
    let mut windows = content.windows(bytes.len());
    let at = windows.position(|it| it == bytes).unwrap();
    content[at] ^= 0x10;
    fs::write(&log, content).unwrap();
}

/// The same in the middle of all that was written.
fn damage_the_middle(dir: &Path) {
    let log = generation(dir).join("db");
    let mut content = fs::read(&log).unwrap();
    let used = content.iter().rposition(|byte| *byte != 0).unwrap();
    content[used / 2] ^= 0x10;
    fs::write(&log, content).unwrap();
}

fn checked(dir: &Path) -> Verified {
    let before = fs::read(generation(dir).join("db")).unwrap();
    let verified = verify(dir, |_, _| {}).unwrap();
    assert_eq!(fs::read(generation(dir).join("db")).unwrap(), before);
    let closed = ClosedStore::open(dir).unwrap();
    let told = |it: &Severity| closed.findings().iter().any(|found| found.severity == *it);
    let is_lost = verified
        .findings
        .iter()
        .any(|it| it.severity == Severity::Lost);
    assert_eq!(told(&Severity::Lost), is_lost, "every reader is told");
    verified
}

/// What salvage finds.
fn salvaged(dir: &Path) -> u64 {
    let into = tempfile::tempdir().unwrap();
    salvage(generation(dir), into.path()).unwrap();
    let store = ClosedStore::open(into.path()).unwrap();
    let hints = store.hints(&Selection::default());
    hints.map(Result::unwrap).count() as u64
}

#[test]
fn damage_with_durable_groups_behind_it_is_told_with_how_many_hints_it_cuts_off() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_each(&store, 1..=200);
    let killed = copy_of(dir.path());
    assert_eq!(checked(killed.path()).findings, []);
    // A link, which nothing else has: the leaf is written as a whole with the tenth change.
    damage_first(killed.path(), &marked(44));
    let found = checked(killed.path());
    assert!(!found.is_sound());
    let lost = &found.findings[0];
    assert_eq!(lost.severity, Severity::Lost);
    assert!(lost.what.contains("hh salvage"), "{}", lost.what);
    assert_eq!(found.pending.hints, 43);
    // The damaged one may have a copy in a leaf that was written as a whole.
    let all = salvaged(killed.path());
    assert!(all >= 199, "{all}");
    assert_eq!(lost.hints, all - 43, "{}", lost.what);
    store.close().unwrap();
}

#[test]
fn the_same_of_wal_records() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    const NODES: u64 = 40;
    let append_to_all = |number: u64| {
        let (tell, told) = std::sync::mpsc::channel();
        for node in 1..=NODES {
            let tell = tell.clone();
            let done = move |stored: Result<_, _>| tell.send(stored.map(drop)).unwrap();
            store.append(
                NodeId(node),
                hint(1, marked(number * NODES + node)),
                Box::new(done),
            );
        }
        (1..=NODES).for_each(|_| told.recv().unwrap().unwrap());
    };
    (1..=30).for_each(append_to_all);
    let killed = copy_of(dir.path());
    assert_eq!(checked(killed.path()).findings, []);
    damage_the_middle(killed.path());
    let found = checked(killed.path());
    let lost = &found.findings[0];
    assert_eq!(lost.severity, Severity::Lost, "{found:?}");
    let all = salvaged(killed.path());
    assert_eq!(found.pending.hints + lost.hints, all, "{found:?}");
    assert!(all >= 29 * NODES, "{all}");
    store.close().unwrap();
}

#[test]
fn hints_that_left_behind_the_damage_are_not_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_each(&store, 1..=100);
    let last = hints(&store, NODE)[79].mark;
    store.ack(NodeId(NODE), last, Leave::Delivered).unwrap();
    sync(&store);
    append_each(&store, 101..=104);
    let killed = copy_of(dir.path());
    damage_first(killed.path(), &marked(44));
    let found = checked(killed.path());
    assert_eq!(found.findings[0].severity, Severity::Lost);
    assert_eq!(found.findings[0].hints, 24, "{found:?}");
    store.close().unwrap();
}

/// All that an open has, and what it says is missing.
fn opened(dir: &Path, node: u64) -> (u64, Option<std::path::PathBuf>, Vec<Damage>) {
    let store = open(dir);
    let mut taken = 0;
    let mut reader = Reader::default();
    loop {
        match store.peek(&mut reader, NodeId(node), EVERYTHING).unwrap() {
            Peek::Empty => break,
            Peek::Damaged(_) => scrub(&store, node),
            Peek::Hints(hints) => {
                taken += hints.len() as u64;
                let last = hints.last().unwrap().mark;
                store.ack(NodeId(node), last, Leave::Delivered).unwrap();
            }
        }
    }
    let stats = store.stats();
    store.close().unwrap();
    (taken, stats.moved_aside, stats.damage)
}

#[test]
fn an_open_keeps_what_is_intact_behind_damage_and_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_each(&store, 1..=200);
    let mut lost = 0;
    // Of what comes last nobody can tell that it is missing.
    for number in (30..170).step_by(23) {
        let killed = copy_of(dir.path());
        match number % 2 {
            0 => damage_first(killed.path(), &marked(number)),
            _ => assert!(destroy(killed.path(), &marked(number)) > 0),
        }
        let expected = salvaged(killed.path());
        let damaged = fs::read(generation(killed.path()).join("db")).unwrap();
        let (taken, moved_aside, damage) = opened(killed.path(), NODE);
        assert_eq!(taken, expected, "{number}");
        let aside = moved_aside.unwrap();
        assert_eq!(fs::read(aside.join("db")).unwrap(), damaged);
        let ranges = damage.iter().filter_map(|it| it.lost);
        let told: u64 = ranges.map(|(first, last)| last.0 - first.0 + 1).sum();
        assert_eq!(taken + told, 200, "{number}: {damage:?}");
        assert!(damage.iter().any(|it| it.lost.is_none()), "{damage:?}");
        lost += told;
    }
    assert!(lost > 0, "each had another copy");
    store.close().unwrap();
}

/// What one group may be: a hint, many of a node, a few of many nodes, some of both, hints that
/// leave.
fn one_group(store: &Store, random: &mut fastrand::Rng) {
    let nodes = 1..=20;
    let bytes = random.usize(1..6_000);
    let mut burst = Vec::new();
    match random.u8(..5) {
        0 => burst.push((NODE, 1)),
        1 => burst.push((NODE, random.usize(2..100))),
        2 => burst.extend(nodes.map(|node| (node, 1))),
        3 => burst.extend(nodes.map(|node| (node, [1, 40][usize::from(node % 7 == 0)]))),
        _ => {
            let node = random.u64(nodes);
            let pending = hints(store, node);
            let some = pending.get(..pending.len() / 2).unwrap_or_default();
            if let Some(last) = some.last() {
                store
                    .ack(NodeId(node), last.mark, Leave::Delivered)
                    .unwrap();
            }
            sync(store);
        }
    }
    let (tell, told) = std::sync::mpsc::channel();
    let mut count = 0;
    for (node, hints) in burst {
        for _ in 0..hints {
            let payload = noise(random.usize(1..=bytes), random.u64(..));
            let tell = tell.clone();
            let done = move |stored: Result<_, _>| tell.send(stored.map(drop)).unwrap();
            store.append(NodeId(node), hint(1, payload), Box::new(done));
            count += 1;
        }
    }
    (0..count).for_each(|_| told.recv().unwrap().unwrap());
}

/// The log while nothing is written, and how many fsyncs made it so.
fn quiet(store: &Store, dir: &Path) -> (u64, Vec<u8>) {
    let log = generation(dir).join("db");
    let mut found = None;
    until("quiet", || {
        sync(store);
        let fsyncs = store.stats().fsyncs;
        let read = fs::read(&log).unwrap();
        // What was under way meanwhile is durable by then.
        sync(store);
        let is_quiet = store.stats().fsyncs == fsyncs;
        found = is_quiet.then_some((fsyncs, read));
        is_quiet
    });
    found.unwrap()
}

/// A power cut leaves any of the sectors that were written since the last fsync. What came before
/// is durable.
#[test]
fn whatever_a_power_cut_leaves_of_one_group_is_no_damage() {
    const SECTOR: usize = 512;
    let seed =
        std::env::var("HH_SEED").map_or_else(|_| fastrand::u64(..), |it| it.parse().unwrap());
    let groups: u64 = std::env::var("HH_CYCLES").map_or(60, |it| it.parse().unwrap());
    println!("{groups} groups, HH_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (mut looked, mut torn, mut opened_so) = (0, 0, 0);
    for group in 0..groups {
        let (fsyncs, before) = quiet(&store, dir.path());
        one_group(&store, &mut random);
        let (fsyncs_then, after) = quiet(&store, dir.path());
        // Where it was more than one, what it leaves may be damage.
        if fsyncs_then != fsyncs + 1 {
            continue;
        }
        let killed = copy_of(dir.path());
        let log = generation(killed.path()).join("db");
        let old = |at: usize| *before.get(at).unwrap_or(&0);
        let sectors: Vec<usize> = (0..after.len())
            .step_by(SECTOR)
            .filter(|at| (*at..(at + SECTOR).min(after.len())).any(|it| after[it] != old(it)))
            .collect();
        for cut in 0..4 {
            let mut left = after.clone();
            let gone = match cut {
                0 => vec![sectors[random.usize(..sectors.len())]],
                1 => vec![sectors[0]],
                _ => {
                    let part = random.f64();
                    sectors
                        .iter()
                        .copied()
                        .filter(|_| random.f64() < part)
                        .collect()
                }
            };
            for at in gone {
                (at..(at + SECTOR).min(left.len())).for_each(|it| left[it] = old(it));
            }
            fs::write(&log, left).unwrap();
            let found = checked(killed.path());
            assert!(found.is_sound(), "group {group}, cut {cut}: {found:?}");
            looked += 1;
            torn += u64::from(!found.findings.is_empty());
            if cut == 3 && group % 5 == 0 {
                let found = open(killed.path());
                let stats = found.stats();
                assert_eq!((stats.moved_aside, stats.damage), (None, Vec::new()));
                found.close().unwrap();
                opened_so += 1;
            }
        }
    }
    println!("{looked} logs, {torn} with more behind their end, {opened_so} opened");
    assert!(torn > 0, "nothing was torn");
    store.close().unwrap();
}
