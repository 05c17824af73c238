//! What a record holds: a shard's id, and points of it.

use std::{borrow::Cow, ops::Range};

use influxdb_line_protocol::parse_lines;

use super::point::{Point, counted};

/// So many bytes of a line are looked at to tell whether it is one.
const LINE_LOOKED_AT: usize = 64 * 1024;

/// The points of a record, as lines.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Block<'a> {
    /// The shard, by the record; `None` if what is there cannot be one.
    pub shard: Option<u64>,
    /// Lines, each with its end but perhaps the last one.
    pub lines: Cow<'a, [u8]>,
    /// Where in the record's body something is that is no point.
    pub unread: Vec<Range<usize>>,
}

impl<'a> Block<'a> {
    /// Reads the body of a record; `None` if it is too short for a shard.
    pub fn read(body: &'a [u8]) -> Option<Block<'a>> {
        let (shard, rest) = body.split_first_chunk::<8>()?;
        let mut block = Block {
            shard: shard_of(shard),
            lines: Cow::Borrowed(rest),
            unread: Vec::new(),
        };
        if is_binary(rest) {
            block.lines = Cow::Owned(lines_of(rest, &mut block.unread));
        } else if rest.contains(&0) {
            block.lines = Cow::Owned(lines_without_zeros(rest, &mut block.unread));
        }
        Some(block)
    }
}

/// Whether points are in the binary form: it begins with a length of four bytes, and none is of 16
/// MiB, so the first byte is 0, which no line begins with.
fn is_binary(points: &[u8]) -> bool {
    points.first() == Some(&0)
}

fn lines_of(points: &[u8], unread: &mut Vec<Range<usize>>) -> Vec<u8> {
    let mut lines = Vec::with_capacity(points.len());
    let mut rest = points;
    while !rest.is_empty() {
        // Behind the shard's id.
        let at = 8 + points.len() - rest.len();
        let Some((bytes, behind)) = counted(rest) else {
            unread.push(at..8 + points.len());
            break;
        };
        let before = lines.len();
        if let Some(point) = Point::read(bytes) {
            point.write_line(&mut lines);
        }
        if !lines.get(before..).is_some_and(stands_alone) {
            lines.truncate(before);
            unread.push(at..at + 4 + bytes.len());
        }
        rest = behind;
    }
    lines
}

/// A line with a byte 0 in it is one that zeros were written into: what is left of it may be
/// another point than was meant.
fn lines_without_zeros(text: &[u8], unread: &mut Vec<Range<usize>>) -> Vec<u8> {
    let mut lines = Vec::with_capacity(text.len());
    // Behind the shard's id.
    let mut at = 8;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        match line.contains(&0) {
            true => unread.push(at..at + line.len()),
            false => lines.extend_from_slice(line),
        }
        at += line.len();
    }
    lines
}

/// Whether a line is one point that takes none of the lines behind it into itself.
fn stands_alone(line: &[u8]) -> bool {
    let Some((b'\n', content)) = line.split_last() else {
        return false;
    };
    // Without these it ends where it ends, even if it is no point.
    let is_plain = !content.iter().any(|byte| b"\n\"\\".contains(byte));
    is_plain || std::str::from_utf8(content).is_ok_and(is_point)
}

fn is_point(line: &str) -> bool {
    let mut points = parse_lines(line);
    matches!((points.next(), points.next()), (Some(Ok(_)), None))
}

/// Shards are counted from 1 on; no server came to 2^32. Text, read as an id, is above.
fn shard_of(id: &[u8; 8]) -> Option<u64> {
    Some(u64::from_be_bytes(*id)).filter(|shard| (1..1 << 32).contains(shard))
}

/// How many bytes of a body are a shard's id and whole points; 0 if not even the id is one.
///
/// A body of lines has no byte 0, while every length begins with one: a record that was written
/// over the end of another one is found by that. A line is whole if its end is there.
pub fn whole_points(body: &[u8]) -> usize {
    let Some((shard, rest)) = body.split_first_chunk::<8>() else {
        return 0;
    };
    if shard_of(shard).is_none() {
        return 0;
    }
    8 + match is_binary(rest) {
        true => whole_binary(rest),
        false => {
            let zero = rest.iter().position(|byte| *byte == 0);
            let text = rest.get(..zero.unwrap_or(rest.len())).unwrap_or_default();
            let last_end = text.iter().rposition(|byte| *byte == b'\n');
            last_end.map_or(0, |end| end + 1)
        }
    }
}

fn whole_binary(points: &[u8]) -> usize {
    let mut rest = points;
    while let Some((bytes, behind)) = counted(rest)
        && Point::read(bytes).is_some_and(|point| point.is_utc())
    {
        rest = behind;
    }
    points.len() - rest.len()
}

/// Whether the first of `whole` bytes of a body, as [`whole_points`] counts them, are a point: such
/// bytes are taken for a record although nothing before them says that one begins there.
pub fn begins_with_a_point(body: &[u8], whole: usize) -> bool {
    let Some(points) = body.get(8..whole).filter(|points| !points.is_empty()) else {
        return false;
    };
    if is_binary(points) {
        return true;
    }
    let begin = points.get(..LINE_LOOKED_AT).unwrap_or(points);
    let line = begin.split(|byte| *byte == b'\n').next();
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    line.is_some_and(is_point)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: [u8; 15] = [
        1, 0, 0, 0, 0x0e, 0xdc, 0xe5, 0xe8, 0x00, 0, 0, 0, 0, 0xff, 0xff,
    ];

    fn binary(fields: &[&str]) -> Vec<u8> {
        let mut body = 7_u64.to_be_bytes().to_vec();
        for fields in fields {
            let mut point = 3_u32.to_be_bytes().to_vec();
            point.extend_from_slice(b"cpu");
            point.extend_from_slice(&(fields.len() as u32).to_be_bytes());
            point.extend_from_slice(fields.as_bytes());
            point.extend_from_slice(&TIME);
            body.extend_from_slice(&(point.len() as u32).to_be_bytes());
            body.extend_from_slice(&point);
        }
        body
    }

    #[test]
    fn points_in_binary_form_become_lines() {
        let body = binary(&["v=1", "s=\"two\nlines\""]);
        let block = Block::read(&body).unwrap();
        let time = "1700000000000000000";
        let lines = format!("cpu v=1 {time}\ncpu s=\"two\nlines\" {time}\n");
        assert_eq!(block.lines, lines.as_bytes());
        assert_eq!((block.shard, block.unread.len()), (Some(7), 0));
        assert_eq!(whole_points(&body), body.len());
    }

    #[test]
    fn a_point_that_would_take_the_next_one_into_itself_is_left_out() {
        let first = binary(&["v=1"]).len();
        let second = first + binary(&["s=\"open"]).len() - 8;
        let body = binary(&["v=1", "s=\"open", "v=3"]);
        let block = Block::read(&body).unwrap();
        assert_eq!(
            block.unread.as_slice(),
            std::slice::from_ref(&(first..second))
        );
        let time = "1700000000000000000";
        let lines = format!("cpu v=1 {time}\ncpu v=3 {time}\n");
        assert_eq!(block.lines, lines.as_bytes());
    }

    #[test]
    fn of_a_body_that_is_cut_the_whole_points_are_known() {
        let body = binary(&["v=1", "v=22", "v=333"]);
        let ends: Vec<usize> = (0..4)
            .map(|points| binary(&["v=1", "v=22", "v=333"][..points]).len())
            .collect();
        for end in 0..=body.len() {
            let whole = ends.iter().rev().find(|it| **it <= end).copied();
            assert_eq!(whole_points(&body[..end]), whole.unwrap_or(0), "{end}");
        }
        let text = [&7_u64.to_be_bytes(), b"cpu v=1 1\ncpu v=2".as_slice()].concat();
        assert_eq!(whole_points(&text), 18);
        let written_over = [&text[..18], &[0, 0, 0], b"cpu v=2 3\n"].concat();
        assert_eq!(whole_points(&written_over), 18);
    }

    #[test]
    fn a_line_that_zeros_were_written_into_is_left_out() {
        let text = b"cpu,host=a v=1 1\n\0\0\0,host=b v=1 2\ncpu,host=\0 v=1 3\ncpu v=1 4\n";
        let body = [&7_u64.to_be_bytes(), text.as_slice()].concat();
        let block = Block::read(&body).unwrap();
        assert_eq!(block.lines, b"cpu,host=a v=1 1\ncpu v=1 4\n".as_slice());
        assert_eq!(block.unread, [25..42, 42..59]);
    }

    #[test]
    fn text_is_no_shard() {
        assert_eq!(whole_points(b"cpu,host=a v=1 1\n"), 0);
        assert_eq!(whole_points(&[0; 20]), 0);
    }
}
