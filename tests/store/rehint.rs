//! Hints that become hints of other nodes.
//!
//! Method: a child gives hints of a node to others, step by step, and tells which it is about to
//! give to whom, and which it has given. It is killed at each step of the way, and what it left is
//! looked at: every hint is pending for its node, and for nobody else, or pending for each of its
//! owners, and not for its node; and those that it told of as given are.

use std::{collections::BTreeMap, io::Write, path::Path};

use hinted_handoff::{
    Amount, LossReason, NodeId,
    internals::{PeekedHint, Store},
};

use crate::{
    common::{letters::*, *},
    killed::{self, Child},
};

const FROM: u64 = 7;
const DIR: &str = "HH_REHINT_DIR";
const HINTS: u64 = 12;
const STEPS: [&str; 10] = [
    "append: planned",
    "append: node record written",
    "append: chunk written",
    "transaction: accepted",
    "transaction: applied",
    "ack: cursor written",
    "trim: removed",
    "commit: before flush",
    "commit: before fsync",
    "commit: durable",
];

/// Of its number; two of them have a payload that is larger than a group.
fn owners(number: u64) -> Vec<u64> {
    match number % 4 {
        0 => vec![1],
        1 => vec![2],
        2 => vec![3],
        _ => vec![1, 2, 3],
    }
}

fn number_of(hint: &PeekedHint) -> u64 {
    u64::from_be_bytes(hint.hint.payload[..8].try_into().unwrap())
}

fn rehint(store: &Store, hints: Vec<PeekedHint>) -> Amount {
    let with_owners = |hint: PeekedHint| {
        let owners = owners(number_of(&hint)).into_iter().map(NodeId).collect();
        (hint, owners)
    };
    let hints: Vec<_> = hints.into_iter().map(with_owners).collect();
    let no_limits = store.reserve(Vec::new()).unwrap();
    let given = told(|done| store.rehint(NodeId(FROM), hints, no_limits, done));
    given.unwrap()
}

fn tell(what: &str, numbers: &[u64]) {
    let mut out = std::io::stderr().lock();
    for number in numbers {
        writeln!(out, "@{what} {number}").unwrap();
    }
}

fn queue_up(store: &Store) {
    for number in 0..HINTS {
        let size = [20, 3_000, 60_000, 1_500_000][(number / 3 % 4) as usize];
        let mut payload = number.to_be_bytes().to_vec();
        payload.extend(noise(size, number));
        append(store, FROM, payload);
    }
}

#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else {
        return;
    };
    let store = open(Path::new(&dir));
    queue_up(&store);
    tell("queued", &[0]);
    for few in hints(&store, FROM).chunks(3) {
        let few: Vec<_> = few.iter().map(|hint| claimed(&store, FROM, hint)).collect();
        let numbers: Vec<_> = few.iter().map(number_of).collect();
        assert_eq!(rehint(&store, few).hints, 3);
        tell("given", &numbers);
    }
    sync(&store);
    store.close().unwrap();
}

/// Where each hint is pending.
fn found(store: &Store) -> BTreeMap<u64, Vec<u64>> {
    let mut found: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (node, _) in store.nodes() {
        for hint in hints(store, node.0) {
            found.entry(number_of(&hint)).or_default().push(node.0);
        }
    }
    found
}

/// How many were found to be given.
fn check(store: &Store, said: &str, of: &str) -> u64 {
    assert_eq!(store.stats().damage, [], "{of}");
    let was_given = |number: u64| said.lines().any(|it| it == format!("@given {number}"));
    let (found, mut given) = (found(store), 0);
    for (number, nodes) in &found {
        let is_given = *nodes == owners(*number);
        assert!(
            is_given || (*nodes == [FROM] && !was_given(*number)),
            "{of}: hint {number} is of {nodes:?}"
        );
        given += u64::from(is_given);
    }
    if said.contains("@queued") {
        assert_eq!(found.len() as u64, HINTS, "{of}");
    }
    let losses = store.losses(0).unwrap().by_reason;
    let told = losses.get(&LossReason::Rehinted);
    assert_eq!(told.map_or(0, |it| it.hints), given, "{of}");
    given
}

#[test]
fn however_it_is_stopped_each_hint_is_its_nodes_or_its_owners() {
    let child = Child {
        test: "rehint::child",
        dir: DIR,
    };
    // Some steps are come to by each hint that is queued, others only by what is given; of the
    // large ones chunks are written before the step.
    let nths = [1, 2, 3, 4, 13, 14, 15, 16, 300, 400];
    let seen = killed::at_every_step(&child, &STEPS, &nths, check);
    println!("rehint: {seen:?}");
    assert!(seen.checked > 0, "nothing was given");
}

#[test]
fn one_that_is_none_any_more_is_given_to_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    queue_up(&store);
    let all = hints(&store, FROM);
    let few: Vec<_> = all[..3]
        .iter()
        .map(|it| claimed(&store, FROM, it))
        .collect();
    lose(&store, FROM, &all[3], LossReason::Obsolete);
    assert_eq!(store.deliver(NodeId(FROM), &few[1..2]).unwrap().hints, 1);
    let gone = vec![
        few[0].clone(),
        few[1].clone(),
        few[2].clone(),
        all[3].clone(),
    ];
    assert_eq!(rehint(&store, gone).hints, 2);
    let found = found(&store);
    assert_eq!((&found[&0], &found[&2]), (&vec![1], &vec![3]));
    assert!(!found.contains_key(&1) && !found.contains_key(&3));
    store.close().unwrap();
}
