//! Admission: whether a direct write may go to its node now, or must queue behind what waits for it
//! there.
//!
//! For hosts that need order between direct writes and hints ([`WriteOrdering::Strict`]). Each
//! (node, shard) has a lane. Writers line up in it in the order in which they were called, and
//! whoever's turn it is looks whether the lane is clear: no hint of it is in the pipeline, the last
//! one that became durable has left its queue with all before it, and none is being sent. Only then
//! it sends directly, and the turn passes on with the reply; else it hands in a hint. So there is
//! one direct write a lane at a time, and whatever comes behind one that failed finds its hint in
//! the way.
//!
//! Nothing of this is on disk. What was found at open counts as backlog of every shard of its node
//! until all of it is gone, and so does what is found when a failed store has opened itself again,
//! since acknowledgements may have been undone. So does what waits for a node with many lanes, once
//! there are more of them in all than are told apart.
//!
//! Order is that of the turns. A hint that comes in another way (`write_shard`, a transaction) has
//! no turn: it is not overtaken by writes that begin after its call has returned, and of those
//! under way at the same time either may be first.

mod held;
mod sweep;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    config::WriteOrdering,
    store::Store,
    types::{HintId, NodeId, QueueId, Sequence, ShardId},
};

pub use held::HeldInLane;

/// Lanes below which looking for those that can be forgotten is not worth it.
const SWEEP_AT_LEAST: usize = 1024;

/// Whose lane.
type LaneKey = (NodeId, ShardId);
/// Where a hint stands.
type QueuePosition = (QueueId, Sequence);

/// The lanes of all shards.
///
/// `state` guards the lanes alone. Nothing is asked of the store, and no turn passed on, while it
/// is held; the commit thread takes it when hints become durable.
#[derive(Debug, Default)]
pub struct Admission {
    state: Mutex<LanesState>,
}

#[derive(Debug, Default)]
struct LanesState {
    /// Those that somebody is in, and those that had a hint which may not be gone.
    lanes: HashMap<LaneKey, WriteLane>,
    /// What was pending of a node when the store was opened, or when its lanes became too many:
    /// queues, and how far they got.
    found: HashMap<NodeId, Vec<QueuePosition>>,
    /// Nodes whose list of queues is being changed, or that get hints of another, and how often.
    moving: HashMap<NodeId, usize>,
    /// Reopens of the store after which it was last looked what there is; `None` before the first
    /// look.
    found_after: Option<u64>,
    /// So many lanes are worth looking for those that can be forgotten.
    sweep_at: usize,
}

#[derive(Debug, Default)]
struct WriteLane {
    /// Somebody has the turn.
    is_taken: bool,
    /// Who gets it next.
    line: VecDeque<oneshot::Sender<Turn>>,
    /// Hints handed in of which it is not known yet that they are durable, and those that are held.
    in_pipeline: usize,
    /// Sends of replay under way.
    sends: usize,
    /// The last hint that is durable and not held, until it is known to be gone.
    last: Option<QueuePosition>,
}

impl WriteLane {
    fn is_idle(&self) -> bool {
        !self.is_taken && self.in_pipeline == 0 && self.sends == 0 && self.last.is_none()
    }
}

impl LanesState {
    fn change<T>(&mut self, key: LaneKey, change: impl FnOnce(&mut WriteLane) -> T) -> T {
        let lane = self.lanes.entry(key).or_default();
        let changed = change(lane);
        if lane.is_idle() {
            self.lanes.remove(&key);
        }
        changed
    }
}

/// A place in the line of a lane. Dropped, it is given up.
#[derive(Debug)]
pub struct Place(oneshot::Receiver<Turn>);

/// The right to write directly, if the lane is clear. Passes on to the next in line when it is
/// dropped.
#[derive(Debug)]
pub struct Turn {
    key: LaneKey,
    /// `None` once it has passed on.
    admission: Option<Arc<Admission>>,
}

/// A hint in the pipeline. Dropped without a word, it is not known to be stored.
#[derive(Debug)]
pub struct OnItsWay {
    key: LaneKey,
    admission: Arc<Admission>,
}

/// A send of replay, with its acknowledgement, until it is dropped.
#[derive(Debug)]
pub struct Sending {
    key: LaneKey,
    admission: Arc<Admission>,
}

impl Admission {
    /// `None` if nothing is to be kept in order.
    pub fn of(ordering: WriteOrdering) -> Option<Arc<Self>> {
        match ordering {
            WriteOrdering::Bypass => None,
            WriteOrdering::Strict => Some(Arc::default()),
        }
    }

    /// Takes the next place in a lane's line, at once.
    pub fn line_up(self: &Arc<Self>, node: NodeId, shard: ShardId) -> Place {
        let key = (node, shard);
        let (tell, told) = oneshot::channel();
        let first = self.state.lock().change(key, |lane| {
            if lane.is_taken {
                lane.line.push_back(tell);
                return None;
            }
            lane.is_taken = true;
            Some(tell)
        });
        if let Some(tell) = first {
            // It is received here: the other end is at hand.
            let _ = tell.send(self.turn(key));
        }
        Place(told)
    }

    fn turn(self: &Arc<Self>, key: LaneKey) -> Turn {
        Turn {
            key,
            admission: Some(Arc::clone(self)),
        }
    }

    /// Gives the turn of a lane to the next in line who is still there.
    fn pass_on(self: &Arc<Self>, key: LaneKey) {
        loop {
            let next = self.state.lock().change(key, |lane| {
                let next = lane.line.pop_front();
                lane.is_taken = next.is_some();
                next
            });
            let Some(next) = next else { return };
            match next.send(self.turn(key)) {
                Ok(()) => return,
                // Nobody is there any more; it must not pass itself on.
                Err(mut turn) => turn.admission = None,
            }
        }
    }

    /// A hint is about to be handed in.
    pub fn hint(self: &Arc<Self>, store: &Store, node: NodeId, shard: ShardId) -> OnItsWay {
        let key = (node, shard);
        let is_due = {
            let mut state = self.state.lock();
            state.change(key, |lane| lane.in_pipeline += 1);
            state.lanes.len() >= state.sweep_at.max(SWEEP_AT_LEAST)
        };
        if is_due {
            self.sweep(store);
        }
        OnItsWay {
            key,
            admission: Arc::clone(self),
        }
    }

    /// Replay is about to send hints of this shard.
    pub fn send(self: &Arc<Self>, node: NodeId, shard: ShardId) -> Sending {
        let key = (node, shard);
        self.state.lock().change(key, |lane| lane.sends += 1);
        Sending {
            key,
            admission: Arc::clone(self),
        }
    }

    /// Looks what is pending, if that was not done since the store was last opened. Once before the
    /// first hint is handed in.
    pub fn look(&self, store: &Store) {
        // Before the look: if it is opened again meanwhile, the next one looks again.
        let reopens = store.reopens();
        if self.state.lock().found_after >= Some(reopens) {
            return;
        }
        let found = ends_of_pending(store);
        let mut state = self.state.lock();
        if state.found_after < Some(reopens) {
            (state.found, state.found_after) = (found, Some(reopens));
        }
    }

    /// A node gets queues or hints of another: nothing is written to it directly while it does.
    pub fn begin_move(&self, to: NodeId) {
        *self.state.lock().moving.entry(to).or_default() += 1;
    }

    /// What waits for the node by now, whoever it was for before, must be gone first; nobody has
    /// read which shards that is for.
    pub fn end_move(&self, store: &Store, to: NodeId) {
        let ends = ends_of_pending(store).remove(&to);
        let mut state = self.state.lock();
        // Meanwhile lanes may have become one, which are to be waited for, too.
        let found = state.found.entry(to).or_default();
        ends.into_iter().flatten().for_each(|end| reach(found, end));
        if found.is_empty() {
            state.found.remove(&to);
        }
        if let Some(others) = state.moving.get_mut(&to) {
            *others -= 1;
            if *others == 0 {
                state.moving.remove(&to);
            }
        }
    }

    /// Whether nothing older is on its way to the node. Asked by whoever has the turn.
    fn is_clear(&self, store: &Store, key: LaneKey) -> bool {
        self.look(store);
        let (found_after, found, last) = {
            let state = self.state.lock();
            let lane = state.lanes.get(&key);
            if lane.is_none_or(|lane| lane.in_pipeline > 0 || lane.sends > 0) {
                return false;
            }
            if state.moving.contains_key(&key.0) {
                return false;
            }
            let found = state.found.get(&key.0).cloned();
            (state.found_after, found, lane.and_then(|lane| lane.last))
        };
        // Only now: a hint whose fate became unknown has left the pipeline by then, and may be
        // found when the store is reopened. A store that does not serve may undo what was
        // acknowledged, and could not take a hint should the write fail.
        if store.check_serving().is_err() || Some(store.reopens()) != found_after {
            return false;
        }
        if let Some(found) = found {
            let is_gone = |(queue, end): &QueuePosition| store.is_gone_through(key.0, *queue, *end);
            if !found.iter().all(is_gone) {
                return false;
            }
            let mut state = self.state.lock();
            if state.found_after == found_after && state.found.get(&key.0) == Some(&found) {
                state.found.remove(&key.0);
            }
        }
        last.is_none_or(|last| self.is_gone(store, key, last))
    }

    /// Whether a lane's last hint has left its queue, with all older ones of the lane; then it is
    /// forgotten. Those in other queues are in what was found.
    fn is_gone(&self, store: &Store, key: LaneKey, last: QueuePosition) -> bool {
        let is_gone = store.is_gone_in_order(key.0, last.0, last.1);
        if is_gone {
            let forget = |lane: &mut WriteLane| lane.last = lane.last.filter(|it| *it != last);
            self.state.lock().change(key, forget);
        }
        is_gone
    }
}

/// Makes what was found of a node's queues reach to this, too.
fn reach(found: &mut Vec<QueuePosition>, end: QueuePosition) {
    match found.iter_mut().find(|known| known.0 == end.0) {
        Some(known) => known.1 = known.1.max(end.1),
        None => found.push(end),
    }
}

/// What is pending, by node: queues, and how far they got.
fn ends_of_pending(store: &Store) -> HashMap<NodeId, Vec<QueuePosition>> {
    let pending = store.nodes().into_iter().map(|(node, queues)| {
        let pending = queues.queues.iter().filter(|queue| !queue.is_drained());
        let ends = pending.map(|queue| (queue.at.queue, queue.watermark));
        (node, ends.collect::<Vec<_>>())
    });
    pending.filter(|(_, ends)| !ends.is_empty()).collect()
}

impl Place {
    /// Waits for the turn. Whoever has it gives it up after the reply to one direct write, within
    /// `write_timeout` each time, or when a hint is handed in or durable.
    pub async fn turn(self) -> Turn {
        // A line is never given up while somebody is in it. A turn without a lane would only make a
        // hint of the write.
        self.0.await.unwrap_or(Turn {
            key: (NodeId(0), ShardId(0)),
            admission: None,
        })
    }
}

impl Turn {
    /// Whether a direct write overtakes nothing. If not, or if the store does not serve, so that
    /// nobody can tell, it must become a hint.
    pub fn is_clear(&self, store: &Store) -> bool {
        let admission = self.admission.as_ref();
        admission.is_some_and(|admission| admission.is_clear(store, self.key))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(admission) = self.admission.take() {
            admission.pass_on(self.key);
        }
    }
}

impl OnItsWay {
    /// It is durable, and stands here.
    pub fn durable(self, id: HintId) {
        let last = Some((id.queue, id.sequence));
        // `self` is dropped after it: the lane is never seen without both. One that was held until
        // now may stand before others.
        let mut state = self.admission.state.lock();
        state.change(self.key, |lane| lane.last = lane.last.max(last));
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        let mut state = self.admission.state.lock();
        state.change(self.key, |lane| lane.in_pipeline -= 1);
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let mut state = self.admission.state.lock();
        state.change(self.key, |lane| lane.sends -= 1);
    }
}

#[cfg(test)]
mod tests;
