//! A body, cut into lines.

use std::{borrow::Cow, ops::Range};

use influxdb_line_protocol::split_lines;

/// What may stand around a line.
const BLANKS: [char; 4] = [' ', '\t', '\r', '\0'];

/// A line of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Line ends before it and one more, as an editor counts.
    pub number: usize,
    /// Where it is in the body, without blanks around it.
    pub place: Range<usize>,
}

/// The body as text, for [`lines`]: where bytes are no UTF-8, each that is no ASCII is another
/// letter. Where lines end is decided by ASCII alone, and places stay the same.
pub fn text_of(body: &[u8]) -> Cow<'_, str> {
    let mask = |byte: &u8| match byte.is_ascii() {
        true => char::from(*byte),
        false => 'x',
    };
    match std::str::from_utf8(body) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(body.iter().map(mask).collect()),
    }
}

/// The lines of a body, without those that hold no point: empty ones and comments.
///
/// A field may have line ends within its quotes, so it takes the rules of the protocol to find the
/// end of a line.
pub fn lines(text: &str) -> impl Iterator<Item = Line> {
    let (mut start, mut number) = (0, 1);
    split_lines(text).filter_map(move |line| {
        let content = line.trim_start_matches(BLANKS);
        let begin = start + line.len() - content.len();
        let content = content.trim_end_matches(BLANKS);
        let found = Line {
            number,
            place: begin..begin + content.len(),
        };
        start += line.len() + 1;
        number += 1 + line.bytes().filter(|byte| *byte == b'\n').count();
        let is_point = !content.is_empty() && !content.starts_with('#');
        is_point.then_some(found)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(body: &[u8]) -> Vec<(usize, String)> {
        let text = text_of(body);
        let found = lines(&text).map(|line| {
            let bytes = body.get(line.place).unwrap();
            (line.number, String::from_utf8_lossy(bytes).into_owned())
        });
        found.collect()
    }

    #[test]
    fn lines_are_found_as_an_editor_counts_them() {
        let body = b"\n# a comment\r\n  cpu v=1 7\r\n\ncpu s=\"two\nlines\" 8\n\tcpu v=2 9 \n";
        let wanted = [
            (3, "cpu v=1 7".to_owned()),
            (5, "cpu s=\"two\nlines\" 8".to_owned()),
            (7, "cpu v=2 9".to_owned()),
        ];
        assert_eq!(found(body), wanted);
    }

    #[test]
    fn bytes_that_are_no_utf8_move_no_line() {
        let body = b"cpu,host=\xff\xfe v=1\ncpu,host=\xc3\xa4 s=\"\xff\n\" 2\ncpu v=3";
        let numbers: Vec<usize> = found(body).iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 2, 4]);
        assert_eq!(found(body)[2].1, "cpu v=3");
    }

    proptest! {
        #[test]
        fn no_line_begins_before_the_last_one_ends(body in "[ab \\\\\",=#\\n\\r\u{e4}]{0,60}") {
            let mut end = 0;
            for line in lines(&body) {
                prop_assert!(line.place.start >= end && line.place.end <= body.len());
                prop_assert!(line.place.start < line.place.end);
                end = line.place.end;
            }
        }
    }
}
