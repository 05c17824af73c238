//! What a coordinator and the process of the owners say to each other, over the pipes of the
//! coordinator's stdin and stdout: what was written to a pipe is read from it whatever becomes of
//! the writer.

use std::io::{self, Read, Write};

use hinted_handoff::{LossReason, WriteId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Said by a coordinator.
#[derive(Debug, Serialize, Deserialize)]
pub enum Told {
    /// Its store is open.
    Opened,
    /// A write is about to be handed in.
    Tried { number: u64, shard: u64 },
    /// A write was answered: whether it is a success.
    Answered { number: u64, is_ok: bool },
    /// All that was handed in before this was begun is durable. Said again and again.
    Alive,
    /// Is the owner up?
    Ping { call: u64, node: u64 },
    /// Copies for an owner.
    Send {
        call: u64,
        node: u64,
        shard: u64,
        copies: Vec<Sent>,
    },
    /// A dead letter, found by an audit.
    Letter { node: u64, points: Vec<u8> },
    /// An entry of the loss journal, found by an audit.
    Lost {
        node: u64,
        shard: Option<u64>,
        reason: LossReason,
        hints: u64,
    },
    /// Nothing is pending, and all dead letters and losses are told.
    Audited,
    /// It closed its store.
    Closed,
}

/// A copy of a write.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sent {
    pub is_hint: bool,
    pub write: Option<WriteId>,
    pub points: Vec<u8>,
}

/// What an owner answers to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Take,
    /// The first so many are taken.
    Partial(usize),
    Retry,
    Reject,
    Obsolete,
}

/// Said by the owners.
#[derive(Debug, Serialize, Deserialize)]
pub struct Replied {
    pub call: u64,
    pub reply: Reply,
}

/// Of points: the number of the write and its shard.
const HEADER_BYTES: usize = 16;

/// Points that say which write they are of; the rest of them hardly compresses.
pub fn points(number: u64, shard: u64, bytes: usize) -> Vec<u8> {
    let mut noise = fastrand::Rng::with_seed(number);
    let mut points = Vec::with_capacity(HEADER_BYTES + bytes);
    points.extend(number.to_be_bytes());
    points.extend(shard.to_be_bytes());
    points.extend((0..bytes).map(|_| noise.u8(..)));
    points
}

/// The number and the shard, if every byte is the one that was written.
pub fn read_points(read: &[u8]) -> Option<(u64, u64)> {
    let (number, rest) = read.split_first_chunk::<8>()?;
    let (shard, noise) = rest.split_first_chunk::<8>()?;
    let (number, shard) = (u64::from_be_bytes(*number), u64::from_be_bytes(*shard));
    (points(number, shard, noise.len()) == read).then_some((number, shard))
}

/// Says something, in one piece.
pub fn say(to: &mut impl Write, what: &impl Serialize) -> io::Result<()> {
    let body = postcard::to_stdvec(what).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(body);
    to.write_all(&frame)?;
    to.flush()
}

/// What is said next; `None` at the end, and where whoever said it died in the middle of it.
pub fn hear<T: DeserializeOwned>(from: &mut impl Read) -> Option<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length).ok()?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    from.read_exact(&mut body).ok()?;
    Some(postcard::from_bytes(&body).unwrap())
}
