//! Reading a segment: which records are in it, which of them a node has not, and what is wrong.

use std::ops::Range;

use super::block::{begins_with_a_point, whole_points};

/// No server writes a longer record.
const RECORD_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Bytes that are looked at in search of records, for each byte of a segment: a limit for bytes
/// that look like the beginning of a record everywhere.
const LOOKS: usize = 8;

/// A record that a node has not, or may not have.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Where its length stands.
    pub offset: usize,
    /// Its body, or so much of it as is there: a shard's id and points.
    pub body: Range<usize>,
}

/// Something that is not as a server leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The bytes that could not be read.
    pub place: Range<usize>,
    /// What is wrong with them.
    pub what: String,
}

/// What is in a segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Segment {
    /// The records that the node has not, in order. All of them if it is not known which it has.
    pub pending: Vec<Record>,
    /// How many the node has.
    pub acknowledged: usize,
    /// What could not be read.
    pub damage: Vec<Damage>,
}

impl Segment {
    /// Reads all bytes of a segment. Where it is torn, what is intact is found nevertheless: see
    /// the table of the [module](super).
    pub fn read(bytes: &[u8]) -> Segment {
        let mut segment = Segment::default();
        let Some((records, footer)) = bytes.split_last_chunk::<8>() else {
            if !bytes.is_empty() {
                segment.note(0..bytes.len(), "it is shorter than a footer");
            }
            return segment;
        };
        let footer = u64::from_be_bytes(*footer);
        let footer = usize::try_from(footer).unwrap_or(usize::MAX);
        let mut salvage = Salvage::of(bytes, footer);
        match tile(records) {
            Some(all) if !all.iter().any(|it| salvage.hides_another(it)) => {
                segment.take(all, footer, records.len());
            }
            _ => salvage.run(&mut segment),
        }
        segment
    }

    /// As [`read`](Segment::read), but no record counts as one that the node has.
    pub fn read_from_start(bytes: &[u8]) -> Segment {
        let mut segment = Segment::read(bytes);
        if segment.acknowledged > 0
            && let Some((records, _)) = bytes.split_last_chunk::<8>()
        {
            // A footer counts only where records tile.
            (segment.pending, segment.acknowledged) = (tile(records).unwrap_or_default(), 0);
        }
        segment
    }

    /// Takes records of which all is known, but for what the footer is worth.
    fn take(&mut self, mut all: Vec<Record>, footer: usize, end: usize) {
        let first = match footer == end {
            true => Some(all.len()),
            false => all.iter().position(|record| record.offset == footer),
        };
        if first.is_none() {
            let what = format!("the footer says {}, where no record begins", footer as i64);
            self.note(end..end + 8, what);
        }
        self.pending = all.split_off(first.unwrap_or(0));
        self.acknowledged = all.len();
    }

    fn note(&mut self, place: Range<usize>, what: impl Into<String>) {
        let what = what.into();
        self.damage.push(Damage { place, what });
    }
}

/// The record that begins at `offset`, if its length is one and it is all before `end`.
fn record_at(bytes: &[u8], offset: usize, end: usize) -> Option<Record> {
    let length = length_at(bytes, offset)?;
    let body = offset + 8..(offset + 8).checked_add(length)?;
    let fits = (8..=RECORD_BYTES_MAX).contains(&length) && body.end <= end;
    fits.then_some(Record { offset, body })
}

fn length_at(bytes: &[u8], offset: usize) -> Option<usize> {
    let length = bytes.get(offset..)?.first_chunk::<8>()?;
    usize::try_from(u64::from_be_bytes(*length)).ok()
}

/// The records, if they follow one another from the first byte to the last one.
fn tile(bytes: &[u8]) -> Option<Vec<Record>> {
    let (mut records, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let record = record_at(bytes, at, bytes.len())?;
        at = record.body.end;
        records.push(record);
    }
    Some(records)
}

/// Finding records in a segment whose records do not tile.
struct Salvage<'a> {
    bytes: &'a [u8],
    /// Where records end at the latest.
    end: usize,
    /// How many bytes may be looked at in search of records.
    looks: usize,
}

impl<'a> Salvage<'a> {
    fn of(bytes: &'a [u8], footer: usize) -> Salvage<'a> {
        let records = bytes.len().saturating_sub(8);
        Salvage {
            bytes,
            // What is no place in the segment is no footer: it may be the end of a body.
            end: if footer <= records {
                records
            } else {
                bytes.len()
            },
            looks: bytes.len().saturating_mul(LOOKS),
        }
    }

    fn run(mut self, segment: &mut Segment) {
        let mut at = 0;
        while at < self.end {
            let record = record_at(self.bytes, at, self.end);
            if let Some(record) = record.clone().filter(|it| self.is_sound(it)) {
                at = record.body.end;
                segment.pending.push(record);
                continue;
            }
            // Its length is wrong, or another record was written over its end.
            let limit = record.map(|record| record.body.end);
            let rest = at + 8..limit.unwrap_or(self.end).max(at + 8);
            let points = self.whole_points(&rest);
            let next = self.next(at + if points > 8 { 8 + points } else { 1 }, rest.end);
            let until = next.or(limit).unwrap_or(self.end);
            self.torn(at..until, segment);
            at = until;
        }
        if self.end == self.bytes.len() && segment.damage.is_empty() {
            segment.note(self.end..self.end, "the footer is missing");
        }
    }

    /// Whether it is nothing but whole points; or has others, too, but a length that is right,
    /// since it leads to a record that is.
    fn is_sound(&mut self, record: &Record) -> bool {
        let end = record.body.end;
        self.is_whole(record)
            || (!self.hides_another(record)
                && (end == self.end
                    || record_at(self.bytes, end, self.end).is_some_and(|it| self.is_whole(&it))))
    }

    fn is_whole(&self, record: &Record) -> bool {
        self.whole_points(&record.body) == record.body.len()
    }

    /// Whether another record was written over the end of it.
    fn hides_another(&mut self, record: &Record) -> bool {
        let points = self.whole_points(&record.body);
        let from = record.body.start + points;
        points < record.body.len() && self.next(from, record.body.end).is_some()
    }

    fn whole_points(&self, body: &Range<usize>) -> usize {
        self.bytes.get(body.clone()).map_or(0, whole_points)
    }

    /// Takes the points of a record that are whole, and notes the rest.
    fn torn(&self, place: Range<usize>, segment: &mut Segment) {
        let body = place.start + 8..place.end;
        let points = match self.may_begin(place.start) {
            true => self.whole_points(&body),
            false => 0,
        };
        let what = match length_at(self.bytes, place.start) {
            None => "the footer is missing".to_owned(),
            Some(_) if place.len() == 8 && place.end == self.bytes.len() => {
                "the footer is no place in the segment".to_owned()
            }
            Some(0) => "the length of a record is 0".to_owned(),
            Some(length) if points > 8 => {
                format!("a record of {length} bytes is cut short or written over")
            }
            Some(length) => format!("a record of {length} bytes is not intact"),
        };
        if points <= 8 {
            return segment.note(place, what);
        }
        let rest = body.start + points..body.end;
        // All points of it may be there, if only its length is wrong.
        let unread = if rest.is_empty() {
            place.start..body.start
        } else {
            rest
        };
        segment.note(unread, what);
        segment.pending.push(Record {
            offset: place.start,
            body: body.start..body.start + points,
        });
    }

    /// Where the next record begins whose content shows that it is one.
    fn next(&mut self, from: usize, limit: usize) -> Option<usize> {
        let mut at = from;
        while at < limit && self.looks > 0 {
            let rest = self.bytes.get(at..limit)?;
            // Every length begins with a byte 0.
            let zero = rest.iter().position(|byte| *byte == 0);
            self.looks = self.looks.saturating_sub(zero.unwrap_or(rest.len()) + 1);
            at += zero?;
            if self.is_record(at) {
                return Some(at);
            }
            at += 1;
        }
        None
    }

    /// Whether a record may have ended here: with a line, or with the offset of UTC. Else zeros
    /// over a record would do for a length, and what is left of a line behind them for a shard.
    fn may_begin(&self, at: usize) -> bool {
        let before = at.checked_sub(1).and_then(|at| self.bytes.get(at));
        before.is_none_or(|byte| matches!(byte, b'\n' | 0xff))
    }

    fn is_record(&mut self, at: usize) -> bool {
        let body = match length_at(self.bytes, at) {
            Some(0) if !self.may_begin(at) => return false,
            // Of these the end is not known.
            Some(0) => at + 8..self.end,
            _ => match record_at(self.bytes, at, self.end) {
                Some(record) => record.body,
                None => return false,
            },
        };
        let Some(bytes) = self.bytes.get(body) else {
            return false;
        };
        let points = whole_points(bytes);
        self.looks = self.looks.saturating_sub(points);
        let is_whole = points == bytes.len() || length_at(self.bytes, at) == Some(0);
        is_whole && begins_with_a_point(bytes, points)
    }
}
