//! What a series is to be like, and each of its lives.

use std::{path::Path, process::Command, time::Duration};

use hinted_handoff::{AnswerWhen, Config, Durability, OnNotStored, WhenFull, WriteOrdering};

use crate::coordinator::Orders;

/// What a series is hard on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stress {
    /// By turns everything.
    Mixed,
    /// There is room for a few hints only.
    Room,
    /// Sends are outstanding for long after their hints are due.
    Time,
}

/// Settings of a series.
#[derive(Debug, Clone, Copy)]
pub struct Series {
    pub seed: u64,
    pub lives: u64,
    pub answer: AnswerWhen,
    pub ordering: WriteOrdering,
    /// Safeguards that a control switches off.
    pub switched_off: &'static str,
    pub stress: Stress,
    /// Whether the store is compacted all the time.
    pub compacts: bool,
}

impl Series {
    /// By turns with both orders; two of three are accounted.
    pub fn by_turns(seed: u64, number: u64, lives: u64) -> Series {
        let by = |of: u64| number % of == of - 1;
        Series {
            seed,
            lives,
            answer: match by(3) {
                true => AnswerWhen::Level,
                false => AnswerWhen::Accounted,
            },
            ordering: match by(2) {
                true => WriteOrdering::Strict,
                false => WriteOrdering::Bypass,
            },
            switched_off: "",
            stress: Stress::Mixed,
            compacts: by(4),
        }
    }

    /// Other settings for each life.
    pub fn config(&self, store: &Path, random: &mut fastrand::Rng) -> Config {
        let mixed = self.stress == Stress::Mixed;
        let hints_max = match self.stress {
            Stress::Mixed => (random.u8(..4) == 0).then(|| random.u64(1..60)),
            Stress::Room => Some(4),
            Stress::Time => None,
        };
        let (hint_after_ms, write_timeout_ms) = match self.stress {
            Stress::Time => (1..10, 1_000..1_001),
            _ => (0..20, 50..200),
        };
        Config {
            answer: self.answer,
            ordering: self.ordering,
            durability: [Durability::Sync, Durability::Buffered][random.usize(..2)],
            hint_after: Duration::from_millis(random.u64(hint_after_ms)),
            write_timeout: Duration::from_millis(random.u64(write_timeout_ms)),
            send_timeout: Duration::from_millis(50),
            max_outstanding: match random.u8(..3) {
                0 => random.usize(1..8),
                _ => 1024,
            },
            on_not_stored: match mixed && random.bool() {
                true => OnNotStored::Fail,
                false => OnNotStored::Report,
            },
            fail_early: random.bool(),
            max_hints_per_node: hints_max,
            when_full: match (random.u8(..3), self.ordering) {
                // What is being dropped when it is stopped comes back, and later hints of its shard
                // may have been let past it.
                (0, WriteOrdering::Bypass) => WhenFull::DropOldest,
                (1, _) => WhenFull::Block,
                _ => WhenFull::Reject,
            },
            block_timeout: Duration::from_millis(10),
            max_dead_letters: match random.u8(..6) {
                0 => 3,
                _ => 10_000,
            },
            shutdown_grace: Duration::from_millis(20),
            ..self.drained(store)
        }
    }

    /// What all lives have in common.
    pub fn drained(&self, store: &Path) -> Config {
        Config {
            retry_interval: Duration::from_millis(2),
            retry_max_interval: Duration::from_millis(10),
            min_free_disk: 0,
            ..Config::new(store)
        }
    }

    pub fn command(&self, orders: &Orders, life: u64) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(orders.to_arguments());
        command.env("RUST_BACKTRACE", "0");
        if life % 2 == 1 {
            command.env("HH_FLUSH_FROM_BYTES", "16384");
        }
        if self.compacts {
            command.env("HH_COMPACTION", "eager");
        }
        if !self.switched_off.is_empty() {
            command.env("HH_SWITCHED_OFF", self.switched_off);
        }
        command
    }
}

/// What is drawn of a configuration.
pub fn drawn(config: &Config) -> String {
    format!(
        "{:?}, hint_after {:?}, write_timeout {:?}, max_outstanding {}, on_not_stored {:?}, fail_early {}, max_hints_per_node {:?}, {:?}, \
         max_dead_letters {}",
        config.durability,
        config.hint_after,
        config.write_timeout,
        config.max_outstanding,
        config.on_not_stored,
        config.fail_early,
        config.max_hints_per_node,
        config.when_full,
        config.max_dead_letters,
    )
}
