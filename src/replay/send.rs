//! One send, in a task of its own: wait for the rate, claim, decode, call the host's writer.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    claim::{Claim, Load},
    expired::{self, Checked},
    host_code::answered,
    line::Line,
};
use crate::{
    error::HandoffError,
    payload::{Payload, PayloadError, decode},
    shard_writer::{Batch, ShardWrite, ShardWriter, WriteError},
    store::PeekedHint,
    types::{HintId, ShardId},
};

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
    let claim = match expired::check(&line, shard, claim).await {
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
    let answer = WriteError::settle(answer, sent, line.node, shard);
    let took = began.elapsed();
    line.send_times.note(took);
    Landed {
        shard,
        tried,
        took,
        outcome: Outcome::Sent(claim, sent, answer),
    }
}

/// The points of the first hints: all up to one that does not decode, which is an error once it
/// comes first.
fn batches<P: Payload>(
    line: &Line<impl Sized>,
    hints: &[PeekedHint],
) -> Result<Vec<Batch<P>>, PayloadError> {
    let (store, moment) = (line.store.id(), line.ageing.moment());
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
            enqueued: moment.shown(hint.enqueued_unix_ms),
            points,
        });
    }
    Ok(batches)
}
