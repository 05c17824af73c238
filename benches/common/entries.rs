//! What is appended, the same at every run: line protocol of ten points, about 1.8 KB, or of one;
//! and bytes at random.

use std::{
    fmt::{self, Write},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;

pub const SEED: u64 = 0x1ead_beef_cafe_f00d;
/// Points of an entry, where nothing else is said.
pub const POINTS: u64 = 10;
const FIELDS: [&str; 9] = [
    "user", "system", "idle", "nice", "iowait", "irq", "softirq", "steal", "guest",
];

/// Entries made beforehand and given out in turn, so that making them is in no timed part and no
/// commit group holds the same one twice (which would flatter compression).
pub struct Entries {
    made: Vec<Bytes>,
    next: AtomicUsize,
}

impl Entries {
    /// Line protocol, `points` an entry.
    pub fn line_protocol(count: usize, points: u64) -> Result<Self, fmt::Error> {
        let mut random = SplitMix(SEED);
        let made = (0..count).map(|number| entry(number as u64, points, &mut random));
        Ok(Entries {
            made: made.collect::<Result<_, _>>()?,
            next: AtomicUsize::new(0),
        })
    }

    /// Entries of `bytes` each, of which no compression makes less.
    pub fn incompressible(count: usize, bytes: usize) -> Self {
        let mut random = SplitMix(SEED);
        let made = (0..count).map(|_| {
            let words = (0..bytes.div_ceil(8)).map(|_| random.next().to_be_bytes());
            let mut entry: Vec<u8> = words.flatten().collect();
            entry.truncate(bytes);
            entry.into()
        });
        Entries {
            made: made.collect(),
            next: AtomicUsize::new(0),
        }
    }

    pub fn next(&self) -> Bytes {
        let turn = self.next.fetch_add(1, Relaxed);
        let entry = self.made.get(turn % self.made.len().max(1));
        entry.cloned().unwrap_or_default()
    }

    pub fn mean_bytes(&self) -> u64 {
        let all: usize = self.made.iter().map(Bytes::len).sum();
        (all / self.made.len().max(1)) as u64
    }
}

fn entry(number: u64, points: u64, random: &mut SplitMix) -> Result<Bytes, fmt::Error> {
    const REGIONS: [&str; 4] = ["eu-west-1", "eu-north-1", "us-east-2", "ap-south-1"];
    let mut text = String::with_capacity(2048);
    for point in 0..points {
        let host = random.below(1000);
        let region = REGIONS.get(host as usize % REGIONS.len());
        let core = random.below(16);
        let region = region.copied().unwrap_or_default();
        write!(
            text,
            "cpu,host=server{host:03},region={region},core={core} "
        )?;
        for (place, field) in FIELDS.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            let (whole, fraction) = (random.below(100), random.below(1000));
            write!(text, "{comma}{field}={whole}.{fraction:03}")?;
        }
        let unix_ns = 1_700_000_000_000_000_000
            + (number * points + point) * 10_000_000
            + random.below(10_000_000);
        writeln!(text, " {unix_ns}")?;
    }
    Ok(text.into())
}

/// Steele, Lea and Flood's generator: eight lines, and the same numbers on every machine.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
