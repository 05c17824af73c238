//! Whether the store serves, and what becomes of everybody who waits when it does not.

use std::sync::{
    Arc,
    atomic::Ordering::{Acquire, Release},
};

use crate::{
    error::{EnqueueError, HandoffError, StorageError, with_causes},
    stats::Health,
    store::{
        engine::generation::Engine,
        pipeline::{events::StoreEvent, shared::Shared},
    },
};

impl Shared {
    /// After a reopen: reads and writes go on with this engine and what was found in it.
    pub fn serve_again(&self, engine: Arc<Engine>) {
        *self.engine.write() = Some(engine);
        let gave_up = {
            let mut condition = self.condition.lock();
            // The watchdog may have given up meanwhile: then this is the thread that it waits for.
            let gave_up =
                condition.may_return && matches!(condition.health, Health::RestartRequired(_));
            if gave_up || matches!(condition.health, Health::Failed(_)) {
                condition.health = Health::Serving;
                condition.may_return = false;
                self.serving.store(true, Release);
            }
            gave_up
        };
        if gave_up {
            self.not_stored.begin_again();
            self.inbox.open_again();
        }
    }

    pub fn health(&self) -> Health {
        self.condition.lock().health.clone()
    }

    pub fn is_serving(&self) -> bool {
        self.serving.load(Acquire)
    }

    /// `Ok` while the store serves, else why it does not.
    pub fn check_serving(&self) -> Result<(), HandoffError> {
        if self.is_serving() {
            return Ok(());
        }
        match self.health() {
            Health::Serving | Health::ReplayStopped(_) => Ok(()),
            Health::Failed(cause)
            | Health::ReopenRequired(cause)
            | Health::DirectoryGone(cause)
            | Health::RestartRequired(cause) => Err(HandoffError::Storage(cause)),
            Health::ShutDown => Err(HandoffError::ShutDown),
        }
    }

    /// docs/sled.md rules 8 and 9: after a storage error nothing more is accepted, and whoever
    /// waits learns that the outcome is unknown. The first cause stays; only steps from "failed" to
    /// "directory gone" and to "restart required" are taken after it.
    pub fn fail(&self, health: Health) {
        self.fail_as(health, false);
    }

    /// The same for a thread that hangs, and may come back: see
    /// [`has_returned`](Shared::has_returned).
    pub fn fail_for_now(&self, cause: StorageError) {
        self.fail_as(Health::RestartRequired(cause), true);
    }

    fn fail_as(&self, health: Health, may_return: bool) {
        let (health, cause) = match health {
            Health::Failed(cause) if cause.is_directory_gone() => {
                (Health::DirectoryGone(cause.clone()), cause)
            }
            Health::Failed(cause) if !self.reopens_itself => {
                (Health::ReopenRequired(cause.clone()), cause)
            }
            Health::Failed(ref cause)
            | Health::ReopenRequired(ref cause)
            | Health::DirectoryGone(ref cause)
            | Health::RestartRequired(ref cause) => {
                let cause = cause.clone();
                (health, cause)
            }
            Health::Serving | Health::ReplayStopped(_) | Health::ShutDown => return,
        };
        let is_worse = {
            let mut condition = self.condition.lock();
            let worse = match condition.health {
                Health::Serving | Health::ReplayStopped(_) => true,
                Health::Failed(_) | Health::ReopenRequired(_) => matches!(
                    health,
                    Health::DirectoryGone(_) | Health::RestartRequired(_)
                ),
                Health::DirectoryGone(_) | Health::ShutDown => {
                    matches!(health, Health::RestartRequired(_))
                }
                // Nor does one that hung have to come back.
                Health::RestartRequired(_) => {
                    condition.may_return
                        && !may_return
                        && matches!(health, Health::RestartRequired(_))
                }
            };
            if worse {
                let reopens_itself = matches!(health, Health::Failed(_));
                tracing::error!(
                    error = %with_causes(&cause), reopens_itself,
                    "the store failed; it accepts nothing until it is reopened"
                );
                condition.health = health;
                condition.may_return = may_return;
                self.serving.store(false, Release);
            }
            worse
        };
        if is_worse {
            self.tell(StoreEvent::Failed(cause.clone()));
        }
        self.tickets.take().fail(&cause);
        // One that reopens itself records them when it serves again.
        if !matches!(self.health(), Health::Serving | Health::Failed(_)) {
            self.not_stored.end(&cause.into());
        }
        // Nobody waits for room in a store that failed.
        self.registry.ring();
        self.tell_leave();
        // The commit thread reopens what can be reopened.
        self.inbox.nudge();
    }

    /// For a commit thread that will not come back: nobody is left waiting, and nobody can begin
    /// to.
    pub fn abandon(&self, cause: StorageError) {
        self.abandon_as(cause, false);
    }

    /// For one that hangs: the same, until it comes back.
    pub fn abandon_for_now(&self, cause: StorageError) {
        self.abandon_as(cause, true);
    }

    /// No thread hangs any more: what it did is a commit that failed.
    pub fn has_returned(&self) {
        {
            let mut condition = self.condition.lock();
            let Health::RestartRequired(cause) = &condition.health else {
                return;
            };
            if !condition.may_return {
                return;
            }
            let cause = cause.clone();
            tracing::warn!(error = %with_causes(&cause), "what hung has come back");
            condition.may_return = false;
            condition.health = match self.reopens_itself {
                true => Health::Failed(cause),
                false => Health::ReopenRequired(cause),
            };
        }
        if self.reopens_itself {
            self.not_stored.begin_again();
        }
        self.inbox.open_again();
    }

    fn abandon_as(&self, cause: StorageError, may_return: bool) {
        let (entries, controls) = self.inbox.shut();
        self.fail_as(Health::RestartRequired(cause.clone()), may_return);
        for entry in entries {
            entry.refuse(EnqueueError::StoreFailed(cause.clone()));
        }
        for control in controls {
            control.refuse(HandoffError::Storage(cause.clone()));
        }
        let in_hand = self.in_hand.lock().take();
        if let Some(refuse) = in_hand {
            refuse(HandoffError::Storage(cause));
        }
    }

    pub fn set_shut_down(&self) {
        let mut condition = self.condition.lock();
        if matches!(condition.health, Health::Serving) {
            condition.health = Health::ShutDown;
        }
        drop(condition);
        self.serving.store(false, Release);
        let why = self.check_serving().err();
        self.not_stored.end(&why.unwrap_or(HandoffError::ShutDown));
        self.registry.ring();
        self.tell_leave();
    }
}
