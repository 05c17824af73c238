//! Durations and moments as numbers of milliseconds, for serde. The name of the field says so:
//! `..._ms`, `..._unix_ms`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

fn of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    of(*duration).serialize(to)
}

/// Of what may be missing.
pub mod option {
    use super::{Deserialize, Deserializer, Duration, Serialize, Serializer, of};

    pub fn serialize<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        duration.map(of).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::deserialize(from)?.map(Duration::from_millis))
    }
}

/// Moments of the wall clock, since 1970.
pub mod unix {
    use super::{
        Deserialize, Deserializer, Duration, Serialize, Serializer, SystemTime, UNIX_EPOCH, of,
    };
    use serde::de::Error;

    pub fn serialize<S: Serializer>(moment: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        let since = moment.duration_since(UNIX_EPOCH);
        since.map_or(0, of).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let unix_ms = u64::deserialize(from)?;
        let moment = UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms));
        moment.ok_or_else(|| D::Error::custom(format!("no clock has {unix_ms} ms since 1970")))
    }
}
