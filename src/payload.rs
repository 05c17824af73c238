//! How the host's points become bytes and come back.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

/// Bytes that could not be turned back into points.
///
/// A hint whose payload does not decode when it is replayed becomes a dead letter; a [`Consumer`](crate::Consumer) keeps it in the
/// queue and says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The hint was written by a version of the host whose format this one does not read.
    #[error(
        "payload format {found} is not readable here (this host writes format {written}); run a host version that reads it"
    )]
    UnknownFormat {
        /// The format stored with the hint.
        found: u16,
        /// The format that this host writes.
        written: u16,
    },
    /// The bytes are not what the format says.
    #[error("payload of format {format} does not decode")]
    Malformed {
        /// The format stored with the hint.
        format: u16,
        /// What the decoder said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The host's points, as they are kept in a hint.
///
/// `FORMAT` is the host's own version of the encoding. It is stored with every hint, so that a newer host can still
/// read what an older one queued before an upgrade.
///
/// ```
/// use bytes::Bytes;
/// use hinted_handoff::{Payload, PayloadError};
///
/// struct Points(Vec<u64>);
///
/// impl Payload for Points {
///     const FORMAT: u16 = 1;
///
///     fn encode(&self, out: &mut Vec<u8>) {
///         self.0.iter().for_each(|point| out.extend(point.to_be_bytes()));
///     }
///
///     fn decode(format: u16, bytes: Bytes) -> Result<Self, PayloadError> {
///         if format != Self::FORMAT {
///             return Err(PayloadError::UnknownFormat { found: format, written: Self::FORMAT });
///         }
///         let (points, rest) = bytes.as_chunks::<8>();
///         if !rest.is_empty() {
///             return Err(PayloadError::Malformed { format, source: "not a multiple of eight bytes".into() });
///         }
///         Ok(Points(points.iter().map(|bytes| u64::from_be_bytes(*bytes)).collect()))
///     }
/// }
/// ```
pub trait Payload: Sized + Send + Sync + 'static {
    /// The version of the encoding that [`encode`](Payload::encode) writes.
    const FORMAT: u16;

    /// Appends the bytes of `self` to `out`. A payload of no bytes cannot be queued.
    fn encode(&self, out: &mut Vec<u8>);

    /// Turns the bytes of a hint back into points.
    ///
    /// # Errors
    /// [`PayloadError`] if `format` is not one this host reads, or `bytes` are not of that format.
    fn decode(format: u16, bytes: Bytes) -> Result<Self, PayloadError>;
}

/// [`Payload::decode`], whose panic is one hint's trouble and no more.
pub(crate) fn decode<P: Payload>(format: u16, bytes: &Bytes) -> Result<P, PayloadError> {
    catch_unwind(AssertUnwindSafe(|| P::decode(format, bytes.clone()))).unwrap_or_else(|_| {
        Err(PayloadError::Malformed {
            format,
            source: "the decoder panicked".into(),
        })
    })
}

/// Refuses every format but the one that is written: right for payloads that never changed their encoding.
fn only_format<P: Payload>(format: u16) -> Result<(), PayloadError> {
    if format == P::FORMAT {
        return Ok(());
    }
    Err(PayloadError::UnknownFormat {
        found: format,
        written: P::FORMAT,
    })
}

impl Payload for Bytes {
    const FORMAT: u16 = 0;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode(format: u16, bytes: Bytes) -> Result<Self, PayloadError> {
        only_format::<Self>(format)?;
        Ok(bytes)
    }
}

impl Payload for Vec<u8> {
    const FORMAT: u16 = 0;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode(format: u16, bytes: Bytes) -> Result<Self, PayloadError> {
        only_format::<Self>(format)?;
        Ok(bytes.into())
    }
}

impl Payload for String {
    const FORMAT: u16 = 0;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn decode(format: u16, bytes: Bytes) -> Result<Self, PayloadError> {
        only_format::<Self>(format)?;
        String::from_utf8(bytes.into()).map_err(|source| PayloadError::Malformed {
            format,
            source: source.into(),
        })
    }
}

/// Any serde type as a payload, by way of postcard. `FORMAT` is the host's version of the type `T`.
///
/// ```
/// use hinted_handoff::{Payload, Postcard};
///
/// let mut bytes = Vec::new();
/// Postcard::<_, 3>(("cpu".to_owned(), 0.5)).encode(&mut bytes);
/// let Postcard(back) = Postcard::<(String, f64), 3>::decode(3, bytes.into())?;
/// assert_eq!(back, ("cpu".to_owned(), 0.5));
/// # Ok::<(), hinted_handoff::PayloadError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postcard<T, const FORMAT: u16>(pub T);

impl<T, const FORMAT: u16> Payload for Postcard<T, FORMAT>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    const FORMAT: u16 = FORMAT;

    /// Appends the postcard form. A value whose own `Serialize` fails appends nothing, which a write then refuses as
    /// an empty payload; postcard itself fails only on a sequence of unknown length.
    fn encode(&self, out: &mut Vec<u8>) {
        if let Ok(bytes) = postcard::to_stdvec(&self.0) {
            out.extend_from_slice(&bytes);
        }
    }

    fn decode(format: u16, bytes: Bytes) -> Result<Self, PayloadError> {
        only_format::<Self>(format)?;
        postcard::from_bytes(&bytes)
            .map(Postcard)
            .map_err(|source| PayloadError::Malformed {
                format,
                source: source.into(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_format_is_refused_and_named() {
        let error = String::decode(9, Bytes::from_static(b"x")).unwrap_err();
        assert!(matches!(
            error,
            PayloadError::UnknownFormat {
                found: 9,
                written: 0
            }
        ));
    }

    #[test]
    fn bytes_that_are_no_text_are_malformed_not_lossy() {
        let error = String::decode(0, Bytes::from_static(b"\xff")).unwrap_err();
        assert!(matches!(error, PayloadError::Malformed { format: 0, .. }));
    }

    #[test]
    fn a_length_bomb_in_postcard_is_an_error() {
        let bomb = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert!(Postcard::<Vec<u8>, 1>::decode(1, bomb).is_err());
    }
}
