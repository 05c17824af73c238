//! The replay task of one node: ping, a round of sends, and a while of leaving it alone if that
//! fails.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::{
    backoff::Backoff,
    end::{End, Failing, Interrupted},
    host_code::answered,
    line::Line,
    node_handle::NodeHandle,
    rate_limit::RateLimit,
    reading::Reads,
    round::Round,
    settings::Settings,
    shard::Troubles,
};
use crate::{
    error::with_causes,
    payload::Payload,
    shard_writer::{Pong, ShardWriter, WriteError},
    stats::{Health, NodeState},
    store::Store,
    types::NodeId,
};

/// So long after it took or refused anything a node is not said to be down for sends that fail.
const ANSWERS_FOR: Duration = Duration::from_secs(10);

pub struct NodeProcessor<P, W> {
    line: Arc<Line<W>>,
    settings: Settings,
    handle: Arc<NodeHandle>,
    reads: Reads,
    backoff: Backoff,
    troubles: Troubles,
    /// What the last ping found.
    pong: Pong,
    /// When the node last took or refused anything, by the end of that round.
    answered: Option<Instant>,
    payload: std::marker::PhantomData<fn() -> P>,
}

/// What to wait for after a round.
struct RoundPause {
    /// At most so long.
    most: Option<Duration>,
    /// The bell ends it, but not before this.
    hears_after: Option<Duration>,
}

impl<P: Payload, W: ShardWriter<P>> NodeProcessor<P, W> {
    pub fn new(
        node: NodeId,
        store: Arc<Store>,
        writer: Arc<W>,
        settings: Settings,
        handle: Arc<NodeHandle>,
        reads: Reads,
    ) -> Self {
        let (interval, max) = (settings.retry_interval, settings.retry_max_interval);
        let status = store.status(node);
        let mut troubles = Troubles::new(settings.clock.clone(), interval, max);
        troubles.restore(&status.heads);
        handle.progress.restore(status.attempts, status.last_error);
        NodeProcessor {
            line: Arc::new(Line {
                node,
                store,
                writer,
                limit: RateLimit::new(settings.rate_limit, settings.batch_bytes),
                send_limits: Arc::clone(&settings.send_limits),
                send_times: Arc::clone(&settings.send_times),
                timeout: settings.send_timeout,
                clock: settings.clock.clone(),
                ageing: Arc::clone(settings.links.ageing()),
                admission: settings.admission.clone(),
                link: settings.links.of(node),
            }),
            backoff: Backoff::new(interval, max),
            troubles,
            pong: Pong::NotAsked,
            answered: None,
            settings,
            handle,
            reads,
            payload: std::marker::PhantomData,
        }
    }

    /// Runs until told to stop.
    pub async fn run(mut self) {
        let handle = Arc::clone(&self.handle);
        loop {
            let span = tracing::debug_span!(
                "replay_round",
                node = self.line.node.0,
                queue = tracing::field::Empty,
                first = tracing::field::Empty,
                last = tracing::field::Empty,
                bytes = tracing::field::Empty
            );
            let pause = match self.round().instrument(span).await {
                Ok(End::CaughtUp) => self.caught_up(),
                Ok(End::Failing(failing)) => self.failing(failing),
                Err(Interrupted::Reopened) => continue,
                Err(Interrupted::Held) => RoundPause {
                    most: None,
                    hears_after: Some(Duration::ZERO),
                },
                Err(Interrupted::Stopped) => return,
                Err(Interrupted::Retry(error)) => self.unreachable(&error),
                Err(Interrupted::Store(error)) => {
                    if matches!(self.line.store.health(), Health::ShutDown) {
                        return handle.stop.cancelled().await;
                    }
                    // A failed store sends and acknowledges nothing; it rings when it is reopened.
                    // That says nothing of the node.
                    let node = self.line.node.0;
                    tracing::debug!(
                        node, error = %with_causes(&error),
                        "nothing is replayed: the store does not serve"
                    );
                    handle.progress.waits();
                    RoundPause {
                        most: Some(self.backoff.longest()),
                        hears_after: Some(Duration::ZERO),
                    }
                }
            };
            let heard = async {
                match pause.hears_after {
                    Some(first) => sleep(first).await,
                    None => std::future::pending().await,
                }
                handle.progress.woken().await;
            };
            tokio::select! {
                () = handle.stop.cancelled() => return,
                () = sleep(pause.most.unwrap_or_default()), if pause.most.is_some() => {}
                () = heard => {}
            }
        }
    }

    /// Sends until nothing is pending.
    async fn round(&mut self) -> Result<End, Interrupted> {
        self.line.check_held()?;
        // Before anything is read: a node that does not answer costs neither a read nor memory.
        if !self.line.store.has_pending(self.line.node) {
            return Ok(End::CaughtUp);
        }
        self.pong = self.ping().await?;
        let _counted = self.reads.begin();
        let troubles = &mut self.troubles;
        let (line, settings, reads) = (&self.line, &self.settings, &self.reads);
        let round = Round::<P, W>::new(line, settings, &self.handle, reads, troubles);
        round.run().await
    }

    /// In a task of its own, so that whatever the host's code does there ends with it.
    async fn ping(&self) -> Result<Pong, Interrupted> {
        let line = Arc::clone(&self.line);
        let pinging = async move {
            let ping = async { line.writer.ping(line.node).await };
            answered("ping", line.timeout, 1, ping).await
        };
        let pinging = AbortOnDropHandle::new(tokio::spawn(pinging));
        let answer = tokio::select! {
            biased;
            answer = pinging => answer,
            () = self.handle.stop.cancelled() => return Err(Interrupted::Stopped),
        };
        match answer {
            Ok(Ok(pong)) => Ok(pong),
            Ok(Err(error @ WriteError::Retry { .. })) => Err(Interrupted::Retry(error)),
            // A ping is about the node, not about a hint: whatever it says, trying later is all
            // there is to do.
            Ok(Err(error)) => Err(Interrupted::Retry(WriteError::retry(error))),
            Err(error) => {
                let error = format!("the ping panicked: {error}");
                Err(Interrupted::Retry(WriteError::retry(error)))
            }
        }
    }

    fn caught_up(&mut self) -> RoundPause {
        self.backoff.reset();
        self.troubles.clear();
        // Something may be in the hands of a limit, which keeps it if the store fails then, and
        // rings no bell.
        let is_kept = self.line.store.has_pending(self.line.node);
        match is_kept {
            true => self.handle.progress.waits_still(),
            false => self.handle.progress.well(NodeState::CaughtUp),
        }
        self.line.note_status(&self.handle.progress, &self.troubles);
        RoundPause {
            most: is_kept.then_some(self.settings.retry_interval),
            hears_after: Some(Duration::ZERO),
        }
    }

    /// All shards with hints are left alone, and so is the node: without this each of them would
    /// come back by itself, however many they are. A new hint may be for another shard, but one
    /// that is not is not worth a round at once.
    fn failing(&mut self, failing: Failing) -> RoundPause {
        let mut most = Duration::ZERO;
        if failing.answered {
            self.backoff.reset();
            self.answered = Some(Instant::now());
        }
        if failing.is_storm || !failing.answered {
            self.troubles.was_in_vain();
        }
        if failing.failed {
            self.sends_fail();
        } else if failing.only_unknown {
            self.handle.progress.only_unknown();
            // It answered the ping, and nothing that waits will be sent to see whether it takes
            // that.
            self.line.link.replayed();
        }
        // With the node's own waits, too, so that not each shard of an unknown format has a round
        // of its own.
        if failing.failed || self.troubles.unknown().is_some() {
            most = self.backoff.next(failing.wish);
        }
        if let Some(until) = failing.until {
            most = most.max(until.saturating_duration_since(Instant::now()));
        }
        // While a node answers, new hints are worth a round although many shards fail.
        let lately = self.settings.retry_max_interval;
        let answers = self.answered.is_some_and(|at| at.elapsed() < lately);
        let hears = failing.hears || (failing.is_storm && answers);
        let hears_after = hears.then_some(self.settings.retry_interval);
        RoundPause {
            most: Some(most),
            hears_after,
        }
    }

    /// A node that answers is not down.
    fn sends_fail(&self) {
        let answered = self.line.link.last_answer();
        let has_answered = answered.is_some_and(|at| at.elapsed() < ANSWERS_FOR);
        match has_answered || self.pong == Pong::Answered {
            true => self.handle.progress.failing(),
            false => self.handle.progress.down(),
        }
    }

    fn unreachable(&mut self, error: &WriteError) -> RoundPause {
        self.line.link.ping_failed(&with_causes(error));
        self.troubles.is_down();
        self.is_down(error);
        let wish = match error {
            WriteError::Retry { after, .. } => *after,
            _ => None,
        };
        RoundPause {
            most: Some(self.backoff.next(wish)),
            hears_after: None,
        }
    }

    fn is_down(&self, error: &dyn std::error::Error) {
        let progress = &self.handle.progress;
        self.line.failed(progress, with_causes(error));
        progress.down();
        self.line.note_status(progress, &self.troubles);
        progress.stalled_by(None);
    }
}
