//! What receivers apply that keep to `AppliedHints` and `AppliedWrites`: of each queue and shard
//! nothing at or below the highest sequence that they applied, and no write a second time.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use hinted_handoff::{HintId, NodeId, QueueId, Sequence, ShardId, ShardWrite, StoreId, WriteId};
use hinted_handoff_testkit::{Reply, Seen};
use tokio::time::Instant;

/// All receivers of a round.
#[derive(Clone, Default)]
pub struct Applied(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    marks: HashMap<(NodeId, StoreId, QueueId, ShardId), Sequence>,
    floors: HashMap<(NodeId, StoreId), QueueId>,
    writes: HashSet<(NodeId, WriteId)>,
    /// In order.
    applied: Vec<Seen>,
    /// Copies that were refused as known: by the mark of their queue, and by their write.
    refused: (u64, u64),
}

impl State {
    /// Whether a hint is none that was applied, and raises its mark.
    fn is_new(&mut self, node: NodeId, shard: ShardId, hint: HintId) -> bool {
        let floor = self.floors.get(&(node, hint.store));
        if floor.is_some_and(|floor| hint.queue < *floor) {
            return false;
        }
        let key = (node, hint.store, hint.queue, shard);
        let mark = self.marks.entry(key).or_insert(Sequence(0));
        let is_new = hint.sequence > *mark;
        *mark = hint.sequence.max(*mark);
        is_new
    }
}

impl Applied {
    /// The script `reply`, of receivers that apply what it takes as it arrives.
    pub fn by(
        &self,
        mut reply: impl FnMut(&ShardWrite<Bytes>) -> Reply + Send + 'static,
    ) -> impl FnMut(&ShardWrite<Bytes>) -> Reply + Send + 'static {
        let applied = self.clone();
        move |write| {
            let reply = reply(write);
            applied.note(write, reply);
            reply
        }
    }

    fn note(&self, write: &ShardWrite<Bytes>, reply: Reply) {
        let takes = match reply {
            Reply::Take | Reply::Slow(_) => usize::MAX,
            Reply::Partial(takes) => takes,
            _ => 0,
        };
        let (node, shard) = (write.node, write.shard);
        let mut state = self.0.lock().unwrap();
        for batch in write.batches.iter().take(takes) {
            if let (Some(hint), Some(floor)) = (batch.hint, write.retired_below) {
                let known = state.floors.entry((node, hint.store)).or_insert(floor);
                *known = floor.max(*known);
            }
            if batch
                .hint
                .is_some_and(|hint| !state.is_new(node, shard, hint))
            {
                state.refused.0 += 1;
                continue;
            }
            let id = batch.write.expect("a copy without the id of its write");
            if !state.writes.insert((node, id)) {
                state.refused.1 += 1;
                continue;
            }
            state.applied.push(Seen {
                at: Instant::now(),
                node,
                shard,
                hints: batch.hint.into_iter().collect(),
                points: vec![batch.points.clone()],
                reply,
            });
        }
    }

    /// Checks that nothing was applied twice. Returns all that was, in order, and how many copies
    /// were refused as known.
    pub fn once_each(&self) -> (Vec<Seen>, (u64, u64)) {
        let state = self.0.lock().unwrap();
        let mut known = HashSet::new();
        for seen in &state.applied {
            let is_new = known.insert((seen.node, seen.points.clone()));
            assert!(is_new, "{:?} was applied twice", seen.points);
        }
        (state.applied.clone(), state.refused)
    }
}
