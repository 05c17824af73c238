//! The records of the tree `hh/meta`: schema version, store id, next queue id, whether all replay
//! is paused (u8, 0 no, 1 yes; absent: no), clocks that were wrong (`correction.rs`; absent: none),
//! who is in the cluster (u8, 0 it is not said, 1 all of them: u64 each; absent: not said), whether
//! any hint ever had a lifetime of its own (nothing; absent: none had). Each has a
//! checksum.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    error::StorageError,
    store::{
        engine::{generation::Engine, table, writer::Writer},
        format::{
            checksum::{DecodeError, with_checksum, without_checksum},
            correction::Correction,
        },
    },
    types::{NodeId, StoreId},
};

pub const SCHEMA: &str = "schema";
pub const STORE: &str = "store";
const NEXT_QUEUE: &str = "next_queue";
pub const PAUSED: &str = "paused";
const CLOCK: &str = "clock";
const MEMBERS: &str = "members";
const LIFETIMES: &str = "lifetimes";
/// docs/sled.md rule 3: of eight bytes each, in one value.
pub const MEMBERS_MAX: usize = 8000;

#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    #[error("the {record} record is damaged: {detail}")]
    Damaged {
        record: &'static str,
        detail: String,
    },
    #[error("the engine failed to read or write it")]
    Engine(#[from] table::Error),
}

fn get<const N: usize>(
    engine: &Engine,
    record: &'static str,
) -> Result<Option<[u8; N]>, MetaError> {
    let value = engine.meta.get(record)?;
    value.map(|value| decode(record, &value)).transpose()
}

/// Verifies a record and takes its checksum off.
pub fn decode<const N: usize>(record: &'static str, value: &[u8]) -> Result<[u8; N], MetaError> {
    let damaged = |detail: String| MetaError::Damaged { record, detail };
    let bytes =
        without_checksum(record.as_bytes(), value).map_err(|error| damaged(error.to_string()))?;
    bytes
        .try_into()
        .map_err(|_| damaged(format!("it is {} bytes long, not {N}", bytes.len())))
}

/// Whether this is one of the records, whole.
pub fn is_record(key: &[u8], value: &[u8]) -> bool {
    [SCHEMA, STORE, NEXT_QUEUE, PAUSED, CLOCK, MEMBERS, LIFETIMES]
        .map(str::as_bytes)
        .contains(&key)
        && without_checksum(key, value).is_ok()
}

fn put(writer: &mut Writer, record: &str, value: Vec<u8>) -> Result<(), StorageError> {
    let engine = Arc::clone(writer.engine());
    let key = record.as_bytes();
    writer.put(&engine.meta, key, with_checksum(key, value))
}

pub fn schema(engine: &Engine) -> Result<Option<u32>, MetaError> {
    Ok(get(engine, SCHEMA)?.map(u32::from_be_bytes))
}

pub fn set_schema(writer: &mut Writer, version: u32) -> Result<(), StorageError> {
    put(writer, SCHEMA, version.to_be_bytes().to_vec())
}

pub fn store_id(engine: &Engine) -> Result<Option<StoreId>, MetaError> {
    Ok(get(engine, STORE)?.map(StoreId))
}

pub fn set_store_id(writer: &mut Writer, store: StoreId) -> Result<(), StorageError> {
    put(writer, STORE, store.0.to_vec())
}

/// `Ok(None)` if the record is missing or damaged: the caller finds a safe value above every queue
/// it sees.
pub fn next_queue(engine: &Engine) -> Result<Option<u64>, MetaError> {
    match get(engine, NEXT_QUEUE) {
        Ok(value) => Ok(value.map(u64::from_be_bytes)),
        Err(MetaError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

pub fn set_next_queue(writer: &mut Writer, next: u64) -> Result<(), StorageError> {
    put(writer, NEXT_QUEUE, next.to_be_bytes().to_vec())
}

/// Whether all replay is paused, to last.
pub fn paused(engine: &Engine) -> Result<bool, MetaError> {
    let damaged = |detail: String| MetaError::Damaged {
        record: PAUSED,
        detail,
    };
    match get(engine, PAUSED)? {
        None | Some([0]) => Ok(false),
        Some([1]) => Ok(true),
        Some([other]) => Err(damaged(format!("it says {other}"))),
    }
}

/// Kept when it ends: a rebuild takes what the log has, and
/// would find an older one.
pub fn set_paused(writer: &mut Writer, paused: bool) -> Result<(), StorageError> {
    put(writer, PAUSED, vec![u8::from(paused)])
}

/// Clocks that were wrong. A record that does not read is as none: hints may leave too early by it,
/// but no store stays closed for that.
pub fn corrections(engine: &Engine) -> table::Result<Vec<Correction>> {
    let Some(value) = engine.meta.get(CLOCK)? else {
        return Ok(Vec::new());
    };
    let bytes = without_checksum(CLOCK.as_bytes(), &value);
    let read = bytes.and_then(Correction::decode_all);
    Ok(read.unwrap_or_else(|error| {
        tracing::error!(%error, "the record of clocks that were wrong is damaged");
        Vec::new()
    }))
}

pub fn set_corrections(
    writer: &mut Writer,
    corrections: &[Correction],
) -> Result<(), StorageError> {
    put(writer, CLOCK, Correction::encode_all(corrections))
}

/// Who is in the cluster, if that was said. A record that does not read is as none: nobody is held
/// back by what may not have been said.
pub fn members(engine: &Engine) -> table::Result<Option<BTreeSet<NodeId>>> {
    let Some(value) = engine.meta.get(MEMBERS)? else {
        return Ok(None);
    };
    let bytes = without_checksum(MEMBERS.as_bytes(), &value);
    let read = bytes.and_then(decode_members);
    Ok(read.unwrap_or_else(|error| {
        tracing::error!(%error, "the record of who is in the cluster is damaged");
        None
    }))
}

fn decode_members(bytes: &[u8]) -> Result<Option<BTreeSet<NodeId>>, DecodeError> {
    let (is_said, nodes) = match bytes.split_first() {
        Some((0, [])) => return Ok(None),
        Some((1, nodes)) => (true, nodes),
        _ => (false, bytes),
    };
    let (nodes, rest) = nodes.as_chunks::<8>();
    if !is_said || !rest.is_empty() {
        return Err(DecodeError::Invalid("it is no list of nodes"));
    }
    let nodes = nodes.iter().map(|it| NodeId(u64::from_be_bytes(*it)));
    Ok(Some(nodes.collect()))
}

/// Kept when it is not said any more: a rebuild takes what
/// the log has, and would find an older one.
pub fn set_members(
    writer: &mut Writer,
    members: Option<&BTreeSet<NodeId>>,
) -> Result<(), StorageError> {
    let mut value = vec![u8::from(members.is_some())];
    let nodes = members.into_iter().flatten();
    nodes.for_each(|node| value.extend(node.0.to_be_bytes()));
    put(writer, MEMBERS, value)
}

/// Whether any hint ever had a lifetime of its own.
pub fn has_lifetimes(engine: &Engine) -> table::Result<bool> {
    engine.meta.contains_key(LIFETIMES)
}

pub fn set_lifetimes(writer: &mut Writer) -> Result<(), StorageError> {
    put(writer, LIFETIMES, Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_in_the_cluster_reads_back_and_nothing_else_does() {
        let all = |nodes: &[u8]| [&[1][..], nodes].concat();
        assert_eq!(decode_members(&[0]), Ok(None));
        assert_eq!(decode_members(&all(&[])), Ok(Some(BTreeSet::new())));
        let two = all(&[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 1, 0]);
        let read = Some([NodeId(9), NodeId(256)].into());
        assert_eq!(decode_members(&two), Ok(read));
        for wrong in [&[][..], &[2], &[0, 1], &two[..10]] {
            assert!(decode_members(wrong).is_err(), "{wrong:?}");
        }
    }
}
