//! The direct sends of a write: how each begins, how long it may take, and how it ends.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    error::OwnerError,
    replica::{Direct, Kept, Sending},
    write::{Heard, Tell, Write},
};
use crate::{
    error::with_causes,
    links::Barred,
    payload::Payload,
    replay::caught,
    shard_writer::{Batch, ShardWrite, ShardWriter, WriteError},
    store::{Safeguard, is_off, panic_text},
};

/// Tells that a send has ended, also if it was aborted.
struct Report {
    tell: Tell,
    copy: usize,
    answer: Result<(), OwnerError>,
}

impl Report {
    fn end(mut self, answer: Result<(), OwnerError>) {
        self.answer = answer;
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let answer = mem::replace(&mut self.answer, Ok(()));
        // Nobody listens only if the write's task is gone.
        let _ = self.tell.send((self.copy, Heard::Sent(answer)));
    }
}

impl<P: Payload + Clone, W: ShardWriter<P>> Write<P, W> {
    pub(super) fn begin(&mut self, index: usize) {
        let Some(copy) = self.copies.get_mut(index) else {
            return;
        };
        let Some(place) = copy.place.take() else {
            return self.send(index);
        };
        let tell = self.tell.clone();
        tokio::spawn(async move {
            let turn = place.turn().await;
            let _ = tell.send((index, Heard::Turn(turn)));
        });
    }

    /// Sends a copy to its owner, unless that is known to be of no use.
    pub(super) fn send(&mut self, index: usize) {
        let (bytes, timeout) = (self.hint.payload_bytes(), self.write_timeout());
        let Some(copy) = self.copies.get_mut(index) else {
            return;
        };
        // Replay finds out whether a node answers again; where there is none a write has to.
        let begun = match copy.link.begin(bytes) {
            Err(Barred::Closed) if !self.handoff.is_replayed(copy.node) => {
                copy.link.try_closed(bytes)
            }
            begun => begun,
        };
        let outstanding = match begun {
            Ok(outstanding) => outstanding,
            Err(barred) => {
                copy.link.not_tried();
                copy.direct = Direct::Failed(match barred {
                    Barred::Closed => OwnerError::GateClosed,
                    Barred::Full => OwnerError::TooManyOutstanding,
                });
                return;
            }
        };
        // The host's code, as the write is: a panic in it is a send that failed.
        let points = catch_unwind(AssertUnwindSafe(|| self.points.clone()));
        let points = match points {
            Ok(points) => points,
            Err(panic) => {
                let error = OwnerError::Panicked(panic_text(panic.as_ref()));
                copy.link.failed(self.hint.shard, &with_causes(&error));
                copy.direct = Direct::Failed(error);
                return;
            }
        };
        let write = ShardWrite {
            node: copy.node,
            shard: self.hint.shard,
            retired_below: None,
            batches: vec![Batch {
                hint: None,
                redriven_from: None,
                write: self.hint.write,
                enqueued: self.handoff.ageing().shown(self.hint.enqueued_unix_ms),
                points,
            }],
        };
        let report = Report {
            tell: self.tell.clone(),
            copy: index,
            answer: Err(OwnerError::TimedOut(timeout)),
        };
        let writer = Arc::clone(&self.writer);
        let (node, shard) = (write.node, write.shard);
        let send = tokio::spawn(async move {
            let answer = caught(async { writer.write_shard(write).await }).await;
            drop(outstanding);
            report.end(match answer {
                // One batch: it was taken, or it was not.
                Ok(answer) => match WriteError::settle(answer, 1, node, shard) {
                    Ok(_) => Ok(()),
                    Err(error) => Err(OwnerError::Write(Arc::new(error))),
                },
                Err(panic) => Err(OwnerError::Panicked(panic)),
            });
        });
        copy.direct = Direct::Sending(Sending {
            send: send.abort_handle(),
            began: Instant::now(),
            is_slow: false,
            aborted: None,
        });
    }

    pub(super) fn sent(&mut self, index: usize, answer: Result<(), OwnerError>) {
        let shard = self.hint.shard;
        let Some(copy) = self.copies.get_mut(index) else {
            return;
        };
        // It may have been given up before.
        if !matches!(copy.direct, Direct::Sending(_)) {
            return;
        }
        copy.direct = match answer {
            Ok(()) => {
                copy.link.taken();
                Direct::Taken
            }
            Err(error) if error.is_refusal() => {
                copy.link.refused();
                Direct::Refused(error)
            }
            Err(error) => {
                copy.link.failed(shard, &with_causes(&error));
                Direct::Failed(error)
            }
        };
        if copy.is_taken()
            && let Some(unsure) = copy.unsure.take()
        {
            // If it was not found it has not left either.
            let _ = unsure.deliver();
        }
        copy.unsure = None;
        // The turn of one that failed is kept until its hint is durable.
        if !matches!(copy.direct, Direct::Failed(_)) {
            copy.turn = None;
        }
        // There may be room by now.
        if matches!(copy.kept, Kept::NotStored(..)) {
            copy.kept = Kept::Nothing;
        }
    }

    /// Has sends that take long hinted, and told to end when their time is over.
    pub(super) fn watch_sends(&mut self, now: Instant) {
        let (timeout, slow_after) = (self.write_timeout(), self.slow_after());
        if self.handoff.config().hint_after.is_zero() && self.asked.is_reached(&self.copies) {
            self.hints_now = true;
        }
        for index in 0..self.copies.len() {
            let (hints_at, sends_by) = (self.hints_at(index), self.sends_by);
            let Some(copy) = self.copies.get_mut(index) else {
                continue;
            };
            let Direct::Sending(sending) = &mut copy.direct else {
                continue;
            };
            if !sending.is_slow && now >= sending.began + slow_after {
                sending.is_slow = true;
                copy.link.slow(sending.began, slow_after);
            }
            match sending.aborted {
                None if now >= sending.ends_at(timeout, sends_by) => {
                    sending.send.abort();
                    sending.aborted = Some(now);
                }
                // The host's code blocks its thread: it is waited for no longer.
                Some(aborted) if now >= aborted + timeout => {
                    let error = OwnerError::TimedOut(timeout);
                    self.sent(index, Err(error));
                    continue;
                }
                _ => {}
            }
            if hints_at.is_some_and(|at| now >= at)
                && matches!(copy.kept, Kept::Nothing)
                && !is_off(Safeguard::HintAfter)
            {
                self.make_hint(index);
            }
        }
    }

    /// When the hint of a send that is under way is to be made.
    pub(super) fn hints_at(&self, index: usize) -> Option<Instant> {
        let Direct::Sending(sending) = &self.copies.get(index)?.direct else {
            return None;
        };
        let ends = sending.ends_at(self.write_timeout(), self.sends_by);
        let hint_after = self.handoff.config().hint_after;
        Some(match (self.hints_now, hint_after.is_zero()) {
            (true, _) => sending.began,
            (false, true) => ends,
            // From the write's begin: those in line behind it are as old, and their hints wait for
            // this one.
            (false, false) => ends.min(self.began + hint_after),
        })
    }

    /// Whether all that is outstanding has been so for long enough to be hinted.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        (0..self.copies.len()).all(|index| match self.copies.get(index) {
            Some(copy) if copy.is_under_way() => self.hints_at(index).is_some_and(|at| now >= at),
            _ => true,
        })
    }
}
