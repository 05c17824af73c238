//! What the targets share.

use hinted_handoff::{
    NodeId, QueueId,
    internals::{QueueRef, decoders},
};

/// The queue of the golden files, which are the seeds.
pub const QUEUE: QueueRef = QueueRef {
    node: NodeId(258),
    queue: QueueId(1),
};

/// Another one.
pub const OTHER: QueueRef = QueueRef {
    node: NodeId(259),
    queue: QueueId(2),
};

/// Lets `read` have the bytes as they are, and with the right checksum in place of their last four:
/// without it no input would ever get behind the checksum.
pub fn raw_and_checksummed(key: &[u8], bytes: &[u8], read: impl Fn(&[u8]) -> Result<(), String>) {
    // Refused or not, what was to be checked `read` has checked.
    let _ = read(bytes);
    passes_the_checksum(read(&decoders::checksum_again(key, bytes)));
}

/// What reads is encoded to something that reads the same, and is no longer.
pub fn is_written_again(
    value: &[u8],
    again: impl Fn(&[u8]) -> Result<Vec<u8>, String>,
) -> Result<(), String> {
    let first = again(value)?;
    assert!(first.len() <= value.len());
    assert_eq!(again(&first)?, first);
    Ok(())
}

/// A refusal of checksummed bytes must be for another reason. If it is not, a decoder checks other
/// bytes than it was given.
pub fn passes_the_checksum<T>(read: Result<T, String>) {
    if let Err(why) = read {
        // zstd has a checksum of its own, which it names otherwise.
        let is_of_checksum = why.contains("its checksum is");
        assert!(!is_of_checksum, "its checksum is right, and refused: {why}");
    }
}
