//! Which shard is sent to next, so that shards whose sends fail or hang do not take the sends of
//! those that go well.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::window::{Standing, Window};
use crate::types::ShardId;

/// Sends that fail in a row before the node is taken for down; more if more are sent at a time.
const IN_A_ROW_MIN: usize = 4;

/// The sends of a round that are under way, and how the last ones went.
///
/// Once a shard of the node is in trouble, at most half of the sends go to shards that may fail
/// while a shard waits that went well, and at most half of these to shards that did fail while one
/// waits that was not tried. With one send at a time the same holds of time: after a send that
/// failed as much time is for shards that went well, and three times as much not for shards that
/// failed before.
#[derive(Debug)]
pub struct Scheduler {
    /// Sends at a time.
    pub most: usize,
    /// Shards that were not tried may fail so many times as often in a row.
    pub reach: usize,
    sending: HashMap<ShardId, Standing>,
    /// Sends that failed since the node took or refused anything, by the standing of their shards.
    in_a_row: HashMap<Standing, usize>,
    /// Sends to shards that were not tried before.
    tried: u32,
    /// With one send at a time: until then none is to a shard that may fail, if another waits.
    doubt_rests: Option<Instant>,
    /// The same for shards that did fail.
    failed_rests: Option<Instant>,
}

impl Scheduler {
    pub fn new(most: usize, reach: usize) -> Self {
        Scheduler {
            most,
            reach,
            sending: HashMap::new(),
            in_a_row: HashMap::new(),
            tried: 0,
            doubt_rests: None,
            failed_rests: None,
        }
    }

    /// Sends under way.
    pub fn sends(&self) -> usize {
        self.sending.len()
    }

    fn sends_to(&self, standing: Standing) -> usize {
        let all = self.sending.values();
        all.filter(|it| **it == standing).count()
    }

    /// Whether so many sends to these shards failed in a row, with `more` to come, that no further
    /// one is begun.
    fn is_over(&self, standing: Standing, more: usize) -> bool {
        let failed = self.in_a_row.get(&standing).copied().unwrap_or(0);
        let most = self.most.max(IN_A_ROW_MIN);
        let most = match standing {
            Standing::New => most.saturating_mul(self.reach),
            Standing::Well | Standing::Failed => most,
        };
        failed + more >= most
    }

    /// The same of those that have ended.
    pub fn have_failed(&self, standing: Standing) -> bool {
        self.is_over(standing, 0)
    }

    /// The shard to send to next. `troubled`: some shard of the node is in trouble. `may_read`:
    /// there may be shards that were not read yet.
    pub fn next(
        &self,
        window: &Window,
        troubled: bool,
        may_read: bool,
        now: Instant,
    ) -> Option<ShardId> {
        if self.sends() >= self.most {
            return None;
        }
        let first = |standing| window.ready(standing).filter(|_| self.may_send(standing));
        let (well, new) = (first(Standing::Well), first(Standing::New));
        if !troubled {
            // The oldest, since the cursor waits for that.
            let oldest = [well, new].into_iter().flatten().min();
            return oldest.map(|(_, shard)| shard);
        }
        let failed = window.ready(Standing::Failed);
        let failed = failed.filter(|_| self.may_retry(window, may_read, now));
        // Shards that fail may stand next to each other, so others are looked for all over.
        let new = new.and_then(|_| window.ready_at(Standing::New, self.tried.reverse_bits()));
        let new = new.filter(|_| self.may_doubt(window, now));
        failed.or(new).or(well).map(|(_, shard)| shard)
    }

    /// Whether not too many failed in a row. Sends under way count as failed, so that a node that
    /// is down is not tried twice as often before that is seen.
    fn may_send(&self, standing: Standing) -> bool {
        !self.is_over(standing, self.sends_to(standing))
    }

    /// Whether a send may go to a shard that may fail.
    fn may_doubt(&self, window: &Window, now: Instant) -> bool {
        let well = window.ready(Standing::Well);
        let in_doubt = self.sends_to(Standing::New) + self.sends_to(Standing::Failed);
        well.is_none() || (in_doubt < self.half() && !self.rests(self.doubt_rests, now))
    }

    /// Whether the next send may go to a shard that failed before.
    pub fn may_retry(&self, window: &Window, may_read: bool, now: Instant) -> bool {
        let others_wait = window.ready(Standing::New).is_some() || may_read;
        let (most, rests) = match others_wait {
            true => ((self.half() / 2).max(1), self.rests(self.failed_rests, now)),
            false => (self.half(), false),
        };
        let has_room = self.sends() < self.most && self.sends_to(Standing::Failed) < most;
        has_room && !rests && self.may_send(Standing::Failed) && self.may_doubt(window, now)
    }

    fn half(&self) -> usize {
        (self.most / 2).max(1)
    }

    fn rests(&self, until: Option<Instant>, now: Instant) -> bool {
        self.most == 1 && until.is_some_and(|until| until > now)
    }

    /// When a shard that is ready may be sent to, though nothing else happens until then.
    pub fn rests_until(&self, now: Instant) -> Option<Instant> {
        let rests = [self.doubt_rests, self.failed_rests].into_iter().flatten();
        rests.filter(|until| self.most == 1 && *until > now).min()
    }

    pub fn began(&mut self, shard: ShardId, standing: Standing) {
        self.sending.insert(shard, standing);
        self.tried = self.tried.wrapping_add((standing == Standing::New).into());
    }

    /// The node took or refused something.
    pub fn answered(&mut self) {
        self.in_a_row.clear();
    }

    /// A send has ended, after so long.
    pub fn ended(&mut self, shard: ShardId, took: Duration, failed: bool) {
        let Some(standing) = self.sending.remove(&shard).filter(|_| failed) else {
            return;
        };
        *self.in_a_row.entry(standing).or_default() += 1;
        let now = Instant::now();
        self.doubt_rests = Some(now + took);
        if standing == Standing::Failed {
            self.failed_rests = Some(now + 3 * took);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::window::{Window, tests::hints},
        *,
    };
    use crate::types::Amount;

    const MOST: Amount = Amount {
        hints: 1000,
        bytes: 100_000,
    };
    const SECOND: Duration = Duration::from_secs(1);

    /// So many shards of each standing, numbered in this order: well, new, failed.
    fn window(of_each: u64) -> Window {
        let mut window = Window::default();
        let all: Vec<_> = (1..=3 * of_each).map(|shard| (shard, shard)).collect();
        window.push(hints(&all), MOST);
        for shard in 1..=of_each {
            window.stands(ShardId(shard), Standing::Well);
            window.stands(ShardId(2 * of_each + shard), Standing::Failed);
        }
        window
    }

    /// Begins what may be begun; the number of sends to shards of each standing.
    fn begun(scheduler: &mut Scheduler, window: &mut Window) -> [usize; 3] {
        let now = Instant::now();
        while let Some(shard) = scheduler.next(window, true, false, now) {
            scheduler.began(shard, window.standing(shard));
            window.hold(shard);
        }
        [Standing::Well, Standing::New, Standing::Failed].map(|it| scheduler.sends_to(it))
    }

    #[tokio::test(start_paused = true)]
    async fn shards_that_may_fail_have_half_of_the_sends_while_others_wait() {
        for (most, expected) in [(8, [4, 2, 2]), (3, [2, 0, 1]), (32, [16, 8, 8])] {
            let mut scheduler = Scheduler::new(most, 1);
            let begun = begun(&mut scheduler, &mut window(40));
            assert_eq!(begun, expected, "{most} at a time");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn shards_that_go_well_have_all_sends_if_no_other_waits() {
        let mut window = window(40);
        (41..=120).for_each(|shard| window.hold(ShardId(shard)));
        assert_eq!(begun(&mut Scheduler::new(8, 1), &mut window), [8, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn with_one_send_at_a_time_a_failure_is_followed_by_time_for_the_others() {
        let mut scheduler = Scheduler::new(1, 1);
        let window = window(1);
        let next = |scheduler: &Scheduler, after: u32| {
            let now = Instant::now() + after * SECOND;
            let shard = scheduler.next(&window, true, false, now);
            window.standing(shard.unwrap())
        };
        assert_eq!(next(&scheduler, 0), Standing::Failed);
        scheduler.began(ShardId(3), Standing::Failed);
        scheduler.ended(ShardId(3), 10 * SECOND, true);
        for (after, standing) in [
            (0, Standing::Well),
            (9, Standing::Well),
            (10, Standing::New),
            (29, Standing::New),
            (30, Standing::Failed),
        ] {
            assert_eq!(next(&scheduler, after), standing, "after {after} s");
        }
        let now = Instant::now();
        assert_eq!(scheduler.rests_until(now), Some(now + 10 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_failures_in_a_row_as_sends_at_a_time_end_it_and_an_answer_begins_anew() {
        let mut scheduler = Scheduler::new(8, 4);
        for (standing, most) in [
            (Standing::Well, 8),
            (Standing::Failed, 8),
            (Standing::New, 32),
        ] {
            for failure in 0..most {
                assert!(!scheduler.have_failed(standing), "{standing:?} {failure}");
                scheduler.began(ShardId(1), standing);
                scheduler.ended(ShardId(1), SECOND, true);
            }
            assert!(scheduler.have_failed(standing));
        }
        assert!(
            scheduler
                .next(&window(9), true, false, Instant::now())
                .is_none()
        );
        scheduler.answered();
        assert!(!scheduler.have_failed(Standing::New));
    }
}
