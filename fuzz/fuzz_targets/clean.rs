//! A `CLEAN` file that reads is, byte for byte, the one that would be written; one of schema 1
//! means the same when it is written anew.

#![no_main]

use hinted_handoff::internals::decoders;
use hinted_handoff_fuzz::raw_and_checksummed;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    raw_and_checksummed(&[], bytes, |file| {
        let again = decoders::clean(file)?;
        match file.starts_with(b"HHCLEAN1") {
            true => assert_eq!(decoders::clean(&again)?, again),
            false => assert_eq!(again, file),
        }
        Ok(())
    });
});
