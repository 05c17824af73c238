//! What the configuration says of replay, and what all nodes share.

use std::{sync::Arc, time::Duration};

use super::send_limits::SendLimits;
use crate::{admission::Admission, clock::Clock, links::Links};

/// Settings of all processors.
#[derive(Clone)]
pub struct Settings {
    pub retry_interval: Duration,
    pub retry_max_interval: Duration,
    pub rate_limit: u64,
    pub batch_bytes: u64,
    pub send_timeout: Duration,
    pub max_in_flight: usize,
    pub window_hints: usize,
    pub window_bytes: u64,
    pub max_attempts: u32,
    pub shutdown_grace: Duration,
    pub clock: Clock,
    pub send_limits: Arc<SendLimits>,
    /// Told of every send, if direct writes keep behind them.
    pub admission: Option<Arc<Admission>>,
    pub links: Arc<Links>,
}
