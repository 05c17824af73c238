//! A block from any bytes: header and body, cut into chunks as in the store. What reads is numbered
//! and counted as it says, fits the limit, encodes to a block that reads the same, and reads under
//! no other key.

#![no_main]

use hinted_handoff::{
    MAX_ENTRY_BYTES_CEILING, QueueId, Sequence,
    internals::{
        QueueRef,
        decoders::{self, Block},
    },
};
use hinted_handoff_fuzz::{QUEUE, passes_the_checksum};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Under the key that its header names: it would be refused under any other.
    let field = |at: usize| {
        let number = bytes.get(at..).and_then(|rest| rest.first_chunk());
        number.map_or(0, |number| u64::from_be_bytes(*number))
    };
    let queue = QueueRef {
        queue: QueueId(field(4)),
        ..QUEUE
    };
    let first = Sequence(field(12));
    // Refused or not, what was to be checked was checked.
    let _ = read(queue, first, bytes);
    let mut checksummed = bytes.to_vec();
    decoders::checksum_block_again(queue, first, &mut checksummed);
    passes_the_checksum(read(queue, first, &checksummed));
});

fn read(queue: QueueRef, first: Sequence, bytes: &[u8]) -> Result<(), String> {
    let block = decoders::block(queue, first, &decoders::cut(bytes))?;
    let Block {
        hints,
        last,
        bytes_before,
        bytes_through,
    } = &block;
    assert_eq!(last.0, first.0 + hints.len() as u64 - 1);
    let payload: u64 = hints.iter().map(|hint| hint.payload.len() as u64).sum();
    assert_eq!(*bytes_through, bytes_before.saturating_add(payload));
    assert!(payload <= MAX_ENTRY_BYTES_CEILING);

    // A group has some thousands; what a bomb of millions takes here would not be the decoder's.
    if hints.len() < 50_000 {
        let again = decoders::encode_block(queue, first, *bytes_before, hints);
        assert_eq!(decoders::block(queue, first, &again)?, block);
    }

    let other_queue = QueueRef {
        queue: QueueId(queue.queue.0 ^ 1),
        ..queue
    };
    assert!(decoders::block(other_queue, first, &decoders::cut(bytes)).is_err());
    let other_first = Sequence(first.0 ^ 1);
    assert!(decoders::block(queue, other_first, &decoders::cut(bytes)).is_err());
    Ok(())
}
