use super::*;
use crate::types::{NodeId, QueueId, Sequence};

const SHARD: ShardId = ShardId(7);

fn fail(troubles: &mut Troubles, first: u64) -> u32 {
    troubles.leave_alone(SHARD, None);
    troubles.failed(SHARD, place(first))
}

fn troubles() -> Troubles {
    Troubles::new(
        Clock::System,
        Duration::from_secs(1),
        Duration::from_secs(60),
    )
}

fn place(sequence: u64) -> Place {
    Place {
        queue: QueueRef {
            node: NodeId(1),
            queue: QueueId(1),
        },
        sequence: Sequence(sequence),
    }
}

/// Sends a shard of so many hints, the poisoned ones by their numbers, until nothing is left; how
/// long each send was.
fn narrowed(hints: usize, poison: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let mut troubles = troubles();
    let (mut next, mut sends, mut dead_lettered) = (0, Vec::new(), Vec::new());
    while next < hints {
        let most = troubles.most_hints(SHARD, place(next as u64), 0);
        let sent = most.min(hints - next);
        sends.push(sent);
        if !(next..next + sent).any(|hint| poison.contains(&hint)) {
            troubles.taken(SHARD, sent, true);
            next += sent;
        } else if sent > 1 {
            troubles.rejected(SHARD, sent);
        } else {
            dead_lettered.push(next);
            troubles.left(SHARD, 1);
            next += 1;
        }
    }
    (sends, dead_lettered)
}

#[tokio::test]
async fn halves_find_the_rejected_one_and_all_goes_on_behind_it_as_before() {
    assert_eq!(narrowed(8, &[0]), (vec![8, 4, 2, 1, 1, 6], vec![0]));
    assert_eq!(narrowed(8, &[7]), (vec![8, 4, 2, 1, 1], vec![7]));
    assert_eq!(narrowed(8, &[5]), (vec![8, 4, 2, 1, 1, 2], vec![5]));
    for poison in 0..100 {
        let (sends, dead_lettered) = narrowed(100, &[poison]);
        assert_eq!(dead_lettered, [poison]);
        assert!(sends.len() <= 11, "{sends:?}");
    }
    assert_eq!(narrowed(9, &[2, 3, 8]).1, [2, 3, 8]);
    let all: Vec<_> = (0..20).collect();
    assert_eq!(narrowed(20, &all).1, all);
}

#[tokio::test(start_paused = true)]
async fn attempts_are_those_of_the_hint_in_front_and_the_last_one_is_for_it_alone() {
    let mut troubles = troubles();
    assert_eq!(fail(&mut troubles, 1), 1);
    assert_eq!(troubles.most_hints(SHARD, place(1), 3), usize::MAX);
    assert_eq!(fail(&mut troubles, 1), 2);
    assert_eq!(troubles.most_hints(SHARD, place(1), 3), 1);
    assert_eq!(
        troubles.most_hints(SHARD, place(1), 0),
        usize::MAX,
        "no limit"
    );
    assert_eq!(
        troubles.most_hints(SHARD, place(2), 3),
        usize::MAX,
        "another hint"
    );
    let cause =
        |troubles: &Troubles, reason| troubles.dead_cause(SHARD, place(1), reason, String::new());
    assert_eq!(cause(&troubles, DeadReason::Attempts).attempts, 2);
    assert_eq!(
        cause(&troubles, DeadReason::Rejected).attempts,
        3,
        "with the rejected one"
    );
    assert_eq!(fail(&mut troubles, 2), 1);
    assert_eq!(cause(&troubles, DeadReason::Undecodable).attempts, 0);
}

#[tokio::test(start_paused = true)]
async fn a_shard_is_left_alone_for_growing_times_until_it_takes_something() {
    let mut troubles = troubles();
    let waits = |troubles: &Troubles| {
        let now = Instant::now();
        troubles.backing_off(SHARD, now).map(|until| until - now)
    };
    assert_eq!(waits(&troubles), None);
    for nominal in [1, 2, 4] {
        fail(&mut troubles, 1);
        let waits = waits(&troubles).unwrap().as_secs_f64();
        assert!(
            (nominal as f64 / 2.0..=nominal as f64).contains(&waits),
            "{waits}"
        );
    }
    troubles.left(SHARD, 1);
    assert!(waits(&troubles).is_some(), "dead-lettering is no success");
    troubles.taken(SHARD, 1, true);
    assert_eq!(waits(&troubles), None);
    troubles.leave_alone(SHARD, Some(Duration::from_secs(300)));
    assert_eq!(waits(&troubles), Some(Duration::from_secs(300)));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_format_is_no_attempt_and_its_shard_waits_with_a_hint_at_a_time() {
    let mut troubles = troubles();
    assert!(troubles.unknown().is_none());
    assert!(troubles.unknown_format(SHARD, 9, 2));
    assert!(!troubles.unknown_format(SHARD, 9, 2), "it was known");
    let until = troubles.backing_off(SHARD, Instant::now()).unwrap();
    assert!(
        until - Instant::now() >= Duration::from_secs(1),
        "the second wait"
    );
    assert!(troubles.heads().is_empty());
    assert_eq!(troubles.most_hints(SHARD, place(1), 3), 1);
    assert!(troubles.unknown_format(ShardId(3), 8, 2));
    let shown = troubles.unknown().unwrap();
    assert_eq!((shown.shards, shown.shard), (2, ShardId(3)));
    assert_eq!((shown.found, shown.written), (8, 2));

    assert!(troubles.keep_unknown(|shard| shard == SHARD));
    assert!(
        !troubles.keep_unknown(|shard| shard == SHARD),
        "nothing to forget"
    );
    assert!(troubles.known_format(SHARD));
    assert!(!troubles.known_format(SHARD));
    assert!(troubles.unknown().is_none());
    assert_eq!(troubles.most_hints(SHARD, place(1), 3), usize::MAX);
    assert_eq!(fail(&mut troubles, 1), 1);
    let until = troubles.backing_off(SHARD, Instant::now()).unwrap();
    assert!(
        until - Instant::now() <= Duration::from_secs(1),
        "from the start"
    );
}

#[test]
fn what_was_tried_is_known_after_a_restart() {
    let mut before = troubles();
    fail(&mut before, 5);
    fail(&mut before, 5);
    let mut after = troubles();
    after.restore(&before.heads());
    assert_eq!(after.heads(), before.heads());
    assert!(after.backing_off(SHARD, Instant::now()).is_none());
    assert_eq!(after.most_hints(SHARD, place(5), 3), 1, "the last try");
    assert_eq!(fail(&mut after, 5), 3);
    assert_eq!(fail(&mut after, 6), 1, "another hint");
}
