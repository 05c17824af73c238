//! `WhenFull::DropOldest`: what goes, and that it is no more than needed.

use super::*;
use crate::common;

#[tokio::test(start_paused = true)]
async fn dropping_the_oldest_keeps_the_newest_in_order_and_drops_no_more_than_needed() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_hints_per_node: Some(5),
        when_full: WhenFull::DropOldest,
        ..config(dir.path())
    };
    let handoff = open(limited).await;
    fill(&handoff, OTHER, 0..1).await;
    fill(&handoff, MANUAL, 0..12).await;
    assert_eq!(waiting(&handoff, MANUAL).await, texts(7..12));
    assert_eq!(waiting(&handoff, OTHER).await, texts(0..1));
    let stats = handoff.stats();
    let node = &stats.nodes[0];
    assert_eq!(
        (node.dropped.hints, node.lost.hints, node.expired.hints),
        (7, 7, 0)
    );
    assert_eq!(node.dropped.bytes, 28);
    assert_eq!((node.refused, stats.store.pending.hints), (0, 6));
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn bytes_make_room_for_bytes() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_bytes_per_node: Some(20),
        when_full: WhenFull::DropOldest,
        ..config(dir.path())
    };
    let handoff = open(limited).await;
    fill(&handoff, MANUAL, 0..5).await;
    let large = Bytes::from(vec![7; 10]);
    handoff.write_shard(MANUAL, SHARD, &large).await.unwrap();
    // 3 and 4 take 8 bytes: 2 are left over, since 4 at a time leave.
    assert_eq!(waiting(&handoff, MANUAL).await, [text(3), text(4), large]);
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_store_drops_from_the_node_with_the_oldest_hint() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_hints: Some(4),
        when_full: WhenFull::DropOldest,
        ..config(dir.path())
    };
    let clock = hinted_handoff::internals::WallClock::new(1_700_000_000_000);
    let handoff = Handoff::open_by_clock(limited, clock, ScriptedWriter::down())
        .await
        .unwrap();
    for (number, node) in [OTHER, MANUAL, OTHER, MANUAL].into_iter().enumerate() {
        fill(&handoff, node, number..number + 1).await;
        pass(Duration::from_secs(1)).await;
    }
    fill(&handoff, MANUAL, 4..6).await;
    assert_eq!(waiting(&handoff, MANUAL).await, texts([3, 4, 5]));
    assert_eq!(waiting(&handoff, OTHER).await, texts([2]));
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_hint_in_flight_is_never_taken_to_make_room() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_hints_per_node: Some(3),
        when_full: WhenFull::DropOldest,
        ..config(dir.path())
    };
    let handoff = open(limited).await;
    fill(&handoff, MANUAL, 0..3).await;
    claim(&handoff, MANUAL, 2);
    fill(&handoff, MANUAL, 3..5).await;
    assert_eq!(waiting(&handoff, MANUAL).await, texts([0, 1, 4]));
    claim_all_but(&handoff, MANUAL);
    let full = write(&handoff, MANUAL, 5).await.unwrap_err();
    assert_eq!(limit_of(&full), Limit::NodeHints);
    assert_eq!(waiting(&handoff, MANUAL).await, texts([0, 1, 4]));
    handoff.shutdown().await.unwrap();
}

/// Claims whatever is not claimed.
fn claim_all_but(handoff: &Handoff, node: NodeId) {
    let store = handoff.store_below();
    let peeked = store.peek(&mut Reader::default(), node, common::EVERYTHING);
    let Peek::Hints(mut hints) = peeked.unwrap() else {
        panic!("there is nothing to claim");
    };
    store.claim(node, &mut hints);
    assert_eq!(hints.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_who_drop_at_once_drop_no_more_than_all_of_them_need() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let handoff = open(config(dir.path())).await;
    fill(&handoff, MANUAL, 0..300).await;
    handoff.shutdown().await.unwrap();
    // A limit far below what is there.
    let limited = Config {
        max_hints: Some(100),
        when_full: WhenFull::DropOldest,
        ..config(dir.path())
    };
    let handoff = open(limited).await;
    let writes: Vec<_> = (300..340)
        .map(|number| {
            let handoff = handoff.clone();
            tokio::spawn(async move { write(&handoff, MANUAL, number).await })
        })
        .collect();
    for write in writes {
        until("it came in", || write.is_finished()).await;
        write.await.unwrap().unwrap();
    }
    let node = &handoff.stats().nodes[0];
    assert_eq!((node.pending.hints, node.dropped.hints), (100, 240));
    let left = waiting(&handoff, MANUAL).await;
    assert_eq!(left[..60], texts(240..300));
    handoff.shutdown().await.unwrap();
}
