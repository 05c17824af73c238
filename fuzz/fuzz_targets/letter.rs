//! What is known of a dead letter. What reads is what would be written, but for numbers in more
//! bytes than they need, and reads under no other key.

#![no_main]

use hinted_handoff::{
    Sequence,
    internals::{Place, decoders},
};
use hinted_handoff_fuzz::{QUEUE, is_written_again, raw_and_checksummed};

const PLACE: Place = Place {
    queue: QUEUE,
    sequence: Sequence(4),
};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    raw_and_checksummed(&PLACE.letter_key(), bytes, |value| {
        is_written_again(value, |value| decoders::letter(PLACE, value))?;
        assert!(decoders::letter(PLACE.next(), value).is_err());
        Ok(())
    });
});
