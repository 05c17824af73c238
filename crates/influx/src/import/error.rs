//! How an import fails.

use std::{
    io,
    path::{Path, PathBuf},
};

use hinted_handoff::{EnqueueError, OpenError, StorageError};

use crate::causes::with_causes;

/// The arguments do not fit together, or not what is to be imported.
const USAGE: u8 = 2;
const OTHER: u8 = 3;
const IN_USE: u8 = 4;

/// Why an import did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportFailure {
    /// The arguments do not fit together, or not what is to be imported. Nothing was written.
    #[error("{0}")]
    Usage(String),
    /// Somebody has the store open.
    #[error("the store {} is in use: stop the relay, then import", store.display())]
    InUse {
        /// Its directory.
        store: PathBuf,
        /// Who has it.
        source: OpenError,
    },
    /// The store does not open.
    #[error("the store {} does not open", store.display())]
    Open {
        /// Its directory.
        store: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// The store does not read.
    #[error("the store does not read")]
    Storage(#[from] StorageError),
    /// A hint was not stored. What was stored before is: import again to go on.
    #[error("a hint was not stored; import again to go on with it")]
    Enqueue(#[from] EnqueueError),
    /// A file or directory.
    #[error("could not {action} {}", path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What was imported is not known.
    #[error(
        "line {line} of {} does not read ({why}); move the file away to import all again, what is \
         in the store already comes twice then",
        path.display()
    )]
    Journal {
        /// The journal.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

impl ImportFailure {
    pub(super) fn file<P: AsRef<Path>>(
        action: &'static str,
        path: P,
    ) -> impl FnOnce(io::Error) -> ImportFailure + use<P> {
        let path = path.as_ref().to_owned();
        move |source| ImportFailure::File {
            action,
            path,
            source,
        }
    }

    pub(super) fn open(store: &Path) -> impl FnOnce(OpenError) -> ImportFailure + use<> {
        let store = store.to_owned();
        move |source| match source {
            OpenError::Locked { .. } => ImportFailure::InUse { store, source },
            source => ImportFailure::Open { store, source },
        }
    }

    /// What a program exits with after it.
    pub fn exit_code(&self) -> u8 {
        match self {
            ImportFailure::Usage(_) => USAGE,
            ImportFailure::InUse { .. } => IN_USE,
            _ => OTHER,
        }
    }

    /// It and its causes in a line.
    pub fn text(&self) -> String {
        with_causes(self)
    }
}
