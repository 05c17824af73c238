//! Drives what was handed in to its answer, and holds that against what the model made of it.

use std::{
    sync::Arc,
    task::{Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use hinted_handoff::{Amount, EnqueueError, HintId, TransactionError};

use crate::{
    history::{Judged, Verdict},
    host::{Host, PATIENCE, add},
    operation::{Ending, Request},
    script::Run,
    waiting::{Answer, Waiting},
};

/// Wakes the thread of a case.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Host {
    /// Hands all in, in order, and waits for nothing.
    pub fn hand_in(&mut self, requests: &[Request]) -> Vec<Waiting> {
        let context = self.context().clone();
        let begun = requests.iter().map(|it| Waiting::new(&context, it));
        let mut begun: Vec<Waiting> = begun.collect();
        begun.iter_mut().for_each(|it| self.poll(it));
        begun
    }

    /// Lets one go on, and has the model judge what is handed in by that.
    pub fn poll(&mut self, waiting: &mut Waiting) {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        for proposed in waiting.poll(&waker) {
            self.found
                .broken
                .extend(proposed.run.broken.iter().cloned());
            let judged = self.history.propose(&proposed.run);
            if judged.verdict == Verdict::Applied {
                self.applied(&proposed.run);
            }
            match proposed.answer {
                Some(answer) => self.answered(&[judged], answer),
                None => waiting.judged.push(judged),
            }
        }
    }

    /// What stats must say of it.
    fn applied(&mut self, run: &Run) {
        for (node, _, payload) in &run.hints {
            let bytes = payload.len() as u64;
            let enqueued = &mut self.went.entry(*node).or_default().enqueued;
            add(enqueued, Amount { hints: 1, bytes });
        }
        for (node, id) in &run.acks {
            let bytes = self.payload_bytes(*node, *id);
            self.acknowledged(*node, Amount { hints: 1, bytes });
        }
    }

    fn payload_bytes(&self, node: u64, id: HintId) -> u64 {
        let mut peeked = self.context().peeked.get(&node).into_iter().flatten();
        let hint = peeked.find(|hint| hint.id == id);
        hint.map_or(0, |hint| hint.points.len() as u64)
    }

    /// Waits for all answers.
    pub fn drive(&mut self, mut all: Vec<Waiting>) {
        let started = Instant::now();
        loop {
            for waiting in &mut all {
                self.poll(waiting);
            }
            let (done, left): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|it| it.answer.is_some());
            all = left;
            let any = !done.is_empty();
            for waiting in done {
                let answer = waiting.answer.unwrap();
                self.answered(&waiting.judged, answer);
            }
            if all.is_empty() {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "no answer");
            if !any {
                thread::park_timeout(Duration::from_millis(200));
            }
        }
    }

    /// Holds an answer against what the model made of the runs.
    pub fn answered(&mut self, runs: &[Judged], answer: Answer) {
        self.found.count("transactions", 1);
        if self.failing && self.failed(runs, &answer) {
            return;
        }
        let Some((last, lost)) = runs.split_last() else {
            return self.found.broken.push(format!("{answer:?} without a run"));
        };
        self.found.count("run again", lost.len() as u64);
        let needless = lost.iter().any(|run| run.verdict != Verdict::Conflict);
        self.found
            .expect(!needless, || format!("run again needlessly: {lost:?}"));
        let told = match (&last.verdict, &answer) {
            (Verdict::Applied, Ok(done)) => {
                let read_it = done.reads.as_ref().is_none_or(|it| *it == last.reads);
                self.found.expect(read_it, || {
                    format!("{done:?} is not what the last run read")
                });
                self.expect_ids(last, done.hints.as_deref());
                Some("committed")
            }
            (Verdict::NotNext(expected), Err(TransactionError::NotNext { hint, .. })) => {
                (expected == hint).then_some("not next")
            }
            (Verdict::GivesUp(ending), Err(error)) => gave_up(*ending, error),
            _ => None,
        };
        match told {
            Some(what) => self.found.count(what, 1),
            None => self
                .found
                .broken
                .push(format!("{answer:?}, expected {last:?}")),
        }
    }

    fn expect_ids(&mut self, run: &Judged, ids: Option<&[HintId]>) {
        let Some(ids) = ids else { return };
        self.found.count("hints", ids.len() as u64);
        self.found.expect(ids.len() == run.hints.len(), || {
            format!("{ids:?} for {run:?}")
        });
        for (hint, id) in run.hints.iter().zip(ids) {
            let learnt = self.history.learn(hint, *id);
            self.found.expect_ok("ids", learnt);
        }
    }

    /// Whether this is what storage that fails, or a shutdown, makes of it.
    fn failed(&mut self, runs: &[Judged], answer: &Answer) -> bool {
        match answer {
            Err(TransactionError::Enqueue(EnqueueError::Unknown(_))) => {
                self.found.count("unknown", 1)
            }
            Err(TransactionError::Enqueue(
                EnqueueError::StoreFailed(_) | EnqueueError::ShutDown,
            )) => {
                self.found.count("refused", 1);
                // One that only asks is told so too if its group failed, and says nothing of those
                // beside it.
                let changes =
                    |run: &&Judged| run.verdict == Verdict::Applied && !run.changes_nothing;
                if let Some(run) = runs.last().filter(changes) {
                    self.history.refused(run.number);
                }
            }
            _ => return false,
        }
        true
    }
}

/// What a closure gave up with is told as what it is.
fn gave_up(ending: Ending, error: &TransactionError) -> Option<&'static str> {
    match (ending, error) {
        (Ending::Abort, TransactionError::Aborted(cause)) if cause.to_string() == "told to" => {
            Some("aborted")
        }
        (Ending::Panic, TransactionError::Panicked(text)) if text == "injected by a test" => {
            Some("panicked")
        }
        // Which it is was looked at within the closure.
        (
            Ending::TooLarge(_),
            TransactionError::TransactionTooLarge { .. } | TransactionError::Enqueue(_),
        ) => Some("too large"),
        _ => None,
    }
}
