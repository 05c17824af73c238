//! The records of the loss journal; the first byte says which. What reads is what would be written,
//! but for numbers in more bytes than they need and for the order of a map, and reads under no
//! other key.

#![no_main]

use hinted_handoff::internals::decoders;
use hinted_handoff_fuzz::{is_written_again, raw_and_checksummed};

const KEYS: [&[u8]; 5] = [
    &[0],
    &[1, 0, 0, 0, 0, 0, 0, 0, 0],
    &[2, 0, 0, 0, 0, 0, 0, 0, 1],
    &[3],
    &[3, 0, 0, 0, 0, 0, 0, 0, 1],
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else {
        return;
    };
    let key = KEYS[usize::from(*which) % KEYS.len()];
    raw_and_checksummed(key, bytes, |value| {
        is_written_again(value, |value| decoders::loss(key, value))?;
        for other in KEYS.iter().filter(|other| **other != key) {
            assert!(decoders::loss(other, value).is_err());
        }
        Ok(())
    });
});
