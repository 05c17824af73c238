//! The oldest hints of a node that are nobody's, and having them leave undelivered.

use std::sync::{Arc, Weak};

use tokio::{runtime::Handle, sync::oneshot};

use crate::{
    error::HandoffError,
    replay::judge_damage,
    store::{LossReason, Peek, PeekLimits, PeekedHint, Place, Reader, Store},
    types::{Amount, NodeId},
};

/// Read at a time.
const READ: PeekLimits = PeekLimits {
    hints: 1024,
    payload_bytes: 1024 * 1024,
};

/// What was read, with the reader; no hints if there are none that are nobody's, or none that reads.
type Read = Result<(Reader, Vec<PeekedHint>), HandoffError>;

/// Reads, on a blocking thread, from the first hint on that nobody has claimed; others behind it may be claimed all the same.
pub async fn read_unclaimed(
    runtime: &Handle,
    store: &Arc<Store>,
    node: NodeId,
    from: Option<Place>,
    mut reader: Reader,
) -> Read {
    let mut judged = None;
    loop {
        let Some(head) = store.head(node, from) else {
            return Ok((reader, Vec::new()));
        };
        let reading = Arc::clone(store);
        let task = runtime.spawn_blocking(move || {
            let peeked = reading.peek_from(&mut reader, node, Some(head.place), READ);
            (reader, peeked)
        });
        // A panic in a read is caught below; what is left is a runtime that shuts down.
        let (back, peeked) = task.await.map_err(|_| HandoffError::ShutDown)?;
        reader = back;
        match peeked? {
            Peek::Empty => return Ok((reader, Vec::new())),
            Peek::Hints(hints) => return Ok((reader, hints)),
            // What does not read behind others is judged once it comes first.
            Peek::Damaged(place) if judged == Some(place) => return Ok((reader, Vec::new())),
            Peek::Damaged(place) => {
                judged = Some(place);
                reader.forget();
                judge_damage(store, node, place.queue).await?;
            }
        }
    }
}

/// Lets claimed hints leave undelivered, waits until that is durable, and counts them. Begun as soon as it is polled, and not undone
/// by dropping it.
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
            // A store that failed forgets all claims when it is opened again; one that serves would keep this for ever.
            (Err(_), Some(store)) if store.check_serving().is_ok() => store.release(node, &claimed),
            _ => {}
        }
        let _ = tell.send(result);
    };
    store.lose(node, hints, reason, done);
    told.await.unwrap_or(Err(HandoffError::ShutDown))
}
