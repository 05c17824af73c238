//! The replay task of one node: ping, peek, limit, send, acknowledge; back off when that fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use tracing::Instrument;

use super::{
    NodeHandle, Settings,
    backoff::Backoff,
    rate_limit::RateLimit,
    run::{Run, Undecodable, next_run},
};
use crate::{
    error::HandoffError,
    payload::Payload,
    shard_writer::{ShardWriter, WriteError},
    stats::NodeState,
    store::{Leave, Peek, PeekLimits, QueueRef, Reader, Store},
    types::NodeId,
};

/// Hints of a batch, beside `batch_bytes`: bounds what a batch of tiny hints takes in memory.
const BATCH_HINTS: usize = 8192;

pub struct NodeProcessor<P, W> {
    node: NodeId,
    store: Arc<Store>,
    writer: Arc<W>,
    settings: Settings,
    handle: Arc<NodeHandle>,
    /// Permits to read on a blocking thread, shared by all nodes.
    reads: Arc<Semaphore>,
    /// Nodes that have a batch in memory, or are about to.
    sending: Arc<AtomicU64>,
    limit: RateLimit,
    backoff: Backoff,
    reader: Reader,
    payload: std::marker::PhantomData<fn() -> P>,
}

/// Counts a node among those that hold a batch, until it is dropped.
struct Sending(Arc<AtomicU64>);

impl Sending {
    fn begin(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Relaxed);
        Sending(Arc::clone(count))
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Why a round ended before the queue was empty.
enum Interrupted {
    /// The node did not take it. Try again after a while.
    Retry(WriteError),
    /// The node, or this host, will not take it as it is.
    Stalled(Box<dyn std::error::Error + Send + Sync>),
    /// The host paused or parked the node. A bell rings when it is to go on.
    Held,
    /// Told to stop, at a safe point: nothing is in flight.
    Stopped,
    /// The store failed or was closed.
    Store(HandoffError),
}

impl<P: Payload, W: ShardWriter<P>> NodeProcessor<P, W> {
    pub fn new(
        node: NodeId,
        store: Arc<Store>,
        writer: Arc<W>,
        settings: Settings,
        handle: Arc<NodeHandle>,
        reads: Arc<Semaphore>,
        sending: Arc<AtomicU64>,
    ) -> Self {
        NodeProcessor {
            node,
            store,
            writer,
            limit: RateLimit::new(settings.rate_limit, settings.batch_bytes),
            backoff: Backoff::new(settings.retry_interval, settings.retry_max_interval),
            settings,
            handle,
            reads,
            sending,
            reader: Reader::default(),
            payload: std::marker::PhantomData,
        }
    }

    /// Runs until told to stop.
    pub async fn run(mut self) {
        let handle = Arc::clone(&self.handle);
        let _ended = handle.ended.clone().drop_guard();
        loop {
            let span = tracing::debug_span!(
                "replay_round",
                node = self.node.0,
                queue = tracing::field::Empty,
                first = tracing::field::Empty,
                last = tracing::field::Empty,
                bytes = tracing::field::Empty
            );
            // How long to wait at most, and whether the bell ends the wait.
            let (delay, listens) = match self.round().instrument(span).await {
                Ok(()) => {
                    self.backoff.reset();
                    handle.progress.well(NodeState::CaughtUp);
                    (None, true)
                }
                Err(Interrupted::Retry(error)) => {
                    handle.progress.failed(NodeState::Down, &error);
                    let wish = match error {
                        WriteError::Retry { after, .. } => after,
                        _ => None,
                    };
                    (Some(self.backoff.next(wish)), false)
                }
                Err(Interrupted::Stalled(error)) => {
                    handle.progress.failed(NodeState::Stalled, error.as_ref());
                    (Some(self.backoff.longest()), false)
                }
                Err(Interrupted::Held) => (None, true),
                Err(Interrupted::Stopped) => return,
                Err(Interrupted::Store(HandoffError::ShutDown)) => {
                    return handle.stop.cancelled().await;
                }
                Err(Interrupted::Store(error)) => {
                    // A failed store sends and acknowledges nothing; it rings when it is mended.
                    handle.progress.failed(NodeState::Down, &error);
                    (Some(self.backoff.longest()), true)
                }
            };
            // A node that is down keeps no block in memory.
            self.reader.forget();
            tokio::select! {
                () = handle.stop.cancelled() => return,
                () = sleep(delay.unwrap_or_default()), if delay.is_some() => {}
                () = handle.progress.woken(), if listens => {}
            }
        }
    }

    /// Sends until nothing is pending.
    async fn round(&mut self) -> Result<(), Interrupted> {
        // Held to the end of the round.
        let mut _counted = None;
        let mut pinged = false;
        let mut sent_bytes = 0;
        loop {
            self.check_held()?;
            // Before anything is read: a node that is down, or does not answer, costs neither a read nor memory.
            if !pinged {
                if !self.store.has_pending(self.node) {
                    return Ok(());
                }
                self.ping().await?;
                pinged = true;
                _counted = Some(Sending::begin(&self.sending));
            }
            let hints = match self.peek().await? {
                Peek::Empty => return Ok(()),
                Peek::Damaged(place) => {
                    self.judge_damage(place.queue).await?;
                    continue;
                }
                Peek::Hints(hints) => hints,
            };
            let mut hints = hints.into_iter().peekable();
            let (store, retired_below) = (self.store.id(), self.store.retired_below());
            loop {
                let run = match next_run::<P>(store, self.node, retired_below, &mut hints) {
                    Ok(Some(run)) => run,
                    Ok(None) => break,
                    Err(error @ Undecodable { .. }) => {
                        return Err(Interrupted::Stalled(error.into()));
                    }
                };
                let span = tracing::Span::current();
                if sent_bytes == 0 {
                    span.record("queue", run.last.queue.queue.0);
                    span.record("first", run.first.0);
                }
                sent_bytes += run.payload_bytes;
                span.record("last", run.last.sequence.0);
                span.record("bytes", sent_bytes);
                self.check_held()?;
                self.deliver(run).await?;
            }
        }
    }

    /// Before a round reads anything, and before each send.
    fn check_held(&self) -> Result<(), Interrupted> {
        match self.store.hold(self.node).is_held() {
            true => Err(Interrupted::Held),
            false => Ok(()),
        }
    }

    /// One send and its acknowledgement.
    async fn deliver(&mut self, run: Run<P>) -> Result<(), Interrupted> {
        let handle = Arc::clone(&self.handle);
        tokio::select! {
            () = handle.stop.cancelled() => return Err(Interrupted::Stopped),
            () = self.limit.wait(run.payload_bytes) => {}
        }
        let (first, last) = (run.first, run.last);
        let leave = match self.send(run).await? {
            Ok(()) => {
                self.backoff.reset();
                handle.progress.well(NodeState::Replaying);
                Leave::Delivered
            }
            Err(error @ WriteError::Obsolete { .. }) => {
                tracing::warn!(
                    node = self.node.0, queue = last.queue.queue.0,
                    first_lost = first.0, last_lost = last.sequence.0,
                    error = %super::progress::with_causes(&error),
                    "hints of a shard that is gone are discarded"
                );
                Leave::Lost
            }
            Err(error @ WriteError::Reject { .. }) => {
                return Err(Interrupted::Stalled(error.into()));
            }
            Err(error @ WriteError::Retry { .. }) => return Err(Interrupted::Retry(error)),
        };
        self.store
            .ack(self.node, last, leave)
            .map_err(Interrupted::Store)?;
        Ok(())
    }

    /// In a task of its own, so that a panic in the host's writer is a failed send. Told to stop, it lets the send
    /// finish for a while and then abandons it: it was not acknowledged, so it will be sent again.
    async fn send(&mut self, run: Run<P>) -> Result<Result<(), WriteError>, Interrupted> {
        // A failed store sends nothing new: what it could not acknowledge would only arrive twice.
        self.store.check_serving().map_err(Interrupted::Store)?;
        let writer = Arc::clone(&self.writer);
        let sending = async move { writer.write_shard(run.write).await };
        self.call("send", sending, self.settings.shutdown_grace)
            .await
    }

    async fn ping(&mut self) -> Result<(), Interrupted> {
        let (writer, node) = (Arc::clone(&self.writer), self.node);
        let pinging = async move { writer.ping(node).await };
        match self.call("ping", pinging, Duration::ZERO).await? {
            Ok(()) => Ok(()),
            Err(error @ WriteError::Retry { .. }) => Err(Interrupted::Retry(error)),
            // A ping is about the node, not about a hint: whatever it says, trying later is all there is to do.
            Err(error) => Err(Interrupted::Retry(WriteError::retry(error))),
        }
    }

    async fn call(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<(), WriteError>> + Send + 'static,
        grace: Duration,
    ) -> Result<Result<(), WriteError>, Interrupted> {
        let limit = self.settings.write_timeout;
        let mut task = tokio::spawn(work);
        let abort = task.abort_handle();
        let answered = async {
            match timeout(limit, &mut task).await {
                Ok(Ok(result)) => result,
                Ok(Err(error)) => Err(WriteError::retry(format!("the {what} panicked: {error}"))),
                Err(_) => {
                    let limit = humantime::format_duration(limit);
                    Err(WriteError::retry(format!(
                        "the {what} was not answered within write_timeout = {limit}"
                    )))
                }
            }
        };
        let grace_is_over = async {
            self.handle.stop.cancelled().await;
            sleep(grace).await;
        };
        let result = tokio::select! {
            biased;
            result = answered => Ok(result),
            () = grace_is_over => Err(Interrupted::Stopped),
        };
        abort.abort();
        result
    }

    /// Reads the next batch on a blocking thread.
    async fn peek(&mut self) -> Result<Peek, Interrupted> {
        if self.handle.stop.is_cancelled() {
            return Err(Interrupted::Stopped);
        }
        // The semaphore is never closed; if it were, stopping is right.
        let permit = self
            .reads
            .acquire()
            .await
            .map_err(|_| Interrupted::Stopped)?;
        let (store, node) = (Arc::clone(&self.store), self.node);
        let mut reader = std::mem::take(&mut self.reader);
        let limits = PeekLimits {
            hints: BATCH_HINTS,
            payload_bytes: self
                .settings
                .batch_bytes
                .min(super::BATCHES_BYTES / self.sending.load(Relaxed).max(1)),
        };
        let reading = tokio::task::spawn_blocking(move || {
            let peeked = store.peek(&mut reader, node, limits);
            (reader, peeked)
        });
        // A panic in a read is caught below; what is left is a runtime that shuts down.
        let (reader, peeked) = reading.await.map_err(|_| Interrupted::Stopped)?;
        drop(permit);
        self.reader = reader;
        peeked.map_err(Interrupted::Store)
    }

    async fn judge_damage(&mut self, queue: QueueRef) -> Result<(), Interrupted> {
        self.reader.forget();
        let judged = super::judge_damage(&self.store, self.node, queue).await;
        judged.map_err(Interrupted::Store)
    }
}
