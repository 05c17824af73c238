//! What a hint holds.

use bytes::Bytes;
use hinted_handoff::{EncodeError, Payload, PayloadError};
use serde::{Deserialize, Serialize};

use super::{
    Target,
    lines::{lines, text_of},
};

/// Points of one shard: lines that each have a time and a line end, and where they go.
///
/// Its bytes are a head in postcard, and the lines as they are. Reading it copies no line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinePoints {
    target: Target,
    points: u32,
    lines: Bytes,
}

/// What stands before the lines.
#[derive(Debug, Serialize, Deserialize)]
struct Head<T> {
    target: T,
    points: u32,
}

impl LinePoints {
    pub(crate) fn new(target: Target, lines: Bytes, points: u32) -> LinePoints {
        LinePoints {
            target,
            points,
            lines,
        }
    }

    /// Where they go.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The lines, each with its end.
    pub fn lines(&self) -> &Bytes {
        &self.lines
    }

    /// How many points they are.
    pub fn points(&self) -> u32 {
        self.points
    }

    /// The first and the second half of the points; `None` for one point.
    pub fn halves(&self) -> Option<[LinePoints; 2]> {
        let first = self.points / 2;
        let text = text_of(&self.lines);
        let second_begins = lines(&text).nth(first as usize)?.place.start;
        let is_cut = second_begins > 0 && second_begins < self.lines.len();
        is_cut.then(|| {
            let mut second = self.lines.clone();
            let first_lines = second.split_to(second_begins);
            let part = |lines, points| LinePoints::new(self.target.clone(), lines, points);
            [part(first_lines, first), part(second, self.points - first)]
        })
    }
}

impl Payload for LinePoints {
    const FORMAT: u16 = 1;

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let head = Head {
            target: &self.target,
            points: self.points,
        };
        postcard::to_io(&head, &mut *out).map_err(EncodeError::new)?;
        out.extend_from_slice(&self.lines);
        Ok(())
    }

    fn decode(format: u16, bytes: Bytes) -> Result<Self, PayloadError> {
        if format != Self::FORMAT {
            return Err(PayloadError::UnknownFormat {
                found: format,
                written: Self::FORMAT,
            });
        }
        let read = postcard::take_from_bytes::<Head<Target>>(&bytes);
        let (head, lines) = read.map_err(|error| PayloadError::Malformed {
            format,
            source: error.into(),
        })?;
        Ok(LinePoints {
            lines: bytes.slice_ref(lines),
            target: head.target,
            points: head.points,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::*;
    use crate::points::{Points, Precision};

    fn target() -> Target {
        Target {
            database: "metrics".to_owned(),
            retention_policy: Some("two weeks".to_owned()),
            precision: Precision::Seconds,
        }
    }

    fn of(lines: &str) -> LinePoints {
        let count = super::lines(lines).count();
        LinePoints::new(target(), lines.to_owned().into(), count as u32)
    }

    #[test]
    fn points_come_back_from_their_bytes_without_a_copy() {
        let points = of("cpu v=1 1\ncpu v=2 2\n");
        let mut bytes = Vec::new();
        points.encode(&mut bytes).unwrap();
        let bytes = Bytes::from(bytes);
        let back = LinePoints::decode(1, bytes.clone()).unwrap();
        assert_eq!(back, points);
        assert!(bytes.as_ptr_range().contains(&back.lines().as_ptr()));
        let unknown = LinePoints::decode(2, bytes.clone()).unwrap_err();
        assert!(matches!(unknown, PayloadError::UnknownFormat { .. }));
        let malformed = LinePoints::decode(1, bytes.slice(..3)).unwrap_err();
        assert!(matches!(malformed, PayloadError::Malformed { .. }));
    }

    #[test]
    fn the_bytes_of_the_first_format_stay() {
        let mut bytes = Vec::new();
        of("cpu v=1 1\n").encode(&mut bytes).unwrap();
        let head = [
            &[7],
            b"metrics".as_slice(),
            &[1, 9],
            b"two weeks",
            // The precision, and the number of points.
            &[3, 1],
        ];
        assert_eq!(bytes, [head.concat(), b"cpu v=1 1\n".to_vec()].concat());
    }

    #[test]
    fn halves_are_cut_between_points() {
        let [first, second] = of("a s=\"x\ny\" 1\nb v=1 2\nc v=1 3\n").halves().unwrap();
        assert_eq!(first, of("a s=\"x\ny\" 1\n"));
        assert_eq!(second, of("b v=1 2\nc v=1 3\n"));
        assert_eq!(first.halves(), None);
    }

    proptest! {
        #[test]
        fn bytes_from_anywhere_are_points_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(points) = LinePoints::decode(1, bytes.into()) {
                let _ = points.halves();
            }
        }

        #[test]
        fn halves_have_what_the_whole_has(
            lines in prop::collection::vec("[a-c](,h=[a-d])? v=[1-9]( [0-9]{1,3})?", 1..20),
        ) {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
            let read = Points::read(target(), lines.join("\n").as_bytes(), now);
            prop_assert_eq!(read.points(), lines.len());
            for (_, points) in read.into_shards() {
                prop_assert_eq!(super::lines(&text_of(points.lines())).count(), points.points() as usize);
                match points.halves() {
                    None => prop_assert_eq!(points.points(), 1),
                    Some([first, second]) => {
                        prop_assert_eq!(first.points() + second.points(), points.points());
                        prop_assert_eq!([&first.lines()[..], &second.lines()[..]].concat(), &points.lines()[..]);
                    }
                }
            }
        }
    }
}
