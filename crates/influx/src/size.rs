//! Sizes as text, as in the settings of the queue.

use hinted_handoff::Config;
use serde::{Deserialize, Deserializer, de::Error};

/// What a size may be.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a size such as \"1MiB\", or a number of bytes")]
enum Size {
    Bytes(u64),
    Text(String),
}

pub fn read<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    match Size::deserialize(from)? {
        Size::Bytes(bytes) => Ok(bytes),
        Size::Text(text) => Config::parse_size(&text).ok_or_else(|| {
            let shown: String = text.chars().take(100).collect();
            D::Error::custom(format!(
                "{shown:?} is no size: give one such as \"1MiB\", or a number of bytes"
            ))
        }),
    }
}
