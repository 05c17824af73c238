//! Giving space back: sled's log never shrinks (docs/sled.md rule 12), so a store whose log is
//! mostly empty is compacted, into the next generation, while it goes on.
//!
//! This is the thread that does it. It looks now and then whether that is worth it (`when.rs`);
//! makes the new generation a copy of the one in use, in passes (`copy.rs`), until little is left
//! to bring over; has the commit thread bring over the rest, name the new one in `CURRENT` and go
//! on with it (`switch.rs`); and removes the old one. Up to the moment at which `CURRENT` changes
//! nothing depends on the copy: whatever is in the way, it is given up, and the store goes on with
//! what it has.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    time::{Duration, Instant},
};

use crate::{
    error::{HandoffError, StorageError, with_causes},
    stats::Health,
    store::{
        bounds::SEGMENT_BYTES,
        engine::{
            blocks::{self, ReadError},
            copy::{GenerationCopy, Pass},
            generation::{Engine, panic_text},
        },
        failpoints::point,
        home::directory::Directory,
        maintain::compact::when::{LIVE_BYTES_MAX, Look, Pace},
        pipeline::{
            asked::Asked, control::Control, done::ControlDone, shared::Shared, watchdog::StopSignal,
        },
        state::queue::Queue,
    },
    types::Sequence,
};

/// How often it is looked whether a compaction is worth it; `Look` counts on it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same where a test wants many.
const EAGER_LOOK_EVERY: Duration = Duration::from_millis(5);
/// What a hint takes besides its payload, at most: a block of its own with its key.
const BYTES_BESIDE_PAYLOAD: u64 = 128;
/// With less room on the disk than this besides the reserve, a copy is given up.
const ROOM_BYTES_MIN: u64 = 2 * SEGMENT_BYTES as u64;
/// A copy is caught up with when a pass brought over no more than this, and took no longer: the
/// commit thread will then hold up writers for about as long.
const CAUGHT_UP_BYTES: usize = 512 * 1024;
const CAUGHT_UP_WITHIN: Duration = Duration::from_millis(100);
/// Passes after which it is given up.
const PASSES_MAX: u32 = 12;
/// How long a stop waits for reads of a generation that is done with. What is left then the next
/// open removes.
const READERS_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is looked whether the commit thread can answer at all.
const ANSWER_POLL: Duration = Duration::from_millis(100);

/// What the thread has.
pub struct Compactor {
    shared: Arc<Shared>,
    directory: Arc<Directory>,
    stop: Arc<StopSignal>,
    pace: Pace,
    /// Bytes handed to the engine when it was looked last.
    handed_bytes: u64,
    /// What the last copy held: there may be more in a store than what is pending.
    copied_bytes: u64,
}

/// What became of a compaction.
enum Compacted {
    /// The store goes on with the copy; the old generation was this.
    Switched(Arc<Engine>),
    /// It goes on with what it had.
    GivenUp(StorageError),
    /// Nobody knows: the commit thread did not answer, and nothing must be touched.
    InDoubt,
}

fn failed(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StorageError {
    StorageError::new("compact the store", why)
}

impl Compactor {
    pub fn new(shared: Arc<Shared>, directory: Arc<Directory>, stop: Arc<StopSignal>) -> Self {
        Compactor {
            shared,
            directory,
            stop,
            pace: Pace::default(),
            handed_bytes: 0,
            copied_bytes: 0,
        }
    }

    /// Looks and compacts until it is stopped.
    pub fn run(mut self) {
        loop {
            let is_eager = self.shared.faults.compacts_eagerly();
            let every = match is_eager {
                true => EAGER_LOOK_EVERY,
                false => LOOK_EVERY,
            };
            if self.stop.wait(every) {
                return;
            }
            let is_worth_it = is_eager || self.is_worth_it();
            if !is_worth_it || !self.shared.is_serving() {
                continue;
            }
            self.shared.compacting.start();
            let started = Instant::now();
            let compacted = catch_unwind(AssertUnwindSafe(|| self.compact()));
            self.shared.compacting.stop();
            match compacted {
                Ok(Ok(true)) => self.pace.after_success(started.elapsed()),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => {
                    tracing::warn!(error = %with_causes(&error), "the store was not compacted");
                    self.pace.after_failure();
                }
                Err(panic) => {
                    tracing::error!(error = %panic_text(panic.as_ref()), "a panic while the store was compacted");
                    self.pace.after_failure();
                }
            }
        }
    }

    fn is_worth_it(&mut self) -> bool {
        let handed = self.shared.counters.engine_bytes.load(Relaxed);
        let before = std::mem::replace(&mut self.handed_bytes, handed);
        // What waits to be trimmed would be copied.
        if !self.pace.allows() || self.shared.trimming.load(Relaxed) {
            return false;
        }
        let Ok(engine) = self.shared.engine() else {
            return false;
        };
        let (live_bytes, log_bytes) = (self.live_bytes(), engine.log_bytes());
        let look = Look {
            log_bytes,
            live_bytes: live_bytes.max(self.copied_bytes),
            bytes_in_a_second: handed.saturating_sub(before),
        };
        // The copy may have half of the reserve: it is there so that there is room for what gives
        // space back.
        look.is_worth_it() && self.shared.space.has_for(look.room_bytes()) && {
            // What an earlier copy took may have left since.
            let room = Look { live_bytes, ..look }.room_bytes();
            let registry = self.shared.registry.lock();
            registry.quota.disk.has_room_beside(log_bytes, room)
        }
    }

    /// What is live at most, as far as that is known without a read.
    fn live_bytes(&self) -> u64 {
        let registry = self.shared.registry.lock();
        let letters = registry.nodes.values().map(|node| node.letters());
        let all = letters.fold(registry.quota.pending, |sum, it| sum.plus(it));
        all.bytes.saturating_add(all.hints * BYTES_BESIDE_PAYLOAD)
    }

    /// Compacts the store. `Err` if it goes on with what it had, `Ok(false)` if nobody knows what
    /// became of it.
    fn compact(&mut self) -> Result<bool, StorageError> {
        let directory = Arc::clone(&self.directory);
        let Some(_changing) = directory.change(Duration::ZERO) else {
            return Err(failed("it is being opened again"));
        };
        let Some((of, true)) = directory.current().map_err(failed)? else {
            return Err(failed("no generation is named"));
        };
        // What an earlier one could not remove.
        directory.end_compaction().map_err(failed)?;
        let into = directory.begin_compaction(&of).map_err(failed)?;
        let mut copy = None;
        let copying = catch_unwind(AssertUnwindSafe(|| {
            point("compact: announced")?;
            let path = directory.generation(&into);
            let engine = Engine::open(&path, Arc::clone(&self.shared.faults)).map_err(failed)?;
            let copy = copy.insert(Arc::new(GenerationCopy {
                engine: Arc::new(engine),
                generation: into.clone(),
                of: of.clone(),
            }));
            point("compact: begun")?;
            self.bring_over(copy)
        }));
        let engine = copy.map(|copy| Arc::clone(&copy.engine));
        match copying.unwrap_or_else(|panic| Err(failed(panic_text(panic.as_ref())))) {
            Ok(Compacted::InDoubt) => Ok(false),
            Ok(Compacted::Switched(old)) => {
                drop(engine);
                let freed_bytes = old.log_bytes();
                tracing::info!(
                    generation = %into, freed_bytes, copied_bytes = self.copied_bytes,
                    "the store was compacted"
                );
                if let Err(error) = self.remove_old(old) {
                    tracing::warn!(
                        error = %with_causes(&error),
                        "the old generation is left for the next open to remove"
                    );
                }
                Ok(true)
            }
            Ok(Compacted::GivenUp(error)) | Err(error) => {
                if engine.is_none_or(|engine| self.close(engine)) {
                    directory.abandon_compaction(&of).map_err(failed)?;
                }
                Err(error)
            }
        }
    }

    fn remove_old(&self, old: Arc<Engine>) -> Result<(), StorageError> {
        point("compact: taken up")?;
        if !self.close(old) {
            return Err(failed("it is still read"));
        }
        point("compact: old closed")?;
        self.directory.end_compaction().map_err(failed)?;
        point("compact: old removed")
    }

    /// Pass after pass, until little is left to bring over; then the commit thread is asked to do
    /// the last.
    fn bring_over(&mut self, copy: &Arc<GenerationCopy>) -> Result<Compacted, StorageError> {
        let queues: Vec<Queue> = {
            let registry = self.shared.registry.lock();
            let nodes = registry.nodes.values();
            nodes.flat_map(|it| it.queues.iter().cloned()).collect()
        };
        // Then they are all in blocks, and can be read in the copy.
        if self.ask(Control::Flush)?.is_none() {
            return Ok(Compacted::InDoubt);
        }
        self.copied_bytes = self.pass(copy)? as u64;
        point("compact: copied")?;
        for queue in &queues {
            self.check_reads(copy, queue)?;
        }
        for _ in 1..PASSES_MAX {
            let started = Instant::now();
            let changed = self.pass(copy)?;
            if changed > CAUGHT_UP_BYTES || started.elapsed() > CAUGHT_UP_WITHIN {
                continue;
            }
            if let Some(compacted) = self.ask_to_switch(copy) {
                return Ok(compacted);
            }
        }
        Err(failed("too much changes meanwhile"))
    }

    /// Goes through everything once; returns the bytes that it brought over.
    fn pass(&self, copy: &GenerationCopy) -> Result<usize, StorageError> {
        let mut pass = Pass::default();
        loop {
            self.shared.compacting.start();
            if self.stop.is_stopped() {
                return Err(failed("the store is being closed"));
            }
            if pass.bytes as u64 > LIVE_BYTES_MAX {
                return Err(failed("more is live than is copied"));
            }
            if !self.shared.space.has_for(ROOM_BYTES_MIN) {
                return Err(failed("the disk is nearly full"));
            }
            let in_use = self.shared.engine().map_err(failed)?;
            let Some(changes) = copy.differences(&in_use, &mut pass)? else {
                return Ok(pass.bytes);
            };
            // Whoever opens the store again waits for this.
            drop(in_use);
            copy.apply(changes, &mut pass)?;
        }
    }

    /// Where sled lost hints that are in its log still, replay will find them there when it comes
    /// to them: that log stays till then.
    fn check_reads(&self, copy: &GenerationCopy, queue: &Queue) -> Result<(), StorageError> {
        let mut from = queue.cursor.next;
        while let Some(unread) = unread(copy, queue, from)? {
            self.shared.compacting.start();
            let next = {
                let registry = self.shared.registry.lock();
                let mut queues = registry.nodes.values().flat_map(|it| &it.queues);
                queues.find(|it| it.at == queue.at).map(|it| it.cursor.next)
            };
            // What left meanwhile may have been trimmed.
            match next {
                None => return Ok(()),
                Some(next) if next > unread => from = next,
                Some(_) => return Err(failed("a hint that is pending does not read")),
            }
        }
        Ok(())
    }

    /// `None` if too much had changed.
    fn ask_to_switch(&self, copy: &Arc<GenerationCopy>) -> Option<Compacted> {
        match self.ask(|done| Control::Switch(Arc::clone(copy), done)) {
            Ok(Some(old)) => old.map(Compacted::Switched),
            Ok(None) => Some(Compacted::InDoubt),
            Err(error) => Some(Compacted::GivenUp(error)),
        }
    }

    /// Asks the commit thread for something; `None` if it does not answer.
    fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(ControlDone<T>) -> Control,
    ) -> Result<Option<T>, StorageError> {
        let (tell, told) = mpsc::channel();
        let done = move |result| {
            // Nobody listens any more if the wait below gave up.
            let _ = tell.send(result);
        };
        if let Err(refused) = self.shared.inbox.control(Asked::new(done, request)) {
            refused.refuse(HandoffError::ShutDown);
        }
        loop {
            // The commit thread has a watchdog of its own.
            self.shared.compacting.start();
            match told.recv_timeout(ANSWER_POLL) {
                Ok(answer) => return answer.map(Some).map_err(failed),
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(None),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    // It may come back, unless nobody waits for that.
                    let hangs = matches!(self.shared.health(), Health::RestartRequired(_));
                    if hangs && self.stop.is_stopped() {
                        return Ok(None);
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
                        tracing::warn!(
                            error = %with_causes(&error),
                            "a generation that is done with did not close cleanly"
                        );
                    }
                    return true;
                }
                Err(held) => held,
            };
            self.shared.compacting.start();
            std::thread::sleep(Duration::from_millis(2));
            if self.stop.is_stopped() {
                let since = *stopped_at.get_or_insert_with(Instant::now);
                if since.elapsed() > READERS_TIMEOUT {
                    return false;
                }
            }
        }
    }
}

/// The first hint of a queue from `from` on, up to its watermark, that cannot be read in the copy.
fn unread(
    copy: &GenerationCopy,
    queue: &Queue,
    from: Sequence,
) -> Result<Option<Sequence>, StorageError> {
    let mut next = from;
    while next <= queue.watermark {
        if let Some(gone) = queue.cursor.gone_with(next) {
            next = Sequence(gone.last.0.saturating_add(1));
            continue;
        }
        match blocks::read_covering(&copy.engine.hints, queue.at, next) {
            Ok(block) => next = Sequence(block.header.last().0.saturating_add(1)),
            Err(ReadError::Engine(error)) => return Err(failed(error)),
            Err(ReadError::Damaged(_)) => return Ok(Some(next)),
        }
    }
    Ok(None)
}
