//! A request for the commit thread, with a way to tell whoever waits that it may not be done: also
//! while the commit thread works on it, in case that hangs.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{
    error::HandoffError,
    store::pipeline::{control::Control, done::ControlDone},
};

/// Tells whoever waits for a request that it may not be done; nothing once that was answered.
pub type Refuse = Box<dyn FnOnce(HandoffError) + Send>;

pub struct Asked {
    control: Control,
    refuse: Refuse,
}

impl Asked {
    /// `done` is told what becomes of the request, once, by whoever is first.
    pub fn new<T: Send + 'static>(
        done: impl FnOnce(Result<T, HandoffError>) + Send + 'static,
        request: impl FnOnce(ControlDone<T>) -> Control,
    ) -> Asked {
        // Guards only this, and is let go before anybody is told.
        let slot = Arc::new(Mutex::new(Some(done)));
        let other = Arc::clone(&slot);
        Asked {
            control: request(Box::new(move |result| answer_once(&slot, result))),
            refuse: Box::new(move |error| answer_once(&other, Err(error))),
        }
    }

    /// Tells whoever waits that it will not be done.
    pub fn refuse(self, error: HandoffError) {
        (self.refuse)(error);
    }

    pub fn is_close(&self) -> bool {
        matches!(self.control, Control::Close(_))
    }

    /// Takes it in hand: what refuses it while it is worked on. Whoever asks for a switch or a
    /// close looks for itself whether the commit thread hangs, and must not hear that it is refused
    /// while it may take place.
    pub fn in_hand(self) -> (Control, Option<Refuse>) {
        match self.control {
            control @ (Control::Switch(..) | Control::Close(_)) => (control, None),
            control => (control, Some(self.refuse)),
        }
    }
}

fn answer_once<T>(
    slot: &Mutex<Option<impl FnOnce(Result<T, HandoffError>)>>,
    result: Result<T, HandoffError>,
) {
    let done = slot.lock().take();
    if let Some(done) = done {
        done(result);
    }
}
