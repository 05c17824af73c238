//! Renaming a destination, and merging it into another.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use hinted_handoff::{Amount, HandoffError, NodeId, NodeState, Pause};
use hinted_handoff_testkit::{Reply, ScriptedWriter};

use super::host::{Host, STOPS, Stop, a_while, of_shard, texts};
use crate::common::{self, within};

const FROM: NodeId = NodeId(2);
const TO: NodeId = NodeId(3);

#[tokio::test]
async fn a_merged_node_has_the_hints_of_both_in_order_under_their_ids() {
    for stop in [None, Some(Stop::Clean), Some(Stop::Unclean)] {
        let mut host = Host::new(ScriptedWriter::down()).await;
        let mut ids = BTreeMap::new();
        for text in ["from 1", "from 2", "from 3", "from 4"] {
            let shard = u64::from(text.ends_with(['2', '4'])) + 1;
            ids.insert(text, host.write(FROM, shard, text).await);
        }
        for text in ["to 1", "to 2"] {
            ids.insert(text, host.write(TO, 1, text).await);
        }
        let moved = host.handoff.rename_node(FROM, TO).await.unwrap();
        assert_eq!(
            moved,
            Amount {
                hints: 4,
                bytes: 24
            }
        );
        assert!(host.stats(FROM).is_none());
        let stats = host.stats(TO).unwrap();
        assert_eq!((stats.pending.hints, stats.enqueued.hints), (6, 6));
        ids.insert("later", host.write(TO, 1, "later").await);
        let old = [ids["from 1"].queue, ids["to 1"].queue];
        assert!(!old.contains(&ids["later"].queue));

        if let Some(stop) = stop {
            host = host.restart(stop, ScriptedWriter::down()).await;
            assert!(host.stats(FROM).is_none());
            assert_eq!(host.pending(TO), 7);
        }
        ids.insert("last", host.write(TO, 1, "last").await);
        host.writer.follow_pings(|_| Reply::Take);
        host.writer.follow(|_| Reply::Take);
        host.taken(8).await;
        let sent = host.sent(TO);
        let first = ["from 1", "from 3", "to 1", "to 2", "later", "last"];
        assert_eq!(of_shard(&sent, 1), first, "{stop:?}");
        assert_eq!(of_shard(&sent, 2), ["from 2", "from 4"], "{stop:?}");
        for (id, _, text) in &sent {
            assert_eq!(*id, ids[text.as_str()], "{text}");
        }
        assert!(host.sent(FROM).is_empty());
        let host = host.restart(Stop::Clean, ScriptedWriter::taking()).await;
        a_while().await;
        assert!(host.writer.seen().is_empty(), "it came again");
        host.handoff.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_name_that_was_given_up_begins_anew_beside_the_hints_that_left_it() {
    for stop in STOPS {
        let host = Host::new(ScriptedWriter::down()).await;
        let old = host.write(FROM, 1, "moved").await;
        let moved = host.handoff.rename_node(FROM, TO).await.unwrap();
        assert_eq!(moved.hints, 1);
        let anew = host.write(FROM, 1, "anew").await;
        assert!(anew.queue > old.queue);
        assert_eq!(anew.sequence.0, 1);
        let host = host.restart(stop, ScriptedWriter::down()).await;
        assert_eq!((host.pending(FROM), host.pending(TO)), (1, 1), "{stop:?}");
        // Removing the one takes nothing of the other.
        assert_eq!(host.handoff.remove_node(FROM).await.unwrap().hints, 1);
        assert_eq!(host.pending(TO), 1);
        host.write(FROM, 1, "once more").await;
        assert_eq!(host.handoff.remove_node(TO).await.unwrap().hints, 1);
        let host = host.restart(stop, ScriptedWriter::taking()).await;
        host.taken(1).await;
        a_while().await;
        assert_eq!(host.writer.taken(), ["once more"], "{stop:?}");
        host.handoff.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn nothing_comes_again_that_was_delivered_before_a_rename() {
    for stop in STOPS {
        // Takes three, a hint a send.
        let mut left = 3;
        let some = ScriptedWriter::new(move |_| {
            left -= 1;
            match left >= 0 {
                true => Reply::Take,
                false => Reply::Retry,
            }
        });
        let host = Host::with(some, |config| config.batch_bytes = 1).await;
        for text in ["1", "2", "3", "4", "5"] {
            host.write(FROM, 1, text).await;
        }
        host.until("three", |it| it.pending(FROM) == 2).await;
        let moved = host.handoff.rename_node(FROM, TO).await.unwrap();
        assert_eq!(moved.hints, 2);
        assert_eq!(host.stats(TO).unwrap().delivered.hints, 3);
        let host = host.restart(stop, ScriptedWriter::taking()).await;
        host.taken(2).await;
        a_while().await;
        assert_eq!(texts(&host.sent(TO)), ["4", "5"], "{stop:?}");
        host.handoff.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_node_that_gets_its_old_name_back_is_sent_its_hints_in_the_order_in_which_they_came() {
    for stop in [Stop::Clean, Stop::Unclean] {
        let host = Host::new(ScriptedWriter::down()).await;
        host.write(FROM, 1, "first").await;
        host.handoff.rename_node(FROM, TO).await.unwrap();
        host.write(TO, 1, "elsewhere").await;
        host.write(FROM, 1, "second").await;
        host.handoff.rename_node(TO, FROM).await.unwrap();
        host.write(FROM, 1, "third").await;
        let host = host.restart(stop, ScriptedWriter::taking()).await;
        host.taken(4).await;
        let sent = host.sent(FROM);
        let sent = of_shard(&sent, 1);
        assert_eq!(sent, ["first", "elsewhere", "second", "third"], "{stop:?}");
        host.handoff.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn names_that_change_back_and_forth_use_no_id_twice_and_their_lists_do_not_grow() {
    let host = Host::new(ScriptedWriter::taking()).await;
    let mut ids = BTreeSet::new();
    let (mut name, mut other) = (FROM, TO);
    for round in 0..60_usize {
        let id = host.write(name, 1, &round.to_string()).await;
        assert!(ids.insert((id.queue, id.sequence)), "{id} was used twice");
        if round % 3 > 0 {
            host.taken(round + 1).await;
        }
        host.handoff.rename_node(name, other).await.unwrap();
        (name, other) = (other, name);
    }
    host.taken(60).await;
    let expected: Vec<_> = (0..60).map(|it| it.to_string()).collect();
    assert_eq!(host.writer.taken(), expected);
    host.until("drained", |it| it.pending(name) == 0).await;
    // Each goes with a group of its own, and so does what it left on disk.
    for _ in 0..20 {
        host.handoff.sync().await.unwrap();
        a_while().await;
    }
    host.handoff.shutdown().await.unwrap();
    let longest = common::behind_its_back(host.dir.path(), |db| {
        let nodes = db.open_tree("hh/nodes").unwrap();
        let records = nodes.iter().values().map(Result::unwrap);
        records.map(|value| value.len()).max().unwrap()
    });
    assert!(longest < 100, "a record of {longest} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_written_while_a_node_is_renamed_come_before_or_after_it_and_none_is_lost() {
    let host = Arc::new(Host::new(ScriptedWriter::taking()).await);
    let stop = Arc::new(AtomicBool::new(false));
    let writers = (1..=4).map(|shard| {
        let (host, stop) = (Arc::clone(&host), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut ids = Vec::new();
            while !stop.load(Relaxed) {
                let text = format!("{shard}/{}", ids.len());
                ids.push(host.write(FROM, shard, &text).await);
            }
            ids
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut renamed = 0;
    for _ in 0..40 {
        match within(host.handoff.rename_node(FROM, TO)).await {
            Ok(_) => renamed += 1,
            Err(HandoffError::UnknownNode { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    stop.store(true, Relaxed);
    let mut ids = BTreeSet::new();
    for writer in writers {
        ids.extend(
            within(writer)
                .await
                .unwrap()
                .into_iter()
                .map(|it| (it.queue, it.sequence)),
        );
    }
    assert!(renamed > 5);
    host.taken(ids.len()).await;
    let mut came = BTreeSet::new();
    for seen in host.writer.seen() {
        for id in seen.hints {
            assert!(came.insert((id.queue, id.sequence)), "{id} came twice");
        }
    }
    assert_eq!(came, ids);
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_caller_who_gives_up_leaves_a_node_that_is_replayed() {
    for give_up_after in 0..8 {
        let host = Host::new(ScriptedWriter::down()).await;
        host.write(FROM, 1, "a").await;
        host.write(TO, 1, "b").await;
        let renaming = host.handoff.rename_node(FROM, TO);
        let patience = Duration::from_micros(300 * give_up_after);
        let _gave_up = tokio::time::timeout(patience, renaming).await;
        let removing = host.handoff.drain_and_remove(FROM, Duration::ZERO);
        let _gave_up = tokio::time::timeout(patience, removing).await;
        host.writer.follow_pings(|_| Reply::Take);
        host.writer.follow(|_| Reply::Take);
        host.taken(2).await;
        host.write(TO, 1, "c").await;
        host.taken(3).await;
        host.handoff.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_renamed_is_said_by_name_and_stays() {
    let manual = NodeId(9);
    let host = Host::with(ScriptedWriter::down(), |config| {
        config.manual_nodes = [manual].into();
    })
    .await;
    let unknown = host.handoff.rename_node(FROM, TO).await;
    assert!(matches!(
        unknown,
        Err(HandoffError::UnknownNode { node: FROM, .. })
    ));
    host.write(FROM, 1, "a").await;
    let same = host.handoff.rename_node(FROM, FROM).await;
    assert!(matches!(
        same,
        Err(HandoffError::SameNode { node: FROM, .. })
    ));
    let same = host.handoff.rename_node(TO, TO).await;
    assert!(matches!(same, Err(HandoffError::SameNode { node: TO, .. })));

    let consumer = host.handoff.consumer(manual).unwrap();
    for (from, to) in [(FROM, manual), (manual, FROM)] {
        let consumed = host.handoff.rename_node(from, to).await;
        assert!(matches!(consumed, Err(HandoffError::Consumed { node, .. }) if node == manual));
    }
    drop(consumer);
    assert_eq!(host.pending(FROM), 1);
    host.handoff.rename_node(FROM, manual).await.unwrap();
    let mut consumer = host.handoff.consumer(manual).unwrap();
    let peeked = within(consumer.peek(9)).await.unwrap();
    assert_eq!(peeked[0].points, "a");
    drop(consumer);
    host.handoff.rename_node(manual, TO).await.unwrap();
    let mut consumer = host.handoff.consumer(manual).unwrap();
    assert!(consumer.ack(&peeked).await.is_err(), "it is another's now");
    drop(consumer);
    assert_eq!(host.pending(TO), 1);

    host.handoff.shutdown().await.unwrap();
    let late = host.handoff.rename_node(TO, FROM).await;
    assert!(matches!(late, Err(HandoffError::ShutDown)));
}

#[tokio::test]
async fn a_pause_goes_with_a_node_to_a_new_name_and_does_not_come_with_one_that_is_merged() {
    for stop in STOPS {
        let (new, left) = (NodeId(4), NodeId(5));
        let host = Host::new(ScriptedWriter::down()).await;
        for node in [FROM, TO, left] {
            host.write(node, 1, "waits").await;
        }
        host.handoff.pause(FROM, Pause::Lasting).await.unwrap();
        host.handoff.rename_node(FROM, new).await.unwrap();
        assert_eq!(host.state(new), NodeState::Paused);
        host.write(FROM, 1, "anew").await;
        // Where a parked node is renamed to is in the cluster.
        host.handoff.retain_nodes(&[FROM, TO, new]).await.unwrap();
        host.handoff.rename_node(left, NodeId(6)).await.unwrap();

        let host = host.restart(stop, ScriptedWriter::down()).await;
        assert_eq!(host.state(new), NodeState::Paused, "{stop:?}");
        assert_eq!(host.stats(FROM).unwrap().paused, None);
        assert_eq!(host.stats(NodeId(6)).unwrap().parked_since_unix_ms, None);
        host.handoff.rename_node(new, TO).await.unwrap();
        assert_eq!(host.stats(TO).unwrap().paused, None);
        assert_eq!(host.pending(TO), 2);
        host.handoff.shutdown().await.unwrap();
    }
}

/// The disk gives an old record back: the one that listed the queue before it was moved.
#[test]
fn a_queue_that_two_records_list_is_drained_for_the_node_that_got_it() {
    for stop in STOPS {
        let dir = tempfile::tempdir().unwrap();
        let store = common::open(dir.path());
        common::append(&store, FROM.0, "moved");
        store.close().unwrap();
        let old = common::behind_its_back(dir.path(), |db| {
            let nodes = db.open_tree("hh/nodes").unwrap();
            nodes.get(FROM.0.to_be_bytes()).unwrap().unwrap()
        });
        let store = common::open(dir.path());
        let (tell, told) = std::sync::mpsc::channel();
        store.rename_node(FROM, TO, move |result| tell.send(result).unwrap());
        assert_eq!(told.recv().unwrap().unwrap().hints, 1);
        store.close().unwrap();
        common::changed_for_good(dir.path(), |db| {
            let nodes = db.open_tree("hh/nodes").unwrap();
            nodes.insert(FROM.0.to_be_bytes(), old).unwrap();
        });
        if stop == Stop::Unclean {
            std::fs::remove_file(common::generation(dir.path()).join("CLEAN")).unwrap();
        }
        for open in 0..2 {
            let store = common::open(dir.path());
            assert_eq!(common::payloads(&store, TO.0), ["moved"], "{stop:?}");
            assert!(common::hints(&store, FROM.0).is_empty(), "{stop:?}");
            let damage = store.stats().damage;
            assert_eq!(damage.len(), usize::from(open == 0), "{damage:?}");
            store.close().unwrap();
        }
    }
}

/// The other way round: the disk lost the record of the node that a queue was moved to. After a
/// clean stop it is known who that was.
#[test]
fn a_queue_whose_new_node_lost_its_record_is_that_nodes_still_or_goes_back_to_the_one_in_its_keys()
{
    for stop in STOPS {
        let dir = tempfile::tempdir().unwrap();
        let store = common::open(dir.path());
        common::append(&store, FROM.0, "moved");
        let (tell, told) = std::sync::mpsc::channel();
        store.rename_node(FROM, TO, move |result| tell.send(result).unwrap());
        told.recv().unwrap().unwrap();
        common::append(&store, FROM.0, "anew");
        store.close().unwrap();
        common::changed_for_good(dir.path(), |db| {
            let nodes = db.open_tree("hh/nodes").unwrap();
            nodes.remove(TO.0.to_be_bytes()).unwrap();
        });
        if stop == Stop::Unclean {
            std::fs::remove_file(common::generation(dir.path()).join("CLEAN")).unwrap();
        }
        let store = common::open(dir.path());
        assert_eq!(store.stats().damage.len(), 1, "{stop:?}");
        let node = match stop {
            Stop::Clean => TO,
            Stop::Unclean => FROM,
        };
        let first = common::hints(&store, node.0).remove(0);
        assert_eq!(first.hint.payload, "moved", "{stop:?}");
        store
            .ack(
                node,
                first.mark,
                hinted_handoff::internals::Leave::Delivered,
            )
            .unwrap();
        assert_eq!(common::payloads(&store, FROM.0), ["anew"], "{stop:?}");
        store.close().unwrap();
    }
}
