//! A store that nobody has open, looked into without changing a byte of it.
//!
//! sled writes to a database as soon as it opens one: a snapshot, and zeros over the end of its
//! log. So it is not asked: the leaves of its trees are found in the log (`log_pages.rs`), and what
//! is made of them is what an open would make of it. What is damaged is looked for in the rest of
//! the log, as replay does it.
//!
//! - **Closed cleanly**: all that is intact in the log counts, and `CLEAN` says what is to be
//!   there.
//! - **Not closed**: the log ends where sled would end it, and hints of WAL records count that are
//!   in no block.

mod blocks;
mod closed;
mod end;
mod findings;
mod hints;
mod known;
mod letters;
mod pieces;
mod place;
mod queues;
mod summary;
mod verify;
mod wal;

pub use closed::ClosedStore;
pub use findings::{Finding, Severity};
pub use hints::{ClosedHint, ClosedHints, ClosedLetter, ClosedLetters, Selection};
pub use place::HeldStore;
pub use summary::{ClosedInfo, ClosedNode};
pub use verify::{Verified, verify};
