//! What a child tells its parent: one line an event, written before or after the thing it tells of,
//! so that what the parent read is true whenever the child dies.

use std::{
    io::{self, Write},
    str::FromStr,
};

use super::row_event::RowEvent;
use hinted_handoff::{HintId, NodeId, ShardId};

/// Something that happened in a life of the host under test.
///
/// Each write has a number that is never used again, and carries it in its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The store is open; so many hints were found pending in it.
    Opened {
        /// Pending when it was opened.
        pending: u64,
    },
    /// A write is about to be handed in.
    Tried {
        /// Its number.
        number: u64,
        /// For whom.
        node: NodeId,
        /// For which shard.
        shard: ShardId,
    },
    /// The write was answered as durable.
    Answered {
        /// Its number.
        number: u64,
        /// Its id, where the answer told it.
        id: Option<HintId>,
    },
    /// The write was refused: it must never arrive.
    Refused {
        /// Its number.
        number: u64,
    },
    /// A write is about to be handed in as a hint that leaves as a dead letter in the step that
    /// stores it.
    DeadLettering {
        /// Its number.
        number: u64,
        /// For whom.
        node: NodeId,
        /// For which shard.
        shard: ShardId,
    },
    /// A dead letter is there.
    Dead {
        /// The number in its payload.
        number: u64,
        /// Its id.
        id: HintId,
    },
    /// The node took the hint. Told right before the writer returns `Ok`.
    Delivered {
        /// The hint's id.
        id: HintId,
        /// The number in its payload.
        number: u64,
        /// To whom.
        node: NodeId,
        /// For which shard.
        shard: ShardId,
    },
    /// Everything delivered so far is durably acknowledged: none of it may come again.
    Settled,
    /// The store failed and has reopened itself: what was not settled may come again.
    Reopened,
    /// A removal of the node is about to begin: all that was tried for it may vanish.
    Discarding {
        /// The node.
        node: NodeId,
    },
    /// The removal is durable: nothing that was tried for it before may come any more.
    Discarded {
        /// The node.
        node: NodeId,
    },
    /// Nothing is pending; the store's own count of deliveries since open.
    CaughtUp {
        /// Delivered since open, as the statistics say.
        delivered: u64,
    },
    /// A clean shutdown is done.
    Closed,
    /// Something about the rows of a host that shares its database.
    Rows(RowEvent),
}

impl Event {
    /// Whether it says that something is done for good, rather than that it was begun or came.
    pub fn is_promise(&self) -> bool {
        match self {
            Event::Answered { .. }
            | Event::Refused { .. }
            | Event::Dead { .. }
            | Event::Settled
            | Event::Discarded { .. }
            | Event::CaughtUp { .. }
            | Event::Closed => true,
            Event::Opened { .. }
            | Event::Tried { .. }
            | Event::DeadLettering { .. }
            | Event::Delivered { .. }
            | Event::Reopened
            | Event::Discarding { .. } => false,
            Event::Rows(event) => event.is_promise(),
        }
    }
}

/// Writes an event to the parent, at once.
///
/// # Errors
/// When the parent is gone.
pub fn tell(event: &Event) -> io::Result<()> {
    // One write a line, so that lines of several threads do not mix and none is cut by a kill.
    let line = format!("{event}\n");
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Event::Opened { pending } => write!(f, "@opened {pending}"),
            Event::Tried {
                number,
                node,
                shard,
            } => write!(f, "@tried {number} {node} {shard}"),
            Event::DeadLettering {
                number,
                node,
                shard,
            } => write!(f, "@dead-lettering {number} {node} {shard}"),
            Event::Dead { number, id } => write!(f, "@dead {number} {id}"),
            Event::Answered { number, id: None } => write!(f, "@answered {number}"),
            Event::Answered {
                number,
                id: Some(id),
            } => write!(f, "@answered {number} {id}"),
            Event::Refused { number } => write!(f, "@refused {number}"),
            Event::Delivered {
                id,
                number,
                node,
                shard,
            } => write!(f, "@delivered {number} {node} {shard} {id}"),
            Event::Settled => f.write_str("@settled"),
            Event::Reopened => f.write_str("@reopened"),
            Event::Discarding { node } => write!(f, "@discarding {node}"),
            Event::Discarded { node } => write!(f, "@discarded {node}"),
            Event::CaughtUp { delivered } => write!(f, "@caught-up {delivered}"),
            Event::Closed => f.write_str("@closed"),
            Event::Rows(event) => event.fmt(f),
        }
    }
}

/// A line that is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an event: {0:?}")]
pub struct NoEvent(pub String);

impl FromStr for Event {
    type Err = NoEvent;

    fn from_str(line: &str) -> Result<Self, NoEvent> {
        let of_rows = || RowEvent::parse(line).map(Event::Rows);
        parse(line)
            .or_else(of_rows)
            .ok_or_else(|| NoEvent(line.to_owned()))
    }
}

fn parse(line: &str) -> Option<Event> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let mut word = || words.next();
    let number = |word: Option<&str>| word?.parse::<u64>().ok();
    let event = match name {
        "@opened" => Event::Opened {
            pending: number(word())?,
        },
        "@tried" => Event::Tried {
            number: number(word())?,
            node: NodeId(number(word())?),
            shard: ShardId(number(word())?),
        },
        "@dead-lettering" => Event::DeadLettering {
            number: number(word())?,
            node: NodeId(number(word())?),
            shard: ShardId(number(word())?),
        },
        "@dead" => Event::Dead {
            number: number(word())?,
            id: word()?.parse().ok()?,
        },
        "@answered" => Event::Answered {
            number: number(word())?,
            id: match word() {
                Some(id) => Some(id.parse().ok()?),
                None => None,
            },
        },
        "@refused" => Event::Refused {
            number: number(word())?,
        },
        "@delivered" => Event::Delivered {
            number: number(word())?,
            node: NodeId(number(word())?),
            shard: ShardId(number(word())?),
            id: word()?.parse().ok()?,
        },
        "@settled" => Event::Settled,
        "@reopened" => Event::Reopened,
        "@discarding" => Event::Discarding {
            node: NodeId(number(word())?),
        },
        "@discarded" => Event::Discarded {
            node: NodeId(number(word())?),
        },
        "@caught-up" => Event::CaughtUp {
            delivered: number(word())?,
        },
        "@closed" => Event::Closed,
        _ => return None,
    };
    words.next().is_none().then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hinted_handoff::{QueueId, Sequence, StoreId};

    #[test]
    fn events_read_back_and_a_cut_line_is_none() {
        let id = HintId {
            store: StoreId([7; 16]),
            queue: QueueId(3),
            sequence: Sequence(19),
        };
        let (number, node, shard) = (12, NodeId(2), ShardId(5));
        let events = [
            Event::Opened { pending: 4 },
            Event::Tried {
                number,
                node,
                shard,
            },
            Event::DeadLettering {
                number,
                node,
                shard,
            },
            Event::Dead { number, id },
            Event::Answered {
                number,
                id: Some(id),
            },
            Event::Answered { number, id: None },
            Event::Refused { number },
            Event::Delivered {
                id,
                number,
                node,
                shard,
            },
            Event::Settled,
            Event::Reopened,
            Event::Discarding { node },
            Event::Discarded { node },
            Event::CaughtUp { delivered: 9 },
            Event::Closed,
        ];
        for event in events {
            let line = event.to_string();
            assert_eq!(line.parse(), Ok(event));
            assert!(format!("{line} more").parse::<Event>().is_err());
        }
        assert!("@delivered 12 2 5".parse::<Event>().is_err());
    }
}
