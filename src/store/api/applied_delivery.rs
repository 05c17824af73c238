//! The receiving side of a whole delivery: what of it is new, and which marks its sender has no
//! more use for, in one call.

use std::io;

use sled::{
    Db, Tree,
    transaction::{
        ConflictableTransactionResult, TransactionError as SledError, Transactional,
        TransactionalTree,
    },
};

use crate::{
    error::TransactionError,
    shard_writer::{Batch, ShardWrite},
    store::{
        api::applied::AppliedHints, engine::table::same_database,
        home::host_database::make_durable, pipeline::overlay::Rows,
    },
};

impl AppliedHints {
    /// The batches of a delivery that are new, in order; they are so no more once the transaction
    /// has come into effect. Whoever applies these, and leaves the others, applies each hint once.
    /// A direct write has no hint's id, so it always is new.
    ///
    /// Marks that the sender says are of no more use are forgotten in the same transaction
    /// ([`forget_retired`](AppliedHints::forget_retired)). `marks` must be the rows of
    /// [`tree`](AppliedHints::tree).
    ///
    /// ```
    /// # use hinted_handoff::*;
    /// # struct Nobody;
    /// # impl ShardWriter<String> for Nobody {
    /// #     async fn write_shard(&self, _: ShardWrite<String>) -> Result<(), WriteError> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let config = Config::new(dir.path().join("db"));
    /// let db = open_database(&database_config(&config.dir))?;
    /// let (rows, applied) = (db.open_tree("rows")?, AppliedHints::open(&db)?);
    /// let handoff = HintedHandoff::open_in(&db, config, Nobody).await?;
    /// # let batch = Batch::new("cpu v=1".to_owned());
    /// # let received = ShardWrite::new(NodeId(2), ShardId(7), vec![batch]);
    /// // `received` is a `ShardWrite`, as it came over the wire.
    /// handoff
    ///     .transaction(&[&rows, applied.tree()], |trees, _| {
    ///         let [rows, marks] = trees else { return Err(Abort::new("two trees were named")) };
    ///         for batch in applied.take_new(marks, &received)? {
    ///             rows.insert("last", batch.points.as_str())?;
    ///         }
    ///         Ok(())
    ///     })
    ///     .await?; // durable: now the sender may be told
    /// # assert_eq!(rows.get("last")?.as_deref(), Some(b"cpu v=1".as_slice()));
    /// # handoff.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TransactionError::Read`] if a mark does not read or is damaged; as [`Rows::insert`].
    pub fn take_new<'w, P>(
        &self,
        marks: &mut Rows<'_>,
        write: &'w ShardWrite<P>,
    ) -> Result<Vec<&'w Batch<P>>, TransactionError> {
        let mut new = Vec::with_capacity(write.batches.len());
        for batch in &write.batches {
            let is_new = match batch.hint {
                Some(hint) => self.apply_once(marks, hint, write.shard)?,
                None => true,
            };
            if is_new {
                new.push(batch);
            }
        }
        if let (Some(below), Some(hint)) = (write.retired_below, write.first_hint()) {
            self.forget_retired(marks, hint.store, below)?;
        }
        Ok(new)
    }

    /// Takes a delivery into a database that no store shares: `work` is given the rows of `trees`,
    /// in the same order, and the batches that are new, in order; what it writes and their marks
    /// are one transaction of sled's. Then marks are forgotten that the sender says are of no more
    /// use, and all of it is made durable ([`make_durable`](crate::make_durable)), so that the
    /// sender may be told.
    ///
    /// `trees` must be of `db`, the database of the marks. As in sled, `work` may run several
    /// times. Calls of one `AppliedHints` and its clones take turns, each until it is durable: sled
    /// may hang or be destroyed where much is written between two fsyncs, so write 1 MiB at most
    /// in each, and everything else through a turn of its own too.
    ///
    /// ```
    /// # use hinted_handoff::*;
    /// # let dir = tempfile::tempdir()?;
    /// let db = open_database(&database_config(dir.path().join("db")))?;
    /// let (rows, applied) = (db.open_tree("rows")?, AppliedHints::open(&db)?);
    /// # let batch = Batch::new("cpu v=1".to_owned());
    /// # let received = ShardWrite::new(NodeId(2), ShardId(7), vec![batch]);
    /// // `received` is a `ShardWrite`, as it came over the wire.
    /// applied.apply_in_sled(&db, &[&rows], &received, |trees, new| {
    ///     for batch in new {
    ///         trees[0].insert("last", batch.points.as_str())?;
    ///     }
    ///     Ok::<(), sled::transaction::ConflictableTransactionError>(())
    /// })?; // durable: now the sender may be told
    /// # assert_eq!(rows.get("last")?.as_deref(), Some(b"cpu v=1".as_slice()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Abort` with what `work` gave up for: then nothing was changed. [`sled::Error::Unsupported`]
    /// if not all are of one database: then nothing was changed, either. `Storage` with what else
    /// sled or the operating system says, and [`sled::Error::ReportableBug`] if a mark is damaged;
    /// after that the outcome is unknown and the database must be opened again by
    /// [`open_database`](crate::open_database).
    pub fn apply_in_sled<P, T, E>(
        &self,
        db: &Db,
        trees: &[&Tree],
        write: &ShardWrite<P>,
        work: impl Fn(&[TransactionalTree], &[&Batch<P>]) -> ConflictableTransactionResult<T, E>,
    ) -> Result<T, SledError<E>> {
        if !same_database(db, self.tree()) {
            let text = "the marks are not in the database that was to be made durable".to_owned();
            return Err(SledError::Storage(sled::Error::Unsupported(text)));
        }
        let _turn = self.turn.lock();
        let all: Vec<&Tree> = [self.tree()]
            .into_iter()
            .chain(trees.iter().copied())
            .collect();
        let done = all.as_slice().transaction(|all| {
            let mut new = Vec::with_capacity(write.batches.len());
            // The marks come first, since they were named first.
            let (marks, trees) = all.split_first().ok_or_else(no_marks)?;
            for batch in &write.batches {
                let is_new = match batch.hint {
                    Some(hint) => self.apply_once_in_sled(marks, hint, write.shard)?,
                    None => true,
                };
                if is_new {
                    new.push(batch);
                }
            }
            work(trees, &new)
        })?;
        if let (Some(below), Some(hint)) = (write.retired_below, write.first_hint()) {
            let forgotten = self.forget_retired_in_sled(hint.store, below);
            forgotten.map_err(SledError::Storage)?;
        }
        let durable = make_durable(db);
        durable.map_err(|error| SledError::Storage(io::Error::other(error).into()))?;
        Ok(done)
    }
}

fn no_marks() -> sled::Error {
    sled::Error::ReportableBug("a transaction without the trees that it was given".to_owned())
}
