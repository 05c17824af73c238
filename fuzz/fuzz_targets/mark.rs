//! A receiver's mark of the hints it has applied. What reads is what would be written, and reads
//! under no other key.

#![no_main]

use hinted_handoff::internals::decoders;
use hinted_handoff_fuzz::raw_and_checksummed;

const KEY: [u8; 32] = [7; 32];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    raw_and_checksummed(&KEY, bytes, |value| {
        assert_eq!(decoders::mark(&KEY, value)?, value);
        assert!(decoders::mark(&KEY[..16], value).is_err());
        Ok(())
    });
});
