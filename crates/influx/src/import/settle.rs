//! Finding out what an import that was killed has put into the store.

use std::{collections::BTreeMap, path::Path};

use hinted_handoff::{
    WriteId,
    offline::{ClosedStore, Importer, Selection},
};

use super::{
    error::ImportFailure,
    journal::{End, Journal},
};

/// Notes what an import that did not come to its end has put into the store in `store`, so that the
/// next import goes on from there.
///
/// Call it before the store is opened to be served from: what is delivered cannot be counted any
/// more. It does nothing, and takes no time, unless an import was cut short.
///
/// # Errors
/// [`ImportFailure::InUse`] if somebody has the store open; the journal or the store does not read;
/// what the operating system says.
pub fn settle(store: &Path) -> Result<(), ImportFailure> {
    match Journal::read(store)?.unsettled().next() {
        Some(_) => settled(store).map(drop),
        None => Ok(()),
    }
}

/// Settles what is open in a store, which is made if there is none; returns it, closed and held.
pub fn settled(store: &Path) -> Result<(ClosedStore, Journal), ImportFailure> {
    // What was written last may be gone once recovery is done with it. So recovery comes first.
    let opened = Importer::open(store).map_err(ImportFailure::open(store))?;
    opened.finish()?;
    let closed = ClosedStore::open(store).map_err(ImportFailure::open(store))?;
    // Read while the store is held: nobody writes to it now but who settles the same.
    let mut journal = Journal::read(store)?;
    // Of another store there is nothing in this one: then that is what is noted.
    let unsettled = journal.unsettled();
    let begun: BTreeMap<u64, u64> = unsettled.map(|it| (it.boot, it.number)).collect();
    if !begun.is_empty() {
        let highest = highest_counters(&closed, &begun)?;
        for (boot, number) in begun {
            let through = Some(highest.get(&boot).copied().unwrap_or(0));
            journal.end(End { number, through })?;
        }
    }
    Ok((closed, journal))
}

/// The highest counter that the store has of each of these imports.
fn highest_counters(
    closed: &ClosedStore,
    begun: &BTreeMap<u64, u64>,
) -> Result<BTreeMap<u64, u64>, ImportFailure> {
    let mut highest = BTreeMap::new();
    let mut see = |write: Option<WriteId>| {
        if let Some(WriteId { boot, counter }) = write
            && begun.contains_key(&boot)
        {
            let found: &mut u64 = highest.entry(boot).or_default();
            *found = (*found).max(counter);
        }
    };
    let all = Selection::default();
    for hint in closed.hints(&all) {
        see(hint?.write);
    }
    for letter in closed.letters(&all)? {
        see(letter?.hint.write);
    }
    Ok(highest)
}
