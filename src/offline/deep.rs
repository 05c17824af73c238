//! A copy of a closed store, opened as a host would, and all of it taken: what the engine makes of
//! the store, beside what was read without it.

use std::{
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use crate::{
    config::Config,
    error::{HandoffError, OpenError, StorageError, with_causes},
    stats::Damage,
    store::{ClosedStore, Finding, Peek, PeekLimits, Reader, Severity, Store, Verified},
    types::{Amount, NodeId},
};

/// How long a store that failed may take until it serves again.
const REOPENING: Duration = Duration::from_secs(60);
const AT_ONCE: PeekLimits = PeekLimits {
    hints: 1000,
    payload_bytes: 4 * 1024 * 1024,
};

/// [`verify`](crate::offline::verify), and then the same of a copy in `scratch`, which the engine
/// opens: every hint is taken there as replay would. `scratch` must not exist, takes as much disk
/// as the store, and is left behind; the store itself is only read.
///
/// # Errors
/// As [`verify`](crate::offline::verify); `scratch` exists or cannot be written.
pub fn verify_deep(
    dir: impl AsRef<Path>,
    scratch: impl AsRef<Path>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Verified, OpenError> {
    let (dir, scratch) = (dir.as_ref(), scratch.as_ref());
    let mut verified = crate::offline::verify(dir, &mut progress)?;
    match ClosedStore::open(dir) {
        Ok(closed) => closed.copy_to(scratch)?,
        // Then the findings say why.
        Err(_) if !verified.is_sound() => return Ok(verified),
        Err(error) => return Err(error),
    }
    let mut config = Config::new(scratch);
    config.min_free_disk = 0;
    let store = match Store::open(&config, Box::new(|_| {})) {
        Ok(store) => store,
        Err(error @ OpenError::Unopenable { .. }) => {
            let what = format!("the engine does not open a copy: {}", with_causes(&error));
            verified.add(Finding::new(Severity::Lost, what));
            return Ok(verified);
        }
        Err(error) => return Err(error),
    };
    let pending = verified.pending;
    let taken = take_all(&store, |taken| {
        progress(taken.bytes.min(pending.bytes), pending.bytes)
    });
    let taken = taken.map_err(|error| StorageError::new("take the hints of a copy", error))?;
    let letters = store.nodes();
    let letters = letters.iter().map(|(_, queues)| queues.letters());
    let letters = letters.fold(Amount::default(), Amount::plus);
    for Damage {
        node,
        queue,
        what,
        lost,
    } in store.stats().damage
    {
        let severity = lost.map_or(Severity::Damaged, |_| Severity::Lost);
        let what = format!("the engine, on a copy: {what}");
        let finding = Finding::new(severity, what).of(node, queue);
        verified.add(match lost {
            Some((first, last)) => finding.from(first, last, last.0.saturating_sub(first.0) + 1),
            None => finding,
        });
    }
    for (kind, read, found) in [
        ("hints", verified.pending, taken),
        ("dead letters", verified.dead_letters, letters),
    ] {
        if read.hints != found.hints {
            let what = format!(
                "{} {kind} read, and the engine gives {} of a copy",
                read.hints, found.hints
            );
            verified.add(Finding::new(Severity::Damaged, what));
        }
    }
    let closed = store.close();
    closed.map_err(|error| StorageError::new("close a copy", error))?;
    Ok(verified)
}

fn take_all(store: &Store, mut each: impl FnMut(Amount)) -> Result<Amount, HandoffError> {
    let mut taken = Amount::default();
    let nodes: Vec<NodeId> = store.nodes().iter().map(|(node, _)| *node).collect();
    for node in nodes {
        let mut reader = Reader::default();
        loop {
            // What is damaged may have the store open itself again.
            let stepped = step(store, &mut reader, node);
            match stepped {
                Ok(Some(amount)) => taken = taken.plus(amount),
                Ok(None) => break,
                Err(error) => await_reopening(store, error)?,
            }
            each(taken);
        }
    }
    Ok(taken)
}

/// Takes some hints; `None` if nothing waits.
fn step(store: &Store, reader: &mut Reader, node: NodeId) -> Result<Option<Amount>, HandoffError> {
    match store.peek(reader, node, AT_ONCE)? {
        Peek::Empty => Ok(None),
        Peek::Hints(hints) => store.deliver(node, &hints).map(Some),
        Peek::Damaged(place) => {
            let (tell, told) = mpsc::channel();
            // Nobody listens any more if the wait below gave up.
            let done = move |result| drop(tell.send(result));
            store.scrub(node, place.queue, done);
            let scrubbed = told.recv_timeout(REOPENING);
            scrubbed.map_err(|error| StorageError::new("scrub", error))??;
            Ok(Some(Amount::default()))
        }
    }
}

fn await_reopening(store: &Store, error: HandoffError) -> Result<(), HandoffError> {
    let started = Instant::now();
    while store.check_serving().is_err() {
        if started.elapsed() > REOPENING {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
