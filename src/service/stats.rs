//! What is shown of the service: every node, the store, direct writes.

use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::time::Instant;

use super::handoff::HintedHandoff;
use crate::{
    payload::Payload,
    stats::{NodeState, NodeStats, Stats, WriteStats},
    store::{Hold, NodeQueues, Parked},
    types::NodeId,
};

impl<P: Payload> HintedHandoff<P> {
    /// Depth and progress of every node, and counters of the store, without a scan.
    pub fn stats(&self) -> Stats {
        let inner = &self.inner;
        let (not_stored, leaving) = (inner.store.not_stored(), inner.store.leaving());
        let mut links = inner.links.seen();
        let mut queues: BTreeMap<NodeId, NodeQueues> = inner.store.nodes().into_iter().collect();
        // One that is only written to directly, or that nothing could be stored for, has no queue.
        for node in links.keys().chain(not_stored.keys()) {
            queues.entry(*node).or_default();
        }
        let nodes = queues.into_iter().map(|(node, queues)| {
            let (gate, direct) = links.remove(&node).unwrap_or_default();
            let seen = inner.replays.get(node).map(|handle| handle.progress.seen());
            let Hold {
                paused,
                parked,
                unlisted,
            } = inner.store.hold(node);
            let rate = seen
                .as_ref()
                .map(|seen| seen.rate.per_second(Instant::now()));
            let rate = rate.unwrap_or_default();
            let pending = queues.pending();
            let state = match &seen {
                _ if inner.replays.manual(node).is_some() => NodeState::Manual,
                _ if parked.is_some() || unlisted => NodeState::Parked,
                _ if paused.is_some() => NodeState::Paused,
                _ if pending.hints > 0 && !inner.replays.runs(node) => NodeState::Stopped,
                Some(seen) if seen.state != NodeState::CaughtUp => seen.state,
                // Its task has not seen them yet.
                _ if pending.hints > 0 => NodeState::Waiting,
                _ => NodeState::CaughtUp,
            };
            let last_error = seen.as_ref().and_then(|seen| seen.last_error.clone());
            NodeStats {
                node,
                state,
                paused,
                parked_since_unix_ms: parked
                    .map(|Parked(since)| inner.ageing.moment().shown_unix_ms(since)),
                leaving: leaving.contains(&node),
                hinting: self.check_hinted(node).is_ok(),
                gate,
                direct,
                pending,
                dead_letters: queues.letters(),
                enqueued: queues.enqueued,
                delivered: queues.delivered,
                oldest_age: inner.store.oldest(node).map(|it| inner.ageing.since(it)),
                lost: queues.lost,
                not_stored: not_stored.get(&node).copied().unwrap_or_default(),
                dead_lettered: queues.dead_lettered,
                withdrawn: queues.withdrawn,
                letters_evicted: queues.letters_evicted,
                expired: queues.limited.expired,
                dropped: queues.limited.dropped,
                refused: queues.limited.refused,
                failures: seen.as_ref().map_or(0, |seen| seen.failures),
                stalled_by: seen.as_ref().and_then(|seen| seen.stalled_by),
                unknown_format: seen.as_ref().and_then(|seen| seen.unknown_format),
                last_error_unix_ms: last_error.as_ref().map(|(_, at)| *at),
                last_error: last_error.map(|(text, _)| text),
                attempts: seen.map_or(queues.status.attempts, |seen| seen.attempts),
                in_flight: queues.in_flight(),
                delivery_rate: rate,
                caught_up_in: caught_up_in(state, pending.hints, rate),
            }
        });
        let writes = &inner.fan_out.counters;
        Stats {
            nodes: nodes.collect(),
            paused_all: inner.store.paused_all(),
            hinting: !inner.hinting.read().none_at_all,
            store: inner.store.stats(),
            send_times: inner.replays.send_times(),
            writes: WriteStats {
                direct: writes.direct.load(Relaxed),
                hinted: writes.hinted.load(Relaxed),
                backlogged: writes.backlogged.load(Relaxed),
                withdrawn: writes.withdrawn.load(Relaxed),
                rejected: writes.rejected.load(Relaxed),
                unstored: writes.unstored.load(Relaxed),
            },
        }
    }
}

/// Where so many hints leave at such a rate.
fn caught_up_in(state: NodeState, hints: u64, rate: f64) -> Option<Duration> {
    match (state, hints) {
        (_, 0) => Some(Duration::ZERO),
        (NodeState::Replaying, _) => Duration::try_from_secs_f64(hints as f64 / rate).ok(),
        _ => None,
    }
}
