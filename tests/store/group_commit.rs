//! Writers that wait at the same time share an fsync; a writer alone waits for nobody.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use crate::common::{self, copy};
use bytes::Bytes;
use hinted_handoff::{
    Accepted, HintedHandoff, NodeId, ShardId,
    internals::{CommitFault, Status, Store},
};
use hinted_handoff_testkit::ScriptedWriter;

async fn fsyncs_for(tasks: u64, appends_each: u64) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::down());
    let handoff = HintedHandoff::open(common::config(dir.path()), writer)
        .await
        .unwrap();
    let before = handoff.stats().store.fsyncs;
    let tasks = (0..tasks).map(|task| {
        let handoff = handoff.clone();
        tokio::spawn(async move {
            for _ in 0..appends_each {
                let payload = Bytes::from(vec![task as u8 + 1; 1800]);
                // Sixty-four nodes: a group goes over all of them.
                let accepted = handoff
                    .write_shard(NodeId(task), ShardId(1), &payload)
                    .await;
                assert!(matches!(accepted, Ok(Accepted::Durable(_))));
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let fsyncs = handoff.stats().store.fsyncs - before;
    handoff.shutdown().await.unwrap();
    fsyncs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_tasks_share_fsyncs_and_a_lone_one_pays_for_each() {
    let alone = fsyncs_for(1, 50).await;
    assert_eq!(alone, 50, "each durable answer has its fsync");
    let shared = fsyncs_for(64, 50).await;
    assert!(
        shared * 4 < 64 * 50,
        "{shared} fsyncs for {} durable appends",
        64 * 50
    );
    println!(
        "1 task: {alone} fsyncs for 50 appends; 64 tasks: {shared} fsyncs for {} appends",
        64 * 50
    );
}

/// A hint to each of so many nodes.
fn append_to_each(store: &Store, nodes: u64) {
    let (tell, told) = mpsc::channel();
    for node in 0..nodes {
        let tell = tell.clone();
        let done = move |stored: Result<_, _>| tell.send(stored.map(drop)).unwrap();
        store.append(NodeId(node), common::hint(1, "waits"), Box::new(done));
    }
    (0..nodes).for_each(|_| told.recv().unwrap().unwrap());
    common::sync(store);
}

/// Two groups and a half of cursors.
#[test]
fn a_sync_makes_all_acknowledgements_durable_however_many_queues_they_are_of() {
    const NODES: u64 = 1250;
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(common::open(dir.path()));
    append_to_each(&store, NODES);
    let claimed = (0..NODES).map(|node| (node, common::letters::claim(&store, node, 1)));
    let claimed: Vec<_> = claimed.collect();
    store.inject(CommitFault::Hang);
    for (node, hint) in claimed {
        store.deliver(NodeId(node), &[hint]).unwrap();
    }
    let (tell, told) = mpsc::channel();
    let below = Arc::clone(&store);
    store.sync(move |synced| {
        // Nothing becomes durable behind it.
        below.inject(CommitFault::Hang);
        tell.send(synced).unwrap();
    });
    store.inject(CommitFault::None);
    told.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    let crashed = copy::copy_of(dir.path());
    store.inject(CommitFault::None);
    let pending = common::open(crashed.path()).stats().pending;
    assert_eq!(pending.hints, 0);
}

#[test]
fn what_is_to_be_remembered_of_a_thousand_nodes_that_go_down_together_shares_fsyncs() {
    let dir = tempfile::tempdir().unwrap();
    let store = common::open(dir.path());
    append_to_each(&store, 1000);
    let before = store.stats().groups;
    let down = Status {
        attempts: 1,
        last_error: Some(("connection refused".to_owned(), 1_700_000_000_000)),
        heads: Vec::new(),
    };
    for node in 0..1000 {
        store.set_status(NodeId(node), down.clone());
    }
    common::sync(&store);
    let groups = store.stats().groups - before;
    assert!(groups < 25, "{groups} groups for 1,000 nodes");
    store.close().unwrap();
    let store = common::open(dir.path());
    assert!((0..1000).all(|node| store.status(NodeId(node)) == down));
}
