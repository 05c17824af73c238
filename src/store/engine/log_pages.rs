//! The pages of sled's trees as they stand in its log, found without sled, which writes to a
//! database as soon as it opens one.
//!
//! sled finds its pages by going through the log in the order of writing (read: `pagecache/
//! snapshot.rs`, `iterator.rs`): a node takes the place of its page, a link is added to it, a free
//! message ends it, and a link to no page counts for nothing. So does this, from the beginning of
//! the log, since all that a snapshot tells follows from it. Only leaves are kept: keys tell which
//! tree they are of, so no index is needed, and none that is damaged is in the way.
//!
//! What is damaged differs. sled reads no further in a segment; this goes on with the next message
//! that is intact. But where the log may have been cut short, it ends for both at the same place:
//! see [`Ending`].

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use bytes::Bytes;

use crate::store::{
    bounds::SEGMENT_BYTES,
    engine::{
        log_scan::{
            CAP, LINK, MANIFEST, MESSAGE_HEADER_MAX, Message, NODE, SEGMENT_HEADER_BYTES, Segment,
            TreeNode, in_order, message_at, messages, read_segment, removed, segments, set,
        },
        log_tail::snapshot_lsn,
    },
    format::keys::{CHUNK_KEY_BYTES, Key},
};

const COUNTERS: std::ops::RangeInclusive<u8> = 4..=9;

/// What the end of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Whoever wrote it closed it: all that is intact counts.
    Closed,
    /// It may be torn: it ends, as it does for sled, with the first message of its last segments
    /// that is not intact. What stands behind was written out of order, and was never answered,
    /// unless the disk damaged what is in between.
    MayBeTorn,
}

/// A key of `hh/hints`, filled up with zeros: in the same order as without.
pub type PaddedKey = [u8; CHUNK_KEY_BYTES];

/// Fills up a key.
pub fn padded(key: &[u8]) -> PaddedKey {
    let mut padded = [0; CHUNK_KEY_BYTES];
    for (to, from) in padded.iter_mut().zip(key) {
        *to = *from;
    }
    padded
}

/// Where a message stands in the file, and its log sequence number.
#[derive(Debug, Clone, Copy)]
struct At {
    lsn: u64,
    offset: u64,
    bytes: u32,
}

/// What a leaf says of a key: since when, as a log sequence number, and the value; `None` if it was
/// removed.
pub type Said = (u64, Option<Bytes>);

/// A leaf.
#[derive(Debug)]
pub struct LeafAt {
    node: At,
    links: Vec<At>,
    /// The page of the leaf with the keys from `hi` on.
    next: Option<u64>,
    /// The first key that it is there for, as it is.
    first: Vec<u8>,
    /// How many bytes of that its keys lack.
    prefix_bytes: usize,
    /// Whether it was written as a whole with keys of `hh/hints` and no others.
    is_of_hints: bool,
    /// Grows with every change: the log sequence number of the last.
    pub changed_at: u64,
    /// The keys that it is there for are from this on.
    pub lo: PaddedKey,
    /// And below this.
    pub hi: PaddedKey,
    /// Whether there was any key of `hh/hints` in it since it was written as a whole.
    pub has_hints: bool,
    /// Whether there was any other key in it since then.
    pub has_others: bool,
}

/// All leaves of a log.
#[derive(Debug)]
pub struct LogPages {
    file: File,
    pub leaves: HashMap<u64, LeafAt>,
    /// Where a log ends that may be torn, and how many intact messages stand behind that.
    pub torn_at: Option<TornAt>,
}

/// The end of a log behind which there is more.
#[derive(Debug, Clone, Copy)]
pub struct TornAt {
    /// Its log sequence number.
    pub lsn: u64,
    /// Intact messages behind.
    pub messages_behind: u64,
}

impl LogPages {
    /// Goes through a log once. `progress` is called with bytes done and bytes in all.
    pub fn read(
        log: &Path,
        ending: Ending,
        progress: &mut dyn FnMut(u64, u64),
    ) -> io::Result<LogPages> {
        let file = File::open(log)?;
        let mut end = match ending {
            Ending::Closed => u64::MAX,
            Ending::MayBeTorn => end_of_log(&file, snapshot_lsn(log)?)?,
        };
        let mut pages = LogPages {
            file,
            leaves: HashMap::new(),
            torn_at: None,
        };
        let order = in_order(&pages.file)?;
        let (mut buffer, mut behind, mut is_whole) = (Vec::new(), 0, true);
        let total = (order.len() * SEGMENT_BYTES) as u64;
        for (done, (number, offset)) in (0_u64..).zip(order) {
            progress(done * SEGMENT_BYTES as u64, total);
            let Some(base) = lsn_of(number) else {
                continue;
            };
            read_segment(&pages.file, offset, &mut buffer)?;
            let mut next_at = SEGMENT_HEADER_BYTES;
            for message in messages(&buffer, Some(number)) {
                let lsn = base + message.at as u64;
                is_whole &= message.at == next_at || lsn >= end;
                next_at = message.end;
                // All of a batch counts or nothing.
                if ending == Ending::MayBeTorn
                    && message.kind == MANIFEST
                    && lsn < end
                    && last_of_batch(&message).is_some_and(|last| last >= end)
                {
                    end = lsn;
                }
                match lsn < end {
                    true => pages.apply(&message, lsn, offset),
                    false => behind += 1,
                }
            }
        }
        progress(total, total);
        if is_whole {
            pages.forget_orphans();
        }
        if behind > 0 {
            pages.torn_at = Some(TornAt {
                lsn: end,
                messages_behind: behind,
            });
        }
        Ok(pages)
    }

    fn apply(&mut self, message: &Message<'_>, lsn: u64, segment: u64) {
        let at = At {
            lsn,
            offset: segment + message.at as u64,
            bytes: (message.end - message.at) as u32,
        };
        match message.kind {
            NODE => match TreeNode::parse(message.body) {
                Some(node) => {
                    let mut leaf = LeafAt {
                        node: at,
                        links: Vec::new(),
                        next: node.next,
                        first: node.lo.to_vec(),
                        prefix_bytes: node.prefix.len(),
                        is_of_hints: false,
                        changed_at: lsn,
                        lo: padded(node.lo),
                        hi: match node.hi {
                            [] => [u8::MAX; CHUNK_KEY_BYTES],
                            hi => padded(hi),
                        },
                        has_hints: false,
                        has_others: false,
                    };
                    for (key, _) in &node.entries {
                        leaf.see(key);
                    }
                    leaf.is_of_hints = leaf.has_hints && !leaf.has_others;
                    self.leaves.insert(message.page, leaf);
                }
                None => drop(self.leaves.remove(&message.page)),
            },
            LINK => {
                let key = set(message.body).map(|(key, _)| key);
                let key = key.or_else(|| removed(message.body));
                if let (Some(leaf), Some(key)) = (self.leaves.get_mut(&message.page), key) {
                    leaf.links.push(at);
                    leaf.changed_at = lsn;
                    leaf.see(key);
                }
            }
            // Whatever else takes the place of a page, or frees it.
            kind if COUNTERS.contains(&kind) => drop(self.leaves.remove(&message.page)),
            _ => {}
        }
    }

    /// Forgets leaves that sled never gets to. A split writes the new leaf first, then the old one,
    /// which names it. If the log was cut in between, the new one stays for good, and looks newer
    /// than what became of its keys as soon as sled has moved it to another segment.
    ///
    /// Where anything is damaged, what names a leaf may be what is damaged, so all of them stay.
    fn forget_orphans(&mut self) {
        let named = self.leaves.values().filter_map(|leaf| leaf.next);
        let named: HashSet<u64> = named.collect();
        // None is written to, since none is found.
        let is_orphan = |page: &u64, leaf: &LeafAt| {
            !leaf.first.is_empty() && leaf.links.is_empty() && !named.contains(page)
        };
        let is_there = |page: &u64| self.leaves.contains_key(page);
        let mut found = self.leaves.iter();
        let leads_on = found
            .all(|(page, leaf)| is_orphan(page, leaf) || leaf.next.as_ref().is_none_or(is_there));
        if leads_on {
            self.leaves.retain(|page, leaf| !is_orphan(page, leaf));
        }
    }

    /// What a leaf says, of keys that were removed from it, too.
    pub fn entries(&self, leaf: &LeafAt) -> io::Result<BTreeMap<Vec<u8>, Said>> {
        let mut entries = BTreeMap::new();
        let body = self.body(leaf.node)?;
        let node = TreeNode::parse(&body).ok_or_else(changed)?;
        for (key, value) in node.entries {
            let value = Some(body.slice_ref(value));
            entries.insert([node.prefix, key].concat(), (leaf.node.lsn, value));
        }
        for link in &leaf.links {
            let body = self.body(*link)?;
            if let Some((key, value)) = set(&body) {
                let value = Some(body.slice_ref(value));
                entries.insert(leaf.whole(key), (link.lsn, value));
            } else if let Some(key) = removed(&body) {
                entries.insert(leaf.whole_of_removed(key), (link.lsn, None));
            }
        }
        Ok(entries)
    }

    fn body(&self, at: At) -> io::Result<Bytes> {
        let mut bytes = vec![0; at.bytes as usize];
        self.file.read_exact_at(&mut bytes, at.offset)?;
        let bytes = Bytes::from(bytes);
        let message = message_at(&bytes, 0, None).ok_or_else(changed)?;
        Ok(bytes.slice_ref(message.body))
    }
}

impl LeafAt {
    /// When it was written as a whole: of a key that it is there for and says nothing of, it says
    /// that it is not there since then.
    pub fn written_at(&self) -> u64 {
        self.node.lsn
    }

    /// A key with the bytes that it lacks.
    fn whole(&self, key: &[u8]) -> Vec<u8> {
        self.with(self.prefix_bytes, key)
    }

    fn with(&self, bytes: usize, key: &[u8]) -> Vec<u8> {
        [self.first.get(..bytes).unwrap_or_default(), key].concat()
    }

    /// The same of a key that was removed. If what the leaf became when it was written the next
    /// time is damaged, keys of links lack more bytes than its own: the most that make a key of
    /// them. A value is not read so, since neither does an open.
    fn whole_of_removed(&self, key: &[u8]) -> Vec<u8> {
        let whole = self.whole(key);
        if !self.is_of_hints || is_of_hints(&whole) {
            return whole;
        }
        let longer = self.prefix_bytes + 1..=self.first.len();
        let mut longer = longer.rev().map(|bytes| self.with(bytes, key));
        longer.find(|it| is_of_hints(it)).unwrap_or(whole)
    }

    fn see(&mut self, key: &[u8]) {
        match is_of_hints(&self.whole(key)) {
            true => self.has_hints = true,
            false => self.has_others = true,
        }
    }
}

/// Whether this is a key of `hh/hints`.
fn is_of_hints(key: &[u8]) -> bool {
    !matches!(Key::parse(key), Some(Key::Other(_)) | None)
}

/// It passed its checksum a moment ago.
fn changed() -> io::Error {
    io::Error::other("the log changed while it was read")
}

/// Where a segment begins, as a log sequence number; `None` of a number that is higher than any of
/// sled's, which are signed. One comes out of a message if the segment's header is damaged.
fn lsn_of(number: u64) -> Option<u64> {
    let lsn = number.checked_mul(SEGMENT_BYTES as u64)?;
    (lsn < i64::MAX as u64).then_some(lsn)
}

fn last_of_batch(manifest: &Message<'_>) -> Option<u64> {
    let last = manifest.body.try_into().ok().map(i64::from_le_bytes)?;
    u64::try_from(last).ok()
}

/// Where sled would take the log to end: behind the last of the messages that follow each other
/// without a gap, from the segment on in which all before was durable.
pub(super) fn end_of_log(file: &File, snapshot: u64) -> io::Result<u64> {
    let segment_bytes = SEGMENT_BYTES as u64;
    let found = segments(file)?;
    let numbered = |it: &Segment| it.number >= Some(snapshot / segment_bytes);
    let stable = found.iter().filter(|it| numbered(it));
    let stable = stable.map(|it| it.highest_stable).max().unwrap_or(0);
    let lowest = snapshot.max(stable) / segment_bytes;
    let mut tail: Vec<(u64, u64)> = found
        .iter()
        .filter_map(|it| Some((it.number?, it.offset)))
        .filter(|(number, _)| *number >= lowest)
        .collect();
    tail.sort_unstable();
    let is_next = |(number, (found, _)): &(u64, (u64, u64))| number == found;
    let linked: Vec<_> = (lowest..).zip(tail).take_while(is_next).collect();
    let missing = (lowest + linked.len() as u64) * segment_bytes;
    let (mut buffer, mut end) = (Vec::new(), lowest * segment_bytes);
    for (number, (_, offset)) in linked {
        read_segment(file, offset, &mut buffer)?;
        let base = number * segment_bytes;
        let mut at = SEGMENT_HEADER_BYTES;
        loop {
            end = base + at as u64;
            if at + MESSAGE_HEADER_MAX > SEGMENT_BYTES {
                break;
            }
            let Some(message) = message_at(&buffer, at, Some(number)) else {
                return Ok(end);
            };
            let is_cut = message.kind == MANIFEST
                && last_of_batch(&message).is_some_and(|last| last > missing);
            if is_cut {
                return Ok(end);
            }
            if message.kind == CAP {
                break;
            }
            at = message.end;
        }
    }
    Ok(end)
}
