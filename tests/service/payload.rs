//! What a host's `Payload` says when it fails reaches the caller of whatever was to carry it, and
//! nothing of that write is left.

mod json;

use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use hinted_handoff::{
    Config, ConsistencyLevel, EncodeError, EnqueueError, FailedOutcome, HintedHandoff, NodeId,
    Payload, PayloadError, PointsWriteError, PointsWriter, Pong, Sequence, Shard, ShardId,
    ShardWrite, ShardWriter, TransactionError, WriteError, database_config, open_database,
};

const NODE: NodeId = NodeId(3);
const SHARD: ShardId = ShardId(7);

/// Encodes as its text, unless it says how not to.
#[derive(Debug, Clone)]
struct Text(&'static str);

#[derive(Debug, PartialEq)]
struct NoSuchField(u32);

impl fmt::Display for NoSuchField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no field {}", self.0)
    }
}

impl Error for NoSuchField {}

impl Payload for Text {
    const FORMAT: u16 = 1;

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(self.0.as_bytes());
        match self.0 {
            "fails" => Err(EncodeError::new(NoSuchField(7))),
            "panics" => panic!("field 8 is gone"),
            _ => Ok(()),
        }
    }

    fn decode(_: u16, _: Bytes) -> Result<Self, PayloadError> {
        Ok(Text("decoded"))
    }
}

/// Takes direct writes, counted; its nodes do not answer replay.
struct Counting(Arc<AtomicUsize>);

impl ShardWriter<Text> for Counting {
    async fn ping(&self, _: NodeId) -> Result<Pong, WriteError> {
        Err(WriteError::retry("down"))
    }

    async fn write_shard(&self, _: ShardWrite<Text>) -> Result<(), WriteError> {
        self.0.fetch_add(1, Relaxed);
        Ok(())
    }
}

/// The error is a refusal that says this; a host's own error is there as it was.
fn says(error: &EnqueueError, text: &str) {
    let EnqueueError::Unencodable(encode) = error else {
        panic!("{error:?}");
    };
    assert_eq!(error.outcome(), FailedOutcome::Refused);
    let cause = encode.source().unwrap();
    assert!(cause.to_string().contains(text), "{cause}");
    if text == "no field 7" {
        assert_eq!(cause.downcast_ref(), Some(&NoSuchField(7)));
    }
}

#[tokio::test]
async fn an_encoder_that_fails_or_panics_refuses_its_write_whatever_carries_it_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        min_free_disk: 0,
        ..Config::new(dir.path().join("db"))
    };
    let db = open_database(&database_config(&config.dir)).unwrap();
    let rows = db.open_tree("rows").unwrap();
    let sends = Arc::new(AtomicUsize::new(0));
    let handoff = HintedHandoff::open_in(&db, config, Counting(Arc::clone(&sends)));
    let handoff = handoff.await.unwrap();
    let writer = PointsWriter::new(handoff.clone(), Counting(Arc::clone(&sends)));
    let shard = Shard {
        id: SHARD,
        owners: vec![NodeId(1), NODE],
    };

    for (points, text) in [
        (Text("fails"), "no field 7"),
        (Text("panics"), "the encoder panicked: field 8 is gone"),
    ] {
        let refused = handoff.write_shard(NODE, SHARD, &points).await;
        says(&refused.unwrap_err(), text);

        let committed = handoff.transaction(&[&rows], |rows, hints| {
            rows[0].insert("row", "1")?;
            hints.enqueue(NODE, SHARD, &Text("good"))?;
            Ok(hints.enqueue(NODE, SHARD, &points)?)
        });
        match committed.await {
            Err(TransactionError::Enqueue(error)) => says(&error, text),
            other => panic!("{other:?}"),
        }

        match writer.write(&shard, ConsistencyLevel::Any, points).await {
            Err(PointsWriteError::BadPoints(error)) => says(&error, text),
            other => panic!("{other:?}"),
        }
    }
    assert!(rows.is_empty());
    assert_eq!(sends.load(Relaxed), 0);
    assert_eq!(handoff.stats().nodes.len(), 0);

    // A transaction may go on without the hint; what was appended for it is nowhere.
    let committed = handoff.transaction(&[&rows], |_, hints| {
        hints.enqueue(NODE, SHARD, &Text("fails")).unwrap_err();
        Ok(hints.enqueue(NODE, SHARD, &Text("good"))?)
    });
    let ids = committed.await.unwrap().hints;
    assert_eq!((ids.len(), ids[0].sequence), (1, Sequence(1)));
    assert_eq!(handoff.stats().nodes[0].pending.bytes, 4);
    handoff.shutdown().await.unwrap();
}
