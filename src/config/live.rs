//! Which settings can change while it runs.

use super::Config;
use crate::error::ConfigError;

const RULE: &str = "it cannot change while it runs; set it for the next open";

macro_rules! settings {
    (
        fixed { $($fixed:ident),* $(,)? }
        of_replay { $($of_replay:ident),* $(,)? }
        live { $($live:ident),* $(,)? }
    ) => {
        impl Config {
            /// The settings that [`reconfigure`](crate::HintedHandoff::reconfigure) can change, by
            /// their names in a file.
            pub const CHANGEABLE: &'static [&'static str] =
                &[$(stringify!($of_replay),)* $(stringify!($live),)*];

            /// Whether a handoff that runs with these settings can go on with others.
            pub(crate) fn check_change(&self, then: &Config) -> Result<(), ConfigError> {
                then.validate()?;
                // A setting that is in no list, or in two, does not compile.
                let Config { $($fixed: _,)* $($of_replay: _,)* $($live: _,)* } = then;
                $(if self.$fixed != then.$fixed {
                    return Err(ConfigError {
                        field: stringify!($fixed),
                        value: format!("{:?}", then.$fixed),
                        rule: RULE,
                    });
                })*
                Ok(())
            }

            /// Whether tasks of nodes, which keep settings, must begin anew for others.
            pub(crate) fn changes_replay(&self, then: &Config) -> bool {
                $(self.$of_replay != then.$of_replay)||*
            }
        }
    };
}

settings! {
    fixed {
        dir, durability, retry_interval, retry_max_interval, hint_after, max_outstanding,
        max_outstanding_bytes, max_dead_letters, max_dead_letter_bytes, shutdown_grace,
        commit_timeout, min_free_disk, expiry_grace, max_disk_bytes, when_full, block_timeout,
        manual_nodes, purge_after, on_unopenable, ordering, start_paused, reset_identity,
    }
    of_replay {
        retry_rate_limit, retry_rate_limit_total, batch_bytes, send_timeout, max_attempts,
        max_in_flight, max_sends, max_bytes_in_flight, window_hints, window_bytes,
    }
    // Looked at anew each time, or told by `reconfigure`.
    live {
        max_entry_bytes, write_timeout, answer, on_not_stored, fail_early, max_age,
        max_hints_per_node, max_bytes_per_node, max_hints, max_bytes,
    }
}
