//! Points with a lifetime beside them, whatever their type.

use std::time::Duration;

use bytes::Bytes;

use super::{EncodeError, Payload, PayloadError};

/// Points that are worth delivering for a while only: a [`Payload`] of any type, with a lifetime
/// for its hints ([`Payload::expires_after`]).
///
/// Its bytes are those of the points, so a host can change to it and back with hints waiting. The
/// lifetime is stored with the hint, and is `None` in points that come back.
///
/// ```
/// use std::time::Duration;
/// use bytes::Bytes;
/// use hinted_handoff::{Expiring, Payload};
///
/// let gc_grace = Duration::from_secs(3600);
/// let points = Expiring { points: Bytes::from_static(b"cpu v=1"), after: Some(gc_grace) };
/// assert_eq!(points.expires_after(), Some(gc_grace));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiring<P> {
    /// The points.
    pub points: P,
    /// How long a hint of them is worth delivering; `None` for what the points say themselves.
    pub after: Option<Duration>,
}

impl<P: Payload> Payload for Expiring<P> {
    const FORMAT: u16 = P::FORMAT;

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.points.encode(out)
    }

    fn expires_after(&self) -> Option<Duration> {
        self.after.or_else(|| self.points.expires_after())
    }

    fn decode(format: u16, bytes: Bytes) -> Result<Self, PayloadError> {
        let points = P::decode(format, bytes)?;
        Ok(Expiring {
            points,
            after: None,
        })
    }
}
