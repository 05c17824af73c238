//! Unclean stops: a child is killed at a step of dead-lettering, sending on, discarding or losing,
//! or of storing what leaves at once or copies that never were hints, and what it left is looked
//! at.
//!
//! The child tells of each thing before and after it does it. Afterwards every hint that it told of
//! as answered must be in exactly one of these: pending, a dead letter, in the loss journal,
//! delivered; in the one that it told of last, or, if it was stopped in between, the one it was
//! about to be in.

use std::{collections::BTreeMap, io::Write, path::Path};

use crate::{
    common::{letters::*, *},
    killed::{self, Child},
};
use hinted_handoff::{
    LossReason, NodeId,
    internals::{Dead, Fate, Place, Store},
};

const NODE: u64 = 7;
const DIR: &str = "HH_LETTERS_DIR";
/// A node that has nothing but copies that were not stored.
const OTHER: u64 = 9;
const STEPS: [&str; 12] = [
    "append: planned",
    "append: chunk written",
    "append: block written",
    "transaction: accepted",
    "letter: block written",
    "transaction: applied",
    "ack: cursor written",
    "letter: pointer removed",
    "trim: removed",
    "commit: before flush",
    "commit: before fsync",
    "commit: durable",
];

/// Where a hint is, by the number it begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Nowhere,
    Pending,
    Dead,
    Lost,
    Delivered,
}

fn tell(what: &str, number: u64) {
    let mut out = std::io::stderr().lock();
    writeln!(out, "@{what} {number}").unwrap();
}

fn number_of(payload: &[u8]) -> u64 {
    u64::from_be_bytes(payload[..8].try_into().unwrap())
}

/// What the child does, if this process is it.
pub fn child() {
    let Ok(dir) = std::env::var(DIR) else {
        return;
    };
    let store = open(Path::new(&dir));
    for number in 0..12_u64 {
        let size = [20, 3_000, 60_000, 1_500_000][(number % 4) as usize];
        let mut payload = number.to_be_bytes().to_vec();
        payload.extend(noise(size, number));
        let (at, fate) = match number {
            5 | 11 => ("Dead", Fate::Dead(cause("refused by this owner alone"))),
            6 => ("Lost", Fate::Lost(LossReason::Obsolete)),
            _ => {
                tell("Nowhere Pending", number);
                append(&store, NODE, payload);
                tell("Pending Pending", number);
                continue;
            }
        };
        tell(&format!("Nowhere {at}"), number);
        if append_undelivered(&store, NODE, hint(1, payload), fate).is_err() {
            return;
        }
        tell(&format!("{at} {at}"), number);
    }
    for number in 0..3 {
        tell("Noting", number);
        if note(&store, OTHER, number % 2).is_err() {
            return;
        }
        tell("Noted", number);
    }
    for hint in hints(&store, NODE) {
        let number = number_of(&hint.hint.payload);
        match number % 6 {
            0 => {
                tell("Pending Lost", number);
                lose(&store, NODE, &hint, LossReason::Expired);
                tell("Lost Lost", number);
            }
            1 => {
                tell("Pending Delivered", number);
                deliver(&store, NODE, &hint);
            }
            _ => {
                tell("Pending Dead", number);
                if make_dead_letter(&store, NODE, &hint).is_err() {
                    return;
                }
                tell("Dead Dead", number);
            }
        }
    }
    for round in 0..2 {
        for (place, _) in letters(&store, NODE) {
            let (_, hint) = letter(&store, NODE, place);
            let number = number_of(&hint.payload);
            if number % 6 == 2 + round {
                tell("Dead Lost", number);
                discard(&store, NODE, vec![place]);
                tell("Lost Lost", number);
                continue;
            }
            tell("Dead Pending", number);
            redrive(&store, NODE, place).unwrap().unwrap();
            tell("Pending Pending", number);
        }
        for hint in hints(&store, NODE) {
            let number = number_of(&hint.hint.payload);
            let fate = if number % 6 == 4 { "Delivered" } else { "Dead" };
            tell(&format!("Pending {fate}"), number);
            match fate {
                "Dead" => make_dead_letter(&store, NODE, &hint).unwrap(),
                _ => deliver(&store, NODE, &hint),
            }
            if fate == "Dead" {
                tell("Dead Dead", number);
            }
        }
        sync(&store);
    }
    store.close().unwrap();
}

/// What a child told last of each hint: where it was, and where it was going.
fn last_told(said: &str) -> BTreeMap<u64, (At, At)> {
    let at = |name: &str| match name {
        "Nowhere" => At::Nowhere,
        "Pending" => At::Pending,
        "Dead" => At::Dead,
        "Lost" => At::Lost,
        "Delivered" => At::Delivered,
        other => panic!("{other}"),
    };
    let mut told = BTreeMap::new();
    for line in said.lines().filter_map(|line| line.strip_prefix('@')) {
        let words: Vec<_> = line.split(' ').collect();
        if let [from, to, number] = words[..]
            && let Ok(number) = number.parse()
        {
            told.insert(number, (at(from), at(to)));
        }
    }
    told
}

/// The dead letters, of which there are none before the first hint is durable.
fn kept(store: &Store) -> Vec<(Place, Dead)> {
    let nodes = store.nodes();
    nodes
        .first()
        .map_or_else(Vec::new, |_| letters(store, NODE))
}

/// Where every hint is, by everything that the store says.
fn found(store: &Store) -> BTreeMap<u64, Vec<At>> {
    let mut found: BTreeMap<u64, Vec<At>> = BTreeMap::new();
    for hint in hints(store, NODE) {
        let number = number_of(&hint.hint.payload);
        found.entry(number).or_default().push(At::Pending);
    }
    for (place, _) in kept(store) {
        let (_, hint) = letter(store, NODE, place);
        let number = number_of(&hint.payload);
        found.entry(number).or_default().push(At::Dead);
    }
    // The first sequences are the numbers plus one; those of sent on ones are looked for where they
    // stood first.
    for (_, loss) in store.losses(0).unwrap().entries {
        let Some(place) = loss.place else { continue };
        let stood = loss.redriven_from.first();
        let (_, first) = *stood.unwrap_or(&(place.queue, place.first));
        assert_eq!(
            loss.amount.hints,
            if place.first == place.last { 1 } else { 2 },
            "{loss:?}"
        );
        for sequence in [first.0, place.last.0]
            .into_iter()
            .take(loss.amount.hints as usize)
        {
            found.entry(sequence - 1).or_default().push(At::Lost);
        }
    }
    found
}

/// Copies that were noted are in the journal, those that the child was told of in any case, and
/// belong to no queue.
fn check_noted(store: &Store, said: &str) {
    let losses = store.losses(0).unwrap();
    let copies = losses.by_reason.get(&LossReason::NotStored);
    let copies = copies.map_or(0, |copies| copies.hints);
    let count = |what: &str| said.lines().filter(|it| it.starts_with(what)).count() as u64;
    let may_be = count("@Noted ")..=count("@Noting ");
    assert!(may_be.contains(&copies), "{copies} copies of {may_be:?}");
    let mut entries = losses.entries.iter();
    assert!(entries.all(|(_, loss)| (loss.node.0 == OTHER) == loss.place.is_none()));
    assert!(!store.knows(NodeId(OTHER)));
}

pub fn at_every_step() {
    let child = Child {
        test: "dead_letters::child",
        dir: DIR,
    };
    let seen = killed::at_every_step(&child, &STEPS, &[1, 2, 5, 13, 30], check);
    println!(
        "dead_letters: {} children, {} killed at one of {} steps, {} looks at hints",
        seen.children,
        seen.killed,
        STEPS.len(),
        seen.checked
    );
}

/// Whether each hint is where the child said that it was or was about to be; returns how many.
fn check(store: &Store, said: &str, of: &str) -> u64 {
    assert_eq!(store.stats().damage, [], "{of}");
    let (found, mut checked) = (found(store), 0);
    for (number, (from, to)) in last_told(said) {
        let at = found.get(&number).cloned().unwrap_or_default();
        let expected = |wanted: At| match [At::Nowhere, At::Delivered].contains(&wanted) {
            true => at.is_empty(),
            false => at == [wanted],
        };
        assert!(
            expected(from) || expected(to),
            "{of}: hint {number} is {at:?}, was {from:?} and about to be {to:?}"
        );
        checked += 1;
    }
    let letters = kept(store).len() as u64;
    if let Some((_, queues)) = store.nodes().first() {
        assert_eq!(queues.letters().hints, letters, "{of}");
    }
    check_noted(store, said);
    checked
}
