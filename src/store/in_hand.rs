//! A request that the commit thread works on: if it hangs, whoever waits for the answer is told all
//! the same.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{
    inbox::{Control, ControlDone},
    membership::Request,
};
use crate::error::HandoffError;

/// Tells whoever waits for a request that it may not be done.
pub type Refuse = Box<dyn FnOnce(HandoffError) + Send>;

/// Makes two of one answer, of which the first that is given counts.
fn twice<T: Send + 'static>(done: ControlDone<T>) -> (ControlDone<T>, Refuse) {
    // Guards only this, and is let go before anybody is told.
    let slot = Arc::new(Mutex::new(Some(done)));
    let other = Arc::clone(&slot);
    let answer = move |slot: Arc<Mutex<Option<ControlDone<T>>>>, result| {
        let done = slot.lock().take();
        if let Some(done) = done {
            done(result);
        }
    };
    (
        Box::new(move |result| answer(slot, result)),
        Box::new(move |error| answer(other, Err(error))),
    )
}

impl Control {
    /// The request, and what refuses it while it is worked on. Whoever asks for a switch or a close
    /// looks for itself whether the commit thread hangs, and must not hear that it is refused while
    /// it may take place.
    pub fn in_hand(self) -> (Control, Option<Refuse>) {
        let (control, refuse) = match self {
            Control::Switch(..) | Control::Close(_) => return (self, None),
            Control::Sync(done) => {
                let (done, refuse) = twice(done);
                (Control::Sync(done), refuse)
            }
            Control::CloseEntries(done) => {
                let (done, refuse) = twice(done);
                (Control::CloseEntries(done), refuse)
            }
            Control::JudgeDamage(node, queue, done) => {
                let (done, refuse) = twice(done);
                (Control::JudgeDamage(node, queue, done), refuse)
            }
            Control::Sort(done) => {
                let (done, refuse) = twice(done);
                (Control::Sort(done), refuse)
            }
            Control::Nodes(request) => {
                let (request, refuse) = of_nodes(request);
                (Control::Nodes(request), refuse)
            }
        };
        (control, Some(refuse))
    }
}

fn of_nodes(request: Request) -> (Request, Refuse) {
    match request {
        Request::Pause { node, how, done } => {
            let (done, refuse) = twice(done);
            (Request::Pause { node, how, done }, refuse)
        }
        Request::Retain { members, now, done } => {
            let (done, refuse) = twice(done);
            (Request::Retain { members, now, done }, refuse)
        }
        Request::Rename { from, to, done } => {
            let (done, refuse) = twice(done);
            (Request::Rename { from, to, done }, refuse)
        }
        Request::Discard(node, done) => {
            let (done, refuse) = twice(done);
            (Request::Discard(node, done), refuse)
        }
        Request::RemoveDrained(node, done) => {
            let (done, refuse) = twice(done);
            (Request::RemoveDrained(node, done), refuse)
        }
        Request::Purge(node, parked, done) => {
            let (done, refuse) = twice(done);
            (Request::Purge(node, parked, done), refuse)
        }
        Request::Leave(node, leaves, done) => {
            let (done, refuse) = twice(done);
            (Request::Leave(node, leaves, done), refuse)
        }
        Request::Corrections(found, done) => {
            let (done, refuse) = twice(done);
            (Request::Corrections(found, done), refuse)
        }
    }
}
