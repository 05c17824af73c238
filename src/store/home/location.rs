//! Where a store lives: in a directory of its own, or in a database of the host's.

use std::{path::PathBuf, sync::Arc};

use crate::{
    error::OpenError,
    store::{
        engine::anchor::Anchor,
        format::shutdown_summary::Summary,
        home::{directory::Directory, host_database::HostDatabase},
    },
};

pub enum Home {
    /// A directory of its own, and the generation in use. Whoever compacts generations has the
    /// directory, too, so that its lock is held until that is over.
    Owned {
        directory: Arc<Directory>,
        generation: String,
    },
    /// A database that the host opened and keeps: the store cannot close it, open it again or
    /// replace it.
    Shared(HostDatabase),
}

impl Home {
    /// sled's directory.
    pub fn database(&self) -> PathBuf {
        match self {
            Home::Owned {
                directory,
                generation,
            } => directory.generation(generation),
            Home::Shared(database) => database.path().to_owned(),
        }
    }

    /// The directory of its own, if it has one.
    pub fn directory(&self) -> Option<Arc<Directory>> {
        match self {
            Home::Owned { directory, .. } => Some(Arc::clone(directory)),
            Home::Shared(_) => None,
        }
    }

    /// Where the lock must be found for as long as it is held.
    pub fn anchor(&self) -> &Anchor {
        match self {
            Home::Owned { directory, .. } => directory.anchor(),
            Home::Shared(database) => database.anchor(),
        }
    }

    /// Leaves the summary of a clean shutdown.
    pub fn write_clean_summary(&self, summary: &Summary) -> Result<(), OpenError> {
        match self {
            Home::Owned {
                directory,
                generation,
            } => directory.write_clean_summary(generation, summary),
            Home::Shared(database) => database.write_clean_summary(summary),
        }
    }
}
