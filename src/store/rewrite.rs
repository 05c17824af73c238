//! Giving space back: sled's log never shrinks (SLED.md rule 12), so a store whose log is mostly empty is written anew, into the next
//! generation, while it goes on.
//!
//! This is the thread that does it. It looks now and then whether that is worth it; makes the new generation a copy of the one in use,
//! in passes (`copy.rs`), until little is left to bring over; has the commit thread bring over the rest, name the new one in
//! `CURRENT` and go on with it (`switch.rs`); and removes the old one. Up to the moment at which `CURRENT` changes nothing depends
//! on the copy: whatever is in the way, it is given up and the store goes on with what it has.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    time::{Duration, Instant},
};

use super::{
    copy::{Copy, Pass},
    directory::Directory,
    engine::{Engine, SEGMENT_BYTES, panic_text},
    faults::point,
    inbox::Control,
    shared::Shared,
    watchdog::StopSignal,
};
use crate::error::{HandoffError, StorageError};

const MIB: u64 = 1024 * 1024;

/// How often it is looked whether a rewrite is worth it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same where a test wants many.
const EAGER_LOOK_EVERY: Duration = Duration::from_millis(5);
/// A shorter log is left alone: an empty generation takes a segment or two, and one in use grows to this again soon.
const LOG_BYTES_MIN: u64 = 48 * MIB;
/// The log must be this many times what is live in it: else it would not become much shorter.
const LOG_PER_LIVE: u64 = 4;
/// More than this is not copied.
const LIVE_BYTES_MAX: u64 = 32 * MIB;
/// What a hint takes besides its payload, at most: a block of its own with its key.
const BYTES_BESIDE_PAYLOAD: u64 = 128;
/// The log must be this many times what the store writes in a second: one that is as busy would fill its new log as soon.
const LOG_PER_SECOND: u64 = 64;
/// A copy is caught up with when the last pass brought over no more than this, and took no longer: the commit thread will then
/// hold up writers for about as long.
const CAUGHT_UP_BYTES: usize = 512 * 1024;
const CAUGHT_UP_WITHIN: Duration = Duration::from_millis(100);
/// Passes after which it is given up.
const PASSES_MAX: u32 = 12;
/// A generation is used at least this many times as long as it took to write it, and so long besides.
const USED_PER_WRITTEN: u32 = 20;
const USED_AT_LEAST: Duration = Duration::from_secs(10);
/// After one that was given up; doubles with each, up to the longest.
const AGAIN_AFTER: Duration = Duration::from_secs(30);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(3600);
/// How long a stop waits for reads of the old generation. What is left then the next open removes.
const READERS_TIMEOUT: Duration = Duration::from_secs(5);

/// The thread's own.
pub struct Rewriter {
    shared: Arc<Shared>,
    directory: Arc<Directory>,
    stop: Arc<StopSignal>,
    not_before: Option<Instant>,
    /// Given up in a row.
    given_up: u32,
    /// Bytes handed to the engine when it was looked last.
    handed_bytes: u64,
    /// What the last copy held: there may be more in a store than what is pending.
    copied_bytes: u64,
}

/// What became of a rewrite.
enum Rewritten {
    /// The store goes on with the copy; the old generation was this.
    Switched(Arc<Engine>),
    /// It goes on with what it had.
    GivenUp(StorageError),
    /// Nobody knows: the commit thread did not answer, and nothing must be touched.
    InDoubt,
}

fn given_up(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Rewritten {
    Rewritten::GivenUp(StorageError::new("write the store anew", why))
}

impl Rewriter {
    pub fn new(shared: Arc<Shared>, directory: Arc<Directory>, stop: Arc<StopSignal>) -> Self {
        Rewriter {
            shared,
            directory,
            stop,
            not_before: None,
            given_up: 0,
            handed_bytes: 0,
            copied_bytes: 0,
        }
    }

    /// Looks and rewrites until it is stopped.
    pub fn run(mut self) {
        while !self.stop.wait(match self.is_eager() {
            true => EAGER_LOOK_EVERY,
            false => LOOK_EVERY,
        }) {
            if !self.is_worth_it() {
                continue;
            }
            self.shared.rewriting.start();
            let started = Instant::now();
            let rewritten = catch_unwind(AssertUnwindSafe(|| self.rewrite()));
            let rewritten =
                rewritten.unwrap_or_else(|panic| Err(failed_by(panic_text(panic.as_ref()))));
            let pause = match rewritten {
                Ok(true) => {
                    self.given_up = 0;
                    USED_AT_LEAST + started.elapsed() * USED_PER_WRITTEN
                }
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, source = %error.source, "the store was not written anew");
                    let doubled = AGAIN_AFTER.saturating_mul(1 << self.given_up.min(10));
                    self.given_up += 1;
                    doubled.min(AGAIN_AFTER_MAX)
                }
            };
            self.shared.rewriting.stop();
            self.not_before = Some(Instant::now() + pause);
        }
    }

    fn is_eager(&self) -> bool {
        self.shared.faults.rewrites_eagerly()
    }

    fn is_worth_it(&mut self) -> bool {
        let counters = &self.shared.counters;
        let handed = counters.engine_bytes.load(Relaxed);
        let in_a_second = handed.saturating_sub(self.handed_bytes);
        self.handed_bytes = handed;
        // What waits to be trimmed would be copied.
        let is_settled = !self.shared.trimming.load(Relaxed);
        if !self.shared.is_serving() || self.is_eager() {
            return self.shared.is_serving();
        }
        if !is_settled || self.not_before.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        let Ok(engine) = self.shared.engine() else {
            return false;
        };
        let log = engine.log_bytes();
        if log < LOG_BYTES_MIN || log < in_a_second.saturating_mul(LOG_PER_SECOND) {
            return false;
        }
        let live = self.live_bytes();
        if live > LIVE_BYTES_MAX || log < live.max(self.copied_bytes) * LOG_PER_LIVE {
            return false;
        }
        // The copy may have half of the reserve: it is there so that there is room for what gives space back.
        let needed = live * LOG_PER_LIVE + 3 * SEGMENT_BYTES as u64;
        self.shared.space.has_for(needed)
    }

    /// What is live at most, as far as that is known without a read.
    fn live_bytes(&self) -> u64 {
        let registry = self.shared.registry.lock();
        let letters = registry.nodes.values().map(|node| node.letters);
        let all = letters.fold(registry.quota.pending, |sum, it| sum.plus(it));
        all.bytes + all.hints * BYTES_BESIDE_PAYLOAD
    }

    /// Rewrites the store. `Err` if it goes on with what it had, `Ok(false)` if it cannot be known what became of it.
    fn rewrite(&mut self) -> Result<bool, StorageError> {
        let failed = |error| StorageError::new("write the store anew", error);
        let directory = Arc::clone(&self.directory);
        let changing = directory.change(Duration::ZERO);
        let Some((of, true)) = directory.current().map_err(failed)? else {
            return Err(failed_by("no generation is named"));
        };
        if changing.is_none() {
            return Err(failed_by("it is being opened again"));
        }
        let started = Instant::now();
        // What an earlier one could not remove.
        directory.end_rewrite().map_err(failed)?;
        let into = directory.begin_rewrite(&of).map_err(failed)?;
        let mut copy = None;
        let copying = catch_unwind(AssertUnwindSafe(|| {
            point("rewrite: announced")?;
            let path = directory.generation(&into);
            let engine = Engine::open(&path, Arc::clone(&self.shared.faults)).map_err(failed)?;
            let copy = copy.insert(Arc::new(Copy {
                engine: Arc::new(engine),
                generation: into.clone(),
                of: of.clone(),
            }));
            point("rewrite: begun")?;
            self.bring_over(copy)
        }));
        let rewritten = match copying {
            Ok(Ok(rewritten)) => rewritten,
            Ok(Err(error)) => Rewritten::GivenUp(error),
            Err(panic) => given_up(panic_text(panic.as_ref())),
        };
        let engine = copy.map(|copy| Arc::clone(&copy.engine));
        match rewritten {
            Rewritten::Switched(old) => {
                drop(engine);
                point("rewrite: taken up")?;
                let freed_bytes = old.log_bytes();
                match self.close(old) {
                    true => {
                        point("rewrite: old closed")?;
                        directory.end_rewrite().map_err(failed)?;
                        point("rewrite: old removed")?;
                        tracing::info!(
                            generation = %into, freed_bytes, copied_bytes = self.copied_bytes,
                            took = ?started.elapsed(), "the store was written anew and gave space back"
                        );
                    }
                    false => {
                        tracing::warn!("the old generation is still read; the next open removes it")
                    }
                }
                Ok(true)
            }
            Rewritten::GivenUp(error) => {
                if engine.is_none_or(|engine| self.close(engine)) {
                    directory.abandon_rewrite(&of).map_err(failed)?;
                }
                Err(error)
            }
            Rewritten::InDoubt => Ok(false),
        }
    }

    /// Pass after pass, until little is left to bring over; then the commit thread is asked to do the last.
    fn bring_over(&mut self, copy: &Arc<Copy>) -> Result<Rewritten, StorageError> {
        let queues: Vec<_> = {
            let registry = self.shared.registry.lock();
            let nodes = registry.nodes.iter();
            let queues =
                nodes.flat_map(|(node, it)| it.queues.iter().map(|it| (*node, it.clone())));
            queues.collect()
        };
        self.copied_bytes = 0;
        for number in 0..PASSES_MAX {
            let started = Instant::now();
            let changed = self.pass(copy)?;
            if number == 0 {
                self.copied_bytes = changed as u64;
                point("rewrite: copied")?;
                for (node, queue) in &queues {
                    self.check_reads(copy, *node, queue)?;
                }
                continue;
            }
            if changed > CAUGHT_UP_BYTES || started.elapsed() > CAUGHT_UP_WITHIN {
                continue;
            }
            match self.ask_to_switch(copy) {
                Ok(None) => {}
                Ok(Some(old)) => return Ok(Rewritten::Switched(old)),
                Err(None) => return Ok(Rewritten::InDoubt),
                Err(Some(error)) => return Ok(given_up(error)),
            }
        }
        Ok(given_up("too much changes meanwhile"))
    }

    fn pass(&self, copy: &Copy) -> Result<usize, StorageError> {
        let mut pass = Pass::default();
        loop {
            self.shared.rewriting.start();
            if self.stop.is_stopped() {
                return Err(failed_by("the store is being closed"));
            }
            if pass.bytes as u64 > LIVE_BYTES_MAX {
                return Err(failed_by("more is live than is copied"));
            }
            if !self.shared.space.has_for(2 * SEGMENT_BYTES as u64) {
                return Err(failed_by("the disk is nearly full"));
            }
            // Held for one range: whoever opens the store again waits for it.
            let in_use = self
                .shared
                .engine()
                .map_err(|_| failed_by("the store failed"))?;
            let Some(changes) = copy.differences(&in_use, &mut pass)? else {
                return Ok(pass.bytes);
            };
            drop(in_use);
            copy.apply(changes, &mut pass)?;
        }
    }

    /// Where sled lost hints that are in its log still, replay will find them there when it comes to them: that log stays till then.
    fn check_reads(
        &self,
        copy: &Copy,
        node: crate::types::NodeId,
        queue: &super::registry::Queue,
    ) -> Result<(), StorageError> {
        let mut from = queue.cursor.next;
        while let Some(place) = copy.unread(queue, from)? {
            let now = self.shared.registry.lock().queue(node, place.queue);
            // What left meanwhile may have been trimmed.
            from = now.map_or(queue.watermark, |now| now.cursor.next);
            if from <= place.sequence {
                return Err(failed_by("a hint that is pending does not read"));
            }
        }
        Ok(())
    }

    /// The old generation's engine if the store goes on with the copy, `None` if too much had changed. The inner error is why it does
    /// not, the outer `None` that there was no answer.
    fn ask_to_switch(&self, copy: &Arc<Copy>) -> Result<Option<Arc<Engine>>, Option<HandoffError>> {
        let (tell, told) = mpsc::channel();
        let done = Box::new(move |result| {
            // Nobody listens any more if the wait below gave up.
            let _ = tell.send(result);
        });
        let asked = self
            .shared
            .inbox
            .control(Control::Switch(Arc::clone(copy), done));
        if let Err(refused) = asked {
            refused.refuse(HandoffError::ShutDown);
        }
        loop {
            // The commit thread has a watchdog of its own.
            self.shared.rewriting.start();
            match told.recv_timeout(Duration::from_millis(100)) {
                Ok(result) => return result.map_err(Some),
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(None),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let health = self.shared.health();
                    if matches!(health, crate::stats::Health::RestartRequired(_)) {
                        return Err(None);
                    }
                }
            }
        }
    }

    /// Closes an engine once nobody else holds it; false if that takes longer than a stop can wait.
    fn close(&self, mut engine: Arc<Engine>) -> bool {
        let mut stopped_at = None;
        loop {
            engine = match Arc::try_unwrap(engine) {
                Ok(sole) => {
                    if let Err(error) = sole.close() {
                        tracing::warn!(%error, source = %error.source, "a generation that is done with did not close cleanly");
                    }
                    return true;
                }
                Err(held) => held,
            };
            if self.stop.wait(Duration::from_millis(2)) {
                let since = *stopped_at.get_or_insert_with(Instant::now);
                if since.elapsed() > READERS_TIMEOUT {
                    return false;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

fn failed_by(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StorageError {
    StorageError::new("write the store anew", why)
}
