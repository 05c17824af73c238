//! What a child tells its parent of a store: lines of words, one a fact.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
};

use hinted_handoff::{
    HintId,
    internals::{self, PeekedHint},
};

/// A hint's place in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub queue: u64,
    pub sequence: u64,
}

/// A hint as the verdict compares it: its place, and a fingerprint of all that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hint {
    pub key: Key,
    pub fingerprint: u64,
}

impl Hint {
    /// A hint as it was handed in and answered.
    pub fn of_new(id: HintId, hint: &internals::Hint) -> Hint {
        Hint {
            key: Key {
                queue: id.queue.0,
                sequence: id.sequence.0,
            },
            fingerprint: Hint::fingerprint_of(hint),
        }
    }

    /// What any hint with this content has for a fingerprint, whatever its place.
    pub fn fingerprint_of(hint: &internals::Hint) -> u64 {
        let mut hasher = DefaultHasher::new();
        (hint.shard, hint.format, hint.enqueued_unix_ms).hash(&mut hasher);
        hint.payload.hash(&mut hasher);
        hasher.finish()
    }

    /// A hint as it came back.
    pub fn of_peeked(peeked: &PeekedHint) -> Hint {
        let hint = &peeked.hint;
        Hint {
            key: Key {
                queue: peeked.mark.queue.queue.0,
                sequence: peeked.mark.sequence.0,
            },
            fingerprint: Hint::fingerprint_of(hint),
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key { queue, sequence } = self.key;
        write!(f, "{queue} {sequence} {}", self.fingerprint)
    }
}

/// Something a child met. The texts come last in their lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The store did not open: the kind of the error, and its text.
    Refused {
        kind: String,
        text: String,
    },
    Opened {
        store: String,
    },
    /// An unopenable store was moved there.
    MovedAside {
        path: String,
    },
    /// A hint was appended and answered as durable.
    Appended {
        node: u64,
        hint: Hint,
    },
    Delivered {
        node: u64,
        hint: Hint,
    },
    /// A record of damage, with the range it names as lost.
    Damage {
        queue: u64,
        lost: Option<(u64, u64)>,
        what: String,
    },
    /// An operation of the open store gave an error.
    Failed {
        text: String,
    },
    /// It was closed, cleanly.
    Closed,
    /// The store failed and reopened itself: what was acknowledged since it was opened may come
    /// again.
    Reopened,
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Texts hold no line breaks in their lines.
        let line = |text: &str| text.replace('\n', " ");
        match self {
            Fact::Refused { kind, text } => write!(f, "refused {kind} {}", line(text)),
            Fact::Opened { store } => write!(f, "opened {store}"),
            Fact::MovedAside { path } => write!(f, "aside {path}"),
            Fact::Appended { node, hint } => write!(f, "appended {node} {hint}"),
            Fact::Delivered { node, hint } => write!(f, "delivered {node} {hint}"),
            Fact::Damage { queue, lost, what } => {
                let (first, last) = lost.unwrap_or((0, 0));
                write!(f, "damage {queue} {first} {last} {}", line(what))
            }
            Fact::Failed { text } => write!(f, "failed {}", line(text)),
            Fact::Closed => f.write_str("closed"),
            Fact::Reopened => f.write_str("reopened"),
        }
    }
}

/// Reads a line back; `None` for one that is no fact.
pub fn parse(line: &str) -> Option<Fact> {
    let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
    let words: Vec<&str> = rest.splitn(4, ' ').collect();
    let number = |index: usize| words.get(index)?.parse::<u64>().ok();
    let hint = || {
        let key = Key {
            queue: number(1)?,
            sequence: number(2)?,
        };
        let fingerprint = number(3)?;
        Some(Hint { key, fingerprint })
    };
    Some(match name {
        "refused" => {
            let (kind, text) = rest.split_once(' ')?;
            let (kind, text) = (kind.to_owned(), text.to_owned());
            Fact::Refused { kind, text }
        }
        "opened" => Fact::Opened {
            store: rest.to_owned(),
        },
        "aside" => Fact::MovedAside {
            path: rest.to_owned(),
        },
        "appended" => Fact::Appended {
            node: number(0)?,
            hint: hint()?,
        },
        "delivered" => Fact::Delivered {
            node: number(0)?,
            hint: hint()?,
        },
        "damage" => {
            let range = (number(1)?, number(2)?);
            Fact::Damage {
                queue: number(0)?,
                lost: (range != (0, 0)).then_some(range),
                what: (*words.get(3)?).to_owned(),
            }
        }
        "failed" => Fact::Failed {
            text: rest.to_owned(),
        },
        "reopened" => Fact::Reopened,
        "closed" => Fact::Closed,
        _ => return None,
    })
}
