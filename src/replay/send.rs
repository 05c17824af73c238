//! One send, in a task of its own: wait for the rate, claim, decode, call the host's writer.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    expired::{self, Checked},
    progress::Progress,
    rate_limit::RateLimit,
    round::Interrupted,
    send_limits::SendLimits,
    shard::Troubles,
};
use crate::{
    admission::{Admission, Sending},
    ageing::Ageing,
    clock::Clock,
    error::HandoffError,
    links::Link,
    payload::{Payload, PayloadError, decode},
    shard_writer::{Batch, ShardWrite, ShardWriter, WriteError},
    store::{PeekedHint, Status, Store, panic_text},
    types::{HintId, NodeId, QueueId, ShardId},
};

/// What all sends to a node have in common.
pub struct Line<W> {
    pub node: NodeId,
    pub store: Arc<Store>,
    pub writer: Arc<W>,
    pub limit: RateLimit,
    /// What all nodes share.
    pub send_limits: Arc<SendLimits>,
    pub timeout: Duration,
    pub clock: Clock,
    /// How old hints are.
    pub ageing: Arc<Ageing>,
    /// Told of every send, if direct writes keep behind them.
    pub admission: Option<Arc<Admission>>,
    /// Told how the node answers.
    pub link: Arc<Link>,
}

impl<W> Line<W> {
    /// An attempt failed.
    pub fn failed(&self, progress: &Progress, error: String) {
        progress.failed(error, self.clock.unix_ms());
    }

    /// Has the store remember how it goes, over restarts.
    pub fn note_status(&self, progress: &Progress, troubles: &Troubles) {
        let heads = troubles.heads();
        let seen = progress.seen();
        let status = Status {
            attempts: seen.attempts,
            last_error: seen.last_error,
            heads,
        };
        self.store.set_status(self.node, status);
    }

    /// Before a round begins, and before anything more is sent.
    pub fn check_held(&self) -> Result<(), Interrupted> {
        match self.store.hold(self.node).is_held() {
            true => Err(Interrupted::Held),
            false => Ok(()),
        }
    }
}

/// What one send is to carry.
pub struct Load {
    pub shard: ShardId,
    pub hints: Vec<PeekedHint>,
    pub retired_below: Option<QueueId>,
    /// How often the store had been opened again when they were read.
    pub reopens: u64,
    /// The answer is waited for so many times as long as usual.
    pub patience: u32,
    /// Whether the node took nothing since a ping or a send failed.
    pub in_doubt: bool,
}

/// Hints that nobody else may let leave until this is dropped.
pub struct Claim {
    pub store: Arc<Store>,
    pub node: NodeId,
    /// How often the store had been opened again when they were claimed.
    reopens: u64,
    pub hints: Vec<PeekedHint>,
    /// No direct write goes past it, until it is acknowledged, or known not to be.
    _sending: Option<Sending>,
}

impl Claim {
    /// Claims those that are still there, up to the first that is held, and says how many of them
    /// are in front of that.
    fn of(line: &Line<impl Sized>, load: &mut Load) -> (Self, usize) {
        let admission = line.admission.as_ref();
        let mut claim = Claim {
            store: Arc::clone(&line.store),
            node: line.node,
            reopens: 0,
            hints: Vec::new(),
            _sending: admission.map(|it| it.send(line.node, load.shard)),
        };
        let mut hints = std::mem::take(&mut load.hints);
        let claimed = line.store.claim_in_order(line.node, load.shard, &mut hints);
        claim.reopens = claimed.reopens;
        claim.hints = hints;
        (claim, claimed.in_front)
    }

    /// Gives all back but the first so many.
    pub fn first(mut self, hints: usize) -> Self {
        let others = self.hints.split_off(self.hints.len().min(hints));
        drop(Claim {
            store: Arc::clone(&self.store),
            node: self.node,
            reopens: self.reopens,
            hints: others,
            _sending: None,
        });
        self
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.hints.is_empty() {
            self.store
                .release_claimed(self.node, &self.hints, self.reopens);
        }
    }
}

/// How a task of the node's ended.
pub struct Landed {
    pub shard: ShardId,
    /// How many of the shard's first hints it tried to claim.
    pub tried: usize,
    /// How long the host's writer took.
    pub took: Duration,
    pub outcome: Outcome,
}

pub enum Outcome {
    /// Told not to begin, or the store was opened again since the hints were read, or the first of
    /// them is behind a held one.
    NotBegun,
    /// The store does not serve.
    Store(HandoffError),
    /// None of the hints was there any more.
    Nothing,
    /// Some of them were too old, and have left. These are still there.
    Expired(Vec<PeekedHint>),
    /// The first hint does not turn back into points.
    Undecodable(Claim, PayloadError),
    /// The writer was given so many of them, and took so many or failed.
    Sent(Claim, usize, Result<usize, WriteError>),
    /// All that was claimed is to leave undelivered, and that is durable now.
    GivenUp(Claim, Result<(), HandoffError>),
}

/// Sends, unless `quit` comes before it begins.
pub async fn send<P: Payload, W: ShardWriter<P>>(
    line: Arc<Line<W>>,
    mut load: Load,
    quit: CancellationToken,
) -> Landed {
    let shard = load.shard;
    let ended = |tried, outcome| Landed {
        shard,
        tried,
        took: Duration::ZERO,
        outcome,
    };
    let bytes = load.hints.iter().map(|it| it.hint.payload_bytes()).sum();
    let permit = async {
        line.limit.wait(bytes).await;
        line.send_limits.permit(bytes, load.in_doubt).await
    };
    let _permit = tokio::select! {
        biased;
        () = quit.cancelled() => return ended(0, Outcome::NotBegun),
        permit = permit => permit,
    };
    // A failed store sends nothing new: what it could not acknowledge would only arrive twice.
    if let Err(error) = line.store.check_serving() {
        return ended(0, Outcome::Store(error));
    }
    let (claim, tried) = Claim::of(&line, &mut load);
    if claim.reopens != load.reopens || tried == 0 {
        return ended(0, Outcome::NotBegun);
    }
    if claim.hints.is_empty() {
        return ended(tried, Outcome::Nothing);
    }
    let claim = match expired::check(&line, claim).await {
        Ok(Checked::All(claim)) => claim,
        Ok(Checked::Some(kept)) => return ended(tried, Outcome::Expired(kept)),
        Err(error) => return ended(tried, Outcome::Store(error)),
    };
    let batches = match batches::<P>(&line, &claim.hints) {
        Ok(batches) => batches,
        Err(error) => return ended(tried, Outcome::Undecodable(claim, error)),
    };
    let sent = batches.len();
    let write = ShardWrite {
        node: line.node,
        shard,
        retired_below: load.retired_below,
        batches,
    };
    let work = async { line.writer.write_shard(write).await };
    let began = Instant::now();
    let answer = answered("send", line.timeout, load.patience, work).await;
    let answer = WriteError::settle(answer, sent);
    Landed {
        shard,
        tried,
        took: began.elapsed(),
        outcome: Outcome::Sent(claim, sent, answer),
    }
}

/// The points of the first hints: all up to one that does not decode, which is an error once it
/// comes first.
fn batches<P: Payload>(
    line: &Line<impl Sized>,
    hints: &[PeekedHint],
) -> Result<Vec<Batch<P>>, PayloadError> {
    let store = line.store.id();
    let mut batches = Vec::with_capacity(hints.len());
    for PeekedHint { mark, hint } in hints {
        let points = match decode(hint.format, &hint.payload) {
            Ok(points) => points,
            Err(_) if !batches.is_empty() => break,
            Err(error) => return Err(error),
        };
        let id = HintId {
            store,
            queue: mark.queue.queue,
            sequence: mark.sequence,
        };
        batches.push(Batch {
            hint: Some(id),
            redriven_from: hint.redriven_from(store),
            write: hint.write,
            points,
        });
    }
    Ok(batches)
}

/// What the host's code answers, within so many times the limit. A panic in it, or no answer in
/// time, is worth a retry.
pub async fn answered<T>(
    what: &'static str,
    limit: Duration,
    times: u32,
    work: impl Future<Output = Result<T, WriteError>>,
) -> Result<T, WriteError> {
    match timeout(times * limit, caught(work)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panic)) => Err(WriteError::retry(format!("the {what} panicked: {panic}"))),
        Err(_) => {
            let limit = humantime::format_duration(limit);
            let times = match times {
                1 => String::new(),
                _ => format!("{times} times "),
            };
            Err(WriteError::retry(format!(
                "the {what} was not answered within {times}send_timeout = {limit}"
            )))
        }
    }
}

/// The output, or the text of a panic.
pub async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let mut work = pin!(work);
    std::future::poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic_text(panic.as_ref()))),
        }
    })
    .await
}
