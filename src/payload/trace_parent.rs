//! Which span of a trace a write belongs to, in the form of the W3C recommendation "Trace Context".

use std::{
    fmt::{self, Display},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::types::ParseError;

/// Bytes of one: the trace, the span, the flags.
pub const PARENT_BYTES: usize = 16 + 8 + 1;

/// Characters of the text of version 00; later versions may go on behind them.
const TEXT_LEN: usize = 55;

/// Characters of the longest text that is read. Version 00 has 55, and no other is defined.
const TEXT_MAX: usize = 512;

/// A span that others are children of: the header `traceparent` of the W3C recommendation [Trace
/// Context], of a fixed size.
///
/// Its text is that header in version 00. A text of a later version is read as the recommendation
/// says, by the fields of version 00. Neither id can be all zeros. `tracestate` is no part of it.
///
/// ```
/// use hinted_handoff::TraceParent;
///
/// let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let parent: TraceParent = header.parse()?;
/// assert!(parent.is_sampled());
/// assert_eq!(parent.to_string(), header);
/// # Ok::<(), hinted_handoff::ParseError>(())
/// ```
///
/// [Trace Context]: https://www.w3.org/TR/trace-context/
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace: [u8; 16],
    span: [u8; 8],
    flags: u8,
}

impl TraceParent {
    /// The span `span` of the trace `trace`, with the flags of the recommendation. `None` if either
    /// id is all zeros, which is how tracing libraries say that there is none.
    pub fn new(trace: [u8; 16], span: [u8; 8], flags: u8) -> Option<Self> {
        let parent = TraceParent { trace, span, flags };
        (trace != [0; 16] && span != [0; 8]).then_some(parent)
    }

    /// The trace: 16 bytes, not all of them zero.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace
    }

    /// The span within it: 8 bytes, not all of them zero.
    pub fn span_id(&self) -> [u8; 8] {
        self.span
    }

    /// The flags: bit 0 says that the caller may have recorded the trace.
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// Whether the caller may have recorded the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    /// As they stand in a hint: the fields of the text, in its order.
    pub(super) fn to_bytes(self) -> [u8; PARENT_BYTES] {
        let mut bytes = [0; PARENT_BYTES];
        let fields = self.trace.iter().chain(&self.span).chain([&self.flags]);
        for (byte, field) in bytes.iter_mut().zip(fields) {
            *byte = *field;
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; PARENT_BYTES]) -> Option<Self> {
        let (trace, rest) = bytes.split_first_chunk()?;
        let (span, rest) = rest.split_first_chunk()?;
        TraceParent::new(*trace, *span, *rest.first()?)
    }
}

impl Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trace = u128::from_be_bytes(self.trace);
        let span = u64::from_be_bytes(self.span);
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", self.flags)
    }
}

impl FromStr for TraceParent {
    type Err = ParseError;

    /// # Errors
    /// [`ParseError`] if the text is no `traceparent` header: its version is `ff`, or what follows
    /// is not that of version 00, or it is longer than 512 characters.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wanted =
            "a traceparent header, as 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        parse(text).ok_or_else(|| ParseError::new("trace parent", text, wanted))
    }
}

fn parse(text: &str) -> Option<TraceParent> {
    let (known, later) = text.split_at_checked(TEXT_LEN)?;
    let mut fields = known.split('-');
    let version = hex::<1>(fields.next()?)?;
    let trace = hex(fields.next()?)?;
    let span = hex(fields.next()?)?;
    let [flags] = hex(fields.next()?)?;
    let may_go_on = match version {
        [0] => later.is_empty(),
        [0xff] => false,
        _ => later.is_empty() || later.starts_with('-') && text.len() <= TEXT_MAX,
    };
    let is_whole = fields.next().is_none() && may_go_on;
    TraceParent::new(trace, span, flags).filter(|_| is_whole)
}

/// Exactly so many bytes, in lower case.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// As its text in every format, since that is what a header has.
impl Serialize for TraceParent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceParent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    proptest! {
        #[test]
        fn every_parent_comes_back_from_its_text_its_bytes_and_json(
            trace in any::<[u8; 16]>(), span in any::<[u8; 8]>(), flags in any::<u8>(),
        ) {
            let Some(parent) = TraceParent::new(trace, span, flags) else {
                return Ok(());
            };
            prop_assert_eq!(parent.to_string().len(), TEXT_LEN);
            prop_assert_eq!(parent.to_string().parse(), Ok(parent));
            prop_assert_eq!(TraceParent::from_bytes(&parent.to_bytes()), Some(parent));
            let json = serde_json::to_string(&parent).unwrap();
            prop_assert_eq!(&json, &format!("\"{parent}\""));
            prop_assert_eq!(serde_json::from_str::<TraceParent>(&json).unwrap(), parent);
        }

        #[test]
        fn a_text_of_version_00_is_read_only_if_it_is_shown_the_same_way(
            text in "0[0-1]-[0-9a-fA-F]{31,33}-[0-9a-f]{15,17}-[0-9a-f]{1,3}",
        ) {
            if let Ok(parent) = text.parse::<TraceParent>() {
                prop_assert_eq!(&parent.to_string()[2..], &text[2..]);
            }
        }

        #[test]
        fn no_text_makes_reading_panic(text in "\\PC{0,80}") {
            let _ = text.parse::<TraceParent>();
        }
    }

    #[test]
    fn a_header_of_a_later_version_is_read_by_the_fields_that_are_known() {
        let parent: TraceParent = HEADER.parse().unwrap();
        for text in [
            HEADER.replacen("00", "cc", 1),
            format!("{}-what-comes-later", HEADER.replacen("00", "01", 1)),
        ] {
            assert_eq!(text.parse(), Ok(parent), "{text}");
        }
    }

    #[test]
    fn what_is_no_header_is_refused_and_the_error_says_what_is_wanted() {
        let later = |rest: &str| format!("{}{rest}", HEADER.replacen("00", "01", 1));
        for text in [
            "",
            "00",
            &HEADER[..54],
            &format!("{HEADER}-"),
            &format!("{HEADER} "),
            &HEADER.replacen("00", "ff", 1),
            &HEADER.to_uppercase(),
            &HEADER.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &HEADER.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &HEADER.replace("-01", "-+1"),
            &HEADER.replace("4736-00", "47-3600"),
            &later("x"),
            &later(&format!("-{}", "x".repeat(TEXT_MAX))),
            &"ä".repeat(28),
        ] {
            let error = text.parse::<TraceParent>().unwrap_err();
            assert_eq!(error.kind, "trace parent", "{text}");
            assert!(error.to_string().contains(error.wanted), "{error}");
        }
    }
}
