//! A WAL record from any bytes: what reads encodes to one that reads the same.

#![no_main]

use hinted_handoff::{
    NodeId, QueueId, Sequence,
    internals::{QueueRef, decoders},
};
use hinted_handoff_fuzz::passes_the_checksum;

const WAL: QueueRef = QueueRef {
    node: NodeId(u64::MAX),
    queue: QueueId(0),
};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Under the key that its header names: it would be refused under any other.
    let first = bytes.get(12..).and_then(|rest| rest.first_chunk());
    let first = Sequence(first.map_or(0, |number| u64::from_be_bytes(*number)));
    // Refused or not, what was to be checked was checked.
    let _ = read(first, bytes);
    let mut checksummed = bytes.to_vec();
    decoders::checksum_block_again(WAL, first, &mut checksummed);
    passes_the_checksum(read(first, &checksummed));
});

fn read(first: Sequence, bytes: &[u8]) -> Result<(), String> {
    let again = decoders::wal_record(first, &decoders::cut(bytes))?;
    assert_eq!(decoders::wal_record(first, &again)?, again);
    let other_first = Sequence(first.0 ^ 1);
    assert!(decoders::wal_record(other_first, &decoders::cut(bytes)).is_err());
    Ok(())
}
