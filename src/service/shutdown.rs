//! Shutting down: on the runtime, or without it where it does not run.

use std::{sync::Arc, thread};

use tokio::sync::oneshot;

use super::handoff::Inner;
use crate::error::HandoffError;

impl Inner {
    /// In a task of its own, so that a caller who gives up does not leave the work half done.
    pub(super) async fn shut_down(self: Arc<Self>) -> Result<(), HandoffError> {
        let inner = Arc::clone(&self);
        let mut ending = self.runtime.spawn(async move {
            let settled = inner.end_writes().await;
            inner.replays.stop_all();
            inner.replays.stopped().await;
            let store = Arc::clone(&inner.store);
            let closed = tokio::task::spawn_blocking(move || store.close()).await;
            inner.events.close();
            closed.unwrap_or(Err(HandoffError::ShutDown)).and(settled)
        });
        let ended = tokio::select! {
            biased;
            ended = &mut ending => ended.ok(),
            _ = self.replays.pulse().stopped() => None,
        };
        match ended {
            Some(ended) => ended,
            None => {
                ending.abort();
                self.close_without_runtime().await
            }
        }
    }

    /// No task comes to its end on a runtime that does not run. Sends under way are as abandoned as
    /// in a crash: what they carry was not acknowledged.
    async fn close_without_runtime(&self) -> Result<(), HandoffError> {
        tracing::warn!("the store is closed without the runtime that it was opened on");
        let writes = self.abandon_writes();
        self.replays.stop_all();
        let store = Arc::clone(&self.store);
        let (tell, told) = oneshot::channel();
        let close = move || {
            // Nobody listens if the caller gave up.
            let _ = tell.send(store.close());
        };
        let closing = thread::Builder::new().name("hh-close".to_owned());
        let closed = match closing.spawn(close) {
            Ok(_) => told.await.unwrap_or(Err(HandoffError::ShutDown)),
            // Without a thread there is only this one.
            Err(_) => self.store.close(),
        };
        self.events.close();
        closed.and(match writes {
            0 => Ok(()),
            writes => Err(HandoffError::WritesUnderWay { writes }),
        })
    }
}
