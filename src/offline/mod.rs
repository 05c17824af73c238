//! A store that nobody has open: what is in it, whether it is sound, its hints one by one; and
//! hints put into a store from outside.
//!
//! Reading changes nothing in the store's directory, `LOCK` included: sled, which writes to a
//! database as soon as it opens one, is not asked. All calls block; none needs a runtime.
//!
//! ```no_run
//! use hinted_handoff::offline::{ClosedStore, Selection, verify};
//!
//! let checked = verify("data/hints", |_done, _total| {})?;
//! println!("{}", if checked.is_sound() { "sound" } else { "damaged" });
//! let store = ClosedStore::open("data/hints")?;
//! for hint in store.hints(&Selection::default()) {
//!     let hint = hint?;
//!     println!("{} for {}: {} bytes", hint.id, hint.node, hint.payload.len());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod deep;

use std::{
    path::Path,
    sync::mpsc::{self, Receiver, Sender},
    time::Duration,
};

pub use deep::verify_deep;

pub use crate::import::Import;
pub use crate::store::{
    ClosedHint, ClosedHints, ClosedInfo, ClosedLetter, ClosedLetters, ClosedNode, ClosedStore,
    DeadCause, Finding, HeldStore, Selection, Severity, Verified, verify,
};
use crate::{
    config::{Config, MAX_ENTRY_BYTES_CEILING},
    error::{EnqueueError, HandoffError, OpenError, StorageError},
    store::{Fate, Reservation, Store},
    types::HintId,
};

/// What is handed in and not answered: so much memory an import takes.
const UNDER_WAY_BYTES: usize = 8 * 1024 * 1024;
const UNDER_WAY_HINTS: usize = 4096;

/// How many hints an import made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImportTally {
    /// Hints that are pending now.
    pub hints: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Payload bytes of both.
    pub bytes: u64,
}

/// Puts hints into a store that nobody has open, in the order in which they are given.
///
/// Kept are node, shard, order, payload and its format, age, lifetime and the id of the write; of
/// dead letters also how they came to be some. Each gets a new id, since an id names a place in
/// one store: receivers that know hints by their ids see new ones, those that know writes by theirs
/// do not. No limit of a config refuses or drops what is imported.
///
/// What was answered when an import ends early is in the store, and comes a second time if all is
/// imported again.
#[derive(Debug)]
pub struct Importer {
    store: Store,
    answered: Receiver<(usize, bool, Result<HintId, EnqueueError>)>,
    answer: Sender<(usize, bool, Result<HintId, EnqueueError>)>,
    under_way: usize,
    under_way_bytes: usize,
    patience: Duration,
    tally: ImportTally,
}

impl Importer {
    /// Opens the store in `dir`, and makes it if there is none.
    ///
    /// # Errors
    /// As [`HintedHandoff::open`](crate::HintedHandoff::open), such as
    /// [`OpenError::Locked`] if somebody has it open.
    pub fn open(dir: impl AsRef<Path>) -> Result<Importer, OpenError> {
        let config = Config::new(dir.as_ref());
        let (answer, answered) = mpsc::channel();
        Ok(Importer {
            store: Store::open(&config, Box::new(|_| {}))?,
            answered,
            answer,
            under_way: 0,
            under_way_bytes: 0,
            patience: config.commit_timeout.saturating_mul(4),
            tally: ImportTally::default(),
        })
    }

    /// Hands in the next one. Waits for earlier ones to be durable as far as memory asks for it.
    ///
    /// # Errors
    /// Why it, or an earlier one, was not stored. Then stop.
    pub fn push(&mut self, import: Import) -> Result<(), EnqueueError> {
        let bytes = import.payload.len();
        if bytes == 0 {
            return Err(EnqueueError::EmptyPoints);
        }
        if bytes as u64 > MAX_ENTRY_BYTES_CEILING {
            return Err(EnqueueError::EntryTooLarge {
                bytes: bytes as u64,
                max: MAX_ENTRY_BYTES_CEILING,
            });
        }
        while self.under_way > 0
            && (self.under_way >= UNDER_WAY_HINTS || self.under_way_bytes + bytes > UNDER_WAY_BYTES)
        {
            self.await_one()?;
        }
        let (node, hint, dead) = import.into_hint();
        let (answer, is_dead) = (self.answer.clone(), dead.is_some());
        // Nobody listens any more to what comes after an error.
        let done = Box::new(move |result| drop(answer.send((bytes, is_dead, result))));
        self.under_way += 1;
        self.under_way_bytes += bytes;
        match dead {
            Some(cause) => {
                let fate = Fate::Dead(cause);
                self.store.append_undelivered(node, hint, fate, done);
            }
            None => {
                let reserved = Reservation::default();
                self.store.append_within(reserved, node, hint, done);
            }
        }
        Ok(())
    }

    fn await_one(&mut self) -> Result<(), EnqueueError> {
        let answer = self.answered.recv_timeout(self.patience);
        let (bytes, is_dead, result) = answer.map_err(|error| {
            EnqueueError::from(HandoffError::from(StorageError::new("import", error)))
        })?;
        self.under_way -= 1;
        self.under_way_bytes -= bytes;
        result?;
        self.tally.bytes += bytes as u64;
        match is_dead {
            true => self.tally.dead_letters += 1,
            false => self.tally.hints += 1,
        }
        Ok(())
    }

    /// What is durable by now.
    pub fn tally(&self) -> ImportTally {
        self.tally
    }

    /// Waits until all that was handed in is durable, or is not going to be: then
    /// [`tally`](Importer::tally) is exact.
    ///
    /// # Errors
    /// Why the first that is not durable is not.
    pub fn settle(&mut self) -> Result<(), EnqueueError> {
        let mut settled = Ok(());
        while self.under_way > 0 {
            let before = self.under_way;
            settled = settled.and(self.await_one());
            // Nothing is answered any more.
            if self.under_way == before {
                break;
            }
        }
        settled
    }

    /// Waits until all is durable, and closes the store.
    ///
    /// # Errors
    /// Why something was not stored, or the store did not close.
    pub fn finish(mut self) -> Result<ImportTally, EnqueueError> {
        self.settle()?;
        self.store.close()?;
        Ok(self.tally)
    }
}

impl From<ClosedHint> for Import {
    fn from(hint: ClosedHint) -> Import {
        Import {
            node: hint.node,
            shard: hint.shard,
            format: hint.format,
            enqueued_unix_ms: hint.enqueued_unix_ms,
            lifetime_ms: hint.lifetime_ms,
            write: hint.write,
            payload: hint.payload,
            dead: None,
        }
    }
}
