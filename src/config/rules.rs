//! What every setting must keep to.

use std::time::Duration;

use super::{Config, MAX_ENTRY_BYTES_CEILING, MIB, WINDOW_HINTS_CEILING, sizes};
use crate::error::ConfigError;

/// The longest wait that can be set: every sum of a moment and a few of these is one that a clock
/// has.
const DAY: Duration = Duration::from_secs(86_400);
/// The longest age that can be set, for the same reason.
const TEN_YEARS: Duration = Duration::from_secs(3650 * 86_400);

impl Config {
    /// Checks every setting against its rule; [`HintedHandoff::open`](crate::HintedHandoff::open)
    /// does so too.
    ///
    /// # Errors
    /// The first setting that is out of range, with its value and the rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let millisecond = Duration::from_millis(1);
        let (day, ten_years) = (DAY, TEN_YEARS);
        let duration = |value: Duration| humantime::format_duration(value).to_string();
        let rules: [(&'static str, bool, String, &'static str); 23] = [
            (
                "dir",
                !self.dir.as_os_str().is_empty(),
                format!("{:?}", self.dir),
                "a directory must be named",
            ),
            (
                "retry_interval",
                (millisecond..=day).contains(&self.retry_interval),
                duration(self.retry_interval),
                "between 1ms and 1day",
            ),
            (
                "retry_max_interval",
                (self.retry_interval..=day).contains(&self.retry_max_interval),
                duration(self.retry_max_interval),
                "between retry_interval and 1day",
            ),
            (
                "retry_rate_limit",
                u32::try_from(self.retry_rate_limit).is_ok(),
                sizes::text(self.retry_rate_limit),
                "at most 4294967295 bytes a second (0 for no limit)",
            ),
            (
                "retry_rate_limit_total",
                u32::try_from(self.retry_rate_limit_total).is_ok(),
                sizes::text(self.retry_rate_limit_total),
                "at most 4294967295 bytes a second (0 for no limit)",
            ),
            (
                "batch_bytes",
                (1..=MAX_ENTRY_BYTES_CEILING).contains(&self.batch_bytes),
                sizes::text(self.batch_bytes),
                "between 1 and 64MiB",
            ),
            (
                "max_entry_bytes",
                (1..=MAX_ENTRY_BYTES_CEILING).contains(&self.max_entry_bytes),
                sizes::text(self.max_entry_bytes),
                "between 1 and 64MiB",
            ),
            (
                "write_timeout",
                (millisecond..=day).contains(&self.write_timeout),
                duration(self.write_timeout),
                "between 1ms and 1day",
            ),
            (
                "hint_after",
                self.hint_after <= day,
                duration(self.hint_after),
                "at most 1day",
            ),
            (
                "max_outstanding",
                (1..=16_384).contains(&self.max_outstanding),
                self.max_outstanding.to_string(),
                "between 1 and 16384",
            ),
            (
                "max_outstanding_bytes",
                self.max_outstanding_bytes > 0,
                sizes::text(self.max_outstanding_bytes),
                "at least 1",
            ),
            (
                "send_timeout",
                (millisecond..=day).contains(&self.send_timeout),
                duration(self.send_timeout),
                "between 1ms and 1day",
            ),
            (
                "max_in_flight",
                (1..=1024).contains(&self.max_in_flight),
                self.max_in_flight.to_string(),
                "between 1 and 1024",
            ),
            (
                "max_sends",
                (1..=65_536).contains(&self.max_sends),
                self.max_sends.to_string(),
                "between 1 and 65536",
            ),
            (
                "max_bytes_in_flight",
                self.max_bytes_in_flight >= 1,
                sizes::text(self.max_bytes_in_flight),
                "at least 1",
            ),
            (
                "window_hints",
                (1..=WINDOW_HINTS_CEILING).contains(&self.window_hints),
                self.window_hints.to_string(),
                "between 1 and 16384",
            ),
            (
                "window_bytes",
                (1..=MAX_ENTRY_BYTES_CEILING).contains(&self.window_bytes),
                sizes::text(self.window_bytes),
                "between 1 and 64MiB",
            ),
            (
                "max_dead_letters",
                self.max_dead_letters > 0,
                self.max_dead_letters.to_string(),
                "at least 1",
            ),
            (
                "max_dead_letter_bytes",
                self.max_dead_letter_bytes > 0,
                sizes::text(self.max_dead_letter_bytes),
                "at least 1",
            ),
            (
                "shutdown_grace",
                self.shutdown_grace <= day,
                duration(self.shutdown_grace),
                "at most 1day",
            ),
            (
                "commit_timeout",
                (Duration::from_secs(1)..=day).contains(&self.commit_timeout),
                duration(self.commit_timeout),
                "between 1s and 1day",
            ),
            (
                "min_free_disk",
                self.min_free_disk == 0 || self.min_free_disk >= 64 * MIB,
                sizes::text(self.min_free_disk),
                "0 (off) or at least 64MiB",
            ),
            (
                "purge_after",
                self.purge_after.is_zero()
                    || (Duration::from_secs(60)..=ten_years).contains(&self.purge_after),
                duration(self.purge_after),
                "0s (never) or between 1m and 3650days",
            ),
        ];
        for (field, holds, value, rule) in rules.into_iter().chain(self.limit_rules()) {
            if !holds {
                return Err(ConfigError { field, value, rule });
            }
        }
        Ok(())
    }

    /// The rules of what bounds a queue. A limit of zero would refuse everything: whoever wants
    /// none leaves it out.
    fn limit_rules(&self) -> [(&'static str, bool, String, &'static str); 8] {
        let duration = |value: Duration| humantime::format_duration(value).to_string();
        let (day, ten_years) = (DAY, TEN_YEARS);
        let limit = |field: &'static str, value: Option<u64>| {
            let text = value.map_or("none".to_owned(), |value| value.to_string());
            (
                field,
                value != Some(0),
                text,
                "at least 1, or left out for no limit",
            )
        };
        [
            (
                "max_age",
                self.max_age.is_zero()
                    || (Duration::from_secs(1)..=ten_years).contains(&self.max_age),
                duration(self.max_age),
                "0s (no limit) or between 1s and 3650days",
            ),
            (
                "expiry_grace",
                self.expiry_grace <= day,
                duration(self.expiry_grace),
                "at most 1day",
            ),
            limit("max_hints_per_node", self.max_hints_per_node),
            limit("max_bytes_per_node", self.max_bytes_per_node),
            limit("max_hints", self.max_hints),
            limit("max_bytes", self.max_bytes),
            (
                "max_disk_bytes",
                self.max_disk_bytes.is_none_or(|bytes| bytes >= 256 * MIB),
                sizes::text(self.max_disk_bytes.unwrap_or_default()),
                "at least 256MiB, or left out for no limit",
            ),
            (
                "block_timeout",
                (Duration::from_millis(1)..=day).contains(&self.block_timeout),
                duration(self.block_timeout),
                "between 1ms and 1day",
            ),
        ]
    }
}
