//! Held hints and a consumer, which takes the hints of its node in order: it sees nothing at or
//! behind the first that is held.

use std::time::Duration;

use bytes::Bytes;
use hinted_handoff::{Consumer, ShardId, internals::Held};
use tokio::time::{sleep, timeout};

use super::{Host, MANUAL, points};

const PATIENCE: Duration = Duration::from_secs(20);

async fn hold(host: &Host, points: &'static str) -> Held {
    let points = Bytes::from_static(points.as_bytes());
    // The consumer waits for any shard.
    let held = host.handoff.append_held(MANUAL, ShardId(99), &points);
    let (held, told) = held.unwrap();
    told.await.unwrap().unwrap();
    held
}

async fn seen(consumer: &mut Consumer<Bytes>) -> Vec<String> {
    points(&consumer.peek(9).await.unwrap())
}

#[tokio::test]
async fn a_consumer_sees_nothing_from_a_held_hint_on_and_waits_until_that_is_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    let mut consumer = host.handoff.consumer(MANUAL).unwrap();
    host.hint(MANUAL, "a").await;
    let held = hold(&host, "held").await;
    host.hint(MANUAL, "b").await;
    consumer.ready().await.unwrap();
    assert_eq!(seen(&mut consumer).await, ["a"]);
    let hints = consumer.peek(9).await.unwrap();
    consumer.ack(&hints).await.unwrap();
    assert!(seen(&mut consumer).await.is_empty());
    // With every bell that rings meanwhile it looks again, and waits on.
    host.hint(MANUAL, "c").await;
    let mut ready = Box::pin(consumer.ready());
    assert!(
        timeout(Duration::from_millis(50), &mut ready)
            .await
            .is_err()
    );
    assert_eq!(held.deliver().unwrap().hints, 1);
    timeout(PATIENCE, ready).await.unwrap().unwrap();
    assert_eq!(seen(&mut consumer).await, ["b", "c"]);
    drop(consumer);
    host.close().await;
}

#[tokio::test]
async fn a_consumer_that_waits_for_a_held_hint_is_woken_however_the_hold_ends() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    let mut consumer = host.handoff.consumer(MANUAL).unwrap();
    let held = hold(&host, "held").await;
    let waiting = async { timeout(PATIENCE, consumer.ready()).await.unwrap().unwrap() };
    let letting_go = async {
        sleep(Duration::from_millis(20)).await;
        drop(held);
    };
    tokio::join!(waiting, letting_go);
    assert_eq!(seen(&mut consumer).await, ["held"]);
    let hints = consumer.peek(9).await.unwrap();
    consumer.ack(&hints).await.unwrap();

    let held = hold(&host, "held").await;
    host.hint(MANUAL, "behind").await;
    let waiting = async { timeout(PATIENCE, consumer.ready()).await.unwrap().unwrap() };
    let withdrawing = async {
        sleep(Duration::from_millis(20)).await;
        held.withdraw().unwrap();
    };
    tokio::join!(waiting, withdrawing);
    assert_eq!(seen(&mut consumer).await, ["behind"]);
    drop(consumer);
    host.close().await;
}

/// What was peeked at is in front of it, and an acknowledgement lets no more leave than that.
#[tokio::test]
async fn no_acknowledgement_in_a_transaction_covers_a_held_hint() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    let mut consumer = host.handoff.consumer(MANUAL).unwrap();
    host.hint(MANUAL, "a").await;
    host.hint(MANUAL, "b").await;
    let before = consumer.peek(9).await.unwrap();
    let held = hold(&host, "held").await;
    host.hint(MANUAL, "c").await;
    let after = consumer.peek(9).await.unwrap();
    assert_eq!(points(&before), points(&after));
    let acked = host.handoff.transaction(&[&host.rows], |rows, hints| {
        rows[0].insert("taken", "a and b")?;
        hints.ack(&after)?;
        Ok(())
    });
    acked.await.unwrap();
    assert_eq!(host.pending(MANUAL), 2);
    drop(held);
    let rest = consumer.peek(9).await.unwrap();
    assert_eq!(points(&rest), ["held", "c"]);
    consumer.ack(&rest).await.unwrap();
    assert_eq!(host.pending(MANUAL), 0);
    drop(consumer);
    host.close().await;
}
