//! What the model says of hints without an answer, and how it names them.

/// A hint in the model. Given out when it is handed in; the store's own id may come later, or
/// never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HintNumber(pub(super) u64);

/// What unclean stops left open, and how it turned out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settled {
    /// Unclean stops that were settled by a check.
    pub stops: u64,
    /// Hints without an answer, or of unknown outcome, that were there afterwards.
    pub found: u64,
    /// Such hints that were not.
    pub gone: u64,
    /// Acknowledgements that were undone.
    pub undone: u64,
}
