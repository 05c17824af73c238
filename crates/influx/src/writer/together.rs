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

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::{FutureExt, future::join_all};

    use super::*;
    use crate::Precision;

    fn target() -> Target {
        Target {
            database: "metrics".to_owned(),
            retention_policy: None,
            precision: Precision::Seconds,
        }
    }

    fn lines(number: usize) -> Bytes {
        format!("cpu v={number} 1\n").into()
    }

    /// As many turns as there may be.
    async fn turns(together: &Together) -> Vec<Turn> {
        let turns =
            (0..UNDER_WAY).map(|_| async { together.turn(&target(), &lines(0)).await.unwrap() });
        join_all(turns).await
    }

    #[tokio::test]
    async fn what_comes_while_requests_are_under_way_goes_together_in_order() {
        let (together, target) = (Together::default(), target());
        let mut under_way = turns(&together).await;
        let all: Vec<Bytes> = (1..=4).map(lines).collect();
        let mut waiting: Vec<_> = all
            .iter()
            .map(|lines| Box::pin(together.turn(&target, lines)))
            .collect();
        for one in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        drop(under_way.pop());
        let mut turn = waiting.remove(0).now_or_never().unwrap().unwrap();
        // Three of them fit.
        let taken = turn.take_along(&all[0], 3 * all[0].len() as u64);
        assert_eq!(taken, all[..3]);
        turn.end(&Outcome::Taken);
        for told in waiting.drain(..2) {
            assert!(matches!(told.now_or_never().unwrap(), Err(Outcome::Taken)));
        }
        // The fourth has the turn of the first.
        assert!(waiting.remove(0).now_or_never().unwrap().is_ok());
    }

    #[tokio::test]
    async fn those_taken_along_by_one_that_is_cancelled_go_by_themselves() {
        let (together, target) = (Together::default(), target());
        let mut under_way = turns(&together).await;
        let (first, second) = (lines(1), lines(2));
        let mut leads = pin!(together.turn(&target, &first));
        let mut follows = pin!(together.turn(&target, &second));
        assert!(leads.as_mut().now_or_never().is_none());
        assert!(follows.as_mut().now_or_never().is_none());
        drop(under_way.pop());
        let mut turn = leads.now_or_never().unwrap().unwrap();
        assert_eq!(turn.take_along(&first, 1_000).len(), 2);
        drop(turn);
        assert!(matches!(
            follows.now_or_never().unwrap(),
            Err(Outcome::Alone)
        ));
        // The turn is there for the next one.
        assert!(together.turn(&target, &first).now_or_never().is_some());
    }

    #[tokio::test]
    async fn no_turn_is_lost_with_one_that_is_cancelled() {
        let (together, target) = (Together::default(), target());
        let mut under_way = turns(&together).await;
        let all: Vec<Bytes> = (1..=3).map(lines).collect();
        let mut waiting: Vec<_> = all
            .iter()
            .map(|lines| Box::pin(together.turn(&target, lines)))
            .collect();
        for one in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        // One before it is given a turn, one when it has it and does not know yet.
        drop(waiting.remove(0));
        drop(under_way.pop());
        drop(waiting.remove(0));
        let turn = waiting.remove(0).now_or_never().unwrap().unwrap();
        drop((turn, under_way));
        assert!(together.0.lock().is_empty());
    }
}
