//! What was handed in and is not answered yet.
//!
//! Futures are polled by hand: a closure runs within a poll, and what it would change is handed in
//! before that poll returns. So the order of polls is the order in which the store takes things,
//! and the model can judge each of them at once.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    rc::Rc,
    task::{Context as Polling, Poll, Waker},
    thread,
};

use bytes::Bytes;
use hinted_handoff::{
    Accepted, HintId, Hints, NodeId, RowBatch, Rows, ShardId, TransactionError, sled::IVec,
};

use crate::{
    history::Judged,
    operation::{Ending, Interference, Request, Row, Script, Step},
    script::{Context, KEY_BYTES_MAX, Reads, Run, VALUE_BYTES_MAX},
    world::shard_of,
};

/// What it came to: what a closure returned, and the ids of the hints.
#[derive(Debug)]
pub struct Done {
    pub reads: Option<Reads>,
    /// `None` if they were not told.
    pub hints: Option<Vec<HintId>>,
}

pub type Answer = Result<Done, TransactionError>;

/// Handed in just now.
pub struct Proposed {
    pub run: Run,
    /// There already if it was waited for within a closure.
    pub answer: Option<Answer>,
}

type Proposals = Rc<RefCell<Vec<Proposed>>>;

pub struct Waiting {
    future: Pin<Box<dyn Future<Output = Answer>>>,
    proposals: Proposals,
    /// All runs so far.
    pub judged: Vec<Judged>,
    pub answer: Option<Answer>,
}

impl Waiting {
    /// Begins what is asked for, up to the first poll.
    pub fn new(context: &Context, request: &Request) -> Self {
        let context = context.clone();
        match request {
            Request::Transaction(script) => Waiting::transaction(context, script.clone(), None),
            Request::Apply(writes) => {
                let (run, batch) = batch(&context, writes);
                let applied = async move { context.handoff.apply(batch).await };
                Waiting::at_once(run, async move {
                    applied.await.map(|()| Done {
                        reads: None,
                        hints: Some(Vec::new()),
                    })
                })
            }
            Request::Hint { node, bytes } => {
                let (node, payload) = (*node, Bytes::from(context.content(*bytes)));
                let shard = shard_of(node, *bytes as u64);
                let run = Run {
                    hints: vec![(node, shard, payload.clone())],
                    is_plain_hint: true,
                    ..Run::new(Ending::Commit)
                };
                Waiting::at_once(run, async move {
                    let (shard, node) = (ShardId(shard), NodeId(node));
                    let accepted = context.handoff.write_shard(node, shard, &payload).await?;
                    let hints = match accepted {
                        Accepted::Durable(id) => Some(vec![id]),
                        _ => None,
                    };
                    Ok(Done { reads: None, hints })
                })
            }
        }
    }

    /// Something without a closure.
    fn at_once(run: Run, future: impl Future<Output = Answer> + 'static) -> Self {
        let proposed = Proposed { run, answer: None };
        Waiting {
            future: Box::pin(future),
            proposals: Rc::new(RefCell::new(vec![proposed])),
            judged: Vec::new(),
            answer: None,
        }
    }

    /// A transaction, whose first runs are each interfered with.
    pub fn transaction(
        context: Context,
        script: Script,
        interfering: Option<(Row, Vec<Interference>)>,
    ) -> Self {
        let proposals = Proposals::default();
        let heard = Rc::clone(&proposals);
        let (row, interferences) = interfering.unwrap_or((Row { tree: 0, key: 0 }, Vec::new()));
        let future = async move {
            let mut interferences = interferences.into_iter();
            let trees = context.trees_of(&script);
            let work = |rows: &mut [Rows<'_>], hints: &mut Hints<'_, Bytes>| {
                let mut run = Run::new(script.ending);
                let mut pause = || {
                    if let Some(interference) = interferences.next() {
                        let proposed = interfere(&context, row, interference);
                        heard.borrow_mut().push(proposed);
                    }
                };
                let worked = catch_unwind(AssertUnwindSafe(|| {
                    context.carry_out(&script, (rows, hints), &mut run, &mut pause)
                }));
                let reads = run.reads.clone();
                heard.borrow_mut().push(Proposed { run, answer: None });
                match worked {
                    Ok(Ok(())) => Ok(reads),
                    Ok(Err(abort)) => Err(abort),
                    Err(panic) => resume_unwind(panic),
                }
            };
            let committed = context.handoff.transaction(&trees, work).await?;
            Ok(Done {
                reads: Some(committed.value),
                hints: Some(committed.hints),
            })
        };
        Waiting {
            future: Box::pin(future),
            proposals,
            judged: Vec::new(),
            answer: None,
        }
    }

    /// Lets it go on; returns what it has handed in by that, in order.
    pub fn poll(&mut self, waker: &Waker) -> Vec<Proposed> {
        if self.answer.is_some() {
            return Vec::new();
        }
        let mut polling = Polling::from_waker(waker);
        if let Poll::Ready(answer) = self.future.as_mut().poll(&mut polling) {
            self.answer = Some(answer);
        }
        self.proposals.take()
    }
}

/// A batch, and what it is to the model. What is over the limits leaves it as it was.
fn batch(context: &Context, writes: &[(Row, Option<usize>)]) -> (Run, RowBatch) {
    let mut run = Run::new(Ending::Commit);
    let mut batch = RowBatch::new();
    for (row, bytes) in writes {
        let (tree, key) = (&context.trees[row.tree], row.key_bytes());
        let value = bytes.map(|bytes| IVec::from(context.content(bytes)));
        let written = match &value {
            Some(value) => batch.insert(tree, &key, value).map(drop),
            None => batch.remove(tree, &key).map(drop),
        };
        let value_over = batch.insert(tree, &key, vec![0; VALUE_BYTES_MAX + 1]);
        let value_over = value_over.is_err();
        let key_over = batch.remove(tree, vec![0; KEY_BYTES_MAX + 1]).is_err();
        if written.is_err() || !value_over || !key_over {
            run.broken
                .push(format!("in a batch: {written:?}, {value_over} {key_over}"));
        }
        run.writes.insert(*row, value);
    }
    (run, batch)
}

/// Changes the row from a thread of its own, and waits for that.
fn interfere(context: &Context, row: Row, interference: Interference) -> Proposed {
    thread::scope(|scope| {
        let other = thread::Builder::new().name("case".to_owned());
        let interfering = other.spawn_scoped(scope, || match interference {
            Interference::Apply => applied(context, &[(row, Some(16))]),
            Interference::ApplyRemoval => applied(context, &[(row, None)]),
            Interference::Transaction => increased(context, row),
        });
        interfering.unwrap().join().unwrap()
    })
}

fn applied(context: &Context, writes: &[(Row, Option<usize>)]) -> Proposed {
    let (run, batch) = batch(context, writes);
    let answer = context.handoff.apply_blocking(batch).map(|()| Done {
        reads: None,
        hints: Some(Vec::new()),
    });
    Proposed {
        run,
        answer: Some(answer),
    }
}

/// By a transaction that reads it first, as most do, and enqueues a hint.
fn increased(context: &Context, row: Row) -> Proposed {
    let node = 1 + row.key as u64 % 4;
    let script = Script {
        first_tree: row.tree,
        steps: vec![
            Step::Get(row),
            Step::Insert(row, 16),
            Step::Enqueue { node, bytes: 16 },
        ],
        ending: Ending::Commit,
    };
    let mut run = Run::new(Ending::Commit);
    let trees = context.trees_of(&script);
    let committed = context.handoff.transaction_blocking(&trees, |rows, hints| {
        run = Run::new(Ending::Commit);
        context.carry_out(&script, (rows, hints), &mut run, &mut || {})?;
        Ok(run.reads.clone())
    });
    let answer = committed.map(|committed| Done {
        reads: Some(committed.value),
        hints: Some(committed.hints),
    });
    Proposed {
        run,
        answer: Some(answer),
    }
}
