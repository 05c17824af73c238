//! What all sends to a node have in common.

use std::{sync::Arc, time::Duration};

use super::{
    end::Interrupted, progress::Progress, rate_limit::RateLimit, send_limits::SendLimits,
    shard::Troubles,
};
use crate::{
    admission::Admission,
    ageing::Ageing,
    clock::Clock,
    links::Link,
    stats::DurationCounts,
    store::{Status, Store},
    types::NodeId,
};

/// What all sends to a node have in common.
pub struct Line<W> {
    pub node: NodeId,
    pub store: Arc<Store>,
    pub writer: Arc<W>,
    pub limit: RateLimit,
    /// What all nodes share.
    pub send_limits: Arc<SendLimits>,
    /// Where the time of each send is counted.
    pub send_times: Arc<DurationCounts>,
    pub timeout: Duration,
    pub clock: Clock,
    /// How old hints are.
    pub ageing: Arc<Ageing>,
    /// Told of every send, if direct writes keep behind them.
    pub admission: Option<Arc<Admission>>,
    /// Told how the node answers.
    pub link: Arc<Link>,
}

impl<W> Line<W> {
    /// An attempt failed.
    pub fn failed(&self, progress: &Progress, error: String) {
        progress.failed(error, self.clock.unix_ms());
    }

    /// Has the store remember how it goes, over restarts.
    pub fn note_status(&self, progress: &Progress, troubles: &Troubles) {
        let heads = troubles.heads();
        let seen = progress.seen();
        let status = Status {
            attempts: seen.attempts,
            last_error: seen.last_error,
            heads,
        };
        self.store.set_status(self.node, status);
    }

    /// Before a round begins, and before anything more is sent.
    pub fn check_held(&self) -> Result<(), Interrupted> {
        match self.store.hold(self.node).is_held() {
            true => Err(Interrupted::Held),
            false => Ok(()),
        }
    }
}
