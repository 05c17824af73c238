//! A `CLEAN` file that reads is, byte for byte, the one that would be written.

#![no_main]

use hinted_handoff::internals::decoders;
use hinted_handoff_fuzz::raw_and_checksummed;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    raw_and_checksummed(&[], bytes, |file| {
        assert_eq!(decoders::clean(file)?, file);
        Ok(())
    });
});
