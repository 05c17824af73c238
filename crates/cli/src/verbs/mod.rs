//! The verbs: a file each, but for short ones that belong together.

pub mod barrier;
pub mod check;
pub mod completions;
pub mod events;
pub mod export;
pub mod import;
pub mod info;
pub mod letters;
pub mod losses;
pub mod man;
pub mod members;
pub mod metrics;
pub mod nodes;
pub mod operate;
pub mod peek;
pub mod rehint;
pub mod salvage;
pub mod settings;
pub mod status;
pub mod top;
pub mod verify;
