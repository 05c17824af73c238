//! Dead letters: looking at them, sending them on, discarding them.

mod blocking;

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::handoff::HintedHandoff;
use crate::{
    error::HandoffError,
    millis,
    payload::{Payload, PayloadError, decode},
    store::{Dead, DeadReason, Hint, Place},
    types::{Amount, HintId, NodeId, ShardId},
};

/// Dead letters that are listed, or discarded, in one step where all are. Their records go in one
/// transaction (docs/sled.md rule 2).
const PAGE: usize = 100;
/// Dead letters on their way back into the queue at a time, where all are.
const REDRIVES_AT_A_TIME: usize = 64;

/// A hint that its node will not take, or that does not decode here, as it is kept: but for its
/// points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The id that it had as a hint, and has as a dead letter.
    pub id: HintId,
    /// The node it is for.
    pub node: NodeId,
    /// The shard it is for.
    pub shard: ShardId,
    /// Bytes of its payload.
    pub payload_bytes: u64,
    /// Why it is one.
    pub reason: DeadReason,
    /// What was said at the last attempt, with its causes; 4 KiB at most.
    pub error: String,
    /// Sends that it was in and that failed.
    pub attempts: u32,
    /// When the first of them failed, by the wall clock. Serialized as `first_failed_unix_ms`, in
    /// milliseconds since 1970.
    #[serde(rename = "first_failed_unix_ms", with = "millis::unix")]
    pub first_failed: SystemTime,
    /// When the last one did. Serialized as `last_failed_unix_ms`.
    #[serde(rename = "last_failed_unix_ms", with = "millis::unix")]
    pub last_failed: SystemTime,
}

/// A dead letter with what it holds.
#[derive(Debug)]
#[non_exhaustive]
pub struct DeadLetterContent<P> {
    /// What is known of it.
    pub letter: DeadLetter,
    /// When it was enqueued, or sent on the last time, by the wall clock.
    pub enqueued: SystemTime,
    /// If it was a dead letter before: the id that it had first.
    pub redriven_from: Option<HintId>,
    /// The version of the payload's encoding.
    pub format: u16,
    /// The payload as it was written.
    pub raw: Bytes,
    /// The points, if this host can make them of it.
    pub points: Result<P, PayloadError>,
}

/// What came of sending all dead letters of a node on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Redriven {
    /// Those that were: their id as a dead letter, and the one they have now.
    pub hints: Vec<(HintId, HintId)>,
    /// Those whose payload does not read any more: they stay until they are discarded.
    pub damaged: Vec<HintId>,
}

fn time(unix_ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(unix_ms)
}

/// A letter on its way back: told its new id, or that it was none any more.
struct Redriving {
    letter: HintId,
    told: oneshot::Receiver<Result<Option<HintId>, HandoffError>>,
}

impl<P: Payload> HintedHandoff<P> {
    /// Dead letters of a node, oldest first by their ids: at most `max`, from the one behind
    /// `after` on. Their points stay on the disk; see [`dead_letter`](HintedHandoff::dead_letter).
    /// How many there are is in [`NodeStats::dead_letters`](crate::NodeStats::dead_letters).
    ///
    /// # Errors
    /// [`HandoffError::UnknownNode`], [`HandoffError::HintOfAnotherStore`], or why the store does
    /// not serve.
    pub async fn dead_letters(
        &self,
        node: NodeId,
        after: Option<HintId>,
        max: usize,
    ) -> Result<Vec<DeadLetter>, HandoffError> {
        if let Some(after) = after {
            self.check_id(after)?;
        }
        let letters = self
            .read(move |store| store.letters(node, after, max))
            .await?;
        let letters = letters.into_iter();
        Ok(letters
            .map(|(place, dead)| self.told(node, place, dead))
            .collect())
    }

    /// A dead letter with what it holds, whether that decodes here or not.
    ///
    /// # Errors
    /// [`HandoffError::UnknownNode`], [`HandoffError::HintOfAnotherStore`],
    /// [`HandoffError::NoDeadLetter`], [`HandoffError::DamagedLetter`], or why the store does not
    /// serve.
    pub async fn dead_letter(
        &self,
        node: NodeId,
        id: HintId,
    ) -> Result<DeadLetterContent<P>, HandoffError> {
        let (place, dead, hint) = self.letter(node, id).await?;
        Ok(DeadLetterContent {
            letter: self.told(node, place, dead),
            enqueued: self.inner.ageing.shown(hint.enqueued_unix_ms),
            redriven_from: hint.redriven_from(id.store),
            format: hint.format,
            points: decode(hint.format, &hint.payload),
            raw: hint.payload,
        })
    }

    /// Sends a dead letter on: it becomes the last hint of its node's queue, under a new id, which
    /// is returned once that is durable. It is stamped with the time of now, and keeps the id that
    /// it had first as `redriven_from`.
    ///
    /// Dropping the future after it was polled once may or may not withdraw it.
    ///
    /// # Errors
    /// [`HandoffError::NoDeadLetter`] if it is none, or somebody else was faster;
    /// [`HandoffError::Refused`] if there is no room for a hint; [`HandoffError::UnknownNode`],
    /// [`HandoffError::HintOfAnotherStore`], [`HandoffError::DamagedLetter`], or why the store does
    /// not serve.
    pub async fn redrive(&self, node: NodeId, id: HintId) -> Result<HintId, HandoffError> {
        let on_its_way = self.send_on(node, id).await?;
        let now = on_its_way
            .told
            .await
            .unwrap_or(Err(HandoffError::ShutDown))?;
        now.ok_or(HandoffError::NoDeadLetter { node, hint: id })
    }

    /// Sends all dead letters on that a node has now, in the order of their ids. One that is
    /// discarded or sent on by somebody else meanwhile is passed over.
    ///
    /// # Errors
    /// As [`redrive`](HintedHandoff::redrive). What was sent on before the error is; the rest
    /// stays, so it can be called again.
    pub async fn redrive_all(&self, node: NodeId) -> Result<Redriven, HandoffError> {
        // First all of them, lest one that comes back as a dead letter is sent on again and again.
        let ids = self.ids_of_letters(node).await?;
        let mut done = Redriven::default();
        let mut on_their_way: VecDeque<Redriving> = VecDeque::new();
        for id in ids {
            match self.send_on(node, id).await {
                Ok(letter) => on_their_way.push_back(letter),
                Err(HandoffError::NoDeadLetter { .. }) => {}
                Err(HandoffError::DamagedLetter { hint }) => done.damaged.push(hint),
                Err(error) => return Err(error),
            }
            if on_their_way.len() >= REDRIVES_AT_A_TIME
                && let Some(first) = on_their_way.pop_front()
            {
                done.note(first).await?;
            }
        }
        for letter in on_their_way {
            done.note(letter).await?;
        }
        Ok(done)
    }

    /// Discards dead letters, which the loss journal tells
    /// ([`LossReason::Discarded`](crate::LossReason::Discarded)). Returns how much was there still,
    /// once that is durable.
    ///
    /// # Errors
    /// [`HandoffError::UnknownNode`], [`HandoffError::HintOfAnotherStore`], or why the store does
    /// not serve.
    pub async fn discard(&self, node: NodeId, ids: &[HintId]) -> Result<Amount, HandoffError> {
        ids.iter().try_for_each(|id| self.check_id(*id))?;
        let mut sum = Amount::default();
        for page in ids.chunks(PAGE) {
            let ids = page.to_vec();
            let places = self.read(move |store| store.places(node, &ids)).await?;
            let (tell, told) = oneshot::channel();
            self.inner.store.discard(node, places, move |left| {
                let _ = tell.send(left);
            });
            sum = sum.plus(told.await.unwrap_or(Err(HandoffError::ShutDown))?);
        }
        Ok(sum)
    }

    /// Discards all dead letters that a node has now.
    ///
    /// # Errors
    /// As [`discard`](HintedHandoff::discard).
    pub async fn discard_all(&self, node: NodeId) -> Result<Amount, HandoffError> {
        let ids = self.ids_of_letters(node).await?;
        self.discard(node, &ids).await
    }

    pub(super) fn check_id(&self, hint: HintId) -> Result<(), HandoffError> {
        let store = self.inner.store.id();
        match hint.store == store {
            true => Ok(()),
            false => Err(HandoffError::HintOfAnotherStore { hint, store }),
        }
    }

    fn id_of(&self, place: Place) -> HintId {
        HintId {
            store: self.inner.store.id(),
            queue: place.queue.queue,
            sequence: place.sequence,
        }
    }

    fn told(&self, node: NodeId, place: Place, dead: Dead) -> DeadLetter {
        let cause = dead.cause;
        DeadLetter {
            id: self.id_of(place),
            node,
            shard: dead.shard,
            payload_bytes: dead.payload_bytes,
            reason: cause.reason,
            error: cause.error,
            attempts: cause.attempts,
            first_failed: time(cause.first_failed_unix_ms),
            last_failed: time(cause.last_failed_unix_ms),
        }
    }

    async fn letter(&self, node: NodeId, id: HintId) -> Result<(Place, Dead, Hint), HandoffError> {
        self.check_id(id)?;
        let letter = self.read(move |store| store.letter(node, id)).await?;
        letter.ok_or(HandoffError::NoDeadLetter { node, hint: id })
    }

    async fn ids_of_letters(&self, node: NodeId) -> Result<Vec<HintId>, HandoffError> {
        let mut ids: Vec<HintId> = Vec::new();
        loop {
            let after = ids.last().copied();
            let page = self
                .read(move |store| store.letters(node, after, PAGE))
                .await?;
            let is_last = page.len() < PAGE;
            ids.extend(page.into_iter().map(|(place, _)| self.id_of(place)));
            if is_last {
                return Ok(ids);
            }
        }
    }

    /// Hands a dead letter in to become a hint again, with room for it in the pipeline.
    async fn send_on(&self, node: NodeId, id: HintId) -> Result<Redriving, HandoffError> {
        let (place, _, hint) = self.letter(node, id).await?;
        let permit = self.room(hint.payload.len()).await?;
        let ageing = &self.inner.ageing;
        // Of its own time it has what is left; if nothing is, it will be gone before it is sent.
        let lifetime_ms = hint
            .lifetime_ms
            .map(|ms| ageing.left_ms(hint.enqueued_unix_ms, ms));
        lifetime_ms.inspect(|ms| ageing.note_lifetime(*ms));
        let hint = Hint {
            shard: hint.shard,
            format: hint.format,
            // As if it came now, lest it is too old the moment it is a hint.
            enqueued_unix_ms: ageing.now(),
            payload: hint.payload,
            origin: hint.origin.or(Some((id.queue, id.sequence))),
            write: hint.write,
            lifetime_ms,
        };
        let on_its_way = self.on_its_way(node, hint.shard);
        let (tell, told) = oneshot::channel();
        self.inner.store.redrive(node, place, hint, move |now| {
            drop(permit);
            if let (Some(hint), Ok(Some(id))) = (on_its_way, &now) {
                hint.durable(*id);
            }
            let _ = tell.send(now);
        });
        Ok(Redriving { letter: id, told })
    }
}

impl Redriven {
    async fn note(&mut self, on_its_way: Redriving) -> Result<(), HandoffError> {
        let told = on_its_way
            .told
            .await
            .unwrap_or(Err(HandoffError::ShutDown))?;
        // Somebody else was faster, or it was discarded.
        let now = told.map(|now| (on_its_way.letter, now));
        self.hints.extend(now);
        Ok(())
    }
}
