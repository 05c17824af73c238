//! What is kept of limits: how hints wait for room, and who looks for hints to drop.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use super::dropping::Dropping;
use crate::{
    config::{Config, WhenFull},
    store::{Reader, Store},
    types::NodeId,
};

/// How limits are kept.
pub(super) struct Door {
    pub when_full: WhenFull,
    pub block_timeout: Duration,
    /// Whether hints wait for space on the disk.
    pub awaits_disk: bool,
    /// Rung when there may be room.
    pub room: Arc<Notify>,
    /// One permit: for who looks for hints to drop.
    pub looking: Semaphore,
    pub dropping: Dropping,
    /// Guards the reader of who looked last, for the next one to take out; held for no longer than
    /// that.
    pub reader: Mutex<Option<(NodeId, Reader)>>,
}

impl Door {
    pub fn new(config: &Config, store: &Store) -> Self {
        let room = Arc::new(Notify::new());
        let bell = Arc::clone(&room);
        store.when_room(Box::new(move || bell.notify_waiters()));
        Door {
            when_full: config.when_full,
            block_timeout: config.block_timeout,
            awaits_disk: config.when_full == WhenFull::Block && config.min_free_disk > 0,
            room,
            looking: Semaphore::new(1),
            dropping: Dropping::default(),
            reader: Mutex::default(),
        }
    }
}
