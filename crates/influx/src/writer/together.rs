//! Direct writes to one server that go together in one body.
//!
//! The points of a client are of several shards, and each shard is a write of its own. Few requests
//! of a target are under way at a time; what comes meanwhile waits, and then goes together.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{answer::NodeAnswer, node::NoAnswer};
use crate::Target;

/// Requests of one target that are under way at a time.
const UNDER_WAY: usize = 2;

/// What waits to be sent to one server, by target.
///
/// The lock guards which writes wait, and how many requests are under way. It is held for no wait,
/// and no other lock is taken meanwhile.
#[derive(Debug, Clone, Default)]
pub struct Together(Arc<Mutex<HashMap<Target, Lane>>>);

#[derive(Debug, Default)]
struct Lane {
    under_way: usize,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    lines: Bytes,
    tell: oneshot::Sender<Told>,
}

/// What one that waits is told.
#[derive(Debug)]
enum Told {
    Turn(Turn),
    /// Another one has sent it.
    Outcome(Outcome),
}

/// What became of a body of several writes.
#[derive(Debug, Clone)]
pub enum Outcome {
    Taken,
    /// It was not taken as a whole: each is to be sent by itself.
    Alone,
    /// The server may take it later.
    Later(NodeAnswer, Option<Duration>),
    /// It may have been carried out.
    NoAnswer(Arc<NoAnswer>),
}

/// The right to make a request, which the next one that waits gets when this is dropped.
#[derive(Debug)]
pub struct Turn {
    together: Together,
    target: Target,
    /// Those whose lines are sent with this one's.
    others: Vec<oneshot::Sender<Told>>,
}

impl Together {
    /// Waits for a turn, or for what became of the lines if another one sends them.
    pub async fn turn(&self, target: &Target, lines: &Bytes) -> Result<Turn, Outcome> {
        let told = {
            let mut lanes = self.0.lock();
            let lane = lanes.entry(target.clone()).or_default();
            if lane.under_way < UNDER_WAY {
                lane.under_way += 1;
                return Ok(Turn::new(self, target));
            }
            let (tell, told) = oneshot::channel();
            let lines = lines.clone();
            lane.waiting.push_back(Waiting { lines, tell });
            told
        };
        match told.await {
            // Dropped unseen, as by a write that is cancelled, it goes to the next one, too.
            Ok(Told::Turn(turn)) => Ok(turn),
            Ok(Told::Outcome(outcome)) => Err(outcome),
            // Whoever sent it was cancelled.
            Err(_) => Err(Outcome::Alone),
        }
    }

    /// Gives a turn to the next one that waits.
    fn hand_on(&self, target: &Target) {
        let mut lanes = self.0.lock();
        let Some(lane) = lanes.get_mut(target) else {
            return;
        };
        while let Some(Waiting { tell, .. }) = lane.waiting.pop_front() {
            if !tell.is_closed() {
                drop(lanes);
                // Where nobody hears of it any more, it is dropped, and so handed on.
                let _ = tell.send(Told::Turn(Turn::new(self, target)));
                return;
            }
        }
        lane.under_way -= 1;
        if lane.under_way == 0 {
            lanes.remove(target);
        }
    }
}

impl Turn {
    fn new(together: &Together, target: &Target) -> Turn {
        Turn {
            together: together.clone(),
            target: target.clone(),
            others: Vec::new(),
        }
    }

    /// Takes what waits along, up to so many bytes with the `own` lines; all lines, in order.
    pub fn take_along(&mut self, own: &Bytes, max_bytes: u64) -> Vec<Bytes> {
        let mut bytes = own.len() as u64;
        let mut all = vec![own.clone()];
        let mut lanes = self.together.0.lock();
        let waiting = lanes.get_mut(&self.target).map(|lane| &mut lane.waiting);
        let Some(waiting) = waiting else { return all };
        while let Some(next) = waiting.pop_front() {
            bytes += next.lines.len() as u64;
            if bytes > max_bytes {
                waiting.push_front(next);
                break;
            }
            if !next.tell.is_closed() {
                all.push(next.lines);
                self.others.push(next.tell);
            }
        }
        all
    }

    /// Tells those that were taken along, and hands the turn on.
    pub fn end(mut self, outcome: &Outcome) {
        for other in self.others.drain(..) {
            // One that was cancelled does not hear it.
            let _ = other.send(Told::Outcome(outcome.clone()));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.together.hand_on(&self.target);
    }
}
