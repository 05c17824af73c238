//! Where a hint stands among all of its node.

use crate::types::Sequence;

/// Where a hint stands among all of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub queue: usize,
    pub sequence: Sequence,
}
