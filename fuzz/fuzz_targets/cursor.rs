//! A cursor that reads is, byte for byte, the one that would be written, and reads under no other key.

#![no_main]

use hinted_handoff::testkit::decoders;
use hinted_handoff_fuzz::{OTHER, QUEUE, raw_and_sealed};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    raw_and_sealed(&QUEUE.cursor_key(), bytes, |value| {
        assert_eq!(decoders::cursor(QUEUE, value)?, value);
        assert!(decoders::cursor(OTHER, value).is_err());
        Ok(())
    });
});
