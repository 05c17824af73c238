//! Looking for hints whose own lifetime is over: they may stand anywhere in a queue, behind others
//! that live longer.
//!
//! The marks of a queue's age say in which stretches of it there may be one
//! (`store/state/ages.rs`). Such a stretch is looked through from its beginning to its end, some
//! megabytes a look, and then it is known when the next of its lifetimes ends. What was there at
//! open is looked through once, if any hint ever had a lifetime.

use super::{keeper::Keeper, oldest::read_unclaimed};
use crate::{
    error::HandoffError,
    store::{Due, PeekedHint, Place, Reader},
};

/// A look goes through so much at most, since others wait for it; reads are of 1,024 hints at most.
const LOOK_BYTES: u64 = 8 << 20;
const READS_A_LOOK: usize = 64;
/// When one is looked for again that could not leave yet, since somebody else has it.
const AGAIN_MS: u64 = 5000;

/// Where it is.
#[derive(Default)]
pub struct Search(Option<SearchPass>);

/// Through one stretch.
struct SearchPass {
    due: Due,
    reader: Reader,
    next: Place,
    /// The earliest end of a lifetime that was found.
    first_due_unix_ms: u64,
    oldest_unix_ms: u64,
}

impl Search {
    pub fn is_under_way(&self) -> bool {
        self.0.is_some()
    }

    /// Goes on where it was, and looks for more to look through.
    pub async fn go_on(&mut self, keeper: &Keeper) -> Result<(), HandoffError> {
        let mut bytes = 0;
        for _ in 0..READS_A_LOOK {
            if bytes >= LOOK_BYTES {
                return Ok(());
            }
            let pass = self.0.take().or_else(|| SearchPass::next(keeper));
            let Some(mut pass) = pass else {
                return Ok(());
            };
            let (read_bytes, is_done) = pass.read(keeper).await?;
            bytes += read_bytes;
            self.0 = (!is_done).then_some(pass);
        }
        Ok(())
    }
}

impl SearchPass {
    fn next(keeper: &Keeper) -> Option<SearchPass> {
        let ageing = &keeper.ageing;
        // While the wall clock is not believed nothing can be said of what was there at open.
        let with_unknown = ageing.has_lifetimes() && ageing.quiet_for().is_none();
        let due = keeper.store.next_due(ageing.now(), with_unknown)?;
        Some(SearchPass {
            due,
            reader: Reader::default(),
            next: Place {
                queue: due.queue,
                sequence: due.from,
            },
            first_due_unix_ms: u64::MAX,
            oldest_unix_ms: ageing.now(),
        })
    }

    /// Reads on, and has those leave that are over. How many bytes that were, and whether they were
    /// the last of it.
    async fn read(&mut self, keeper: &Keeper) -> Result<(u64, bool), HandoffError> {
        let (runtime, store, node) = (&keeper.runtime, &keeper.store, self.due.node);
        let reader = std::mem::take(&mut self.reader);
        let (reader, mut hints) =
            read_unclaimed(runtime, store, node, Some(self.next), reader).await?;
        self.reader = reader;
        let again = keeper.ageing.now().saturating_add(AGAIN_MS);
        let is_within = |hint: &PeekedHint| {
            let place = hint.mark.place();
            place.queue == self.due.queue && place.sequence < self.due.until
        };
        let count = hints.iter().take_while(|hint| is_within(hint)).count();
        hints.truncate(count);
        // What somebody else has is passed over.
        let first = hints.first().map(|hint| hint.mark.sequence);
        if first.is_none_or(|first| first > self.next.sequence) {
            self.first_due_unix_ms = self.first_due_unix_ms.min(again);
        }
        let (mut over, mut bytes) = (Vec::new(), 0);
        for hint in &hints {
            bytes += hint.hint.payload_bytes();
            let age = keeper.ageing.of_read(store, hint);
            self.oldest_unix_ms = self.oldest_unix_ms.min(age.enqueued_unix_ms);
            match age.is_over {
                true => over.push(hint.clone()),
                false => {
                    let due = age.due_unix_ms.unwrap_or(u64::MAX);
                    let now = keeper.ageing.now();
                    let due = if due <= now { again } else { due };
                    self.first_due_unix_ms = self.first_due_unix_ms.min(due);
                }
            }
        }
        if !over.is_empty() && keeper.expire(node, over).await? > 0 {
            self.first_due_unix_ms = self.first_due_unix_ms.min(again);
        }
        match hints.last().map(|hint| hint.mark.place().next()) {
            Some(next) if next.sequence < self.due.until => {
                self.next = next;
                Ok((bytes, false))
            }
            _ => {
                let (due, oldest) = (self.first_due_unix_ms, self.oldest_unix_ms);
                store.note_searched(self.due, due, oldest);
                Ok((bytes, true))
            }
        }
    }
}
