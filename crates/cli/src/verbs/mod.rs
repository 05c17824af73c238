//! One file a verb.

pub mod completions;
pub mod export;
pub mod import;
pub mod info;
pub mod letters;
pub mod losses;
pub mod man;
pub mod salvage;
pub mod verify;
