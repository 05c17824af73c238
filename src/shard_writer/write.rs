//! What a writer is given, and its form on the wire.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::{
    millis,
    types::{HintId, NodeId, QueueId, ShardId, WriteId},
};

/// One call of a [`ShardWriter`](crate::ShardWriter): batches for one shard of one node, in order.
///
/// It can be sent as it is, in any format of serde's, if the points can: nothing of it is known to
/// the sender alone. In formats that do not name fields (postcard) both sides need the same version
/// of this library. Points that are no serde type are made to bytes by [`map`](ShardWrite::map).
///
/// ```
/// use hinted_handoff::{Batch, NodeId, ShardId, ShardWrite};
///
/// let write = ShardWrite::new(NodeId(2), ShardId(7), vec![Batch::new("cpu v=1".to_owned())]);
/// let bytes = postcard::to_stdvec(&write)?; // to the node
/// let received: ShardWrite<String> = postcard::from_bytes(&bytes)?;
/// assert_eq!(received.batches[0].points, "cpu v=1");
/// # Ok::<(), postcard::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ShardWrite<P> {
    /// The destination.
    pub node: NodeId,
    /// The stream within it.
    pub shard: ShardId,
    /// When hints are replayed: all queues of their store below this one are done with for good, so
    /// the node may forget what it knows of them (see [`AppliedHints`](crate::AppliedHints)).
    /// `None` for a direct write.
    pub retired_below: Option<QueueId>,
    /// At least one batch; more than one only when hints are replayed.
    pub batches: Vec<Batch<P>>,
}

/// The points of one client write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Batch<P> {
    /// The hint's id when this is a replay; `None` when it is a direct write.
    pub hint: Option<HintId>,
    /// For a hint that was a dead letter and was sent on: the id that it had first.
    pub redriven_from: Option<HintId>,
    /// The write of a [`PointsWriter`](crate::PointsWriter) that it is a copy of: the same when it
    /// is sent directly and when its hint is replayed, so that a node can refuse the second of the
    /// two. `None` for a hint that was enqueued in another way.
    pub write: Option<WriteId>,
    /// When the write came in, by the wall clock as far as that is known now; for a dead letter
    /// that was sent on, when it was. Serialized as `enqueued_unix_ms`, in milliseconds since 1970.
    #[serde(rename = "enqueued_unix_ms", with = "millis::unix")]
    pub enqueued: SystemTime,
    /// The points themselves.
    pub points: P,
}

impl<P> ShardWrite<P> {
    /// A direct write, as a test of a host's writer needs it.
    pub fn new(node: NodeId, shard: ShardId, batches: Vec<Batch<P>>) -> Self {
        ShardWrite {
            node,
            shard,
            retired_below: None,
            batches,
        }
    }

    /// Whether hints are being replayed (as opposed to a client's write sent directly).
    pub fn is_replay(&self) -> bool {
        self.batches.iter().any(|batch| batch.hint.is_some())
    }

    /// The first hint's id when hints are replayed.
    pub(crate) fn first_hint(&self) -> Option<HintId> {
        self.batches.iter().find_map(|batch| batch.hint)
    }

    /// The same with other points.
    pub fn map<Q>(self, mut change: impl FnMut(P) -> Q) -> ShardWrite<Q> {
        let batches = self.batches.into_iter();
        ShardWrite {
            node: self.node,
            shard: self.shard,
            retired_below: self.retired_below,
            batches: batches.map(|batch| batch.map(&mut change)).collect(),
        }
    }
}

impl<P> Batch<P> {
    /// Points that come in now, and are neither a hint nor a copy of a known write.
    pub fn new(points: P) -> Self {
        Batch {
            hint: None,
            redriven_from: None,
            write: None,
            enqueued: SystemTime::now(),
            points,
        }
    }

    /// The same with other points.
    pub fn map<Q>(self, change: impl FnOnce(P) -> Q) -> Batch<Q> {
        Batch {
            hint: self.hint,
            redriven_from: self.redriven_from,
            write: self.write,
            enqueued: self.enqueued,
            points: change(self.points),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use bytes::Bytes;

    use super::*;
    use crate::types::{Sequence, StoreId};

    fn replay() -> ShardWrite<Bytes> {
        let hint = HintId {
            store: StoreId([0x0a; 16]),
            queue: QueueId(3),
            sequence: Sequence(12),
        };
        let first = HintId {
            sequence: Sequence(9),
            ..hint
        };
        let write = WriteId {
            boot: 0xab,
            counter: 5,
        };
        ShardWrite {
            node: NodeId(2),
            shard: ShardId(7),
            retired_below: Some(QueueId(2)),
            batches: vec![Batch {
                hint: Some(hint),
                redriven_from: Some(first),
                write: Some(write),
                enqueued: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
                points: Bytes::from_static(b"hi"),
            }],
        }
    }

    #[test]
    fn its_json_names_every_field_and_the_unit_of_the_time_and_reads_back() {
        let json = serde_json::to_string_pretty(&replay()).unwrap();
        let expected = r#"{
  "node": 2,
  "shard": 7,
  "retired_below": 2,
  "batches": [
    {
      "hint": "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a/3/12",
      "redriven_from": "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a/3/9",
      "write": "00000000000000ab/5",
      "enqueued_unix_ms": 1700000000123,
      "points": [
        104,
        105
      ]
    }
  ]
}"#;
        assert_eq!(json, expected);
        assert_eq!(
            serde_json::from_str::<ShardWrite<Bytes>>(&json).unwrap(),
            replay()
        );
    }

    #[test]
    fn its_compact_form_reads_back_and_mapping_changes_the_points_alone() {
        let bytes = postcard::to_stdvec(&replay()).unwrap();
        assert!(bytes.len() < 60, "{}", bytes.len());
        let back: ShardWrite<Bytes> = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(back, replay());
        let mapped = back.map(|points| points.to_vec());
        assert_eq!(mapped.batches[0].points, b"hi");
        assert_eq!(mapped.map(Bytes::from), replay());
    }

    #[test]
    fn a_time_that_is_no_number_of_milliseconds_is_refused() {
        let json = serde_json::to_string(&replay()).unwrap();
        for wrong in ["-1", "1.5", "\"now\"", "null"] {
            let json = json.replace("1700000000123", wrong);
            assert!(
                serde_json::from_str::<ShardWrite<Bytes>>(&json).is_err(),
                "{wrong}"
            );
        }
    }
}
