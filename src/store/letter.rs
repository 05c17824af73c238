//! What is known of a hint that is, or was, a dead letter. Its payload stands beside it, in a block of its own (`block.rs`).
//!
//! Value under the key of `keys.rs`: version u8 = 1, the fields of [`Letter`] in postcard's encoding, CRC32C over key and all before
//! it u32. The order of fields and variants is part of the format.

use serde::{Deserialize, Serialize};

use super::{
    departure::Burial,
    keys::Place,
    sealed::{DecodeError, seal_record, unseal_record},
};
use crate::types::{NodeId, QueueId, Sequence, ShardId};

const VERSION: u8 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Letter {
    /// It is a dead letter.
    Dead(Dead),
    /// It was sent on, and is not done with yet: it is this one now.
    Redriven {
        node: NodeId,
        queue: QueueId,
        sequence: Sequence,
        payload_bytes: u64,
    },
}

/// A dead letter, but for its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dead {
    /// The shard it is for.
    pub shard: ShardId,
    /// Bytes of its payload.
    pub payload_bytes: u64,
    /// How it came to be one.
    pub burial: Burial,
}

impl Letter {
    pub fn encode(&self, place: Place) -> Vec<u8> {
        seal_record(&place.letter_key(), VERSION, self)
    }

    pub fn decode(place: Place, value: &[u8]) -> Result<Letter, DecodeError> {
        unseal_record(&place.letter_key(), VERSION, value)
    }

    /// How it is a dead letter, if it is one.
    pub fn dead(self) -> Option<Dead> {
        match self {
            Letter::Dead(dead) => Some(dead),
            Letter::Redriven { .. } => None,
        }
    }
}
