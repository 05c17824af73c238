//! The unit of the times of points.

use std::{str::FromStr, time::SystemTime};

use serde::{Deserialize, Serialize};

/// The unit of the times in a body of lines, as `precision=` of a write says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Precision {
    /// `ns`, or `n`, or nothing.
    #[default]
    Nanoseconds,
    /// `us`, `u`, or `µ`.
    Microseconds,
    /// `ms`.
    Milliseconds,
    /// `s`.
    Seconds,
    /// `m`: only of the first version of the interface, as are hours.
    Minutes,
    /// `h`.
    Hours,
}

/// A precision that InfluxDB does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid precision {0:?}: give one of n, u, ms, s, m, h")]
pub struct UnknownPrecision(pub String);

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(text: &str) -> Result<Self, UnknownPrecision> {
        Ok(match text {
            "" | "n" | "ns" => Precision::Nanoseconds,
            "u" | "us" | "µ" => Precision::Microseconds,
            "ms" => Precision::Milliseconds,
            "s" => Precision::Seconds,
            "m" => Precision::Minutes,
            "h" => Precision::Hours,
            _ => return Err(UnknownPrecision(text.chars().take(20).collect())),
        })
    }
}

/// Times that InfluxDB has: it keeps the ends of the range for itself
/// (`models.MinNanoTime` and `models.MaxNanoTime` of its source).
const NANOSECONDS: std::ops::RangeInclusive<i64> = i64::MIN + 2..=i64::MAX - 1;

impl Precision {
    /// As a parameter of `/write`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Precision::Nanoseconds => "ns",
            Precision::Microseconds => "u",
            Precision::Milliseconds => "ms",
            Precision::Seconds => "s",
            Precision::Minutes => "m",
            Precision::Hours => "h",
        }
    }

    const fn nanoseconds(self) -> i64 {
        match self {
            Precision::Nanoseconds => 1,
            Precision::Microseconds => 1_000,
            Precision::Milliseconds => 1_000_000,
            Precision::Seconds => 1_000_000_000,
            Precision::Minutes => 60 * 1_000_000_000,
            Precision::Hours => 3_600 * 1_000_000_000,
        }
    }

    /// Whether InfluxDB has a time of so many units.
    pub(super) fn has(self, time: i64) -> bool {
        let nanoseconds = time.checked_mul(self.nanoseconds());
        nanoseconds.is_some_and(|it| NANOSECONDS.contains(&it))
    }

    /// A moment in whole units since 1970, rounded down as InfluxDB does; 0 for one before.
    pub(super) fn units_until(self, moment: SystemTime) -> i64 {
        let since = moment.duration_since(SystemTime::UNIX_EPOCH);
        let nanoseconds = since.map_or(0, |since| since.as_nanos());
        i64::try_from(nanoseconds / self.nanoseconds() as u128).unwrap_or(i64::MAX)
    }
}
