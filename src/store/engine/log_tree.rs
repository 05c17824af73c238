//! The keys of `hh/hints` in order, from the leaves that stand in a log. In memory is where each
//! leaf stands and which keys it is there for, not what is in it.
//!
//! Leaves of a tree do not overlap, but for older ones that damage left, or a crash: one whose end,
//! or whose next state, is not in the log. So of each key the leaf counts that said something of it
//! last: that it was set or removed, or that it was not there when the leaf was written as a whole.

use std::{collections::BTreeMap, io, path::Path};

use bytes::Bytes;

use super::log_pages::{Ending, LeafAt, LogPages, PaddedKey, Said, TornAt, padded};

/// A leaf that had keys of `hh/hints`, by what keys it is there for.
#[derive(Debug)]
struct Span {
    lo: PaddedKey,
    hi: PaddedKey,
    /// The highest `hi` of this and of all before it.
    highest_so_far: PaddedKey,
    leaf: u64,
}

/// A log, to be looked up in.
#[derive(Debug)]
pub struct LogTree {
    pages: LogPages,
    /// By `lo`.
    spans: Vec<Span>,
    database: Database,
}

/// Whether a host's trees may be in the log, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    /// The log is of the store alone.
    Own,
    /// They may be, and may have keys as ours, so a leaf says nothing of what it lacks.
    Shared,
}

/// A leaf that was read, and what it says.
#[derive(Debug)]
struct Leaf {
    lo: PaddedKey,
    hi: PaddedKey,
    /// What it lacks is not there since then.
    lacks_since: u64,
    entries: BTreeMap<Vec<u8>, Said>,
}

impl LogTree {
    /// Goes through a log once.
    pub fn read(
        log: &Path,
        (ending, database): (Ending, Database),
        progress: &mut dyn FnMut(u64, u64),
    ) -> io::Result<LogTree> {
        let pages = LogPages::read(log, ending, progress)?;
        let with_hints = pages.leaves.iter().filter(|(_, at)| at.has_hints);
        let span = |(leaf, at): (&u64, &LeafAt)| Span {
            lo: at.lo,
            hi: at.hi,
            highest_so_far: at.hi,
            leaf: *leaf,
        };
        let mut spans: Vec<Span> = with_hints.map(span).collect();
        spans.sort_unstable_by_key(|span| (span.lo, span.leaf));
        let mut highest = [0; _];
        for span in &mut spans {
            highest = span.hi.max(highest);
            span.highest_so_far = highest;
        }
        Ok(LogTree {
            pages,
            spans,
            database,
        })
    }

    /// Where the log ends, if there is more behind.
    pub fn torn_at(&self) -> Option<TornAt> {
        self.pages.torn_at
    }

    /// Calls `each` with what is under keys of other trees than `hh/hints`. Of the values that
    /// several leaves have for a key, that of the leaf that was changed last comes last. A leaf
    /// that lacks it says nothing, since nothing tells which tree it is of.
    pub fn others(&self, mut each: impl FnMut(&[u8], &Bytes)) -> io::Result<()> {
        let mut leaves: Vec<&LeafAt> = self.pages.leaves.values().collect();
        leaves.retain(|leaf| leaf.has_others);
        leaves.sort_unstable_by_key(|leaf| leaf.changed_at);
        for leaf in leaves {
            for (key, (_, value)) in self.pages.entries(leaf)? {
                if let Some(value) = value {
                    each(&key, &value);
                }
            }
        }
        Ok(())
    }

    fn leaf(&self, span: &Span) -> io::Result<Leaf> {
        let (lacks_since, entries) = match self.pages.leaves.get(&span.leaf) {
            Some(leaf) => (leaf.written_at(), self.pages.entries(leaf)?),
            None => (0, BTreeMap::new()),
        };
        Ok(Leaf {
            lo: span.lo,
            hi: span.hi,
            lacks_since: match self.database {
                Database::Own => lacks_since,
                Database::Shared => 0,
            },
            entries,
        })
    }

    /// What is under a key.
    pub fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        let wanted = padded(key);
        let upto = self.spans.partition_point(|span| span.lo <= wanted);
        let spans = self.spans.get(..upto).unwrap_or_default().iter().rev();
        let mut last: Said = (0, None);
        for span in spans.take_while(|span| span.highest_so_far > wanted) {
            if span.hi <= wanted {
                continue;
            }
            let mut leaf = self.leaf(span)?;
            let said = leaf.entries.remove(key);
            let said = said.unwrap_or((leaf.lacks_since, None));
            if said.0 >= last.0 {
                last = said;
            }
        }
        Ok(last.1)
    }

    /// What is under the keys from `from` on and below `to`, in order.
    pub fn range(&self, from: &[u8], to: &[u8]) -> Range<'_> {
        let lowest = padded(from);
        Range {
            tree: self,
            from: from.to_vec(),
            to: to.to_vec(),
            next_span: self.spans.partition_point(|it| it.highest_so_far <= lowest),
            ahead: BTreeMap::new(),
            lacking: Vec::new(),
        }
    }

    /// The highest key from `from` on and below `to` that `is_wanted`.
    pub fn last(
        &self,
        from: &[u8],
        to: &[u8],
        is_wanted: impl Fn(&[u8], &[u8]) -> bool,
    ) -> io::Result<Option<Vec<u8>>> {
        let (lowest, end) = (padded(from), padded(to));
        let upto = self.spans.partition_point(|span| span.lo < end);
        let mut best: Option<Vec<u8>> = None;
        for span in self.spans.get(..upto).unwrap_or_default().iter().rev() {
            let bound = best.as_deref().map_or(lowest, padded);
            if span.highest_so_far <= bound {
                break;
            }
            if span.hi <= bound {
                continue;
            }
            let leaf = self.leaf(span)?;
            let within = leaf.entries.range::<[u8], _>((
                std::ops::Bound::Included(from),
                std::ops::Bound::Excluded(to),
            ));
            for key in within.rev().map(|(key, _)| key) {
                if best.as_ref().is_some_and(|best| best >= key) {
                    break;
                }
                // Another leaf may say that it is gone.
                if self.get(key)?.is_some_and(|value| is_wanted(key, &value)) {
                    best = Some(key.clone());
                    break;
                }
            }
        }
        Ok(best)
    }

    /// The lowest key of any from `from` on. No leaf is read that begins with it.
    pub fn first_from(&self, from: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let next = self.range(from, &[u8::MAX; 28]).next().transpose()?;
        Ok(next.map(|(key, _)| key))
    }
}

/// Entries in order of their keys.
#[derive(Debug)]
pub struct Range<'a> {
    tree: &'a LogTree,
    from: Vec<u8>,
    to: Vec<u8>,
    next_span: usize,
    /// What was read and comes later: mostly the rest of a leaf.
    ahead: BTreeMap<Vec<u8>, Said>,
    /// Leaves that were read: from where to where, and since when what they lack is not there.
    lacking: Vec<(PaddedKey, PaddedKey, u64)>,
}

impl Range<'_> {
    /// Reads each leaf that may say something of what comes next.
    fn fill(&mut self) -> io::Result<()> {
        while let Some(span) = self.tree.spans.get(self.next_span) {
            let is_behind = match self.ahead.first_key_value() {
                Some((next, _)) => span.lo > padded(next),
                None => span.lo >= padded(&self.to),
            };
            if is_behind {
                break;
            }
            self.next_span += 1;
            if span.hi <= padded(&self.from) {
                continue;
            }
            let leaf = self.tree.leaf(span)?;
            self.lacking.push((leaf.lo, leaf.hi, leaf.lacks_since));
            for (key, said) in leaf.entries {
                if key < self.from || key >= self.to {
                    continue;
                }
                let known = self.ahead.get(&key);
                if known.is_none_or(|known| known.0 <= said.0) {
                    self.ahead.insert(key, said);
                }
            }
        }
        Ok(())
    }

    /// Whether a leaf that is there for this key lacks it since later than that.
    fn is_lacking(&mut self, key: &[u8], since: u64) -> bool {
        let key = padded(key);
        self.lacking.retain(|(_, hi, _)| *hi > key);
        let mut lacking = self.lacking.iter();
        lacking.any(|(lo, _, at)| *lo <= key && *at > since)
    }
}

impl Iterator for Range<'_> {
    type Item = io::Result<(Vec<u8>, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Err(error) = self.fill() {
                self.next_span = usize::MAX;
                return Some(Err(error));
            }
            let (key, (at, value)) = self.ahead.pop_first()?;
            if let Some(value) = value
                && !self.is_lacking(&key, at)
            {
                return Some(Ok((key, value)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
