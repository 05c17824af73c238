//! A WAL record: the few hints that a commit group has for each of many nodes, stored as one
//! block.
//!
//! With a block of its own for each node's one hint or two, a group costs an insert a node,
//! compresses badly, and has sled keep a page in memory for every dozen hints that wait. So such a
//! group is one block at first, and its hints are held in memory for those who read them
//! (`state/memtable.rs`). Once many have gathered they are flushed into blocks of their queues
//! (`commit/flush.rs`), larger ones by then; those that left meanwhile never are. An open flushes
//! what a crash left (`recover/memtable.rs`).
//!
//! ```text
//! header  as of any block, with bit 1 of its flags set,
//!         bits 2 and 3 if its hints have write ids or lifetimes;
//!         its queue is 0, its sequences count the hints of all WAL records
//! body    a run: node u64 | queue u64 | first sequence u64 |
//!         payload bytes of the queue before it u64 | hints u32
//!         followed by its hints as in the body of any block, without origins
//! ```
//! It stands where a queue of its own would, [`WAL`], which no node lists. The cursor there says
//! below which all hints are in blocks of their queues, or have left these; its counts mean
//! nothing.

use bytes::{Buf, BufMut, Bytes};

use crate::{
    store::format::{
        block::{self, Header, WITH_LIFETIMES, WITH_WRITES, hint_overhead},
        checksum::DecodeError,
        keys::QueueRef,
        run::Draft,
    },
    types::{NodeId, QueueId, Sequence},
};

const RUN_BYTES: usize = 36;

/// A WAL record to be.
#[derive(Debug)]
pub struct WalDraft {
    /// The sequence of its first hint among those of all WAL records.
    pub first: Sequence,
    pub runs: Vec<Draft>,
}

impl WalDraft {
    /// Bytes that it takes in a body, at most.
    pub fn bytes(&self) -> usize {
        self.runs.iter().map(|run| RUN_BYTES + run.bytes()).sum()
    }

    pub fn hints(&self) -> u64 {
        self.runs.iter().map(|run| run.hints.len() as u64).sum()
    }

    /// Cuts off what is over so many bytes, but for one run at least.
    pub fn split_off(&mut self, bytes: usize) -> Option<WalDraft> {
        let mut before = 0;
        let over = self.runs.iter().position(|run| {
            before += RUN_BYTES + run.bytes();
            before > bytes
        });
        let runs = self.runs.split_off(over?.max(1));
        if runs.is_empty() {
            return None;
        }
        Some(WalDraft {
            first: Sequence(self.first.0 + self.hints()),
            runs,
        })
    }
}

/// Puts down what stands before the hints of a run.
pub fn put_run(out: &mut Vec<u8>, run: &Draft) {
    out.put_u64(run.queue.node.0);
    out.put_u64(run.queue.queue.0);
    out.put_u64(run.first.0);
    out.put_u64(run.bytes_before);
    out.put_u32(run.hints.len() as u32);
}

/// Takes the body of a WAL record apart that was verified and is not compressed any more.
pub fn split_runs(mut raw: Bytes, header: &Header) -> Result<Vec<Draft>, DecodeError> {
    let mut runs = Vec::new();
    let (flags, mut hints) = (header.flags & (WITH_WRITES | WITH_LIFETIMES), 0_u64);
    while !raw.is_empty() {
        let queue = QueueRef {
            node: NodeId(raw.try_get_u64()?),
            queue: QueueId(raw.try_get_u64()?),
        };
        let (first, bytes_before) = (Sequence(raw.try_get_u64()?), raw.try_get_u64()?);
        let count = raw.try_get_u32()?;
        // Before anything is allocated for them.
        if u64::from(count) > raw.len() as u64 / hint_overhead(flags) {
            return Err(DecodeError::Invalid("its hints do not fit its length"));
        }
        let ends = first.0.checked_add(u64::from(count));
        if count == 0 || first.0 == 0 || ends.is_none() {
            return Err(DecodeError::Invalid("a run has impossible sequences"));
        }
        let stored = block::take_hints(&mut raw, count, flags)?;
        hints += u64::from(count);
        runs.push(Draft {
            node: queue.node,
            queue,
            first,
            bytes_before,
            hints: stored,
            with_body: false,
        });
    }
    if hints != u64::from(header.hints) {
        return Err(DecodeError::Invalid(
            "its runs have other hints than it says",
        ));
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        store::format::{
            block::{Hint, body_of_chunk0},
            encoder::Encoder,
            keys::{Keyspace, WAL},
        },
        types::{ShardId, WriteId},
    };

    fn run(node: u64, first: u64, payloads: &[&[u8]]) -> Draft {
        let hint = |payload: &&[u8]| Hint {
            shard: ShardId(node * 10),
            format: 3,
            enqueued_unix_ms: 77,
            payload: Bytes::copy_from_slice(payload),
            origin: None,
            write: None,
            lifetime_ms: None,
        };
        let queue = QueueRef {
            node: NodeId(node),
            queue: QueueId(node + 100),
        };
        Draft {
            node: queue.node,
            queue,
            first: Sequence(first),
            bytes_before: first * 1000,
            hints: payloads.iter().map(hint).collect(),
            with_body: false,
        }
    }

    fn draft() -> WalDraft {
        let long = [b'x'; 900];
        WalDraft {
            first: Sequence(40),
            runs: vec![
                run(1, 9, &[b"a", &long]),
                run(5, 1, &[b"c"]),
                run(9, 3, &[b"", b"e", &long]),
            ],
        }
    }

    /// Chunk 0, which is all of it.
    fn encoded(draft: &WalDraft) -> Vec<u8> {
        let block = Encoder::new().encode_wal(draft);
        let mut chunks: Vec<_> = block.into_writes().collect();
        assert_eq!(chunks.len(), 1);
        let (key, value) = chunks.remove(0);
        assert_eq!(key, WAL.chunk_key(draft.first, 0));
        value.to_vec()
    }

    fn decoded(first: Sequence, value: &[u8]) -> Result<Vec<Draft>, DecodeError> {
        let header = Header::parse(WAL, first, value)?;
        let body = body_of_chunk0(value);
        split_runs(block::verify(Keyspace::Queue, WAL, &header, body)?, &header)
    }

    fn told(runs: &[Draft]) -> Vec<String> {
        runs.iter().map(|run| format!("{run:?}")).collect()
    }

    #[test]
    fn runs_come_back_as_they_went_in() {
        let draft = draft();
        let value = encoded(&draft);
        let header = Header::parse(WAL, draft.first, &value).unwrap();
        assert_eq!(
            (header.hints, header.last().0),
            (draft.hints() as u32, draft.first.0 + 5)
        );
        let runs = decoded(draft.first, &value).unwrap();
        assert_eq!(told(&runs), told(&draft.runs));
    }

    #[test]
    fn hints_keep_the_ids_of_their_writes_in_a_record_where_some_have_one() {
        let plain = encoded(&draft()).len();
        let mut draft = draft();
        draft.runs[1].hints[0].write = Some(WriteId {
            boot: 3,
            counter: u64::MAX,
        });
        let value = encoded(&draft);
        let runs = decoded(draft.first, &value).unwrap();
        assert_eq!(told(&runs), told(&draft.runs));
        // Too short for zstd to gain much of what is the same in all.
        assert!(value.len() > plain, "{} {plain}", value.len());
        let no_header = draft.runs.len() as u32 * 36 + 6 * 39;
        let payload: u64 = draft.runs.iter().map(|run| run.amount().bytes).sum();
        let header = Header::parse(WAL, draft.first, &value).unwrap();
        assert_eq!(u64::from(header.raw_bytes), u64::from(no_header) + payload);
        assert!(
            draft.bytes() >= header.raw_bytes as usize,
            "the bound of it"
        );
    }

    #[test]
    fn cut_in_two_both_are_numbered_on() {
        let mut front = draft();
        assert!(front.split_off(usize::MAX).is_none());
        let back = front.split_off(1).unwrap();
        assert_eq!((front.first.0, front.hints(), front.runs.len()), (40, 2, 1));
        assert_eq!((back.first.0, back.hints(), back.runs.len()), (42, 4, 2));
    }

    #[test]
    fn any_flipped_bit_or_cut_is_noticed_and_so_is_another_place() {
        let mut draft = draft();
        draft.runs[0].hints[0].write = Some(WriteId {
            boot: 1,
            counter: 2,
        });
        for draft in [&draft, &self::draft()] {
            let value = encoded(draft);
            for bit in 0..value.len() * 8 {
                let mut flipped = value.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(decoded(draft.first, &flipped).is_err(), "bit {bit}");
            }
            for cut in 0..value.len() {
                assert!(decoded(draft.first, &value[..cut]).is_err(), "cut {cut}");
            }
        }
        let value = encoded(&draft);
        assert!(decoded(Sequence(41), &value).is_err());
        // Nor is it taken for a block of a queue, nor a block of a queue for it.
        let other = run(1, 9, &[b"a"]);
        assert!(Header::parse(other.queue, draft.first, &value).is_err());
        let block = Encoder::new().encode(WAL, Sequence(1), 0, &other.hints);
        let (_, value) = block.into_writes().next().unwrap();
        assert!(Header::parse(WAL, Sequence(1), &value).is_err());
    }

    proptest::proptest! {
        /// A checksum that is right says nothing of who wrote it.
        #[test]
        fn no_body_brings_it_down(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), hints in 0_u32..20) {
            let header = Header::in_memory(WAL, Sequence(1), hints, 0);
            let _ = split_runs(body.into(), &header);
        }
    }
}
