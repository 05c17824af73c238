//! Serde types as payloads, in an encoding that describes itself.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{EncodeError, Payload, PayloadError, only_format};

/// Any serde type as a payload, by way of JSON. `FORMAT` is the host's version of the type `T`.
/// With the feature `json`.
///
/// It is for the types that [`Postcard`](crate::Postcard) cannot decode, since JSON says what each
/// value is and postcard does not: `serde_json::Value`, `#[serde(flatten)]`, untagged and
/// internally tagged enums. Others are smaller and faster as `Postcard`.
///
/// A value is refused if its JSON does not decode again: one with a float that is no number, or of
/// more than 127 levels, for example. To know that, each encoding decodes what it wrote. Floats
/// come back bit for bit; but JSON has only `null` for one that is no number, so such a one in an
/// `Option` is `None` afterwards. Serialized it is what `T` is.
///
/// ```
/// use hinted_handoff::{Json, Payload};
/// use serde_json::{Value, json};
///
/// let points = json!({ "cpu": 0.5, "tags": ["a", null] });
/// let mut bytes = Vec::new();
/// Json::<_, 3>(points.clone()).encode(&mut bytes)?;
/// let Json(back) = Json::<Value, 3>::decode(3, bytes.into())?;
/// assert_eq!(back, points);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Json<T, const FORMAT: u16>(pub T);

/// Said of a value that would be a hint that never decodes.
#[derive(Debug, thiserror::Error)]
#[error("the JSON of this value does not decode again")]
struct OneWay(#[source] serde_json::Error);

impl<T, const FORMAT: u16> Payload for Json<T, FORMAT>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    const FORMAT: u16 = FORMAT;

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let bytes = serde_json::to_vec(&self.0).map_err(EncodeError::new)?;
        serde_json::from_slice::<T>(&bytes).map_err(|error| EncodeError::new(OneWay(error)))?;
        out.extend_from_slice(&bytes);
        Ok(())
    }

    fn decode(format: u16, bytes: Bytes) -> Result<Self, PayloadError> {
        only_format::<Self>(format)?;
        serde_json::from_slice(&bytes)
            .map(Json)
            .map_err(|source| PayloadError::Malformed {
                format,
                source: source.into(),
            })
    }
}
