//! Step 2: room for what leaves undelivered.
//!
//! `hh/losses` is made, empty. The records of schema 1 stay as they are and are read still: cursors
//! and node records of version 1 are written anew in version 2 when they change, blocks are the
//! same. Frozen: never edit a step that was released.

/// Safe to run again after a crash in the middle.
pub fn run(db: &sled::Db, _store_id: [u8; 16]) -> sled::Result<()> {
    db.open_tree("hh/losses")?;
    Ok(())
}
