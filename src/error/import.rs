//! Why hints of another store did not come in.

use crate::{error::EnqueueError, types::HintId};

/// One hint of an import was not stored, or is not known to be.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{} hints of the import are stored, and the next one is not known to be", stored.len())]
#[non_exhaustive]
pub struct ImportError {
    /// The new ids of those before it, in their order.
    pub stored: Vec<HintId>,
    /// Why that one was not. Those behind it may be stored if its fate is unknown
    /// ([`EnqueueError::outcome`]), and are not if it was refused.
    pub source: EnqueueError,
}
