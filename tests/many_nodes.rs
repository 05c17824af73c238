//! A thousand nodes with a backlog each: all are found again and delivered to, and there is no
//! thread a node. `HH_CYCLES` is the number of nodes.

mod common;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use hinted_handoff::{HintedHandoff, NodeId, ShardId};
use hinted_handoff_testkit::ScriptedWriter;

const HINTS_EACH: usize = 3;

fn threads() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Threads:"));
    line.unwrap().trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_nodes_are_found_again_and_delivered_to_without_a_thread_each() {
    let nodes = std::env::var("HH_CYCLES").map_or(1000, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let config = common::config(dir.path());
    let handoff = HintedHandoff::open(config.clone(), ScriptedWriter::down())
        .await
        .unwrap();
    let tasks = (0..nodes).map(|node| {
        let handoff = handoff.clone();
        tokio::spawn(async move {
            for number in 0..HINTS_EACH {
                let points = Bytes::from(format!("{node}/{number}"));
                handoff
                    .write_shard(NodeId(node as u64), ShardId(1), &points)
                    .await
                    .unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    handoff.shutdown().await.unwrap();

    let (stop, most) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let watcher = std::thread::spawn({
        let (stop, most) = (Arc::clone(&stop), Arc::clone(&most));
        move || {
            while !stop.load(Relaxed) {
                most.fetch_max(threads(), Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let writer = Arc::new(ScriptedWriter::taking());
    let handoff = HintedHandoff::open(config, Arc::clone(&writer))
        .await
        .unwrap();
    let all = writer.until_taken(nodes * HINTS_EACH);
    tokio::time::timeout(Duration::from_secs(60), all)
        .await
        .unwrap();
    stop.store(true, Relaxed);
    watcher.join().unwrap();
    for node in handoff.stats().nodes {
        assert_eq!(node.delivered.hints + node.pending.hints, HINTS_EACH as u64);
    }
    // The test's and tokio's own, sled's pool, two of ours, two that read.
    let most = most.load(Relaxed);
    assert!(most < 60, "{most} threads for {nodes} nodes");
    println!("{nodes} nodes: {most} threads at most");
    handoff.shutdown().await.unwrap();
}
