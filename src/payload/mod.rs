//! How the host's points become bytes and come back.

mod expiring;
#[cfg(feature = "json")]
mod json;
mod postcard;
mod said;
mod trace_parent;
mod traced;

use std::{
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

pub use self::expiring::Expiring;
#[cfg(feature = "json")]
pub use self::json::Json;
pub use self::postcard::Postcard;
pub use self::trace_parent::TraceParent;
pub use self::traced::Traced;

/// Points that could not be turned into bytes: why, in the host's own words. Nothing is stored or
/// sent.
#[derive(Debug, Clone)]
pub struct EncodeError(Arc<dyn Error + Send + Sync>);

impl EncodeError {
    /// An error with this cause, which is kept as its [`source`](Error::source).
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        EncodeError(Arc::from(cause.into()))
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the encoder of the points failed")
    }
}

// By hand: a derived source would be the `Arc`, of which nobody can make the host's own error
// again.
impl Error for EncodeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.0.as_ref())
    }
}

/// Bytes that could not be turned back into points.
///
/// A hint of a format that is not known stays in its queue when it is replayed, with all behind it
/// in its shard; one whose bytes are not what its format says becomes a dead letter. A
/// [`Consumer`](crate::Consumer) keeps both and says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The hint was written by a version of the host whose format this one does not read. The
    /// version that does goes on with it.
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
        source: Box<dyn Error + Send + Sync>,
    },
}

/// The host's points, as they are kept in a hint.
///
/// `FORMAT` is the host's own version of the encoding. It is stored with every hint, so that a
/// newer host can still read what an older one queued before an upgrade.
///
/// ```
/// use bytes::Bytes;
/// use hinted_handoff::{EncodeError, Payload, PayloadError};
///
/// struct Points(Vec<u64>);
///
/// impl Payload for Points {
///     const FORMAT: u16 = 1;
///
///     fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
///         self.0.iter().for_each(|point| out.extend(point.to_be_bytes()));
///         Ok(())
///     }
///
///     fn decode(format: u16, bytes: Bytes) -> Result<Self, PayloadError> {
///         if format != Self::FORMAT {
///             return Err(PayloadError::UnknownFormat { found: format, written: Self::FORMAT });
///         }
///         let (points, rest) = bytes.as_chunks::<8>();
///         if !rest.is_empty() {
///             let source = "not a multiple of eight bytes".into();
///             return Err(PayloadError::Malformed { format, source });
///         }
///         Ok(Points(points.iter().map(|bytes| u64::from_be_bytes(*bytes)).collect()))
///     }
/// }
/// ```
pub trait Payload: Sized + Send + Sync + 'static {
    /// The version of the encoding that [`encode`](Payload::encode) writes.
    const FORMAT: u16;

    /// Appends the bytes of `self` to `out`. A payload of no bytes cannot be queued.
    ///
    /// # Errors
    /// [`EncodeError`] if `self` has no encoding. The write is refused with it
    /// ([`EnqueueError::Unencodable`](crate::EnqueueError::Unencodable)), and the bytes appended
    /// before are dropped. A panic is such an error, too.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError>;

    /// How long a hint of these points is worth delivering, from the write on; by default as long
    /// as [`Config::max_age`](crate::Config::max_age) says, which is for all hints, and which a
    /// longer lifetime does not outlive.
    ///
    /// For a database whose writes must not come back late: one that forgets its deletions after a
    /// grace period gives its hints that period at most. It is stored with the hint, so each may
    /// have its own, and kept in whole milliseconds. When it is over the hint leaves undelivered,
    /// as one that is too old does ([`LossReason::Expired`](crate::LossReason::Expired),
    /// [`NodeStats::expired`](crate::NodeStats::expired)); neither replay nor a
    /// [`Consumer`](crate::Consumer) gives it to anybody after that. As a dead letter it is kept,
    /// and one that is sent on has what is left of its time.
    ///
    /// Asked once a write, beside [`encode`](Payload::encode). It is no part of the bytes: what
    /// comes back by [`decode`](Payload::decode) need not know it. See
    /// [`Expiring`](crate::Expiring) for points of any type.
    fn expires_after(&self) -> Option<Duration> {
        None
    }

    /// Turns the bytes of a hint back into points.
    ///
    /// # Errors
    /// [`PayloadError::UnknownFormat`] if `format` is not one that this host reads, as after a
    /// rollback. Then nothing of the shard leaves by replay, neither sent nor as a dead letter,
    /// until the format is known: it is tried again at growing intervals, and by the next build
    /// ([`NodeStats::unknown_format`](crate::NodeStats::unknown_format),
    /// [`Event::UnknownFormat`](crate::Event::UnknownFormat)). Age and limits still count for it.
    ///
    /// [`PayloadError::Malformed`] if `bytes` are not of a format that this host reads, for good:
    /// the hint becomes a dead letter. So does one whose decoder panics.
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

/// Refuses every format but the one that is written: right for payloads that never changed their
/// encoding.
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

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(self);
        Ok(())
    }

    fn decode(format: u16, bytes: Bytes) -> Result<Self, PayloadError> {
        only_format::<Self>(format)?;
        Ok(bytes)
    }
}

impl Payload for Vec<u8> {
    const FORMAT: u16 = 0;

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(self);
        Ok(())
    }

    fn decode(format: u16, bytes: Bytes) -> Result<Self, PayloadError> {
        only_format::<Self>(format)?;
        Ok(bytes.into())
    }
}

impl Payload for String {
    const FORMAT: u16 = 0;

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(self.as_bytes());
        Ok(())
    }

    fn decode(format: u16, bytes: Bytes) -> Result<Self, PayloadError> {
        only_format::<Self>(format)?;
        String::from_utf8(bytes.into()).map_err(|source| PayloadError::Malformed {
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
}
