//! A copy of a generation that is in use: going through both in the order of keys, and making the
//! copy's trees equal.
//!
//! What is in use changes meanwhile, so the first pass copies and each later one brings over what
//! has changed since; the one that finds the rest is made while nothing changes. A pass goes in
//! short ranges: reads of sled take a lock of the process's for each step, and whoever waits to
//! drop the generation in use waits for a range at most.

use std::{cmp::Ordering, ops::Bound, sync::Arc};

use crate::{
    error::StorageError,
    store::{
        bounds::GROUP_BYTES,
        engine::{
            generation::Engine,
            table::{self, IVec},
            writer::Writer,
        },
        failpoints::{Safeguard, is_off},
    },
};

/// Keys that are looked at between two moments at which others get their turn.
const KEYS_IN_A_RANGE: usize = 2_000;

/// A generation that is made equal to another.
pub struct GenerationCopy {
    pub engine: Arc<Engine>,
    /// Its name.
    pub generation: String,
    /// The name of what it is a copy of.
    pub of: String,
}

/// How far a pass has come, and what it has done.
#[derive(Default)]
pub struct Pass {
    tree: usize,
    after: Option<IVec>,
    /// Bytes handed to the copy.
    pub bytes: usize,
}

/// What differs in a range of a tree: key, and the value to be, or none.
pub struct Changes {
    tree: usize,
    rows: Vec<(IVec, Option<IVec>)>,
    bytes: usize,
}

const ACTION: &str = "compact the store";

fn failed(error: table::Error) -> StorageError {
    StorageError::new(ACTION, error)
}

fn next(
    entries: &mut impl Iterator<Item = table::Result<(IVec, IVec)>>,
) -> Result<Option<(IVec, IVec)>, StorageError> {
    entries.next().transpose().map_err(failed)
}

impl GenerationCopy {
    /// Finds what differs in the next range of a pass; `None` behind the last.
    pub fn differences(
        &self,
        in_use: &Engine,
        pass: &mut Pass,
    ) -> Result<Option<Changes>, StorageError> {
        let trees = in_use.tables().into_iter().zip(self.engine.tables());
        let Some((theirs, ours)) = trees.into_iter().nth(pass.tree) else {
            return Ok(None);
        };
        let from = match &pass.after {
            Some(key) => Bound::Excluded(key.clone()),
            None => Bound::Unbounded,
        };
        let mut theirs = theirs.range((from.clone(), Bound::Unbounded));
        let mut ours = ours.range((from, Bound::Unbounded));
        let (mut wanted, mut there) = (next(&mut theirs)?, next(&mut ours)?);
        let mut changes = Changes {
            tree: pass.tree,
            rows: Vec::new(),
            bytes: 0,
        };
        for _ in 0..KEYS_IN_A_RANGE {
            let order = match (&wanted, &there) {
                (Some((wanted, _)), Some((there, _))) => wanted.cmp(there),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => {
                    pass.tree += 1;
                    pass.after = None;
                    return Ok(Some(changes));
                }
            };
            let (lower, value) = match order {
                Ordering::Greater => (&there, None),
                _ => (&wanted, wanted.as_ref().map(|(_, value)| value)),
            };
            let Some((key, known)) = lower else {
                break;
            };
            let is_same =
                order == Ordering::Equal && there.as_ref().map(|(_, value)| value) == value;
            if !is_same {
                // A removal counts as what it removes.
                let bytes = key.len() + value.unwrap_or(known).len();
                // docs/sled.md rule 2 holds here too.
                if changes.bytes + bytes > GROUP_BYTES && !changes.rows.is_empty() {
                    break;
                }
                changes.bytes += bytes;
                changes.rows.push((key.clone(), value.cloned()));
            }
            pass.after = Some(key.clone());
            if order != Ordering::Greater {
                wanted = next(&mut theirs)?;
            }
            if order != Ordering::Less {
                there = next(&mut ours)?;
            }
        }
        Ok(Some(changes))
    }

    /// Carries changes out, durably.
    pub fn apply(&self, changes: Changes, pass: &mut Pass) -> Result<(), StorageError> {
        let tables = self.engine.tables();
        let Some(table) = tables
            .get(changes.tree)
            .filter(|_| !changes.rows.is_empty())
        else {
            return Ok(());
        };
        let engine = Arc::clone(&self.engine);
        let mut writer = Writer::new(engine, ACTION, Safeguard::CopyCommits);
        for (key, value) in changes.rows {
            match value {
                Some(value) => writer.put(table, &key, value)?,
                None => writer.remove(table, &key, 0)?,
            }
        }
        pass.bytes += changes.bytes;
        match is_off(Safeguard::CopyCommits) {
            true => Ok(()),
            false => writer.commit(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: u32 = 5_000;

    fn key(number: u32) -> [u8; 4] {
        number.to_be_bytes()
    }

    /// One pass.
    fn pass(copy: &GenerationCopy, in_use: &Engine) -> usize {
        let mut pass = Pass::default();
        while let Some(changes) = copy.differences(in_use, &mut pass).unwrap() {
            assert!(changes.bytes <= GROUP_BYTES);
            copy.apply(changes, &mut pass).unwrap();
        }
        pass.bytes
    }

    fn all(engine: &Engine) -> Vec<Vec<(IVec, IVec)>> {
        let trees = engine.tables().into_iter();
        trees
            .map(|tree| tree.iter().map(Result::unwrap).collect())
            .collect()
    }

    #[test]
    fn a_copy_has_what_is_there_and_what_was_changed_and_nothing_that_was_removed() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name| Engine::open(&dir.path().join(name), Arc::default()).unwrap();
        let in_use = open("gen-000001");
        for number in 0..KEYS {
            in_use.hints.0.insert(key(number), vec![1; 1000]).unwrap();
        }
        in_use.nodes.0.insert("a", "node").unwrap();
        let copy = GenerationCopy {
            engine: Arc::new(open("gen-000002")),
            generation: "gen-000002".to_owned(),
            of: "gen-000001".to_owned(),
        };
        assert!(pass(&copy, &in_use) > KEYS as usize * 1000);
        assert_eq!(all(&copy.engine), all(&in_use));
        assert_eq!(pass(&copy, &in_use), 0, "nothing is brought over twice");

        for number in (0..KEYS).step_by(3) {
            in_use.hints.0.remove(key(number)).unwrap();
        }
        in_use.hints.0.insert(key(7), vec![2; 1000]).unwrap();
        in_use.hints.0.insert(key(KEYS + 1), vec![3; 1000]).unwrap();
        in_use.nodes.0.remove("a").unwrap();
        in_use.losses.0.insert("last", "of all").unwrap();
        pass(&copy, &in_use);
        assert_eq!(all(&copy.engine), all(&in_use));
    }
}
