//! Age: the task that has hints leave which are too old, whether their node is up or down, and that
//! learns how old the oldest are. What is about to be sent or taken by hand is looked at there once
//! more.
//!
//! It sleeps until the oldest hint it knows of is due, ten seconds at most, and reads nothing
//! before that: when a block was stored is kept in memory, and the heads of queues that were there
//! at open are read once. Hints are looked at in the order of their queue up to the first that is
//! not old enough, so one that was stamped earlier than those before it waits for these; those with
//! a lifetime of their own are looked for behind it, too (`search.rs`).

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{keeper::Keeper, oldest::read_unclaimed, search::Search};
use crate::{
    ageing::Ageing,
    error::{HandoffError, with_causes},
    store::{PeekedHint, Reader, Store},
    types::NodeId,
};

/// Between two looks, so that hints that come due one after the other leave together.
const LOOKS_APART_MIN: Duration = Duration::from_secs(1);
const LOOKS_APART_MAX: Duration = Duration::from_secs(10);
/// A clock that was set is to be recorded before this life may end.
const CLOCK_LOOKS_APART: Duration = Duration::from_secs(1);

/// The task's state.
pub struct Housekeeper {
    keeper: Keeper,
    search: Search,
    /// What was found of the clock is not on disk yet.
    unrecorded: bool,
    /// All heads are to be read, whatever is known of them.
    look_at_all: bool,
}

impl Housekeeper {
    pub fn new(store: &Arc<Store>, ageing: Arc<Ageing>, runtime: Handle) -> Self {
        Housekeeper {
            // That an earlier life is over is noted, too.
            unrecorded: !ageing.corrections().is_empty(),
            keeper: Keeper {
                store: Arc::clone(store),
                ageing,
                runtime,
            },
            search: Search::default(),
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
                // A store that failed reopens itself, and one that was closed stops this task.
                Some(Err(error)) => {
                    tracing::debug!(error = %with_causes(&error), "the age of hints is not looked at for a while");
                    LOOKS_APART_MAX
                }
            };
            if stop.run_until_cancelled(self.rest(pause)).await.is_none() {
                break;
            }
        }
        // The next life is to know what this one does; the watchdog bounds the commit.
        self.look_at_clock();
        if let Err(error) = self.record().await {
            tracing::debug!(error = %with_causes(&error), "that the clock was set is not recorded");
        }
    }

    /// Waits so long, but ends early where the wall clock was set, or a hint has come that may be
    /// over before.
    async fn rest(&mut self, most: Duration) {
        let until = Instant::now() + most.clamp(LOOKS_APART_MIN, LOOKS_APART_MAX);
        let mut next = Instant::now() + LOOKS_APART_MIN;
        loop {
            sleep_until(next).await;
            self.look_at_clock();
            if next >= until || self.unrecorded {
                return;
            }
            next = until.min(next + CLOCK_LOOKS_APART);
            // A bell that rings meanwhile does no more than end the wait.
            if timeout_at(next, self.keeper.ageing.shorter.notified())
                .await
                .is_ok()
            {
                return;
            }
        }
    }

    fn look_at_clock(&mut self) {
        if let Some(ahead_ms) = self.keeper.ageing.look() {
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
        let corrections = self.keeper.ageing.corrections();
        self.keeper.store.set_corrections(corrections, |result| {
            // Nobody listens if the service was told to stop; it is recorded then.
            let _ = tell.send(result);
        });
        told.await.unwrap_or(Err(HandoffError::ShutDown))?;
        self.unrecorded = false;
        Ok(())
    }

    /// How long until the oldest hint that is known is too old; no longer than one may live that
    /// comes meanwhile.
    fn until_next(&self) -> Duration {
        if self.search.is_under_way() {
            return LOOKS_APART_MIN;
        }
        let Some(shortest) = self.keeper.ageing.shortest() else {
            return LOOKS_APART_MAX;
        };
        let until = |due: u64| Duration::from_millis(due.saturating_sub(self.keeper.ageing.now()));
        let due = self.keeper.store.first_due().map(until);
        let heads = self.keeper.store.heads().into_iter();
        let heads = heads.filter_map(|head| self.until_over(head.unix_ms?));
        heads.chain(due).chain([shortest]).min().unwrap_or(shortest)
    }

    /// How long until a hint is too old that was enqueued then, by the age that is too old for all.
    fn until_over(&self, unix_ms: u64) -> Option<Duration> {
        let max_age = self.keeper.ageing.max_age()?;
        let left = max_age.saturating_sub(self.keeper.ageing.since(unix_ms));
        let quiet = self.keeper.ageing.quiet_for();
        let waits = quiet.filter(|_| !self.keeper.ageing.is_own(unix_ms));
        Some(left.max(waits.unwrap_or_default()))
    }

    /// Reads the heads that are not known or too old, and has those leave that are too old.
    async fn look(&mut self) -> Result<(), HandoffError> {
        self.record().await?;
        for head in self.keeper.store.heads() {
            let is_over = |unix_ms| self.keeper.ageing.is_over(unix_ms, None);
            if self.look_at_all || head.unix_ms.is_none_or(is_over) {
                self.visit(head.node).await?;
            }
        }
        self.look_at_all = false;
        // Those with a lifetime of their own may be anywhere.
        let mut search = std::mem::take(&mut self.search);
        search.go_on(&self.keeper).await?;
        self.search = search;
        Ok(())
    }

    async fn visit(&self, node: NodeId) -> Result<(), HandoffError> {
        let (mut from, mut reader) = (None, Reader::default());
        loop {
            let read = read_unclaimed(&self.keeper.runtime, &self.keeper.store, node, from, reader)
                .await?;
            let mut hints = read.1;
            reader = read.0;
            // Noted as it is found: the next look need not read for it.
            let is_old = |hint: &PeekedHint| {
                let age = self.keeper.ageing.of_read(&self.keeper.store, hint);
                if !age.is_over {
                    let place = hint.mark.place();
                    self.keeper
                        .store
                        .note_read(node, place, age.enqueued_unix_ms);
                }
                age.is_over
            };
            let young = hints.iter().position(|hint| !is_old(hint));
            hints.truncate(young.unwrap_or(hints.len()));
            let Some(last) = hints.last() else {
                return Ok(());
            };
            from = Some(last.mark.place().next());
            self.keeper.expire(node, hints).await?;
            if young.is_some() {
                return Ok(());
            }
        }
    }
}
