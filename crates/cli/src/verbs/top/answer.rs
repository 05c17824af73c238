//! What the host says of itself at a moment.

use std::time::Duration;

use hinted_handoff::{Amount, Pause};
use serde::Deserialize;

use crate::{
    client::Client,
    failure::Failure,
    verbs::nodes::{self, Named},
};

/// All that is shown, as the host answered it.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: Status,
    pub nodes: Vec<Named>,
}

/// The answer of `/v1/status`, as far as it is shown.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Status {
    pub health: String,
    pub text: String,
    pub read_only: bool,
    pub paused_all: Option<Pause>,
    pub pending: Amount,
    pub dead_letters: Amount,
    pub in_flight: u64,
    pub oldest_age_ms: Option<u64>,
    pub caught_up_in_ms: Option<u64>,
    pub store: Store,
}

/// Of the store, its counters among it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Store {
    pub groups: u64,
    pub fsyncs: u64,
    pub enqueued: Amount,
    pub lost: std::collections::BTreeMap<String, Amount>,
    pub log_bytes: u64,
    pub free_disk_bytes: Option<u64>,
    pub reserve_bytes: u64,
}

impl Status {
    pub fn oldest_age(&self) -> Option<Duration> {
        self.oldest_age_ms.map(Duration::from_millis)
    }

    pub fn caught_up_in(&self) -> Option<Duration> {
        self.caught_up_in_ms.map(Duration::from_millis)
    }
}

impl Answer {
    /// Asks for it.
    pub fn ask(client: &Client) -> Result<Answer, Failure> {
        Ok(Answer {
            status: client.get("/v1/status")?,
            nodes: nodes::all(client)?,
        })
    }
}
