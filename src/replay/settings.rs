//! What the configuration says of replay, and what all nodes share.

use std::{sync::Arc, time::Duration};

use super::send_limits::SendLimits;
use crate::{
    admission::Admission, clock::Clock, config::Config, links::Links, stats::DurationCounts,
};

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
    /// Where the time of each send is counted.
    pub send_times: Arc<DurationCounts>,
    /// Told of every send, if direct writes keep behind them.
    pub admission: Option<Arc<Admission>>,
    pub links: Arc<Links>,
}

impl Settings {
    pub fn new(
        config: &Config,
        send_times: Arc<DurationCounts>,
        admission: Option<Arc<Admission>>,
        links: Arc<Links>,
    ) -> Self {
        Settings {
            retry_interval: config.retry_interval,
            retry_max_interval: config.retry_max_interval,
            rate_limit: config.retry_rate_limit,
            batch_bytes: config.batch_bytes,
            send_timeout: config.send_timeout,
            max_in_flight: config.max_in_flight,
            window_hints: config.window_hints,
            window_bytes: config.window_bytes,
            max_attempts: config.max_attempts,
            shutdown_grace: config.shutdown_grace,
            clock: links.clock().clone(),
            send_limits: Arc::new(SendLimits::new(config)),
            send_times,
            admission,
            links,
        }
    }

    /// The same with what another configuration says.
    pub fn changed(&self, config: &Config) -> Self {
        let (times, links) = (Arc::clone(&self.send_times), Arc::clone(&self.links));
        Settings::new(config, times, self.admission.clone(), links)
    }
}
