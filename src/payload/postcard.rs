//! Serde types as payloads, in a compact encoding that does not describe itself.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{EncodeError, Payload, PayloadError, only_format, said::said};

/// Any serde type as a payload, by way of postcard. `FORMAT` is the host's version of the type `T`.
///
/// But for those that ask the bytes what they are, which postcard does not say: `serde_json::Value`
/// and untagged or internally tagged enums encode and **never decode**, and `#[serde(flatten)]`
/// does not encode. Such a type needs an encoding that describes itself: `Json`, with the feature
/// `json`. Serialized it is what `T` is.
///
/// ```
/// use hinted_handoff::{Payload, Postcard};
///
/// let mut bytes = Vec::new();
/// Postcard::<_, 3>(("cpu".to_owned(), 0.5)).encode(&mut bytes)?;
/// let Postcard(back) = Postcard::<(String, f64), 3>::decode(3, bytes.into())?;
/// assert_eq!(back, ("cpu".to_owned(), 0.5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Postcard<T, const FORMAT: u16>(pub T);

impl<T, const FORMAT: u16> Payload for Postcard<T, FORMAT>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    const FORMAT: u16 = FORMAT;

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let bytes = ::postcard::to_stdvec(&self.0).map_err(|error| why(&self.0, error))?;
        out.extend_from_slice(&bytes);
        Ok(())
    }

    fn decode(format: u16, bytes: Bytes) -> Result<Self, PayloadError> {
        only_format::<Self>(format)?;
        let malformed = |source| PayloadError::Malformed { format, source };
        match ::postcard::take_from_bytes(&bytes) {
            Ok((value, [])) => Ok(Postcard(value)),
            Ok((_, rest)) => {
                let rest = format!("{} bytes are left behind the value", rest.len());
                Err(malformed(rest.into()))
            }
            Err(::postcard::Error::WontImplement) => Err(malformed(NotForPostcard.into())),
            Err(error) => Err(malformed(error.into())),
        }
    }
}

/// Said of a type, not of its value: nothing of it can be a payload in this encoding.
#[derive(Debug, thiserror::Error)]
#[error(
    "postcard cannot hold this type (serde_json::Value, #[serde(flatten)], an untagged or internally tagged enum, or \
     a sequence of unknown length); use an encoding that describes itself: Json"
)]
struct NotForPostcard;

/// Why a value does not encode.
fn why(value: &impl Serialize, error: ::postcard::Error) -> EncodeError {
    match (said(value), error) {
        (Some(own), _) => EncodeError::new(own),
        (None, ::postcard::Error::SerializeSeqLengthUnknown) => EncodeError::new(NotForPostcard),
        (None, error) => EncodeError::new(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        error::Error,
        time::{Duration, SystemTime, UNIX_EPOCH},
    };

    use super::*;

    #[test]
    fn a_length_bomb_in_postcard_is_an_error() {
        let bomb = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert!(Postcard::<Vec<u8>, 1>::decode(1, bomb).is_err());
    }

    #[test]
    fn bytes_behind_the_value_are_an_error() {
        let two = Bytes::from_static(&[7, 7]);
        let error = Postcard::<u8, 1>::decode(1, two).unwrap_err();
        let cause = error.source().unwrap().to_string();
        assert_eq!(cause, "1 bytes are left behind the value");
    }

    #[derive(Serialize, serde::Deserialize)]
    enum Nested {
        Fields {
            all: Vec<Option<(u8, std::collections::BTreeMap<u8, SystemTime>)>>,
        },
        Unit,
    }

    #[test]
    fn what_a_value_says_why_it_does_not_serialise_reaches_the_caller() {
        let before_all = UNIX_EPOCH - Duration::from_secs(1);
        let nested = |time| Nested::Fields {
            all: vec![None, Some((7, [(1, time)].into()))],
        };
        let mut bytes = b"before".to_vec();
        let failed = Postcard::<_, 1>((Nested::Unit, nested(before_all))).encode(&mut bytes);
        let cause = failed.unwrap_err().source().unwrap().to_string();
        assert!(cause.contains("SystemTime must be later"), "{cause}");
        assert_eq!(bytes, b"before");
        Postcard::<_, 1>(nested(UNIX_EPOCH))
            .encode(&mut bytes)
            .unwrap();
        assert!(bytes.len() > 6);
    }
}
