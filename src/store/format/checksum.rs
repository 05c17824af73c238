//! Checksums of the small records: `bytes ++ CRC32C(key ++ bytes) u32 BE`.
//!
//! sled can drop or exchange records silently when its file is damaged (docs/sled.md rule 10), so
//! every record of ours carries a checksum of its own, over its key too: a value found under
//! another key does not pass.

use serde::{Serialize, de::DeserializeOwned};

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("it is {found} bytes long, {wanted} are needed")]
    Short { found: usize, wanted: usize },
    #[error("its checksum is {found:08x}, its bytes give {computed:08x}")]
    Checksum { found: u32, computed: u32 },
    #[error("its version is {0}, which this library does not know")]
    Version(u8),
    #[error("{0}")]
    Invalid(&'static str),
    #[error("its body does not decompress: {0}")]
    Decompress(String),
    #[error("its fields do not read: {0}")]
    Postcard(#[from] postcard::Error),
}

impl From<bytes::TryGetError> for DecodeError {
    fn from(error: bytes::TryGetError) -> Self {
        DecodeError::Short {
            found: error.available,
            wanted: error.requested,
        }
    }
}

const CHECKSUM_BYTES: usize = 4;

/// CRC32C over several pieces as if they were one.
pub fn checksum(pieces: &[&[u8]]) -> u32 {
    pieces
        .iter()
        .fold(0, |crc, piece| crc32c::crc32c_append(crc, piece))
}

/// Appends the checksum.
pub fn with_checksum(key: &[u8], mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = checksum(&[key, &bytes]);
    bytes.extend(crc.to_be_bytes());
    bytes
}

/// The bytes without their checksum, once it is verified.
pub fn without_checksum<'a>(key: &[u8], checksummed: &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let Some((bytes, stored)) = checksummed.split_last_chunk::<CHECKSUM_BYTES>() else {
        return Err(DecodeError::Short {
            found: checksummed.len(),
            wanted: CHECKSUM_BYTES,
        });
    };
    let found = u32::from_be_bytes(*stored);
    let computed = checksum(&[key, bytes]);
    if found != computed {
        return Err(DecodeError::Checksum { found, computed });
    }
    Ok(bytes)
}

/// Appends a value in postcard's encoding.
pub fn pack(mut bytes: Vec<u8>, value: &impl Serialize) -> Vec<u8> {
    // Only a writer that is full, or a value of unknown length, fails; neither can be.
    if let Err(error) = postcard::to_io(value, &mut bytes) {
        tracing::error!(%error, "a record does not encode");
    }
    bytes
}

/// Takes a value off the front.
pub fn unpack<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T, DecodeError> {
    let (value, rest) = postcard::take_from_bytes(bytes)?;
    *bytes = rest;
    Ok(value)
}

/// A record of a version and fields in postcard's encoding, checksummed.
pub fn encode_record(key: &[u8], version: u8, record: &impl Serialize) -> Vec<u8> {
    with_checksum(key, pack(vec![version], record))
}

/// Reads what [`encode_record`] made.
pub fn decode_record<T: DeserializeOwned>(
    key: &[u8],
    version: u8,
    checksummed: &[u8],
) -> Result<T, DecodeError> {
    let bytes = without_checksum(key, checksummed)?;
    let (found, mut fields) = bytes
        .split_first()
        .ok_or(DecodeError::Invalid("it is empty"))?;
    if *found != version {
        return Err(DecodeError::Version(*found));
    }
    let record = unpack(&mut fields)?;
    match fields.is_empty() {
        true => Ok(record),
        false => Err(DecodeError::Invalid("bytes are left behind its fields")),
    }
}
