//! A block, put together from its chunks.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    store::format::{
        block::{self, Block, CHUNK_BYTES, Header},
        checksum::DecodeError,
        keys::{Keyspace, QueueRef, WAL},
        run::Draft,
        wal_record::split_runs,
    },
    types::Sequence,
};

/// The chunks of a block, as they are stored.
#[derive(Debug, Default)]
pub struct Chunks(BTreeMap<u16, Bytes>);

impl Chunks {
    /// Puts one to the others; what was there under its number.
    pub fn insert(&mut self, chunk: u16, value: Bytes) -> Option<Bytes> {
        self.0.insert(chunk, value)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.0.values().map(Bytes::len).sum()
    }

    pub fn header(&self, queue: QueueRef, first: Sequence) -> Result<Header, DecodeError> {
        let missing = DecodeError::Invalid("its first chunk is missing");
        Header::parse(queue, first, self.0.get(&0).ok_or(missing)?)
    }

    /// Its header and its body, verified and decompressed.
    pub fn open(
        &self,
        keyspace: Keyspace,
        queue: QueueRef,
        first: Sequence,
    ) -> Result<(Header, Bytes), DecodeError> {
        let header = self.header(queue, first)?;
        let chunk0 = self.0.get(&0).map(|it| block::body_of_chunk0(it));
        let chunk0 = chunk0.unwrap_or_default();
        let raw = match header.chunks {
            1 => block::verify(keyspace, queue, &header, chunk0)?,
            chunks => {
                let mut body = Vec::with_capacity(usize::from(chunks) * CHUNK_BYTES);
                body.extend_from_slice(chunk0);
                let rest = (1..chunks).filter_map(|chunk| self.0.get(&chunk));
                rest.for_each(|chunk| body.extend_from_slice(chunk));
                block::verify(keyspace, queue, &header, &body)?
            }
        };
        Ok((header, raw))
    }

    /// Verified and taken apart.
    pub fn block(&self, queue: QueueRef, first: Sequence) -> Result<Block, DecodeError> {
        let (header, raw) = self.open(Keyspace::Queue, queue, first)?;
        Ok(Block {
            queue,
            header,
            hints: block::split_hints(raw, &header)?,
        })
    }

    /// The same of a WAL record.
    pub fn wal_record(&self, first: Sequence) -> Result<(Header, Vec<Draft>), DecodeError> {
        let (header, raw) = self.open(Keyspace::Queue, WAL, first)?;
        Ok((header, split_runs(raw, &header)?))
    }
}
