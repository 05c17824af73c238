//! What those who wait for the commit thread are told.

use crate::{
    error::{EnqueueError, HandoffError},
    types::HintId,
};

/// Told the outcome of an append. Dropped untold, the outcome is unknown.
pub type AppendDone = Box<dyn FnOnce(Result<HintId, EnqueueError>) + Send>;
/// Told the outcome of anything else.
pub type ControlDone<T> = Box<dyn FnOnce(Result<T, HandoffError>) + Send>;
