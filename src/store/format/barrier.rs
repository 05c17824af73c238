//! What a barrier is, and what it can have become.

use serde::{Deserialize, Serialize};

use crate::{
    error::HandoffError,
    store::format::{
        checksum::{checksum, pack},
        keys::QueueRef,
        loss::{Loss, LostOfQueue},
    },
    types::{Amount, NodeId, QueueId, Sequence, StoreId},
};

const VERSION: u8 = 1;

/// A moment of some nodes' queues: all that was answered before it was made and had not left yet.
///
/// It is a value that a host can keep in its own tables or send over its API, in any format of
/// serde's: some 60 bytes for each node, as most have one queue with anything in it. The store
/// keeps nothing for it. It has a checksum, and one of which anything was changed is refused.
///
/// ```
/// # use hinted_handoff::*;
/// use std::time::Duration;
/// # struct Cluster;
/// # impl ShardWriter<String> for Cluster {
/// #     async fn write_shard(&self, _: ShardWrite<String>) -> Result<(), WriteError> { Ok(()) }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let mut config = Config::new(dir.path().join("hints"));
/// config.start_paused = true;
/// let handoff = HintedHandoff::open(config, Cluster).await?;
/// handoff.write_shard(NodeId(2), ShardId(7), &"cpu v=1".to_owned()).await?;
///
/// let barrier = handoff.barrier(&[NodeId(2)]).await?;
/// let kept = postcard::to_stdvec(&barrier)?; // in a table of the host's, or sent to a client
///
/// let barrier: Barrier = postcard::from_bytes(&kept)?;
/// let state = handoff.wait(&barrier, Duration::ZERO).await?; // only looks
/// assert!(matches!(state, BarrierState::Waiting { pending, .. } if pending.hints == 1));
///
/// handoff.resume_all().await?;
/// let state = handoff.wait(&barrier, Duration::from_secs(10)).await?;
/// assert_eq!(state, BarrierState::Delivered);
/// # handoff.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Barrier {
    /// Of its layout: 1.
    pub version: u8,
    /// The store that made it.
    pub store: StoreId,
    /// Losses of this index or above came after it.
    pub losses_from: u64,
    /// The nodes that it was made for, by the names that they had then: copies for these that are
    /// not stored from then on are lost to it, too.
    pub nodes: Vec<NodeId>,
    /// What it stands for; nothing of a node for which nothing waited.
    pub queues: Vec<BarrierQueue>,
    /// CRC32C over all of the above, in postcard's encoding.
    pub checksum: u32,
}

/// Hints of one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct BarrierQueue {
    /// The node that the queue's hints were first meant for.
    pub node: NodeId,
    /// The queue.
    pub queue: QueueId,
    /// The first of them.
    pub from: Sequence,
    /// The last of them.
    pub through: Sequence,
    /// Payload bytes of the queue up to and including the last.
    pub bytes_through: u64,
}

/// What has become of the hints of a barrier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BarrierState {
    /// Every one was taken by its node, or was withdrawn, since every owner that answered refused
    /// its write: it was not to be delivered.
    Delivered,
    /// None is lost so far, and some are not delivered.
    #[non_exhaustive]
    Waiting {
        /// So much waits to be sent. Where hints left out of order across the end of the barrier,
        /// the bytes are an estimate.
        pending: Amount,
        /// So many are dead letters: they stay so until somebody sends them on or discards them.
        dead_letters: u64,
    },
    /// Some are lost, or copies for its nodes were not stored since it was made. That is final,
    /// whatever becomes of the rest.
    #[non_exhaustive]
    Lost {
        /// Which.
        losses: BarrierLosses,
        /// Of the rest, so much waits to be sent.
        pending: Amount,
        /// Of the rest, so many are dead letters.
        dead_letters: u64,
    },
}

/// What the loss journal says of a barrier's hints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BarrierLosses {
    /// Entries with at least one of its hints, each with its index; others in their ranges may be
    /// none of its. And entries of copies for its nodes that were not stored since it was made.
    pub entries: Vec<(u64, Loss)>,
    /// Ranges that the journal no longer has as entries, in which some of its hints may be.
    pub folded: Vec<LostOfQueue>,
    /// Copies for its nodes that were not stored and recorded since it was made, all together.
    /// Where the journal no longer has the entries of a node, older copies for it count, too.
    pub not_stored: Amount,
    /// Whether the journal has forgotten, or cannot read, something that may have been its hints.
    pub unknown: bool,
}

impl Barrier {
    pub(crate) fn new(
        store: StoreId,
        losses_from: u64,
        nodes: Vec<NodeId>,
        queues: Vec<BarrierQueue>,
    ) -> Barrier {
        let barrier = Barrier {
            version: VERSION,
            store,
            losses_from,
            nodes,
            queues,
            checksum: 0,
        };
        barrier.checksummed()
    }

    fn checksummed(mut self) -> Barrier {
        self.checksum = self.computed();
        self
    }

    fn computed(&self) -> u32 {
        let Barrier {
            version,
            store,
            losses_from,
            nodes,
            queues,
            checksum: _,
        } = self;
        let fields = (version, store, losses_from, nodes, queues);
        checksum(&[&pack(Vec::new(), &fields)])
    }

    /// With a checksum of the fields that a test has set.
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    pub fn checksum_again(self) -> Barrier {
        self.checksummed()
    }

    /// Whether it can be one that this store made, as far as it tells by itself.
    pub(crate) fn check(&self, store: StoreId) -> Result<(), HandoffError> {
        if self.version != VERSION {
            return Err(HandoffError::BarrierVersion {
                found: self.version,
            });
        }
        let (found, computed) = (self.checksum, self.computed());
        if found != computed {
            return Err(HandoffError::BarrierDamaged { found, computed });
        }
        match self.store == store {
            true => Ok(()),
            false => Err(HandoffError::BarrierOfAnotherStore {
                barrier: self.store,
                store,
            }),
        }
    }
}

impl BarrierLosses {
    pub(crate) fn is_none(&self) -> bool {
        let none = Amount::default();
        let is_empty = self.entries.is_empty() && self.folded.is_empty();
        is_empty && self.not_stored == none && !self.unknown
    }
}

impl BarrierQueue {
    pub(crate) fn at(&self) -> QueueRef {
        QueueRef {
            node: self.node,
            queue: self.queue,
        }
    }

    pub(crate) fn holds(&self, sequence: Sequence) -> bool {
        (self.from..=self.through).contains(&sequence)
    }

    pub(crate) fn meets(&self, first: Sequence, last: Sequence) -> bool {
        first <= self.through && last >= self.from
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::format::reasons::LossReason;

    fn barrier() -> Barrier {
        let queue = BarrierQueue {
            node: NodeId(7),
            queue: QueueId(2),
            from: Sequence(3),
            through: Sequence(12),
            bytes_through: 1200,
        };
        Barrier::new(StoreId([0x0a; 16]), 4, vec![NodeId(7)], vec![queue])
    }

    #[test]
    fn a_barrier_is_the_documented_json_and_reads_back() {
        let json = serde_json::to_value(barrier()).unwrap();
        let expected = json!({
            "version": 1,
            "store": "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a",
            "losses_from": 4,
            "nodes": [7],
            "queues": [
                { "node": 7, "queue": 2, "from": 3, "through": 12, "bytes_through": 1200 },
            ],
            "checksum": barrier().computed(),
        });
        assert_eq!(json, expected);
        let back: Barrier = serde_json::from_value(json).unwrap();
        assert_eq!(back, barrier());
        assert!(back.check(StoreId([0x0a; 16])).is_ok());
    }

    #[test]
    fn each_state_is_json_and_reads_back() {
        let pending = Amount {
            hints: 2,
            bytes: 200,
        };
        let not_stored = Amount {
            hints: 1,
            bytes: 100,
        };
        let mut loss = Loss::new(NodeId(7), None, None, not_stored, LossReason::NotStored);
        (loss.since_unix_ms, loss.until_unix_ms) = (1, 2);
        let losses = BarrierLosses {
            entries: vec![(4, loss)],
            not_stored,
            unknown: true,
            ..BarrierLosses::default()
        };
        let (amount, copies) = (
            json!({ "hints": 2, "bytes": 200 }),
            json!({ "hints": 1, "bytes": 100 }),
        );
        let entry = json!({
            "node": 7, "shard": null, "place": null, "amount": copies, "reason": "not_stored",
            "since_unix_ms": 1, "until_unix_ms": 2, "redriven_from": [],
        });
        let waiting = BarrierState::Waiting {
            pending,
            dead_letters: 3,
        };
        let lost = BarrierState::Lost {
            losses,
            pending,
            dead_letters: 3,
        };
        for (state, expected) in [
            (BarrierState::Delivered, json!("delivered")),
            (
                waiting,
                json!({ "waiting": { "pending": amount, "dead_letters": 3 } }),
            ),
            (
                lost,
                json!({
                    "lost": {
                        "losses": {
                            "entries": [[4, entry]], "folded": [], "not_stored": copies,
                            "unknown": true,
                        },
                        "pending": amount,
                        "dead_letters": 3,
                    },
                }),
            ),
        ] {
            let json = serde_json::to_value(&state).unwrap();
            assert_eq!(json, expected);
            assert_eq!(serde_json::from_value::<BarrierState>(json).unwrap(), state);
        }
    }
}
