//! How old hints are.
//!
//! The wall clock is read once, at open. From there on hints are stamped, and grow old, by a clock
//! that nobody sets: the time *of this life*. Where the wall clock is found to differ from it, it
//! was set, and that is remembered as a correction: of this life for good, since its stamps on disk
//! are off by that, and for judging what earlier lives have left.
//!
//! A stamp of an earlier life has several readings then. Of those that are not yet to come the
//! latest is believed, so a clock that was wrong makes hints leave late, never early.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    clock::Clock,
    config::Config,
    store::{Correction, Hint, PeekedHint, Store},
};

/// What the wall clock may be off by before that counts: more than a leap second.
const SLACK_MS: u64 = 1500;

/// The year 2020. A clock that shows less at open is wrong, and the time of such a life begins
/// here, so that there is room before it for what was stored earlier.
const FLOOR_UNIX_MS: u64 = 1_577_836_800_000;

/// How old a hint is, and whether that is too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Age {
    /// When it was enqueued, in the time of this life, in milliseconds since 1970.
    pub enqueued_unix_ms: u64,
    /// It is not to be delivered any more.
    pub is_over: bool,
    /// When its own lifetime ends, if it has one.
    pub due_unix_ms: Option<u64>,
}

/// The time of this life, and what the wall clock did since.
#[derive(Debug)]
pub struct Ageing {
    clock: Clock,
    /// What the clocks showed at open, the wall clock [`FLOOR_UNIX_MS`] at least.
    opened_unix_ms: u64,
    opened: Duration,
    grace: Duration,
    /// How old a hint may be, in milliseconds; 0 is no limit.
    max_age_ms: AtomicU64,
    /// The shortest lifetime that was met so far, in milliseconds.
    shortest_ms: AtomicU64,
    /// Rung when there is a shorter one, or another `max_age`.
    pub shorter: Notify,
    /// What earlier lives found.
    corrections: Vec<Correction>,
    /// What the wall clock did so far. Nothing else is taken while it is held.
    wall: Mutex<Wall>,
}

#[derive(Debug)]
struct Wall {
    /// By how much it is ahead of the time of this life; 0 below [`SLACK_MS`].
    ahead_ms: i64,
    /// It is not believed before, by the clock that nobody sets.
    quiet_until: Duration,
}

impl Ageing {
    /// The wall clock is believed after a while. `recorded` is what earlier lives found of theirs.
    pub fn new(config: &Config, clock: Clock, recorded: Vec<Correction>) -> Self {
        let grace = config.expiry_grace;
        let (shown, opened) = (clock.unix_ms(), clock.running());
        let opened_unix_ms = shown.max(FLOOR_UNIX_MS);
        let corrections = recorded.into_iter();
        Ageing {
            clock,
            opened_unix_ms,
            opened,
            grace,
            max_age_ms: AtomicU64::new(millis(config.max_age)),
            shortest_ms: AtomicU64::new(u64::MAX),
            shorter: Notify::new(),
            corrections: corrections.map(|it| it.ended_by(opened_unix_ms)).collect(),
            wall: Mutex::new(Wall {
                ahead_ms: shown as i64 - opened_unix_ms as i64,
                quiet_until: opened.saturating_add(grace),
            }),
        }
    }

    /// Now, in the time of this life, in milliseconds since 1970: what hints are stamped with.
    pub fn now(&self) -> u64 {
        let running = self.clock.running().saturating_sub(self.opened);
        self.opened_unix_ms.saturating_add(millis(running))
    }

    /// How long ago something was, in the time of this life; no time at all for what is yet to
    /// come.
    pub fn since(&self, unix_ms: u64) -> Duration {
        Duration::from_millis(self.now().saturating_sub(unix_ms))
    }

    /// Compares the wall clock with the time of this life: by how many milliseconds it is ahead
    /// now, if it was set since the last look. Then it is not believed for a while.
    pub fn look(&self) -> Option<i64> {
        let ahead_ms = self.clock.unix_ms() as i64 - self.now() as i64;
        let mut wall = self.wall.lock();
        if ahead_ms.abs_diff(wall.ahead_ms) <= SLACK_MS {
            return None;
        }
        wall.ahead_ms = match ahead_ms.unsigned_abs() > SLACK_MS {
            true => ahead_ms,
            false => 0,
        };
        wall.quiet_until = self.clock.running().saturating_add(self.grace);
        Some(wall.ahead_ms)
    }

    /// How long the wall clock is not believed yet; `None` if it is.
    pub fn quiet_for(&self) -> Option<Duration> {
        let until = self.wall.lock().quiet_until;
        let quiet = until.saturating_sub(self.clock.running());
        (!quiet.is_zero()).then_some(quiet)
    }

    /// All that is known of stamps that are off, to be recorded for the lives to come.
    pub fn corrections(&self) -> Vec<Correction> {
        let ahead_ms = self.wall.lock().ahead_ms;
        let own = (ahead_ms != 0).then(|| Correction::of_life(self.opened_unix_ms, ahead_ms));
        self.corrections.iter().copied().chain(own).collect()
    }

    /// Whether a stamp is of this life. One of a life before whose clock was ahead may look so, and
    /// then the hint counts as younger than it is.
    pub fn is_own(&self, stamp: u64) -> bool {
        (self.opened_unix_ms..=self.now()).contains(&stamp)
    }

    /// When a hint with this stamp was enqueued, in the time of this life. What is yet to come by
    /// all readings counts from when it was first seen, or from now.
    pub fn enqueued(&self, stamp: u64, first_seen: Option<u64>) -> u64 {
        self.moment().enqueued(stamp, first_seen)
    }

    /// The clocks as they are now, to read many stamps by.
    pub fn moment(&self) -> Moment<'_> {
        Moment {
            ageing: self,
            now: self.now(),
            ahead_ms: self.wall.lock().ahead_ms,
        }
    }

    /// Whether a hint is too old that was enqueued then and has such a lifetime. While the wall
    /// clock is not believed, only those of this life can be known to be.
    pub fn is_over(&self, enqueued_unix_ms: u64, lifetime_ms: Option<u64>) -> bool {
        let lifetime = lifetime_ms.map(Duration::from_millis);
        let limit = self.max_age().into_iter().chain(lifetime).min();
        let is_known = self.is_own(enqueued_unix_ms) || self.quiet_for().is_none();
        is_known && limit.is_some_and(|limit| self.since(enqueued_unix_ms) >= limit)
    }

    /// What is left of the lifetime of a hint with this stamp. All of it where the hint's age goes
    /// by a wall clock that is not believed: late, not early.
    pub fn left_ms(&self, stamp: u64, lifetime_ms: u64) -> u64 {
        match self.is_own(stamp) || self.quiet_for().is_none() {
            true => {
                let age = self.since(self.enqueued(stamp, None));
                lifetime_ms.saturating_sub(millis(age))
            }
            false => lifetime_ms,
        }
    }

    /// How old a hint is.
    pub fn of(&self, hint: &Hint, first_seen: Option<u64>) -> Age {
        let enqueued_unix_ms = self.enqueued(hint.enqueued_unix_ms, first_seen);
        if let Some(ms) = hint.lifetime_ms {
            self.note_lifetime(ms);
        }
        Age {
            enqueued_unix_ms,
            is_over: self.is_over(enqueued_unix_ms, hint.lifetime_ms),
            due_unix_ms: hint
                .lifetime_ms
                .map(|ms| enqueued_unix_ms.saturating_add(ms)),
        }
    }

    /// Whether a hint that was read is too old.
    pub fn is_hint_over(&self, store: &Store, hint: &PeekedHint) -> bool {
        // No clock is read for hints that live for ever: this is asked of each that is sent.
        let may_be = self.max_age().is_some() || hint.hint.lifetime_ms.is_some();
        may_be && self.of_read(store, hint).is_over
    }

    /// How old a hint is that was read.
    pub fn of_read(&self, store: &Store, hint: &PeekedHint) -> Age {
        // Asked for only where it matters: that takes the store's lock.
        let is_ahead = hint.hint.enqueued_unix_ms > self.now();
        let seen = is_ahead.then(|| store.first_seen(hint.mark.place()));
        self.of(&hint.hint, seen.flatten())
    }

    /// There are hints with such a lifetime: whoever looks for those that are over must look that
    /// often.
    pub fn note_lifetime(&self, ms: u64) {
        if self.shortest_ms.fetch_min(ms, Relaxed) > ms {
            self.shorter.notify_one();
        }
    }

    /// There may be hints with a lifetime, of which none was met yet.
    pub fn expect_lifetimes(&self) {
        self.note_lifetime(u64::MAX - 1);
    }

    /// The shortest time that a hint may live from now on, as far as that is known.
    pub fn shortest(&self) -> Option<Duration> {
        let own = self.has_lifetimes().then(|| self.shortest_ms.load(Relaxed));
        let own = own.map(Duration::from_millis);
        self.max_age().into_iter().chain(own).min()
    }

    /// Whether there may be hints with a lifetime of their own.
    pub fn has_lifetimes(&self) -> bool {
        self.shortest_ms.load(Relaxed) != u64::MAX
    }

    /// How old a hint may be, if that is bounded.
    pub fn max_age(&self) -> Option<Duration> {
        let ms = self.max_age_ms.load(Relaxed);
        (ms > 0).then_some(Duration::from_millis(ms))
    }

    /// Bounds the age anew; 0 is no limit. Whoever looks for hints that are too old is woken.
    pub fn set_max_age(&self, max_age: Duration) {
        self.max_age_ms.store(millis(max_age), Relaxed);
        self.shorter.notify_one();
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether something that has this stamp is so long ago. Of what an earlier life stamped this
    /// is not known while the wall clock is not believed.
    pub fn is_past(&self, stamp: u64, limit: Duration) -> bool {
        // What is yet to come counts from the open, at least.
        let then = self.enqueued(stamp, Some(self.opened_unix_ms));
        let is_known = self.is_own(then) || self.quiet_for().is_none();
        is_known && self.since(then) >= limit
    }

    /// When a hint with this stamp was enqueued, as the wall clock shows it.
    pub fn shown(&self, stamp: u64) -> SystemTime {
        self.moment().shown(stamp)
    }
}

/// The clocks at one moment. Reading them for each hint of a send is a part of what replay costs.
pub struct Moment<'a> {
    ageing: &'a Ageing,
    /// In the time of this life.
    now: u64,
    /// By how much the wall clock is ahead of that.
    ahead_ms: i64,
}

impl Moment<'_> {
    fn enqueued(&self, stamp: u64, first_seen: Option<u64>) -> u64 {
        if (self.ageing.opened_unix_ms..=self.now).contains(&stamp) {
            return stamp;
        }
        let corrections = self.ageing.corrections.iter();
        let readings = corrections
            .filter_map(|it| it.corrected(stamp))
            .chain([stamp]);
        // Whatever clock it was stamped by: this life's own, or the wall clock as it is now.
        let readings = readings.flat_map(|it| [it, it.saturating_add_signed(-self.ahead_ms)]);
        let latest = readings.filter(|it| *it <= self.now).max();
        latest.unwrap_or_else(|| first_seen.map_or(self.now, |seen| seen.min(self.now)))
    }

    /// As the wall clock shows it, in milliseconds since 1970.
    pub fn shown_unix_ms(&self, stamp: u64) -> u64 {
        let enqueued = self.enqueued(stamp, None);
        enqueued.saturating_add_signed(self.ahead_ms)
    }

    /// The same as a time.
    pub fn shown(&self, stamp: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.shown_unix_ms(stamp))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
