//! An acknowledgement in the middle of a block is kept, also over a restart, and a block is trimmed
//! only when all of it is done.

use crate::common::*;
use hinted_handoff::{Amount, NodeId, Sequence, internals::Leave};

const NODE: u64 = 7;

#[test]
fn what_is_acknowledged_in_the_middle_of_a_block_stays_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    // While the first hint is being committed the others gather, and become one block.
    let burst = (1..=20)
        .map(|number| hint(1, format!("hint-{number:02}")))
        .collect();
    try_append(&store, NODE, burst)
        .into_iter()
        .for_each(|result| {
            result.unwrap();
        });
    store.close().unwrap();
    let blocks = behind_its_back(dir.path(), |db| {
        chunk_keys(&db.open_tree("hh/hints").unwrap(), NODE).len()
    });
    assert!(
        blocks < 10,
        "20 hints in {blocks} blocks: the middle of a block must be met"
    );

    let store = open(dir.path());
    let peeked = hints(&store, NODE);
    let seventh = peeked[6].mark;
    assert_eq!(seventh.sequence, Sequence(7));
    let left = store.ack(NodeId(NODE), seventh, Leave::Delivered).unwrap();
    assert_eq!(
        left,
        Amount {
            hints: 7,
            bytes: 49
        }
    );
    assert_eq!(payloads(&store, NODE)[0], "hint-08");
    store.close().unwrap();

    let store = open(dir.path());
    assert_eq!(payloads(&store, NODE).len(), 13);
    assert_eq!(payloads(&store, NODE)[0], "hint-08");
    let (_, queues) = store.nodes().remove(0);
    assert_eq!(
        queues.pending(),
        Amount {
            hints: 13,
            bytes: 91
        }
    );

    let last = hints(&store, NODE).pop().unwrap().mark;
    store.ack(NodeId(NODE), last, Leave::Delivered).unwrap();
    store.close().unwrap();
    let left = behind_its_back(dir.path(), |db| {
        chunk_keys(&db.open_tree("hh/hints").unwrap(), NODE).len()
    });
    assert!(left <= blocks);

    // Numbering goes on where it was: no gap, nothing twice.
    let store = open(dir.path());
    assert_eq!(append(&store, NODE, "next").sequence, Sequence(21));
}

#[test]
fn done_blocks_are_trimmed_and_only_the_last_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 0..50 {
        append(&store, NODE, format!("hint-{number}"));
    }
    let last = hints(&store, NODE).pop().unwrap().mark;
    store.ack(NodeId(NODE), last, Leave::Delivered).unwrap();
    // The ack is durable after the first sync; its trim rides with later groups.
    sync(&store);
    append(&store, NODE, "one more");
    store.close().unwrap();
    let left = behind_its_back(dir.path(), |db| {
        chunk_keys(&db.open_tree("hh/hints").unwrap(), NODE).len()
    });
    assert!(left <= 2, "{left} blocks are left of 51");
}

#[test]
fn a_removed_node_leaves_only_its_tombstone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for _ in 0..30 {
        append(&store, NODE, vec![7_u8; 100_000]);
    }
    let (tell, told) = std::sync::mpsc::channel();
    store.remove_node(NodeId(NODE), move |result| tell.send(result).unwrap());
    assert_eq!(
        told.recv().unwrap().unwrap(),
        Amount {
            hints: 30,
            bytes: 3_000_000
        }
    );
    assert!(store.nodes().is_empty());
    append(&store, 1, "another node lives on");
    store.close().unwrap();
    // Whatever a stop left untrimmed goes at the next open.
    let store = open(dir.path());
    for _ in 0..10 {
        append(&store, 1, "turns of the pipeline");
    }
    assert!(store.nodes().iter().all(|(node, _)| *node == NodeId(1)));
    store.close().unwrap();
    behind_its_back(dir.path(), |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        assert_eq!(hints.scan_prefix(NODE.to_be_bytes()).count(), 0);
        let nodes = db.open_tree("hh/nodes").unwrap();
        let record = nodes.get(NODE.to_be_bytes()).unwrap().unwrap();
        assert_eq!(record[1], 1, "removed");
        assert_eq!(record[2..6], [0; 4], "no queue is listed any more");
    });
}
