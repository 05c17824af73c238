//! Where every hint is after a step, found out from the outside, and whether it may have come
//! there.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hinted_handoff::{
    DeadReason, HintId, Loss, LossReason, NodeId, WhenFull, WriteId, internals::Dead,
};
use tokio::time::Instant;

use crate::{
    common::letters::id_of,
    journal::Told,
    ledger::{Entry, Whereabouts, number, number_of, pending, plus},
    life::{GRACE, LETTERS, LOOKS_APART, Life, PURGE_AFTER},
    receiver::{Heard, Taken},
    service::ServiceStory,
};

pub const NODES: [u64; 4] = [1, 2, 3, 4];

/// What a step may have done, beside what goes on at any time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Step {
    /// What was acknowledged since the step before may have been undone.
    pub undone: bool,
    /// Hints or dead letters were discarded.
    pub discards: bool,
    /// The node that got another name.
    pub renamed: Option<u64>,
}

/// What there is at a moment at which nothing moves.
struct Found {
    pending: BTreeMap<u64, HintId>,
    /// The write of each that is pending or dead.
    writes: BTreeMap<u64, Option<WriteId>>,
    letters: BTreeMap<u64, (HintId, Dead)>,
    losses: Told,
    taken: Vec<Taken>,
    gone: Gone,
}

/// Hints that are neither pending nor dead letters any more.
#[derive(Default)]
struct Gone {
    vanished: Vec<u64>,
    /// Delivered, as far as is known: they may have come back, and have been lost.
    delivered: Vec<u64>,
}

/// Whether an entry of the journal may tell of a hint: that is the only one of its kind, or stood
/// where it says.
fn tells_of(loss: &Loss, entry: &Entry, step: Step) -> bool {
    (loss.node.0 == entry.node || Some(loss.node.0) == step.renamed)
        && loss.shard.is_none_or(|shard| shard.0 == entry.shard)
        && (entry.id.sequence.0 == 0
            || loss
                .place
                .is_some_and(|place| place.holds(entry.id.queue, entry.id.sequence)))
}

impl ServiceStory {
    /// Waits until nothing moves, and accounts for every hint.
    pub async fn audit(&mut self, step: Step) {
        self.life.settle(&self.nodes).await;
        self.life.sync().await.unwrap();
        let mut found = self.find().await;
        self.learn_ids(&found);
        self.note_taken(&found, step);
        let dead_lettered = self.note_places(&mut found, step);
        self.account_for(&mut found, step);
        self.note_purged();
        self.check_letters(&dead_lettered, &found.losses, step);
        self.ledger.check(&self.life.store(), &NODES);
        self.check_overdue();
        self.check_holds();
        self.check_forgotten();
        for marked in &self.barriers {
            let told = self.life.handoff.wait(&marked.barrier, Duration::ZERO);
            marked.check_state(&told.await.unwrap(), &self.ledger);
        }
        self.ended = None;
    }

    async fn find(&mut self) -> Found {
        let losses = self.life.handoff.losses(self.losses_seen).await.unwrap();
        self.losses_seen = losses.next;
        assert_eq!((losses.unreadable.len(), losses.forgotten), (0, None));
        let store = self.life.store();
        let (mut there, mut letters) = (BTreeMap::new(), BTreeMap::new());
        let mut writes = BTreeMap::new();
        for node in NODES {
            for hint in pending(&store, node) {
                let place = id_of(&store, hint.mark.place());
                writes.insert(number(&hint), hint.hint.write);
                let other = there.insert(number(&hint), place);
                assert_eq!(other, None, "{place} is there twice");
            }
            let listed = store.letters(NodeId(node), None, usize::MAX);
            for (place, dead) in listed.unwrap_or_default() {
                let place = id_of(&store, place);
                let (_, _, hint) = store.letter(NodeId(node), place).unwrap().unwrap();
                writes.insert(number_of(&hint.payload), hint.write);
                letters.insert(number_of(&hint.payload), (place, dead));
            }
        }
        Found {
            pending: there,
            writes,
            letters,
            losses: Told::new(losses),
            taken: self.nodes.taken(),
            gone: Gone::default(),
        }
    }

    /// Hints whose ids nobody was told: they are to be seen at their places, or were by their
    /// nodes.
    fn learn_ids(&mut self, found: &Found) {
        for (number, mut entry) in std::mem::take(&mut self.unknown) {
            let pending = found.pending.get(&number).copied();
            let dead = found.letters.get(&number).map(|(id, _)| *id);
            let sent = self.nodes.seen(|seen| seen.ids.get(&number).copied());
            let Some(id) = pending.or(dead).or(sent) else {
                self.unknown.insert(number, entry);
                continue;
            };
            entry.id = id;
            let sent = self.nodes.seen(|seen| seen.writes.get(&number).copied());
            entry.write = found.writes.get(&number).copied().or(sent).flatten();
            self.stored = self.stored.map(|it| it.checked_sub(1).unwrap());
            self.enter(number, entry);
        }
        for number in found.pending.keys().chain(found.letters.keys()) {
            let is_known = self.ledger.hints.contains_key(number);
            assert!(is_known, "{number} was not stored, and is there");
        }
    }

    /// Each is taken once, unless its node was not heard or an unclean stop came in between, and
    /// after all that came before it.
    fn note_taken(&mut self, found: &Found, step: Step) {
        let mut last: BTreeMap<(u64, u64), HintId> = BTreeMap::new();
        for taken in &found.taken {
            let (node, shard) = (taken.node, taken.shard);
            for (number, id) in &taken.hints {
                let entry = self.ledger.hints.get(number);
                let entry = entry.unwrap_or_else(|| panic!("{number} was never stored"));
                assert_eq!((entry.id, entry.shard), (*id, shard), "{number}: {entry:?}");
                // A failure of the storage lets go of what is being sent, for limits to take.
                let may_come = taken.heard == Heard::Perhaps || entry.at == Whereabouts::Pending;
                assert!(may_come, "{number} came to its node: {entry:?}");
                let course = self.courses[number];
                let is_allowed = !course.taken || course.again || step.undone;
                assert!(is_allowed, "{number} was taken twice: {entry:?} {course:?}");
                if !course.taken && step.renamed.is_none() {
                    let older = self.ledger.hints.iter().find(|(other, it)| {
                        let is_before = it.node == node && it.shard == shard && it.id < *id;
                        let waits = found.pending.contains_key(other);
                        is_before && waits && !self.courses[other].taken
                    });
                    assert!(older.is_none(), "{number} was taken before {older:?}");
                    let last = last.entry((node, shard)).or_insert(*id);
                    assert!(*last <= *id, "{number} was taken after {last}");
                    *last = *id;
                }
                let course = self.courses.get_mut(number).unwrap();
                course.taken = true;
                course.again = step.undone || taken.heard != Heard::Yes;
            }
        }
    }

    /// Returns the nodes that got dead letters.
    fn note_places(&mut self, found: &mut Found, step: Step) -> BTreeSet<u64> {
        let taken = found.taken.iter().filter(|it| it.heard != Heard::No);
        let heard = taken.flat_map(|it| it.hints.iter().map(|(number, _)| (*number, it.heard)));
        let heard: BTreeMap<u64, Heard> = heard.collect();
        let (mut dead, mut dead_lettered) = (Vec::new(), BTreeSet::new());
        for (number, entry) in &mut self.ledger.hints {
            let course = self.courses.get_mut(number).unwrap();
            let was = entry.at;
            // What had left before this step is durable, and nothing brings it back.
            let may_be = was == Whereabouts::Pending && (!course.taken || course.again);
            match (found.pending.get(number), found.letters.get(number)) {
                (Some(_), None) => {
                    assert!(may_be, "{number} is pending: {entry:?} {course:?}");
                }
                (None, Some((_, letter))) => {
                    entry.at = Whereabouts::Dead;
                    if was != Whereabouts::Dead {
                        assert!(may_be, "{number} is dead: {entry:?} {course:?}");
                        dead_lettered.insert(entry.node);
                        dead.push((*number, letter));
                    }
                }
                (None, None) if was == Whereabouts::Pending && heard.contains_key(number) => {
                    entry.at = Whereabouts::Delivered;
                    course.again = false;
                    if step.undone || heard[number] == Heard::Perhaps {
                        found.gone.delivered.push(*number);
                    }
                }
                (None, None) if matches!(was, Whereabouts::Pending | Whereabouts::Dead) => {
                    found.gone.vanished.push(*number);
                }
                (None, None) => {}
                (Some(_), Some(_)) => panic!("{number} is pending and dead: {entry:?}"),
            }
        }
        for (number, letter) in dead {
            self.check_dead_letter(number, letter);
        }
        dead_lettered
    }

    /// Hints that are nowhere are in the journal, and nothing else is.
    fn account_for(&mut self, found: &mut Found, step: Step) {
        let Gone {
            vanished,
            delivered,
        } = std::mem::take(&mut found.gone);
        let may_tell = |number: u64, loss: &Loss| {
            let entry = self.ledger.hints.get(&number);
            let entry = entry.unwrap_or_else(|| &self.unknown[&number]);
            tells_of(loss, entry, step) && self.may_be_lost(number, entry, loss.reason, step)
        };
        for number in vanished {
            let is_told = found.losses.place(number, &may_tell);
            let (entry, course) = (&self.ledger.hints[&number], self.courses[&number]);
            assert!(is_told, "{number} is nowhere: {entry:?} {course:?}");
        }
        // Some are lost as soon as they are stored.
        for number in delivered.into_iter().chain(self.unknown.keys().copied()) {
            found.losses.place(number, &may_tell);
        }
        for (loss, told) in &found.losses.entries {
            // Of copies that never were hints. A storage failure may have one told of twice.
            if loss.reason == LossReason::NotStored {
                assert!(self.unstored > 0, "{loss:?}");
                let sum = self.ledger.not_stored.entry(loss.node.0).or_default();
                *sum = plus(*sum, loss.amount);
                continue;
            }
            let is_complete = told.len() as u64 == loss.amount.hints;
            assert!(
                is_complete,
                "{loss:?} tells of hints that are not gone: {told:?}"
            );
            for number in told {
                if let Some(mut entry) = self.unknown.remove(number) {
                    let place = loss.place.unwrap();
                    (entry.id.queue, entry.id.sequence) = (place.queue, place.first);
                    self.stored = self.stored.map(|it| it.checked_sub(1).unwrap());
                    self.enter(*number, entry);
                }
                let entry = self.ledger.hints.get_mut(number).unwrap();
                (entry.at, entry.node) = (Whereabouts::Journalled(loss.reason), loss.node.0);
            }
        }
        self.unknown.clear();
        let missing = self.stored.take().unwrap_or(0);
        assert_eq!(missing, 0, "hints that were stored are nowhere");
    }

    /// Dead-lettering keeps to the quota, which a merge does not look at, and no letter is evicted
    /// before it is met.
    fn check_letters(&self, dead_lettered: &BTreeSet<u64>, losses: &Told, step: Step) {
        let letters = |node: u64| self.ledger.all(node, Whereabouts::Dead).len() as u64;
        for node in dead_lettered.iter().filter(|_| step.renamed.is_none()) {
            let count = letters(*node);
            assert!(count <= LETTERS, "{node} has {count} dead letters");
        }
        let losses = losses.entries.iter().map(|(loss, _)| loss);
        for loss in losses.filter(|it| it.reason == LossReason::DeadLetterQuota) {
            let is_full = letters(loss.node.0) == LETTERS;
            let is_moved = step.discards || step.renamed.is_some();
            assert!(is_full || is_moved, "{loss:?} was evicted for nothing");
        }
    }

    fn check_dead_letter(&self, number: u64, dead: &Dead) {
        let (rejected, sends) = self.nodes.seen(|seen| {
            let sends = seen.sends.get(&number).copied();
            (seen.rejected.contains(&number), sends.unwrap_or(0))
        });
        let mut most = self.lives().map(|it| it.config.max_attempts);
        match dead.cause.reason {
            DeadReason::Rejected => assert!(rejected, "{number} was not rejected"),
            DeadReason::Attempts => {
                let is_enough = most.any(|max| max > 0 && sends >= max);
                assert!(is_enough, "{number} was sent {sends} times only");
            }
            other => panic!("{number}: {other:?}"),
        }
    }

    fn may_be_lost(&self, number: u64, entry: &Entry, reason: LossReason, step: Step) -> bool {
        let (now, is_dead) = (Instant::now(), entry.at == Whereabouts::Dead);
        match reason {
            LossReason::Obsolete => self.nodes.seen(|seen| seen.obsolete.contains(&number)),
            LossReason::Expired => !is_dead && self.may_expire(number, now),
            LossReason::Quota => {
                let mut drops = self.lives().map(|it| it.config.when_full);
                !is_dead && drops.any(|it| it == WhenFull::DropOldest)
            }
            LossReason::Discarded => step.discards,
            LossReason::DeadLetterQuota => true,
            LossReason::Purged => {
                let parked = self.parked.get(&entry.node);
                let is_long = |since: &Instant| now - *since >= PURGE_AFTER;
                parked.is_some_and(|since| since.as_ref().is_none_or(is_long))
            }
            _ => false,
        }
    }

    fn age(&self, number: u64) -> Duration {
        let course = self.courses.get(&number).copied();
        let stamp = course.map_or(self.clock.unix_ms(), |it| it.stamp);
        Duration::from_millis(self.clock.unix_ms() - stamp)
    }

    fn may_expire(&self, number: u64, now: Instant) -> bool {
        let age = self.age(number);
        self.lives().any(|life| {
            let max = life.config.max_age;
            !max.is_zero() && age >= max && now >= life.opened + GRACE
        })
    }

    /// What should have happened by now has.
    fn check_overdue(&self) {
        let (now, slack) = (Instant::now(), 3 * LOOKS_APART);
        let stats = self.life.handoff.stats();
        for node in &stats.nodes {
            let parked = self.parked.get(&node.node.0).copied().flatten();
            let is_over = parked.is_some_and(|since| now - since >= PURGE_AFTER + slack);
            assert!(!is_over, "{:?} should be purged", node.node);
        }
        let Life { config, opened, .. } = &self.life;
        let max = config.max_age;
        if max.is_zero() || now < *opened + GRACE + slack {
            return;
        }
        for (number, entry) in &self.ledger.hints {
            let is_old = self.age(*number) >= max + slack;
            let mut nodes = stats.nodes.iter();
            let is_still = nodes.any(|it| it.node.0 == entry.node && it.in_flight == 0);
            let waits = entry.at == Whereabouts::Pending && is_old && is_still;
            assert!(!waits, "{number} should be expired: {entry:?}");
        }
    }
}
