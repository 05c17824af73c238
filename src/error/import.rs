//! Why hints of another store did not come in.

use crate::{error::EnqueueError, types::HintId};

/// One hint of an import was not stored, or is not known to be.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{} hints of the import are stored, and the next one is not known to be", stored.len())]
#[non_exhaustive]
pub struct ImportError {
    /// The new ids of those before it, in their order.
    pub stored: Vec<HintId>,
    /// Why that one was not, or is not known to be ([`EnqueueError::outcome`]). Some of those
    /// behind it may be stored: several are under way at a time.
    pub source: EnqueueError,
}
