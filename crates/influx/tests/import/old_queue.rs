//! A writer of the old queues, as the Go code writes them.

use std::{fs, path::Path};

/// Bytes of a segment.
#[derive(Debug, Clone)]
pub struct OldSegment {
    pub bytes: Vec<u8>,
}

impl Default for OldSegment {
    fn default() -> OldSegment {
        OldSegment { bytes: vec![0; 8] }
    }
}

impl OldSegment {
    pub fn of(bodies: &[Vec<u8>]) -> OldSegment {
        let mut segment = OldSegment::default();
        bodies.iter().for_each(|body| segment.append(body));
        segment
    }

    pub fn position(&self) -> u64 {
        u64::from_be_bytes(*self.bytes.last_chunk().unwrap())
    }

    /// What an append writes, from eight bytes before the end of the file on.
    pub fn appended(&self, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u64).to_be_bytes();
        let position = self.position().to_be_bytes();
        [length.as_slice(), body, &position].concat()
    }

    pub fn append(&mut self, body: &[u8]) {
        let appended = self.appended(body);
        self.append_cut(&appended);
    }

    /// An append of which only so much came to the disk.
    pub fn append_cut(&mut self, written: &[u8]) {
        let from = self.bytes.len() - 8;
        let kept = self.bytes.split_off(from);
        self.bytes.extend_from_slice(written);
        self.bytes.extend(kept.iter().skip(written.len()));
    }

    /// The first record that the node has not is acknowledged.
    pub fn advance(&mut self) {
        let at = self.position() as usize;
        let length = u64::from_be_bytes(*self.bytes[at..].first_chunk().unwrap());
        self.set_footer(at as u64 + 8 + length);
    }

    pub fn set_footer(&mut self, position: u64) {
        let end = self.bytes.len() - 8;
        self.bytes[end..].copy_from_slice(&position.to_be_bytes());
    }

    pub fn write(&self, path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &self.bytes).unwrap();
    }
}

/// How points stand in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Lines,
    Binary,
}

pub const FORMS: [Form; 2] = [Form::Lines, Form::Binary];

/// A point: what stands before its time, in two parts, and its time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OldPoint {
    pub key: String,
    pub fields: String,
    pub time: i64,
}

impl OldPoint {
    pub fn new(key: impl Into<String>, fields: impl Into<String>, time: i64) -> OldPoint {
        OldPoint {
            key: key.into(),
            fields: fields.into(),
            time,
        }
    }

    pub fn line(&self) -> String {
        format!("{} {} {}\n", self.key, self.fields, self.time)
    }

    /// `models.Point.MarshalBinary`.
    pub fn binary(&self) -> Vec<u8> {
        let counted = |text: &str| [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat();
        let seconds = self.time.div_euclid(1_000_000_000) + 62_135_596_800;
        let nanoseconds = self.time.rem_euclid(1_000_000_000) as i32;
        [
            counted(&self.key).as_slice(),
            &counted(&self.fields),
            &[1],
            &seconds.to_be_bytes(),
            &nanoseconds.to_be_bytes(),
            &[0xff, 0xff],
        ]
        .concat()
    }
}

/// `marshalWrite`.
pub fn body(form: Form, shard: u64, points: &[OldPoint]) -> Vec<u8> {
    let mut body = shard.to_be_bytes().to_vec();
    for point in points {
        match form {
            Form::Lines => body.extend_from_slice(point.line().as_bytes()),
            Form::Binary => {
                let point = point.binary();
                body.extend_from_slice(&(point.len() as u32).to_be_bytes());
                body.extend_from_slice(&point);
            }
        }
    }
    body
}

/// Some points of a record, other ones for each number.
pub fn points(record: usize, count: usize) -> Vec<OldPoint> {
    let point = |at: usize| {
        let time = 1_700_000_000_000_000_000 + (record * 1000 + at) as i64;
        let fields = match at % 3 {
            0 => format!("value={record}.{at}"),
            1 => format!("count={at}i,text=\"of {record}\""),
            _ => "up=true".to_owned(),
        };
        OldPoint::new(format!("cpu,host=h{at},of=r{record}"), fields, time)
    };
    (0..count).map(point).collect()
}
