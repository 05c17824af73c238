//! Hints that come from another store.

use std::collections::VecDeque;

use tokio::sync::oneshot::error::TryRecvError;

use super::handoff::{HintedHandoff, Told, no_answer};
use crate::{
    blocking::block_on,
    error::{EnqueueError, ImportError},
    import::Import,
    payload::Payload,
    store::Fate,
    types::HintId,
};

impl<P: Payload> HintedHandoff<P> {
    /// Puts hints in that another store had, in their order, behind what is pending; as of a
    /// coordinator that is given up, whose store `offline` reads. Returns their new ids, in the
    /// same order, once all are durable, whatever [`Config::durability`](crate::Config::durability)
    /// says.
    ///
    /// Kept are node, shard, order, payload and its format, age, lifetime and the id of the write;
    /// of dead letters also how they came to be some. Limits, the disk reserve and hinting that is
    /// stopped are asked as for any hint, and dead letters are bounded by
    /// [`Config::max_dead_letters`](crate::Config::max_dead_letters). The payload is not decoded:
    /// one that this host cannot read is found when it is sent.
    ///
    /// All of `hints` is kept in memory: call it piece by piece. If the future is dropped, some may
    /// be stored.
    ///
    /// # Errors
    /// [`ImportError`] at the first that was not stored, with those before it. Of those behind it
    /// some may be stored.
    pub async fn import(&self, hints: Vec<Import>) -> Result<Vec<HintId>, ImportError> {
        let mut under_way = VecDeque::with_capacity(hints.len());
        let (mut stored, mut refused) = (Vec::with_capacity(hints.len()), None);
        for import in hints {
            // Nothing is to come in behind one of which it is known that it did not.
            if let Err(source) = take_answers(&mut under_way, &mut stored) {
                return Err(ImportError { stored, source });
            }
            match self.hand_in_import(import).await {
                Ok(told) => under_way.push_back(told),
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        for told in under_way {
            match told.await.unwrap_or_else(|_| Err(no_answer())) {
                Ok(id) => stored.push(id),
                Err(source) => return Err(ImportError { stored, source }),
            }
        }
        match refused {
            Some(source) => Err(ImportError { stored, source }),
            None => Ok(stored),
        }
    }

    /// [`import`](HintedHandoff::import) for a thread that does not drive a tokio runtime. Blocks
    /// it.
    ///
    /// # Errors
    /// As `import`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `import` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn import_blocking(&self, hints: Vec<Import>) -> Result<Vec<HintId>, ImportError> {
        block_on(self.import(hints))
    }

    async fn hand_in_import(&self, import: Import) -> Result<Told<HintId>, EnqueueError> {
        let (node, hint, dead) = import.into_hint();
        self.check_size(hint.payload.len())?;
        hint.lifetime_ms
            .inspect(|ms| self.inner.ageing.note_lifetime(*ms));
        match dead {
            Some(cause) => {
                self.inner.store.check_serving()?;
                self.check_hinted(node)?;
                self.hand_in_undelivered(node, hint, Fate::Dead(cause))
                    .await
            }
            None => self.hand_in(node, hint).await,
        }
    }
}

/// The ids that are told by now, in order; nothing is waited for.
fn take_answers(
    under_way: &mut VecDeque<Told<HintId>>,
    stored: &mut Vec<HintId>,
) -> Result<(), EnqueueError> {
    while let Some(told) = under_way.front_mut() {
        match told.try_recv() {
            Ok(answer) => stored.push(answer?),
            Err(TryRecvError::Empty) => break,
            Err(TryRecvError::Closed) => return Err(no_answer()),
        }
        under_way.pop_front();
    }
    Ok(())
}
