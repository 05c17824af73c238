//! What is known of a hint that is, or was, a dead letter. Its payload stands beside it, in a block
//! of its own (`block.rs`).
//!
//! Value under the key of `keys.rs`: version u8 = 1 and the fields of [`Letter`] in postcard's
//! encoding; CRC32C over key and all before it u32. The order of fields and variants is part of the
//! format.

use serde::{Deserialize, Serialize};

use crate::{
    store::format::{
        checksum::{DecodeError, decode_record, encode_record},
        keys::Place,
        reasons::DeadCause,
    },
    types::{NodeId, QueueId, Sequence, ShardId},
};

const VERSION: u8 = 1;
/// What is kept of an error: the host may say any amount, and no value may be large (docs/sled.md
/// rule 3).
const ERROR_BYTES_MAX: usize = 4096;

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
    /// Dead letters of its queue are numbered as they come, those that are none any more included;
    /// see `gone_letters.rs`.
    pub number: u64,
    /// The shard it is for.
    pub shard: ShardId,
    /// Bytes that it counts for.
    pub payload_bytes: u64,
    /// How it came to be one.
    pub cause: DeadCause,
}

impl Dead {
    pub(crate) fn new(
        number: u64,
        shard: ShardId,
        payload_bytes: u64,
        mut cause: DeadCause,
    ) -> Dead {
        let error = &mut cause.error;
        let mut ends = (0..=ERROR_BYTES_MAX.min(error.len())).rev();
        let end = ends.find(|end| error.is_char_boundary(*end));
        error.truncate(end.unwrap_or(0));
        Dead {
            number,
            shard,
            payload_bytes,
            cause,
        }
    }
}

impl Letter {
    pub fn encode(&self, place: Place) -> Vec<u8> {
        encode_record(&place.letter_key(), VERSION, self)
    }

    pub fn decode(place: Place, value: &[u8]) -> Result<Letter, DecodeError> {
        decode_record(&place.letter_key(), VERSION, value)
    }

    /// How it is a dead letter, if it is one.
    pub fn dead(self) -> Option<Dead> {
        match self {
            Letter::Dead(dead) => Some(dead),
            Letter::Redriven { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::format::{checksum::with_checksum, keys::QueueRef, reasons::DeadReason};

    const PLACE: Place = Place {
        queue: QueueRef {
            node: NodeId(2),
            queue: QueueId(3),
        },
        sequence: Sequence(300),
    };

    fn dead(error: &str) -> Letter {
        let cause = DeadCause {
            reason: DeadReason::Undecodable,
            error: error.to_owned(),
            attempts: 7,
            first_failed_unix_ms: 1_700_000_000_000,
            last_failed_unix_ms: u64::MAX,
        };
        Letter::Dead(Dead::new(1 << 50, ShardId(u64::MAX), 1 << 40, cause))
    }

    #[test]
    fn a_record_reads_back_and_damage_anywhere_and_another_place_are_noticed() {
        let redriven = Letter::Redriven {
            node: NodeId(2),
            payload_bytes: 300,
            queue: QueueId(1 << 30),
            sequence: Sequence(1),
        };
        for letter in [dead("no such field: \u{fc}"), dead(""), redriven] {
            let value = letter.encode(PLACE);
            assert_eq!(Letter::decode(PLACE, &value), Ok(letter));
            assert!(Letter::decode(PLACE.next(), &value).is_err());
            for bit in 0..value.len() * 8 {
                let mut flipped = value.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(Letter::decode(PLACE, &flipped).is_err(), "bit {bit}");
            }
            for cut in 0..value.len() {
                assert!(Letter::decode(PLACE, &value[..cut]).is_err(), "cut {cut}");
            }
        }
    }

    #[test]
    fn what_claims_more_than_it_holds_and_what_is_no_letter_is_refused() {
        let key = PLACE.letter_key();
        let endless = [VERSION, 0, 1, 1, 1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, b'x'];
        let unknown_variant = [VERSION, 2, 1, 1];
        let unknown_reason = [VERSION, 0, 1, 1, 1, 3, 0, 0, 0, 0];
        let no_text = [VERSION, 0, 1, 1, 1, 0, 1, 0xff, 0, 0, 0];
        let too_long = [VERSION, 1, 1, 1, 1, 1, 0];
        let newer = [VERSION + 1, 1, 1, 1, 1, 1];
        let refused: [&[u8]; 7] = [
            &endless,
            &unknown_variant,
            &unknown_reason,
            &no_text,
            &too_long,
            &newer,
            &[],
        ];
        for bytes in refused {
            let value = with_checksum(&key, bytes.to_vec());
            assert!(Letter::decode(PLACE, &value).is_err(), "{bytes:?}");
        }
        for right in [
            vec![VERSION, 1, 1, 1, 1, 1],
            vec![VERSION, 0, 1, 1, 1, 0, 1, b'x', 0, 0, 0],
        ] {
            let value = with_checksum(&key, right);
            assert!(Letter::decode(PLACE, &value).is_ok());
        }
    }

    #[test]
    fn a_long_error_is_cut_between_two_characters() {
        let cut = |error: &str| dead(error).dead().unwrap().cause.error.len();
        assert_eq!(cut(&"x".repeat(4096)), 4096);
        assert_eq!(cut(&"x".repeat(4097)), 4096);
        assert_eq!(cut(&"\u{fc}".repeat(4096)), 4096);
        assert_eq!(cut(&"\u{20ac}".repeat(4096)), 4095);
        assert_eq!(cut(""), 0);
    }
}
