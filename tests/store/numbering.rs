//! No id is given out twice, whatever the disk lost.

use std::fs;

use crate::common::*;
use hinted_handoff::{NodeId, Sequence, internals::Leave};

const NODE: u64 = 4;

fn make_the_last_stop_unclean(dir: &std::path::Path) {
    fs::remove_file(generation(dir).join("CLEAN")).unwrap();
}

#[test]
fn numbering_goes_on_after_a_clean_stop_and_anew_after_an_unclean_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let first = append(&store, NODE, "1");
    store.close().unwrap();

    let store = open(dir.path());
    let second = append(&store, NODE, "2");
    assert_eq!((second.queue, second.sequence), (first.queue, Sequence(2)));
    store.close().unwrap();
    make_the_last_stop_unclean(dir.path());

    // Opened and closed cleanly without a hint in between: what the unclean stop lost is as unknown
    // as before.
    open(dir.path()).close().unwrap();
    let store = open(dir.path());
    let third = append(&store, NODE, "3");
    assert!(third.queue > first.queue, "{third}");
    assert_eq!(third.sequence, Sequence(1));
    assert_eq!(
        payloads(&store, NODE),
        ["1", "2"],
        "the older queue is drained first"
    );
    let last = hints(&store, NODE)[1].mark;
    store.ack(NodeId(NODE), last, Leave::Delivered).unwrap();
    assert_eq!(payloads(&store, NODE), ["3"]);
    store.close().unwrap();

    // The drained one is gone, the newer one goes on.
    let store = open(dir.path());
    let fourth = append(&store, NODE, "4");
    assert_eq!((fourth.queue, fourth.sequence), (third.queue, Sequence(2)));
    store.close().unwrap();
    behind_its_back(dir.path(), |db| {
        let record = db
            .open_tree("hh/nodes")
            .unwrap()
            .get(NODE.to_be_bytes())
            .unwrap()
            .unwrap();
        assert_eq!(record[14], 1, "one queue is listed");
    });
}

#[test]
fn queue_ids_skip_ahead_after_an_unclean_stop_so_that_a_lost_record_of_one_cannot_make_it_come_twice()
 {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let lost = append(&store, NODE, "lost with its record");
    store.close().unwrap();
    make_the_last_stop_unclean(dir.path());
    // As if the disk had kept nothing of the last moments.
    behind_its_back(dir.path(), |db| {
        db.open_tree("hh/hints").unwrap().clear().unwrap();
        db.open_tree("hh/nodes").unwrap().clear().unwrap();
        db.open_tree("hh/meta")
            .unwrap()
            .remove("next_queue")
            .unwrap();
    });
    let store = open(dir.path());
    assert_ne!(append(&store, NODE, "new").queue, lost.queue);
}
