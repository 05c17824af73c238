//! What is found in a damaged log is a part of it: no more than it holds, and the same each time.

#![no_main]

use hinted_handoff::internals::decoders;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let found = decoders::log(bytes);
    // The bytes stand there three times, and a value is never taken twice from one message.
    let held: usize = found.iter().map(|(_, value)| value.len()).sum();
    assert!(
        held <= 3 * bytes.len(),
        "{held} bytes of values in {}",
        bytes.len()
    );
    for (_, value) in &found {
        assert!(value.is_empty() || bytes.windows(value.len()).any(|part| part == value));
    }
    assert_eq!(found, decoders::log(bytes));
});
