//! Many dead letters, and several who want them at the same time.

use std::{sync::mpsc, time::Duration};

use bytes::Bytes;
use hinted_handoff::{Amount, HintId, HintedHandoff, StoreStats, internals::CommitFault};
use tempfile::TempDir;

use super::{NODE, host::manual, make_all_dead_letters};
use crate::common::{
    hint, hints,
    letters::{as_new, cause, letters},
    try_append,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_who_send_on_and_discard_all_at_once_each_is_told_what_it_did() {
    const LETTERS: u64 = 300;
    let dir = tempfile::tempdir().unwrap();
    let handoff = manual(dir.path()).await;
    let store = handoff.store_below();
    let burst = (0..LETTERS).map(|number| hint(number % 3, format!("hint {number}")));
    let appended = try_append(&store, 7, burst.collect());
    let ids: Vec<HintId> = appended.into_iter().map(Result::unwrap).collect();
    make_all_dead_letters(&store);
    let there = handoff.stats().nodes[0].dead_letters;
    let redrives: Vec<_> = (0..3)
        .map(|_| {
            let handoff = handoff.clone();
            tokio::spawn(async move { handoff.redrive_all(NODE).await })
        })
        .collect();
    // From behind, so that they meet in the middle; some of these are asked for twice.
    let from_behind = ids.rchunks(30).chain(ids.rchunks(50).take(3));
    let discards = from_behind.map(|ids| {
        let (handoff, ids) = (handoff.clone(), ids.to_vec());
        tokio::spawn(async move { handoff.discard(NODE, &ids).await })
    });
    let discards: Vec<_> = discards.collect();
    let mut sent_on = Vec::new();
    for redrive in redrives {
        let done = redrive.await.unwrap().unwrap();
        assert_eq!(done.damaged, []);
        assert!(done.hints.is_sorted());
        sent_on.extend(done.hints);
    }
    let mut discarded = Amount::default();
    for discard in discards {
        let left = discard.await.unwrap().unwrap();
        discarded.hints += left.hints;
        discarded.bytes += left.bytes;
    }
    assert_eq!(handoff.dead_letters(NODE, None, 9).await.unwrap(), []);
    assert_eq!(handoff.losses(0).await.unwrap().total(), discarded);
    let node = handoff.stats().nodes.remove(0);
    assert_eq!(node.dead_letters, Amount::default());
    assert_eq!(node.pending.hints + discarded.hints, there.hints);
    assert_eq!(node.pending.bytes + discarded.bytes, there.bytes);
    // Each of the rest waits once, under the id that one of them was told.
    sent_on.sort_by_key(|(_, now)| *now);
    let waits = hints(&store, 7).into_iter().map(|it| {
        let (queue, sequence) = it.hint.origin.unwrap();
        let id = |queue, sequence| HintId {
            store: store.id(),
            queue,
            sequence,
        };
        let now = id(it.mark.queue.queue, it.mark.sequence);
        (id(queue, sequence), now)
    });
    assert_eq!(waits.collect::<Vec<_>>(), sent_on);
    println!(
        "dead_letters: {} sent on, {} discarded",
        sent_on.len(),
        discarded.hints
    );
    handoff.shutdown().await.unwrap();
}

const LONG_LETTERS: usize = 500;

/// A store with dead letters of 4 KiB each.
async fn with_long_letters() -> (TempDir, HintedHandoff<Bytes>) {
    let dir = tempfile::tempdir().unwrap();
    let handoff = manual(dir.path()).await;
    let store = handoff.store_below();
    let burst = (0..LONG_LETTERS).map(|number| hint(1, format!("hint {number}")));
    let appended = try_append(&store, 7, burst.collect());
    assert!(appended.iter().all(Result::is_ok));
    let mut pending = hints(&store, 7);
    store.claim(NODE, &mut pending);
    let long = "as large as it may be ".repeat(200);
    let (tell, told) = mpsc::channel();
    for hint in pending {
        let tell = tell.clone();
        let done = move |dead_lettered: Result<(), _>| tell.send(dead_lettered).unwrap();
        store.make_dead_letter(NODE, hint, cause(&long), done);
    }
    (0..LONG_LETTERS).for_each(|_| told.recv().unwrap().unwrap());
    let are_long = letters(&store, 7)
        .iter()
        .all(|(_, it)| it.cause.error.len() == 4096);
    assert!(are_long);
    handoff.sync().await.unwrap();
    (dir, handoff)
}

/// What is handed over between two fsyncs is bounded (docs/sled.md rule 2), and what goes costs the
/// log as much as what comes.
fn check_groups(before: &StoreStats, after: &StoreStats, groups_min: u64) {
    let groups = after.groups - before.groups;
    assert!(groups >= groups_min, "{groups} groups");
    let bytes = after.engine_bytes - before.engine_bytes;
    assert!(bytes > LONG_LETTERS as u64 * 4096, "{bytes} bytes");
}

#[tokio::test]
async fn many_that_are_discarded_go_in_groups_of_a_hundred_whoever_discards_them() {
    for callers in [1, 5] {
        let (_dir, handoff) = with_long_letters().await;
        let ids = handoff
            .dead_letters(NODE, None, LONG_LETTERS)
            .await
            .unwrap();
        let ids: Vec<_> = ids.into_iter().map(|letter| letter.id).collect();
        let before = handoff.stats().store;
        // They gather while the first of them is held up.
        handoff.inject(CommitFault::Hang);
        let discards = ids.chunks(LONG_LETTERS / callers).map(|ids| {
            let (handoff, ids) = (handoff.clone(), ids.to_vec());
            tokio::spawn(async move { handoff.discard(NODE, &ids).await })
        });
        let discards: Vec<_> = discards.collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        handoff.disk_works_again();
        let mut left = 0;
        for discard in discards {
            left += discard.await.unwrap().unwrap().hints;
        }
        assert_eq!(left, LONG_LETTERS as u64);
        check_groups(&before, &handoff.stats().store, 5);
        handoff.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn many_that_are_sent_on_at_once_go_in_several_groups() {
    let (_dir, handoff) = with_long_letters().await;
    let store = handoff.store_below();
    let places = letters(&store, 7).into_iter();
    let sent_on = places.map(|(place, _)| (place, as_new(&store, 7, place)));
    let sent_on: Vec<_> = sent_on.collect();
    let before = handoff.stats().store;
    handoff.inject(CommitFault::Hang);
    let (tell, told) = mpsc::channel();
    for (place, hint) in sent_on {
        let tell = tell.clone();
        let done = move |now: Result<Option<HintId>, _>| tell.send(now).unwrap();
        store.redrive(NODE, place, hint, done);
    }
    handoff.disk_works_again();
    for _ in 0..LONG_LETTERS {
        assert!(told.recv().unwrap().unwrap().is_some());
    }
    check_groups(&before, &handoff.stats().store, 3);
    handoff.shutdown().await.unwrap();
}
