//! The records of `hh/meta` and a node's record; the first byte says which. What reads is what
//! would be written, but for the order in which a node's record lists queues, and reads under no
//! other key.

#![no_main]

use hinted_handoff::internals::decoders::{self, META_RECORDS};
use hinted_handoff_fuzz::{OTHER, QUEUE, raw_and_checksummed};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else {
        return;
    };
    match META_RECORDS.get(usize::from(*which)) {
        Some(record) => raw_and_checksummed(record.as_bytes(), bytes, |value| {
            assert_eq!(decoders::meta(record, value)?, value);
            for other in META_RECORDS.iter().filter(|other| *other != record) {
                assert!(decoders::meta(other, value).is_err());
            }
            Ok(())
        }),
        None => raw_and_checksummed(&QUEUE.node.0.to_be_bytes(), bytes, |value| {
            let again = decoders::node_record(QUEUE.node, value)?;
            assert_eq!(again.len(), value.len());
            assert_eq!(decoders::node_record(QUEUE.node, &again)?, again);
            assert!(decoders::node_record(OTHER.node, value).is_err());
            Ok(())
        }),
    }
});
