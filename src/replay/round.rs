//! One round with a node that answered its ping: read ahead, send to several shards at once, and see what becomes of each send.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    NodeHandle, Settings,
    reading::{Read, Reads},
    send::{Landed, Line, Load, send},
    shard::Troubles,
    turns::{IN_A_ROW_MIN, Turns},
    window::{Standing, Window},
};
use crate::{
    error::HandoffError,
    payload::Payload,
    shard_writer::{ShardWriter, WriteError},
    store::{Peek, PeekLimits, QueueRef, Reader},
    types::{Amount, QueueId, ShardId},
};

/// Hints of a send, beside `batch_bytes`: bounds what a batch of tiny hints takes in memory.
const BATCH_HINTS: u64 = 8192;

/// How a round ended well, or at least not of itself.
pub enum End {
    /// Nothing waits.
    CaughtUp,
    /// All shards that have something to send are to be left alone.
    Failing(Failing),
}

pub struct Failing {
    /// Whether a send failed in this round, not only before.
    pub failed: bool,
    /// Whether the node took or refused anything in this round.
    pub answered: bool,
    /// What the node asked for last.
    pub wish: Option<Duration>,
    /// When the first of the shards may be sent to again; `None` if others may be at once.
    pub until: Option<Instant>,
    /// Whether as many shards failed in a row as it takes to be the node.
    pub is_storm: bool,
    /// Whether a new hint, or one that is let go, may be one that can be sent.
    pub hears: bool,
    /// Whether all that is left waits for a host that reads its format.
    pub only_unknown: bool,
}

/// Why a round ended before that.
pub enum Interrupted {
    /// The node does not answer. Try again after a while.
    Retry(WriteError),
    /// The host paused or parked the node. A bell rings when it is to go on.
    Held,
    /// Told to stop.
    Stopped,
    /// The store was opened again: acknowledgements may have been undone.
    Reopened,
    /// The store failed or was closed.
    Store(HandoffError),
}

pub struct Round<'a, P, W> {
    pub(super) line: &'a Arc<Line<W>>,
    pub(super) settings: &'a Settings,
    pub(super) handle: &'a Arc<NodeHandle>,
    reads: &'a Reads,
    pub(super) troubles: &'a mut Troubles,
    pub(super) window: Window,
    pub(super) tasks: JoinSet<Landed>,
    pub(super) turns: Turns,
    /// Cancelled when no send is to begin any more.
    pub(super) quit: CancellationToken,
    reader: Reader,
    pub(super) reading: Option<Read>,
    /// The next hint of a shard that was set aside is being read.
    pub(super) probing: Option<(ShardId, Read)>,
    /// Nothing more was there to read, and no bell has rung since.
    is_at_end: bool,
    /// Hints that were pending when this pass began, less those that it has read.
    pass_left: u64,
    /// Hints that were read in this round.
    hints_read: u64,
    /// What does not read, and is judged once nothing is in front of it.
    damaged: Option<QueueRef>,
    /// Shards that are left alone until then.
    waiting: BTreeSet<(Instant, ShardId)>,
    /// Shards whose next hint is held or behind a held one, until the bell rings: it does so after
    /// a hint is let go.
    behind_held: BTreeSet<ShardId>,
    /// Shards whose sends failed since the node took anything, and how often.
    pub(super) failing: HashMap<ShardId, u32>,
    pub(super) wish: Option<Duration>,
    /// Whether the node answered a send in this round, other than by a failure.
    pub(super) has_answered: bool,
    stalled_by: Option<ShardId>,
    reopens: u64,
    retired_below: Option<QueueId>,
    pub(super) sent_bytes: u64,
    payload: std::marker::PhantomData<fn() -> P>,
}

impl<'a, P: Payload, W: ShardWriter<P>> Round<'a, P, W> {
    pub fn new(
        line: &'a Arc<Line<W>>,
        settings: &'a Settings,
        handle: &'a Arc<NodeHandle>,
        reads: &'a Reads,
        troubles: &'a mut Troubles,
    ) -> Self {
        Round {
            line,
            settings,
            handle,
            reads,
            troubles,
            window: Window::default(),
            tasks: JoinSet::new(),
            turns: Turns::new(settings.max_in_flight),
            quit: handle.stop.child_token(),
            reader: Reader::default(),
            reading: None,
            probing: None,
            is_at_end: false,
            pass_left: 0,
            hints_read: 0,
            damaged: None,
            waiting: BTreeSet::new(),
            behind_held: BTreeSet::new(),
            failing: HashMap::new(),
            wish: None,
            has_answered: false,
            stalled_by: None,
            reopens: line.store.reopens(),
            retired_below: None,
            sent_bytes: 0,
            payload: std::marker::PhantomData,
        }
    }

    /// Sends until nothing is pending, or until there is a reason not to go on; then nothing is in flight any more.
    pub async fn run(mut self) -> Result<End, Interrupted> {
        let ended = self.work().await;
        self.settle().await;
        ended
    }

    async fn work(&mut self) -> Result<End, Interrupted> {
        loop {
            self.line.check_held()?;
            self.judge_damage().await?;
            self.start_sends();
            self.start_read();
            self.start_probe();
            self.tell_who_stalls();
            if let Some(end) = self.end() {
                return Ok(end);
            }
            let handle = Arc::clone(self.handle);
            let (quit, wake) = (&self.handle.stop, self.waiting.first().map(|(at, _)| *at));
            tokio::select! {
                biased;
                () = quit.cancelled() => return Err(Interrupted::Stopped),
                read = async { self.reading.as_mut()?.await }, if self.reading.is_some() => {
                    self.reading = None;
                    let (reader, peeked) = read.ok_or(Interrupted::Stopped)?;
                    self.reader = reader;
                    self.peeked(peeked.map_err(Interrupted::Store)?)?;
                }
                probed = async { self.probing.as_mut()?.1.as_mut().await }, if self.probing.is_some() => {
                    let (_, peeked) = probed.ok_or(Interrupted::Stopped)?;
                    self.probed(peeked.map_err(Interrupted::Store)?)?;
                }
                Some(landed) = self.tasks.join_next() => self.landed(landed)?,
                () = handle.progress.woken(), if self.is_at_end || !self.behind_held.is_empty() => {
                    self.check_reopens()?;
                    self.is_at_end = false;
                    self.free_behind_held();
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    self.free_waiting();
                }
            }
        }
    }

    /// Sends to as many shards as may be sent to at once.
    fn start_sends(&mut self) {
        let now = Instant::now();
        let most = self.settings.max_in_flight;
        self.turns.most = self.settings.together.share(most, self.reads);
        let more = !self.is_at_end && self.damaged.is_none();
        let new_most = self.new_most();
        loop {
            let troubled = self.troubles.has_failed_any();
            let next = (self.turns).next(&self.window, troubled, more, new_most, now);
            let Some(shard) = next else {
                return;
            };
            // Found before this round.
            if self.window.standing(shard) == Standing::New && self.troubles.has_failed(shard) {
                self.window.stands(shard, Standing::Failed);
                if self.troubles.backing_off(shard, now).is_none() {
                    continue;
                }
            }
            self.window.hold(shard);
            if let Some(until) = self.troubles.backing_off(shard, now) {
                self.waiting.insert((until, shard));
                continue;
            }
            self.start_send(shard);
        }
    }

    fn start_send(&mut self, shard: ShardId) {
        let most = Amount {
            hints: BATCH_HINTS,
            bytes: self.settings.batch_bytes,
        };
        let mut hints = self.window.next_of(shard, most);
        let Some(head) = hints.first().map(|hint| hint.mark.place()) else {
            return;
        };
        // No later hint can come in front of this one, so what is not held up now will not be when
        // the send claims it.
        if self.line.store.is_behind_held(self.line.node, shard, head) {
            self.behind_held.insert(shard);
            return;
        }
        let max_attempts = self.settings.max_attempts;
        hints.truncate(self.troubles.most_hints(shard, head, max_attempts));
        let load = Load {
            shard,
            hints,
            retired_below: self.retired_below,
            reopens: self.reopens,
            patience: self.troubles.patience(shard),
            in_doubt: self.handle.progress.is_in_doubt(),
        };
        let sending = send::<P, W>(Arc::clone(self.line), load, self.quit.clone());
        self.turns.began(shard, self.window.standing(shard));
        self.tasks.spawn(sending);
    }

    /// Reads on while sends are under way.
    fn start_read(&mut self) {
        if self.damaged.is_some() || self.is_storm() || self.reading.is_some() {
            return;
        }
        let is_over = self.is_at_end || self.pass_left == 0;
        if is_over && self.window.aside.wants_pass() {
            self.begin_pass();
        } else if self.is_at_end {
            return;
        }
        let most = self.most();
        let is_little = |room: Amount| room.hints < most.hints / 4 || room.bytes < most.bytes / 4;
        let mut room = self.window.room(most);
        if room.is_none_or(is_little) && self.may_reach_further() {
            // Shards that are left alone make room for those that are not.
            self.set_aside();
            room = self.window.room(most);
        }
        let Some(room) = room else {
            return;
        };
        // Rather a large piece than many small ones, as long as there is something to send.
        if is_little(room) && self.turns.sends() > 0 && self.window.has_ready() {
            return;
        }
        // A part of the window, and the first part a small one, so that sends begin before it is full.
        let piece = match self.window.holds_nothing() {
            true => self.settings.batch_bytes,
            false => self.settings.batch_bytes.max(most.bytes / 8),
        };
        let limits = PeekLimits {
            hints: usize::try_from(room.hints).unwrap_or(usize::MAX),
            payload_bytes: room.bytes.min(piece),
        };
        let reader = std::mem::take(&mut self.reader);
        let (store, node, from) = (&self.line.store, self.line.node, self.window.position());
        let quit = self.quit.clone();
        self.reading = Some(self.reads.read(store, reader, node, from, limits, quit));
    }

    fn begin_pass(&mut self) {
        self.window.begin_pass();
        self.reader.forget();
        self.is_at_end = false;
        self.pass_left = self.line.store.pending(self.line.node).hints;
    }

    fn set_aside(&mut self) {
        let waiting = self.waiting.iter().map(|(_, shard)| shard);
        for shard in waiting.chain(&self.behind_held) {
            self.window.set_aside(*shard);
        }
        self.window.set_failed_aside();
    }

    /// Reads the next hint of a shard that was set aside and may be tried again, by itself.
    fn start_probe(&mut self) {
        let has_other = self.window.ready(Standing::Failed).is_some();
        if self.probing.is_some()
            || has_other
            || self.is_storm()
            || !self.turns.has_room_for_failed()
        {
            return;
        }
        if let Some((shard, place)) = self.window.aside.next_due() {
            let limits = PeekLimits {
                hints: 1,
                payload_bytes: 1,
            };
            let (store, node) = (&self.line.store, self.line.node);
            let (reader, quit) = (Reader::default(), self.quit.clone());
            let read = self
                .reads
                .read(store, reader, node, Some(place), limits, quit);
            self.probing = Some((shard, read));
        }
    }

    fn probed(&mut self, peeked: Peek) -> Result<(), Interrupted> {
        let Some((shard, _)) = self.probing.take() else {
            return Ok(());
        };
        self.check_reopens()?;
        let hint = match peeked {
            Peek::Hints(hints) => hints.into_iter().next(),
            // The next pass finds out.
            Peek::Empty | Peek::Damaged(_) => None,
        };
        self.window.put_back(shard, hint);
        if self.troubles.has_failed(shard) {
            self.window.stands(shard, Standing::Failed);
        }
        Ok(())
    }

    fn most(&self) -> Amount {
        self.reads.share(Amount {
            hints: self.settings.window_hints as u64,
            bytes: self.settings.window_bytes,
        })
    }

    fn peeked(&mut self, peeked: Peek) -> Result<(), Interrupted> {
        self.check_reopens()?;
        match peeked {
            Peek::Empty => {
                self.is_at_end = true;
                // All that waits is in the window now; a limit may have taken the others.
                if self.troubles.keep_unknown(|shard| self.window.has(shard)) {
                    self.show_unknown_formats();
                }
            }
            Peek::Damaged(place) => self.damaged = Some(place.queue),
            Peek::Hints(hints) => {
                self.retired_below = self.line.store.retired_below();
                let most = self.most();
                self.pass_left = self.pass_left.saturating_sub(hints.len() as u64);
                self.hints_read += hints.len() as u64;
                self.window.push(hints, most);
            }
        }
        Ok(())
    }

    /// Has what does not read judged once nothing is in front of it any more, and reads on from there.
    async fn judge_damage(&mut self) -> Result<(), Interrupted> {
        if let Some(queue) = self.damaged.take_if(|_| self.window.is_empty()) {
            self.reader.forget();
            self.window = Window::default();
            let judged = super::judge_damage(&self.line.store, self.line.node, queue).await;
            judged.map_err(Interrupted::Store)?;
        }
        Ok(())
    }

    pub(super) fn check_reopens(&self) -> Result<(), Interrupted> {
        match self.line.store.reopens() == self.reopens {
            true => Ok(()),
            false => Err(Interrupted::Reopened),
        }
    }

    /// Shards that have been left alone for long enough may be sent to again.
    fn free_waiting(&mut self) {
        let now = Instant::now();
        while let Some((until, shard)) = self.waiting.pop_first() {
            if until > now {
                self.waiting.insert((until, shard));
                return;
            }
            self.window.free(shard);
        }
    }

    /// The bell rang: shards may be sent to unless they are still found to be behind held hints.
    fn free_behind_held(&mut self) {
        for shard in std::mem::take(&mut self.behind_held) {
            self.window.free(shard);
        }
    }

    /// Whether sends fail whatever the shard: then it is the node, and the other shards are not tried
    /// one by one.
    fn is_storm(&self) -> bool {
        let have_failed = |standing| self.turns.have_failed(standing, self.new_most());
        let may_find_new = self.window.ready(Standing::New).is_some()
            || self.reading.is_some()
            || (!self.is_at_end && self.damaged.is_none() && self.may_reach_further());
        have_failed(Standing::Well)
            || have_failed(Standing::New)
            || (have_failed(Standing::Failed) && !may_find_new)
    }

    /// Shards that were not tried yet and fail, one after the other, before the node is taken for down.
    fn new_most(&self) -> usize {
        let most = self.settings.max_in_flight.max(IN_A_ROW_MIN);
        most.saturating_mul(self.troubles.reach())
    }

    /// Whether to read past shards that are left alone, for others. As long as the node takes nothing
    /// it may as well be down, and then it is not to cost a read of all that waits for it.
    fn may_reach_further(&self) -> bool {
        let most = self
            .settings
            .window_hints
            .saturating_mul(self.troubles.reach());
        self.has_answered || self.hints_read < most as u64
    }

    /// Whether the round is over, now that all is begun that can be.
    fn end(&self) -> Option<End> {
        if !self.tasks.is_empty() || self.reading.is_some() || self.probing.is_some() {
            return None;
        }
        if self.window.is_empty() {
            return self.is_at_end.then_some(End::CaughtUp);
        }
        let is_storm = self.is_storm();
        // What is behind held hints is not tried, so it says nothing of the node; with nothing else
        // left it waits for the bell here.
        let left_alone = self.waiting.len() + self.behind_held.len();
        let is_failing = !self.waiting.is_empty() && left_alone >= self.window.shard_count();
        if !is_storm && !is_failing {
            return None;
        }
        // A node that took something is not down before all that is left has failed twice: until then its new hints are not
        // kept waiting because of a shard that stalls. What is of an unknown format is not waited for.
        let is_unknown = |shard| self.troubles.is_unknown(shard);
        let has_failed = |shard| {
            let failed_twice = self.failing.get(&shard).is_some_and(|times| *times > 1);
            failed_twice || is_unknown(shard)
        };
        let mut tried = (self.window.shards()).filter(|shard| !self.behind_held.contains(shard));
        if !is_storm && self.has_answered && !tried.all(has_failed) {
            return None;
        }
        let first = self.waiting.first().map(|(until, _)| *until);
        Some(End::Failing(Failing {
            failed: !self.failing.is_empty(),
            answered: self.has_answered,
            wish: self.wish,
            until: first.filter(|_| !is_storm),
            is_storm,
            hears: (self.is_at_end || !self.behind_held.is_empty()) && !is_storm,
            only_unknown: self.window.shards().all(is_unknown),
        }))
    }

    fn tell_who_stalls(&mut self) {
        let oldest = self.window.oldest();
        let now = Instant::now();
        let stalls = oldest.filter(|shard| self.troubles.backing_off(*shard, now).is_some());
        if self.stalled_by != stalls {
            self.stalled_by = stalls;
            self.handle.progress.stalled_by(stalls);
        }
    }
}
