//! A point in the binary form of InfluxDB.

/// Seconds from the first of January of the year 1, from which Go counts, to 1970.
const UNIX_EPOCH_SECONDS: i64 = 62_135_596_800;

/// A point as `models.Point.MarshalBinary` writes it:
///
/// ```text
/// u32 BE length | key          measurement and tags, as line protocol has them
/// u32 BE length | fields       as line protocol has them
/// time                         time.MarshalBinary of Go
/// ```
///
/// and a time is
///
/// ```text
/// u8 version                   1, or 2 with another byte at the end
/// i64 BE seconds               since the first of January of the year 1, UTC
/// i32 BE nanoseconds
/// i16 BE offset                of the time zone in minutes, -1 for UTC: no part of the moment
/// u8 seconds of the offset     in version 2 only
/// ```
///
/// From `models/points.go` (`point.MarshalBinary`, `point.UnmarshalBinary`) of influxdata/influxdb,
/// which chengshiwen/influxdb-cluster calls in `services/hh/node_processor.go` (`marshalWrite`),
/// and `src/time/time.go` (`Time.MarshalBinary`) of golang/go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point<'a> {
    key: &'a [u8],
    fields: &'a [u8],
    /// Nanoseconds since 1970.
    time: i64,
    is_utc: bool,
}

impl<'a> Point<'a> {
    /// Reads all of `bytes` as a point; `None` if they are none. A name or value with a byte 0 in
    /// it is one that zeros were written into.
    pub fn read(bytes: &'a [u8]) -> Option<Point<'a>> {
        let (key, rest) = counted(bytes)?;
        let (fields, time) = counted(rest)?;
        let is_text = |text: &[u8]| !text.is_empty() && !text.contains(&0);
        (is_text(key) && is_text(fields)).then_some(Point {
            key,
            fields,
            time: read_time(time)?,
            is_utc: time.ends_with(&[0xff, 0xff]),
        })
    }

    /// Whether its time ends with the offset of UTC, as the times of writes do. Other bytes may be
    /// something that was written over the end of the point.
    pub fn is_utc(&self) -> bool {
        self.is_utc
    }

    /// Puts it as a line, with its end, behind others.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.key);
        out.push(b' ');
        out.extend_from_slice(self.fields);
        out.extend_from_slice(format!(" {}\n", self.time).as_bytes());
    }
}

/// What a length of four bytes says, and what follows.
pub fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

/// Go's zero time is refused with all that an `i64` does not hold: a server gives each point a time
/// before it keeps it, so that one is zeros over another.
fn read_time(bytes: &[u8]) -> Option<i64> {
    let (version, rest) = bytes.split_first()?;
    let (seconds, rest) = rest.split_first_chunk::<8>()?;
    let (nanoseconds, offset) = rest.split_first_chunk::<4>()?;
    let is_known = matches!((version, offset.len()), (1, 2) | (2, 3));
    let seconds = i64::from_be_bytes(*seconds);
    let nanoseconds = i64::from(i32::from_be_bytes(*nanoseconds));
    if !is_known || !(0..1_000_000_000).contains(&nanoseconds) {
        return None;
    }
    // In 128 bits: the first second of the range is below it, with the nanoseconds within.
    let seconds = i128::from(seconds) - i128::from(UNIX_EPOCH_SECONDS);
    let time = seconds * 1_000_000_000 + i128::from(nanoseconds);
    i64::try_from(time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1700000000 seconds and 123 nanoseconds since 1970, UTC: 63835596800 seconds since the year
    /// 1.
    const TIME: [u8; 15] = [
        1, 0, 0, 0, 0x0e, 0xdc, 0xe5, 0xe8, 0x00, 0, 0, 0, 123, 0xff, 0xff,
    ];

    fn point(time: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 10];
        bytes.extend_from_slice(b"cpu,host=a");
        bytes.extend_from_slice(&[0, 0, 0, 3]);
        bytes.extend_from_slice(b"v=1");
        bytes.extend_from_slice(time);
        bytes
    }

    fn line(time: &[u8]) -> Option<String> {
        let bytes = point(time);
        let mut line = Vec::new();
        Point::read(&bytes)?.write_line(&mut line);
        String::from_utf8(line).ok()
    }

    #[test]
    fn a_point_reads_as_its_line() {
        assert_eq!(line(&TIME).unwrap(), "cpu,host=a v=1 1700000000000000123\n");
        let mut other_zone = [TIME.as_slice(), &[30]].concat();
        (other_zone[0], other_zone[13], other_zone[14]) = (2, 0, 60);
        assert_eq!(line(&other_zone), line(&TIME));
    }

    #[test]
    fn a_time_that_no_i64_holds_is_refused() {
        let mut zero = [0; 15];
        (zero[0], zero[13], zero[14]) = (1, 0xff, 0xff);
        assert_eq!(line(&zero), None);
        zero[1] = 1;
        assert_eq!(line(&zero), None);
    }

    #[test]
    fn a_point_that_is_cut_or_longer_is_none() {
        let whole = point(&TIME);
        for end in 0..whole.len() {
            assert_eq!(Point::read(&whole[..end]), None, "{end}");
        }
        assert_eq!(Point::read(&[whole.as_slice(), &[0]].concat()), None);
    }
}
