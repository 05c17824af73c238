//! Step 1: the first bytes of a store.
//!
//! `hh/meta` gets `store` (128 random bits) and `next_queue` (u64 BE, starts at 1), each followed
//! by the CRC32C (u32 BE) of its key and value; `hh/nodes`, `hh/hints` and `hh/losses` are made
//! empty. Frozen: never edit a step that was released.

/// Safe to run again after a crash in the middle: what is there already stays.
pub fn run(db: &sled::Db, store_id: [u8; 16]) -> sled::Result<()> {
    db.open_tree("hh/nodes")?;
    db.open_tree("hh/hints")?;
    db.open_tree("hh/losses")?;
    let meta = db.open_tree("hh/meta")?;
    for (key, value) in [
        ("store", store_id.to_vec()),
        ("next_queue", 1_u64.to_be_bytes().to_vec()),
    ] {
        if meta.get(key)?.is_none() {
            let crc = crc32c(&[key.as_bytes(), &value].concat());
            meta.insert(key, [value, crc.to_be_bytes().to_vec()].concat())?;
        }
    }
    Ok(())
}

/// CRC-32C (Castagnoli), reflected polynomial 0x82F63B78, as in RFC 3720 appendix B.4. Copied in so
/// that this file depends on nothing that could change.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg())
        })
    })
}
