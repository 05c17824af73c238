//! Reading what a client sent.

use std::{collections::BTreeMap, str, time::SystemTime};

use crc32fast::Hasher;
use hinted_handoff::ShardId;
use influxdb_line_protocol::{Error, ParsedLine, Series, parse_lines};

use super::{
    LinePoints, STRIPES, Target,
    lines::{Line, lines, text_of},
    shard_of,
};

/// So many bad lines are told of; more are counted.
const BAD_LINES_TOLD: usize = 20;
/// So much of a bad line is shown, in letters.
const BAD_LINE_SHOWN: usize = 100;

/// The points of a body that a client sent, each with its time.
#[derive(Debug)]
pub struct Points {
    target: Target,
    stripes: BTreeMap<u8, Stripe>,
    bad: Vec<BadLine>,
    bad_lines: usize,
}

/// The points of one stripe, in the order of the body.
#[derive(Debug, Default)]
struct Stripe {
    lines: Vec<u8>,
    points: u32,
}

/// A line that is no point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {number}: unable to parse '{text}': {why}")]
#[non_exhaustive]
pub struct BadLine {
    /// Its number in the body, from 1.
    pub number: usize,
    /// How it begins: 100 letters at most.
    pub text: String,
    /// What is wrong.
    pub why: String,
}

impl Points {
    /// Reads a body of the line protocol. A line that has no time is of the moment `now`, in whole
    /// units of the precision: it is given that here, once, so that all servers have the same.
    ///
    /// Lines that are no points are left out, and told of by [`bad`](Points::bad).
    pub fn read(target: Target, body: &[u8], now: SystemTime) -> Points {
        let mut points = Points {
            target,
            stripes: BTreeMap::new(),
            bad: Vec::new(),
            bad_lines: 0,
        };
        points.read_more(body, now);
        points
    }

    /// Reads another body for the same target, behind what was read. A bad line has its number in
    /// its own body.
    pub fn read_more(&mut self, body: &[u8], now: SystemTime) {
        let now = self.target.precision.units_until(now);
        for line in lines(&text_of(body)) {
            let content = body.get(line.place.clone()).unwrap_or_default();
            if let Err(why) = self.add(content, now) {
                self.add_bad(&line, content, why);
            }
        }
    }

    fn add(&mut self, line: &[u8], now: i64) -> Result<(), String> {
        let line = str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned())?;
        let mut parsed = parse_lines(line);
        // It is one line, whatever the parser takes for its end.
        let (Some(point), None) = (parsed.next(), parsed.next()) else {
            return Err("it is not one line".to_owned());
        };
        let ParsedLine {
            series, timestamp, ..
        } = point.map_err(|error| match error {
            // It would name a rule of the parser's.
            Error::GenericParsingError { .. } => {
                "it is not measurement,tags fields time".to_owned()
            }
            error => error.to_string(),
        })?;
        if timestamp.is_some_and(|time| !self.target.precision.has(time)) {
            return Err("time outside range".to_owned());
        }
        let stripe = self.stripes.entry(stripe_of(&series)).or_default();
        stripe.lines.extend_from_slice(line.as_bytes());
        if timestamp.is_none() {
            stripe.lines.extend_from_slice(format!(" {now}").as_bytes());
        }
        stripe.lines.push(b'\n');
        stripe.points += 1;
        Ok(())
    }

    fn add_bad(&mut self, line: &Line, content: &[u8], why: String) {
        self.bad_lines += 1;
        if self.bad.len() < BAD_LINES_TOLD {
            // A letter has four bytes at most.
            let begin = content.get(..BAD_LINE_SHOWN * 4).unwrap_or(content);
            let text = String::from_utf8_lossy(begin);
            self.bad.push(BadLine {
                number: line.number,
                text: text.chars().take(BAD_LINE_SHOWN).collect(),
                why,
            });
        }
    }

    /// How many points there are.
    pub fn points(&self) -> usize {
        self.stripes.values().map(|it| it.points as usize).sum()
    }

    /// How many bytes their lines have, with the times that were given to them.
    pub fn lines_bytes(&self) -> usize {
        self.stripes.values().map(|it| it.lines.len()).sum()
    }

    /// The first 20 lines that are no points.
    pub fn bad(&self) -> &[BadLine] {
        &self.bad
    }

    /// How many lines are no points.
    pub fn bad_lines(&self) -> usize {
        self.bad_lines
    }

    /// The points of each shard, in the order of the body. Those of one series are of one shard.
    pub fn into_shards(self) -> impl Iterator<Item = (ShardId, LinePoints)> {
        let target = self.target;
        self.stripes.into_iter().map(move |(stripe, points)| {
            let shard = shard_of(&target, stripe);
            let points = LinePoints::new(target.clone(), points.lines.into(), points.points);
            (shard, points)
        })
    }
}

/// The same for one series, in whatever order its tags stand.
fn stripe_of(series: &Series<'_>) -> u8 {
    let mut hasher = Hasher::new();
    // No UTF-8 has this byte.
    let mut add = |part: &str| {
        hasher.update(part.as_bytes());
        hasher.update(&[0xff]);
    };
    add(series.measurement.as_str());
    let mut tags: Vec<_> = series.tag_set.iter().flatten().collect();
    tags.sort();
    for (key, value) in tags {
        add(key.as_str());
        add(value.as_str());
    }
    (hasher.finalize() % u32::from(STRIPES)) as u8
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::points::Precision;

    fn read(body: impl AsRef<[u8]>, precision: Precision) -> Points {
        let target = Target {
            database: "metrics".to_owned(),
            retention_policy: None,
            precision,
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        Points::read(target, body.as_ref(), now)
    }

    fn lines_of(points: Points) -> Vec<String> {
        let lines = points.into_shards().flat_map(|(_, it)| {
            let text = String::from_utf8(it.lines().to_vec()).unwrap();
            text.split_inclusive('\n')
                .map(str::to_owned)
                .collect::<Vec<_>>()
        });
        lines.collect()
    }

    #[test]
    fn a_point_without_a_time_is_given_one_in_the_unit_of_the_body() {
        for (precision, time) in [
            (Precision::Nanoseconds, "1700000000123000000"),
            (Precision::Microseconds, "1700000000123000"),
            (Precision::Milliseconds, "1700000000123"),
            (Precision::Seconds, "1700000000"),
            (Precision::Minutes, "28333333"),
            (Precision::Hours, "472222"),
        ] {
            let points = read("cpu v=1\n", precision);
            assert_eq!(lines_of(points), [format!("cpu v=1 {time}\n")]);
            assert_eq!(lines_of(read("cpu v=1 7", precision)), ["cpu v=1 7\n"]);
        }
    }

    #[test]
    fn bodies_that_are_read_together_keep_their_order_and_their_times() {
        let mut points = read("cpu v=1\n", Precision::Seconds);
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        points.read_more(b"cpu v=2\nbad\n", later);
        assert_eq!((points.points(), points.bad()[0].number), (2, 2));
        let told = ["cpu v=1 1700000000\n", "cpu v=2 1800000000\n"];
        assert_eq!(points.lines_bytes(), told.concat().len());
        assert_eq!(lines_of(points), told);
    }

    #[test]
    fn bad_lines_are_told_of_by_number_and_the_others_are_read() {
        let body = b"cpu v=1 1\ncpu\ncpu v=x 2\ncpu,h= v=1 2\ncpu v=\"\xff\" 3\ncpu v=1i 4";
        let points = read(body, Precision::Nanoseconds);
        assert_eq!(points.points(), 2);
        let bad: Vec<usize> = points.bad().iter().map(|line| line.number).collect();
        assert_eq!(bad, [2, 3, 4, 5]);
        assert_eq!(points.bad_lines(), 4);
        let told = points.bad()[0].to_string();
        assert_eq!(
            told,
            "line 2: unable to parse 'cpu': it is not measurement,tags fields time"
        );
    }

    #[test]
    fn a_time_that_influxdb_does_not_have_is_bad() {
        for (time, is_good) in [
            ("9223372036854775806", true),
            ("9223372036854775807", false),
            ("-9223372036854775806", true),
            ("-9223372036854775807", false),
        ] {
            let points = read(format!("cpu v=1 {time}"), Precision::Nanoseconds);
            assert_eq!(points.points() == 1, is_good, "{time}");
        }
        let points = read("cpu v=1 9223372036855", Precision::Milliseconds);
        assert_eq!(points.bad()[0].why, "time outside range");
    }

    #[test]
    fn a_body_of_bad_lines_alone_takes_no_memory_for_each() {
        let points = read("b\n".repeat(1_000_000), Precision::Nanoseconds);
        assert_eq!((points.bad().len(), points.bad_lines()), (20, 1_000_000));
        let long = read("x".repeat(1_000_000), Precision::Nanoseconds);
        assert_eq!(long.bad()[0].text.len(), 100);
    }

    #[test]
    fn a_series_is_of_one_shard_in_whatever_order_its_tags_stand() {
        let body = "cpu,a=1,b=2 v=1 1\ncpu,b=2,a=1 v=1 2\n";
        assert_eq!(read(body, Precision::Nanoseconds).into_shards().count(), 1);
        let many: String = (0..200)
            .map(|host| format!("cpu,h={host} v=1 1\n"))
            .collect();
        let shards: Vec<u32> = read(many, Precision::Nanoseconds)
            .into_shards()
            .map(|(_, points)| points.points())
            .collect();
        assert_eq!(shards.len(), usize::from(STRIPES));
        assert!(shards.iter().all(|points| *points > 10), "{shards:?}");
    }

    #[test]
    fn databases_and_policies_have_shards_of_their_own() {
        let of = |database: &str, retention_policy: Option<&str>| {
            let target = Target {
                database: database.to_owned(),
                retention_policy: retention_policy.map(str::to_owned),
                precision: Precision::Seconds,
            };
            shard_of(&target, 3)
        };
        assert_eq!(of("a", None), of("a", None));
        assert_ne!(of("a", None), of("b", None));
        assert_ne!(of("a", None), of("a", Some("b")));
        assert_ne!(of("a", Some("")), of("a", None));
        // It is part of what is on disk.
        assert_eq!(of("a", None), ShardId(36_279_351_811));
    }
}
