//! The coordinator: hosts the library. It writes what clients send to all replicas and hints for
//! those that miss it.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hinted_handoff::{
    Config, ConsistencyLevel, HintedHandoff, NodeId, PointsWriter, Pong, Shard, ShardId,
    ShardWrite, ShardWriter, WriteError,
};
use parking_lot::Mutex;

use crate::{
    operating,
    protocol::{
        Backlog, COORDINATOR, Connection, CoordinatorAnswer, CoordinatorRequest, Failure, REPLICAS,
        ReplicaAnswer, ReplicaRequest, Status, replica_name, with_causes,
    },
    server::{self, Service},
};

/// The replicas as the library sees them: a name for each, and a way to write to it.
struct Replicas {
    root: PathBuf,
    /// Connections that nobody uses at the moment.
    idle: Mutex<HashMap<NodeId, Vec<Connection>>>,
}

impl Replicas {
    async fn call(
        &self,
        node: NodeId,
        request: &ReplicaRequest,
    ) -> Result<ReplicaAnswer, WriteError> {
        let idle = self.idle.lock().entry(node).or_default().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => Connection::open(&self.root, &replica_name(node))
                .await
                .map_err(WriteError::retry)?,
        };
        // It goes back only after a whole conversation. If the library gives up waiting it drops
        // this future, and the connection with it: the late answer must not be taken for that of
        // the next request.
        let answer = connection.call(request).await.map_err(WriteError::retry)?;
        self.idle.lock().entry(node).or_default().push(connection);
        Ok(answer)
    }
}

impl ShardWriter<String> for Replicas {
    async fn ping(&self, node: NodeId) -> Result<Pong, WriteError> {
        let answer = self.call(node, &ReplicaRequest::Ping).await;
        answer.map(|_| Pong::Answered)
    }

    async fn write_shard(&self, write: ShardWrite<String>) -> Result<(), WriteError> {
        match self.call(write.node, &ReplicaRequest::Write(write)).await? {
            ReplicaAnswer::Written => Ok(()),
            ReplicaAnswer::Malformed(why) => Err(WriteError::reject(why)),
            other => Err(WriteError::retry(format!(
                "a write was answered with {other:?}"
            ))),
        }
    }
}

struct Coordinator {
    handoff: HintedHandoff<String>,
    points_writer: PointsWriter<String, Arc<Replicas>>,
    numbers: Mutex<Numbers>,
    /// Hints that waited for each node when the store was opened.
    found: HashMap<NodeId, u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Numbers {
    received: u64,
    settled: u64,
}

pub async fn run(root: &Path) -> Result<(), Failure> {
    server::end_with_the_director();
    if std::env::var_os("HH_LOG").is_some() {
        let log = tracing_subscriber::fmt().with_writer(std::io::stderr);
        log.with_max_level(tracing::Level::INFO).init();
    }
    let config = Config {
        retry_interval: Duration::from_millis(100),
        retry_max_interval: Duration::from_secs(1),
        write_timeout: Duration::from_secs(2),
        // A few hints a send, so that the replay takes long enough to be killed in the middle.
        batch_bytes: 1024,
        ..Config::new(root.join("hints"))
    };
    let replicas = Arc::new(Replicas {
        root: root.to_owned(),
        idle: Mutex::default(),
    });
    let handoff = HintedHandoff::open(config, Arc::clone(&replicas)).await?;
    let _served = operating::serve_both(root, &handoff).await?;
    let nodes = handoff.stats().nodes.into_iter();
    // The replay of what was found has begun already.
    let found = nodes.map(|node| (node.node, node.pending.hints + node.delivered.hints));
    let coordinator = Coordinator {
        found: found.collect(),
        points_writer: PointsWriter::new(handoff.clone(), replicas),
        handoff,
        numbers: Mutex::default(),
    };
    server::serve(root, COORDINATOR, coordinator).await
}

impl Service<CoordinatorRequest> for Coordinator {
    async fn answer(&self, request: CoordinatorRequest) -> Result<CoordinatorAnswer, Failure> {
        match request {
            CoordinatorRequest::Write { shard, lines } => self.write(shard, lines).await,
            CoordinatorRequest::Status => Ok(CoordinatorAnswer::Status(self.status())),
            CoordinatorRequest::Shutdown => {
                self.handoff.shutdown().await?;
                Ok(CoordinatorAnswer::Closed)
            }
        }
    }
}

impl Coordinator {
    async fn write(&self, shard: ShardId, lines: String) -> Result<CoordinatorAnswer, Failure> {
        if lines.is_empty() {
            return Err("a write of no lines".into());
        }
        let Numbers { received, settled } = self.count(1);
        let shard = Shard {
            id: shard,
            owners: REPLICAS.to_vec(),
        };
        let level = ConsistencyLevel::Quorum;
        Ok(match self.points_writer.write(&shard, level, lines).await {
            Ok(_) => CoordinatorAnswer::Written {
                number: received,
                settled,
            },
            Err(error) => CoordinatorAnswer::NotWritten(with_causes(&error)),
        })
    }

    /// Counts so many more writes as taken in, and sees which of those before have settled.
    ///
    /// A write at `Quorum` is answered when two replicas have it. The third copy, or the hint for
    /// it, is still on its way then, and dies with this process. So clients are told up to which
    /// write every copy is safe: up to here, when as many copies have ended well as were begun.
    fn count(&self, more: u64) -> Numbers {
        let mut numbers = self.numbers.lock();
        let copies = self.handoff.stats().writes;
        if copies.direct + copies.hinted == numbers.received * REPLICAS.len() as u64 {
            numbers.settled = numbers.received;
        }
        numbers.received += more;
        *numbers
    }

    fn status(&self) -> Status {
        let Numbers { received, settled } = self.count(0);
        let nodes = self.handoff.stats().nodes.into_iter();
        Status {
            received,
            settled,
            backlogs: nodes
                .map(|node| Backlog {
                    node: node.node,
                    state: match node.last_error {
                        Some(error) => format!("{:?}: {error}", node.state),
                        None => format!("{:?}", node.state),
                    },
                    found: self.found.get(&node.node).copied().unwrap_or(0),
                    stored: node.enqueued.hints,
                    delivered: node.delivered.hints,
                    lost: node.lost.hints,
                    pending: node.pending.hints,
                })
                .collect(),
        }
    }
}
