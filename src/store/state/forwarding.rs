//! Where hints stood that were dead letters and were sent on.

use std::collections::HashMap;

use crate::store::format::keys::Place;

/// By where they are now, where hints stood that were dead letters and are not done with: every
/// place, the first one first.
pub type Redriven = HashMap<Place, Vec<Place>>;

/// Adds what a record says that was found: `letter` is now `now`.
pub fn found(redriven: &mut Redriven, letter: Place, now: Place) {
    let stood = redriven.entry(now).or_default();
    stood.push(letter);
    // Every place is younger than the one before it.
    stood.sort_by_key(|place| place.named());
}
