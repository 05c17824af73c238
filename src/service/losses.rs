//! Asking the loss journal.

use tokio::sync::oneshot;

use super::handoff::HintedHandoff;
use crate::{
    blocking::block_on,
    error::{HandoffError, ReplayStopped, StorageError},
    payload::Payload,
    store::{Losses, Store},
};

impl<P: Payload> HintedHandoff<P> {
    /// What left undelivered, from an index of the loss journal on; 0 for all that it holds.
    ///
    /// Everything told is durable, and no entry that was told changes any more. So a host that
    /// repairs what was lost keeps [`Losses::next`] with its repairs, and asks from there the next
    /// time.
    ///
    /// # Errors
    /// [`HandoffError`] if the store does not serve.
    pub async fn losses(&self, since: u64) -> Result<Losses, HandoffError> {
        let (tell, told) = oneshot::channel();
        self.inner.store.close_entries(move |next| {
            // Nobody listens if the caller gave up.
            let _ = tell.send(next);
        });
        let next = told.await.unwrap_or(Err(HandoffError::ShutDown))?;
        let mut losses = self.read(move |store| store.losses(since)).await?;
        // What came meanwhile is told the next time.
        losses.entries.retain(|(index, _)| *index < next);
        losses.next = next;
        Ok(losses)
    }

    /// [`losses`](HintedHandoff::losses) for a thread that does not drive a tokio runtime. Blocks
    /// it.
    ///
    /// # Errors
    /// As `losses`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `losses` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn losses_blocking(&self, since: u64) -> Result<Losses, HandoffError> {
        block_on(self.losses(since))
    }

    /// Has a blocking thread read from the store.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, HandoffError> + Send + 'static,
    ) -> Result<T, HandoffError> {
        let store = self.inner.store.clone();
        let reading = self.inner.runtime.spawn_blocking(move || {
            store.check_serving()?;
            work(&store)
        });
        match reading.await {
            Ok(read) => read,
            // docs/sled.md rule 10: a damaged file may make a read panic. It says nothing about the
            // rest of the store.
            Err(error) if error.is_panic() => {
                Err(StorageError::new("read: the engine panicked", error).into())
            }
            Err(_) => Err(ReplayStopped::RuntimeGone.into()),
        }
    }
}
