//! Runs a script within the closure of a transaction, and keeps what it read and would write.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use hinted_handoff::{
    Abort, EnqueueError, HintId, HintedHandoff, Hints, NodeId, PeekedPoints, RowBatch, Rows,
    ShardId, TransactionError,
    sled::{IVec, Tree},
};

use crate::{
    operation::{Ending, Row, Script, Step, TREES, TooLarge},
    world::shard_of,
};

pub const KEY_BYTES_MAX: usize = 4096;
pub const VALUE_BYTES_MAX: usize = 65_536;
const READS_MAX: usize = 10_000;

/// The rows that were read, as they were.
pub type Reads = BTreeMap<Row, Option<IVec>>;

/// What a closure can lay its hands on.
#[derive(Clone)]
pub struct Context {
    pub handoff: HintedHandoff<Bytes>,
    pub trees: Vec<Tree>,
    /// By node, what a peek showed, and what was acknowledged last.
    pub peeked: BTreeMap<u64, Vec<PeekedPoints<Bytes>>>,
    pub acked: BTreeMap<u64, Vec<PeekedPoints<Bytes>>>,
    /// Tells all values and payloads apart.
    pub contents: Arc<AtomicU64>,
}

/// One run of a closure, or something that was handed in without one.
#[derive(Debug, Clone)]
pub struct Run {
    pub reads: Reads,
    pub writes: BTreeMap<Row, Option<IVec>>,
    /// Node, shard, payload.
    pub hints: Vec<(u64, u64, Bytes)>,
    pub acks: Vec<(u64, HintId)>,
    pub ending: Ending,
    pub is_plain_hint: bool,
    /// What was wrong already within the closure.
    pub broken: Vec<String>,
}

impl Run {
    pub fn new(ending: Ending) -> Self {
        Run {
            reads: Reads::new(),
            writes: BTreeMap::new(),
            hints: Vec::new(),
            acks: Vec::new(),
            ending,
            is_plain_hint: false,
            broken: Vec::new(),
        }
    }
}

impl Row {
    /// One key of each tree is as long as can be.
    pub fn key_bytes(self) -> Vec<u8> {
        match self.key {
            0 => vec![b'k'; KEY_BYTES_MAX],
            key => vec![b'k', key],
        }
    }

    pub fn of(tree: usize, key_bytes: &[u8]) -> Option<Row> {
        let rows = (0..=u8::MAX).map(|key| Row { tree, key });
        let mut rows = rows.take(16);
        rows.find(|row| row.key_bytes() == key_bytes)
    }
}

impl Context {
    /// Bytes that were never made before. Half of a large piece compresses, half does not.
    pub fn content(&self, bytes: usize) -> Vec<u8> {
        let number = self.contents.fetch_add(1, Relaxed);
        let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut content = number.to_be_bytes().to_vec();
        content.resize_with(bytes.max(8), || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if state & 1 == 0 { 0 } else { state as u8 }
        });
        content
    }

    /// The trees in the order of a script.
    pub fn trees_of(&self, script: &Script) -> Vec<&Tree> {
        let places = (0..TREES).map(|place| (script.first_tree + place) % TREES);
        places.map(|tree| &self.trees[tree]).collect()
    }

    /// The closure of a transaction. `pause` is called wherever others may interfere.
    pub fn carry_out(
        &self,
        script: &Script,
        (rows, hints): (&mut [Rows<'_>], &mut Hints<'_, Bytes>),
        run: &mut Run,
        pause: &mut dyn FnMut(),
    ) -> Result<(), Abort> {
        let mut within = Within {
            context: self,
            first_tree: script.first_tree,
            rows,
            hints,
            run,
            pause,
        };
        script.steps.iter().try_for_each(|it| within.step(it))?;
        match script.ending {
            Ending::Commit => Ok(()),
            Ending::Abort => Err(Abort::new("told to")),
            Ending::Panic => panic!("injected by a test"),
            Ending::TooLarge(what) => {
                let met = within.exceed(what);
                within.expect(met.is_err(), || format!("{what:?} is within the limits"));
                Ok(met?)
            }
        }
    }
}

/// A closure that runs.
struct Within<'a, 'b, 'c, 'd> {
    context: &'a Context,
    first_tree: usize,
    rows: &'a mut [Rows<'b>],
    hints: &'a mut Hints<'c, Bytes>,
    run: &'d mut Run,
    pause: &'d mut dyn FnMut(),
}

impl<'b> Within<'_, 'b, '_, '_> {
    fn expect(&mut self, kept: bool, broken: impl FnOnce() -> String) {
        if !kept {
            self.run.broken.push(broken());
        }
    }

    fn tree(&mut self, tree: usize) -> &mut Rows<'b> {
        &mut self.rows[(tree + TREES - self.first_tree) % TREES]
    }

    fn step(&mut self, step: &Step) -> Result<(), Abort> {
        match step {
            Step::Get(row) => self.get(*row)?,
            Step::Insert(row, bytes) => {
                let value = IVec::from(self.context.content(*bytes));
                self.tree(row.tree).insert(row.key_bytes(), &value)?;
                self.run.writes.insert(*row, Some(value));
            }
            Step::Remove(row) => {
                self.tree(row.tree).remove(row.key_bytes())?;
                self.run.writes.insert(*row, None);
            }
            Step::Enqueue { node, bytes } => self.enqueue(*node, *bytes)?,
            Step::Ack {
                node,
                skipped,
                hints,
            } => {
                let peeked = self.context.peeked.get(node).into_iter().flatten();
                let acked: Vec<_> = peeked.skip(*skipped).take(*hints).cloned().collect();
                self.ack(*node, &acked)?;
            }
            Step::AckAgain { node } => {
                let acked = self.context.acked.get(node).cloned().unwrap_or_default();
                self.ack(*node, &acked)?;
            }
            Step::Swallow(what) => {
                let met = self.exceed(*what);
                self.expect(met.is_err(), || format!("{what:?} is within the limits"));
            }
            Step::Nest => self.nest(),
            Step::Pause => (self.pause)(),
        }
        Ok(())
    }

    /// A row that this run has written or read before is as it was then.
    fn get(&mut self, row: Row) -> Result<(), TransactionError> {
        let value = self.tree(row.tree).get(row.key_bytes())?;
        let known = self.run.writes.get(&row).or(self.run.reads.get(&row));
        match known.cloned() {
            Some(known) => self.expect(value == known, || {
                format!("{row:?} is not as this run has seen or written it before")
            }),
            None => drop(self.run.reads.insert(row, value)),
        }
        Ok(())
    }

    fn enqueue(&mut self, node: u64, bytes: usize) -> Result<(), TransactionError> {
        let payload = Bytes::from(self.context.content(bytes));
        let shard = shard_of(node, bytes as u64);
        self.hints.enqueue(NodeId(node), ShardId(shard), &payload)?;
        self.run.hints.push((node, shard, payload));
        Ok(())
    }

    fn ack(&mut self, node: u64, hints: &[PeekedPoints<Bytes>]) -> Result<(), TransactionError> {
        self.hints.ack(hints)?;
        self.run
            .acks
            .extend(hints.iter().map(|hint| (node, hint.id)));
        Ok(())
    }

    /// Meets a limit, by what leaves no trace. The error must be the right one.
    fn exceed(&mut self, what: TooLarge) -> Result<(), TransactionError> {
        let tree = |number: usize| number % TREES;
        let node = NodeId(1);
        let met = match what {
            TooLarge::Key => self.rows[0].insert(vec![1; KEY_BYTES_MAX + 1], "value"),
            TooLarge::Value => self.rows[0].insert("key", vec![1; VALUE_BYTES_MAX + 1]),
            TooLarge::Hint => {
                let points = Bytes::from(vec![1; (1 << 20) + 1]);
                self.hints.enqueue(node, ShardId(1), &points)
            }
            TooLarge::EmptyHint => self.hints.enqueue(node, ShardId(1), &Bytes::new()),
            TooLarge::Sum => (0..17_usize).try_for_each(|number| {
                let key = [b's', number as u8];
                self.rows[tree(number)].insert(key, vec![1; VALUE_BYTES_MAX])
            }),
            TooLarge::Reads => (0..=READS_MAX).try_for_each(|number| {
                let key = number.to_be_bytes();
                self.rows[tree(number)].get(key).map(drop)
            }),
        };
        let told = match &met {
            Err(TransactionError::TransactionTooLarge { what: it, .. }) => Some(*it),
            Err(TransactionError::Enqueue(EnqueueError::EmptyPoints)) => Some("empty"),
            _ => None,
        };
        let expected = match what {
            TooLarge::Key => "a key",
            TooLarge::Value => "a value",
            TooLarge::Hint | TooLarge::Sum => "rows and hints",
            TooLarge::EmptyHint => "empty",
            TooLarge::Reads => "rows that were read",
        };
        self.expect(told == Some(expected), || {
            format!("{what:?} is told as {met:?}")
        });
        met
    }

    fn nest(&mut self) {
        let Context { handoff, trees, .. } = self.context;
        let nested = handoff.transaction_blocking(&[&trees[0]], |_, _| Ok(()));
        let mut batch = RowBatch::new();
        batch.insert(&trees[0], "nested", "nested").unwrap();
        let applied = handoff.apply_blocking(batch);
        let refused = matches!(nested, Err(TransactionError::Nested))
            && matches!(applied, Err(TransactionError::Nested));
        self.expect(refused, || {
            format!("within a closure: {nested:?}, {applied:?}")
        });
    }
}
