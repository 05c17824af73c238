//! What bank and branch say to each other: a delivery one way, a receipt the other, each a length
//! (u32, big endian) and so many bytes of postcard.

use std::{error::Error, io};

use hinted_handoff::{HintId, NodeId, Postcard, ShardWrite};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

pub type Failure = Box<dyn Error + Send + Sync>;

/// The branch, as the bank's hints name it.
pub const BRANCH: NodeId = NodeId(1);
/// Where the branch listens, in the directory of the run.
pub const SOCKET: &str = "branch.socket";
/// Checked before anything is allocated for a message.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// What a hint carries.
pub type Hint = Postcard<Transfer, 1>;

/// Money that went from one account to another.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Transfer {
    /// Drawn by the bank at random, the key of its row in both journals.
    pub id: u128,
    pub payer: u64,
    pub payee: u64,
    pub cents: i64,
    /// What both had afterwards at the bank. Hints of a shard arrive in order, so the branch must
    /// come to the same.
    pub payer_after: i64,
    pub payee_after: i64,
}

/// What the library gave the bank's writer, as it is: all that a receiver must be told to apply
/// each hint once.
pub type Delivery = ShardWrite<Hint>;

/// The last hint of the delivery: it and all before it are on the branch's disk.
pub type Receipt = HintId;

pub async fn send<T: Serialize>(stream: &mut UnixStream, message: &T) -> Result<(), Failure> {
    let body = postcard::to_stdvec(message)?;
    let mut frame = u32::try_from(body.len())?.to_be_bytes().to_vec();
    frame.extend_from_slice(&body);
    Ok(stream.write_all(&frame).await?)
}

/// The next message. That the peer hung up is an error too.
pub async fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> Result<T, Failure> {
    let length = stream.read_u32().await? as usize;
    if length > MESSAGE_BYTES_MAX {
        let text =
            format!("a message of {length} bytes is over the maximum of {MESSAGE_BYTES_MAX}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text).into());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(postcard::from_bytes(&body)?)
}

/// An error and what caused it, in one line.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
