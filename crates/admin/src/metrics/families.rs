//! What is measured: `Stats` as metrics. What `Stats` gets more of is added here.
//!
//! - A count of a node: a row of [`NODE_COUNTERS`].
//! - Anything else of a node that is summed up for the rest: a row of [`NODE_GAUGES`].
//! - A figure of the store: a row of [`STORE_GAUGES`] or [`STORE_COUNTERS`].
//! - What has labels of its own, or is a histogram: [`store`].

use std::fmt;

use hinted_handoff::{Config, Gate, Health, LossReason, NodeId, NodeStats, Stats};

use super::{
    attribution::Shown,
    out::{Out, Unit},
};
use crate::{
    disk::Filling,
    health,
    summary::{STATES, Summary, state_name},
};

/// How a count of a node is called, what it is, its unit, and where it is from.
pub type NodeCounter = (
    &'static str,
    &'static str,
    Option<Unit>,
    fn(&NodeStats) -> u64,
);

/// Counts of each node, since the store was opened.
pub const NODE_COUNTERS: [NodeCounter; 8] = [
    (
        "node_enqueued_hints",
        "Hints stored for the node",
        None,
        |it| it.enqueued.hints,
    ),
    (
        "node_delivered_hints",
        "Hints that the node took",
        None,
        |it| it.delivered.hints,
    ),
    (
        "node_delivered",
        "Payload bytes of hints that the node took",
        Some(Unit::Bytes),
        |it| it.delivered.bytes,
    ),
    (
        "node_lost_hints",
        "Hints that left undelivered",
        None,
        |it| it.lost.hints,
    ),
    (
        "node_dead_lettered_hints",
        "Hints that became dead letters",
        None,
        |it| it.dead_lettered.hints,
    ),
    (
        "node_not_stored_copies",
        "Copies of writes that were neither sent nor stored",
        None,
        |it| it.not_stored.hints,
    ),
    (
        "node_send_failures",
        "Pings and sends that failed",
        None,
        |it| it.failures,
    ),
    (
        "node_refused_hints",
        "Hints refused because a limit had no room",
        None,
        |it| it.refused,
    ),
];

/// How a figure of a node is called, what it is, its unit, and where it is from. Of the rest it is
/// the sum.
type NodeGauge = (
    &'static str,
    &'static str,
    Option<Unit>,
    fn(&NodeStats) -> u64,
);

const NODE_GAUGES: [NodeGauge; 4] = [
    ("node_pending_hints", "Hints that wait", None, |it| {
        it.pending.hints
    }),
    (
        "node_pending",
        "Payload bytes of hints that wait",
        Some(Unit::Bytes),
        |it| it.pending.bytes,
    ),
    (
        "node_in_flight_hints",
        "Hints that are being sent",
        None,
        |it| it.in_flight,
    ),
    (
        "node_dead_letters",
        "Dead letters that are kept",
        None,
        |it| it.dead_letters.hints,
    ),
];

/// What is known even if there is no handoff any more.
pub fn state(out: &mut Out<'_>, health: &Health, is_up: bool) -> fmt::Result {
    out.gauge(
        "up",
        "Whether the handoff is there",
        None,
        [([], u64::from(is_up))],
    )?;
    let now = health::name(health);
    let states = health::NAMES.map(|name| ([("state", name)], u64::from(name == now)));
    out.gauge("health", "1 for how the store is", None, states)
}

/// How a figure of the store is called, what it is, its unit, and where it is from.
type StoreFigure = (&'static str, &'static str, Option<Unit>, fn(&Stats) -> u64);

const STORE_GAUGES: [StoreFigure; 7] = [
    (
        "pending_hints",
        "Hints that wait, of all nodes",
        None,
        |it| it.store.pending.hints,
    ),
    (
        "pending",
        "Payload bytes of hints that wait",
        Some(Unit::Bytes),
        |it| it.store.pending.bytes,
    ),
    (
        "log",
        "Length of the log of the engine on the disk",
        Some(Unit::Bytes),
        |it| it.store.log_bytes,
    ),
    (
        "reserve",
        "Below so much free disk nothing is accepted",
        Some(Unit::Bytes),
        |it| it.store.reserve_bytes,
    ),
    ("damage_records", "Damage found since open", None, |it| {
        it.store.damage.len() as u64 + it.store.damage_not_listed
    }),
    ("paused_all", "Whether all replay is paused", None, |it| {
        u64::from(it.paused_all.is_some())
    }),
    (
        "gates_closed",
        "Nodes whose writes are hinted at once",
        None,
        |it| it.nodes.iter().filter(|it| it.gate != Gate::Open).count() as u64,
    ),
];

/// Counts since the store was opened.
const STORE_COUNTERS: [StoreFigure; 9] = [
    ("enqueued_hints", "Hints stored", None, |it| {
        it.store.enqueued.hints
    }),
    (
        "enqueued",
        "Payload bytes of hints stored",
        Some(Unit::Bytes),
        |it| it.store.enqueued.bytes,
    ),
    ("groups", "Commit groups written", None, |it| {
        it.store.groups
    }),
    ("fsyncs", "Times the log was fsynced", None, |it| {
        it.store.fsyncs
    }),
    (
        "transactions",
        "Transactions of the host committed",
        None,
        |it| it.store.transactions,
    ),
    (
        "conflicts",
        "Runs of transactions that lost a race",
        None,
        |it| it.store.conflicts,
    ),
    (
        "engine",
        "Bytes handed to the engine",
        Some(Unit::Bytes),
        |it| it.store.engine_bytes,
    ),
    (
        "reopens",
        "Times the store failed and was opened again",
        None,
        |it| it.store.reopened,
    ),
    ("compactions", "Times the store was compacted", None, |it| {
        it.store.compactions
    }),
];

/// The store, and all nodes together.
pub fn store(out: &mut Out<'_>, stats: &Stats, config: &Config) -> fmt::Result {
    let store = &stats.store;
    for (name, help, unit, value) in STORE_GAUGES {
        out.gauge(name, help, unit, [([], value(stats))])?;
    }
    if let Some(free) = store.free_disk_bytes {
        let help = "Free on the store's disk";
        out.gauge("free_disk", help, Some(Unit::Bytes), [([], free)])?;
    }
    for (name, help, unit, value) in STORE_COUNTERS {
        out.counter(name, help, unit, [([], value(stats))])?;
    }
    let sum = Summary::of(stats);
    let states = STATES.map(state_name).map(|state| {
        let nodes = sum.states.get(state).copied().unwrap_or_default();
        ([("state", state)], nodes)
    });
    out.gauge("nodes", "Nodes by state", None, states)?;

    let (disk, full) = (stats.store.refused_for_space, stats.store.refused_when_full);
    let refused = [("disk", disk), ("full", full)];
    let refused = refused.map(|(reason, value)| ([("reason", reason)], value));
    out.counter("refused_hints", "Hints refused", None, refused)?;
    let lost = LossReason::ALL.iter().map(|reason| {
        let lost = store.lost.get(reason).copied().unwrap_or_default();
        (name_of(*reason), lost.hints)
    });
    let lost: Vec<(String, u64)> = lost.collect();
    let lost = lost
        .iter()
        .map(|(reason, hints)| ([("reason", reason.as_str())], *hints));
    let help = "Hints that left undelivered, and copies that were not stored";
    out.counter("lost_hints", help, None, lost)?;
    let help = "From the hand-over of hints until they are on disk";
    out.histogram("append", help, &store.append_times)?;
    out.histogram(
        "group",
        "A commit group, with its fsync",
        &store.group_times,
    )?;
    let help = "A send of replay, whatever came of it";
    out.histogram("send", help, &stats.send_times)?;
    limits(out, config)?;
    let it = &stats.writes;
    let outcomes = [
        ("direct", it.direct),
        ("hinted", it.hinted.saturating_sub(it.backlogged)),
        ("backlogged", it.backlogged),
        ("withdrawn", it.withdrawn),
        ("rejected", it.rejected),
        ("unstored", it.unstored),
    ];
    let outcomes = outcomes.map(|(outcome, value)| ([("outcome", outcome)], value));
    let help = "Copies of fan-out writes by what became of them";
    out.counter("writes", help, None, outcomes)
}

/// No sample where the disk does not fill, or that is not known.
pub fn until_full(out: &mut Out<'_>, filling: Filling) -> fmt::Result {
    let seconds = filling.full_in().map(|time| ([], time.as_secs_f64()));
    let help = "Until the disk has no room, at the rate of the last minutes";
    out.gauge("until_full", help, Some(Unit::Seconds), seconds)
}

/// As it is in JSON.
fn name_of(reason: LossReason) -> String {
    let json = serde_json::to_value(reason).unwrap_or_default();
    json.as_str().unwrap_or("other").to_owned()
}

/// What may be pending, as far as that is bounded.
fn limits(out: &mut Out<'_>, config: &Config) -> fmt::Result {
    let bytes = Some(Unit::Bytes);
    let limits = [
        ("limit_hints", None, config.max_hints),
        ("limit", bytes, config.max_bytes),
        ("limit_node_hints", None, config.max_hints_per_node),
        ("limit_node", bytes, config.max_bytes_per_node),
        ("limit_disk", bytes, config.max_disk_bytes),
    ];
    for (name, unit, limit) in limits {
        if let Some(limit) = limit {
            let help = "The most that may be pending, or stand on the disk";
            out.gauge(name, help, unit, [([], limit)])?;
        }
    }
    Ok(())
}

/// Each node that is shown, and the rest.
pub fn nodes(out: &mut Out<'_>, shown: &[Shown<'_>]) -> fmt::Result {
    for (name, help, unit, value) in NODE_GAUGES {
        let all = shown.iter().map(|it| {
            let sum = it.nodes.iter().map(|node| value(node)).sum::<u64>();
            ([("node", it.label.as_str())], sum)
        });
        out.gauge(name, help, unit, all)?;
    }
    let oldest = shown.iter().filter_map(|it| {
        let age = it.nodes.iter().filter_map(|node| node.oldest_age).max()?;
        Some(([("node", it.label.as_str())], age.as_secs_f64()))
    });
    let help = "Age of the oldest hint that waits, if one does";
    out.gauge("node_oldest_age", help, Some(Unit::Seconds), oldest)?;
    let known = shown.iter().filter_map(|it| {
        let left = it.one()?.caught_up_in?;
        Some(([("node", it.label.as_str())], left.as_secs_f64()))
    });
    let help = "How long until nothing waits, where hints are taken";
    out.gauge("node_caught_up_in", help, Some(Unit::Seconds), known)?;
    let states = shown.iter().filter_map(|it| {
        let state = state_name(it.one()?.state);
        Some(([("node", it.label.as_str()), ("state", state)], 1))
    });
    out.gauge(
        "node_state",
        "1 for the state that the node is in",
        None,
        states,
    )?;
    for (at, (name, help, unit, _)) in NODE_COUNTERS.iter().enumerate() {
        let all = shown.iter().map(|it| {
            let value = it.counts.get(at).copied().unwrap_or_default();
            ([("node", it.label.as_str())], value)
        });
        out.counter(name, help, *unit, all)?;
    }
    Ok(())
}

/// What people call the nodes, to be joined by their label `node`.
pub fn names(
    out: &mut Out<'_>,
    shown: &[Shown<'_>],
    name: impl Fn(NodeId) -> Option<String>,
) -> fmt::Result {
    let named = shown.iter().filter_map(|it| {
        let name = name(it.one()?.node)?;
        Some((it.label.as_str(), name))
    });
    let named: Vec<(&str, String)> = named.collect();
    let named = named
        .iter()
        .map(|(label, name)| ([("node", *label), ("name", name)], 1));
    out.gauge("node_name", "1, with the name of the node", None, named)
}
