//! The commit thread: takes what waits, a group or a request at a time, until it is told to close.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::{
    error::{HandoffError, StorageError, with_causes},
    stats::Health,
    store::{
        commit::committer::Committer,
        failpoints::point,
        format::shutdown_summary,
        pipeline::{control::Control, inbox::Work, ticket::Entry},
    },
};

/// How often an idle store looks whether its directory is there still.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Committer {
    /// Works until it is told to close.
    pub fn run(mut self) {
        loop {
            let trims = self.trimmer.has_work();
            self.shared.trimming.store(trims, Relaxed);
            let by = match self.shared.health() {
                Health::Failed(_) => Some(self.reopen_when_due()),
                Health::Serving if self.has_work() => Some(Instant::now()),
                Health::Serving => Some(Instant::now() + LOOK_EVERY),
                // What cannot be reopened here is not tried again and again either.
                _ => None,
            };
            let Work {
                entries,
                control,
                dirty,
                statuses,
                ends,
            } = self.shared.inbox.take(by);
            if ends {
                return self.end();
            }
            self.dirty.extend(dirty);
            self.statuses.extend(statuses);
            if entries.is_empty() && control.is_none() && !self.has_work() {
                // If its directory is gone, that is told by `fail`.
                let _ = self.guarded(|committer| committer.look());
                continue;
            }
            // Before the group: the control waits for that, too.
            let control = control.map(|control| {
                let (control, refuse) = control.in_hand();
                *self.shared.in_hand.lock() = refuse;
                control
            });
            self.turn(entries);
            match control {
                None => {}
                Some(Control::Sync(done)) => done(self.guarded(Self::settle)),
                Some(Control::CloseEntries(done)) => done(self.guarded(|committer| {
                    committer.settle()?;
                    Ok(committer.journal.close_entries())
                })),
                Some(Control::Nodes(request)) => self.about_nodes(request),
                Some(Control::Scrub(node, at, done)) => {
                    done(self.guarded(|committer| committer.scrub(node, at)));
                }
                Some(Control::Flush(done)) => done(self.guarded(Self::flush_memtable)),
                Some(Control::Switch(copy, done)) => done(self.switch(&copy)),
                Some(Control::Close(done)) => return done(self.close()),
            }
            // It is answered; what is dropped here tells nobody.
            drop(self.shared.in_hand.lock().take());
        }
    }

    /// Somebody closed the store while this thread hung, and was told so: the engine and the lock
    /// go, without `CLEAN`.
    fn end(mut self) {
        if let Err(error) = self.let_go_of_engine() {
            tracing::warn!(error = %with_causes(&error), "a store that hung did not close cleanly");
        }
    }

    /// Whether anything is to be done that nobody waits for.
    fn has_work(&self) -> bool {
        self.trimmer.has_work() || self.flushing.has_work() || self.has_unwritten()
    }

    /// Whether a group would write anything that waits for company.
    pub fn has_unwritten(&self) -> bool {
        !self.dirty.is_empty() || !self.statuses.is_empty() || self.shared.not_stored.has_any()
    }

    fn turn(&mut self, entries: Vec<Entry>) {
        if let Err(error) = self.shared.check_serving() {
            for entry in entries {
                entry.refuse(error.clone().into());
            }
            return;
        }
        // Whoever waits for the group is told by `fail`.
        let _ = self.guarded(|committer| committer.group(entries));
    }

    /// While nothing is to be done: whether the disk still takes what is written.
    fn look(&mut self) -> Result<(), StorageError> {
        self.writer()?.look()?;
        self.check_in_place()
    }

    /// Leaves everything durable and `CLEAN` behind, and lets the engine and the lock go.
    fn close(mut self) -> Result<(), HandoffError> {
        let settled = self.guarded(|committer| {
            committer.flush_memtable()?;
            committer.settle()
        });
        self.shared.busy.start();
        self.shared.set_shut_down();
        let shared = Arc::clone(&self.shared);
        let closed = self.close_engine(settled);
        shared.busy.stop();
        closed
    }

    fn close_engine(mut self, settled: Result<(), HandoffError>) -> Result<(), HandoffError> {
        let letters = self.clean_letters();
        let summary = shutdown_summary::Summary {
            store: Some(self.shared.store),
            next_queue: self.next_queue,
            queues: self.shared.registry.lock().clean_queues(),
            letters,
        };
        point("close: settled")?;
        self.let_go_of_engine()?;
        settled?;
        point("close: engine closed")?;
        self.home
            .write_clean_summary(&summary)
            .map_err(|error| StorageError::new("write the CLEAN summary", error))?;
        Ok(())
    }
}
