use super::*;
use crate::{
    store::{Hint, Mark, QueueRef},
    types::{NodeId, QueueId, Sequence},
};
use bytes::Bytes;

const MOST: Amount = Amount {
    hints: 10,
    bytes: 100,
};

/// Hints of ten bytes: (sequence, shard).
pub fn hints(of: &[(u64, u64)]) -> Vec<PeekedHint> {
    let hint = |&(sequence, shard)| PeekedHint {
        mark: Mark {
            queue: QueueRef {
                node: NodeId(1),
                queue: QueueId(1),
            },
            sequence: Sequence(sequence),
            bytes_through: sequence * 10,
        },
        hint: Hint {
            shard: ShardId(shard),
            format: 0,
            enqueued_unix_ms: 0,
            payload: Bytes::from_static(b"ten bytes."),
            origin: None,
            write: None,
            lifetime_ms: None,
        },
    };
    of.iter().map(hint).collect()
}

fn sequences(hints: &[PeekedHint]) -> Vec<u64> {
    hints.iter().map(|hint| hint.mark.sequence.0).collect()
}

fn next_of(window: &Window, shard: u64, hints: u64, bytes: u64) -> Vec<u64> {
    sequences(&window.next_of(ShardId(shard), Amount { hints, bytes }))
}

fn next(window: &Window) -> Option<ShardId> {
    window.ready(Standing::New).map(|(_, shard)| shard)
}

#[test]
fn the_shard_with_the_oldest_hint_is_sent_to_first_and_one_that_is_held_not_at_all() {
    let mut window = Window::default();
    window.push(hints(&[(1, 7), (2, 8), (3, 7), (4, 9)]), MOST);
    assert_eq!(next(&window), Some(ShardId(7)));
    window.hold(ShardId(7));
    assert_eq!(next(&window), Some(ShardId(8)));
    window.hold(ShardId(8));
    window.done(ShardId(7), 1);
    assert_eq!(window.oldest(), Some(ShardId(8)));
    window.free(ShardId(7));
    assert_eq!(next(&window), Some(ShardId(7)), "3 is older than 4");
    window.hold(ShardId(7));
    window.push(hints(&[(5, 8)]), MOST);
    assert_eq!(next(&window), Some(ShardId(9)));
    window.hold(ShardId(9));
    assert_eq!(next(&window), None);
    assert_eq!(window.shard_count(), 3);
}

#[test]
fn a_send_carries_what_is_next_in_the_shard_within_its_limits_and_one_hint_at_least() {
    let mut window = Window::default();
    window.push(hints(&[(1, 7), (2, 8), (3, 7), (4, 7)]), MOST);
    assert_eq!(next_of(&window, 7, 9, 29), [1, 3]);
    assert_eq!(next_of(&window, 7, 1, 99), [1]);
    assert_eq!(next_of(&window, 7, 9, 1), [1]);
    assert_eq!(next_of(&window, 7, 9, 30), [1, 3, 4]);
    assert!(next_of(&window, 6, 9, 30).is_empty());
}

/// How much more may be read.
fn room(window: &Window) -> Option<(u64, u64)> {
    window.room(MOST).map(|room| (room.hints, room.bytes))
}

#[test]
fn what_is_done_makes_room_wherever_it_stands() {
    let mut window = Window::default();
    window.push(hints(&[(1, 7), (2, 8), (3, 8), (4, 8)]), MOST);
    window.hold(ShardId(8));
    window.done(ShardId(8), 3);
    window.free(ShardId(8));
    assert_eq!(room(&window), Some((9, 90)));
    let more: Vec<_> = (5..=14).map(|sequence| (sequence, 8)).collect();
    window.push(hints(&more), MOST);
    let position = window.position().unwrap();
    assert_eq!(position.sequence, Sequence(14), "14 is read again");
    assert_eq!(room(&window), None);
    window.hold(ShardId(7));
    window.done(ShardId(7), 1);
    assert_eq!(room(&window), Some((1, 10)));
}

#[test]
fn a_shard_set_aside_makes_room_and_comes_back_in_order_with_the_next_pass() {
    let mut window = Window::default();
    let first = hints(&[(1, 7), (2, 8), (3, 7), (4, 8)]);
    window.push(first.clone(), MOST);
    window.hold(ShardId(7));
    window.set_aside(ShardId(7));
    assert_eq!(room(&window), Some((8, 80)));
    assert_eq!(window.oldest(), Some(ShardId(7)));
    assert_eq!(window.shard_count(), 2);
    window.push(hints(&[(5, 7), (6, 9)]), MOST);
    assert_eq!(room(&window), Some((7, 70)), "5 is passed over");
    assert!(!window.aside.wants_pass());

    window.free(ShardId(7));
    let (shard, place) = window.aside.next_due().unwrap();
    assert_eq!((shard, place.sequence), (ShardId(7), Sequence(1)));
    window.put_back(shard, first.first().cloned());
    assert_eq!(next_of(&window, 7, 9, 99), [1], "only the next one");
    window.push(hints(&[(7, 7)]), MOST);
    assert_eq!(next_of(&window, 7, 9, 99), [1], "3 and 5 come first");
    window.hold(ShardId(7));
    window.done(ShardId(7), 1);
    window.free(ShardId(7));
    assert!(window.aside.wants_pass());

    window.begin_pass();
    assert!(window.position().is_none() && !window.aside.wants_pass());
    let left = [(2, 8), (3, 7), (4, 8), (5, 7), (6, 9), (7, 7), (8, 8)];
    window.push(hints(&left), MOST);
    assert_eq!(next_of(&window, 7, 9, 99), [3, 5, 7]);
    assert_eq!(next_of(&window, 8, 9, 99), [2, 4, 8], "none of them twice");
    assert_eq!(next_of(&window, 9, 9, 99), [6]);
}

#[test]
fn what_is_not_there_any_more_is_left_to_the_next_pass() {
    for found in [None, Some((3, 8))] {
        let mut window = Window::default();
        window.push(hints(&[(1, 7)]), MOST);
        window.hold(ShardId(7));
        window.set_aside(ShardId(7));
        let found = found.map(|it| hints(&[it])).and_then(|mut it| it.pop());
        window.put_back(ShardId(7), found);
        assert!(window.is_empty() && window.aside.wants_pass());
    }
}

#[test]
fn a_hint_larger_than_the_window_is_taken_in_alone() {
    let mut window = Window::default();
    let little = Amount { hints: 1, bytes: 3 };
    window.push(hints(&[(1, 7), (2, 7)]), little);
    assert_eq!(next_of(&window, 7, 9, 99), [1]);
    assert_eq!(window.room(little), None);
    window.hold(ShardId(7));
    window.done(ShardId(7), 1);
    window.free(ShardId(7));
    assert_eq!(window.shard_count(), 0);
    assert_eq!(window.room(little), Some(little));
}

#[test]
fn what_could_not_be_claimed_is_skipped_wherever_it_stands() {
    let mut window = Window::default();
    window.push(hints(&[(1, 7), (2, 7), (3, 7), (4, 7), (5, 7)]), MOST);
    window.hold(ShardId(7));
    let kept = hints(&[(2, 7), (4, 7)]);
    window.keep_only(ShardId(7), 4, &kept);
    assert_eq!(next_of(&window, 7, 9, 99), [2, 4, 5]);
    window.done(ShardId(7), 2);
    assert_eq!(next_of(&window, 7, 9, 99), [5]);
    window.keep_only(ShardId(7), 1, &[]);
    assert!(window.is_empty());
}
