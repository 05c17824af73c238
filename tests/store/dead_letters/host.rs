//! What a host asks for: to look at dead letters, to send them on and to discard them.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use hinted_handoff::{
    Amount, Config, DeadReason, Event, HandoffError, HintId, HintedHandoff, LossReason, NodeId,
    QueueId, Sequence, ShardId, ShardWrite, ShardWriter, StoreId, WriteError, internals::WallClock,
};
use hinted_handoff_testkit::ScriptedWriter;
use tokio::sync::mpsc;

use super::{NODE, letter_keys, make_all_dead_letters};
use crate::common::{
    append, changed_for_good, config,
    frozen::freeze,
    hint, hints,
    letters::{deliver, make_dead_letter},
    open, try_append,
};

/// A writer that passes on what it is given.
struct Telling(mpsc::UnboundedSender<ShardWrite<Bytes>>);

impl ShardWriter<Bytes> for Telling {
    async fn write_shard(&self, write: ShardWrite<Bytes>) -> Result<(), WriteError> {
        self.0.send(write).map_err(WriteError::retry)
    }
}

pub async fn manual(dir: &Path) -> HintedHandoff<Bytes> {
    let config = Config {
        manual_nodes: [NODE].into(),
        ..config(dir)
    };
    HintedHandoff::open(config, ScriptedWriter::down())
        .await
        .unwrap()
}

async fn enqueue(handoff: &HintedHandoff<Bytes>, payload: impl Into<Bytes>) -> HintId {
    let accepted = handoff.write_shard(NODE, ShardId(1), &payload.into()).await;
    let Ok(hinted_handoff::Accepted::Durable(id)) = accepted else {
        panic!("{accepted:?}")
    };
    id
}

#[tokio::test]
async fn a_dead_letter_is_listed_looked_at_sent_on_and_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ids = [
        append(&store, 7, "one"),
        append(&store, 7, "two"),
        append(&store, 7, "three"),
    ];
    let all = hints(&store, 7);
    make_dead_letter(&store, 7, &all[0]).unwrap();
    make_dead_letter(&store, 7, &all[1]).unwrap();
    deliver(&store, 7, &all[2]);
    store.close().unwrap();

    let (tell, mut told) = mpsc::unbounded_channel();
    let config = Config {
        // The bell must wake it, no timer.
        retry_interval: Duration::from_secs(3000),
        retry_max_interval: Duration::from_secs(3000),
        ..config(dir.path())
    };
    let handoff = HintedHandoff::<Bytes>::open(config, Telling(tell))
        .await
        .unwrap();
    let node = handoff.stats().nodes.remove(0);
    assert_eq!(
        (node.dead_letters, node.pending),
        (Amount { hints: 2, bytes: 6 }, Amount::default())
    );
    let listed = handoff.dead_letters(NODE, None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|it| it.id).collect::<Vec<_>>(), ids[..2]);
    let first = &listed[0];
    assert_eq!(
        (first.reason, first.attempts, first.payload_bytes),
        (DeadReason::Rejected, 3, 3)
    );
    assert_eq!(first.error, "no such measurement");
    assert_eq!(
        handoff.dead_letters(NODE, None, 1).await.unwrap(),
        listed[..1]
    );
    assert_eq!(
        handoff.dead_letters(NODE, Some(ids[0]), 9).await.unwrap(),
        listed[1..]
    );
    let content = handoff.dead_letter(NODE, ids[1]).await.unwrap();
    assert_eq!(
        (content.points.unwrap(), content.raw),
        ("two".into(), "two".into())
    );
    assert_eq!(
        (content.letter, content.redriven_from),
        (listed[1].clone(), None)
    );

    let now = handoff.redrive(NODE, ids[1]).await.unwrap();
    assert_eq!(now.sequence, Sequence(4), "at the end of the queue");
    let write = tokio::time::timeout(Duration::from_secs(10), told.recv());
    let write = write.await.expect("the bell did not ring").unwrap();
    let batch = &write.batches[0];
    assert_eq!((batch.hint, batch.redriven_from), (Some(now), Some(ids[1])));
    assert_eq!(batch.points, "two");
    handoff.shutdown().await.unwrap();
    let (mut redriven, mut discarded) = (1, 0);

    // Blocking, in the next life.
    let handoff = manual(dir.path()).await;
    let blocking = handoff.clone();
    let work = tokio::task::spawn_blocking(move || {
        assert_eq!(
            blocking
                .dead_letters_blocking(NODE, None, 10)
                .unwrap()
                .len(),
            1
        );
        assert_eq!(
            blocking.dead_letter_blocking(NODE, ids[0]).unwrap().raw,
            "one"
        );
        let now = blocking.redrive_blocking(NODE, ids[0]).unwrap();
        let hint = hints(&blocking.store_below(), 7).pop().unwrap();
        make_dead_letter(&blocking.store_below(), 7, &hint).unwrap();
        assert_eq!(
            blocking.discard_blocking(NODE, &[now, now]).unwrap(),
            Amount { hints: 1, bytes: 3 }
        );
        blocking.losses_blocking(0).unwrap()
    });
    let losses = work.await.unwrap();
    (redriven, discarded) = (redriven + 1, discarded + 1);
    let (index, loss) = &losses.entries[0];
    assert_eq!(
        (*index, loss.reason, losses.next),
        (0, LossReason::Discarded, 1)
    );
    assert_eq!(loss.redriven_from, [(ids[0].queue, ids[0].sequence)]);
    assert_eq!(handoff.stats().nodes[0].dead_letters, Amount::default());
    handoff.shutdown().await.unwrap();
    println!("dead_letters: redriven {redriven}, discarded {discarded}");
}

#[tokio::test]
async fn of_many_who_want_a_dead_letter_exactly_one_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    let handoff = manual(dir.path()).await;
    let (mut redriven, mut discarded, mut missed) = (0, 0, 0);
    for round in 0..20 {
        let id = enqueue(&handoff, format!("letter {round}")).await;
        let store = handoff.store_below();
        make_dead_letter(&store, 7, &hints(&store, 7).pop().unwrap()).unwrap();
        let redrives = (0..4).map(|_| {
            let handoff = handoff.clone();
            tokio::spawn(async move { handoff.redrive(NODE, id).await })
        });
        let redrives: Vec<_> = redrives.collect();
        let left = handoff.discard(NODE, &[id]).await.unwrap().hints;
        let mut winners = left;
        for redrive in redrives {
            match redrive.await.unwrap() {
                Ok(_) => winners += 1,
                Err(HandoffError::NoDeadLetter { node, hint, .. }) => {
                    assert_eq!((node, hint), (NODE, id));
                    missed += 1;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(winners, 1);
        discarded += left;
        redriven += 1 - left;
        let node = handoff.stats().nodes.remove(0);
        assert_eq!((node.dead_letters.hints, node.pending.hints), (0, redriven));
        // They would be taken for the ones to dead-letter.
        for hint in hints(&store, 7) {
            deliver(&store, 7, &hint);
            redriven -= 1;
        }
    }
    let losses = handoff.losses(0).await.unwrap();
    assert_eq!(losses.total().hints, discarded);
    assert_eq!(handoff.dead_letters(NODE, None, 9).await.unwrap(), []);
    println!("dead_letters: {discarded} discarded first, {missed} came too late");
}

#[tokio::test]
async fn what_is_asked_for_wrongly_is_a_typed_error() {
    let dir = tempfile::tempdir().unwrap();
    let handoff = manual(dir.path()).await;
    let id = enqueue(&handoff, "pending").await;
    let foreign = HintId {
        store: StoreId([1; 16]),
        ..id
    };
    let unknown = NodeId(99);
    let none = |error| matches!(error, HandoffError::NoDeadLetter { hint, .. } if hint == id);
    assert!(none(handoff.redrive(NODE, id).await.unwrap_err()));
    assert!(none(handoff.dead_letter(NODE, id).await.unwrap_err()));
    assert_eq!(
        handoff.discard(NODE, &[id]).await.unwrap(),
        Amount::default()
    );
    let other =
        |error| matches!(error, HandoffError::HintOfAnotherStore { hint, .. } if hint == foreign);
    assert!(other(handoff.redrive(NODE, foreign).await.unwrap_err()));
    assert!(other(handoff.discard(NODE, &[foreign]).await.unwrap_err()));
    assert!(other(
        handoff
            .dead_letters(NODE, Some(foreign), 1)
            .await
            .unwrap_err()
    ));
    let no_node =
        |error| matches!(error, HandoffError::UnknownNode { node, .. } if node == unknown);
    assert!(no_node(handoff.redrive(unknown, id).await.unwrap_err()));
    assert!(no_node(handoff.redrive_all(unknown).await.unwrap_err()));
    assert!(no_node(handoff.discard(unknown, &[id]).await.unwrap_err()));
    assert!(no_node(
        handoff.dead_letters(unknown, None, 1).await.unwrap_err()
    ));
    assert_eq!(handoff.stats().nodes[0].pending.hints, 1);
    handoff.shutdown().await.unwrap();
    assert!(matches!(
        handoff.redrive(NODE, id).await,
        Err(HandoffError::ShutDown)
    ));
}

#[tokio::test]
async fn all_are_sent_on_in_order_and_each_keeps_the_id_that_it_had_first() {
    let dir = tempfile::tempdir().unwrap();
    let handoff = manual(dir.path()).await;
    let store = handoff.store_below();
    let burst = (0..700).map(|number| hint(number % 3, format!("hint {number}")));
    let appended = try_append(&store, 7, burst.collect());
    let ids: Vec<HintId> = appended.into_iter().map(Result::unwrap).collect();
    make_all_dead_letters(&store);
    let began = SystemTime::now() - Duration::from_secs(1);
    let mut now = ids.clone();
    for _ in 0..3 {
        let done = handoff.redrive_all(NODE).await.unwrap();
        assert_eq!(done.hints.iter().map(|it| it.0).collect::<Vec<_>>(), now);
        now = done.hints.iter().map(|it| it.1).collect();
        assert!(done.damaged.is_empty() && now.is_sorted());
        for (hint, id) in hints(&store, 7).into_iter().zip(&ids) {
            assert_eq!(hint.hint.origin, Some((id.queue, id.sequence)));
        }
        make_all_dead_letters(&store);
    }
    let content = handoff.dead_letter(NODE, now[5]).await.unwrap();
    assert_eq!(content.redriven_from, Some(ids[5]));
    assert!(content.enqueued >= began, "it would be too old at once");
    handoff.redrive_all(NODE).await.unwrap();
    let mut consumer = handoff.consumer(NODE).unwrap();
    let peeked = consumer.peek(1000).await.unwrap();
    assert_eq!(peeked.len(), 700);
    for (peeked, id) in peeked.iter().zip(&ids) {
        assert_eq!(peeked.redriven_from, Some(*id));
    }
    consumer.ack(&peeked).await.unwrap();
    assert_eq!(handoff.redrive_all(NODE).await.unwrap().hints, []);
    handoff.shutdown().await.unwrap();
    assert_eq!(letter_keys(dir.path()), 0);
    println!("dead_letters: 700 hints sent on 4 times");
}

#[tokio::test]
async fn one_that_does_not_decode_or_does_not_read_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let strange = hinted_handoff::internals::Hint {
        format: 9,
        ..hint(1, "strange")
    };
    let strange = try_append(&store, 7, vec![strange]).remove(0).unwrap();
    let damaged = append(&store, 7, "to be damaged");
    make_all_dead_letters(&store);
    store.close().unwrap();
    changed_for_good(dir.path(), |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        let key = hints
            .iter()
            .keys()
            .map(Result::unwrap)
            .rfind(|key| key[16] == 2)
            .unwrap();
        let mut value = hints.get(&key).unwrap().unwrap().to_vec();
        *value.last_mut().unwrap() ^= 1;
        hints.insert(key, value).unwrap();
    });
    let handoff = manual(dir.path()).await;
    let content = handoff.dead_letter(NODE, strange).await.unwrap();
    assert!(content.points.is_err());
    assert_eq!((content.raw, content.format), ("strange".into(), 9));
    let error = handoff.dead_letter(NODE, damaged).await.unwrap_err();
    assert!(matches!(error, HandoffError::DamagedLetter { hint, .. } if hint == damaged));
    let done = handoff.redrive_all(NODE).await.unwrap();
    assert_eq!((done.hints.len(), done.damaged), (1, vec![damaged]));
    assert_eq!(handoff.discard_all(NODE).await.unwrap().hints, 1);
    let losses = handoff.losses(0).await.unwrap().of_node(NODE);
    assert_eq!(losses.entries.len(), 1);
    assert_eq!(handoff.losses(losses.next).await.unwrap().entries, []);
    assert_eq!(
        handoff.losses(0).await.unwrap().of_node(NodeId(1)).entries,
        []
    );
    assert_eq!(losses.entries[0].1.place.unwrap().queue, QueueId(1));
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_as_old_as_its_hint_and_one_that_is_sent_on_is_new() {
    const HOUR: Duration = Duration::from_secs(3600);
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let start = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000);
    let clock = WallClock::new(1_700_000_000_000);
    let config = Config {
        manual_nodes: [NODE].into(),
        ..config(dir.path())
    };
    let writer = ScriptedWriter::down();
    let opened = HintedHandoff::<Bytes>::open_by_clock(config, clock, writer);
    let handoff = opened.await.unwrap();
    let store = handoff.store_below();
    let first = enqueue(&handoff, "points").await;
    let mut id = first;
    for (enqueued, redriven_from) in [(start, None), (start + 2 * HOUR, Some(first))] {
        tokio::time::advance(HOUR).await;
        assert_eq!(handoff.stats().nodes[0].oldest_age, Some(HOUR));
        make_all_dead_letters(&store);
        tokio::time::advance(HOUR).await;
        let content = handoff.dead_letter(NODE, id).await.unwrap();
        assert_eq!(content.enqueued, enqueued);
        assert_eq!(content.redriven_from, redriven_from);
        id = handoff.redrive(NODE, id).await.unwrap();
        assert_eq!(handoff.stats().nodes[0].oldest_age, Some(Duration::ZERO));
    }
    handoff.shutdown().await.unwrap();
}

/// Says more than a record may hold.
struct Wordy;

impl ShardWriter<Bytes> for Wordy {
    async fn write_shard(&self, _: ShardWrite<Bytes>) -> Result<(), WriteError> {
        Err(WriteError::reject(
            ["no: ", &"\u{20ac}".repeat(100_000)].concat(),
        ))
    }
}

#[tokio::test]
async fn what_a_node_said_at_length_is_cut_behind_a_whole_character_wherever_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let handoff = HintedHandoff::open(config(dir.path()), Wordy)
        .await
        .unwrap();
    let mut events = handoff.events();
    let id = enqueue(&handoff, "points").await;
    let told = loop {
        let told = tokio::time::timeout(Duration::from_secs(20), events.recv());
        if let Event::Rejected { error, .. } = told.await.unwrap().unwrap() {
            break error;
        }
    };
    let kept = handoff.dead_letter(NODE, id).await.unwrap().letter.error;
    assert!(kept.starts_with("the node will never accept it: no: \u{20ac}"));
    assert!(kept.ends_with('\u{20ac}') && (4094..4096).contains(&kept.len()));
    assert_eq!(told, kept);
    handoff.shutdown().await.unwrap();
}
