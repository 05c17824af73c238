//! The owners: what they answer, and when, by moods that change. What they take is taken as it
//! arrives, whatever becomes of the answer.

use std::time::{Duration, Instant};

use crate::{coordinator::OWN_SHARDS, wire::Reply};

/// How an owner behaves for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// It takes everything at once.
    Well,
    /// It takes everything, and answers around `hint_after`.
    Late,
    /// It answers around `write_timeout`, some of it not having taken it.
    VeryLate,
    /// It answers nothing, and takes half of it.
    Hangs,
    /// It refuses connections.
    Down,
    /// It takes everything, and half of its answers are lost on the way.
    Loses,
    /// Each time another of these.
    Mixed,
}

const MOODS: [Mood; 12] = [
    Mood::Well,
    Mood::Well,
    Mood::Well,
    Mood::Well,
    Mood::Well,
    Mood::Late,
    Mood::VeryLate,
    Mood::Hangs,
    Mood::Down,
    Mood::Loses,
    Mood::Mixed,
    Mood::Mixed,
];

/// What an owner does with a call.
#[derive(Debug, Clone, Copy)]
pub struct Decision {
    /// How many copies it takes.
    pub takes: usize,
    /// What it answers, and after how long, if it does.
    pub reply: Option<(Duration, Reply)>,
}

/// The times around which it gets interesting.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub hint_after: Duration,
    pub write_timeout: Duration,
}

pub struct Owners {
    seed: u64,
    random: fastrand::Rng,
    /// By node, and until when.
    moods: Vec<(Mood, Instant)>,
    /// They take whatever they ever will, at once.
    pub are_well: bool,
}

impl Owners {
    pub fn new(seed: u64, nodes: u64) -> Owners {
        Owners {
            seed,
            random: fastrand::Rng::with_seed(seed),
            moods: (0..nodes).map(|_| (Mood::Well, Instant::now())).collect(),
            are_well: false,
        }
    }

    /// A number below 100 that is the same every time.
    fn fate(&self, of: u64, node: u64) -> u64 {
        fastrand::Rng::with_seed(self.seed ^ of.wrapping_mul(0x9e37_79b9) ^ node << 56).u64(..100)
    }

    /// What this node never takes, and what none does.
    fn is_poison(&self, number: u64, node: u64) -> bool {
        self.fate(number, node) < 3 || self.fate(number, 0) < 2
    }

    /// Only shards that have one write: the others are to go on.
    fn is_gone(&self, shard: u64, node: u64) -> bool {
        shard >= OWN_SHARDS && self.fate(shard, node) > 97
    }

    fn mood(&mut self, node: u64) -> Mood {
        if self.are_well {
            return Mood::Well;
        }
        let now = Instant::now();
        let index = node as usize - 1;
        if self.moods[index].1 <= now {
            let until = now + Duration::from_millis(self.random.u64(5..80));
            self.moods[index] = (MOODS[self.random.usize(..MOODS.len())], until);
        }
        match self.moods[index].0 {
            Mood::Mixed => MOODS[self.random.usize(..10)],
            mood => mood,
        }
    }

    pub fn ping(&mut self, node: u64) -> Option<(Duration, Reply)> {
        match self.mood(node) {
            Mood::Hangs => None,
            Mood::Down => Some((Duration::ZERO, Reply::Retry)),
            _ => Some((Duration::ZERO, Reply::Take)),
        }
    }

    pub fn decide(&mut self, node: u64, shard: u64, numbers: &[u64], times: Times) -> Decision {
        let all = numbers.len();
        let mood = self.mood(node);
        let (takes, reply) = if self.is_gone(shard, node) {
            (0, Reply::Obsolete)
        } else if numbers.iter().any(|number| self.is_poison(*number, node)) {
            (0, Reply::Reject)
        } else if all > 1 && !self.are_well && self.random.u8(..10) == 0 {
            let taken = self.random.usize(..all);
            (taken, Reply::Partial(taken))
        } else {
            (all, Reply::Take)
        };
        let around = |random: &mut fastrand::Rng, time: Duration| {
            Some((time.mul_f64(0.3 + 1.4 * random.f64()), reply))
        };
        match mood {
            Mood::Well | Mood::Mixed => Decision {
                takes,
                reply: Some((Duration::ZERO, reply)),
            },
            Mood::Late => Decision {
                takes,
                reply: around(&mut self.random, times.hint_after),
            },
            Mood::VeryLate if self.random.bool() => Decision {
                takes: 0,
                reply: Some((times.write_timeout.mul_f64(0.7), Reply::Retry)),
            },
            Mood::VeryLate => Decision {
                takes,
                reply: around(&mut self.random, times.write_timeout),
            },
            Mood::Hangs => Decision {
                takes: if self.random.bool() { takes } else { 0 },
                reply: None,
            },
            Mood::Down => Decision {
                takes: 0,
                reply: Some((Duration::ZERO, Reply::Retry)),
            },
            Mood::Loses => Decision {
                takes,
                reply: match self.random.u8(..4) {
                    0 => None,
                    1 => Some((Duration::ZERO, Reply::Retry)),
                    _ => Some((Duration::ZERO, reply)),
                },
            },
        }
    }
}
