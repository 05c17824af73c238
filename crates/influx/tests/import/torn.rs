//! Goal: of a segment that is torn in whatever way everything intact is taken that its node has
//! not, and nothing is taken that was never written.
//!
//! Method: segments are written as the servers write them, stopped or changed at every byte, and
//! read. What is read is compared with what was written.

use std::collections::BTreeSet;

use hinted_handoff_influx::import::{Block, Segment};

use crate::old_queue::{FORMS, Form, OldPoint, OldSegment, body, points};

/// The lines that are taken, of one shard, in order.
pub fn taken(bytes: &[u8]) -> Vec<String> {
    let segment = Segment::read(bytes);
    let mut taken = Vec::new();
    for record in &segment.pending {
        let block = Block::read(&bytes[record.body.clone()]).unwrap();
        if block.shard.is_none() {
            continue;
        }
        assert!(block.shard.is_some_and(|shard| shard == 7));
        let text = String::from_utf8(block.lines.into_owned()).unwrap();
        taken.extend(text.split_inclusive('\n').map(str::to_owned));
    }
    taken
}

fn lines<'a>(records: impl IntoIterator<Item = &'a Vec<OldPoint>>) -> Vec<String> {
    let points = records.into_iter().flatten();
    points.map(OldPoint::line).collect()
}

fn is_intact(bytes: &[u8]) -> bool {
    Segment::read(bytes).damage.is_empty()
}

/// Records of different lengths, none of which is where another one begins.
fn records() -> Vec<Vec<OldPoint>> {
    [3, 1, 4, 2]
        .iter()
        .enumerate()
        .map(|(at, count)| points(at, *count))
        .collect()
}

fn bodies(form: Form) -> Vec<Vec<u8>> {
    records()
        .iter()
        .map(|points| body(form, 7, points))
        .collect()
}

#[test]
fn an_intact_segment_has_exactly_what_its_node_has_not() {
    for form in FORMS {
        let mut segment = OldSegment::of(&bodies(form));
        for acknowledged in 0..=4 {
            assert!(is_intact(&segment.bytes));
            assert_eq!(taken(&segment.bytes), lines(&records()[acknowledged..]));
            if acknowledged < 4 {
                segment.advance();
            }
        }
        // Behind the last one there is nothing.
        assert_eq!(segment.position() as usize, segment.bytes.len() - 8);
    }
    assert!(is_intact(&OldSegment::default().bytes) && is_intact(&[]));
}

#[test]
fn an_append_that_is_cut_at_any_byte_costs_no_point_that_was_whole() {
    for form in FORMS {
        for acknowledged in 0..=3 {
            let mut before = OldSegment::of(&bodies(form)[..3]);
            (0..acknowledged).for_each(|_| before.advance());
            let new = &records()[3];
            let appended = before.appended(&body(form, 7, new));
            for cut in 0..=appended.len() {
                let mut segment = before.clone();
                segment.append_cut(&appended[..cut]);
                let taken = taken(&segment.bytes);
                let is_whole = cut == appended.len();
                let place = format!("{form:?}, {acknowledged} acknowledged, cut at {cut}");
                // A footer begins with zeros, as a length does.
                if cut == 0 || is_whole || segment.bytes == before.bytes {
                    let until = if is_whole { 4 } else { 3 };
                    assert!(is_intact(&segment.bytes), "{place}");
                    assert_eq!(taken, lines(&records()[acknowledged..until]), "{place}");
                    continue;
                }
                let whole = (0..=new.len())
                    .rev()
                    .find(|count| body(form, 7, &new[..*count]).len() + 8 <= cut);
                let whole = &new[..whole.unwrap_or(0)];
                if is_intact(&segment.bytes) {
                    // The first bytes of a length over a footer can be a footer again.
                    assert!(cut < 8, "{place}");
                } else {
                    let wanted = [lines(&records()[..3]), lines([&whole.to_vec()])].concat();
                    assert_eq!(taken, wanted, "{place}");
                }
            }
        }
    }
}

#[test]
fn a_tail_that_is_cut_at_any_byte_costs_no_point_before_it() {
    for form in FORMS {
        for acknowledged in 0..=4 {
            let mut segment = OldSegment::of(&bodies(form));
            (0..acknowledged).for_each(|_| segment.advance());
            for cut in 0..segment.bytes.len() {
                let taken = taken(&segment.bytes[..cut]);
                let mut end = 0;
                let mut wanted = Vec::new();
                for (points, body) in records().iter().zip(bodies(form)) {
                    for count in 1..=points.len() {
                        if end + 8 + crate::old_queue::body(form, 7, &points[..count]).len() <= cut
                        {
                            wanted.push(points[count - 1].line());
                        }
                    }
                    end += 8 + body.len();
                }
                assert_eq!(taken, wanted, "{form:?}, cut at {cut}");
                assert!(
                    cut == 0 || !is_intact(&segment.bytes[..cut]),
                    "cut at {cut}"
                );
            }
        }
    }
}

#[test]
fn a_footer_counts_where_a_record_begins_and_nowhere_else() {
    for form in FORMS {
        let segment = OldSegment::of(&bodies(form));
        let mut boundaries = vec![0];
        for body in bodies(form) {
            boundaries.push(boundaries.last().unwrap() + 8 + body.len() as u64);
        }
        let near = 0..segment.bytes.len() as u64 + 20;
        let far = [u64::MAX, u64::MAX - 7, 1 << 63, 1 << 32, 10 << 20];
        for footer in near.chain(far) {
            let mut segment = segment.clone();
            segment.set_footer(footer);
            let known = boundaries.iter().position(|at| *at == footer);
            let wanted = lines(&records()[known.unwrap_or(0)..]);
            assert_eq!(taken(&segment.bytes), wanted, "{form:?} {footer}");
            assert_eq!(
                is_intact(&segment.bytes),
                known.is_some(),
                "{form:?} {footer}"
            );
        }
    }
}

#[test]
fn the_length_of_a_new_record_is_a_footer_only_if_a_record_begins_there() {
    // What cannot be told apart: a write that was cut behind its length, and an acknowledgement.
    let first = body(Form::Lines, 7, &[OldPoint::new("cpu", "v=1", 1)]);
    let mut segment = OldSegment::of(std::slice::from_ref(&first));
    segment.append_cut(&(first.len() as u64 + 8).to_be_bytes());
    assert!(is_intact(&segment.bytes) && taken(&segment.bytes).is_empty());
    // With --from-start it is imported.
    assert_eq!(Segment::read_from_start(&segment.bytes).pending.len(), 1);
}

#[test]
fn lengths_that_are_zero_cost_no_point() {
    for form in FORMS {
        for zeroed in 0..16_usize {
            let mut segment = OldSegment::of(&bodies(form));
            let mut at = 0;
            for (record, body) in bodies(form).iter().enumerate() {
                if zeroed & 1 << record != 0 {
                    segment.bytes[at..at + 8].fill(0);
                }
                at += 8 + body.len();
            }
            assert_eq!(
                taken(&segment.bytes),
                lines(&records()),
                "{form:?} {zeroed:b}"
            );
            let damage = Segment::read(&segment.bytes).damage;
            assert_eq!(
                damage.len(),
                zeroed.count_ones() as usize,
                "{form:?} {damage:?}"
            );
        }
    }
}

#[test]
fn appends_over_a_record_that_a_full_disk_cut_cost_no_point_but_those_that_are_cut() {
    for form in FORMS {
        let bodies = bodies(form);
        for record in 0..3 {
            let before = OldSegment::of(&bodies[..record]);
            let appended = before.appended(&bodies[record]);
            for cut in 9..8 + bodies[record].len() {
                let mut segment = before.clone();
                segment.append_cut(&appended[..cut]);
                // Its footer was never written: the next append is over its last eight bytes.
                let left = segment.bytes.len() - 8;
                for body in &bodies[record + 1..] {
                    segment.append(body);
                    segment.set_footer(0);
                }
                let taken = taken(&segment.bytes);
                let place = format!("{form:?}, record {record} cut at {cut}: {taken:?}");
                let start: usize = bodies[..record].iter().map(|body| 8 + body.len()).sum();
                let points = &records()[record];
                let whole = (0..=points.len())
                    .rev()
                    .find(|count| start + 8 + body(form, 7, &points[..*count]).len() <= left);
                let mut wanted = records();
                wanted[record].truncate(whole.unwrap_or(0));
                assert_eq!(taken, lines(&wanted), "{place}");
                assert!(!is_intact(&segment.bytes), "{place}");
            }
        }
    }
}

#[test]
fn zeros_over_any_place_cost_no_record_that_is_intact_and_make_no_point() {
    for form in FORMS {
        let segment = OldSegment::of(&bodies(form));
        let written: BTreeSet<String> = lines(&records()).into_iter().collect();
        for length in [1, 8, 40, 150] {
            for at in 0..segment.bytes.len() - length {
                let mut segment = segment.clone();
                segment.bytes[at..at + length].fill(0);
                let found = taken(&segment.bytes);
                let mut start = 0;
                for (points, body) in records().iter().zip(bodies(form)) {
                    let end = start + 8 + body.len();
                    if at + length <= start || end <= at {
                        for point in points {
                            let line = point.line();
                            assert!(found.contains(&line), "{form:?}, {length} zeros at {at}");
                        }
                    }
                    start = end;
                }
                for line in found {
                    // Zeros of a time in binary form are a time.
                    let name = line.rsplit_once(' ').unwrap().0;
                    let is_written = written
                        .iter()
                        .any(|it| it.rsplit_once(' ').unwrap().0 == name);
                    assert!(is_written, "{form:?}, {length} zeros at {at}: {line}");
                }
            }
        }
    }
}
