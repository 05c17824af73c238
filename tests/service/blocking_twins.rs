//! The `_blocking` twins of the calls: one rule for all of them.
//!
//! Method: every twin is called on a thread that drives a runtime, of both kinds, where it must
//! panic at once and say why, and on one that may block, where it must answer. The table is held
//! against the source, so that no twin is left out.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    time::Duration,
};

use crate::common::config;
use bytes::Bytes;
use hinted_handoff::{
    ConsistencyLevel, DeadReason, HintedHandoff, NodeId, Pause, PointsWriter, RowBatch, Shard,
    ShardId, database_config, open_database,
};
use hinted_handoff_testkit::ScriptedWriter;
use tokio::runtime::{Builder, Handle, Runtime};

const NODE: NodeId = NodeId(2);
const MANUAL: NodeId = NodeId(9);
const SHARD: ShardId = ShardId(7);
const SOON: Duration = Duration::from_secs(20);
/// Nobody waits for long for what cannot come.
const A_MOMENT: Duration = Duration::from_millis(50);

/// A store in a database of the host's, and all that the twins need.
struct Host {
    handoff: HintedHandoff<Bytes>,
    writer: PointsWriter<Bytes, ScriptedWriter>,
    rows: hinted_handoff::sled::Tree,
    runtime: Handle,
    dir: tempfile::TempDir,
}

/// A runtime for the service, and the host, with a hint for each node.
fn host(mut builder: Builder) -> (Runtime, Arc<Host>) {
    let runtime = builder.worker_threads(1).enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let db = open_database(&database_config(dir.path())).unwrap();
    let rows = db.open_tree("rows").unwrap();
    let mut config = config(dir.path());
    config.manual_nodes.insert(MANUAL);
    let on = runtime.handle().clone();
    let handoff = HintedHandoff::open_in_blocking(&db, config, ScriptedWriter::down(), on).unwrap();
    for node in [NODE, MANUAL] {
        let points = Bytes::from_static(b"points");
        handoff.write_shard_blocking(node, SHARD, &points).unwrap();
    }
    let host = Host {
        writer: PointsWriter::new(handoff.clone(), ScriptedWriter::taking()),
        handoff,
        rows,
        runtime: runtime.handle().clone(),
        dir,
    };
    (runtime, Arc::new(host))
}

type Call = fn(&Host);

/// All twins, with calls that are answered soon; whether well does not matter.
fn twins() -> Vec<(&'static str, Call)> {
    fn id(host: &Host) -> hinted_handoff::HintId {
        hinted_handoff::HintId {
            store: host.handoff.stats().store.store,
            queue: hinted_handoff::QueueId(1),
            sequence: hinted_handoff::Sequence(1),
        }
    }
    vec![
        ("open_blocking", |host| {
            let other = config(&host.dir.path().join("other"));
            let on = host.runtime.clone();
            let opened = HintedHandoff::<Bytes>::open_blocking(other, ScriptedWriter::down(), on);
            drop(opened);
        }),
        ("open_in_blocking", |host| {
            // The database is taken: that is an answer, too.
            let path = host.dir.path().join("third");
            let db = open_database(&database_config(&path)).unwrap();
            let (config, on) = (config(&path), host.runtime.clone());
            let writer = ScriptedWriter::down();
            let opened = HintedHandoff::<Bytes>::open_in_blocking(&db, config, writer, on);
            drop(opened);
        }),
        ("write_shard_blocking", |host| {
            let points = Bytes::from_static(b"more");
            let _ = host.handoff.write_shard_blocking(NODE, SHARD, &points);
        }),
        ("write_blocking", |host| {
            let shard = Shard {
                id: SHARD,
                owners: vec![NODE],
            };
            let points = Bytes::from_static(b"more");
            let _ = (host.writer).write_blocking(&shard, ConsistencyLevel::Any, points);
        }),
        ("sync_blocking", |host| drop(host.handoff.sync_blocking())),
        ("reconfigure_blocking", |host| {
            let changed = host.handoff.reconfigure_blocking(|it| it.max_attempts = 9);
            drop(changed);
        }),
        ("discard_hints_blocking", |host| {
            let every = hinted_handoff::HintsMeant::default();
            drop(host.handoff.discard_hints_blocking(NODE, every));
        }),
        ("rehint_blocking", |host| {
            drop(host.handoff.rehint_blocking(NODE, |_| vec![MANUAL]));
        }),
        ("import_blocking", |host| {
            drop(host.handoff.import_blocking(Vec::new()));
        }),
        ("losses_blocking", |host| {
            drop(host.handoff.losses_blocking(0))
        }),
        ("barrier_blocking", |host| {
            drop(host.handoff.barrier_blocking(&[NODE]))
        }),
        ("wait_blocking", |host| {
            let handoff = host.handoff.clone();
            // Made elsewhere, since this thread may be one that must not block.
            let made = std::thread::spawn(move || handoff.barrier_blocking(&[NODE]));
            let made = made.join().unwrap().unwrap();
            drop(host.handoff.wait_blocking(&made, A_MOMENT));
        }),
        ("drain_blocking", |host| {
            drop(host.handoff.drain_blocking(NODE, A_MOMENT))
        }),
        ("dead_letters_blocking", |host| {
            drop(host.handoff.dead_letters_blocking(NODE, None, 1));
        }),
        ("pending_hints_blocking", |host| {
            drop(host.handoff.pending_hints_blocking(NODE, None, 1));
        }),
        ("dead_letter_blocking", |host| {
            let _ = host.handoff.dead_letter_blocking(NODE, id(host));
        }),
        ("redrive_blocking", |host| {
            drop(host.handoff.redrive_blocking(NODE, id(host)))
        }),
        ("redrive_all_blocking", |host| {
            drop(host.handoff.redrive_all_blocking(NODE))
        }),
        ("discard_blocking", |host| {
            drop(host.handoff.discard_blocking(NODE, &[id(host)]));
        }),
        ("discard_all_blocking", |host| {
            drop(host.handoff.discard_all_blocking(NODE))
        }),
        ("pause_blocking", |host| {
            drop(host.handoff.pause_blocking(NODE, Pause::UntilRestart));
        }),
        ("resume_blocking", |host| {
            drop(host.handoff.resume_blocking(NODE))
        }),
        ("pause_all_blocking", |host| {
            drop(host.handoff.pause_all_blocking(Pause::UntilRestart));
        }),
        ("resume_all_blocking", |host| {
            drop(host.handoff.resume_all_blocking())
        }),
        ("retain_nodes_blocking", |host| {
            drop(host.handoff.retain_nodes_blocking(&[NODE]));
        }),
        ("drain_and_remove_blocking", |host| {
            drop(host.handoff.drain_and_remove_blocking(NODE, A_MOMENT));
        }),
        ("cancel_removal_blocking", |host| {
            drop(host.handoff.cancel_removal_blocking(NODE));
        }),
        ("retain_only_nodes_blocking", |host| {
            drop(host.handoff.retain_only_nodes_blocking(&[NODE, MANUAL]));
        }),
        ("rename_node_blocking", |host| {
            drop(host.handoff.rename_node_blocking(NODE, NodeId(5)));
        }),
        ("remove_node_blocking", |host| {
            drop(host.handoff.remove_node_blocking(NodeId(5)));
        }),
        ("transaction_blocking", |host| {
            drop(
                host.handoff
                    .transaction_blocking(&[&host.rows], |_, _| Ok(())),
            );
        }),
        ("apply_blocking", |host| {
            let mut batch = RowBatch::new();
            batch.insert(&host.rows, "key", "value").unwrap();
            drop(host.handoff.apply_blocking(batch));
        }),
        ("ready_blocking", |host| {
            drop(host.handoff.consumer(MANUAL).unwrap().ready_blocking());
        }),
        ("peek_blocking", |host| {
            drop(host.handoff.consumer(MANUAL).unwrap().peek_blocking(1));
        }),
        ("ack_blocking", |host| {
            drop(host.handoff.consumer(MANUAL).unwrap().ack_blocking(&[]));
        }),
        ("make_dead_letter_blocking", |host| {
            let mut consumer = host.handoff.consumer(MANUAL).unwrap();
            drop(consumer.make_dead_letter_blocking(
                id(host),
                DeadReason::Rejected,
                "a test says so",
            ));
        }),
        // The last one.
        ("shutdown_blocking", |host| {
            drop(host.handoff.shutdown_blocking())
        }),
    ]
}

/// What became of a call on a thread of its own.
fn called(call: impl FnOnce() + Send + 'static) -> &'static str {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(call));
        let text = match &result {
            Ok(()) => "answered",
            Err(panic) => {
                let owned = panic.downcast_ref::<String>().map(String::as_str);
                let text = owned.or(panic.downcast_ref::<&str>().copied());
                match text.is_some_and(|it| it.contains("Cannot block the current thread")) {
                    true => "refused",
                    false => "panicked",
                }
            }
        };
        let _ = tell.send(text);
    });
    told.recv_timeout(SOON).unwrap_or("hangs")
}

fn outcomes(flavor: &'static str) -> Vec<(&'static str, &'static str)> {
    let (_service, host) = host(Builder::new_multi_thread());
    let outcomes = twins().into_iter().map(|(name, call)| {
        let host = Arc::clone(&host);
        let outcome = called(move || {
            if flavor == "none" {
                return call(&host);
            }
            let runtime = match flavor {
                "current_thread" => Builder::new_current_thread().enable_all().build(),
                _ => Builder::new_multi_thread()
                    .worker_threads(1)
                    .enable_all()
                    .build(),
            };
            runtime.unwrap().block_on(async { call(&host) });
        });
        (name, outcome)
    });
    outcomes.collect()
}

fn all_are(wanted: &str, flavor: &'static str) {
    let outcomes = outcomes(flavor);
    println!("{flavor}: {outcomes:?}");
    let others: Vec<_> = outcomes.iter().filter(|(_, it)| *it != wanted).collect();
    assert!(others.is_empty(), "not {wanted} on {flavor}: {others:?}");
}

#[test]
fn every_twin_is_refused_at_once_on_a_thread_that_drives_a_runtime() {
    all_are("refused", "current_thread");
    all_are("refused", "multi_thread");
}

#[test]
fn every_twin_answers_on_a_thread_that_drives_none() {
    all_are("answered", "none");
}

/// What they wait for may need that very thread.
#[test]
fn every_twin_is_refused_on_the_only_thread_of_its_own_service() {
    let outcomes = twins().into_iter().map(|(name, call)| {
        let (service, host) = host(Builder::new_current_thread());
        let outcome = called(move || service.block_on(async { call(&host) }));
        (name, outcome)
    });
    let outcomes: Vec<_> = outcomes.collect();
    println!("its own: {outcomes:?}");
    let others: Vec<_> = outcomes.iter().filter(|(_, it)| *it != "refused").collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn the_table_has_every_twin_of_the_source() {
    let mut found = Vec::new();
    let mut folders = vec![std::path::PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let names = text.lines().filter_map(|line| {
                        let rest = line.trim().strip_prefix("pub fn ")?;
                        let name = rest.split(['(', '<']).next()?;
                        name.ends_with("_blocking").then(|| name.to_owned())
                    });
                    found.extend(names);
                }
            }
        }
    }
    found.sort();
    let mut named: Vec<_> = twins().iter().map(|(name, _)| (*name).to_owned()).collect();
    named.sort();
    assert_eq!(named, found);
}
