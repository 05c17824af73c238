//! Which settings can change while it runs.

use super::Config;
use crate::error::ConfigError;

/// The first of these that differ is an error.
macro_rules! fixed {
    ($now:expr, $then:expr, $($field:ident),* $(,)?) => {
        $(if $now.$field != $then.$field {
            return Err(ConfigError {
                field: stringify!($field),
                value: format!("{:?}", $then.$field),
                rule: "the same until the handoff is opened again: it cannot change while it runs",
            });
        })*
    };
}

impl Config {
    /// Whether a handoff that runs with these settings can go on with others.
    pub(crate) fn check_change(&self, then: &Config) -> Result<(), ConfigError> {
        then.validate()?;
        fixed!(
            self,
            then,
            dir,
            durability,
            retry_interval,
            retry_max_interval,
            hint_after,
            max_outstanding,
            max_outstanding_bytes,
            max_dead_letters,
            max_dead_letter_bytes,
            shutdown_grace,
            commit_timeout,
            min_free_disk,
            expiry_grace,
            max_disk_bytes,
            when_full,
            block_timeout,
            manual_nodes,
            purge_after,
            on_unopenable,
            ordering,
            start_paused,
            reset_identity,
        );
        Ok(())
    }
}
