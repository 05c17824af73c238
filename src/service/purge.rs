//! Housekeeping: purges nodes that were parked for too long.

use std::{sync::Weak, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Inner;
use crate::store::Now;

/// How often it looks, and how long after an open it does for the first time: so long the host has to say who is in the cluster before
/// anything is discarded because of what it said before.
const EVERY: Duration = Duration::from_secs(60);

/// Works until the service stops or is gone.
pub(super) async fn keep_house(inner: Weak<Inner>, stop: CancellationToken, purge_after: Duration) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(EVERY) => {}
        }
        // Held for a round only: the last handle must be able to go.
        let Some(inner) = inner.upgrade() else {
            return;
        };
        inner.purge_parked(inner.now(), purge_after).await;
    }
}

impl Inner {
    /// This moment, by both clocks.
    pub(super) fn now(&self) -> Now {
        Now {
            unix_ms: self.clock.unix_ms(),
            open_for: self.opened.elapsed(),
        }
    }
}
