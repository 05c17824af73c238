//! Points with the trace of their write beside them, whatever their type.
//!
//! In front of the bytes of the points:
//!
//! ```text
//! byte 0   0: no trace, the points follow
//!          1: a trace
//! 1..17    the trace's id
//! 17..25   the span's id
//! 25       the flags
//! ```

use std::time::Duration;

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

use super::{
    EncodeError, Payload, PayloadError,
    trace_parent::{PARENT_BYTES, TraceParent},
};

const WITHOUT: u8 = 0;
const WITH: u8 = 1;

/// Points with the span that their write belongs to: a [`Payload`] of any type, whose trace goes on
/// when a hint of it is replayed.
///
/// The trace is part of the bytes, one byte where there is none and 26 where there is one. It comes
/// back with every replay and to every [`Consumer`](crate::Consumer), and direct writes have it,
/// too. Lifetime and format are those of the points. With [`Expiring`](crate::Expiring) it goes
/// together in either order.
///
/// A send of replay has hints of several writes, so each batch has a trace of its own:
///
/// ```
/// use bytes::Bytes;
/// use hinted_handoff::{ShardWrite, ShardWriter, Traced, WriteError};
///
/// struct Http;
///
/// impl ShardWriter<Traced<Bytes>> for Http {
///     async fn write_shard(&self, write: ShardWrite<Traced<Bytes>>) -> Result<(), WriteError> {
///         for (taken, batch) in write.batches.into_iter().enumerate() {
///             let Traced { points, parent } = batch.points;
///             let header = parent.map(|parent| ("traceparent", parent.to_string()));
///             let posted = post("http://node-2/write", header, points).await;
///             posted.map_err(|error| WriteError::partial(taken, error))?;
///         }
///         Ok(())
///     }
/// }
/// # async fn post(
/// #     _: &str, _: Option<(&str, String)>, _: Bytes,
/// # ) -> Result<(), std::io::Error> { Ok(()) }
/// ```
///
/// `docs/tracing.md` of the source has one that makes a span of OpenTelemetry for each.
///
/// # Changing to it with hints waiting
///
/// Bytes of `P` are none of `Traced<P>`, and `Traced<P>` has the format of `P`. So what is written
/// from then on needs another format, and what waits is read by the one that it has:
///
/// ```
/// use bytes::Bytes;
/// use hinted_handoff::{EncodeError, Payload, PayloadError, Postcard, Traced};
///
/// /// Format 1 was `Postcard<Row, 1>`; 2 has a trace.
/// struct Points(Traced<Postcard<Row, 2>>);
/// # type Row = (String, f64);
///
/// impl Payload for Points {
///     const FORMAT: u16 = 2;
///
///     fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
///         self.0.encode(out)
///     }
///
///     fn decode(format: u16, bytes: Bytes) -> Result<Self, PayloadError> {
///         match format {
///             1 => {
///                 let Postcard(row) = Postcard::<Row, 1>::decode(format, bytes)?;
///                 Ok(Points(Traced { points: Postcard(row), parent: None }))
///             }
///             _ => Traced::decode(format, bytes).map(Points),
///         }
///     }
/// }
/// # let mut old = Vec::new();
/// # Postcard::<Row, 1>(("cpu".into(), 0.5)).encode(&mut old)?;
/// # assert_eq!(Points::decode(1, old.into())?.0.points.0.0, "cpu");
/// # assert!(matches!(
/// #     Points::decode(3, Bytes::from_static(b"x")),
/// #     Err(PayloadError::UnknownFormat { found: 3, written: 2 })
/// # ));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced<P> {
    /// The points.
    pub points: P,
    /// The span that the write belongs to; `None` for one that is not traced.
    pub parent: Option<TraceParent>,
}

/// Bytes in front of the points that say of no trace what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum BadTrace {
    #[error(
        "byte 0 is {0}, and 0 (no trace) and 1 (a trace) are known; were these bytes written without Traced?"
    )]
    Kind(u8),
    #[error("a trace takes 26 bytes, and {0} are there")]
    Short(usize),
    #[error("the id of the trace or of the span is all zeros")]
    Zeros,
}

impl<P: Payload> Payload for Traced<P> {
    const FORMAT: u16 = P::FORMAT;

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let before = out.len();
        match self.parent {
            None => out.push(WITHOUT),
            Some(parent) => {
                out.push(WITH);
                out.extend_from_slice(&parent.to_bytes());
            }
        }
        let front = out.len();
        self.points.encode(out)?;
        // Points of no bytes stay what they are: no hint.
        if out.len() == front {
            out.truncate(before);
        }
        Ok(())
    }

    fn expires_after(&self) -> Option<Duration> {
        self.points.expires_after()
    }

    fn decode(format: u16, mut bytes: Bytes) -> Result<Self, PayloadError> {
        match take_parent(&mut bytes) {
            Ok(parent) => {
                let points = P::decode(format, bytes)?;
                Ok(Traced { points, parent })
            }
            // Bytes of a format that is not known here may be anything: they wait, and are not
            // called damaged.
            Err(bad) => match P::decode(format, bytes) {
                Err(unknown @ PayloadError::UnknownFormat { .. }) => Err(unknown),
                _ => Err(PayloadError::Malformed {
                    format,
                    source: bad.into(),
                }),
            },
        }
    }
}

/// Takes the front off; leaves the bytes alone if it is none.
fn take_parent(bytes: &mut Bytes) -> Result<Option<TraceParent>, BadTrace> {
    let (kind, rest) = bytes.split_first().ok_or(BadTrace::Short(0))?;
    match *kind {
        WITHOUT => {
            bytes.advance(1);
            Ok(None)
        }
        WITH => {
            let parent = rest.first_chunk().ok_or(BadTrace::Short(bytes.len()))?;
            let parent = TraceParent::from_bytes(parent).ok_or(BadTrace::Zeros)?;
            bytes.advance(1 + PARENT_BYTES);
            Ok(Some(parent))
        }
        other => Err(BadTrace::Kind(other)),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use proptest::prelude::*;

    use super::*;
    use crate::payload::{Expiring, Postcard};

    const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// What a hint of `cpu` with that trace has.
    const GOLDEN: &[u8] = b"\x01\
        \x4b\xf9\x2f\x35\x77\xb3\x4d\xa6\xa3\xce\x92\x9d\x0e\x0e\x47\x36\
        \x00\xf0\x67\xaa\x0b\xa9\x02\xb7\
        \x01\
        cpu";

    fn traced(points: &'static str, parent: Option<&str>) -> Traced<Bytes> {
        Traced {
            points: Bytes::from_static(points.as_bytes()),
            parent: parent.map(|header| header.parse().unwrap()),
        }
    }

    fn encoded(payload: &impl Payload) -> Bytes {
        let mut bytes = b"before".to_vec();
        payload.encode(&mut bytes).unwrap();
        Bytes::from(bytes).split_off(6)
    }

    /// The error of bytes that are of format 0 and damaged.
    fn bad(bytes: impl Into<Bytes>) -> String {
        match Traced::<Bytes>::decode(0, bytes.into()) {
            Err(error @ PayloadError::Malformed { format: 0, .. }) => {
                error.source().unwrap().to_string()
            }
            other => panic!("{other:?}"),
        }
    }

    fn parents() -> impl Strategy<Value = Option<TraceParent>> {
        let ids = (any::<[u8; 16]>(), any::<[u8; 8]>(), any::<u8>());
        ids.prop_map(|(trace, span, flags)| TraceParent::new(trace, span, flags))
            .prop_flat_map(|parent| prop_oneof![Just(None), Just(parent)])
    }

    proptest! {
        #[test]
        fn points_and_trace_come_back_and_cost_a_byte_or_26(
            points in prop::collection::vec(any::<u8>(), 1..300), parent in parents(),
        ) {
            let traced = Traced { points: points.clone(), parent };
            let bytes = encoded(&traced);
            prop_assert_eq!(bytes.len(), points.len() + if parent.is_some() { 26 } else { 1 });
            prop_assert_eq!(Traced::<Vec<u8>>::decode(0, bytes).unwrap(), traced);
        }

        #[test]
        fn with_a_lifetime_around_it_or_in_it_the_bytes_are_the_same_and_it_is_kept(
            text in ".{1,40}", parent in parents(), after in proptest::option::of(1u64..1 << 40),
        ) {
            let after = after.map(Duration::from_millis);
            let points = Postcard::<_, 7>(text);
            let around = Expiring { points: Traced { points: points.clone(), parent }, after };
            let within = Traced { points: Expiring { points, after }, parent };
            prop_assert_eq!(around.expires_after(), after);
            prop_assert_eq!(within.expires_after(), after);
            prop_assert_eq!(encoded(&around), encoded(&within));
            let back = Expiring::<Traced<Postcard<String, 7>>>::decode(7, encoded(&within)).unwrap();
            prop_assert_eq!(&back.points, &around.points);
            let back = Traced::<Expiring<Postcard<String, 7>>>::decode(7, encoded(&around)).unwrap();
            prop_assert_eq!(back.points.points, within.points.points);
            prop_assert_eq!(back.parent, parent);
        }

        #[test]
        fn damaged_bytes_are_an_error_or_other_points_and_never_a_panic(
            bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..60),
        ) {
            match Traced::<Bytes>::decode(0, bytes.clone().into()) {
                Ok(traced) if traced.points.is_empty() => {}
                Ok(traced) => prop_assert_eq!(encoded(&traced), bytes),
                Err(error) => {
                    let is_malformed = matches!(error, PayloadError::Malformed { format: 0, .. });
                    prop_assert!(is_malformed);
                }
            }
        }
    }

    #[test]
    fn its_bytes_are_as_they_were() {
        assert_eq!(encoded(&traced("cpu", None)), &b"\x00cpu"[..]);
        assert_eq!(encoded(&traced("cpu", Some(HEADER))), GOLDEN);
        let golden = Bytes::from_static(GOLDEN);
        let back = Traced::<Bytes>::decode(0, golden).unwrap();
        assert_eq!(back, traced("cpu", Some(HEADER)));
    }

    #[test]
    fn a_front_that_is_none_is_malformed_and_the_error_says_why() {
        assert!(bad("").contains("26 bytes, and 0 are there"));
        assert!(bad("cpu").contains("byte 0 is 99"));
        for len in 1..26 {
            let cut = Bytes::from_static(GOLDEN).slice(..len);
            assert!(bad(cut).contains(&format!("{len} are there")));
        }
        let zeroed = |range: std::ops::Range<usize>| {
            let mut bytes = GOLDEN.to_vec();
            bytes[range].fill(0);
            bytes
        };
        assert!(bad(zeroed(1..17)).contains("all zeros"));
        assert!(bad(zeroed(17..25)).contains("all zeros"));
    }

    #[test]
    fn a_format_that_is_not_known_is_said_to_be_that_whatever_its_bytes_are() {
        for bytes in [&b"\x00cpu"[..], GOLDEN, b"cpu", b"\x01short", b""] {
            let error = Traced::<Bytes>::decode(9, Bytes::from_static(bytes)).unwrap_err();
            let wanted = PayloadError::UnknownFormat {
                found: 9,
                written: 0,
            };
            assert_eq!(error.to_string(), wanted.to_string(), "{bytes:?}");
        }
    }

    #[test]
    fn points_of_no_bytes_stay_a_payload_of_no_bytes() {
        assert_eq!(encoded(&traced("", Some(HEADER))), "");
        assert_eq!(encoded(&traced("", None)), "");
    }

    #[test]
    fn points_that_do_not_encode_are_refused_with_their_own_error() {
        let before_all = std::time::UNIX_EPOCH - Duration::from_secs(1);
        let points = Postcard::<_, 1>(before_all);
        let failed = Traced {
            points,
            parent: None,
        }
        .encode(&mut Vec::new());
        let cause = failed.unwrap_err().source().unwrap().to_string();
        assert!(cause.contains("SystemTime must be later"), "{cause}");
    }
}
