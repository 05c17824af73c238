//! Failures of the storage below.

use std::{
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
};

use serde::{Serialize, Serializer};

/// A failure of the storage below: the disk, the file system or the engine.
///
/// Serialized as its action, and its source with that one's causes as a text, `error`.
#[derive(Debug, Clone, thiserror::Error, Serialize)]
#[error("storage failed to {action}")]
#[non_exhaustive]
pub struct StorageError {
    /// What the store was about to do.
    pub action: &'static str,
    /// What went wrong. Shared, since everybody who waits is told.
    #[serde(rename = "error", serialize_with = "causes_as_text")]
    pub source: Arc<dyn Error + Send + Sync>,
}

fn causes_as_text<S: Serializer>(
    source: &Arc<dyn Error + Send + Sync>,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.serialize_str(&with_causes(source.as_ref()))
}

impl StorageError {
    pub(crate) fn new(
        action: &'static str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        StorageError {
            action,
            source: Arc::from(source.into()),
        }
    }
}

/// The directory of a store that is open is not where its path leads any more: the source of a
/// [`StorageError`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} is not the file that this store holds open: its directory was removed, moved or exchanged; put it back, shut this handle \
     down, and open it again", file.display()
)]
#[non_exhaustive]
pub struct DirectoryGone {
    /// A file of the store's that is not there, or another one by now.
    pub file: PathBuf,
}

/// An error and all its causes in a line. They may be the host's, and what panics in them is no
/// text.
pub fn with_causes(error: &dyn Error) -> String {
    let text = || {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            text = format!("{text}: {cause}");
            next = cause.source();
        }
        text
    };
    catch_unwind(AssertUnwindSafe(text))
        .unwrap_or_else(|_| "an error whose text cannot be told: it panicked".to_owned())
}
