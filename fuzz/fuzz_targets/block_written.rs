//! A block of any hints, small and large, reads as it was written; with one thing wrong with its
//! chunks it does not read.

#![no_main]

use hinted_handoff::{
    NodeId, QueueId, Sequence, ShardId, WriteId,
    internals::{Hint, QueueRef, decoders},
};
use libfuzzer_sys::arbitrary::{self, Arbitrary};

/// As in the store: all that one commit group takes.
const GROUP_BYTES: usize = 1 << 20;

#[derive(Debug, Arbitrary)]
struct Written {
    node: u64,
    queue: u64,
    first: u64,
    bytes_before: u64,
    hint: Drawn,
    more: Vec<Drawn>,
    wrong: Wrong,
}

#[derive(Debug, Arbitrary)]
struct Drawn {
    shard: u64,
    format: u16,
    enqueued_unix_ms: u64,
    payload: Payload,
    origin: Option<(u64, u64)>,
    write: Option<(u64, u64)>,
    lifetime_ms: Option<u64>,
}

#[derive(Debug, Arbitrary)]
enum Payload {
    Given(Vec<u8>),
    /// Does not compress, so that there are many chunks.
    Noise {
        seed: u8,
        bytes: u16,
    },
    Repeated {
        byte: u8,
        bytes: u16,
    },
}

#[derive(Debug, Arbitrary)]
enum Wrong {
    Flipped { chunk: usize, byte: usize, bit: u8 },
    Short { chunk: usize, bytes: usize },
    Missing { chunk: usize },
    Exchanged { one: usize, other: usize },
}

impl Drawn {
    fn hint(&self) -> Hint {
        let payload = match &self.payload {
            Payload::Given(bytes) => bytes.clone(),
            Payload::Noise { seed, bytes } => {
                let mut noise = vec![0; (*bytes).into()];
                fastrand::Rng::with_seed((*seed).into()).fill(&mut noise);
                noise
            }
            Payload::Repeated { byte, bytes } => vec![*byte; (*bytes).into()],
        };
        Hint {
            shard: ShardId(self.shard),
            format: self.format,
            enqueued_unix_ms: self.enqueued_unix_ms,
            payload: payload.into(),
            origin: self
                .origin
                .map(|(queue, sequence)| (QueueId(queue.max(1)), Sequence(sequence))),
            write: self.write.map(|(boot, counter)| WriteId {
                boot: boot.max(1),
                counter,
            }),
            // That one stands for none.
            lifetime_ms: self.lifetime_ms.filter(|ms| *ms != u64::MAX),
        }
    }
}

impl Wrong {
    fn put_into(&self, chunks: &mut Vec<Vec<u8>>) {
        let count = chunks.len();
        match *self {
            Wrong::Flipped { chunk, byte, bit } => {
                let chunk = &mut chunks[chunk % count];
                let byte = byte % chunk.len();
                chunk[byte] ^= 1 << (bit % 8);
            }
            Wrong::Short { chunk, bytes } => {
                let chunk = &mut chunks[chunk % count];
                chunk.truncate(bytes % chunk.len());
            }
            Wrong::Missing { chunk } => drop(chunks.remove(chunk % count)),
            Wrong::Exchanged { one, other } => chunks.swap(one % count, other % count),
        }
    }
}

libfuzzer_sys::fuzz_target!(|written: Written| {
    let queue = QueueRef {
        node: NodeId(written.node),
        queue: QueueId(written.queue),
    };
    let mut hints = vec![written.hint.hint()];
    let mut raw_bytes = hints[0].raw_bytes();
    for hint in written.more.iter().map(Drawn::hint) {
        raw_bytes += hint.raw_bytes();
        if raw_bytes > GROUP_BYTES {
            break;
        }
        hints.push(hint);
    }
    // Sequences start at 1 and never come to their end.
    let first = Sequence(written.first.clamp(1, u64::MAX / 2));

    let mut chunks = decoders::encode_block(queue, first, written.bytes_before, &hints);
    let read = decoders::block(queue, first, &chunks).unwrap();
    assert_eq!(hints, read.hints);
    assert_eq!(read.last.0, first.0 + hints.len() as u64 - 1);
    assert_eq!(read.bytes_before, written.bytes_before);

    let right = chunks.clone();
    written.wrong.put_into(&mut chunks);
    if chunks != right {
        let read = decoders::block(queue, first, &chunks);
        assert!(read.is_err(), "{:?} was not noticed", written.wrong);
    }
});
