//! What is rare and must work all the same: many tiny hints, and a clock that goes backwards. (The
//! largest hint is in `service`, many nodes are in `many_nodes`.)

use crate::common::*;
use hinted_handoff::{
    Amount, NodeId,
    internals::{Hint, Leave, Peek, PeekLimits, Reader},
};

const NODE: u64 = 2;

#[test]
fn sixty_four_thousand_hints_of_one_byte_come_in_order_and_take_little() {
    const COUNT: usize = 65_536;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let burst = (0..COUNT).map(|number| hint(1, vec![number as u8]));
    for result in try_append(&store, NODE, burst.collect()) {
        result.unwrap();
    }
    store.close().unwrap();

    let store = open(dir.path());
    let mut reader = Reader::default();
    let limits = PeekLimits {
        hints: 1_000,
        payload_bytes: 1 << 20,
    };
    let mut next = 0;
    while let Peek::Hints(hints) = store.peek(&mut reader, NodeId(NODE), limits).unwrap() {
        assert!(hints.len() <= 1_000);
        for it in &hints {
            assert_eq!(it.hint.payload.as_ref(), [next as u8]);
            next += 1;
            assert_eq!(it.mark.sequence.0, next as u64);
        }
        let last = hints.last().unwrap().mark;
        let left = store.ack(NodeId(NODE), last, Leave::Delivered).unwrap();
        let hints = hints.len() as u64;
        assert_eq!(
            left,
            Amount {
                hints,
                bytes: hints
            }
        );
    }
    assert_eq!(next, COUNT);
    store.close().unwrap();
    let log = generation(dir.path()).join("db").metadata().unwrap().len();
    assert!(log <= 3 * (8 << 20), "{log} bytes on disk");
}

/// Sequences order hints, never times: those are told to the host as the clock gave them.
#[test]
fn a_clock_that_goes_backwards_changes_no_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let times = [5_000, 4_000, 9_000, 0, u64::MAX, 1];
    for (number, time) in (1..).zip(times) {
        let new = Hint {
            enqueued_unix_ms: time,
            ..hint(1, format!("hint-{number}"))
        };
        try_append(&store, NODE, vec![new]).remove(0).unwrap();
    }
    store.close().unwrap();
    let found = hints(&open(dir.path()), NODE);
    let found = found.iter().map(|it| {
        let text = String::from_utf8(it.hint.payload.to_vec()).unwrap();
        (it.mark.sequence.0, text, it.hint.enqueued_unix_ms)
    });
    let expected = (1..)
        .zip(times)
        .map(|(number, time)| (number, format!("hint-{number}"), time));
    assert!(found.eq(expected));
}
