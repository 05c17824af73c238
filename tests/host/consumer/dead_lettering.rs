//! Making the next hint a dead letter by hand.

use hinted_handoff::{Consumer, DeadReason, HandoffError, HintId, HintedHandoff, Sequence};

use super::*;
use crate::common::copy::copy_files;

const UNDECODABLE: DeadReason = DeadReason::Undecodable;

/// What is not a number does not decode: of this node all that comes first.
async fn numbers(path: &std::path::Path) -> (HintedHandoff<Number>, hinted_handoff::sled::Db) {
    let db = hosting::open_db(path);
    let handoff = HintedHandoff::open_in(&db, config(path), Number(0)).await;
    (handoff.unwrap(), db)
}

async fn undecodable(consumer: &mut Consumer<Number>) -> HintId {
    match consumer.peek(10).await {
        Err(HandoffError::Undecodable { hint, .. }) => hint,
        other => panic!("{other:?}"),
    }
}

fn is_not_next(result: Result<(), HandoffError>, id: HintId) -> bool {
    matches!(result, Err(HandoffError::NotNext { node: MANUAL, hint, .. }) if hint == id)
}

#[tokio::test]
async fn a_next_hint_that_does_not_decode_is_made_a_dead_letter_and_what_is_behind_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (path, killed) = (dir.path().join("db"), dir.path().join("killed"));
    let host = Host::open(&path).await;
    drop(queue(&host, &["one", "two", "3", "four"]).await);
    host.close().await;
    let (handoff, db) = numbers(&path).await;
    let mut consumer = handoff.consumer(MANUAL).unwrap();
    for sequence in 1..=2 {
        let head = undecodable(&mut consumer).await;
        assert_eq!(head.sequence.0, sequence);
        consumer
            .make_dead_letter(head, UNDECODABLE, "no number")
            .await
            .unwrap();
    }
    // Once only, and nothing else.
    let first = HintId {
        sequence: Sequence(1),
        ..undecodable_or_first(&mut consumer).await
    };
    let again = consumer.make_dead_letter(first, UNDECODABLE, "again").await;
    assert!(is_not_next(again, first));
    let hints = consumer.peek(10).await.unwrap();
    assert_eq!(hints[0].points.0, 3);
    // As a kill leaves it: it was durable when it was answered.
    copy_files(&path, &killed);
    consumer.ack(&hints).await.unwrap();
    undecodable(&mut consumer).await;
    let node = &handoff.stats().nodes[0];
    assert_eq!((node.dead_lettered.hints, node.dead_letters.hints), (2, 2));
    assert_eq!((node.pending.hints, node.lost.hints), (1, 0));
    drop(consumer);
    handoff.shutdown().await.unwrap();
    drop((handoff, db));

    let host = Host::open(&killed).await;
    assert_eq!(host.waiting().await, ["3", "four"]);
    let letters = host.handoff.dead_letters(MANUAL, None, 10).await.unwrap();
    let told: Vec<_> = letters.iter().map(|it| it.id.sequence.0).collect();
    assert_eq!(told, [1, 2]);
    assert_eq!(letters[0].reason, UNDECODABLE);
    assert_eq!(letters[0].error, "no number");
    assert_eq!(letters[0].attempts, 0);
    // A host that reads them sends them on, behind the others.
    for letter in &letters {
        host.handoff.redrive(MANUAL, letter.id).await.unwrap();
    }
    let mut consumer = host.handoff.consumer(MANUAL).unwrap();
    for expected in [["3", "four"], ["one", "two"]] {
        let hints = consumer.peek(10).await.unwrap();
        assert_eq!(points(&hints), expected);
        consumer.ack(&hints).await.unwrap();
    }
    drop(consumer);
    host.close().await;
}

/// The id of what a peek sees first, whether it decodes or not.
async fn undecodable_or_first(consumer: &mut Consumer<Number>) -> HintId {
    match consumer.peek(1).await {
        Ok(hints) => hints[0].id,
        Err(HandoffError::Undecodable { hint, .. }) => hint,
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_the_next_hint_can_be_dead_lettered_and_one_that_decodes_can_be_too() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    let mut consumer = queue(&host, &["a", "b", "c"]).await;
    let hints = consumer.peek(10).await.unwrap();
    let rejected = DeadReason::Rejected;
    let second = consumer
        .make_dead_letter(hints[1].id, rejected, "not its turn")
        .await;
    assert!(is_not_next(second, hints[1].id));
    assert_eq!(points(&consumer.peek(10).await.unwrap()), ["a", "b", "c"]);
    consumer
        .make_dead_letter(hints[0].id, rejected, "no such account")
        .await
        .unwrap();
    // What was peeked at before is acknowledged from there on.
    assert!(matches!(
        consumer.ack(&hints).await,
        Err(TransactionError::NotNext { .. })
    ));
    consumer.ack(&hints[1..]).await.unwrap();
    let gone = consumer
        .make_dead_letter(hints[2].id, rejected, "it is gone")
        .await;
    assert!(is_not_next(gone, hints[2].id));
    assert_eq!(host.pending(MANUAL), 0);
    drop(consumer);
    host.close().await;
}

/// It comes into effect once, as a dead letter or as acknowledged.
#[tokio::test]
async fn dead_lettering_and_an_acknowledgement_of_the_same_hint_do_not_both_succeed() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    for number in 0..40_u64 {
        host.hint(MANUAL, "contended").await;
        let mut consumer = host.handoff.consumer(MANUAL).unwrap();
        let hints = consumer.peek(1).await.unwrap();
        let acking = host.handoff.transaction(&[&host.rows], |_, all| {
            all.ack(&hints)?;
            Ok(())
        });
        let dead_lettering =
            consumer.make_dead_letter(hints[0].id, DeadReason::Rejected, "contended");
        let (acked, dead_lettered) = match number % 2 {
            0 => tokio::join!(acking, dead_lettering),
            _ => {
                let (dead_lettered, acked) = tokio::join!(dead_lettering, acking);
                (acked, dead_lettered)
            }
        };
        assert!(
            acked.is_ok() != dead_lettered.is_ok(),
            "{acked:?}, {dead_lettered:?}"
        );
        if dead_lettered.is_err() {
            assert!(is_not_next(dead_lettered, hints[0].id));
        }
        assert_eq!(host.pending(MANUAL), 0);
    }
    let node = host.handoff.stats().nodes.remove(0);
    assert_eq!(node.delivered.hints + node.dead_lettered.hints, 40);
    host.close().await;
}

#[tokio::test]
async fn a_hint_that_is_held_is_not_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    let mut consumer = host.handoff.consumer(MANUAL).unwrap();
    let held = host
        .handoff
        .append_held(MANUAL, SHARD, &Bytes::from_static(b"held"));
    let (held, told) = held.unwrap();
    let id = told.await.unwrap().unwrap();
    let refused = consumer
        .make_dead_letter(id, DeadReason::Rejected, "too early")
        .await;
    assert!(is_not_next(refused, id));
    drop(held);
    consumer
        .make_dead_letter(id, DeadReason::Rejected, "in time")
        .await
        .unwrap();
    drop(consumer);
    host.close().await;
}

/// It is not claimed for ever: after a reopen the next call finds it.
#[tokio::test]
async fn dead_lettering_that_the_store_fails_can_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir.path().join("own"));
    let handoff = Handoff::open(config, ScriptedWriter::down()).await.unwrap();
    let points = Bytes::from_static(b"poison");
    handoff.write_shard(MANUAL, SHARD, &points).await.unwrap();
    let mut consumer = handoff.consumer(MANUAL).unwrap();
    let hints = consumer.peek(1).await.unwrap();
    handoff.inject(CommitFault::Fail);
    let failed = consumer
        .make_dead_letter(hints[0].id, UNDECODABLE, "first")
        .await;
    assert!(
        matches!(failed, Err(HandoffError::Storage(_))),
        "{failed:?}"
    );
    handoff.disk_works_again();
    while !matches!(handoff.health(), hinted_handoff::Health::Serving) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What was handed over may have been stored.
    match consumer
        .make_dead_letter(hints[0].id, UNDECODABLE, "second")
        .await
    {
        Ok(()) => {}
        other => assert!(is_not_next(other, hints[0].id)),
    }
    assert_eq!(handoff.stats().nodes[0].dead_letters.hints, 1);
    assert!(consumer.peek(1).await.unwrap().is_empty());
    drop(consumer);
    handoff.shutdown().await.unwrap();
}
