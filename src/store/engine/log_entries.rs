//! Keys and values that are intact in sled's log, with when and how they were written.

use std::{convert::Infallible, fs::File, io, path::Path};

use crate::store::{
    bounds::SEGMENT_BYTES,
    engine::log_scan::{LINK, Prefixes, in_order, read_segment, scan_messages},
};

/// A key and a value, as a message of the log has them.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The log sequence number of the message.
    pub lsn: u64,
    /// Whether it was written at that moment. sled writes leaves as a whole, too, with what was in
    /// them before; a link it never writes again.
    pub is_new: bool,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

/// Calls `each` with every key and value that is intact, oldest first, whether sled would find it or
/// not.
pub fn entries(log: &Path, mut each: impl FnMut(Entry<'_>)) -> io::Result<()> {
    let file = File::open(log)?;
    let (mut buffer, mut prefixes) = (Vec::new(), Prefixes::new());
    for (number, offset) in in_order(&file)? {
        read_segment(&file, offset, &mut buffer)?;
        let Ok(()) = scan_messages(&buffer, number, &mut prefixes, |message, key, value| {
            each(Entry {
                lsn: number * SEGMENT_BYTES as u64 + message.at as u64,
                is_new: message.kind == LINK,
                key,
                value,
            });
            Ok::<(), Infallible>(())
        });
    }
    Ok(())
}
