//! Bodies of requests.

use std::io::{self, Write};

use bytes::{Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use hinted_handoff::Batch;

use crate::LinePoints;

/// Smaller bodies gain nothing from being compressed.
const GZIP_FROM_BYTES: usize = 1024;

/// A body, and whether it is compressed.
#[derive(Debug, Default)]
pub struct Body {
    pub bytes: Bytes,
    pub is_gzip: bool,
}

impl Body {
    /// Lines one after another. Those of one batch are not copied if they are not compressed.
    pub fn of(parts: &[Bytes], may_gzip: bool) -> io::Result<Body> {
        let length = parts.iter().map(Bytes::len).sum();
        let is_gzip = may_gzip && length >= GZIP_FROM_BYTES;
        let bytes = match parts {
            parts if is_gzip => compressed(parts, length)?,
            [part] => part.clone(),
            parts => {
                let mut bytes = BytesMut::with_capacity(length);
                parts.iter().for_each(|part| bytes.extend_from_slice(part));
                bytes.freeze()
            }
        };
        Ok(Body { bytes, is_gzip })
    }
}

fn compressed(parts: &[Bytes], length: usize) -> io::Result<Bytes> {
    let out = Vec::with_capacity(length / 4);
    let mut gzip = GzEncoder::new(out, Compression::fast());
    for part in parts {
        gzip.write_all(part)?;
    }
    Ok(gzip.finish()?.into())
}

/// How many of the next batches make one body: those of one target, up to so many bytes, and the
/// first one in any case.
pub fn next_body(batches: &[Batch<LinePoints>], max_bytes: u64) -> usize {
    let Some((first, others)) = batches.split_first() else {
        return 0;
    };
    let mut bytes = first.points.lines().len() as u64;
    let fits = |batch: &&Batch<LinePoints>| {
        bytes += batch.points.lines().len() as u64;
        bytes <= max_bytes && batch.points.target() == first.points.target()
    };
    1 + others.iter().take_while(fits).count()
}
