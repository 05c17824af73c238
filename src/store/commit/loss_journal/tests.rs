use std::sync::Arc;

use crate::store::{commit::loss_journal::*, engine::generation::Engine, format::loss::LostRange};

fn loss(queue: u64, shard: u64, sequence: u64) -> Loss {
    Loss {
        node: NodeId(1),
        shard: Some(ShardId(shard)),
        place: Some(LostRange::one(QueueId(queue), Sequence(sequence))),
        amount: Amount {
            hints: 1,
            bytes: 10,
        },
        reason: LossReason::Expired,
        since_unix_ms: sequence,
        until_unix_ms: sequence,
        redriven_from: Vec::new(),
    }
}

/// Copies that were not stored.
fn copies(node: u64, shard: Option<u64>, copies: u64) -> Loss {
    let amount = Amount {
        hints: copies,
        bytes: copies * 10,
    };
    let (node, shard) = (NodeId(node), shard.map(ShardId));
    Loss::new(node, shard, None, amount, LossReason::NotStored)
}

fn write(tree: &Table, writes: RowMap) {
    for (key, value) in writes {
        match value {
            Some(value) => tree.insert(key, value),
            None => drop(tree.remove(key)),
        }
    }
}

fn tree() -> (tempfile::TempDir, Table) {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), Arc::default()).unwrap();
    (dir, engine.losses.clone())
}

fn record(journal: &mut Journal, tree: &Table, loss: Loss, kept: usize) {
    let mut writes = RowMap::new();
    journal.record(loss, &mut writes);
    journal.fold_to(kept, tree, &mut writes).unwrap();
    write(tree, writes);
}

#[test]
fn losses_of_a_shard_grow_into_one_entry_until_entries_are_closed() {
    let (_dir, tree) = tree();
    let mut journal = Journal::load(&tree).unwrap();
    for sequence in [5, 6, 9] {
        record(&mut journal, &tree, loss(1, 1, sequence), 100);
    }
    record(&mut journal, &tree, loss(1, 2, 7), 100);
    assert_eq!(journal.close_entries(), 2);
    record(&mut journal, &tree, loss(1, 1, 10), 100);
    let losses = read_since(&tree, 0).unwrap();
    let seen: Vec<_> = losses
        .entries
        .iter()
        .map(|(index, it)| {
            let place = it.place.unwrap();
            (*index, place.first.0, place.last.0, it.amount.hints)
        })
        .collect();
    assert_eq!(seen, [(0, 5, 9, 3), (1, 7, 7, 1), (2, 10, 10, 1)]);
    assert_eq!(losses.entries[0].1.until_unix_ms, 9);
    // What is found again after a restart goes on behind it.
    assert_eq!(Journal::load(&tree).unwrap().close_entries(), 3);
}

#[test]
fn nothing_is_lost_of_the_sums_however_little_is_kept() {
    let (_dir, tree) = tree();
    let mut journal = Journal::load(&tree).unwrap();
    for number in 1..=50 {
        record(&mut journal, &tree, loss(number % 7 + 1, number, number), 5);
        if number % 9 == 0 {
            journal = Journal::load(&tree).unwrap();
        }
    }
    let losses = read_since(&tree, 0).unwrap();
    assert_eq!((losses.entries.len(), losses.folded.len()), (5, 5));
    assert_eq!(
        losses.total(),
        Amount {
            hints: 50,
            bytes: 500
        }
    );
    let (below, last_index) = losses.forgotten.unwrap();
    assert!(
        below == QueueId(3) && last_index < losses.next,
        "{last_index}"
    );
    let of_queue_4 = losses.folded.iter().find(|it| it.queue.0 == 4).unwrap();
    assert_eq!((of_queue_4.first.0, of_queue_4.last.0), (3, 45));
}

#[test]
fn what_was_sent_on_is_found_where_it_stood_before_after_it_was_folded() {
    let (_dir, tree) = tree();
    let mut journal = Journal::load(&tree).unwrap();
    let sent_on = Loss {
        redriven_from: vec![(QueueId(1), Sequence(7)), (QueueId(2), Sequence(8))],
        ..loss(3, 1, 9)
    };
    record(&mut journal, &tree, sent_on, 0);
    let losses = read_since(&tree, 0).unwrap();
    assert!(losses.entries.is_empty() && losses.folded.is_empty());
    // Nothing is kept at all here; with room for it the ranges are there.
    assert_eq!(losses.forgotten, Some((QueueId(4), 0)));
    record(&mut journal, &tree, loss(4, 1, 1), 3);
    let sent_on = Loss {
        redriven_from: vec![(QueueId(5), Sequence(7)), (QueueId(6), Sequence(8))],
        ..loss(7, 1, 9)
    };
    for sequence in 10..14 {
        let place = Some(LostRange::one(QueueId(7), Sequence(sequence)));
        record(
            &mut journal,
            &tree,
            Loss {
                place,
                ..sent_on.clone()
            },
            3,
        );
    }
    let folded = read_since(&tree, 2).unwrap().folded;
    let seen: Vec<_> = folded
        .iter()
        .map(|it| (it.queue.0, it.first.0, it.last.0))
        .collect();
    assert_eq!(seen, [(5, 7, 7), (6, 8, 8), (7, 10, 10)]);
}

#[test]
fn copies_that_were_not_stored_grow_into_one_entry_a_shard_apart_from_the_hints_of_any_queue() {
    let (_dir, tree) = tree();
    let mut journal = Journal::load(&tree).unwrap();
    record(&mut journal, &tree, loss(0, 1, 3), 100);
    for shard in [Some(1), Some(2), Some(1), None] {
        record(&mut journal, &tree, copies(1, shard, 3), 100);
    }
    let losses = read_since(&tree, 0).unwrap();
    let seen: Vec<_> = losses
        .entries
        .iter()
        .map(|(_, it)| (it.place.is_some(), it.shard.map(|it| it.0), it.amount.hints))
        .collect();
    let expected = [
        (true, Some(1), 1),
        (false, Some(1), 6),
        (false, Some(2), 3),
        (false, None, 3),
    ];
    assert_eq!(seen, expected);
    assert_eq!(losses.by_reason[&LossReason::NotStored].hints, 12);
    assert_eq!(losses.total().hints, 13);
}

#[test]
fn what_is_folded_of_copies_is_kept_by_node_and_never_taken_for_a_queue() {
    let (_dir, tree) = tree();
    let mut journal = Journal::load(&tree).unwrap();
    for number in 0..40 {
        record(&mut journal, &tree, copies(number % 4, Some(number), 1), 5);
        record(&mut journal, &tree, loss(0, number, number + 1), 5);
        if number % 7 == 0 {
            journal = Journal::load(&tree).unwrap();
        }
    }
    let losses = read_since(&tree, 0).unwrap();
    let listed = losses.entries.iter().filter(|(_, it)| it.place.is_none());
    let of_nodes = losses.not_stored.iter().map(|it| it.amount.hints);
    assert_eq!(listed.count() as u64 + of_nodes.sum::<u64>(), 40);
    assert_eq!(losses.not_stored.len(), 4);
    // The ranges of queue 0 are of its own hints alone.
    let of_queue_0 = &losses.folded[0];
    assert_eq!((of_queue_0.first.0, losses.folded.len()), (1, 1));
    let of_queues = losses.entries.iter().filter(|(_, it)| it.place.is_some());
    assert_eq!(of_queues.count() as u64 + of_queue_0.amount.hints, 40);
    assert_eq!(losses.total().hints, 80);
    let since = losses.not_stored.iter().map(|it| it.last_index).max();
    let newest = read_since(&tree, since.unwrap()).unwrap();
    assert_eq!(newest.not_stored.len(), 1);
    let of_one = losses.of_node(NodeId(2));
    assert_eq!((of_one.not_stored.len(), of_one.folded.len()), (1, 0));
}

#[test]
fn nodes_beyond_the_bound_are_forgotten_the_oldest_first_and_that_is_told() {
    let (_dir, tree) = tree();
    let mut journal = Journal::load(&tree).unwrap();
    for node in 0..12 {
        record(&mut journal, &tree, copies(100 - node, Some(1), 1), 4);
        journal = Journal::load(&tree).unwrap();
    }
    let losses = read_since(&tree, 0).unwrap();
    let nodes: Vec<_> = losses.not_stored.iter().map(|it| it.node.0).collect();
    // Those of 100 to 97 are forgotten, of 92 to 89 listed.
    assert_eq!(nodes, [93, 94, 95, 96]);
    assert_eq!(losses.not_stored_forgotten, Some(3));
    assert_eq!(losses.total().hints, 12);
    assert_eq!(read_since(&tree, 4).unwrap().not_stored_forgotten, None);
    // What is damaged may have been of any node, at any time.
    tree.insert(key(NODE, 93), b"damaged");
    let damaged = read_since(&tree, 8).unwrap();
    assert_eq!(damaged.not_stored_forgotten, Some(u64::MAX));
}

#[test]
fn a_damaged_record_is_left_out_and_the_rest_is_there() {
    let (_dir, tree) = tree();
    let mut journal = Journal::load(&tree).unwrap();
    for shard in 1..=3 {
        record(&mut journal, &tree, loss(1, shard, shard), 100);
    }
    let mut value = tree.get(key(ENTRY, 1)).unwrap().unwrap().to_vec();
    value[5] ^= 1;
    tree.insert(key(ENTRY, 1), value);
    let losses = read_since(&tree, 0).unwrap();
    assert_eq!((losses.entries.len(), losses.unreadable), (2, vec![1]));
    // Its index is not given out again, even if it is the last one.
    tree.insert(key(ENTRY, 2), b"damaged");
    assert_eq!(Journal::load(&tree).unwrap().close_entries(), 3);
}

#[test]
fn any_flipped_bit_a_cut_and_another_key_are_noticed() {
    let folded = Folded {
        below: 300,
        by_reason: [(LossReason::Purged, loss(1, 1, 1).amount)].into(),
        forgotten: Some((QueueId(9), 299)),
    };
    let range = LostOfQueue {
        node: NodeId(1),
        queue: QueueId(7),
        first: Sequence(1),
        last: Sequence(u64::MAX),
        amount: Amount::default(),
        last_index: 299,
    };
    let entry = Loss {
        shard: None,
        redriven_from: vec![(QueueId(1), Sequence(2))],
        ..loss(7, 1, 1)
    };
    let of_node = NotStoredOfNode {
        node: NodeId(7),
        amount: entry.amount,
        last_index: 300,
    };
    let records = [
        (vec![FOLDED], encode_record(&[FOLDED], VERSION, &folded)),
        (
            key(ENTRY, 5).to_vec(),
            encode_record(&key(ENTRY, 5), VERSION, &entry),
        ),
        (
            key(ENTRY, 6).to_vec(),
            encode_record(&key(ENTRY, 6), VERSION, &copies(7, Some(7), 1)),
        ),
        (
            key(NODE, 7).to_vec(),
            encode_record(&key(NODE, 7), VERSION, &of_node),
        ),
        (vec![NODE], encode_record(&[NODE], VERSION, &299_u64)),
        (
            key(RANGE, 7).to_vec(),
            encode_record(&key(RANGE, 7), VERSION, &range),
        ),
    ];
    for (key, value) in &records {
        assert!(is_record(key, value), "{key:?}");
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_record(key, &flipped), "{key:?} bit {bit}");
        }
        for cut in 0..value.len() {
            assert!(!is_record(key, &value[..cut]), "{key:?} cut {cut}");
        }
        for (other, _) in records.iter().filter(|(other, _)| other != key) {
            assert!(!is_record(other, value), "{key:?} under {other:?}");
        }
        assert!(!is_record(&[key.as_slice(), &[0]].concat(), value));
    }
}

/// Capacity for what these claim would end the process.
#[test]
fn a_record_that_claims_more_than_it_holds_is_refused_and_allocates_nothing() {
    let mut bomb = vec![VERSION, 0];
    bomb.extend([0xff; 9]);
    bomb.push(1);
    bomb.extend([2, 1, 1]);
    let value = crate::store::format::checksum::with_checksum(&[FOLDED], bomb);
    assert!(matches!(
        LossRecord::read(&[FOLDED], &value),
        Err(DecodeError::Postcard(_))
    ));
}

#[test]
fn an_entry_has_a_place_unless_its_copies_were_never_stored() {
    let key = key(ENTRY, 5);
    let reads = |loss: &Loss| LossRecord::read(&key, &encode_record(&key, VERSION, loss)).is_ok();
    let hints = loss(7, 7, 1);
    let nowhere = Loss {
        place: None,
        ..hints.clone()
    };
    let copies = copies(7, Some(7), 1);
    let somewhere = Loss {
        place: hints.place,
        ..copies.clone()
    };
    assert!(reads(&hints) && reads(&copies));
    assert!(!reads(&nowhere) && !reads(&somewhere));
}
