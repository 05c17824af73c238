//! The store by itself: what it writes, keeps, finds again and gives back.

#[path = "../common/mod.rs"]
mod common;
#[path = "../crash/side_by_side.rs"]
mod side_by_side;

mod barrier;
mod damaged_end;
mod dead_letters;
mod directory;
mod directory_gone;
mod extremes;
mod golden;
mod group_commit;
mod killed;
mod log_bound;
mod mid_block_ack;
mod not_stored;
mod numbering;
mod rebuild;
mod rehint;
mod space;
mod store_damage;
mod undelivered;
mod wal;
