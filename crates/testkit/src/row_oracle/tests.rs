//! Each rule of the rows is seen broken, and an honest life breaks none.

use super::*;
use crate::{Event, Oracle};
use hinted_handoff::{QueueId, Sequence, ShardId, StoreId};

const NODE: NodeId = NodeId(1);
const SHARD: ShardId = ShardId(1);

fn id(sequence: u64) -> HintId {
    HintId {
        store: StoreId([0; 16]),
        queue: QueueId(1),
        sequence: Sequence(sequence),
    }
}

fn write(first: u64, count: u64) -> RowWrite {
    RowWrite {
        first,
        count,
        trees: 1,
        hinted: true,
        counts: false,
        doomed: false,
        removes: None,
    }
}

fn tried(number: u64, node: NodeId) -> Event {
    let shard = SHARD;
    Event::Tried {
        number,
        node,
        shard,
    }
}

fn began(write: RowWrite) -> Vec<Event> {
    let tried = write.numbers().map(|number| tried(number, NODE));
    std::iter::once(Event::Rows(RowEvent::Began(write)))
        .chain(tried)
        .collect()
}

fn delivered(number: u64) -> Event {
    Event::Delivered {
        id: id(number),
        number,
        node: NODE,
        shard: SHARD,
    }
}

fn committed(first: u64) -> Event {
    Event::Rows(RowEvent::Committed { first, runs: 1 })
}

/// What an open reads, with so many hints pending.
fn read(rows: &[u64], hints: u64) -> Vec<Event> {
    let row = |number: &u64| RowEvent::Row {
        tree: 1,
        number: *number,
    };
    let node = NODE;
    std::iter::once(RowEvent::Pending { node, hints })
        .chain(rows.iter().map(row))
        .chain([RowEvent::AllRead])
        .map(Event::Rows)
        .collect()
}

fn violations(events: &[Vec<Event>]) -> Vec<String> {
    let mut oracle = Oracle::default();
    events.iter().flatten().for_each(|event| oracle.see(*event));
    oracle.finish();
    oracle.violations().to_vec()
}

#[test]
fn honest_transactions_break_no_rule() {
    let removing = RowWrite {
        removes: Some(1),
        ..write(2, 1)
    };
    let events = [
        began(write(1, 1)),
        vec![committed(1)],
        began(removing),
        // The answer did not come any more; it is there all the same.
        read(&[2], 2),
        vec![delivered(1)],
        read(&[2], 1),
        vec![delivered(2)],
    ];
    assert_eq!(violations(&events), [""; 0]);
}

#[test]
fn each_rule_is_seen_broken() {
    let doomed = RowWrite {
        doomed: true,
        ..write(1, 1)
    };
    let counting = RowWrite {
        counts: true,
        ..write(1, 1)
    };
    let removing = RowWrite {
        removes: Some(1),
        ..write(2, 1)
    };
    let aborted = Event::Rows(RowEvent::Aborted { first: 1 });
    let wrong = Event::Rows(RowEvent::Wrong { number: 1 });
    let (one, two) = (write(1, 1), write(1, 2));
    let of_consumer = || {
        let began = Event::Rows(RowEvent::Began(one));
        vec![began, tried(1, MANUAL_NODE)]
    };
    let consumed = Event::Rows(RowEvent::Consumed {
        id: id(1),
        number: 1,
    });
    let consumed_row = Event::Rows(RowEvent::ConsumedRow {
        id: id(1),
        number: 1,
    });
    let all_read = Event::Rows(RowEvent::AllRead);
    let cases: [(&str, Vec<Vec<Event>>); 15] = [
        ("are not", vec![began(two), read(&[1], 1)]),
        ("gave up", vec![began(doomed), read(&[1], 1)]),
        ("gave up", vec![began(one), vec![aborted], read(&[1], 1)]),
        (
            "answered and is lost",
            vec![began(one), vec![committed(1)], read(&[], 0)],
        ),
        (
            "saw otherwise",
            vec![began(one), read(&[1], 1), read(&[], 0)],
        ),
        (
            "saw otherwise",
            vec![began(one), read(&[], 0), read(&[1], 1)],
        ),
        ("the counter is 0", vec![began(counting), read(&[1], 1)]),
        (
            "was removed and is there",
            vec![began(one), began(removing), read(&[1, 2], 2)],
        ),
        ("nobody wrote it", vec![read(&[7], 0)]),
        ("are pending", vec![began(one), read(&[1], 0)]),
        ("are pending", vec![began(one), read(&[], 1)]),
        (
            "its row is not there",
            vec![began(one), vec![delivered(1)], read(&[], 0)],
        ),
        ("its hint never came", vec![began(one), read(&[1], 1)]),
        (
            "durably consumed, and its row is gone",
            vec![of_consumer(), vec![consumed], read(&[1], 0)],
        ),
        (
            "as it must not be",
            vec![began(one), vec![wrong], read(&[1], 1)],
        ),
    ];
    for (text, events) in cases {
        let found = violations(&events);
        assert!(
            found.iter().any(|it| it.contains(text)),
            "{text}: {found:?}"
        );
    }
    let not_of_it = violations(&[began(one), vec![consumed_row, all_read]]);
    let text = "no hint of that node";
    assert!(not_of_it.iter().any(|it| it.contains(text)));
    let twice = [
        of_consumer(),
        vec![consumed, tried(2, MANUAL_NODE)],
        vec![Event::Delivered {
            id: id(1),
            number: 1,
            node: MANUAL_NODE,
            shard: SHARD,
        }],
    ];
    assert!(
        violations(&twice)
            .iter()
            .any(|it| it.contains("came back after"))
    );
}

#[test]
fn what_came_while_the_power_failed_was_perhaps_not_durable() {
    let mut oracle = Oracle::default();
    let before = began(write(1, 1));
    before.into_iter().for_each(|event| oracle.see(event));
    oracle.power_fails();
    oracle.see(delivered(1));
    oracle.life_ended();
    let after = read(&[], 0);
    after.into_iter().for_each(|event| oracle.see(event));
    oracle.finish();
    assert_eq!(oracle.violations(), [""; 0]);
}
