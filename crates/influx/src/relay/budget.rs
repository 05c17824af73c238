//! The memory of all bodies that are under way.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many bytes of bodies may be under way.
#[derive(Debug, Clone)]
pub struct Budget {
    bytes: u64,
    free: Arc<Semaphore>,
}

/// Bodies under way take all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many bytes of writes are under way; send this again later")]
pub struct Full;

/// What one body takes of it, until it is dropped.
#[derive(Debug)]
pub struct Share {
    of: Budget,
    held: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub fn new(bytes: u64) -> Budget {
        let places = usize::try_from(bytes).unwrap_or(usize::MAX);
        let places = places.min(Semaphore::MAX_PERMITS);
        Budget {
            bytes: places as u64,
            free: Arc::new(Semaphore::new(places)),
        }
    }

    /// Bytes that are taken.
    pub fn taken(&self) -> u64 {
        self.bytes
            .saturating_sub(self.free.available_permits() as u64)
    }

    /// Nothing of it yet.
    pub fn share(&self) -> Share {
        Share {
            of: self.clone(),
            held: None,
        }
    }
}

impl Share {
    /// Takes so much more. It waits for nobody: bodies that each wait for the end of another would
    /// wait for ever.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Full> {
        let bytes = u32::try_from(bytes).map_err(|_| Full)?;
        let more = Arc::clone(&self.of.free).try_acquire_many_owned(bytes);
        let more = more.map_err(|_| Full)?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }

    /// Takes more until it is so much.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), Full> {
        let held = self
            .held
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        self.grow(bytes.saturating_sub(held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_body_took_is_free_when_it_ends() {
        let budget = Budget::new(100);
        let (mut first, mut second) = (budget.share(), budget.share());
        first.grow(60).unwrap();
        second.grow(40).unwrap();
        assert_eq!(second.grow(1), Err(Full));
        assert_eq!(budget.taken(), 100);
        drop(first);
        second.grow_to(90).unwrap();
        second.grow_to(10).unwrap();
        assert_eq!(budget.taken(), 90);
        assert_eq!(second.grow_to(101), Err(Full));
        drop(second);
        assert_eq!(budget.taken(), 0);
    }
}
