//! Goal: no bytes make the reader panic, take without end, or tell of places that are not there.
//!
//! Method: segments, changed at random: `HH_CYCLES` of them, from `HH_SEED`.

use std::time::Instant;

use hinted_handoff_influx::import::{Block, Segment};

use crate::old_queue::{FORMS, OldSegment, body, points};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What must hold of whatever is read.
pub fn check(bytes: &[u8]) {
    let segment = Segment::read(bytes);
    let mut end = 0;
    for record in &segment.pending {
        assert!(record.offset >= end && record.offset + 8 == record.body.start);
        assert!(record.body.start <= record.body.end && record.body.end <= bytes.len());
        end = record.body.end;
        let body = &bytes[record.body.clone()];
        if let Some(block) = Block::read(body) {
            // A time of one digit becomes one of twenty.
            assert!(block.lines.len() <= 2 * body.len());
            for place in block.unread {
                assert!(place.start < place.end && place.end <= body.len());
            }
        }
    }
    for damage in &segment.damage {
        assert!(damage.place.start <= damage.place.end && damage.place.end <= bytes.len());
    }
}

fn mutate(random: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    let at = random.usize(0..=bytes.len());
    match random.u8(0..8) {
        0 => bytes.truncate(at),
        1 if at < bytes.len() => bytes[at] ^= 1 << random.u8(0..8),
        2 if at < bytes.len() => bytes[at] = *random.choice(b"\0\x01\n\"\\ ,=\xff").unwrap(),
        3 => {
            let end = bytes.len().min(at + random.usize(0..40));
            bytes[at..end].fill(0);
        }
        4 => {
            let number = random.u64(0..2 * bytes.len() as u64 + 2).to_be_bytes();
            let end = bytes.len().min(at + 8);
            bytes[at..end].copy_from_slice(&number[..end - at]);
        }
        5 => {
            let end = bytes.len().min(at + random.usize(0..200));
            let part = bytes[at..end].to_vec();
            let to = random.usize(0..=bytes.len());
            bytes.splice(to..to, part);
        }
        6 => {
            let end = bytes.len().min(at + random.usize(0..100));
            bytes.drain(at..end);
        }
        _ => {
            let appended = OldSegment { bytes: vec![0; 8] }.appended(&bytes.clone());
            if bytes.len() < 10_000 {
                bytes.extend_from_slice(&appended);
            }
        }
    }
}

#[test]
fn no_bytes_are_too_much() {
    let seed = number("HH_SEED").unwrap_or_else(|| fastrand::u64(..));
    let cycles = number("HH_CYCLES").unwrap_or(20_000);
    println!("seed {seed}, {cycles} cycles");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..cycles {
        let form = *random.choice(&FORMS).unwrap();
        let bodies: Vec<Vec<u8>> = (0..random.usize(0..6))
            .map(|record| body(form, random.u64(1..9), &points(record, random.usize(0..5))))
            .collect();
        let mut segment = OldSegment::of(&bodies);
        for _ in 0..random.usize(1..8) {
            mutate(&mut random, &mut segment.bytes);
        }
        check(&segment.bytes);
    }
}

#[test]
fn the_worst_segments_take_no_longer_than_others_by_far() {
    const LENGTH: usize = 4 << 20;
    let zeroed = [&[0; 8], &7_u64.to_be_bytes()[..], b"c v=1\n"].concat();
    let length = [
        &1_000_000_u64.to_be_bytes()[..],
        &7_u64.to_be_bytes(),
        b"c v=1\n",
    ]
    .concat();
    let patterns: [&[u8]; 6] = [b"\0", b"\0\0\0\0\0\0\x10\0", b"a", b"\n", &zeroed, &length];
    for pattern in patterns {
        let bytes: Vec<u8> = pattern.iter().copied().cycle().take(LENGTH).collect();
        let started = Instant::now();
        check(&bytes);
        // Nothing is decided by this; it is shown.
        println!(
            "{:?}... in {:?}",
            &pattern[..pattern.len().min(8)],
            started.elapsed()
        );
    }
}
