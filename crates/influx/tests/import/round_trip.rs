//! Goal: what a server wrote is read as it was written, whatever it is.

use hinted_handoff_influx::import::Segment;
use proptest::prelude::*;

use crate::{
    old_queue::{Form, OldPoint, OldSegment, body},
    torn::taken,
};

fn point() -> impl Strategy<Value = OldPoint> {
    let key = "[a-z]{1,8}(,[a-z]{1,4}=[a-z\u{e4}0-9]{1,6}){0,2}";
    let fields = prop_oneof![
        "[a-z]{1,4}=-?[0-9]{1,5}i?",
        "[a-z]{1,4}=\"[a-z ,=#]{0,12}\"",
        "[a-z]{1,4}=(true|false),b=1",
    ];
    let time = i64::MIN / 2..i64::MAX / 2;
    (key, fields, time).prop_map(|(key, fields, time)| OldPoint::new(key, fields, time))
}

proptest! {
    #[test]
    fn what_was_appended_and_not_acknowledged_is_read(
        records in prop::collection::vec(prop::collection::vec(point(), 1..6), 0..8),
        acknowledged in 0..8_usize,
        is_binary: bool,
    ) {
        let form = if is_binary { Form::Binary } else { Form::Lines };
        let bodies: Vec<Vec<u8>> = records.iter().map(|points| body(form, 7, points)).collect();
        let mut segment = OldSegment::of(&bodies);
        let acknowledged = acknowledged.min(records.len());
        (0..acknowledged).for_each(|_| segment.advance());
        let wanted = records[acknowledged..].iter().flatten().map(OldPoint::line);
        let wanted: Vec<String> = wanted.collect();
        prop_assert_eq!(taken(&segment.bytes), wanted);
        let read = Segment::read(&segment.bytes);
        prop_assert_eq!((read.acknowledged, read.damage.len()), (acknowledged, 0));
    }
}
