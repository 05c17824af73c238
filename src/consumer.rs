//! Taking the hints of a node by hand, instead of having them replayed: a transactional queue.

mod reading;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::Ordering::{Acquire, Release},
    },
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{
    blocking::block_on,
    error::{HandoffError, TransactionError},
    payload::Payload,
    peeked::PeekedPoints,
    service::handoff::HintedHandoff,
    store::{DeadCause, DeadReason, Reader, Rows},
    transaction::{Hints, refuse_nested},
    types::{HintId, NodeId},
};

/// How often a consumer that waits looks whether the store still serves.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The one who takes the hints of a node, in order: it peeks at them, and lets them leave with what
/// the host makes of them.
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
/// const MAIL: NodeId = NodeId(1);
/// let config = Config { manual_nodes: [MAIL].into(), ..Config::new(dir.path().join("db")) };
/// let db = open_database(&database_config(&config.dir))?;
/// let sent = db.open_tree("sent")?;
/// let handoff = HintedHandoff::open_in(&db, config, Nobody).await?;
/// handoff.write_shard(MAIL, ShardId(1), &"to ada".to_owned()).await?;
///
/// let mut mail = handoff.consumer(MAIL)?;
/// mail.ready().await?;
/// let letters = mail.peek(10).await?;
/// handoff.transaction(&[&sent], |rows, hints| {
///     for letter in &letters {
///         rows[0].insert(letter.id.sequence.0.to_be_bytes(), letter.points.as_str())?;
///     }
///     hints.ack(&letters)?;
///     Ok(())
/// }).await?;
/// assert_eq!(sent.len(), 1);
/// assert!(mail.peek(10).await?.is_empty());
/// # handoff.shutdown().await?;
/// # Ok(())
/// # }
/// ```
pub struct Consumer<P: Payload> {
    handoff: HintedHandoff<P>,
    node: NodeId,
    reader: Reader,
}

impl<P: Payload> HintedHandoff<P> {
    /// The consumer of a node in [`Config::manual_nodes`](crate::Config::manual_nodes). There is
    /// one at a time; when it is dropped there can be another.
    ///
    /// # Errors
    /// [`HandoffError::Replayed`] if the node is not one of these, [`HandoffError::Consumed`] if it
    /// has a consumer.
    pub fn consumer(&self, node: NodeId) -> Result<Consumer<P>, HandoffError> {
        let manual = self.replays().manual(node);
        let manual = manual.ok_or(HandoffError::Replayed { node })?;
        if manual.is_taken.swap(true, Acquire) {
            return Err(HandoffError::Consumed { node });
        }
        Ok(Consumer {
            handoff: self.clone(),
            node,
            reader: Reader::default(),
        })
    }
}

impl<P: Payload> fmt::Debug for Consumer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl<P: Payload> Drop for Consumer<P> {
    fn drop(&mut self) {
        if let Some(manual) = self.handoff.replays().manual(self.node) {
            manual.is_taken.store(false, Release);
        }
    }
}

impl<P: Payload> Consumer<P> {
    /// Waits until something can be peeked at.
    ///
    /// # Errors
    /// [`HandoffError`] if the store does not serve or is shut down.
    pub async fn ready(&self) -> Result<(), HandoffError> {
        let replays = self.handoff.replays();
        let manual = replays.manual(self.node);
        let manual = manual.ok_or(HandoffError::Replayed { node: self.node })?;
        loop {
            if replays.stop().is_cancelled() {
                return Err(HandoffError::ShutDown);
            }
            if self.handoff.store().has_next(self.node) {
                return Ok(());
            }
            tokio::select! {
                () = replays.stop().cancelled() => {}
                () = manual.bell.notified() => {}
                error = self.failure() => return Err(error),
            }
        }
    }

    /// [`ready`](Consumer::ready) for a thread that does not drive a tokio runtime. Blocks it.
    ///
    /// # Errors
    /// As `ready`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `ready` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn ready_blocking(&self) -> Result<(), HandoffError> {
        block_on(self.ready())
    }

    /// Waits until the store does not serve. No bell is rung for that.
    async fn failure(&self) -> HandoffError {
        loop {
            if let Err(error) = self.handoff.store().check_serving() {
                return error;
            }
            let pulse = self.handoff.replays().pulse();
            if let Err(why) = pulse.sleep(LOOK_EVERY).await {
                return why.into();
            }
        }
    }

    /// The next hints, at most `max` and at most
    /// [`Config::batch_bytes`](crate::Config::batch_bytes) of points but at least one, if there is
    /// one; none otherwise. They stay in the queue until they are acknowledged: the next peek sees
    /// the same ones.
    ///
    /// Only what is durable is seen. A hint that does not read any more, because the disk damaged
    /// it, is skipped, counted and logged. One that is too old leaves undelivered instead of being
    /// seen.
    ///
    /// # Errors
    /// [`HandoffError::Undecodable`] if the next hint does not decode, which stays so until it is
    /// read by another version of the host or made a dead letter by
    /// [`make_dead_letter`](Consumer::make_dead_letter); or why the store does not serve.
    pub async fn peek(&mut self, max: usize) -> Result<Vec<PeekedPoints<P>>, HandoffError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let hints = self.peek_stored(max).await?;
        self.decode(hints)
    }

    /// [`peek`](Consumer::peek) for a thread that does not drive a tokio runtime. Blocks it.
    ///
    /// # Errors
    /// As `peek`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `peek` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn peek_blocking(&mut self, max: usize) -> Result<Vec<PeekedPoints<P>>, HandoffError> {
        block_on(self.peek(max))
    }

    /// Lets hints leave the queue, durably or as [`Config::durability`](crate::Config::durability)
    /// says. To have that happen together with changes of rows, use
    /// [`Hints::ack`](crate::Hints::ack) in a transaction.
    ///
    /// # Errors
    /// [`TransactionError::NotNext`] if they are not the next ones of the queue, or why the store
    /// does not serve.
    pub async fn ack(&mut self, hints: &[PeekedPoints<P>]) -> Result<(), TransactionError> {
        let mut ack = |_: &mut [Rows<'_>], all: &mut Hints<'_, P>| Ok(all.ack(hints)?);
        let committed = self.handoff.run_until_committed(&[], &mut ack).await;
        committed.map(drop)
    }

    /// [`ack`](Consumer::ack) for a thread that does not drive a tokio runtime. Blocks it.
    ///
    /// # Errors
    /// As `ack`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `ack` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn ack_blocking(&mut self, hints: &[PeekedPoints<P>]) -> Result<(), TransactionError> {
        refuse_nested()?;
        block_on(self.ack(hints))
    }

    /// Makes the next hint a dead letter, with what the host says of it: one that does not decode,
    /// or that it will never take. What is behind it is next then. The dead letter is kept like any
    /// other: see [`dead_letters`](HintedHandoff::dead_letters),
    /// [`redrive`](HintedHandoff::redrive) and [`discard`](HintedHandoff::discard).
    ///
    /// It is durable when this returns. If the future is dropped before, it may come into effect
    /// all the same.
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
    /// # const MAIL: NodeId = NodeId(1);
    /// # let config = Config::new(dir.path().join("hints"));
    /// # let config = Config { manual_nodes: [MAIL].into(), ..config };
    /// # let handoff = HintedHandoff::open(config, Nobody).await?;
    /// # handoff.write_shard(MAIL, ShardId(1), &"to nobody".to_owned()).await?;
    /// # handoff.write_shard(MAIL, ShardId(1), &"to ada".to_owned()).await?;
    /// let mut mail = handoff.consumer(MAIL)?;
    /// let letters = loop {
    ///     match mail.peek(10).await {
    ///         Ok(letters) => break letters,
    ///         // It would be the next one for ever.
    ///         Err(HandoffError::Undecodable { hint, source, .. }) => {
    ///             mail.make_dead_letter(hint, DeadReason::Undecodable, source.to_string()).await?;
    ///         }
    ///         Err(error) => return Err(error.into()),
    ///     }
    /// };
    /// // One that decodes, and will never be taken.
    /// let why = "there is nobody of that name";
    /// mail.make_dead_letter(letters[0].id, DeadReason::Rejected, why).await?;
    /// assert_eq!(mail.peek(10).await?[0].points, "to ada");
    /// let dead = handoff.dead_letters(MAIL, None, 10).await?;
    /// assert_eq!(dead[0].error, "there is nobody of that name");
    /// # handoff.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`HandoffError::NotNext`] if `head` is not the next hint that [`peek`](Consumer::peek) would
    /// see, or why the store does not serve. With [`HandoffError::Storage`] it may come into effect
    /// all the same.
    pub async fn make_dead_letter(
        &mut self,
        head: HintId,
        reason: DeadReason,
        error: impl Into<String>,
    ) -> Result<(), HandoffError> {
        let not_next = HandoffError::NotNext {
            node: self.node,
            hint: head,
        };
        let hint = self.next().await?.filter(|hint| self.id(hint.mark) == head);
        let hint = hint.ok_or_else(|| not_next.clone())?;
        let (store, node, now) = (
            Arc::clone(self.handoff.store()),
            self.node,
            self.handoff.clock().unix_ms(),
        );
        let mut claimed = vec![hint];
        let reopens = store.claim(node, &mut claimed);
        // One that a limit takes at the moment is not the next one any more.
        let hint = claimed.first().cloned().ok_or_else(|| not_next.clone())?;
        let cause = DeadCause {
            reason,
            error: error.into(),
            attempts: 0,
            first_failed_unix_ms: now,
            last_failed_unix_ms: now,
        };
        tracing::warn!(
            node = node.0, shard = hint.hint.shard.0, queue = head.queue.0, sequence = head.sequence.0, ?reason, error = %cause.error,
            "a hint becomes a dead letter by hand"
        );
        let (tell, told) = oneshot::channel();
        let held = Arc::clone(&store);
        store.make_dead_letter_of_pending(node, hint, cause, move |left| {
            if left.is_err() {
                held.release_claimed(node, &claimed, reopens);
            }
            // Nobody listens any more if the future was dropped.
            let _ = tell.send(left);
        });
        let left = told.await.map_err(|_| HandoffError::ShutDown)??;
        match left.hints {
            0 => Err(not_next),
            _ => Ok(()),
        }
    }

    /// [`make_dead_letter`](Consumer::make_dead_letter) for a thread that does not drive a tokio
    /// runtime. Blocks it.
    ///
    /// # Errors
    /// As `make_dead_letter`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `make_dead_letter` there, or use
    /// `spawn_blocking`.
    #[track_caller]
    pub fn make_dead_letter_blocking(
        &mut self,
        head: HintId,
        reason: DeadReason,
        error: impl Into<String>,
    ) -> Result<(), HandoffError> {
        block_on(self.make_dead_letter(head, reason, error))
    }
}
