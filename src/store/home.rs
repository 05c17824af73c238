//! Where a store lives: in a directory of its own, or in a database of the host's.

use std::path::PathBuf;

use super::{clean::Summary, directory::Directory, host_database::HostDatabase};
use crate::error::OpenError;

pub enum Home {
    /// A directory of its own, and the generation in use.
    Owned {
        directory: Directory,
        generation: String,
    },
    /// A database that the host opened and keeps: the store cannot close it, open it again or replace it.
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
