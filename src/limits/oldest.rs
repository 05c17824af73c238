//! The oldest hints of a node that are nobody's.

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::{
    error::{HandoffError, ReplayStopped},
    replay::scrub,
    store::{Peek, PeekLimits, PeekedHint, Place, Reader, Store},
    types::NodeId,
};

/// Read at a time.
const READ: PeekLimits = PeekLimits {
    hints: 1024,
    payload_bytes: 1024 * 1024,
};

/// What was read, with the reader; no hints if there are none that are nobody's, or none that
/// reads.
type OldestRead = Result<(Reader, Vec<PeekedHint>), HandoffError>;

/// Reads, on a blocking thread, from the first hint on that nobody has claimed; others behind it
/// may be claimed all the same.
pub async fn read_unclaimed(
    runtime: &Handle,
    store: &Arc<Store>,
    node: NodeId,
    from: Option<Place>,
    mut reader: Reader,
) -> OldestRead {
    let mut scrubbed = None;
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
        let (back, peeked) = task.await.map_err(|_| ReplayStopped::RuntimeGone)?;
        reader = back;
        match peeked? {
            Peek::Empty => return Ok((reader, Vec::new())),
            Peek::Hints(hints) => return Ok((reader, hints)),
            // What does not read behind others is scrubbed once it comes first.
            Peek::Damaged(place) if scrubbed == Some(place) => return Ok((reader, Vec::new())),
            Peek::Damaged(place) => {
                scrubbed = Some(place);
                reader.forget();
                scrub(store, node, place.queue).await?;
            }
        }
    }
}
