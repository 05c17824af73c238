//! The names of things as text, for people, URLs and JSON: each has one text, and that reads back.
//!
//! ```text
//! node, shard, queue, sequence  a decimal number
//! store                         32 hexadecimal digits
//! hint                          store/queue/sequence
//! write                         16 hexadecimal digits of the boot/counter
//! consistency level             any, one, quorum or all
//! ```

use std::{
    fmt::{self, Display},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{ConsistencyLevel, HintId, NodeId, QueueId, Sequence, ShardId, StoreId, WriteId};

/// A text that names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no {kind}: give {wanted}")]
#[non_exhaustive]
pub struct ParseError {
    /// What it was to be, such as `node id`.
    pub kind: &'static str,
    /// The text; of a long one the beginning.
    pub given: String,
    /// What such a text looks like.
    pub wanted: &'static str,
}

/// Characters of a text that an error repeats.
const GIVEN_MAX: usize = 100;

impl ParseError {
    pub(crate) fn new(kind: &'static str, given: &str, wanted: &'static str) -> Self {
        ParseError {
            kind,
            given: given.chars().take(GIVEN_MAX).collect(),
            wanted,
        }
    }
}

/// Only the text that the value is shown as names it: no sign, no zeros in front, no capitals.
macro_rules! parse_back {
    ($($name:ident: $kind:literal, $wanted:literal, $parse:expr;)*) => {$(
        impl FromStr for $name {
            type Err = ParseError;

            /// # Errors
            /// [`ParseError`] if the text is not exactly one that the value is displayed as.
            fn from_str(text: &str) -> Result<Self, ParseError> {
                let parse: fn(&str) -> Option<$name> = $parse;
                parse(text)
                    .filter(|value| value.to_string() == text)
                    .ok_or_else(|| ParseError::new($kind, text, $wanted))
            }
        }
    )*};
}

macro_rules! numbers {
    ($($name:ident: $kind:literal;)*) => {
        $(impl Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        })*
        parse_back! {$(
            $name: $kind, "a number from 0 to 18446744073709551615 in plain digits",
                |text| text.parse().ok().map($name);
        )*}
    };
}

numbers! {
    NodeId: "node id";
    ShardId: "shard id";
    QueueId: "queue id";
    Sequence: "sequence";
}

parse_back! {
    StoreId: "store id", "32 hexadecimal digits in lower case", |text| {
        let bits = u128::from_str_radix(text, 16).ok()?;
        Some(StoreId(bits.to_be_bytes()))
    };
    HintId: "hint id", "store/queue/sequence, where the store is 32 hexadecimal digits in lower case", |text| {
        let (store, place) = text.split_once('/')?;
        let (queue, sequence) = place.split_once('/')?;
        Some(HintId {
            store: store.parse().ok()?,
            queue: queue.parse().ok()?,
            sequence: sequence.parse().ok()?,
        })
    };
    WriteId: "write id", "boot/counter, where the boot is 16 hexadecimal digits in lower case", |text| {
        let (boot, counter) = text.split_once('/')?;
        Some(WriteId {
            boot: u64::from_str_radix(boot, 16).ok()?,
            counter: counter.parse().ok()?,
        })
    };
}

impl Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreId({self})")
    }
}

impl Display for HintId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.store, self.queue, self.sequence)
    }
}

impl Display for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}/{}", self.boot, self.counter)
    }
}

impl Display for ConsistencyLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ConsistencyLevel::Any => "any",
            ConsistencyLevel::One => "one",
            ConsistencyLevel::Quorum => "quorum",
            ConsistencyLevel::All => "all",
        })
    }
}

impl FromStr for ConsistencyLevel {
    type Err = ParseError;

    /// In capitals, too.
    ///
    /// # Errors
    /// [`ParseError`] if it is none of the four.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        use ConsistencyLevel::{All, Any, One, Quorum};
        [Any, One, Quorum, All]
            .into_iter()
            .find(|level| level.to_string().eq_ignore_ascii_case(text))
            .ok_or_else(|| ParseError::new("consistency level", text, "any, one, quorum or all"))
    }
}

/// As text in formats that people read, so that they can be keys there, and compact in the others.
macro_rules! text_for_people {
    ($($name:ident: $compact:ty, $fields:expr, $made:expr;)*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let fields: fn(&$name) -> $compact = $fields;
                match serializer.is_human_readable() {
                    true => serializer.collect_str(self),
                    false => fields(self).serialize(serializer),
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match deserializer.is_human_readable() {
                    true => String::deserialize(deserializer)?.parse().map_err(D::Error::custom),
                    false => <$compact>::deserialize(deserializer).map($made),
                }
            }
        }
    )*};
}

text_for_people! {
    StoreId: [u8; 16], |it| it.0, StoreId;
    HintId: (StoreId, QueueId, Sequence), |it| (it.store, it.queue, it.sequence),
        |(store, queue, sequence)| HintId { store, queue, sequence };
    WriteId: (u64, u64), |it| (it.boot, it.counter), |(boot, counter)| WriteId { boot, counter };
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fmt::Debug};

    use proptest::prelude::*;
    use serde::de::DeserializeOwned;

    use super::*;

    const HINT: HintId = HintId {
        store: StoreId([0x0a; 16]),
        queue: QueueId(300),
        sequence: Sequence(7),
    };
    const WRITE: WriteId = WriteId {
        boot: 0xab,
        counter: 12,
    };
    const STORE: &str = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";

    /// As text, in JSON and as a key there, and in postcard.
    fn round_trip<T>(value: T) -> Result<(), TestCaseError>
    where
        T: FromStr<Err = ParseError> + Display + Debug + Clone + Ord,
        T: Serialize + DeserializeOwned,
    {
        prop_assert_eq!(value.to_string().parse(), Ok(value.clone()));
        let keyed = BTreeMap::from([(value.clone(), value.clone())]);
        let json = serde_json::to_string(&keyed).unwrap();
        prop_assert!(json.starts_with(&format!("{{\"{value}\":")), "{}", json);
        prop_assert_eq!(
            serde_json::from_str::<BTreeMap<T, T>>(&json).unwrap(),
            keyed
        );
        let bytes = postcard::to_stdvec(&value).unwrap();
        prop_assert_eq!(postcard::from_bytes::<T>(&bytes).unwrap(), value);
        Ok(())
    }

    proptest! {
        #[test]
        fn every_id_comes_back_from_its_text_from_json_and_from_postcard(
            store in any::<[u8; 16]>(), boot in any::<u64>(), number in any::<u64>(),
        ) {
            round_trip(NodeId(number))?;
            round_trip(ShardId(number))?;
            round_trip(QueueId(number))?;
            round_trip(Sequence(number))?;
            let store = StoreId(store);
            round_trip(store)?;
            round_trip(HintId { store, queue: QueueId(boot), sequence: Sequence(number) })?;
            round_trip(WriteId { boot, counter: number })?;
        }

        #[test]
        fn a_text_that_names_an_id_is_the_one_that_the_id_is_shown_as(text in "[+]?[0-9]{1,3}|[0-9aA]{15,17}/[+]?[0-9]{1,2}") {
            if let Ok(id) = text.parse::<NodeId>() {
                prop_assert_eq!(id.to_string(), &text[..]);
            }
            if let Ok(id) = text.parse::<WriteId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn texts_are_as_they_are_described_and_compact_forms_as_they_were() {
        assert_eq!(HINT.to_string(), format!("{STORE}/300/7"));
        assert_eq!(WRITE.to_string(), "00000000000000ab/12");
        let json = serde_json::to_string(&(HINT, HINT.store, WRITE)).unwrap();
        let expected = format!(r#"["{STORE}/300/7","{STORE}","00000000000000ab/12"]"#);
        assert_eq!(json, expected);
        let mut bytes = [0x0a; 16].to_vec();
        assert_eq!(postcard::to_stdvec(&HINT.store).unwrap(), bytes);
        bytes.extend([0xac, 0x02, 7]);
        assert_eq!(postcard::to_stdvec(&HINT).unwrap(), bytes);
        assert_eq!(postcard::to_stdvec(&WRITE).unwrap(), [0xab, 0x01, 12]);
    }

    #[test]
    fn levels_are_read_in_any_case_and_shown_in_lower_case_as_in_json() {
        use ConsistencyLevel::{All, Any, One, Quorum};
        for (level, text) in [(Any, "any"), (One, "one"), (Quorum, "quorum"), (All, "all")] {
            assert_eq!(level.to_string(), text);
            assert_eq!(text.parse(), Ok(level));
            assert_eq!(text.to_uppercase().parse(), Ok(level));
            assert_eq!(
                serde_json::to_string(&level).unwrap(),
                format!("\"{text}\"")
            );
        }
        let error = "Most".parse::<ConsistencyLevel>().unwrap_err();
        let said = "\"Most\" is no consistency level: give any, one, quorum or all";
        assert_eq!(error.to_string(), said);
    }

    fn bad<T: FromStr<Err = ParseError> + Debug>(texts: &[&str]) {
        for text in texts {
            let error = text.parse::<T>().unwrap_err();
            assert_eq!(error.given, *text);
            assert!(error.to_string().contains(error.wanted), "{error}");
        }
    }

    #[test]
    fn texts_that_name_nothing_are_refused_and_the_error_says_what_is_wanted() {
        let numbers = [
            "",
            "+1",
            "-1",
            "01",
            " 1",
            "1 ",
            "1.0",
            "0x1",
            "18446744073709551616",
        ];
        bad::<NodeId>(&numbers);
        bad::<ShardId>(&numbers);
        bad::<QueueId>(&numbers);
        bad::<Sequence>(&numbers);
        let capitals = STORE.to_uppercase();
        bad::<StoreId>(&[
            "",
            "0a",
            &capitals,
            &format!("0{STORE}"),
            &format!("+{}", &STORE[1..]),
        ]);
        bad::<HintId>(&[
            "",
            STORE,
            &format!("{STORE}/1"),
            &format!("{STORE}/1/2/3"),
            &format!("{STORE}/01/2"),
            &format!("{STORE}//2"),
            &format!("{capitals}/1/2"),
            "0a/1/2",
        ]);
        bad::<WriteId>(&[
            "",
            "ab/12",
            "00000000000000AB/12",
            "00000000000000ab/",
            "00000000000000ab",
        ]);
        bad::<ConsistencyLevel>(&["", "two", "any ", "ąll"]);
        let long = "9".repeat(1 << 20);
        assert_eq!(long.parse::<NodeId>().unwrap_err().given.len(), GIVEN_MAX);
        let error = serde_json::from_str::<HintId>("\"7\"")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("\"7\" is no hint id: give store/queue/sequence"),
            "{error}"
        );
    }
}
