//! What a child whose host has rows of its own tells besides: which transactions it begins, and
//! what it reads at each open.

use std::{fmt, str::SplitWhitespace};

use hinted_handoff::{HintId, NodeId};

/// A transaction of the host's, or a batch of plain rows, as it is told before it is tried.
///
/// It writes a row for each of the numbers from `first` on, with the number as key, into each of
/// its trees; and a hint for each, if it has hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowWrite {
    /// Its first number, which names it.
    pub first: u64,
    /// How many numbers it has.
    pub count: u64,
    /// The trees that it writes to, a bit each.
    pub trees: u8,
    /// Each of its rows has a hint with the same number.
    pub hinted: bool,
    /// It adds one to the counter.
    pub counts: bool,
    /// It gives up at its end: nothing of it may ever be seen.
    pub doomed: bool,
    /// It removes the rows of this number.
    pub removes: Option<u64>,
}

impl RowWrite {
    /// Its numbers.
    pub fn numbers(&self) -> std::ops::Range<u64> {
        self.first..self.first + self.count
    }
}

/// Something about the host's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowEvent {
    /// It is about to be handed in. Its hints are told as tried besides.
    Began(RowWrite),
    /// It is durable; its closure ran so many times.
    Committed {
        /// Its name.
        first: u64,
        /// Runs of its closure.
        runs: u64,
    },
    /// It was refused, or gave up: nothing of it may ever be seen.
    Aborted {
        /// Its name.
        first: u64,
    },
    /// The hint's consumption is durable.
    Consumed {
        /// The hint's id.
        id: HintId,
        /// The number in its payload.
        number: u64,
    },
    /// A transaction met a row that contradicts what was answered before.
    Wrong {
        /// The number of the row.
        number: u64,
    },
    /// Read at open: the hints that a node has pending.
    Pending {
        /// The node.
        node: NodeId,
        /// How many.
        hints: u64,
    },
    /// Read at open: a row.
    Row {
        /// Its tree, as a bit.
        tree: u8,
        /// Its number.
        number: u64,
    },
    /// Read at open: a row that says that a hint was consumed.
    ConsumedRow {
        /// The hint's id.
        id: HintId,
        /// The number in its payload.
        number: u64,
    },
    /// Read at open: the counter.
    Counter {
        /// Its value.
        value: u64,
    },
    /// Everything there is was read.
    AllRead,
}

impl RowEvent {
    /// See [`Event::is_promise`](super::Event::is_promise). What was read before the power went
    /// counts as one: it is looked at as a whole.
    pub fn is_promise(&self) -> bool {
        !matches!(self, RowEvent::Began(_))
    }

    /// `None` if the line is none of these.
    pub(super) fn parse(line: &str) -> Option<RowEvent> {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        let event = parse_named(name, &mut words)?;
        words.next().is_none().then_some(event)
    }
}

fn parse_named(name: &str, words: &mut SplitWhitespace<'_>) -> Option<RowEvent> {
    if name == "@all-read" {
        return Some(RowEvent::AllRead);
    }
    let mut word = || words.next();
    let first: u64 = word()?.parse().ok()?;
    let number = |word: Option<&str>| word?.parse::<u64>().ok();
    Some(match name {
        "@began" => {
            let count = number(word())?;
            let trees = u8::try_from(number(word())?).ok()?;
            let flags = word()?;
            let removes = match word() {
                Some(removed) => Some(removed.parse().ok()?),
                None => None,
            };
            RowEvent::Began(RowWrite {
                first,
                count,
                trees,
                hinted: flags.contains('h'),
                counts: flags.contains('c'),
                doomed: flags.contains('d'),
                removes,
            })
        }
        "@committed" => RowEvent::Committed {
            first,
            runs: number(word())?,
        },
        "@aborted" => RowEvent::Aborted { first },
        "@wrong" => RowEvent::Wrong { number: first },
        "@consumed" => RowEvent::Consumed {
            number: first,
            id: word()?.parse().ok()?,
        },
        "@pending" => RowEvent::Pending {
            node: NodeId(first),
            hints: number(word())?,
        },
        "@row" => RowEvent::Row {
            number: first,
            tree: u8::try_from(number(word())?).ok()?,
        },
        "@consumed-row" => RowEvent::ConsumedRow {
            number: first,
            id: word()?.parse().ok()?,
        },
        "@counter" => RowEvent::Counter { value: first },
        _ => return None,
    })
}

impl fmt::Display for RowEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RowEvent::Began(RowWrite {
                first,
                count,
                trees,
                hinted,
                counts,
                doomed,
                removes,
            }) => {
                // Never empty.
                let flags = [(true, '-'), (*hinted, 'h'), (*counts, 'c'), (*doomed, 'd')];
                let flags = flags.iter().filter(|(is_set, _)| *is_set);
                let flags: String = flags.map(|(_, flag)| flag).collect();
                write!(f, "@began {first} {count} {trees} {flags}")?;
                removes.map_or(Ok(()), |removed| write!(f, " {removed}"))
            }
            RowEvent::Committed { first, runs } => write!(f, "@committed {first} {runs}"),
            RowEvent::Aborted { first } => write!(f, "@aborted {first}"),
            RowEvent::Wrong { number } => write!(f, "@wrong {number}"),
            RowEvent::Consumed { id, number } => write!(f, "@consumed {number} {id}"),
            RowEvent::Pending { node, hints } => write!(f, "@pending {node} {hints}"),
            RowEvent::Row { tree, number } => write!(f, "@row {number} {tree}"),
            RowEvent::ConsumedRow { id, number } => write!(f, "@consumed-row {number} {id}"),
            RowEvent::Counter { value } => write!(f, "@counter {value}"),
            RowEvent::AllRead => f.write_str("@all-read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Event;
    use hinted_handoff::{QueueId, Sequence, StoreId};

    #[test]
    fn events_of_rows_read_back_and_a_cut_line_is_none() {
        let id = HintId {
            store: StoreId([7; 16]),
            queue: QueueId(3),
            sequence: Sequence(19),
        };
        let plain = RowWrite {
            first: 12,
            count: 3,
            trees: 3,
            hinted: false,
            counts: false,
            doomed: false,
            removes: None,
        };
        let all = RowWrite {
            hinted: true,
            counts: true,
            doomed: true,
            removes: Some(7),
            ..plain
        };
        let (number, node) = (12, NodeId(2));
        let events = [
            RowEvent::Began(plain),
            RowEvent::Began(all),
            RowEvent::Committed { first: 12, runs: 2 },
            RowEvent::Aborted { first: 12 },
            RowEvent::Consumed { id, number },
            RowEvent::Wrong { number },
            RowEvent::Pending { node, hints: 4 },
            RowEvent::Row { tree: 2, number },
            RowEvent::ConsumedRow { id, number },
            RowEvent::Counter { value: 9 },
            RowEvent::AllRead,
        ];
        for event in events {
            let line = event.to_string();
            assert_eq!(line.parse(), Ok(Event::Rows(event)), "{line}");
            assert!(format!("{line} 1 more").parse::<Event>().is_err());
        }
        assert!("@row 12".parse::<Event>().is_err());
    }
}
