//! Writes of the workload that leave as dead letters in the step that stores them, and what is
//! there of them at the end.

use tokio::sync::oneshot;

use super::{Host, payload, read_payload};
use crate::event::{Event, tell};
use hinted_handoff::{
    DeadReason, FailedOutcome, HintId, NodeId, ShardId,
    internals::{DeadCause, Fate, Hint},
};

/// Largest payload: dead letters stay, and are copied whenever the store is compacted.
const DEAD_LETTER_BYTES_MAX: usize = 20_000;

impl Host {
    /// One owner of a write rejected it, and another took it.
    pub async fn make_dead_letter(
        &self,
        number: u64,
        node: NodeId,
        shard: ShardId,
        bytes: usize,
    ) -> std::io::Result<()> {
        tell(&Event::DeadLettering {
            number,
            node,
            shard,
        })?;
        let hint = Hint {
            shard,
            format: 0,
            enqueued_unix_ms: 1,
            payload: payload(number, node, shard, bytes.min(DEAD_LETTER_BYTES_MAX)),
            origin: None,
            write: None,
            lifetime_ms: None,
        };
        let cause = DeadCause {
            reason: DeadReason::Rejected,
            error: "the workload refuses some".to_owned(),
            attempts: 1,
            first_failed_unix_ms: 1,
            last_failed_unix_ms: 1,
        };
        let (say, said) = oneshot::channel();
        let done = Box::new(move |answer| drop(say.send(answer)));
        let store = self.handoff.store_below();
        store.append_undelivered(node, hint, Fate::Dead(cause), done);
        match said.await {
            Ok(Ok(id)) => tell(&Event::Answered {
                number,
                id: Some(id),
            }),
            Ok(Err(error)) if error.outcome() == FailedOutcome::Refused => {
                tell(&Event::Refused { number })
            }
            _ => Ok(()),
        }
    }

    /// Every dead letter of every node, read.
    pub fn tell_dead_letters(&self) -> std::io::Result<()> {
        let store = self.handoff.store_below();
        for (node, _) in store.nodes() {
            let letters = store.letters(node, None, usize::MAX);
            for (place, dead) in letters.map_err(std::io::Error::other)? {
                let id = HintId {
                    store: store.id(),
                    queue: place.queue.queue,
                    sequence: place.sequence,
                };
                let read = store.letter(node, id).map_err(std::io::Error::other)?;
                let payload = read.map(|(_, _, hint)| hint.payload);
                let number = payload.and_then(|it| read_payload(&it, node, dead.shard));
                let number = number.ok_or_else(|| {
                    std::io::Error::other(format!("a dead letter that nobody wrote: {id}"))
                })?;
                tell(&Event::Dead { number, id })?;
            }
        }
        Ok(())
    }
}
