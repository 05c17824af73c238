//! Keys and values that are intact in sled's log, with when and how they were written.

use std::{convert::Infallible, fs::File, io, path::Path};

use crate::store::{
    bounds::SEGMENT_BYTES,
    engine::{
        log_pages::end_of_log,
        log_scan::{LINK, in_order, messages, read_segment, scan_log, set},
        log_tail::snapshot_lsn,
    },
};

/// A key and a value, as a message of the log has them.
#[derive(Debug, Clone, Copy)]
pub struct LogEntry<'a> {
    /// The log sequence number of the message.
    pub lsn: u64,
    /// Whether it was written at that moment. sled writes leaves as a whole, too, with what was in
    /// them before; a link it never writes again.
    pub is_new: bool,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

/// Calls `each` with every key and value that is intact, oldest first, whether sled would find it
/// or not.
pub fn entries(log: &Path, mut each: impl FnMut(LogEntry<'_>)) -> io::Result<()> {
    let Ok(()) = scan_log(log, |message, key, value| {
        each(LogEntry {
            lsn: message.segment * SEGMENT_BYTES as u64 + message.at as u64,
            is_new: message.kind == LINK,
            key,
            value,
        });
        Ok::<(), Infallible>(())
    })?;
    Ok(())
}

/// Where sled would end a log that was not closed. Only the last segments are read.
pub fn end(log: &Path) -> io::Result<u64> {
    end_of_log(&File::open(log)?, snapshot_lsn(log)?)
}

/// Calls `each` with the values that are intact behind an end and were written there. Keys are not
/// known without the rest of the log, which is not read.
pub fn new_values_behind(log: &Path, end: u64, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let (file, segment_bytes) = (File::open(log)?, SEGMENT_BYTES as u64);
    let mut buffer = Vec::new();
    for (number, offset) in in_order(&file)? {
        if number < end / segment_bytes {
            continue;
        }
        read_segment(&file, offset, &mut buffer)?;
        for message in messages(&buffer, Some(number)) {
            let is_behind = number * segment_bytes + message.at as u64 >= end;
            if let (true, LINK, Some((_, value))) = (is_behind, message.kind, set(message.body)) {
                each(value);
            }
        }
    }
    Ok(())
}
