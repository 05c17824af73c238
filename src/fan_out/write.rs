//! One write, in a task of its own from the call until the fate of each copy is known: a caller who
//! gives up, or was answered, leaves its copies going on.
//!
//! Each direct send is a task that tells how it ended, and so is each hint that is made
//! (`keeping.rs`). This task hears of them one after the other. After each it looks at four things:
//! the clock, the verdict on the write, what each copy needs next, and whether the caller can be
//! told (`answer.rs`).
//!
//! **The verdict.** Until it is known whether any owner takes the write, hints that are made for
//! the others are held: if every owner whose fate is known refused it, the caller is told so, and
//! they are withdrawn. As soon as one owner has it, or the caller was told of a success, the write
//! stands: hints become ordinary ones, and a copy that was refused becomes a dead letter,
//! or a loss if its shard is gone.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{
    answer::{Answer, Asked, Moment},
    error::OwnerError,
    replica::{Direct, Kept, Record, Replica},
};
use crate::{
    admission::{HeldInLane, Turn},
    error::EnqueueError,
    payload::Payload,
    service::handoff::HintedHandoff,
    shard_writer::ShardWriter,
    store::Hint,
};

/// What the task of a write hears, with the number of the copy that it concerns.
pub enum Heard {
    /// Its turn has come, in strict order.
    Turn(Turn),
    /// The direct send has ended.
    Sent(Result<(), OwnerError>),
    /// Its hint is in the pipeline, and is asked for no more than that.
    Buffered,
    /// Its hint is durable.
    Hinted(HeldInLane),
    /// Its hint is not stored, or is not known to be.
    NotHinted(EnqueueError, Option<HeldInLane>),
    /// It left undelivered, durably.
    Undelivered,
    /// It could not leave undelivered, and is not stored.
    NotUndelivered(EnqueueError),
    /// It could not leave undelivered, and its hint is an ordinary one.
    StaysHinted,
    /// Whether its record that it is missing is durable.
    Recorded(bool),
}

pub type Tell = mpsc::UnboundedSender<(usize, Heard)>;

/// What counts a write as under way.
pub type Counted = (TaskTrackerToken, OwnedSemaphorePermit);

/// Whether the write stands.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Unknown,
    Stands,
    Refused,
}

pub struct Write<P: Payload, W> {
    pub(super) handoff: HintedHandoff<P>,
    pub(super) writer: Arc<W>,
    pub(super) asked: Asked,
    pub(super) points: P,
    pub(super) hint: Hint,
    pub(super) copies: Vec<Replica>,
    pub(super) tell: Tell,
    told: mpsc::UnboundedReceiver<(usize, Heard)>,
    /// Taken when the caller is answered.
    caller: Option<oneshot::Sender<Answer>>,
    /// Until it is dropped a shutdown waits, and there is room for fewer writes.
    _counted: Counted,
    pub(super) began: Instant,
    verdict: Verdict,
    /// Since when the level cannot be reached.
    out_of_reach: Option<Instant>,
    /// All that is outstanding is to be hinted now.
    pub(super) hints_now: bool,
    /// The service stops, and sends end by then.
    pub(super) sends_by: Option<Instant>,
}

impl<P: Payload + Clone, W: ShardWriter<P>> Write<P, W> {
    pub fn new(
        handoff: HintedHandoff<P>,
        writer: Arc<W>,
        asked: Asked,
        (points, hint): (P, Hint),
        copies: Vec<Replica>,
        (caller, counted): (oneshot::Sender<Answer>, Counted),
    ) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        Write {
            handoff,
            writer,
            asked,
            points,
            hint,
            copies,
            tell,
            told,
            caller: Some(caller),
            _counted: counted,
            began: Instant::now(),
            verdict: Verdict::Unknown,
            out_of_reach: None,
            hints_now: false,
            sends_by: None,
        }
    }

    pub async fn run(mut self) {
        for index in 0..self.copies.len() {
            self.begin(index);
        }
        let stopped = self.handoff.closing().clone().cancelled_owned();
        let mut stopped = std::pin::pin!(stopped);
        let mut timer = std::pin::pin!(sleep_until(self.began + self.write_timeout()));
        loop {
            let now = Instant::now();
            self.look(now);
            if self.copies.iter().all(|copy| self.is_over(copy)) {
                break;
            }
            let next = self.next_moment(now);
            if let Some(next) = next
                && timer.deadline() != next
            {
                timer.as_mut().reset(next);
            }
            tokio::select! {
                biased;
                heard = self.told.recv() => {
                    if let Some((copy, heard)) = heard {
                        self.hear(copy, heard);
                    }
                }
                () = &mut stopped, if self.sends_by.is_none() => {
                    self.hints_now = true;
                    self.sends_by = Some(Instant::now() + self.handoff.config().shutdown_grace);
                }
                () = &mut timer, if next.is_some() => {}
            }
        }
        self.count();
    }

    fn hear(&mut self, index: usize, heard: Heard) {
        let Some(copy) = self.copies.get_mut(index) else {
            return;
        };
        match heard {
            Heard::Turn(turn) => {
                let is_clear = turn.is_clear(self.handoff.store());
                copy.turn = Some(turn);
                match is_clear {
                    true => self.send(index),
                    false => copy.direct = Direct::Failed(OwnerError::Backlogged),
                }
            }
            Heard::Sent(answer) => self.sent(index, answer),
            Heard::Buffered => copy.kept = Kept::Buffered,
            Heard::Hinted(held) => {
                copy.kept = Kept::Hint(Some(held));
                copy.turn = None;
            }
            Heard::NotHinted(why, unsure) => {
                // One that was refused needs no hint any more.
                copy.kept = match copy.is_refused() {
                    true => Kept::Nothing,
                    false => Kept::NotStored(why, Record::NotYet),
                };
                copy.unsure = unsure;
                if !copy.is_under_way() {
                    copy.turn = None;
                }
            }
            Heard::Undelivered => copy.kept = Kept::Undelivered,
            Heard::NotUndelivered(why) => copy.kept = Kept::NotStored(why, Record::NotYet),
            Heard::StaysHinted => copy.kept = Kept::Hint(None),
            Heard::Recorded(is_durable) => {
                if let Kept::NotStored(_, record) = &mut copy.kept {
                    *record = match is_durable {
                        true => Record::Durable,
                        false => Record::Failed,
                    };
                }
            }
        }
    }

    /// Looks what is to be done, after whatever happened.
    fn look(&mut self, now: Instant) {
        self.watch_sends(now);
        self.judge();
        self.step_all(now);
        if self.answer(now) {
            self.step_all(now);
        }
    }

    fn judge(&mut self) {
        if self.verdict != Verdict::Unknown {
            return;
        }
        if self.copies.iter().any(Replica::is_taken) {
            self.verdict = Verdict::Stands;
        } else if !self.copies.iter().any(Replica::is_under_way) {
            self.verdict = match self.copies.iter().any(Replica::is_refused) {
                true => Verdict::Refused,
                false => Verdict::Stands,
            };
        }
    }

    /// How long one send may take.
    pub(super) fn write_timeout(&self) -> Duration {
        self.handoff.config().write_timeout
    }

    /// After how long a node is told on that does not answer.
    pub(super) fn slow_after(&self) -> Duration {
        // The time of a send can change while it runs.
        self.handoff.links().slow_after().min(self.write_timeout())
    }

    /// By when nothing is held, nor waited for by the caller, but for a send that is under way.
    fn all_by(&self) -> Instant {
        self.began + 2 * self.write_timeout()
    }

    /// When the hints of copies that failed are made at the latest. They wait for the verdict so
    /// long: a write that is refused at once makes none, and an early error can say that they are
    /// stored.
    fn failed_by(&self) -> Instant {
        match self.sends_by {
            Some(_) => self.began,
            None => self.began + self.slow_after() / 2,
        }
    }

    fn hints_by(&self) -> Option<Instant> {
        Some(self.out_of_reach? + self.slow_after())
    }

    /// When, after `now`, there is something to do although nothing is heard.
    fn next_moment(&self, now: Instant) -> Option<Instant> {
        let mut moments = Vec::with_capacity(4);
        for (index, copy) in self.copies.iter().enumerate() {
            let Direct::Sending(sending) = &copy.direct else {
                continue;
            };
            if !sending.is_slow {
                moments.push(sending.began + self.slow_after());
            }
            if matches!(copy.kept, Kept::Nothing) {
                moments.extend(self.hints_at(index));
            }
            let timeout = self.write_timeout();
            moments.push(match sending.aborted {
                Some(aborted) => aborted + timeout,
                None => sending.ends_at(timeout, self.sends_by),
            });
        }
        if self.caller.is_some() {
            moments.extend(self.hints_by());
        }
        if self.caller.is_some() || self.verdict == Verdict::Unknown {
            moments.push(self.all_by());
        }
        if self.copies.iter().any(Replica::awaits_verdict) {
            moments.push(self.failed_by());
        }
        moments.into_iter().filter(|at| *at > now).min()
    }

    /// Tells the caller, if there is something to tell. Returns whether that changes what the
    /// copies need.
    fn answer(&mut self, now: Instant) -> bool {
        if self.caller.is_none() {
            return false;
        }
        if self.out_of_reach.is_none() && self.asked.is_out_of_reach(&self.copies) {
            self.out_of_reach = Some(now);
        }
        let moment = Moment {
            now,
            hints_by: self.hints_by().unwrap_or_else(|| self.all_by()),
            all_by: self.all_by(),
            is_late: self.is_late(now),
        };
        let Some(answer) = self.asked.answer(&self.copies, moment) else {
            return false;
        };
        let stands = answer.is_ok() && self.verdict == Verdict::Unknown;
        if stands {
            self.verdict = Verdict::Stands;
        }
        if let Some(caller) = self.caller.take() {
            // The caller may have given up.
            let _ = caller.send(answer);
        }
        stands
    }

    fn step_all(&mut self, now: Instant) {
        for index in 0..self.copies.len() {
            self.step(index, now);
        }
    }

    /// Does what a copy needs whose send has ended.
    fn step(&mut self, index: usize, now: Instant) {
        let stands = self.verdict == Verdict::Stands;
        let failed_by = self.failed_by();
        // What nobody knows by then is held no longer.
        let is_judged = self.verdict != Verdict::Unknown || now >= self.all_by();
        let Some(copy) = self.copies.get_mut(index) else {
            return;
        };
        let is_withdrawn = self.verdict == Verdict::Refused
            && copy.failure().is_some_and(|error| !error.may_be_taken());
        match (&copy.direct, &mut copy.kept) {
            (Direct::Taken, Kept::Hint(held)) => {
                let held = held.take();
                copy.kept = Kept::Nothing;
                // One that cannot be acknowledged now is delivered again.
                let _ = held.map(HeldInLane::deliver);
            }
            (Direct::Failed(_), Kept::Nothing | Kept::NotStored(..)) if is_withdrawn => {
                copy.kept = Kept::Withdrawn;
                let _ = copy.unsure.take().map(HeldInLane::withdraw);
            }
            (Direct::Failed(_), Kept::Nothing) if is_judged || now >= failed_by => {
                self.make_hint(index);
            }
            (Direct::Failed(_) | Direct::Refused(_), Kept::Hint(held @ Some(_)))
                if is_withdrawn =>
            {
                let _ = held.take().map(HeldInLane::withdraw);
                copy.kept = Kept::Withdrawn;
            }
            (Direct::Refused(_), Kept::Nothing | Kept::Hint(Some(_))) if stands => {
                self.undeliver(index);
            }
            (Direct::Failed(_) | Direct::Refused(_), Kept::Hint(held)) if is_judged => {
                *held = None;
            }
            (Direct::Failed(_) | Direct::Refused(_), Kept::NotStored(_, record))
                if is_judged && *record == Record::NotYet =>
            {
                *record = Record::UnderWay;
                self.record(index);
            }
            _ => {}
        }
    }

    /// Whether nothing is left to be done for a copy.
    fn is_over(&self, copy: &Replica) -> bool {
        // Its record is waited for only by a caller.
        let is_recorded = |record: Record| match record {
            Record::NotYet => false,
            Record::UnderWay => self.caller.is_none(),
            Record::Durable | Record::Failed => true,
        };
        let is_kept = match &copy.kept {
            Kept::Making | Kept::Buffered | Kept::Hint(Some(_)) => return false,
            Kept::Nothing => false,
            Kept::NotStored(_, record) => is_recorded(*record),
            Kept::Hint(None) | Kept::Withdrawn | Kept::Undelivered => true,
        };
        match copy.direct {
            Direct::InLine | Direct::Sending(_) => false,
            Direct::Taken => true,
            Direct::Failed(_) => is_kept,
            Direct::Refused(_) => is_kept || self.verdict == Verdict::Refused,
        }
    }

    pub(super) fn is_answered(&self) -> bool {
        self.caller.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}
