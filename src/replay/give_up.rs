//! Hints that the node will not take: to the dead letters, or lost with their shard. Durable before
//! the shard goes on.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{
    claim::Claim,
    send::{Landed, Outcome},
};
use crate::{
    error::HandoffError,
    store::{DeadCause, LossReason},
    types::ShardId,
};

/// Dead-letters the only hint of the claim.
pub async fn make_dead_letter(shard: ShardId, claim: Claim, cause: DeadCause) -> Landed {
    let (tell, told) = oneshot::channel();
    if let Some(hint) = claim.hints.first() {
        tracing::warn!(
            node = claim.node.0, shard = shard.0, queue = hint.mark.queue.queue.0, sequence = hint.mark.sequence.0,
            reason = ?cause.reason, attempts = cause.attempts, error = %cause.error,
            "a hint becomes a dead letter"
        );
        claim
            .store
            .make_dead_letter(claim.node, hint.clone(), cause, move |result| {
                let _ = tell.send(result);
            });
    }
    landed(shard, claim, told).await
}

/// Gives up the hints of a shard that is gone.
pub async fn lose(shard: ShardId, claim: Claim, error: String) -> Landed {
    let (tell, told) = oneshot::channel();
    if let (Some(first), Some(last)) = (claim.hints.first(), claim.hints.last()) {
        tracing::warn!(
            node = claim.node.0, shard = shard.0, hints = claim.hints.len(), queue = first.mark.queue.queue.0,
            first_lost = first.mark.sequence.0, last_lost = last.mark.sequence.0, %error,
            "hints of a shard that is gone are discarded"
        );
    }
    let reason = LossReason::Obsolete;
    claim
        .store
        .lose(claim.node, claim.hints.clone(), reason, move |result| {
            let _ = tell.send(result.map(drop));
        });
    landed(shard, claim, told).await
}

/// The claim is held until the store has answered, so that no limit takes them meanwhile.
async fn landed(
    shard: ShardId,
    claim: Claim,
    told: oneshot::Receiver<Result<(), HandoffError>>,
) -> Landed {
    let result = told.await.unwrap_or(Err(HandoffError::ShutDown));
    Landed {
        shard,
        tried: 0,
        took: Duration::ZERO,
        outcome: Outcome::GivenUp(claim, result),
    }
}
