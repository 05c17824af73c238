//! Copies of writes that could be neither sent nor stored: told of and counted at once, in the loss
//! journal as soon as the store can, without a queue, and told by barriers that were made before.

use std::{
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use crate::common::{
    append, config, hint, hints, hosting,
    letters::{barrier, deliver, note},
    open, sync, told, try_append,
};
use hinted_handoff::{
    Amount, BarrierLosses, BarrierState, Config, Event, HandoffError, Health, Loss, LossReason,
    NodeId, ShardId,
    internals::{CommitFault, Store},
};

const NODE: u64 = 7;
/// A node that never has any hint.
const OTHER: u64 = 9;

fn copies(hints: u64) -> Amount {
    Amount {
        hints,
        bytes: hints * 10,
    }
}

/// Notes a copy of 10 bytes.
fn noted(store: &Store, node: u64, shard: u64) -> Receiver<Result<(), HandoffError>> {
    let (tell, told) = channel();
    let done = move |recorded| tell.send(recorded).unwrap();
    store.note_not_stored(NodeId(node), ShardId(shard), copies(1), done);
    told
}

fn heard(told: &Receiver<Result<(), HandoffError>>) -> Result<(), HandoffError> {
    told.recv_timeout(Duration::from_secs(20)).unwrap()
}

fn entries(store: &Store) -> Vec<Loss> {
    let losses = store.losses(0).unwrap();
    losses.entries.into_iter().map(|(_, loss)| loss).collect()
}

/// Node, shard and copies of each entry, none of which has a queue.
fn listed(store: &Store) -> Vec<(u64, Option<u64>, u64)> {
    let listed = entries(store).into_iter().map(|loss| {
        assert_eq!((loss.reason, loss.place), (LossReason::NotStored, None));
        assert_eq!(loss.amount, copies(loss.amount.hints));
        (loss.node.0, loss.shard.map(|it| it.0), loss.amount.hints)
    });
    listed.collect()
}

fn until_serving(store: &Store) {
    while !matches!(store.health(), Health::Serving) {
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn copies_are_recorded_by_shard_and_survive_a_restart_and_make_no_node_known() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, NODE, "a hint");
    for (node, shard) in [(NODE, 1), (OTHER, 2), (OTHER, 2), (OTHER, 3)] {
        note(&store, node, shard).unwrap();
    }
    let expected = [(NODE, Some(1), 1), (OTHER, Some(2), 2), (OTHER, Some(3), 1)];
    assert_eq!(listed(&store), expected);
    assert_eq!(store.losses(0).unwrap().total(), copies(4));
    let counted = [(NodeId(NODE), copies(1)), (NodeId(OTHER), copies(3))];
    assert_eq!(store.not_stored(), counted.into());
    // Neither pending nor lost hints, and no node that can be renamed, removed or parked.
    let (_, known) = store.nodes().remove(0);
    assert_eq!((known.lost, known.pending().hints), (Amount::default(), 1));
    assert_eq!(store.nodes().len(), 1);
    assert!(!store.knows(NodeId(OTHER)));
    let removed = told(|done| store.remove_node(NodeId(OTHER), done));
    assert!(matches!(removed, Err(HandoffError::UnknownNode { .. })));
    store.close().unwrap();
    let store = open(dir.path());
    assert_eq!(listed(&store), expected);
    assert_eq!((store.not_stored().len(), store.nodes().len()), (0, 1));
    assert_eq!(store.stats().damage, []);
    store.close().unwrap();
}

#[test]
fn a_full_disk_does_not_keep_a_record_out() {
    let dir = tempfile::tempdir().unwrap();
    let short = Config {
        min_free_disk: u64::MAX / 2,
        ..config(dir.path())
    };
    let store = Store::open(&short, Box::new(|_| {})).unwrap();
    assert!(try_append(&store, NODE, vec![hint(1, "refused")])[0].is_err());
    note(&store, NODE, 1).unwrap();
    assert_eq!(listed(&store), [(NODE, Some(1), 1)]);
    store.close().unwrap();
}

#[test]
fn while_the_store_fails_copies_are_summed_up_and_recorded_when_it_serves_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    note(&store, NODE, 1).unwrap();
    store.inject(CommitFault::Fail);
    // Of the group that fails: its outcome is unknown, and it is not forgotten.
    let unknown = noted(&store, OTHER, 1);
    while matches!(store.health(), Health::Serving) {
        std::thread::sleep(Duration::from_millis(2));
    }
    let waiting: Vec<_> = (0..100)
        .map(|shard| noted(&store, NODE, shard % 2))
        .collect();
    assert!(unknown.try_recv().is_err());
    assert!(waiting.iter().all(|told| told.try_recv().is_err()));
    assert_eq!(store.not_stored()[&NodeId(NODE)], copies(101));
    store.inject(CommitFault::None);
    heard(&unknown).unwrap();
    waiting.iter().for_each(|told| heard(told).unwrap());
    until_serving(&store);
    // Counted since open, over the failure.
    assert_eq!(store.not_stored()[&NodeId(NODE)], copies(101));
    let told = listed(&store);
    let of = |node: u64| -> u64 {
        let of_node = told.iter().filter(|it| it.0 == node);
        of_node.map(|it| it.2).sum()
    };
    assert_eq!(of(NODE), 101);
    assert!((1..=2).contains(&of(OTHER)), "{told:?}");
    store.close().unwrap();
}

#[test]
fn what_is_noted_before_a_shutdown_is_recorded_by_it_and_what_comes_later_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.inject(CommitFault::Hang);
    append_without_waiting(&store);
    let waiting = noted(&store, OTHER, 1);
    store.inject(CommitFault::None);
    store.close().unwrap();
    heard(&waiting).unwrap();
    assert!(matches!(
        heard(&noted(&store, OTHER, 1)),
        Err(HandoffError::ShutDown)
    ));
    let store = open(dir.path());
    assert_eq!(listed(&store), [(OTHER, Some(1), 1)]);
    store.close().unwrap();
}

fn append_without_waiting(store: &Store) {
    store.append(NodeId(NODE), hint(1, "a hint"), Box::new(drop));
}

#[test]
fn a_store_that_is_closed_while_it_fails_and_one_that_is_done_for_say_that_nothing_is_recorded() {
    for fault in [CommitFault::Fail, CommitFault::Panic] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        store.inject(fault);
        let waiting = noted(&store, OTHER, 1);
        while matches!(store.health(), Health::Serving) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let later = noted(&store, OTHER, 1);
        // The failure is the reason, whoever noted it when.
        assert!(store.close().is_err());
        for told in [waiting, later, noted(&store, OTHER, 1)] {
            let why = heard(&told);
            assert!(matches!(why, Err(HandoffError::Storage(_))), "{why:?}");
        }
        assert_eq!(store.not_stored()[&NodeId(OTHER)], copies(3));
    }
}

#[tokio::test]
async fn a_shared_database_that_failed_records_no_more_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let host = hosting::Host::open(&dir.path().join("db")).await;
    let store = host.handoff.store_below();
    note(&store, OTHER, 1).unwrap();
    host.handoff.inject(CommitFault::Fail);
    let waiting = noted(&store, OTHER, 1);
    assert!(matches!(heard(&waiting), Err(HandoffError::Storage(_))));
    assert!(matches!(host.handoff.health(), Health::ReopenRequired(_)));
    host.handoff.inject(CommitFault::None);
    let late = heard(&noted(&store, OTHER, 1));
    assert!(matches!(late, Err(HandoffError::Storage(_))));
    drop(store);
    assert!(host.handoff.shutdown().await.is_err());
}

#[test]
fn very_many_shards_are_recorded_in_several_groups_and_none_is_missing() {
    const SHARDS: u64 = 6000;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.inject(CommitFault::Hang);
    append_without_waiting(&store);
    let waiting: Vec<_> = (0..SHARDS)
        .map(|shard| noted(&store, shard % 3, shard))
        .collect();
    store.inject(CommitFault::None);
    waiting.iter().for_each(|told| heard(told).unwrap());
    let told = listed(&store);
    assert_eq!(told.iter().map(|it| it.2).sum::<u64>(), SHARDS);
    // A sync that comes behind a note has it recorded.
    let last = noted(&store, OTHER, 1);
    sync(&store);
    assert!(last.try_recv().unwrap().is_ok());
    store.close().unwrap();
}

/// What a barrier says of losses, and what it leaves.
fn lost(store: &Store, made: &hinted_handoff::Barrier) -> (BarrierLosses, u64) {
    match store.look_at(made).unwrap() {
        BarrierState::Lost {
            losses, pending, ..
        } => (losses, pending.hints),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_barrier_that_was_made_before_tells_of_copies_for_its_nodes_and_one_made_after_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, NODE, "waits");
    // One that was never hinted may be named.
    let of_unknown = barrier(&store, &[OTHER]).unwrap();
    assert_eq!(store.look_at(&of_unknown).unwrap(), BarrierState::Delivered);
    note(&store, OTHER, 1).unwrap();
    let made = barrier(&store, &[NODE]).unwrap();
    assert_eq!(lost(&store, &of_unknown).0.not_stored, copies(1));
    // One that has only such copies may be named, too.
    let of_other = barrier(&store, &[OTHER]).unwrap();
    assert_eq!(
        (of_other.queues.len(), &of_other.nodes[..]),
        (0, &[NodeId(OTHER)][..])
    );
    assert_eq!(store.look_at(&of_other).unwrap(), BarrierState::Delivered);
    note(&store, OTHER, 1).unwrap();
    let is_waiting = store.look_at(&made).unwrap();
    assert!(matches!(is_waiting, BarrierState::Waiting { .. }));
    let (losses, _) = lost(&store, &of_other);
    assert_eq!((losses.entries.len(), losses.not_stored), (1, copies(1)));

    note(&store, NODE, 1).unwrap();
    note(&store, NODE, 2).unwrap();
    let (losses, pending) = lost(&store, &made);
    assert_eq!((losses.not_stored, losses.unknown), (copies(2), false));
    assert_eq!((losses.entries.len(), pending), (2, 1));
    assert!(losses.entries.iter().all(|(_, it)| it.place.is_none()));
    let later = barrier(&store, &[NODE, OTHER]).unwrap();
    deliver(&store, NODE, &hints(&store, NODE)[0]);
    sync(&store);
    assert_eq!(store.look_at(&later).unwrap(), BarrierState::Delivered);
    store.close().unwrap();

    let store = open(dir.path());
    assert_eq!(lost(&store, &made).0.not_stored, copies(2));
    assert_eq!(store.look_at(&later).unwrap(), BarrierState::Delivered);
    let mut old = made.clone();
    old.version = 2;
    let refused = store.look_at(&old);
    assert!(matches!(
        refused,
        Err(HandoffError::BarrierVersion { found: 2, .. })
    ));
    store.close().unwrap();
}

#[test]
fn a_barrier_tells_of_copies_of_which_the_journal_has_no_entries_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, NODE, "waits");
    let made = barrier(&store, &[NODE]).unwrap();
    note(&store, NODE, 1).unwrap();
    // As many others as the journal keeps, in entries of their own.
    let mut waiting = Vec::new();
    for first in (0..10_500).step_by(1500) {
        waiting.extend((first..first + 1500).map(|shard| noted(&store, OTHER, shard)));
        sync(&store);
    }
    waiting.iter().for_each(|told| heard(told).unwrap());
    let journal = store.losses(0).unwrap();
    let folded = &journal.not_stored;
    assert!(folded.iter().any(|it| it.node.0 == NODE), "{folded:?}");
    assert_eq!((&journal.folded[..], journal.forgotten), (&[][..], None));
    assert_eq!(journal.total(), copies(10_501));
    let (losses, _) = lost(&store, &made);
    assert_eq!((losses.entries.len(), losses.not_stored), (0, copies(1)));
    store.close().unwrap();
}

#[tokio::test]
async fn the_statistics_list_the_node_and_events_tell_of_it_at_once_and_again_when_it_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let host = hosting::Host::open(&dir.path().join("db")).await;
    let mut events = host.handoff.events();
    let store = host.handoff.store_below();
    host.handoff.inject(CommitFault::Hang);
    let waiting = noted(&store, OTHER, 4);
    let told = events.try_recv().unwrap();
    let Event::NotStored {
        node: NodeId(OTHER),
        shard: ShardId(4),
        copies: told,
        ..
    } = told
    else {
        panic!("{told:?}");
    };
    assert_eq!(told, copies(1));
    host.handoff.disk_works_again();
    heard(&waiting).unwrap();
    let Event::Lost(loss) = events.recv().await.unwrap() else {
        panic!("it was recorded");
    };
    assert_eq!((loss.node.0, loss.place), (OTHER, None));
    let stats = host.handoff.stats();
    let [node] = &stats.nodes[..] else {
        panic!("{stats:?}");
    };
    assert_eq!((node.node.0, node.not_stored), (OTHER, copies(1)));
    assert_eq!((node.lost, node.enqueued), Default::default());
    let losses = host.handoff.losses(0).await.unwrap();
    assert_eq!(losses.by_reason[&LossReason::NotStored], copies(1));
    assert_eq!(losses.of_node(NodeId(OTHER)).entries.len(), 1);
    drop(store);
    host.close().await;
}
