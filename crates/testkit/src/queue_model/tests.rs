//! The model sees each of its rules broken, and takes nothing sound for broken.

use std::sync::mpsc;

use super::*;
use hinted_handoff::{Config, ShardId, internals::Leave};

const NODE: NodeId = NodeId(1);

/// A store, and a model that is told what the test says.
struct Both {
    _dir: tempfile::TempDir,
    store: Store,
    model: QueueModel,
}

fn both() -> Both {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        min_free_disk: 0,
        ..Config::new(dir.path().join("store"))
    };
    let store = Store::open(&config, Box::new(|_| {})).unwrap();
    Both {
        model: QueueModel::new(store.id()),
        store,
        _dir: dir,
    }
}

fn hint(text: &str) -> Hint {
    Hint {
        shard: ShardId(1),
        format: 0,
        enqueued_unix_ms: 1,
        payload: text.to_owned().into(),
        origin: None,
        write: None,
        lifetime_ms: None,
    }
}

impl Both {
    /// Only the store is given it.
    fn store_only(&self, text: &str) -> Result<HintId, EnqueueError> {
        let (tell, told) = mpsc::channel();
        let done = move |answer| tell.send(answer).unwrap();
        self.store.append(NODE, hint(text), Box::new(done));
        told.recv().unwrap()
    }

    /// The store is given the one, the model the other.
    fn append(&mut self, text: &str, for_model: &str) -> HintId {
        let number = self.model.hand_in(NODE, hint(for_model));
        let answer = self.store_only(text);
        self.model.answered(number, &answer);
        answer.unwrap()
    }

    fn peek(&self, limits: PeekLimits) -> Peek {
        let reader = &mut Reader::default();
        self.store.peek(reader, NODE, limits).unwrap()
    }

    fn ack_in_store(&self, hints: usize) -> Amount {
        let Peek::Hints(peeked) = self.peek(EVERYTHING) else {
            return Amount::default();
        };
        let mark = peeked[hints - 1].mark;
        self.store.ack(NODE, mark, Leave::Delivered).unwrap()
    }
}

#[test]
fn what_leaves_with_its_group_is_a_dead_letter_and_not_pending_and_else_that_is_noticed() {
    let mut both = both();
    both.append("stays", "stays");
    let number = both.model.hand_in_undelivered(NODE, hint("leaves"));
    let cause = hinted_handoff::internals::DeadCause {
        reason: hinted_handoff::DeadReason::Rejected,
        error: String::new(),
        attempts: 1,
        first_failed_unix_ms: 1,
        last_failed_unix_ms: 1,
    };
    let (tell, told) = mpsc::channel();
    let done = Box::new(move |answer| tell.send(answer).unwrap());
    let fate = hinted_handoff::internals::Fate::Dead(cause);
    both.store
        .append_undelivered(NODE, hint("leaves"), fate, done);
    both.model.answered(number, &told.recv().unwrap());
    both.append("behind", "behind");
    both.model.check(&both.store);
    assert_eq!(both.model.violations(), [""; 0]);
    assert_eq!(both.model.pending(NODE).hints, 2);
    // One that stays all the same.
    let number = both.model.hand_in_undelivered(NODE, hint("stays, too"));
    let answer = both.store_only("stays, too");
    both.model.answered(number, &answer);
    both.model.check(&both.store);
    let broken = both.model.violations().join("; ");
    assert!(
        broken.contains("its depth is") && broken.contains("1 dead letters"),
        "{broken}"
    );
}

#[test]
fn an_honest_store_breaks_no_rule() {
    let mut both = both();
    let ids = ["a", "bc", "def"].map(|text| both.append(text, text));
    both.model.check(&both.store);
    let left = both.model.ack(NODE, ids[1].queue, ids[1].sequence);
    assert_eq!(left, Amount { hints: 2, bytes: 3 });
    assert_eq!(both.ack_in_store(2), left);
    both.model.check(&both.store);
    assert_eq!(both.model.pending(NODE), Amount { hints: 1, bytes: 3 });
    let again = both.model.ack(NODE, ids[1].queue, ids[1].sequence);
    assert_eq!(again, Amount::default());
    both.model.synced();
    both.model.check(&both.store);
    assert_eq!(both.model.violations(), [""; 0]);
}

#[test]
fn what_an_unclean_stop_leaves_open_is_settled_by_what_is_there() {
    let mut both = both();
    let first = both.append("first", "first");
    both.append("second", "second");
    // Handed in and there, and handed in and not there: nobody was told of either.
    both.model.hand_in(NODE, hint("third"));
    both.store_only("third").unwrap();
    both.model.hand_in(NODE, hint("fourth"));
    // This one is not acknowledged in the store: as if the stop had undone it.
    both.model.ack(NODE, first.queue, first.sequence);
    both.model.stopped_uncleanly();
    both.model.check(&both.store);
    assert_eq!(both.model.violations(), [""; 0]);
    let expected = Settled {
        stops: 1,
        found: 1,
        gone: 1,
        undone: 1,
    };
    assert_eq!(both.model.settled(), expected);
    assert_eq!(both.model.pending(NODE).hints, 3);
}

#[test]
fn each_rule_is_seen_broken() {
    type Breaking = fn(&mut Both);
    let cases: [(&str, Breaking); 18] = [
        ("it is gone", |both| {
            let id = HintId {
                store: both.store.id(),
                queue: QueueId(7),
                sequence: Sequence(1),
            };
            let number = both.model.hand_in(NODE, hint("a"));
            both.model.answered(number, &Ok(id));
        }),
        ("it ends before 2, expected 3", |both| {
            let id = both.append("a", "a");
            let number = both.model.hand_in(NODE, hint("b"));
            let sequence = Sequence(2);
            both.model.answered(number, &Ok(HintId { sequence, ..id }));
            both.model.stopped_uncleanly();
        }),
        ("it ends before 3, expected 2", |both| {
            both.append("a", "a");
            both.store_only("b").unwrap();
        }),
        ("never was", |both| drop(both.store_only("a"))),
        ("done with", |both| {
            both.append("a", "a");
            both.model.removed(NODE);
        }),
        ("its depth", |both| {
            both.append("a", "ab");
        }),
        ("as it was handed in", |both| {
            both.append("a", "b");
        }),
        ("its cursor is 1, expected 2", |both| {
            let id = both.append("a", "a");
            both.model.ack(NODE, id.queue, id.sequence);
        }),
        ("its cursor is 1, expected 2", |both| {
            let id = both.append("a", "a");
            both.append("b", "b");
            both.model.ack(NODE, id.queue, id.sequence);
            both.model.synced();
            both.model.stopped_uncleanly();
        }),
        ("expected None", |both| {
            both.append("a", "a");
            both.model.stopped_uncleanly();
            both.model.check(&both.store);
            both.append("b", "b");
        }),
        ("done with", |both| {
            let id = both.append("a", "a");
            both.ack_in_store(1);
            both.model.stopped_uncleanly();
            both.model.ack(NODE, id.queue, id.sequence);
            both.model.synced();
        }),
        ("in use", |both| {
            let id = both.append("a", "a");
            both.model.removed(NODE);
            let number = both.model.hand_in(NODE, hint("b"));
            both.model.answered(number, &Ok(id));
        }),
        ("given out", |both| {
            let id = both.append("a", "a");
            let number = both.model.hand_in(NODE, hint("b"));
            both.model.answered(number, &Ok(id));
        }),
        ("another store", |both| {
            both.model = QueueModel::new(StoreId([1; 16]));
            both.append("a", "a");
        }),
        ("nobody waits", |both| {
            let number = both.model.hand_in(NODE, hint("a"));
            let answer = both.store_only("a");
            both.model.answered(number, &answer);
            both.model.answered(number, &answer);
        }),
        ("before a sync", |both| {
            both.model.hand_in(NODE, hint("a"));
            both.model.synced();
        }),
        ("and then refused", |both| {
            let number = both.model.hand_in(NODE, hint("a"));
            both.store_only("a").unwrap();
            both.model.check(&both.store);
            both.model.answered(number, &Err(EnqueueError::ShutDown));
        }),
        ("are more than", |both| {
            both.append("a", "a");
            both.append("b", "b");
            let limits = PeekLimits {
                hints: 1,
                ..EVERYTHING
            };
            let peek = both.peek(EVERYTHING);
            both.model.see_peek(NODE, limits, &peek);
            let peek = both.peek(limits);
            both.model.see_peek(NODE, EVERYTHING, &peek);
            assert!(both.model.violations()[1].contains("only 1 hints"));
        }),
    ];
    for (text, breaking) in cases {
        let mut both = both();
        breaking(&mut both);
        both.model.check(&both.store);
        let violations = both.model.violations();
        assert!(
            violations.iter().any(|it| it.contains(text)),
            "{text}: {violations:?}"
        );
    }
}
