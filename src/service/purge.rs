//! Housekeeping: removes nodes that leave once they are drained, parks those that are not in the
//! cluster, and purges those that were parked for too long.

use std::{future::pending, sync::Weak, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::handoff::Inner;
use crate::replay::Ended;

/// How often it purges, and how long after an open it does for the first time: so long the host has
/// to say who is in the cluster before anything is discarded because of what it said before.
const PURGE_EVERY: Duration = Duration::from_secs(60);
/// How often it looks for nodes to park, and for what a store that failed could not remove.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Works until the service stops or is gone. `leave_bell` changes when hints leave.
pub(super) async fn keep_house(
    inner: Weak<Inner>,
    mut leave_bell: watch::Receiver<()>,
    stop: CancellationToken,
    purge_after: Duration,
) -> Ended {
    let mut purges_at = Instant::now() + PURGE_EVERY;
    loop {
        // Held for a round only: the last handle must be able to go.
        let Some(held) = inner.upgrade() else {
            return Ok(());
        };
        // What leaves from here on rings.
        leave_bell.mark_unchanged();
        held.park_unlisted().await;
        held.remove_all_drained(held.store.leaving()).await;
        if purges_at <= Instant::now() {
            if !purge_after.is_zero() {
                held.purge_parked(purge_after).await;
            }
            purges_at = Instant::now() + PURGE_EVERY;
        }
        let some_leave = !held.store.leaving().is_empty();
        let looks_at = match some_leave || held.store.knows_all_members() {
            true => purges_at.min(Instant::now() + LOOK_EVERY),
            false => purges_at,
        };
        let house = std::sync::Arc::clone(&held.house);
        drop(held);
        let rung = async {
            match some_leave {
                true => leave_bell.changed().await,
                false => pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep_until(looks_at) => {}
            () = house.notified() => {}
            // The sender is in the service, so it ends with that.
            rung = rung => if rung.is_err() { return Ok(()) },
        }
    }
}
