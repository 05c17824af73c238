//! Which nodes have samples of their own, and in whose samples each count is.
//!
//! Only the deepest nodes have samples of their own, and which these are changes. If the rest were
//! summed up anew at each scrape, its counts would jump and fall whenever a node came or went, and
//! every rate of it would be wrong. So what a node counted between two scrapes is added to one
//! counter and stays there: to its own while it has one, else to that of the rest. Rates add up
//! over all of them, always; the counts do, too, as long as no node that had its own lost it.

use std::collections::HashMap;

use hinted_handoff::{NodeId, NodeStats};

use super::families::NODE_COUNTERS;

type Counts = [u64; NODE_COUNTERS.len()];

/// What all that have no samples of their own are called.
const REST: &str = "rest";

/// A node, or the rest.
#[derive(Debug)]
pub struct Shown<'a> {
    /// The number of the node, or `rest`.
    pub label: String,
    pub nodes: Vec<&'a NodeStats>,
    /// In the order of [`NODE_COUNTERS`].
    pub counts: Counts,
    is_rest: bool,
}

impl Shown<'_> {
    /// The node, unless it is the rest.
    pub fn one(&self) -> Option<&NodeStats> {
        self.nodes.first().copied().filter(|_| !self.is_rest)
    }
}

#[derive(Debug, Default)]
struct Counted {
    /// At the last scrape.
    seen: Counts,
    /// In its own samples.
    own: Counts,
}

/// What was counted so far, and for whom.
#[derive(Debug, Default)]
pub struct Attribution {
    of_nodes: HashMap<NodeId, Counted>,
    rest: Counts,
    had_rest: bool,
}

/// What came since; all of it if it is less, since then it is another node of the same name.
fn more<const N: usize>(now: [u64; N], seen: &mut [u64; N]) -> [u64; N] {
    let before = std::mem::replace(seen, now);
    let mut more = now;
    for (more, before) in more.iter_mut().zip(before) {
        *more = more.checked_sub(before).unwrap_or(*more);
    }
    more
}

fn add<const N: usize>(to: &mut [u64; N], more: [u64; N]) {
    for (to, more) in to.iter_mut().zip(more) {
        *to = to.saturating_add(more);
    }
}

impl Attribution {
    /// Takes another look: at most so many nodes are shown by themselves, the deepest ones.
    pub fn look<'a>(&mut self, nodes: &'a [NodeStats], most: usize) -> Vec<Shown<'a>> {
        let mut all: Vec<&NodeStats> = nodes.iter().collect();
        if all.len() > most {
            all.sort_by_key(|it| (std::cmp::Reverse(it.pending.hints), it.node));
        }
        let rest = all.split_off(most.min(all.len()));
        let mut counted: HashMap<NodeId, Counted> = HashMap::with_capacity(nodes.len());
        let mut shown: Vec<Shown<'_>> = Vec::with_capacity(all.len() + 1);
        for node in all {
            let (mut it, news) = self.count(node);
            add(&mut it.own, news);
            shown.push(Shown {
                label: node.node.to_string(),
                nodes: vec![node],
                counts: it.own,
                is_rest: false,
            });
            counted.insert(node.node, it);
        }
        for node in &rest {
            let (it, news) = self.count(node);
            add(&mut self.rest, news);
            counted.insert(node.node, it);
        }
        // Who is not there any more was removed.
        self.of_nodes = counted;
        self.had_rest |= !rest.is_empty();
        if self.had_rest {
            shown.push(Shown {
                label: REST.to_owned(),
                nodes: rest,
                counts: self.rest,
                is_rest: true,
            });
        }
        shown
    }

    fn count(&mut self, node: &NodeStats) -> (Counted, Counts) {
        let mut it = self.of_nodes.remove(&node.node).unwrap_or_default();
        let news = more(NODE_COUNTERS.map(|(.., count)| count(node)), &mut it.seen);
        (it, news)
    }
}
