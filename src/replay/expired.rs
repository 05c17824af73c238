//! Hints that are too old the moment they are to be given to somebody: they leave undelivered.

use std::sync::{Arc, Weak};

use tokio::sync::oneshot;

use super::{claim::Claim, line::Line};
use crate::{
    error::HandoffError,
    store::{LossReason, PeekedHint, Store},
    types::{Amount, NodeId, ShardId},
};

/// What is left of a claim.
pub enum Checked {
    /// All of it: nothing of it is too old.
    All(Claim),
    /// These. The others have left, and that is durable. They are nobody's now.
    Some(Vec<PeekedHint>),
}

/// Has those of a claim leave that are too old. What was read long ago may have grown old since,
/// and those who look for such hints look once a second at most.
pub async fn check(
    line: &Line<impl Sized>,
    shard: ShardId,
    mut claim: Claim,
) -> Result<Checked, HandoffError> {
    let is_over = |hint: &PeekedHint| line.ageing.is_hint_over(&line.store, hint);
    if !claim.hints.iter().any(is_over) {
        return Ok(Checked::All(claim));
    }
    let (expired, kept) = claim.hints.drain(..).partition(is_over);
    claim.hints = kept;
    let left = lose(&line.store, line.node, expired, LossReason::Expired).await?;
    tracing::warn!(
        node = line.node.0,
        shard = shard.0,
        hints = left.hints,
        bytes = left.bytes,
        "hints that were about to be sent had become too old"
    );
    Ok(Checked::Some(claim.hints.clone()))
}

/// Lets claimed hints leave undelivered, waits until that is durable, and counts them. Begun as
/// soon as it is polled, and not undone by dropping it.
pub async fn lose(
    store: &Arc<Store>,
    node: NodeId,
    hints: Vec<PeekedHint>,
    reason: LossReason,
) -> Result<Amount, HandoffError> {
    let (tell, told) = oneshot::channel();
    // Counted where it is done, since the caller may give up.
    let counting: Weak<Store> = Arc::downgrade(store);
    let claimed = hints.clone();
    let done = move |result: Result<Amount, HandoffError>| {
        match (&result, counting.upgrade()) {
            (Ok(left), Some(store)) => store.note_taken(node, reason, *left),
            // A store that failed forgets all claims when it is opened again; one that serves would
            // keep this for ever.
            (Err(_), Some(store)) if store.check_serving().is_ok() => store.release(node, &claimed),
            _ => {}
        }
        let _ = tell.send(result);
    };
    store.lose(node, hints, reason, done);
    told.await.unwrap_or(Err(HandoffError::ShutDown))
}
