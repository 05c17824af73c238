//! One round with a node that answered its ping: read ahead, send to several shards at once, and
//! see what becomes of each send.

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
    claim::Load,
    end::{End, Failing, Interrupted},
    line::Line,
    node_handle::NodeHandle,
    reading::{Read, Reads},
    scheduler::Scheduler,
    send::{Landed, send},
    settings::Settings,
    shard::Troubles,
    window::{Standing, Window},
};
use crate::{
    payload::Payload,
    shard_writer::ShardWriter,
    store::{QueueRef, Reader},
    types::{Amount, QueueId, ShardId},
};

/// Hints of a send, beside `batch_bytes`: bounds what a batch of tiny hints takes in memory.
const BATCH_HINTS: u64 = 8192;

pub struct Round<'a, P, W> {
    pub(super) line: &'a Arc<Line<W>>,
    pub(super) settings: &'a Settings,
    pub(super) handle: &'a Arc<NodeHandle>,
    pub(super) reads: &'a Reads,
    pub(super) troubles: &'a mut Troubles,
    pub(super) window: Window,
    pub(super) tasks: JoinSet<Landed>,
    pub(super) scheduler: Scheduler,
    /// Cancelled when no send is to begin any more.
    pub(super) quit: CancellationToken,
    pub(super) reader: Reader,
    pub(super) reading: Option<Read>,
    /// The next hint of a shard that was set aside is being read.
    pub(super) probing: Option<(ShardId, Read)>,
    /// Nothing more was there to read, and no bell has rung since.
    pub(super) is_at_end: bool,
    /// Hints that were pending when this pass began, less those that it has read.
    pub(super) pass_left: u64,
    /// Hints that were read in this round.
    pub(super) hints_read: u64,
    /// What does not read, and is scrubbed once nothing is in front of it.
    pub(super) damaged: Option<QueueRef>,
    /// Shards that are left alone until then.
    pub(super) waiting: BTreeSet<(Instant, ShardId)>,
    /// Shards whose next hint is held or behind a held one, until the bell rings: it does so after
    /// a hint is let go.
    pub(super) behind_held: BTreeSet<ShardId>,
    /// Shards whose sends failed since the node took anything, and how often.
    pub(super) failing: HashMap<ShardId, u32>,
    pub(super) wish: Option<Duration>,
    /// Whether the node answered a send in this round, other than by a failure.
    pub(super) has_answered: bool,
    stalled_by: Option<ShardId>,
    reopens: u64,
    pub(super) retired_below: Option<QueueId>,
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
        let reach = troubles.reach();
        Round {
            line,
            settings,
            handle,
            reads,
            troubles,
            window: Window::default(),
            tasks: JoinSet::new(),
            scheduler: Scheduler::new(settings.max_in_flight, reach),
            quit: handle.stop.child_token(),
            reader: Reader::default(),
            reading: None,
            probing: None,
            is_at_end: false,
            pass_left: line.store.pending(line.node).hints,
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

    /// Sends until nothing is pending, or until there is a reason not to go on; then nothing is in
    /// flight any more.
    pub async fn run(mut self) -> Result<End, Interrupted> {
        let ended = self.work().await;
        self.settle().await;
        ended
    }

    async fn work(&mut self) -> Result<End, Interrupted> {
        loop {
            self.line.check_held()?;
            self.scrub().await?;
            self.start_sends();
            self.start_read();
            self.start_probe();
            self.tell_who_stalls();
            if let Some(end) = self.end() {
                return Ok(end);
            }
            let handle = Arc::clone(self.handle);
            let (quit, wake) = (&self.handle.stop, self.next_moment());
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
        self.scheduler.most = self.settings.send_limits.share(most, self.reads);
        let may_read = self.may_read();
        loop {
            let troubled = self.troubles.has_failed_any();
            let next = (self.scheduler).next(&self.window, troubled, may_read, now);
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
        self.scheduler.began(shard, self.window.standing(shard));
        self.tasks.spawn(sending);
    }

    pub(super) fn check_reopens(&self) -> Result<(), Interrupted> {
        match self.line.store.reopens() == self.reopens {
            true => Ok(()),
            false => Err(Interrupted::Reopened),
        }
    }

    /// When there is something to do although nothing is heard.
    fn next_moment(&self) -> Option<Instant> {
        let waiting = self.waiting.first().map(|(until, _)| *until);
        let rests = self.scheduler.rests_until(Instant::now());
        waiting.into_iter().chain(rests).min()
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

    /// Whether sends fail whatever the shard: then it is the node, and the other shards are not
    /// tried one by one.
    pub(super) fn is_storm(&self) -> bool {
        let have_failed = |standing| self.scheduler.have_failed(standing);
        let may_find_new = self.window.ready(Standing::New).is_some() || self.may_read();
        have_failed(Standing::Well)
            || have_failed(Standing::New)
            || (have_failed(Standing::Failed) && !may_find_new)
    }

    /// Whether the round is over, now that all is begun that can be.
    fn end(&self) -> Option<End> {
        if !self.tasks.is_empty() || self.reading.is_some() || self.probing.is_some() {
            return None;
        }
        if self.window.is_empty() && !self.window.aside.wants_pass() {
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
        // A node that took something is not down before all that is left has failed twice: until
        // then its new hints are not kept waiting because of a shard that stalls. What is of an
        // unknown format is not waited for.
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
