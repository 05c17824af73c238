//! A segment of InfluxDB's own hinted handoff. What is read of it stands in it, in order, and is no
//! longer than it by far; what is read from its start is no less.

#![no_main]

use hinted_handoff_influx::import::{Block, Segment};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let segment = Segment::read(bytes);
    let mut end = 0;
    for record in &segment.pending {
        assert!(record.offset >= end && record.offset + 8 == record.body.start);
        let body = &bytes[record.body.clone()];
        end = record.body.end;
        let Some(block) = Block::read(body) else {
            continue;
        };
        // A point in binary form is longer than its line but for a long time.
        assert!(block.lines.len() <= body.len());
        for place in block.unread {
            assert!(!body[place].is_empty());
        }
    }
    for damage in &segment.damage {
        assert!(bytes.get(damage.place.clone()).is_some());
    }
    let all = Segment::read_from_start(bytes);
    assert!(all.pending.ends_with(&segment.pending));
    assert_eq!(all.pending.len(), segment.acknowledged + segment.pending.len());
});
