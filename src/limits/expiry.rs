//! Age: the task that has hints leave which are too old, whether their node is up or down, and that learns how old the oldest are.
//!
//! It sleeps until the oldest hint it knows of is due, ten seconds at most, and reads nothing before that: when a block was stored is
//! kept in memory, and the heads of queues that were there at open are read once. Hints are looked at in the order of their queue up to
//! the first that is not old enough, so one that was stamped earlier than those before it waits for these.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, sync::oneshot, time::sleep};
use tokio_util::sync::CancellationToken;

use super::oldest::{lose, read_unclaimed};
use crate::{
    ageing::Ageing,
    config::Config,
    error::HandoffError,
    store::{LossReason, PeekedHint, Reader, Store},
    types::NodeId,
};

/// Between two looks, so that hints that come due one after the other leave together.
const LOOKS_APART_MIN: Duration = Duration::from_secs(1);
/// So that a clock that is set is noticed and recorded before this life may end.
const LOOKS_APART_MAX: Duration = Duration::from_secs(10);

/// The task's state.
pub struct Housekeeper {
    store: Arc<Store>,
    ageing: Arc<Ageing>,
    runtime: Handle,
    /// `None` if nothing expires.
    max_age: Option<Duration>,
    /// What was found of the clock is not on disk yet.
    unrecorded: bool,
    /// All heads are to be read, whatever is known of them.
    look_at_all: bool,
}

impl Housekeeper {
    pub fn new(config: &Config, store: &Arc<Store>, ageing: Arc<Ageing>, runtime: Handle) -> Self {
        Housekeeper {
            store: Arc::clone(store),
            // That an earlier life is over is noted, too.
            unrecorded: !ageing.corrections().is_empty(),
            ageing,
            runtime,
            max_age: (!config.max_age.is_zero()).then_some(config.max_age),
            look_at_all: false,
        }
    }

    /// Runs until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            self.look_at_clock();
            let looked = stop.run_until_cancelled(self.look()).await;
            let pause = match looked {
                None => break,
                Some(Ok(())) => self.until_next(),
                // A store that failed mends itself, and one that was closed stops this task.
                Some(Err(error)) => {
                    tracing::debug!(%error, "the age of hints is not looked at for a while");
                    LOOKS_APART_MAX
                }
            };
            let pause = pause.clamp(LOOKS_APART_MIN, LOOKS_APART_MAX);
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                break;
            }
        }
        // The next life is to know what this one does; the watchdog bounds the commit.
        self.look_at_clock();
        if let Err(error) = self.record().await {
            tracing::debug!(%error, "that the clock was set is not recorded");
        }
    }

    fn look_at_clock(&mut self) {
        if let Some(ahead_ms) = self.ageing.look() {
            tracing::warn!(
                ahead_ms,
                "the wall clock was set; what earlier lives stored does not expire for a while"
            );
            (self.unrecorded, self.look_at_all) = (true, true);
        }
    }

    async fn record(&mut self) -> Result<(), HandoffError> {
        if !self.unrecorded {
            return Ok(());
        }
        let (tell, told) = oneshot::channel();
        let corrections = self.ageing.corrections();
        self.store.set_corrections(corrections, |result| {
            // Nobody listens if the service was told to stop; it is recorded then.
            let _ = tell.send(result);
        });
        told.await.unwrap_or(Err(HandoffError::ShutDown))?;
        self.unrecorded = false;
        Ok(())
    }

    /// How long until the oldest hint that is known is too old.
    fn until_next(&self) -> Duration {
        let Some(max_age) = self.max_age else {
            return LOOKS_APART_MAX;
        };
        let quiet = self.ageing.quiet_for();
        let left = self.store.heads().into_iter().filter_map(|head| {
            let unix_ms = head.unix_ms?;
            let left = max_age.saturating_sub(self.ageing.since(unix_ms));
            let waits = quiet.filter(|_| !self.ageing.is_own(unix_ms));
            Some(left.max(waits.unwrap_or_default()))
        });
        left.min().unwrap_or(LOOKS_APART_MAX)
    }

    /// Reads the heads that are not known or too old, and has those leave that are too old.
    async fn look(&mut self) -> Result<(), HandoffError> {
        self.record().await?;
        let quiet = self.ageing.quiet_for().is_some();
        for head in self.store.heads() {
            let is_due = |unix_ms| self.is_over(unix_ms, quiet);
            if self.look_at_all || head.unix_ms.is_none_or(is_due) {
                self.visit(head.node, quiet).await?;
            }
        }
        self.look_at_all = false;
        Ok(())
    }

    /// Whether a hint is too old that was enqueued then. While the wall clock is not believed, only those of this life can be known
    /// to be.
    fn is_over(&self, unix_ms: u64, quiet: bool) -> bool {
        let is_known = !quiet || self.ageing.is_own(unix_ms);
        let age = self.ageing.since(unix_ms);
        is_known && self.max_age.is_some_and(|max_age| age >= max_age)
    }

    async fn visit(&self, node: NodeId, quiet: bool) -> Result<(), HandoffError> {
        let (mut from, mut reader) = (None, Reader::default());
        loop {
            let read = read_unclaimed(&self.runtime, &self.store, node, from, reader).await?;
            let mut hints = read.1;
            reader = read.0;
            // Noted as it is found: the next look need not read for it.
            let is_old = |hint: &PeekedHint| {
                let at = self.enqueued(hint);
                let is_old = self.is_over(at, quiet);
                if !is_old {
                    self.store.note_read(node, hint.mark.place(), at);
                }
                is_old
            };
            let young = hints.iter().position(|hint| !is_old(hint));
            hints.truncate(young.unwrap_or(hints.len()));
            let Some(last) = hints.last() else {
                return Ok(());
            };
            from = Some(last.mark.place().next());
            self.store.claim(node, &mut hints);
            if !hints.is_empty() {
                self.expire(node, hints).await?;
            }
            if young.is_some() {
                return Ok(());
            }
        }
    }

    fn enqueued(&self, hint: &PeekedHint) -> u64 {
        let seen = self.store.first_seen(hint.mark.place());
        self.ageing.enqueued(hint.hint.enqueued_unix_ms, seen)
    }

    async fn expire(&self, node: NodeId, hints: Vec<PeekedHint>) -> Result<(), HandoffError> {
        let places = (hints.first(), hints.last());
        let (Some(first), Some(last)) = places else {
            return Ok(());
        };
        let (queue, first, last) = (first.mark.queue, first.mark.sequence, last.mark.sequence);
        let left = lose(&self.store, node, hints, LossReason::Expired).await?;
        tracing::warn!(
            node = node.0,
            queue = queue.queue.0,
            first_lost = first.0,
            last_lost = last.0,
            hints = left.hints,
            bytes = left.bytes,
            "hints older than max_age are gone undelivered"
        );
        Ok(())
    }
}
