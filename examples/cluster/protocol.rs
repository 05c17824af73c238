//! What the processes say to each other: a length (u32, big endian) and so many bytes of postcard.

use std::{
    error::Error,
    io::ErrorKind,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use hinted_handoff::{NodeId, ShardId, ShardWrite};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::points::Point;

pub type Failure = Box<dyn Error + Send + Sync>;

/// Checked before anything is allocated for a message.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

pub const COORDINATOR: &str = "coordinator";

/// All replicas; each owns a copy of every shard.
pub const REPLICAS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

pub fn replica_name(node: NodeId) -> String {
    format!("replica-{node}")
}

/// A request, and what it is answered with.
pub trait Request: Serialize + DeserializeOwned + Send + Sync + 'static {
    type Answer: Serialize + DeserializeOwned + Send + Sync + 'static;
}

#[derive(Debug, Serialize, Deserialize)]
pub enum ReplicaRequest {
    Ping,
    /// What the library gave the coordinator's writer, as it is.
    Write(ShardWrite<String>),
    /// All points, and all counters.
    Dump,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum ReplicaAnswer {
    Pong,
    /// All batches are on disk.
    Written,
    /// The lines are malformed: sending them again is of no use.
    Malformed(String),
    Dump {
        points: Vec<Point>,
        counters: Counters,
    },
}

impl Request for ReplicaRequest {
    type Answer = ReplicaAnswer;
}

/// What a replica counts, in the transaction that applies what it counts: a SIGKILL does not
/// falsify it.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Writes that came directly.
    pub direct: u64,
    /// Hints applied, each id once.
    pub hints: u64,
    pub hint_points: u64,
    /// Hints that came again and were skipped, since their sequence was applied before.
    pub redelivered: u64,
    /// Points upserted over the very same value, from a direct write and from a hint.
    pub redundant_direct: u64,
    pub redundant_hinted: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum CoordinatorRequest {
    Write {
        shard: ShardId,
        lines: String,
    },
    Status,
    /// Stop replay and close the store.
    Shutdown,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum CoordinatorAnswer {
    /// A quorum has it. `number` counts the writes taken in since the coordinator started; of those
    /// up to `settled` every owner has its copy, or the coordinator has a durable hint for it.
    Written {
        number: u64,
        settled: u64,
    },
    /// The write did not reach its level: repeat it.
    NotWritten(String),
    Status(Status),
    Closed,
}

impl Request for CoordinatorRequest {
    type Answer = CoordinatorAnswer;
}

/// The coordinator's counts since it started.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    /// Writes taken in.
    pub received: u64,
    /// See [`CoordinatorAnswer::Written`].
    pub settled: u64,
    pub backlogs: Vec<Backlog>,
}

/// One node's queue of hints, counted in hints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Backlog {
    pub node: NodeId,
    pub state: String,
    /// Waiting when the coordinator started.
    pub found: u64,
    pub stored: u64,
    pub delivered: u64,
    pub lost: u64,
    pub pending: u64,
}

impl Status {
    /// Hints that wait for `node`.
    pub fn pending(&self, node: NodeId) -> u64 {
        let backlog = self.backlogs.iter().find(|backlog| backlog.node == node);
        backlog.map_or(0, |backlog| backlog.pending)
    }
}

/// The file in which a server publishes where it listens, since each start gives it another port.
pub fn address_file(root: &Path, server: &str) -> PathBuf {
    root.join(format!("{server}.address"))
}

/// A connection to a server, by its name.
pub struct Connection {
    server: String,
    stream: TcpStream,
}

impl Connection {
    pub async fn open(root: &Path, server: &str) -> Result<Self, Failure> {
        let file = address_file(root, server);
        let text = std::fs::read_to_string(&file)
            .map_err(|error| format!("{server} has published no address: {error}"))?;
        let address: SocketAddr = text
            .parse()
            .map_err(|_| format!("{} holds {text:?}, which is no address", file.display()))?;
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| format!("{server} cannot be reached at {address}: {error}"))?;
        stream.set_nodelay(true)?;
        Ok(Connection {
            server: server.to_owned(),
            stream,
        })
    }

    /// Asks and waits for the answer. A connection on which this failed or was given up is of no
    /// more use.
    pub async fn call<R: Request>(&mut self, request: &R) -> Result<R::Answer, Failure> {
        let server = &self.server;
        send(&mut self.stream, &(server, request))
            .await
            .map_err(|error| format!("the request to {server} was not sent: {error}"))?;
        let answer = receive::<Result<R::Answer, String>>(&mut self.stream)
            .await
            .map_err(|error| format!("the answer of {server} was not received: {error}"))?
            .ok_or_else(|| format!("{server} hung up without an answer"))?;
        answer.map_err(|error| format!("{server} says: {error}").into())
    }
}

pub async fn send<T: Serialize>(stream: &mut TcpStream, message: &T) -> Result<(), Failure> {
    let body = postcard::to_stdvec(message)?;
    check_length(body.len())?;
    let mut frame = u32::try_from(body.len())?.to_be_bytes().to_vec();
    frame.extend_from_slice(&body);
    // In one write, so that no half of a message waits for the other in the sender.
    Ok(stream.write_all(&frame).await?)
}

/// The next message, or `None` if the peer hung up behind the last one.
pub async fn receive<T: DeserializeOwned>(stream: &mut TcpStream) -> Result<Option<T>, Failure> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let length = u32::from_be_bytes(length) as usize;
    check_length(length)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(postcard::from_bytes(&body)?))
}

fn check_length(bytes: usize) -> Result<(), Failure> {
    if bytes > MESSAGE_BYTES_MAX {
        return Err(format!(
            "a message of {bytes} bytes is over the maximum of {MESSAGE_BYTES_MAX}; the peer speaks another protocol, or \
             the message must be split"
        )
        .into());
    }
    Ok(())
}

/// An error and what caused it, in one line.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
