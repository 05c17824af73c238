//! Which entries of the loss journal tell of which hints.

use std::collections::BTreeSet;

use hinted_handoff::{Loss, Losses};

/// New entries of the journal, and the hints that each tells of: no more than it counts.
pub struct Told {
    pub entries: Vec<(Loss, Vec<u64>)>,
}

impl Told {
    /// Those that name a hint exactly come first: a range may be meant for others.
    pub fn new(losses: Losses) -> Told {
        let entries = losses.entries.into_iter();
        let mut entries: Vec<_> = entries.map(|(_, loss)| (loss, Vec::new())).collect();
        entries.sort_by_key(|(loss, _)| {
            loss.place
                .map_or(u64::MAX, |place| place.last.0 - place.first.0)
        });
        Told { entries }
    }

    /// Finds an entry that tells of a hint, if need be by finding another one for a hint that has
    /// it already.
    pub fn place(&mut self, number: u64, may_tell: &impl Fn(u64, &Loss) -> bool) -> bool {
        self.place_elsewhere(number, may_tell, &mut BTreeSet::new())
    }

    fn place_elsewhere(
        &mut self,
        number: u64,
        may_tell: &impl Fn(u64, &Loss) -> bool,
        tried: &mut BTreeSet<usize>,
    ) -> bool {
        for at in 0..self.entries.len() {
            let (loss, told) = &mut self.entries[at];
            if !may_tell(number, loss) || !tried.insert(at) {
                continue;
            }
            if (told.len() as u64) < loss.amount.hints {
                told.push(number);
                return true;
            }
            for (slot, other) in told.clone().into_iter().enumerate() {
                if self.place_elsewhere(other, may_tell, tried) {
                    self.entries[at].1[slot] = number;
                    return true;
                }
            }
        }
        false
    }
}
