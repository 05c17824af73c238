//! The keys of `hh/hints` in order, from the leaves that stand in a log. In memory is where each
//! leaf stands and between which keys, not what is in it.
//!
//! Leaves of a tree do not overlap, but for what damage or a crash left of older ones. Then the one
//! that was changed last has the last word.

use std::{collections::BTreeMap, io, path::Path};

use bytes::Bytes;

use super::log_pages::{Ending, LeafAt, LogPages, PaddedKey, TornAt, padded};

/// What a leaf of `hh/hints` holds, between its lowest and its highest key.
#[derive(Debug)]
struct Span {
    lowest: PaddedKey,
    highest: PaddedKey,
    /// The highest key of this and of all before it.
    highest_so_far: PaddedKey,
    leaf: u64,
}

/// A log, to be looked up in.
#[derive(Debug)]
pub struct LogTree {
    pages: LogPages,
    /// By lowest key.
    spans: Vec<Span>,
}

type Entries = BTreeMap<Vec<u8>, Bytes>;

impl LogTree {
    /// Goes through a log once.
    pub fn read(
        log: &Path,
        ending: Ending,
        progress: &mut dyn FnMut(u64, u64),
    ) -> io::Result<LogTree> {
        let pages = LogPages::read(log, ending, progress)?;
        let with_hints = pages.leaves.iter().filter_map(|(leaf, at)| {
            let (lowest, highest) = at.hints?;
            Some(Span {
                lowest,
                highest,
                highest_so_far: highest,
                leaf: *leaf,
            })
        });
        let mut spans: Vec<Span> = with_hints.collect();
        spans.sort_unstable_by_key(|span| (span.lowest, span.leaf));
        let mut highest = [0; _];
        for span in &mut spans {
            highest = span.highest.max(highest);
            span.highest_so_far = highest;
        }
        Ok(LogTree { pages, spans })
    }

    /// Where the log ends, if there is more behind.
    pub fn torn_at(&self) -> Option<TornAt> {
        self.pages.torn_at
    }

    /// Calls `each` with what is under keys of other trees than `hh/hints`, for one key the newest
    /// last.
    pub fn others(&self, mut each: impl FnMut(&[u8], &Bytes)) -> io::Result<()> {
        let mut leaves: Vec<&LeafAt> = self.pages.leaves.values().collect();
        leaves.retain(|leaf| leaf.has_others);
        leaves.sort_unstable_by_key(|leaf| leaf.changed_at);
        for leaf in leaves {
            for (key, value) in self.pages.entries(leaf)? {
                each(&key, &value);
            }
        }
        Ok(())
    }

    fn entries(&self, span: &Span) -> io::Result<(u64, Entries)> {
        match self.pages.leaves.get(&span.leaf) {
            Some(leaf) => Ok((leaf.changed_at, self.pages.entries(leaf)?)),
            None => Ok((0, Entries::new())),
        }
    }

    /// What is under a key.
    pub fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        let wanted = padded(key);
        let upto = self.spans.partition_point(|span| span.lowest <= wanted);
        let spans = self.spans.get(..upto).unwrap_or_default().iter().rev();
        let mut found: Option<(u64, Bytes)> = None;
        for span in spans.take_while(|span| span.highest_so_far >= wanted) {
            if span.highest < wanted {
                continue;
            }
            let (changed_at, mut entries) = self.entries(span)?;
            if let Some(value) = entries.remove(key)
                && found.as_ref().is_none_or(|(at, _)| *at < changed_at)
            {
                found = Some((changed_at, value));
            }
        }
        Ok(found.map(|(_, value)| value))
    }

    /// What is under the keys from `from` on and below `to`, in order.
    pub fn range(&self, from: &[u8], to: &[u8]) -> Range<'_> {
        let lowest = padded(from);
        Range {
            tree: self,
            from: from.to_vec(),
            to: to.to_vec(),
            next_span: self.spans.partition_point(|it| it.highest_so_far < lowest),
            ahead: BTreeMap::new(),
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
        let upto = self.spans.partition_point(|span| span.lowest < end);
        let mut best: Option<Vec<u8>> = None;
        for span in self.spans.get(..upto).unwrap_or_default().iter().rev() {
            let bound = best.as_deref().map_or(lowest, padded);
            if span.highest_so_far < bound {
                break;
            }
            if span.highest < bound {
                continue;
            }
            let (_, entries) = self.entries(span)?;
            let within = entries.range::<[u8], _>((
                std::ops::Bound::Included(from),
                std::ops::Bound::Excluded(to),
            ));
            let mut within = within.rev().filter(|(key, value)| is_wanted(key, value));
            best = best.max(within.next().map(|(key, _)| key.clone()));
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
    ahead: BTreeMap<Vec<u8>, (u64, Bytes)>,
}

impl Range<'_> {
    /// Reads each leaf that may hold what comes next.
    fn fill(&mut self) -> io::Result<()> {
        while let Some(span) = self.tree.spans.get(self.next_span) {
            let is_behind = match self.ahead.first_key_value() {
                Some((next, _)) => span.lowest > padded(next),
                None => span.lowest >= padded(&self.to),
            };
            if is_behind {
                break;
            }
            self.next_span += 1;
            if span.highest < padded(&self.from) {
                continue;
            }
            let (changed_at, entries) = self.tree.entries(span)?;
            for (key, value) in entries {
                if key < self.from || key >= self.to {
                    continue;
                }
                let known = self.ahead.get(&key);
                if known.is_none_or(|(at, _)| *at < changed_at) {
                    self.ahead.insert(key, (changed_at, value));
                }
            }
        }
        Ok(())
    }
}

impl Iterator for Range<'_> {
    type Item = io::Result<(Vec<u8>, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.fill() {
            self.next_span = usize::MAX;
            return Some(Err(error));
        }
        let (key, (_, value)) = self.ahead.pop_first()?;
        Some(Ok((key, value)))
    }
}

#[cfg(test)]
mod tests;
