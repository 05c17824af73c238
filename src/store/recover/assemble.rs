//! From what an open found on disk to what the threads of the store work with.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    config::Config,
    store::{
        commit::{
            backoff::Reopening,
            committer::{Committer, Tail, group_writer},
            encode_pool::Encoding,
            flush_pass::Flushing,
            trim::Trimmer,
        },
        engine::{generation::Engine, leaf_padding::LeafPadding},
        format::keys::WAL,
        home::location::Home,
        pipeline::{events::OnDurable, inbox::Dirty, shared::Shared, space::Space},
        recover::recovery::Recovered,
        state::{disk::DiskLimit, limits::Limits},
    },
    types::{NodeId, Sequence},
};

/// What the threads of a store need, given what was opened.
pub fn assemble(
    config: &Config,
    engine: Arc<Engine>,
    mut recovered: Recovered,
    home: Home,
    on_durable: OnDurable,
) -> (Arc<Shared>, Committer) {
    tracing::info!(
        path = %home.database().display(), store = %recovered.store,
        nodes = recovered.registry.nodes.len(), "store opened"
    );
    recovered.registry.limit(Limits::of(config));
    recovered.registry.quota.disk = DiskLimit::of(config);
    let shared = Arc::new(Shared::new(
        recovered.store,
        Arc::clone(&engine),
        std::mem::take(&mut recovered.registry),
        on_durable,
        matches!(home, Home::Owned { .. }),
        Space {
            dir: config.dir.clone(),
            reserve_bytes: config.min_free_disk,
        },
    ));
    let committer = committer(config.clone(), &shared, home, engine, recovered);
    (shared, committer)
}

/// The commit thread's state for what was opened, the first time or once more.
pub fn committer(
    config: Config,
    shared: &Arc<Shared>,
    home: Home,
    engine: Arc<Engine>,
    recovered: Recovered,
) -> Committer {
    let said = recovered.said.clone();
    shared.holds.lock().reload(said, &recovered.records);
    let (tails, trimmer, dirty) = take_over(shared, &recovered);
    Committer {
        shared: Arc::clone(shared),
        writer: Some(group_writer(engine, shared, &home)),
        config: Config {
            // Once is enough: a reopen goes on with the identity it has.
            reset_identity: false,
            ..config
        },
        home,
        encoding: Encoding::new(),
        records: recovered.records,
        tails,
        next_queue: recovered.next_queue,
        trimmer,
        flushing: Flushing::new(recovered.wal_next),
        journal: recovered.journal,
        dead_lettered: Vec::new(),
        redriven: recovered.redriven,
        dirty,
        statuses: BTreeSet::new(),
        reopening: Reopening::default(),
        searched: BTreeSet::new(),
        lifetimes_are_noted: false,
    }
}

type TakenOver = (HashMap<NodeId, Tail>, Trimmer, BTreeSet<Dirty>);

/// Where new hints go, and what an earlier stop left to be trimmed or retired.
fn take_over(shared: &Shared, recovered: &Recovered) -> TakenOver {
    let mut trimmer = Trimmer::default();
    for place in &recovered.letter_blocks {
        trimmer.letter(*place);
    }
    trimmer.below(WAL, recovered.wal_next);
    for (node, queue) in &recovered.retired {
        trimmer.whole(*node, *queue);
    }
    let registry = shared.registry.lock();
    let mut dirty = BTreeSet::new();
    for (node, at) in &recovered.live {
        let Some(queue) = registry.queue(*node, *at) else {
            continue;
        };
        let redriven = recovered.redriven.keys().any(|now| now.queue == *at);
        if redriven || (queue.closed && queue.is_drained()) {
            // Writing its cursor retires it, and looks after what points to it.
            dirty.insert((*node, *at));
        } else {
            trimmer.below(*at, queue.cursor.next);
        }
    }
    let last = registry.nodes.iter().filter_map(|(node, queues)| {
        let queue = queues.queues.back().filter(|queue| !queue.closed)?;
        let tail = Tail {
            queue: queue.at,
            next: Sequence(queue.watermark.0 + 1),
            bytes: queue.bytes,
            padding: LeafPadding::default(),
        };
        Some((*node, tail))
    });
    (last.collect(), trimmer, dirty)
}
