//! Points that become a hint.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use bytes::Bytes;

use super::handoff::HintedHandoff;
use crate::{
    error::EnqueueError,
    payload::{EncodeError, Payload},
    store::{Hint, panic_text},
    types::ShardId,
};

/// As it is stored: one that is too long to be is as good as for ever.
fn lifetime_ms(lifetime: Duration) -> u64 {
    u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX - 1)
}

impl<P: Payload> HintedHandoff<P> {
    /// Checks points and makes a hint of them, which was enqueued now.
    pub(crate) fn encode(&self, shard: ShardId, points: &P) -> Result<Hint, EnqueueError> {
        let mut bytes = Vec::new();
        // A panic there refuses this write, as an error does, and unwinds through nobody else's.
        let encode = || points.encode(&mut bytes).map(|()| points.expires_after());
        let lifetime = catch_unwind(AssertUnwindSafe(encode)).unwrap_or_else(|panic| {
            let text = panic_text(panic.as_ref());
            Err(EncodeError::new(format!("the encoder panicked: {text}")))
        })?;
        self.check_size(bytes.len())?;
        let lifetime_ms = lifetime.map(lifetime_ms);
        lifetime_ms.inspect(|ms| self.inner.ageing.note_lifetime(*ms));
        Ok(Hint {
            shard,
            format: P::FORMAT,
            enqueued_unix_ms: self.inner.ageing.now(),
            payload: Bytes::from(bytes),
            origin: None,
            write: None,
            lifetime_ms,
        })
    }

    /// Whether a payload of so many bytes can be a hint.
    pub(super) fn check_size(&self, bytes: usize) -> Result<(), EnqueueError> {
        let (bytes, max) = (bytes as u64, self.config().max_entry_bytes);
        match bytes {
            0 => Err(EnqueueError::EmptyPoints),
            _ if bytes > max => Err(EnqueueError::EntryTooLarge { bytes, max }),
            _ => Ok(()),
        }
    }
}
