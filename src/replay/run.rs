//! A run: consecutive hints of one shard, sent by one call.

use crate::{
    payload::{Payload, PayloadError, decode},
    shard_writer::{Batch, ShardWrite},
    store::{Mark, PeekedHint},
    types::{HintId, NodeId, QueueId, Sequence, StoreId},
};

/// What one `write_shard` carries, and what to acknowledge for it.
#[derive(Debug)]
pub struct Run<P> {
    pub write: ShardWrite<P>,
    pub first: Sequence,
    pub last: Mark,
    pub payload_bytes: u64,
}

/// A hint that cannot be turned back into points here.
#[derive(Debug, thiserror::Error)]
#[error("hint {sequence} of shard {} does not decode; it is kept", shard.0)]
pub struct Undecodable {
    pub sequence: Sequence,
    shard: crate::types::ShardId,
    source: PayloadError,
}

/// Takes the next run off the front of `hints`, which must not be empty when it is called.
///
/// A hint that does not decode ends the run before it; it is an error once it comes first.
pub fn next_run<P: Payload>(
    store: StoreId,
    node: NodeId,
    retired_below: Option<QueueId>,
    hints: &mut std::iter::Peekable<std::vec::IntoIter<PeekedHint>>,
) -> Result<Option<Run<P>>, Undecodable> {
    let mut run: Option<Run<P>> = None;
    while let Some(PeekedHint { mark, hint }) = hints.peek() {
        if run
            .as_ref()
            .is_some_and(|run| run.write.shard != hint.shard)
        {
            break;
        }
        let points = match decode(hint.format, &hint.payload) {
            Ok(points) => points,
            Err(_) if run.is_some() => break,
            Err(source) => {
                return Err(Undecodable {
                    sequence: mark.sequence,
                    shard: hint.shard,
                    source,
                });
            }
        };
        let batch = Batch {
            hint: Some(HintId {
                store,
                queue: mark.queue.queue,
                sequence: mark.sequence,
            }),
            redriven_from: hint.redriven_from(store),
            points,
        };
        let run = run.get_or_insert_with(|| Run {
            write: ShardWrite {
                node,
                shard: hint.shard,
                retired_below,
                batches: Vec::new(),
            },
            first: mark.sequence,
            last: *mark,
            payload_bytes: 0,
        });
        run.write.batches.push(batch);
        run.last = *mark;
        run.payload_bytes += hint.payload.len() as u64;
        hints.next();
    }
    Ok(run)
}
