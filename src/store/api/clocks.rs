//! What the store keeps of clocks that were wrong, and of lifetimes.

use crate::{
    error::{HandoffError, StorageError},
    store::{Store, engine::meta, format::correction::Correction, pipeline::node_request::Request},
};

impl Store {
    /// What earlier lives found of their clocks. Reads from the engine.
    pub fn corrections(&self) -> Result<Vec<Correction>, HandoffError> {
        let read = meta::corrections(&*self.shared.engine()?);
        read.map_err(|error| StorageError::new("read from the engine", error).into())
    }

    /// Whether any hint ever had a lifetime of its own. Reads from the engine.
    pub fn has_lifetimes(&self) -> Result<bool, HandoffError> {
        let read = meta::has_lifetimes(&*self.shared.engine()?);
        read.map_err(|error| StorageError::new("read from the engine", error).into())
    }

    /// Records what is known of clocks that were wrong, in place of what was; told once it is
    /// durable.
    pub fn set_corrections(
        &self,
        corrections: Vec<Correction>,
        done: impl FnOnce(Result<(), HandoffError>) + Send + 'static,
    ) {
        self.ask(done, |done| Request::Corrections(corrections, done));
    }
}
