//! Whether a thread works, for the watchdog.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// Whether a thread is busy, and whether it is with the same turn still, for the watchdog. Only
/// that thread writes it.
#[derive(Default)]
pub struct Busy {
    turns: AtomicU64,
    /// Which turn it is; 0 when idle.
    turn: AtomicU64,
}

impl Busy {
    pub fn start(&self) {
        let turn = self.turns.fetch_add(1, Relaxed) + 1;
        self.turn.store(turn, Release);
    }

    pub fn stop(&self) {
        self.turn.store(0, Release);
    }

    /// Which turn it is busy with, `None` if it is idle.
    pub fn turn(&self) -> Option<u64> {
        Some(self.turn.load(Acquire)).filter(|turn| *turn != 0)
    }
}
