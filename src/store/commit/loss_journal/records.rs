//! The journal from records that were found without its tree.

use bytes::Bytes;
use std::collections::BTreeMap;

use super::{Folded, LossRecord, NODE, RANGE, index_of};
use crate::{store::format::loss::Losses, types::QueueId};

/// What records by key, damaged ones among them, tell from an index on.
pub fn of_records(records: &BTreeMap<Vec<u8>, Bytes>, since: u64) -> Losses {
    let mut losses = Losses::default();
    let mut folded = Folded::default();
    for (key, value) in records {
        match (LossRecord::read(key, value), index_of(key)) {
            (Ok(LossRecord::Folded(found)), _) => folded = found,
            (Ok(LossRecord::Entry(index, loss)), _) => {
                losses.next = losses.next.max(index + 1);
                // It may have been folded, and not be gone yet.
                if index >= folded.below {
                    let sum = losses.by_reason.entry(loss.reason).or_default();
                    *sum = sum.plus(loss.amount);
                    losses.entries.push((index, loss));
                }
            }
            (Ok(LossRecord::Range(range)), _) => losses.folded.push(range),
            (Ok(LossRecord::Node(node)), _) => losses.not_stored.push(node),
            (Ok(LossRecord::NodesForgotten(index)), _) => {
                losses.not_stored_forgotten = Some(index);
            }
            (Err(_), Some(queue)) if key.first() == Some(&RANGE) => {
                losses.forgotten = Some((QueueId(queue.saturating_add(1)), u64::MAX));
            }
            (Err(_), _) if key.first() == Some(&NODE) => {
                losses.not_stored_forgotten = Some(u64::MAX);
            }
            (Err(_), Some(index)) => {
                losses.next = losses.next.max(index.saturating_add(1));
                losses.unreadable.push(index);
            }
            (Err(_), None) => {}
        }
    }
    losses.next = losses.next.max(folded.below);
    losses.forgotten = losses.forgotten.max(folded.forgotten);
    for (reason, amount) in folded.by_reason {
        let sum = losses.by_reason.entry(reason).or_default();
        *sum = sum.plus(amount);
    }
    losses.keep_since(since);
    losses
}
