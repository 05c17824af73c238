//! The registry behind its lock, and room that was promised under it. Whoever makes room under the
//! lock tells those who wait for room, right after it lets go of it.

use std::{
    ops::{Deref, DerefMut},
    sync::{OnceLock, Weak},
};

use parking_lot::{Mutex, MutexGuard};

use crate::store::state::{
    limits::{Amounts, Quota},
    registry::Registry,
};

/// Called when there may be room where there was none, or nothing to wait for any more. Must not
/// block.
pub type OnRoom = Box<dyn Fn() + Send + Sync>;

/// One mutex over the registry; nothing is taken while it is held but the inbox's, to mark a cursor
/// that moves, and nobody is told.
pub struct Guarded {
    registry: Mutex<Registry>,
    on_room: OnceLock<OnRoom>,
}

/// The registry, until it is dropped.
pub struct RegistryGuard<'a> {
    // Dropped in this order: the lock is released before the bell is rung.
    registry: MutexGuard<'a, Registry>,
    bell: Bell<'a>,
}

/// Rings when it is dropped, if it is to.
struct Bell<'a> {
    guarded: &'a Guarded,
    rings: bool,
}

impl Guarded {
    pub fn new(registry: Registry) -> Self {
        Guarded {
            registry: Mutex::new(registry),
            on_room: OnceLock::new(),
        }
    }

    pub fn lock(&self) -> RegistryGuard<'_> {
        RegistryGuard {
            registry: self.registry.lock(),
            bell: Bell {
                guarded: self,
                rings: false,
            },
        }
    }

    /// Says whom to tell; the first word counts.
    pub fn on_room(&self, on_room: OnRoom) {
        let _ = self.on_room.set(on_room);
    }

    /// Tells those who wait for room to look again.
    pub fn ring(&self) {
        if let Some(on_room) = self.on_room.get() {
            on_room();
        }
    }
}

impl Deref for RegistryGuard<'_> {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        &self.registry
    }
}

impl DerefMut for RegistryGuard<'_> {
    fn deref_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }
}

impl Drop for RegistryGuard<'_> {
    fn drop(&mut self) {
        self.bell.rings = std::mem::take(&mut self.registry.quota.freed);
    }
}

impl Drop for Bell<'_> {
    fn drop(&mut self) {
        if self.rings {
            self.guarded.ring();
        }
    }
}

/// Room that was promised; given back when it is dropped, unless its hints were published.
#[derive(Default)]
pub struct Reservation {
    held: Option<(Weak<Guarded>, Amounts)>,
}

impl Reservation {
    pub(crate) fn new(registry: Weak<Guarded>, held: Amounts) -> Self {
        Reservation {
            held: Some((registry, held)),
        }
    }

    /// Its hints are published under the lock of the account: they count as pending, and as nothing
    /// else.
    pub(crate) fn settle(mut self, quota: &mut Quota) {
        if let Some((_, held)) = self.held.take() {
            quota.unreserve(&held);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some((registry, held)) = self.held.take()
            && let Some(registry) = registry.upgrade()
        {
            let mut registry = registry.lock();
            registry.quota.unreserve(&held);
            registry.quota.freed = true;
        }
    }
}
