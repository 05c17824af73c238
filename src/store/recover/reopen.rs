//! Reopening a failed store within the process: drop sled, open it again, go on.
//!
//! docs/sled.md rule 8: after one failed write every later one fails until the database is dropped
//! and opened again. What was not durable then is gone and its writers were told "unknown", so this
//! is an unclean stop: queues are closed, new hints start new ones, and what was delivered but not
//! durably acknowledged is delivered again.

use std::{
    collections::BTreeSet,
    mem,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::{
    error::{StorageError, with_causes},
    stats::Health,
    store::{
        commit::{
            backoff::{ATTEMPTS_APART_MAX, Reopening},
            committer::Committer,
        },
        engine::{folder::Folder, table::is_damage, unsynced},
        failpoints::{Safeguard, is_off},
        format::{
            keys::QueueRef,
            shutdown_summary::{CleanQueue, Summary},
        },
        home::location::Home,
        pipeline::events::StoreEvent,
        recover::{
            assemble::committer,
            open::{Opened, reopen},
        },
        state::registry::Registry,
    },
    types::NodeId,
};

/// A store that fails again sooner than this was not well: its waits go on growing, so that it does
/// not flap.
const WELL_AFTER: Duration = Duration::from_secs(30);

/// How long an attempt waits for a compaction under way. What the compaction asks of the commit
/// thread meanwhile is refused after it.
const COMPACTION_ENDS_WITHIN: Duration = Duration::from_millis(200);

/// A disk that damages a store more often than this is not worth filling with what was moved aside.
const REBUILDS_MAX: u32 = 3;

impl Committer {
    /// Tries to reopen the failed store if it is time to; returns when to come again.
    pub fn reopen_when_due(&mut self) -> Instant {
        let now = Instant::now();
        match self.reopening.next_attempt {
            Some(at) if now < at => return at,
            Some(_) if is_off(Safeguard::Reopening) => {}
            Some(_) => match self.try_to_reopen() {
                Ok(()) => {
                    self.reopening.next_attempt = None;
                    self.reopening.last_reopened = Some(Instant::now());
                    return now;
                }
                Err(error) if error.is_directory_gone() => {
                    self.shared.fail(Health::DirectoryGone(error));
                    return now;
                }
                Err(error) => {
                    tracing::warn!(error = %with_causes(&error), "the store could not be reopened yet");
                }
            },
            None => {
                let was_well = |reopened: Instant| reopened.elapsed() > WELL_AFTER;
                if self.reopening.last_reopened.is_none_or(was_well) {
                    self.reopening.delays = Reopening::default().delays;
                }
            }
        }
        let delay = self.reopening.delays.next().unwrap_or(ATTEMPTS_APART_MAX);
        let at = Instant::now() + delay;
        self.reopening.next_attempt = Some(at);
        at
    }

    fn try_to_reopen(&mut self) -> Result<(), StorageError> {
        let shared = Arc::clone(&self.shared);
        shared.busy.start();
        let reopened = self.reopen();
        shared.busy.stop();
        reopened
    }

    /// What a clean shutdown would leave now, but that all queues are closed: what was not durable
    /// yet may be there or not.
    fn known(&self) -> Summary {
        let mut queues = self.shared.registry.lock().clean_queues();
        let named: BTreeSet<QueueRef> = queues.iter().map(|it| it.queue).collect();
        // Queues whose first group failed.
        for (node, record) in &self.records {
            let begun = record.live.iter().filter(|queue| !named.contains(queue));
            queues.extend(begun.map(|queue| CleanQueue::begun(*node, *queue)));
        }
        queues.iter_mut().for_each(|queue| queue.closed = true);
        Summary {
            store: Some(self.shared.store),
            next_queue: self.next_queue,
            queues,
            letters: self.clean_letters(),
        }
    }

    fn reopen(&mut self) -> Result<(), StorageError> {
        let directory = self.home.directory();
        // A compaction ends as soon as the store fails, unless it hangs.
        let changing = directory
            .as_ref()
            .map(|it| it.change(COMPACTION_ENDS_WITHIN));
        if let Some(None) = changing {
            return Err(StorageError::new(
                "open the store again",
                "it is being compacted",
            ));
        }
        if let Ok(engine) = self.engine() {
            let fsyncs = &self.shared.counters.fsyncs_of_closed_engines;
            fsyncs.fetch_add(engine.fsyncs(), Relaxed);
        }
        let unsynced = self.engine().ok().map(|engine| engine.unsynced());
        if let Err(error) = self.let_go_of_engine() {
            // It had failed before; only one that is still held must not be opened a second time.
            if self.writer.is_some() {
                return Err(error);
            }
            tracing::warn!(error = %with_causes(&error), "the failed engine did not close cleanly");
        }
        self.reopening.log_is_unsynced |= unsynced.is_some_and(|it| it.load(Relaxed));
        if self.reopening.log_is_unsynced {
            self.home.anchor().check()?;
            let folder = Folder::open(&self.home.database());
            let marked = folder.and_then(|folder| unsynced::mark(&folder));
            marked.map_err(|error| StorageError::new("mark the log as not on the disk", error))?;
            self.reopening.log_is_unsynced = false;
        }
        let damaged = matches!(self.shared.health(), Health::Failed(cause) if is_damage(&cause));
        let known = (damaged && self.reopening.rebuilt < REBUILDS_MAX).then(|| self.known());
        let Home::Owned {
            directory,
            generation: in_use,
        } = &self.home
        else {
            // A shared database never comes here: it is said to need the host (see `Shared::fail`).
            return Err(StorageError::new(
                "open the store again",
                "the database is the host's",
            ));
        };
        let Opened {
            engine,
            mut recovered,
            generation,
            moved_aside,
        } = reopen(
            &self.config,
            directory,
            in_use,
            &self.shared.faults,
            known.as_ref(),
            &|| self.shared.busy.start(),
        )
        .map_err(|error| StorageError::new("open the store again", error))?;
        let home = Home::Owned {
            directory: Arc::clone(directory),
            generation,
        };
        if moved_aside.is_some() {
            self.reopening.rebuilt += 1;
            *self.shared.moved_aside.lock() = moved_aside;
        }
        let found = mem::take(&mut recovered.registry);
        carry_over(&mut self.shared.registry.lock(), found);
        // All of it was flushed by the open.
        self.shared.memtable.clear();
        let (config, shared) = (self.config.clone(), Arc::clone(&self.shared));
        *self = Committer {
            reopening: mem::take(&mut self.reopening),
            statuses: mem::take(&mut self.statuses),
            ..committer(config, &shared, home, Arc::clone(&engine), recovered)
        };
        self.shared.counters.reopened.fetch_add(1, Relaxed);
        self.shared.serve_again(engine);
        if !self.shared.is_serving() {
            // This took too long, and is done once more when the watchdog sees that it came back.
            return Ok(());
        }
        tracing::info!("the store was opened again and serves");
        let nodes = self.shared.registry.lock().nodes.keys().copied().collect();
        (self.shared.on_durable)(&nodes);
        self.shared.tell_leave();
        self.shared.tell(StoreEvent::Reopened);
        Ok(())
    }
}

/// Queues as they were found; counts since open as they were, less what had left a queue and is in
/// it again. What is held and was found is held still.
fn carry_over(registry: &mut Registry, mut found: Registry) {
    let old = mem::take(registry);
    for (node, queues) in &mut found.nodes {
        let Some(known) = old.nodes.get(node) else {
            continue;
        };
        queues.enqueued = known.enqueued;
        queues.status = known.status.clone();
        queues.delivered = known.delivered;
        queues.dead_lettered = known.dead_lettered;
        queues.lost = known.lost;
        queues.withdrawn = known.withdrawn;
        queues.letters_evicted = known.letters_evicted;
        queues.limited = known.limited;
        for queue in &queues.queues {
            if let Some(before) = known.queues.iter().find(|it| it.at == queue.at) {
                let (before, now) = (&before.cursor, &queue.cursor);
                let undone = before.delivered.less(now.delivered);
                queues.delivered = queues.delivered.less(undone);
                queues.dead_lettered = queues.dead_lettered.less(before.dead.less(now.dead));
                queues.lost = queues.lost.less(before.lost.less(now.lost));
                let undone = before.withdrawn.less(now.withdrawn);
                queues.withdrawn = queues.withdrawn.less(undone);
            }
        }
    }
    found.reopens = old.reopens + 1;
    found.not_stored = old.not_stored;
    found.quota = old.quota;
    found.ages = old.ages;
    found.held = old.held;
    let queues = found.nodes.values().flat_map(|node| &node.queues);
    let queues: BTreeSet<QueueRef> = queues.map(|queue| queue.at).collect();
    found.ages.retain(|at, _| queues.contains(at));
    let nodes: Vec<NodeId> = found.nodes.keys().copied().collect();
    nodes
        .into_iter()
        .for_each(|node| found.claim_all_held(node));
    // Room was promised to hints that still wait in the inbox; what is pending is what was found.
    found.recount();
    let later = mem::replace(&mut found.damage, old.damage);
    found.damage_not_listed = old.damage_not_listed;
    *registry = found;
    later
        .into_iter()
        .for_each(|damage| registry.list_damage(damage));
}
