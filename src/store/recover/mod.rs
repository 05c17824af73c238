//! Opening a store, and what is made of what is found.

pub mod assemble;
pub mod behind_end;
pub mod dead_letters;
pub mod found_queue;
pub mod memtable;
pub mod open;
pub mod ownership;
pub mod prepare;
pub mod recovery;
pub mod reopen;
pub mod repair;
pub mod salvage;
