use super::*;
use hinted_handoff::{Sequence, StoreId};

fn id(sequence: u64) -> HintId {
    HintId {
        store: StoreId([0; 16]),
        queue: QueueId(1),
        sequence: Sequence(sequence),
    }
}

const NODE: NodeId = NodeId(1);
const SHARD: ShardId = ShardId(1);

fn tried(number: u64) -> Event {
    Event::Tried {
        number,
        node: NODE,
        shard: SHARD,
    }
}

fn answered(number: u64) -> Event {
    Event::Answered {
        number,
        id: Some(id(number)),
    }
}

fn delivered(number: u64, sequence: u64) -> Event {
    Event::Delivered {
        id: id(sequence),
        number,
        node: NODE,
        shard: SHARD,
    }
}

fn violations(events: &[Event]) -> Vec<String> {
    let mut oracle = Oracle::default();
    events.iter().for_each(|event| oracle.see(*event));
    oracle.finish();
    oracle.violations().to_vec()
}

#[test]
fn an_honest_life_breaks_no_rule() {
    let events = [
        Event::Opened { pending: 0 },
        tried(1),
        answered(1),
        tried(2),
        answered(2),
        delivered(1, 1),
        delivered(2, 2),
        Event::CaughtUp { delivered: 2 },
        Event::Closed,
    ];
    assert_eq!(violations(&events), [""; 0]);
}

#[test]
fn each_rule_is_seen_broken() {
    let one = [tried(1), answered(1)];
    let cases: [(&str, &[Event]); 9] = [
        ("is lost", &one),
        ("never tried", &[delivered(7, 1)]),
        (
            "names write",
            &[
                tried(1),
                answered(1),
                tried(2),
                delivered(1, 1),
                delivered(2, 1),
            ],
        ),
        ("is both", &[tried(1), answered(1), delivered(1, 5)]),
        (
            "in the same life",
            &[tried(1), tried(2), delivered(2, 2), delivered(1, 1)],
        ),
        (
            "came back",
            &[tried(1), delivered(1, 1), Event::Settled, delivered(1, 1)],
        ),
        (
            "refused",
            &[tried(1), Event::Refused { number: 1 }, delivered(1, 1)],
        ),
        (
            "never came",
            &[tried(1), tried(3), delivered(1, 1), delivered(3, 3)],
        ),
        (
            "statistics",
            &[tried(1), delivered(1, 1), Event::CaughtUp { delivered: 2 }],
        ),
    ];
    for (text, events) in cases {
        let found = violations(events);
        assert!(
            found.iter().any(|it| it.contains(text)),
            "{text}: {found:?}"
        );
    }
    let reopened = [
        tried(1),
        delivered(1, 1),
        Event::Reopened,
        Event::Settled,
        delivered(1, 1),
    ];
    assert_eq!(
        violations(&reopened),
        [""; 0],
        "what was not settled when the store failed may come again"
    );
    let removed = [
        tried(1),
        answered(1),
        Event::Discarding { node: NODE },
        Event::Discarded { node: NODE },
    ];
    assert_eq!(
        violations(&removed),
        [""; 0],
        "a removed node's hints may vanish"
    );
    let came = [&removed[..], &[delivered(1, 1)]].concat();
    assert!(violations(&came)[0].contains("removed"));
}
