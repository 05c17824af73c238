//! Points to servers of InfluxDB 1.x, over HTTP.

mod answer;
mod body;
mod credentials;
mod error;
mod http_client;
mod node;
mod refused;
mod send;
mod settings;
mod together;
mod troubles;

use std::collections::HashMap;

use hinted_handoff::{NodeId, Pong, ShardWrite, ShardWriter, WriteError};
use http::StatusCode;

pub use answer::NodeAnswer;
#[cfg(feature = "relay")]
pub(crate) use credentials::read as read_password_file;
pub use error::WriterError;
pub use settings::{AnswerRule, NodeSettings, Password, Then, WriterSettings};

use self::{node::Node, send::Sending};
use crate::LinePoints;

/// Writes points to servers of InfluxDB 1.x, over HTTP, by `/write`.
///
/// Batches of one [`Target`](crate::Target) go together in one body up to
/// [`max_body_bytes`](WriterSettings::max_body_bytes), and so do direct writes that come while two
/// requests of their target are under way. What the answer of a server means:
///
/// | answer | the points |
/// |---|---|
/// | 204 | are taken |
/// | 400 of influxd: a field of another type, a line that does not parse, points beyond the retention policy, too many values of a tag | are a dead letter with influxd's text; of one hint it says which points are refused, influxd has the others |
/// | "database not found", "retention policy not found" | are sent again, and are a dead letter once they are older than [`missing_database_max_age`](WriterSettings::missing_database_max_age) |
/// | 413 | are sent in smaller bodies; a single point that is too large is a dead letter |
/// | 401, 403 | are sent again; the log has one `error` when that begins |
/// | 429, 503, others, none within [`timeout`](NodeSettings::timeout) | are sent again, after `Retry-After` if the answer has that |
///
/// [`answers`](WriterSettings::answers) change that. Where a server answered, the source of a
/// [`WriteError`] is a [`NodeAnswer`]. A redirect is not followed, and a proxy of the environment
/// not used.
///
/// ```
/// use hinted_handoff::{Batch, NodeId, ShardWrite, ShardWriter, WriteError};
/// use hinted_handoff_influx::{
///     InfluxWriter, NodeAnswer, NodeSettings, Points, Precision, Target, WriterSettings,
/// };
/// use std::{error::Error, time::SystemTime};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn Error>> {
/// // Nobody listens there.
/// let nodes = [NodeSettings::new(1, "http://127.0.0.1:1")];
/// let writer = InfluxWriter::new(&nodes, WriterSettings::default())?;
///
/// let target = Target {
///     database: "metrics".to_owned(),
///     retention_policy: None,
///     precision: Precision::Seconds,
/// };
/// let points = Points::read(target, b"cpu,host=a usage=0.64", SystemTime::now());
/// for (shard, points) in points.into_shards() {
///     let write = ShardWrite::new(NodeId(1), shard, vec![Batch::new(points)]);
///     match writer.write_shard(write).await {
///         Ok(()) => println!("taken"),
///         Err(error) => {
///             assert!(error.is_retryable());
///             let answer = error.source().and_then(|it| it.downcast_ref::<NodeAnswer>());
///             assert!(answer.is_none()); // nobody answered
///         }
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct InfluxWriter {
    nodes: HashMap<NodeId, Node>,
    settings: WriterSettings,
}

/// A write to a server that is not in the settings.
#[derive(Debug, thiserror::Error)]
#[error("the settings have no server {0}")]
struct UnknownNode(u64);

impl InfluxWriter {
    /// A writer to these servers. It reads the files of passwords and of certificates, and connects
    /// to nobody yet.
    ///
    /// # Errors
    ///
    /// [`WriterError`] says which setting is wrong, and of which server.
    pub fn new(
        nodes: &[NodeSettings],
        settings: WriterSettings,
    ) -> Result<InfluxWriter, WriterError> {
        if settings.max_body_bytes == 0 {
            let setting = "writer: max_body_bytes".to_owned();
            return Err(WriterError::TooSmall(setting, "1"));
        }
        let mut rules = settings.answers.iter();
        let is_for_all = |rule: &AnswerRule| rule.status.is_none() && rule.contains.is_none();
        if let Some(place) = rules.position(is_for_all) {
            return Err(WriterError::RuleForAll(place + 1));
        }
        let mut by_id = HashMap::new();
        for node in nodes {
            if by_id.insert(NodeId(node.id), Node::new(node)?).is_some() {
                return Err(WriterError::NodeTwice(node.id));
            }
        }
        Ok(InfluxWriter {
            nodes: by_id,
            settings,
        })
    }

    /// Whether the server said, the last time that it was sent points of the database, that it does
    /// not have it. False for one that was not asked yet.
    pub fn is_missing(&self, node: NodeId, database: &str) -> bool {
        let node = self.nodes.get(&node);
        node.is_some_and(|node| node.troubles.is_missing(database))
    }

    fn node(&self, node: NodeId) -> Result<&Node, WriteError> {
        let found = self.nodes.get(&node);
        found.ok_or_else(|| WriteError::retry(UnknownNode(node.0)))
    }
}

impl ShardWriter<LinePoints> for InfluxWriter {
    /// By `/ping`. A server that says 429 or 5xx is not worth trying; all others answered.
    async fn ping(&self, node: NodeId) -> Result<Pong, WriteError> {
        let answer = self.node(node)?.ping().await.map_err(WriteError::retry)?;
        let is_busy = answer.status == StatusCode::TOO_MANY_REQUESTS;
        match is_busy || answer.status.is_server_error() {
            true => Err(WriteError::retry(answer.into_error())),
            false => Ok(Pong::Answered),
        }
    }

    async fn write_shard(&self, write: ShardWrite<LinePoints>) -> Result<(), WriteError> {
        let node = self.node(write.node)?;
        Sending::new(node, &self.settings)
            .send(&write.batches)
            .await
    }
}
