//! sled made trustworthy: every rule of docs/sled.md is kept here.

pub mod anchor;
pub mod blocks;
pub mod conf;
pub mod copy;
pub mod folder;
pub mod generation;
pub mod growth;
pub mod leaf_padding;
pub mod log_entries;
pub mod log_pages;
pub mod log_scan;
pub mod log_search;
pub mod log_tail;
pub mod log_tree;
pub mod meta;
pub mod migrate;
pub mod read_ahead;
pub mod rows;
pub mod snapshots;
pub mod table;
pub mod unsynced;
pub mod writer;
