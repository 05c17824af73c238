//! Blocks just written, for a reader that waits for more.
//!
//! A node that takes hints as fast as they come has each block read right after it was written. For
//! such a node a block's body is kept as it was before it was compressed, until it was read, or
//! newer ones need the room: then nothing is read back and nothing is decompressed. A block is put
//! here once it is durable, and a queue never has another one under the same sequences, so what is
//! here is what a read of the engine would find.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    store::format::{
        block::{self, Block, Header},
        keys::QueueRef,
    },
    types::{NodeId, Sequence},
};

/// Bodies kept at most, over all nodes.
const BODY_BYTES: usize = 2 * 1024 * 1024;
/// So few that looking through them costs nothing.
const BLOCKS: usize = 64;

/// A block's body, uncompressed.
pub struct Kept {
    pub node: NodeId,
    pub queue: QueueRef,
    pub header: Header,
    pub body: Bytes,
}

#[derive(Default)]
pub struct Recent {
    state: Mutex<Cached>,
}

#[derive(Default)]
struct Cached {
    /// Nodes whose reader has come to the end.
    waiting: HashSet<NodeId>,
    /// The oldest first.
    blocks: VecDeque<Kept>,
    bytes: usize,
}

impl Recent {
    /// A reader came to the end of what is pending for a node.
    pub fn wait_for(&self, node: NodeId) {
        self.state.lock().waiting.insert(node);
    }

    pub fn is_waited_for(&self, node: NodeId) -> bool {
        self.state.lock().waiting.contains(&node)
    }

    pub fn keep(&self, kept: Kept) {
        let mut state = self.state.lock();
        state.bytes += kept.body.len();
        state.blocks.push_back(kept);
        while state.bytes > BODY_BYTES || state.blocks.len() > BLOCKS {
            let Some(unread) = state.blocks.pop_front() else {
                break;
            };
            state.bytes -= unread.body.len();
            // Its reader does not keep up, or the node takes nothing: until the reader comes to the
            // end again there is no use in it.
            state.waiting.remove(&unread.node);
        }
    }

    /// Takes out the block that holds a sequence.
    pub fn take(&self, queue: QueueRef, sequence: Sequence) -> Option<Block> {
        let kept = {
            let mut state = self.state.lock();
            let holds = |it: &Kept| {
                it.queue == queue && (it.header.first..=it.header.last()).contains(&sequence)
            };
            let at = state.blocks.iter().position(holds)?;
            let kept = state.blocks.remove(at)?;
            state.bytes -= kept.body.len();
            kept
        };
        let hints = block::split_hints(kept.body, &kept.header).ok()?;
        Some(Block {
            queue,
            header: kept.header,
            hints,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        store::format::{block::Hint, encoder::Encoder},
        types::{QueueId, ShardId},
    };

    fn kept(node: u64, first: u64, payloads: &[&[u8]]) -> Kept {
        let hints: Vec<Hint> = payloads
            .iter()
            .map(|payload| Hint {
                shard: ShardId(1),
                format: 0,
                enqueued_unix_ms: 5,
                payload: Bytes::copy_from_slice(payload),
                origin: None,
                write: None,
                lifetime_ms: None,
            })
            .collect();
        let node = NodeId(node);
        let queue = QueueRef {
            node,
            queue: QueueId(node.0),
        };
        let mut encoder = Encoder::new();
        let block = encoder.encode(queue, Sequence(first), 0, &hints);
        Kept {
            node,
            queue,
            header: block.header,
            body: encoder.body(&block.header).unwrap(),
        }
    }

    #[test]
    fn a_block_is_found_by_any_of_its_sequences_once() {
        let recent = Recent::default();
        let block = kept(1, 7, &[b"a", &[b'x'; 1000], b"c"]);
        let (queue, header) = (block.queue, block.header);
        assert!(header.stored_bytes < header.raw_bytes, "it was compressed");
        recent.keep(block);
        for nowhere in [6, 10] {
            assert!(recent.take(queue, Sequence(nowhere)).is_none());
        }
        let block = recent.take(queue, Sequence(8)).unwrap();
        assert_eq!((block.queue, block.header), (queue, header));
        let payloads: Vec<_> = block.hints.iter().map(|it| it.payload.as_ref()).collect();
        assert_eq!(payloads, [b"a".as_slice(), &[b'x'; 1000], b"c"]);
        assert!(recent.take(queue, Sequence(8)).is_none());
        assert_eq!(recent.state.lock().bytes, 0);
    }

    #[test]
    fn it_is_bounded_and_who_does_not_read_is_waited_for_no_more() {
        let recent = Recent::default();
        for node in [1, 2] {
            recent.wait_for(NodeId(node));
        }
        recent.keep(kept(1, 1, &[b"never read"]));
        let large = vec![0; BODY_BYTES / 3];
        for first in 1..=3 {
            assert!(recent.is_waited_for(NodeId(1)));
            recent.keep(kept(2, first, &[&large]));
        }
        assert!(!recent.is_waited_for(NodeId(1)));
        for first in 1..=100 {
            recent.keep(kept(3, first, &[b"small"]));
        }
        let state = recent.state.lock();
        assert!(state.blocks.len() <= BLOCKS && state.bytes <= BODY_BYTES);
        assert!(state.waiting.is_empty());
    }
}
