//! Many dead letters, and several who want them at the same time.

use std::time::Duration;

use hinted_handoff::{Amount, HintId, testkit::CommitFault};

use super::{
    NODE, bury_all,
    common::{hint, hints, try_append},
    host::manual,
    letters::{burial, letters},
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
    bury_all(&store);
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

/// What is handed over between two fsyncs is bounded (SLED.md rule 2), and what goes costs the log as much as what comes.
#[tokio::test]
async fn many_that_go_at_once_go_in_several_groups_whoever_has_them_go() {
    const LETTERS: usize = 500;
    // Discarded in steps of 100, or sent on, each of 4 KiB.
    for (callers, is_sent_on, groups_min) in [(1, false, 5), (5, false, 5), (LETTERS, true, 3)] {
        let dir = tempfile::tempdir().unwrap();
        let handoff = manual(dir.path()).await;
        let store = handoff.store_below();
        let burst = (0..LETTERS).map(|number| hint(1, format!("hint {number}")));
        let appended = try_append(&store, 7, burst.collect());
        let ids: Vec<HintId> = appended.into_iter().map(Result::unwrap).collect();
        let mut pending = hints(&store, 7);
        store.claim(NODE, &mut pending);
        let (tell, told) = std::sync::mpsc::channel();
        for hint in pending {
            let tell = tell.clone();
            let done = move |buried: Result<(), _>| tell.send(buried).unwrap();
            store.bury(
                NODE,
                hint,
                burial(&"as large as it may be ".repeat(200)),
                done,
            );
        }
        (0..LETTERS).for_each(|_| told.recv().unwrap().unwrap());
        assert!(
            letters(&store, 7)
                .iter()
                .all(|(_, it)| it.burial.error.len() == 4096)
        );
        handoff.sync().await.unwrap();
        let before = handoff.stats().store;
        // They gather while the first of them is held up.
        handoff.inject(CommitFault::Hang);
        let going = ids.chunks(LETTERS / callers).map(|ids| {
            let (handoff, ids) = (handoff.clone(), ids.to_vec());
            tokio::spawn(async move {
                match is_sent_on {
                    true => handoff.redrive(NODE, ids[0]).await.map(|_| 1),
                    false => handoff.discard(NODE, &ids).await.map(|left| left.hints),
                }
            })
        });
        let going: Vec<_> = going.collect();
        tokio::time::sleep(Duration::from_millis(200)).await;
        handoff.heal_disk();
        let mut gone = 0;
        for caller in going {
            gone += caller.await.unwrap().unwrap();
        }
        let after = handoff.stats().store;
        let groups = after.groups - before.groups;
        let bytes = after.engine_bytes - before.engine_bytes;
        assert_eq!(gone, LETTERS as u64);
        assert!(groups >= groups_min, "{groups} groups, {callers} callers");
        assert!(bytes > LETTERS as u64 * 4096, "{bytes} bytes");
        handoff.shutdown().await.unwrap();
    }
}
