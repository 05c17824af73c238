//! Sizes as text: `"64MiB"`, or a plain number of bytes.
//!
//! Each setting has a module of its name here, for serde, so that an error can name the setting.

use std::fmt;

use serde::{
    Deserializer, Serialize, Serializer,
    de::{Error, Visitor},
};

use crate::config::Config;

const UNITS: [(&str, u64); 4] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

const WANTED: &str = "a number of bytes up to 2^64 - 1, or text with a unit such as \"512KiB\", \
                      \"64MiB\", \"1GiB\" (powers of 1024) or \"64MB\" (powers of 1000)";

impl Config {
    /// The number of bytes that a size in a file of settings stands for: `"64MiB"` (powers of
    /// 1024), `"64MB"` (powers of 1000), or a plain number of bytes. `None` if `text` is no size.
    pub fn parse_size(text: &str) -> Option<u64> {
        // Without its `B` a unit does not say what it counts.
        let is_whole = text.starts_with(|first: char| first.is_ascii_digit())
            && text.ends_with(|last: char| last.is_ascii_digit() || last == 'B');
        let size = is_whole.then(|| parse_size::parse_size(text).ok());
        size.flatten()
    }
}

/// In the largest unit of which it is a multiple, in bytes if it is one of none.
pub fn text(bytes: u64) -> String {
    match unit(bytes) {
        Some((count, unit)) => format!("{count}{unit}"),
        None => bytes.to_string(),
    }
}

fn unit(bytes: u64) -> Option<(u64, &'static str)> {
    let units = UNITS.into_iter().filter(|_| bytes > 0);
    let mut divides = units.filter(|(_, unit)| bytes.is_multiple_of(*unit));
    divides.next().map(|(name, unit)| (bytes / unit, name))
}

fn write<S: Serializer>(bytes: u64, serializer: S) -> Result<S::Ok, S::Error> {
    match unit(bytes).filter(|_| serializer.is_human_readable()) {
        Some((count, unit)) => serializer.collect_str(&format_args!("{count}{unit}")),
        // TOML has no such number.
        None if serializer.is_human_readable() && i64::try_from(bytes).is_err() => {
            serializer.collect_str(&bytes)
        }
        None => bytes.serialize(serializer),
    }
}

fn read<'de, D: Deserializer<'de>>(field: &'static str, from: D) -> Result<u64, D::Error> {
    match from.is_human_readable() {
        true => from.deserialize_any(Size { field }),
        false => from.deserialize_u64(Size { field }),
    }
}

/// The size that a setting has.
struct Size {
    field: &'static str,
}

impl Size {
    fn refuse<E: Error>(&self, given: impl fmt::Display) -> E {
        let field = self.field;
        E::custom(format!(
            "config: {field} = {given} is no size: give {WANTED}"
        ))
    }
}

impl Visitor<'_> for Size {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a size for {}: {WANTED}", self.field)
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<u64, E> {
        Ok(bytes)
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<u64, E> {
        u64::try_from(bytes).map_err(|_| self.refuse(bytes))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        let shown: String = text.chars().take(100).collect();
        Config::parse_size(text).ok_or_else(|| self.refuse(format_args!("{shown:?}")))
    }
}

macro_rules! sizes {
    ($($field:ident)*) => {$(
        pub mod $field {
            use serde::{Deserializer, Serializer};

            pub fn serialize<S: Serializer>(bytes: &u64, to: S) -> Result<S::Ok, S::Error> {
                super::write(*bytes, to)
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
                super::read(stringify!($field), from)
            }
        }
    )*};
}

/// Of limits that may be left out.
macro_rules! optional_sizes {
    ($($field:ident)*) => {$(
        pub mod $field {
            use serde::{Deserializer, Serialize, Serializer, Deserialize};

            struct Limit(u64);

            impl Serialize for Limit {
                fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                    super::write(self.0, to)
                }
            }

            impl<'de> Deserialize<'de> for Limit {
                fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                    super::read(stringify!($field), from).map(Limit)
                }
            }

            pub fn serialize<S: Serializer>(limit: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
                limit.map(Limit).serialize(to)
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
                let limit = Option::<Limit>::deserialize(from)?;
                Ok(limit.map(|Limit(bytes)| bytes))
            }
        }
    )*};
}

sizes! {
    retry_rate_limit
    retry_rate_limit_total
    batch_bytes
    max_entry_bytes
    max_outstanding_bytes
    max_bytes_in_flight
    window_bytes
    max_dead_letter_bytes
    min_free_disk
}

optional_sizes! {
    max_bytes_per_node
    max_bytes
    max_disk_bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_json(json: &str) -> Result<u64, String> {
        let mut from = serde_json::Deserializer::from_str(json);
        read("batch_bytes", &mut from).map_err(|error| error.to_string())
    }

    fn written(bytes: u64) -> String {
        let mut out = Vec::new();
        write(bytes, &mut serde_json::Serializer::new(&mut out)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn sizes_are_read_with_binary_and_decimal_units_and_as_plain_numbers() {
        for (json, bytes) in [
            ("1048576", 1 << 20),
            ("\"1048576\"", 1 << 20),
            ("\"512KiB\"", 512 << 10),
            ("\"64 MiB\"", 64 << 20),
            ("\"1GiB\"", 1 << 30),
            ("\"1.5GiB\"", 3 << 29),
            ("\"2TiB\"", 2 << 40),
            ("\"64MB\"", 64_000_000),
            ("0", 0),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(read_json(json), Ok(bytes), "{json}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_field_value_and_what_is_allowed() {
        for json in [
            "\"\"",
            "\"much\"",
            "\"64 potatoes\"",
            "\"-1\"",
            "\"MiB\"",
            "\"+5\"",
            "\" 5\"",
            "-1",
            "\"99999999999GiB\"",
            "\"5M\"",
            "\"5mb\"",
        ] {
            let error = read_json(json).unwrap_err();
            let expected = format!("config: batch_bytes = {json} is no size: give {WANTED}");
            assert!(error.starts_with(&expected), "{json}: {error}");
        }
        for json in ["1.5", "true", "null", "[]", "18446744073709551616"] {
            let error = read_json(json).unwrap_err();
            assert!(
                error.contains(&format!("a size for batch_bytes: {WANTED}")),
                "{error}"
            );
        }
    }

    #[test]
    fn sizes_are_written_in_the_largest_unit_that_says_them_exactly() {
        for (bytes, json) in [
            (0, "0"),
            (1023, "1023"),
            (1 << 10, "\"1KiB\""),
            (16 << 20, "\"16MiB\""),
            (512_000, "\"500KiB\""),
            (3 << 29, "\"1536MiB\""),
            (u64::MAX, "\"18446744073709551615\""),
        ] {
            assert_eq!(written(bytes), json);
        }
    }

    proptest! {
        #[test]
        fn every_size_reads_back_as_it_was_written(number in any::<u64>(), shift in 0..64) {
            let bytes = number >> shift << (shift / 2);
            prop_assert_eq!(read_json(&written(bytes)), Ok(bytes));
        }
    }
}
