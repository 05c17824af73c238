//! A cursor that reads is what would be written, but for numbers in more bytes than they need, and
//! reads under no other key.

#![no_main]

use hinted_handoff::internals::decoders;
use hinted_handoff_fuzz::{OTHER, QUEUE, is_written_again, raw_and_checksummed};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    raw_and_checksummed(&QUEUE.cursor_key(), bytes, |value| {
        is_written_again(value, |value| decoders::cursor(QUEUE, value))?;
        assert!(decoders::cursor(OTHER, value).is_err());
        Ok(())
    });
});
