//! What becomes of held hints when a store is opened again, or their node is another.

use crate::store::pipeline::held::tests::*;

#[test]
fn a_reopen_keeps_what_is_held_and_forgets_other_claims() {
    let world = world();
    let (held, _) = world.held(7);
    world.append(7);
    let (gone, _) = world.held(8);
    let (left, _) = world.held(9);
    world.append(8);
    let mut claimed = world.pending(NODE);
    world.store.claim(NODE, &mut claimed);
    assert_eq!(sequences(&claimed), [2, 5]);
    let refused = world.fail(|| {
        world.hand_in_held(OTHER, 1);
        while world.store.check_serving().is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
        // A store that does not serve acknowledges nothing.
        drop(gone);
        left.deliver()
    });
    assert!(refused.is_err());
    assert_eq!(world.claimable(NODE, 7), (vec![], 0));
    assert_eq!(world.claimable(NODE, 8), (vec![3, 5], 2));
    assert_eq!(world.claimable(NODE, 9), (vec![4], 1));
    assert_eq!(world.in_order(NODE), [0_u64; 0]);
    assert_eq!(world.queues(NODE).in_flight(), 1);
    // Whoever claimed it in the life before gives back what is not theirs.
    let first = world.pending(NODE).remove(0);
    world.store.release_claimed(NODE, &[first], 0);
    assert_eq!(world.queues(NODE).in_flight(), 1);
    assert_eq!(held.deliver().unwrap(), amount(1));
    assert_eq!(world.claimable(NODE, 7), (vec![2], 1));
    assert!(world.is_empty_of_holds());
}

/// One that takes several commits: an error in the first leaves nothing of it.
fn large() -> Hint {
    let mut random = fastrand::Rng::with_seed(1);
    Hint {
        payload: (0..3_000_000).map(|_| random.u8(..)).collect(),
        ..hint(7)
    }
}

#[test]
fn one_whose_groups_outcome_is_unknown_is_held_if_a_reopen_finds_it_and_nothing_if_not() {
    for is_lost in [false, true] {
        let world = world();
        world.append(7);
        let hint = if is_lost { large() } else { hint(7) };
        let (held, told) = world.fail(|| world.hand_in(NODE, hint));
        let unknown = wait(&told).unwrap_err();
        assert_eq!(unknown.outcome(), FailedOutcome::Unknown);
        // One that comes behind it, in a queue of its own.
        let behind = world.append(7);
        assert_eq!(behind.sequence, Sequence(1));
        let left = match is_lost {
            false => {
                assert_eq!(world.claimable(NODE, 7), (vec![1], 1));
                amount(1)
            }
            true => {
                assert_eq!(world.claimable(NODE, 7), (vec![1, 1], 2));
                Amount::default()
            }
        };
        assert_eq!(held.deliver().unwrap(), left);
        assert_eq!(world.claimable(NODE, 7), (vec![1, 1], 2));
        assert!(world.is_empty_of_holds());
    }
}

#[test]
fn a_held_hint_of_an_earlier_queue_holds_up_the_later_ones() {
    let world = world();
    world.append(7);
    let (held, _) = world.held(7);
    world.append(8);
    world.fail(|| world.hand_in_held(OTHER, 1));
    let later = world.append(7);
    world.append(8);
    let queues = world.queues(NODE).queues.len();
    assert_eq!((queues, later.sequence), (2, Sequence(1)));
    assert_eq!(world.claimable(NODE, 7), (vec![1], 1));
    assert_eq!(world.claimable(NODE, 8), (vec![3, 2], 2));
    // One that is held in the later queue leaves the earlier one alone.
    let (behind, _) = world.held(8);
    assert_eq!(world.claimable(NODE, 8), (vec![3, 2], 2));
    assert_eq!(world.in_order(NODE), [1]);
    drop(held);
    assert_eq!(world.claimable(NODE, 7), (vec![1, 2, 1], 3));
    assert_eq!(world.in_order(NODE), [1, 2, 3]);
    drop(behind);
}

#[test]
fn a_hold_goes_with_its_node_to_another_name_and_outlives_another_reopen() {
    let world = world();
    world.append(7);
    let (held, _) = world.held(7);
    world.append(7);
    let (tell, told) = mpsc::channel();
    let done = move |moved| drop(tell.send(moved));
    world.store.rename_node(NODE, OTHER, done);
    assert_eq!(wait(&told).unwrap(), amount(3));
    assert_eq!(world.claimable(OTHER, 7), (vec![1], 1));
    assert_eq!(world.queues(OTHER).in_flight(), 1);
    // The old name stands for another node now.
    world.append(7);
    assert_eq!(world.claimable(NODE, 7).1, 1);
    world.fail(|| world.hand_in_held(NodeId(3), 1));
    assert_eq!(world.claimable(OTHER, 7), (vec![1], 1));
    world.take_rung();
    assert_eq!(held.withdraw().unwrap(), amount(1));
    assert_eq!(world.take_rung(), [OTHER]);
    assert_eq!(world.queues(OTHER).withdrawn, amount(1));
    assert_eq!(world.claimable(OTHER, 7), (vec![1, 3], 2));
    world.sync();
    assert!(world.is_empty_of_holds());
}

#[test]
fn one_that_does_not_read_any_more_is_lost_and_holds_up_nobody() {
    let world = world();
    let (held, _) = world.held(7);
    world.append(7);
    // As the commit thread does it with what is damaged.
    let mark = world.pending(NODE)[0].mark;
    let lost = world.store.ack(NODE, mark, Leave::Lost).unwrap();
    assert_eq!(lost, amount(1));
    assert_eq!(world.claimable(NODE, 7), (vec![2], 1));
    assert_eq!(world.in_order(NODE), [2]);
    world.fail(|| world.hand_in_held(OTHER, 1));
    let pending = world.pending(NODE).len() as u64;
    // The loss itself may be undone; then it is held as before.
    let claims = world.queues(NODE).in_flight();
    assert_eq!(claims, pending - 1);
    assert_eq!(held.deliver().unwrap().hints, claims);
}

#[test]
fn what_a_failure_undoes_is_counted_no_more() {
    let world = world();
    let (delivered, _) = world.held(7);
    let (withdrawn, _) = world.held(7);
    world.sync();
    // They leave while the commit thread is at something else, and the next group fails before it
    // writes cursors.
    world.fail(|| {
        world.store.inject(CommitFault::Hang);
        let (_before, told) = world.hand_in_held(OTHER, 1);
        while world.store.shared.busy.turn().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        let left = [delivered.deliver(), withdrawn.withdraw()];
        assert!(left.iter().all(|left| *left.as_ref().unwrap() == amount(1)));
        let queues = world.queues(NODE);
        assert_eq!((queues.delivered, queues.withdrawn), (amount(1), amount(1)));
        let _fails = world.hand_in(OTHER, large());
        world.store.inject(CommitFault::Fail);
        wait(&told).unwrap();
    });
    let queues = world.queues(NODE);
    assert_eq!(queues.pending(), amount(2));
    assert_eq!(
        (queues.delivered, queues.withdrawn),
        (Amount::default(), Amount::default())
    );
    assert_eq!(world.claimable(NODE, 7), (vec![1, 2], 2));
}

#[test]
fn a_clean_stop_and_a_crash_make_it_an_ordinary_hint() {
    let world = world();
    let (held, _) = world.held(7);
    world.append(7);
    world.store.close().unwrap();
    let World { dir, store, .. } = world;
    drop(store);
    let again = open(dir, 0);
    assert_eq!(again.claimable(NODE, 7), (vec![1, 2], 2));
    assert!(matches!(held.deliver(), Err(HandoffError::ShutDown)));
    assert_eq!(again.claimable(NODE, 7), (vec![1, 2], 2));
}
