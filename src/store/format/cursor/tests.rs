use crate::{
    store::format::cursor::*,
    types::{NodeId, QueueId},
};
use proptest::prelude::*;
use std::collections::BTreeSet;

const QUEUE: QueueRef = QueueRef {
    node: NodeId(2),
    queue: QueueId(3),
};

/// Every other hint is delivered, twice as many as a stored cursor has ranges for.
#[test]
fn what_is_delivered_beyond_the_ranges_that_are_stored_comes_again_and_is_counted_so() {
    let mut cursor = Cursor::start();
    let max = RANGES_MAX as u64;
    for number in 1..=2 * max {
        let left = cursor.leave(Sequence(2 * number), 10, Leave::Delivered);
        assert_eq!(left.hints, 1);
        let again = cursor.leave(Sequence(2 * number), 10, Leave::Delivered);
        assert_eq!(again.hints, 0);
    }
    assert_eq!(cursor.above.len(), RANGES_MAX);
    assert_eq!(cursor.delivered.hints, 2 * max);
    assert!((1..=2 * max).all(|it| cursor.is_gone(Sequence(2 * it))));
    assert!((1..=2 * max).all(|it| !cursor.is_gone(Sequence(2 * it - 1))));

    let value = cursor.encode(QUEUE);
    assert!(value.len() < 16 * 1024, "{}", value.len());
    let again = Cursor::decode(QUEUE, &value).unwrap();
    assert_eq!(again, cursor.stored());
    assert_eq!(again.delivered, again.gone_above());
    assert_eq!(again.delivered.hints, max);
    assert!(again.is_gone(Sequence(2 * max)) && !again.is_gone(Sequence(2 * max + 2)));

    // Anything else that leaves is stored, whatever the room.
    let far = Sequence(100 * max);
    cursor.leave(far, 10, Leave::Dead);
    assert!(cursor.stored().is_gone(far));
    // Each gap that closes makes room for one more.
    cursor.leave(Sequence(1), 10, Leave::Delivered);
    assert_eq!(cursor.next, Sequence(3));
    assert_eq!(cursor.stored().gone_above().hints, max);
    cursor.advance(Sequence(4 * max - 1), 10 * (4 * max - 1), Leave::Delivered);
    assert_eq!(cursor.next, Sequence(4 * max + 1));
    assert_eq!(cursor.gone().hints, 4 * max + 1);
    assert_eq!(cursor.stored(), cursor, "nothing comes again");
}

#[test]
fn advancing_counts_what_leaves_and_is_idempotent() {
    let mut cursor = Cursor::start();
    let left = cursor.advance(Sequence(3), 300, Leave::Delivered);
    assert_eq!(
        left,
        Amount {
            hints: 3,
            bytes: 300
        }
    );
    assert_eq!(cursor.advance(Sequence(3), 300, Leave::Delivered).hints, 0);
    assert_eq!(cursor.advance(Sequence(1), 100, Leave::Lost).hints, 0);
    let lost = cursor.advance(Sequence(4), 350, Leave::Lost);
    assert_eq!(
        lost,
        Amount {
            hints: 1,
            bytes: 50
        }
    );
    assert_eq!((cursor.next, cursor.bytes_below()), (Sequence(5), 350));
}

#[test]
fn hints_leave_in_any_order_and_the_cursor_follows_the_lowest_gap() {
    let mut cursor = Cursor::start();
    for sequence in [3, 5, 2] {
        assert_eq!(
            cursor.leave(Sequence(sequence), 10, Leave::Delivered).hints,
            1
        );
        assert_eq!(cursor.leave(Sequence(sequence), 10, Leave::Lost).hints, 0);
    }
    assert_eq!((cursor.next, cursor.bytes_below()), (Sequence(1), 0));
    assert_eq!(cursor.above.len(), 2);
    let value = cursor.encode(QUEUE);
    assert_eq!(Cursor::decode(QUEUE, &value), Ok(cursor.clone()));

    // What is below a place leaves, but for what had left before.
    let mut skipped = cursor.clone();
    let left = skipped.advance(Sequence(4), 40, Leave::Lost);
    assert_eq!(
        left,
        Amount {
            hints: 2,
            bytes: 20
        }
    );
    assert_eq!((skipped.next, skipped.bytes_below()), (Sequence(6), 50));

    cursor.leave(Sequence(1), 10, Leave::Dead);
    assert_eq!((cursor.next, cursor.bytes_below()), (Sequence(4), 30));
    cursor.leave(Sequence(4), 10, Leave::Lost);
    assert_eq!((cursor.next, cursor.bytes_below()), (Sequence(6), 50));
    assert!(cursor.above.is_empty());
    assert_eq!(
        cursor.gone(),
        Amount {
            hints: 5,
            bytes: 50
        }
    );
}

proptest! {
    /// Whatever leaves in whatever order: the cursor says what a set of all that left says, and
    /// reads as it was written.
    #[test]
    fn a_cursor_is_the_set_of_what_left(
        steps in proptest::collection::vec((1_u64..30, 0..4, any::<bool>()), 0..40)
    ) {
        let size = |sequence: u64| sequence * sequence;
        let (mut cursor, mut gone) = (Cursor::start(), BTreeSet::new());
        let mut left = [Amount::default(); 4];
        for (sequence, which, through) in steps {
            let leave = [Leave::Delivered, Leave::Dead, Leave::Lost, Leave::Withdrawn][which as usize];
            let one = |sequence| Amount { hints: 1, bytes: size(sequence) };
            // Up to the middle of a range the bytes in it are not known; nobody asks for that.
            let through = through && !gone.contains(&(sequence + 1));
            let wanted = if through { 1..=sequence } else { sequence..=sequence };
            let expected = wanted.filter(|it| gone.insert(*it)).map(one);
            let expected = expected.fold(Amount::default(), Amount::plus);
            let found = match through {
                true => cursor.advance(Sequence(sequence), (1..=sequence).map(size).sum(), leave),
                false => cursor.leave(Sequence(sequence), size(sequence), leave),
            };
            prop_assert_eq!(found, expected);
            left[which as usize] = left[which as usize].plus(expected);
            prop_assert_eq!([cursor.delivered, cursor.dead, cursor.lost, cursor.withdrawn], left);
            let next = (1..).find(|it| !gone.contains(it)).unwrap();
            prop_assert_eq!(cursor.next, Sequence(next));
            prop_assert_eq!(cursor.bytes_below(), (1..next).map(size).sum::<u64>());
            prop_assert!((1..32).all(|it| cursor.is_gone(Sequence(it)) == gone.contains(&it)));
            let value = cursor.encode(QUEUE);
            prop_assert_eq!(Cursor::decode(QUEUE, &value), Ok(cursor.clone()));
        }
    }

    #[test]
    fn no_bytes_with_a_checksum_bring_it_down(ranges in any::<u16>(), next in any::<u64>(), rest in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut bytes = vec![VERSION, 0];
        bytes.put_u16(ranges % 8);
        bytes.put_u64(next);
        bytes.extend([0; 64]);
        bytes.extend(rest);
        if let Ok(cursor) = Cursor::decode(QUEUE, &with_checksum(&QUEUE.cursor_key(), bytes)) {
            let value = cursor.encode(QUEUE);
            prop_assert_eq!(Cursor::decode(QUEUE, &value), Ok(cursor));
        }
    }
}

#[test]
fn what_claims_more_ranges_than_it_holds_or_touching_ones_is_refused() {
    let with = |version: u8, ranges: u16, rest: &[u8]| {
        let mut bytes = vec![version, 0];
        bytes.put_u16(ranges);
        bytes.put_u64(5);
        bytes.extend([0; 64]);
        bytes.extend(rest);
        Cursor::decode(QUEUE, &with_checksum(&QUEUE.cursor_key(), bytes))
    };
    assert!(with(VERSION, 1, &[1, 1, 9]).is_ok());
    let mut endless = vec![1];
    endless.extend([0xff; 9]);
    endless.extend([1, 1]);
    let refused: [(u8, u16, &[u8]); 7] = [
        (VERSION, u16::MAX, &[1, 1, 9]),
        (VERSION, 1, &[0, 1, 9]),
        (VERSION, 1, &[1, 0, 9]),
        (VERSION, 2, &[1, 1, 9, 0, 1, 9]),
        (VERSION, 0, &[1, 1, 9]),
        (VERSION, 1, &endless),
        (VERSION + 1, 0, &[]),
    ];
    for (version, ranges, rest) in refused {
        assert!(with(version, ranges, rest).is_err(), "{ranges} {rest:?}");
    }
}

#[test]
fn any_flipped_bit_and_another_key_are_noticed() {
    let mut cursor = Cursor::rebuilt(Sequence(8), 99);
    let value = cursor.encode(QUEUE);
    assert_eq!(value.len(), CURSOR_BYTES);
    assert_eq!(Cursor::decode(QUEUE, &value), Ok(cursor.clone()));
    cursor.leave(Sequence(10), 1000, Leave::Dead);
    cursor.leave(Sequence(500), 1, Leave::Lost);
    let value = cursor.encode(QUEUE);
    for bit in 0..value.len() * 8 {
        let mut flipped = value.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Cursor::decode(QUEUE, &flipped).is_err(), "bit {bit}");
    }
    for cut in 0..value.len() {
        assert!(Cursor::decode(QUEUE, &value[..cut]).is_err(), "cut {cut}");
    }
    let other = QueueRef {
        queue: QueueId(4),
        ..QUEUE
    };
    assert!(Cursor::decode(other, &value).is_err());
}
