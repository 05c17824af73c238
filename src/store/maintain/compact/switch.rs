//! Going on with the copy of a generation: what the commit thread does of a compaction, while
//! writers wait.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use crate::{
    error::{HandoffError, StorageError},
    store::{
        commit::committer::{Committer, group_writer},
        engine::{
            copy::{GenerationCopy, Pass},
            generation::{Engine, panic_text},
        },
        failpoints::point,
        home::location::Home,
    },
};

/// More than this is not brought over while writers wait: then the copy is to catch up some more
/// first.
const BROUGHT_OVER_MAX: usize = 4 * 1024 * 1024;

impl Committer {
    /// Brings the rest over into a copy and goes on with that; returns the old engine, or `None` if
    /// there was too much to bring over.
    ///
    /// # Errors
    /// The store goes on with what it had. It has failed if that is in doubt: then what is in use
    /// is named anew when it is opened again.
    pub fn switch(&mut self, copy: &GenerationCopy) -> Result<Option<Arc<Engine>>, HandoffError> {
        let switched = self.guarded(|committer| {
            committer.settle()?;
            match committer.catch_up(copy) {
                Ok(true) => committer.take_up(copy).map(|old| Ok(Some(old))),
                Ok(false) => Ok(Ok(None)),
                // Only the copy is broken, or the engine, which then fails at the next that needs
                // it.
                Err(cause) => Ok(Err(HandoffError::Storage(cause))),
            }
        });
        switched.flatten()
    }

    /// Makes the copy equal to what is in use, durably; false if it is too far behind.
    fn catch_up(&self, copy: &GenerationCopy) -> Result<bool, StorageError> {
        let engine = self.engine()?;
        if !matches!(&self.home, Home::Owned { generation, .. } if *generation == copy.of) {
            return Err(StorageError::new(
                "go on with a copy",
                "it is one of another generation",
            ));
        }
        let caught_up = catch_unwind(AssertUnwindSafe(|| {
            let mut pass = Pass::default();
            while let Some(changes) = copy.differences(&engine, &mut pass)? {
                self.shared.busy.start();
                copy.apply(changes, &mut pass)?;
                if pass.bytes > BROUGHT_OVER_MAX {
                    return Ok(false);
                }
            }
            point("compact: caught up")?;
            Ok(true)
        }));
        caught_up.unwrap_or_else(|panic| {
            let text = panic_text(panic.as_ref());
            Err(StorageError::new("compact the store", text))
        })
    }

    /// From the change of `CURRENT` on nothing is written to the old generation, and before it
    /// nothing but the copy to the new one: two never both take writes.
    fn take_up(&mut self, copy: &GenerationCopy) -> Result<Arc<Engine>, StorageError> {
        let old = self.engine()?;
        let Home::Owned {
            directory,
            generation,
        } = &mut self.home
        else {
            return Err(StorageError::new(
                "go on with a copy",
                "the database is the host's",
            ));
        };
        directory
            .set_current(&copy.generation)
            .map_err(|error| StorageError::new("name the new generation", error))?;
        point("compact: named")?;
        generation.clone_from(&copy.generation);
        let counters = &self.shared.counters;
        counters
            .fsyncs_of_closed_engines
            .fetch_add(old.fsyncs(), Relaxed);
        counters.compactions.fetch_add(1, Relaxed);
        // It is another log.
        self.searched.clear();
        self.writer = Some(group_writer(
            Arc::clone(&copy.engine),
            &self.shared,
            &self.home,
        ));
        self.shared.swap_engine(Arc::clone(&copy.engine));
        Ok(old)
    }
}
