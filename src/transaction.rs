//! Transactions over the host's rows and the hints: running the closure, and running it again when
//! it lost a race.

mod closure;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{
    blocking::block_on,
    error::{EnqueueError, StorageError, TransactionError},
    payload::Payload,
    service::handoff::HintedHandoff,
    store::{
        Budget, Leaving, Refusal, Reservation, RowBatch, RowChanges, Rows, Tree, WriteBatch,
        Written, panic_text,
    },
    types::{Durability, HintId},
};

pub(crate) use closure::refuse_nested;
pub use closure::{Abort, Hints};

use closure::InClosure;

/// Transactions that may be under way at a time; more wait for their turn.
pub(crate) const TURNS: u32 = 1024;
/// How often a transaction runs beside others before it runs alone, when nothing can change what it
/// reads.
const RUNS_BESIDE_OTHERS: u32 = 8;
/// Alone it can only lose to writes that went past us.
const RUNS_MAX: u32 = 16;

/// What a transaction came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed<T> {
    /// What the closure returned.
    pub value: T,
    /// The ids of the hints, in the order in which the closure enqueued them.
    pub hints: Vec<HintId>,
}

/// Why a run did not come into effect.
enum Lost {
    /// What it read has changed.
    Race,
    /// Another run would not help.
    Final(TransactionError),
}

impl Lost {
    fn into_error(self, attempts: u32) -> TransactionError {
        match self {
            Lost::Race => TransactionError::Contended { attempts },
            Lost::Final(error) => error,
        }
    }
}

impl From<Refusal> for Lost {
    fn from(refusal: Refusal) -> Self {
        Lost::Final(match refusal {
            Refusal::Conflict => return Lost::Race,
            Refusal::NotNext(hint) => TransactionError::NotNext { hint },
            Refusal::Read(cause) => TransactionError::Read(cause),
            Refusal::Enqueue(error) => TransactionError::Enqueue(error),
        })
    }
}

/// What one run of a closure would change, if what it read is still so.
struct Ran<T> {
    outcome: Result<T, TransactionError>,
    batch: WriteBatch,
}

impl<P: Payload> HintedHandoff<P> {
    /// Runs `work` on the rows of `trees` and on hints, and commits all that it wrote as one: after
    /// a crash all of it is there or nothing.
    ///
    /// `trees` are the host's, in the database that was given to
    /// [`open_in`](HintedHandoff::open_in); `work` gets their rows in the same order. Transactions
    /// are serialisable: each comes into effect as if it had run alone. A run that read what
    /// another has changed meanwhile is run again, the ninth time with no other transaction beside
    /// it; so `work` may run several times and should do nothing but read and write rows and hints.
    /// It runs on the calling thread, in the first poll of the future or a later one, and must not
    /// block for long. Within it, the trees themselves are another world: what is read from them
    /// directly is not checked, what is written to them directly is not part of the transaction.
    ///
    /// Returns when [`Config::durability`](crate::Config::durability) is met: when it is on disk,
    /// or with [`Buffered`](Durability::Buffered) when everybody sees it. In both cases others may
    /// see its rows before they are on disk. Dropping the future once it waits for the answer does
    /// not withdraw the transaction. A future that was polled once must be polled on or dropped:
    /// one that is kept aside may hold up those who wait for their turn behind it.
    ///
    /// ```
    /// # use hinted_handoff::*;
    /// # struct Cluster;
    /// # impl ShardWriter<String> for Cluster {
    /// #     async fn write_shard(&self, _: ShardWrite<String>) -> Result<(), WriteError> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let config = Config::new(dir.path().join("db"));
    /// let db = open_database(&database_config(&config.dir))?;
    /// let users = db.open_tree("users")?;
    /// let handoff = HintedHandoff::open_in(&db, config, Cluster).await?;
    ///
    /// let committed = handoff
    ///     .transaction(&[&users], |rows, hints| {
    ///         if rows[0].get("ada")?.is_some() {
    ///             return Err(Abort::new("there is an ada already"));
    ///         }
    ///         rows[0].insert("ada", "countess")?;
    ///         hints.enqueue(NodeId(2), ShardId(7), &"+ada countess".to_owned())?;
    ///         Ok("welcome")
    ///     })
    ///     .await?;
    /// assert_eq!((committed.value, committed.hints.len()), ("welcome", 1));
    /// # handoff.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TransactionError`]. Nothing of the transaction is there then, and no sequence is used up,
    /// unless its [`outcome`](TransactionError::outcome) is unknown.
    // No `async fn`, so that the list of trees need not live as long as the future.
    pub fn transaction<'a, T, F>(
        &'a self,
        trees: &[&Tree],
        mut work: F,
    ) -> impl Future<Output = Result<Committed<T>, TransactionError>> + use<'a, T, F, P>
    where
        F: FnMut(&mut [Rows<'_>], &mut Hints<'_, P>) -> Result<T, Abort>,
    {
        let trees: Vec<Tree> = trees.iter().copied().cloned().collect();
        async move {
            if trees.is_empty() {
                return Err(TransactionError::NoTrees);
            }
            self.run_until_committed(&trees, &mut work).await
        }
    }

    /// [`transaction`](HintedHandoff::transaction) for a thread that does not drive a tokio
    /// runtime. Blocks it.
    ///
    /// # Errors
    /// As `transaction`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `transaction` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn transaction_blocking<T, F>(
        &self,
        trees: &[&Tree],
        work: F,
    ) -> Result<Committed<T>, TransactionError>
    where
        F: FnMut(&mut [Rows<'_>], &mut Hints<'_, P>) -> Result<T, Abort>,
    {
        refuse_nested()?;
        block_on(self.transaction(trees, work))
    }

    /// Commits plain writes of the host's as one, in the same groups as hints and transactions.
    ///
    /// In a shared database all writes of the host's should go this way or through
    /// [`transaction`](HintedHandoff::transaction): only then the log is bounded between two
    /// fsyncs, without which a power cut can destroy the database. Returns as `transaction` does.
    ///
    /// # Errors
    /// As `transaction`.
    pub async fn apply(&self, batch: RowBatch) -> Result<(), TransactionError> {
        if batch.is_empty() {
            return Ok(());
        }
        let rows = batch.into_changes();
        let trees: Vec<Tree> = rows.trees.iter().map(|it| it.tree.clone()).collect();
        self.check(&trees)?;
        let turn = self.turns(1).await?;
        let ran = Ran {
            outcome: Ok(()),
            batch: WriteBatch {
                rows,
                ..WriteBatch::default()
            },
        };
        // It has read nothing that others could have changed.
        let committed = self.commit(ran, turn).await;
        committed.map_err(|lost| lost.into_error(1)).map(drop)
    }

    /// [`apply`](HintedHandoff::apply) for a thread that does not drive a tokio runtime. Blocks it.
    ///
    /// # Errors
    /// As `apply`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `apply` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn apply_blocking(&self, batch: RowBatch) -> Result<(), TransactionError> {
        refuse_nested()?;
        block_on(self.apply(batch))
    }

    /// Runs `work` until what it read was still so when it was committed.
    pub(crate) async fn run_until_committed<T>(
        &self,
        trees: &[Tree],
        work: &mut impl FnMut(&mut [Rows<'_>], &mut Hints<'_, P>) -> Result<T, Abort>,
    ) -> Result<Committed<T>, TransactionError> {
        self.check(trees)?;
        let mut runs = 0;
        loop {
            runs += 1;
            let turn = match runs > RUNS_BESIDE_OTHERS {
                // With all turns taken nobody else changes any row.
                true => self.turns(TURNS).await?,
                false => self.turns(1).await?,
            };
            let ran = self.run(trees, work);
            match self.commit(ran, turn).await {
                Ok(committed) => return Ok(committed),
                Err(Lost::Race) if runs < RUNS_MAX => {}
                Err(lost) => return Err(lost.into_error(runs)),
            }
        }
    }

    fn check(&self, trees: &[Tree]) -> Result<(), TransactionError> {
        refuse_nested()?;
        self.store().check_trees(trees)
    }

    async fn turns(&self, turns: u32) -> Result<OwnedSemaphorePermit, TransactionError> {
        let turns = Arc::clone(self.all_turns()).acquire_many_owned(turns).await;
        turns.map_err(|_| EnqueueError::ShutDown.into())
    }

    /// One run, which changes nothing yet.
    fn run<T>(
        &self,
        trees: &[Tree],
        work: &mut impl FnMut(&mut [Rows<'_>], &mut Hints<'_, P>) -> Result<T, Abort>,
    ) -> Ran<T> {
        let budget = Budget::default();
        let mut rows: Vec<Rows<'_>> = trees.iter().map(|tree| Rows::new(tree, &budget)).collect();
        let mut hints = Hints {
            handoff: self,
            budget: &budget,
            hints: Vec::new(),
            acks: Vec::new(),
        };
        let in_closure = InClosure::enter();
        let worked = catch_unwind(AssertUnwindSafe(|| work(&mut rows, &mut hints)));
        drop(in_closure);
        let outcome = match worked {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(abort)) => Err(abort.into_error()),
            Err(panic) => Err(TransactionError::Panicked(panic_text(panic.as_ref()))),
        };
        let outcome = match budget.take_failure() {
            // Whatever the closure made of it.
            Some(cause) => Err(TransactionError::Read(cause)),
            None => outcome,
        };
        let Hints { hints, acks, .. } = hints;
        let changes = rows.into_iter().map(Rows::into_changes).collect();
        let batch = match outcome {
            Ok(_) => WriteBatch {
                hints,
                leaves: acks.into_iter().map(Leaving::Acked).collect(),
                rows: RowChanges::new(changes, &budget),
                is_promised: false,
            },
            Err(_) => WriteBatch {
                rows: RowChanges::of_reads(changes, &budget),
                ..WriteBatch::default()
            },
        };
        Ran { outcome, batch }
    }

    /// Room for all hints of a run, together.
    ///
    /// Who waits for room, or drops hints for it, has no turn meanwhile: those who make room may
    /// need it. What the run read may have changed when it goes on; then it has lost a race.
    async fn admit_batch(
        &self,
        batch: &WriteBatch,
        turn: OwnedSemaphorePermit,
    ) -> Result<(Reservation, OwnedSemaphorePermit), Lost> {
        let refused = |error: EnqueueError| Lost::Final(error.into());
        if batch.hints.is_empty() || !self.has_door() {
            return Ok((Reservation::default(), turn));
        }
        let wanted = batch.amounts();
        if let Some(reserved) = self.admit_now(&wanted) {
            return Ok((reserved, turn));
        }
        let turns = u32::try_from(turn.num_permits()).unwrap_or(TURNS);
        drop(turn);
        let reserved = self.admit(wanted).await.map_err(refused)?;
        let turn = self.turns(turns).await.map_err(Lost::Final)?;
        Ok((reserved, turn))
    }

    /// Has a run committed, and waits for the answer.
    async fn commit<T>(
        &self,
        ran: Ran<T>,
        turn: OwnedSemaphorePermit,
    ) -> Result<Committed<T>, Lost> {
        let Ran { outcome, batch } = ran;
        if batch.rows.reads() == 0
            && let Err(error) = outcome
        {
            return Err(Lost::Final(error));
        }
        let (reserved, turn) = self.admit_batch(&batch, turn).await?;
        let room = self.room(batch.bytes()).await;
        let room = room.map_err(|error| Lost::Final(error.into()))?;
        // The host may have said so since they were enqueued.
        let mut nodes = batch.hints.iter().map(|new| new.node);
        let hinted = nodes.try_for_each(|node| self.check_hinted(node));
        hinted.map_err(|error| Lost::Final(error.into()))?;
        let hints = batch.hints.iter();
        let on_their_way: Vec<_> = hints
            .filter_map(|new| self.on_its_way(new.node, new.hint.shard))
            .collect();
        // Where hints stand is known only once they are durable: before that the store has not seen
        // their queue.
        let answer_early =
            self.config().durability == Durability::Buffered && on_their_way.is_empty();
        let (tell, told) = oneshot::channel();
        let done = move |result: Result<Written, Refusal>| {
            drop((turn, room));
            if let Ok(written) = &result {
                let noted = on_their_way.into_iter().zip(&written.ids);
                noted.for_each(|(hint, id)| hint.durable(*id));
            }
            // Nobody listens if the caller gave up; the transaction stays.
            let _ = tell.send(result);
        };
        self.store()
            .write(batch, reserved, answer_early, Box::new(done));
        match told.await {
            Ok(Ok(Written { ids: hints, .. })) => match outcome {
                Ok(value) => Ok(Committed { value, hints }),
                Err(error) => Err(Lost::Final(error)),
            },
            Ok(Err(refusal)) => Err(refusal.into()),
            // The commit thread died of a panic before it could say more.
            Err(_) => {
                let cause = StorageError::new("commit", "the commit thread gave no answer");
                Err(Lost::Final(EnqueueError::Unknown(cause).into()))
            }
        }
    }
}
