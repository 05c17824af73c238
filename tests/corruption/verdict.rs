//! The verdict: what a damaged store may tell, held against what was in it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    report::{Fact, Hint, Key},
    template::Content,
};

/// How a damaged store fared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Everything that was pending came.
    Recovered,
    /// What did not come was reported lost.
    LossReported,
    /// It did not open: the kind of the error.
    Refused(String),
    /// It opened, and an operation gave an error.
    Failed(String),
}

/// What two lives of a damaged store told together.
struct Seen<'a> {
    content: &'a Content,
    /// Per node, what must come, in order.
    expected: BTreeMap<u64, Vec<Hint>>,
    /// Lost ranges by queue, in the order of their reports.
    lost: Vec<(u64, u64, u64)>,
    /// Queues of which a damage record without a range speaks: their bookkeeping was rebuilt.
    rebuilt: BTreeSet<u64>,
    violations: Vec<String>,
    /// An append was answered by "outcome unknown": its hint may be there or not.
    unknown_append: bool,
}

/// Judges the lives of a store. `Err` says what is broken.
pub fn judge(content: &Content, lives: &[Vec<Fact>]) -> Result<Outcome, Vec<String>> {
    let mut seen = Seen::gather(content, lives);
    let delivered = seen.check_deliveries(lives);
    let failed = lives.iter().flatten().find_map(failure);
    seen.check_losses(&delivered);
    // What an operation of the last life refused with an error did not go silently.
    let last_failed = lives
        .last()
        .is_some_and(|life| life.iter().any(|fact| failure(fact).is_some()));
    if !last_failed {
        seen.check_gaps(&delivered);
    }
    if !seen.violations.is_empty() {
        return Err(seen.violations);
    }
    Ok(match failed {
        Some(outcome) => outcome,
        None if seen.lost.is_empty() => Outcome::Recovered,
        None => Outcome::LossReported,
    })
}

fn failure(fact: &Fact) -> Option<Outcome> {
    match fact {
        Fact::Refused { kind, .. } => Some(Outcome::Refused(kind.clone())),
        Fact::Failed { text } => {
            let action = text.split(':').next().unwrap_or(text);
            Some(Outcome::Failed(action.to_owned()))
        }
        _ => None,
    }
}

/// What a hint that a child appends looks like.
fn appended_to(node: u64) -> u64 {
    Hint::fingerprint_of(&crate::common::hint(1, format!("new for {node}")))
}

impl<'a> Seen<'a> {
    fn gather(content: &'a Content, lives: &[Vec<Fact>]) -> Self {
        let mut seen = Seen {
            content,
            expected: content.pending.clone(),
            lost: Vec::new(),
            rebuilt: BTreeSet::new(),
            violations: Vec::new(),
            unknown_append: false,
        };
        let mut given: BTreeSet<Key> = content.used.keys().copied().collect();
        for fact in lives.iter().flatten() {
            match fact {
                Fact::Opened { store } if *store != content.store => {
                    seen.violate(format!("the store's identity became {store}"));
                }
                Fact::Appended { node, hint } => {
                    if !given.insert(hint.key) {
                        seen.violate(format!("{:?} was given out twice", hint.key));
                    }
                    seen.expected.entry(*node).or_default().push(*hint);
                }
                Fact::Damage { queue, lost, .. } => match lost {
                    Some((first, last)) => seen.lost.push((*queue, *first, *last)),
                    None => drop(seen.rebuilt.insert(*queue)),
                },
                Fact::Failed { text } if text.starts_with("append: outcome unknown") => {
                    seen.unknown_append = true;
                }
                Fact::Failed { text } if text.contains("no answer") => {
                    seen.violate(format!("a hang: {text}"));
                }
                _ => {}
            }
        }
        for life in lives {
            let told = |wanted: fn(&Fact) -> bool| life.iter().any(wanted);
            if told(|fact| matches!(fact, Fact::Opened { .. }))
                && !told(|fact| matches!(fact, Fact::Closed | Fact::Failed { .. }))
            {
                seen.violate("it neither closed nor said why".to_owned());
            }
        }
        seen
    }

    fn violate(&mut self, text: String) {
        self.violations.push(text);
    }

    /// Every hint that came is one of those that may, unchanged, and behind the one before it.
    fn check_deliveries(&mut self, lives: &[Vec<Fact>]) -> BTreeSet<Key> {
        let mut delivered = BTreeSet::new();
        let mut reached: BTreeMap<u64, usize> = BTreeMap::new();
        for life in lives {
            for fact in life {
                if *fact == Fact::Reopened {
                    reached.clear();
                }
                let Fact::Delivered { node, hint } = fact else {
                    continue;
                };
                let expected = self.expected.get(node).into_iter().flatten();
                let place = expected.enumerate().find(|(_, it)| it.key == hint.key);
                match place.map(|(place, it)| (place, it.fingerprint)) {
                    Some((_, fingerprint)) if fingerprint != hint.fingerprint => {
                        self.violate(format!("{:?} came with other content", hint.key));
                    }
                    Some((place, _)) => {
                        let next = reached.entry(*node).or_default();
                        if place < *next {
                            let key = hint.key;
                            self.violate(format!("node {node}: {key:?} came again or too late"));
                        }
                        *next = place + 1;
                        delivered.insert(hint.key);
                    }
                    None => self.check_done_before(*node, *hint),
                }
            }
            // Acks that were not committed come to nothing: hints may come again.
            if !life.contains(&Fact::Closed) {
                reached.clear();
            }
        }
        delivered
    }

    /// A hint that was done with may come again only where the store says that it had to rebuild
    /// the queue's cursor.
    fn check_done_before(&mut self, node: u64, hint: Hint) {
        let key = hint.key;
        match self.content.used.get(&key) {
            Some(fingerprint) if *fingerprint != hint.fingerprint => {
                self.violate(format!(
                    "{key:?}, done with before, came with other content"
                ));
            }
            Some(_) if self.rebuilt.contains(&key.queue) => {}
            Some(_) => self.violate(format!("node {node}: {key:?} was done with and came again")),
            None if self.unknown_append && hint.fingerprint == appended_to(node) => {}
            None => self.violate(format!("node {node}: {key:?} was never written")),
        }
    }

    /// A range is reported once, names only what was there, and nothing that came.
    fn check_losses(&mut self, delivered: &BTreeSet<Key>) {
        let lost = self.lost.clone();
        for (index, (queue, first, last)) in lost.iter().enumerate() {
            for (other, from, until) in &lost[..index] {
                if other == queue && from <= last && first <= until {
                    self.violate(format!(
                        "queue {queue}: {first}..={last} reported lost twice"
                    ));
                }
            }
            let expected = self.expected.values().flatten().map(|hint| hint.key);
            let pending: BTreeSet<Key> = expected.collect();
            // A range may be absurdly long; what it names beyond all hints is told by the first of
            // them.
            for sequence in (*first..=*last).take(10_000) {
                let key = Key {
                    queue: *queue,
                    sequence,
                };
                if delivered.contains(&key) {
                    self.violate(format!("{key:?} was reported lost and delivered"));
                } else if !pending.contains(&key) && !self.rebuilt.contains(queue) {
                    self.violate(format!("{key:?} was reported lost and was not pending"));
                    break;
                }
            }
        }
    }

    /// What did not come is in a lost range.
    fn check_gaps(&mut self, delivered: &BTreeSet<Key>) {
        let missing: Vec<String> = self
            .expected
            .values()
            .flatten()
            .map(|hint| hint.key)
            .filter(|key| !delivered.contains(key))
            .filter(|key| {
                !self.lost.iter().any(|(queue, first, last)| {
                    *queue == key.queue && (first..=last).contains(&&key.sequence)
                })
            })
            .map(|key| format!("a silent gap: {key:?} neither came nor was reported lost"))
            .collect();
        self.violations.extend(missing);
    }
}

/// Controls: lives that break a rule are objected to, sound ones are not. Returns how many there
/// are.
///
/// # Panics
/// When the verdict is wrong.
pub fn check_itself() -> usize {
    let key = |sequence| Key { queue: 4, sequence };
    let hint = |sequence| Hint {
        key: key(sequence),
        fingerprint: sequence * 7,
    };
    let content = Content {
        store: "id".to_owned(),
        pending: BTreeMap::from([(2, vec![hint(3), hint(4), hint(5)])]),
        used: (1..=5)
            .map(|sequence| (key(sequence), sequence * 7))
            .collect(),
    };
    let came = |sequence| Fact::Delivered {
        node: 2,
        hint: hint(sequence),
    };
    let changed = Fact::Delivered {
        node: 2,
        hint: Hint {
            fingerprint: 1,
            ..hint(4)
        },
    };
    let elsewhere = Fact::Delivered {
        node: 3,
        hint: hint(4),
    };
    let lost = |first, last| Fact::Damage {
        queue: 4,
        lost: Some((first, last)),
        what: String::new(),
    };
    let rebuilt = Fact::Damage {
        queue: 4,
        lost: None,
        what: String::new(),
    };
    let appended = |sequence| Fact::Appended {
        node: 2,
        hint: hint(sequence),
    };
    let failed = |text: &str| Fact::Failed {
        text: text.to_owned(),
    };
    let opened = |store: &str| Fact::Opened {
        store: store.to_owned(),
    };

    let sound = [
        (vec![came(3), came(4), came(5)], Outcome::Recovered),
        (
            vec![rebuilt.clone(), came(1), came(2), came(3), came(4), came(5)],
            Outcome::Recovered,
        ),
        (vec![came(3), lost(4, 4), came(5)], Outcome::LossReported),
        (
            vec![appended(6), came(3), came(4), came(5), came(6)],
            Outcome::Recovered,
        ),
        (
            vec![came(3), Fact::Reopened, came(3), came(4), came(5)],
            Outcome::Recovered,
        ),
        (
            vec![came(3), failed("peek: why")],
            Outcome::Failed("peek".to_owned()),
        ),
    ];
    let broken = [
        vec![came(3), came(5)],
        vec![came(3), came(4)],
        vec![came(3), changed, came(5)],
        vec![came(3), elsewhere, came(5)],
        vec![came(3), came(5), came(4)],
        vec![came(3), came(4), came(4), came(5)],
        vec![came(2), came(3), came(4), came(5)],
        vec![came(3), came(4), came(5), came(6)],
        vec![came(3), lost(4, 5), came(5)],
        vec![came(3), lost(4, 4), lost(4, 5)],
        vec![came(3), came(4), came(5), lost(6, 6)],
        vec![appended(5), came(3), came(4), came(5)],
        vec![appended(6), came(3), came(4), came(5)],
        vec![opened("other"), came(3), came(4), came(5)],
        vec![failed("append: no answer")],
    ];
    let life = |mut facts: Vec<Fact>| {
        facts.insert(0, opened("id"));
        facts.push(Fact::Closed);
        facts
    };
    for (facts, outcome) in &sound {
        let verdict = judge(&content, &[life(facts.clone())]);
        assert_eq!(verdict.as_ref(), Ok(outcome), "{facts:?}");
    }
    for facts in &broken {
        let verdict = judge(&content, &[life(facts.clone())]);
        assert!(verdict.is_err(), "not objected to: {facts:?}");
    }
    let cut = judge(&content, &[vec![opened("id"), came(3), came(4), came(5)]]);
    assert!(cut.is_err(), "a life without an end");
    sound.len() + broken.len() + 1
}
