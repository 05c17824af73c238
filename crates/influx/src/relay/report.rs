//! How the points of a body fared, and what the client is told of that.

use crate::BadLine;

/// What a writer tells behind what influxd told: how many points of how many.
const REFUSED: &str = "; refused: ";
/// Of a long text the client is told so many letters.
const TEXT_MAX: usize = 4_000;

/// How points fared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Points that a server has.
    pub direct: u64,
    /// Points that no server had so far, and that are durably queued.
    pub queued: u64,
    /// Points that servers refused for good.
    pub refused: u64,
    /// Points of which the client should not believe that they are written.
    pub failed: u64,
    /// What the first server said that refused any.
    pub refusal: Option<String>,
    /// The first thing that failed.
    pub failure: Option<Failure>,
    /// The database that no server has, where nobody took anything.
    pub missing: Option<String>,
}

/// Why points are not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub kind: Kind,
    pub text: String,
}

/// What a client should do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Send all again later.
    Later,
    /// It is a defect here.
    Internal,
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// 204.
    Written,
    /// 400.
    Bad(String),
    /// 404.
    Missing(String),
    /// 503.
    Later(String),
    /// 500.
    Internal(String),
}

impl Report {
    pub fn refused(&mut self, points: u64, why: String) {
        self.refused += points;
        self.refusal.get_or_insert(why);
    }

    pub fn failed(&mut self, points: u64, failure: Failure) {
        self.failed += points;
        self.failure.get_or_insert(failure);
    }

    pub fn not_tried(&mut self, points: u64) {
        self.failed += points;
    }

    /// Both together.
    pub fn and(self, other: Report) -> Report {
        Report {
            direct: self.direct + other.direct,
            queued: self.queued + other.queued,
            refused: self.refused + other.refused,
            failed: self.failed + other.failed,
            refusal: self.refusal.or(other.refusal),
            failure: self.failure.or(other.failure),
            missing: self.missing.or(other.missing),
        }
    }

    /// What the client is told, which also sent `bad` lines, `bad_lines` in all. A client that is
    /// told 400 sends nothing again, so what should be sent again goes before.
    pub fn verdict(&self, bad: &[BadLine], bad_lines: usize) -> Verdict {
        if let Some(database) = &self.missing
            && self.direct == 0
        {
            return Verdict::Missing(format!("database not found: {database:?}"));
        }
        if let Some(Failure { kind, text }) = &self.failure {
            let text = shortened(text);
            return match kind {
                Kind::Later => Verdict::Later(text),
                Kind::Internal => Verdict::Internal(text),
            };
        }
        if bad_lines == 0 && self.refused == 0 {
            return Verdict::Written;
        }
        let mut told: Vec<String> = bad.iter().map(BadLine::to_string).collect();
        if bad_lines > bad.len() {
            told.push(format!("and {} more such lines", bad_lines - bad.len()));
        }
        told.extend(
            self.refusal
                .as_deref()
                .map(|it| without_count(it).to_owned()),
        );
        let told = shortened(&told.join("\n"));
        let is_nothing_written = self.direct + self.queued + self.refused == 0;
        Verdict::Bad(match is_nothing_written {
            true => told,
            false => {
                let dropped = bad_lines as u64 + self.refused;
                format!("partial write: {told} dropped={dropped}")
            }
        })
    }
}

/// What influxd says, without how many points that was of a part: it says nothing of the whole.
fn without_count(text: &str) -> &str {
    let text = text.split(REFUSED).next().unwrap_or(text).trim();
    let text = text.strip_prefix("partial write: ").unwrap_or(text);
    match text.rsplit_once(" dropped=") {
        Some((before, count)) if count.bytes().all(|it| it.is_ascii_digit()) => before,
        _ => text,
    }
}

/// Whether a writer says that a server refused all points that it was sent, and not only some.
pub fn are_all_refused(text: &str) -> bool {
    let told = text.split_once(REFUSED).and_then(|(_, told)| {
        let (refused, told) = told.split_once(" of ")?;
        let (all, _) = told.split_once(" points")?;
        Some((refused, all))
    });
    told.is_some_and(|(refused, all)| refused == all)
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}..", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{Points, Precision, Target};

    fn later() -> Failure {
        Failure {
            kind: Kind::Later,
            text: "not stored".to_owned(),
        }
    }

    /// The bad lines of a body.
    fn bad(body: &str) -> Points {
        let target = Target {
            database: "d".to_owned(),
            retention_policy: None,
            precision: Precision::Seconds,
        };
        Points::read(target, body.as_bytes(), SystemTime::now())
    }

    fn verdict(report: &Report, body: &str) -> Verdict {
        let points = bad(body);
        report.verdict(points.bad(), points.bad_lines())
    }

    #[test]
    fn taken_and_queued_points_are_written() {
        let report = Report {
            direct: 3,
            queued: 2,
            ..Report::default()
        };
        assert_eq!(verdict(&report, ""), Verdict::Written);
        assert_eq!(verdict(&Report::default(), ""), Verdict::Written);
    }

    #[test]
    fn bad_lines_are_told_by_number_and_are_a_partial_write_if_others_are_good() {
        let told = "line 2: unable to parse 'cpu': it is not measurement,tags fields time";
        let body = "cpu v=1\ncpu\n";
        let one = Report {
            queued: 1,
            ..Report::default()
        };
        let partial = format!("partial write: {told} dropped=1");
        assert_eq!(verdict(&one, body), Verdict::Bad(partial));
        assert_eq!(
            verdict(&Report::default(), body),
            Verdict::Bad(told.to_owned())
        );
        let Verdict::Bad(many) = verdict(&Report::default(), &"cpu\n".repeat(50)) else {
            panic!("not bad");
        };
        assert!(many.ends_with("\nand 30 more such lines"), "{many}");
        assert_eq!(many.lines().count(), 21);
    }

    #[test]
    fn a_refusal_is_told_in_the_words_of_influxd_with_the_count_of_the_whole() {
        let mut report = Report::default();
        let text = "partial write: field type conflict: \"v\" dropped=1; refused: 1 of 1 points: a";
        report.refused(1, text.to_owned());
        report.refused(2, "another".to_owned());
        let told = "partial write: field type conflict: \"v\" dropped=3";
        assert_eq!(verdict(&report, ""), Verdict::Bad(told.to_owned()));
    }

    #[test]
    fn a_writer_tells_whether_all_points_are_refused() {
        assert!(are_all_refused(
            "x dropped=3; refused: 3 of 3 points: a v=1 | b"
        ));
        for some in [
            "x dropped=3; refused: 2 of 3 points: a v=1 | b",
            "x; refused: at least 3 of 3 points",
            "x dropped=3",
        ] {
            assert!(!are_all_refused(some), "{some}");
        }
    }

    #[test]
    fn what_should_be_sent_again_goes_before_what_should_not() {
        let mut report = Report::default();
        report.refused(1, "conflict".to_owned());
        report.failed(4, later());
        let report = report.and(Report {
            direct: 2,
            ..Report::default()
        });
        assert_eq!(
            verdict(&report, "cpu\n"),
            Verdict::Later("not stored".to_owned())
        );
    }

    #[test]
    fn a_database_that_no_server_has_is_missing_unless_somebody_took_points() {
        let missing = Report {
            queued: 4,
            missing: Some("d".to_owned()),
            ..Report::default()
        };
        let told = "database not found: \"d\"".to_owned();
        assert_eq!(verdict(&missing, ""), Verdict::Missing(told));
        let taken = Report {
            direct: 1,
            ..missing
        };
        assert_eq!(verdict(&taken, ""), Verdict::Written);
    }

    #[test]
    fn a_long_text_is_cut() {
        let mut report = Report::default();
        report.refused(1, "\u{e4}".repeat(10_000));
        let Verdict::Bad(told) = verdict(&report, "") else {
            panic!("not bad");
        };
        assert!(told.chars().count() < 4_100);
    }
}
