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
use crate::types::{QueueId, Sequence, ShardId};

const VERSION: u8 = 1;
/// What is kept of an error: the host may say any amount, and no value may be large (SLED.md rule 3).
const ERROR_BYTES_MAX: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Letter {
    /// It is a dead letter.
    Dead(Dead),
    /// It was sent on, and is not done with yet: it is this one now.
    Redriven { queue: QueueId, sequence: Sequence },
}

/// A dead letter, but for its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dead {
    /// The shard it is for.
    pub shard: ShardId,
    /// Bytes that it counts for.
    pub payload_bytes: u64,
    /// How it came to be one.
    pub burial: Burial,
}

impl Dead {
    pub(super) fn new(shard: ShardId, payload_bytes: u64, mut burial: Burial) -> Dead {
        let error = &mut burial.error;
        let mut ends = (0..=ERROR_BYTES_MAX.min(error.len())).rev();
        let end = ends.find(|end| error.is_char_boundary(*end));
        error.truncate(end.unwrap_or(0));
        Dead {
            shard,
            payload_bytes,
            burial,
        }
    }
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
