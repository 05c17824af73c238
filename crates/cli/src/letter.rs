//! A dead letter as it is told of: the same names, whether a closed store has it or a host that
//! runs. What one of the two does not tell is `null`.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::STANDARD};
use hinted_handoff::{DeadLetter, DeadReason, HintId, NodeId, ShardId, offline::ClosedLetter};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{json::name_of, output::Output};

/// What a list has of it.
#[derive(Debug, Clone, Serialize)]
pub struct Letter {
    pub id: HintId,
    pub node: NodeId,
    pub shard: ShardId,
    /// `null` if its payload does not read.
    payload_bytes: Option<u64>,
    /// Whether its payload reads. A host does not look at it for a list.
    reads: Option<bool>,
    /// A host does not tell it in a list.
    enqueued_unix_ms: Option<u64>,
    /// This and what follows is `null` if it does not say how it became one.
    reason: Option<DeadReason>,
    error: Option<String>,
    attempts: Option<u32>,
    first_failed_unix_ms: Option<u64>,
    last_failed_unix_ms: Option<u64>,
}

/// One with what it holds.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    #[serde(flatten)]
    letter: Letter,
    format: Option<u16>,
    redriven_from: Option<HintId>,
    /// Whether the payload goes on behind `payload_base64`: a host shows 1 MiB.
    cut: bool,
    /// What the host's decoder makes of the payload, and why it makes nothing of it.
    decoded: Option<Value>,
    decode_error: Option<String>,
    /// Why the payload is nothing to the host.
    payload_error: Option<String>,
    payload_base64: Option<String>,
}

/// One as a host shows it.
#[derive(Debug, Deserialize)]
pub struct OfHost {
    #[serde(flatten)]
    letter: DeadLetter,
    enqueued_unix_ms: u64,
    redriven_from: Option<HintId>,
    payload_error: Option<String>,
    content: Content,
}

#[derive(Debug, Deserialize)]
struct Content {
    format: u16,
    payload: String,
    cut: bool,
    #[serde(default)]
    decoded: Option<Value>,
    #[serde(default)]
    decode_error: Option<String>,
}

fn unix_ms(at: SystemTime) -> Option<u64> {
    let since = at.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

impl From<DeadLetter> for Letter {
    fn from(letter: DeadLetter) -> Letter {
        Letter {
            id: letter.id,
            node: letter.node,
            shard: letter.shard,
            payload_bytes: Some(letter.payload_bytes),
            reads: None,
            enqueued_unix_ms: None,
            reason: Some(letter.reason),
            error: Some(letter.error),
            attempts: Some(letter.attempts),
            first_failed_unix_ms: unix_ms(letter.first_failed),
            last_failed_unix_ms: unix_ms(letter.last_failed),
        }
    }
}

impl From<&ClosedLetter> for Letter {
    fn from(letter: &ClosedLetter) -> Letter {
        let (hint, cause) = (&letter.hint, letter.cause.as_ref());
        Letter {
            id: hint.id,
            node: hint.node,
            shard: hint.shard,
            payload_bytes: letter.reads.then_some(hint.payload.len() as u64),
            reads: Some(letter.reads),
            enqueued_unix_ms: letter.reads.then_some(hint.enqueued_unix_ms),
            reason: cause.map(|it| it.reason),
            error: cause.map(|it| it.error.clone()),
            attempts: cause.map(|it| it.attempts),
            first_failed_unix_ms: cause.map(|it| it.first_failed_unix_ms),
            last_failed_unix_ms: cause.map(|it| it.last_failed_unix_ms),
        }
    }
}

impl Letter {
    /// Of a list.
    pub const COLUMNS: [&str; 8] = [
        "id", "node", "shard", "bytes", "enqueued", "reason", "attempts", "error",
    ];

    /// Its cells.
    pub fn row(&self, output: &Output) -> Vec<String> {
        let none = || "-".to_owned();
        let bytes = match (self.reads, self.payload_bytes) {
            (Some(false), _) => "damaged".to_owned(),
            (_, bytes) => bytes.map_or_else(none, |it| output.bytes(it)),
        };
        vec![
            self.id.to_string(),
            self.node.to_string(),
            self.shard.to_string(),
            bytes,
            output.time(self.enqueued_unix_ms),
            self.reason.as_ref().map_or_else(none, name_of),
            self.attempts.map_or_else(none, |it| it.to_string()),
            self.error.clone().unwrap_or_else(none),
        ]
    }
}

impl From<&ClosedLetter> for Shown {
    fn from(letter: &ClosedLetter) -> Shown {
        let hint = &letter.hint;
        Shown {
            letter: letter.into(),
            format: letter.reads.then_some(hint.format),
            redriven_from: hint.redriven_from,
            cut: false,
            decoded: None,
            decode_error: None,
            payload_error: None,
            payload_base64: letter.reads.then(|| STANDARD.encode(&hint.payload)),
        }
    }
}

impl From<OfHost> for Shown {
    fn from(shown: OfHost) -> Shown {
        Shown {
            letter: Letter {
                reads: Some(true),
                enqueued_unix_ms: Some(shown.enqueued_unix_ms),
                ..shown.letter.into()
            },
            format: Some(shown.content.format),
            redriven_from: shown.redriven_from,
            cut: shown.content.cut,
            decoded: shown.content.decoded,
            decode_error: shown.content.decode_error,
            payload_error: shown.payload_error,
            payload_base64: Some(shown.content.payload),
        }
    }
}

impl Shown {
    /// One of a host whose payload does not read.
    pub fn damaged(letter: Letter) -> Shown {
        Shown {
            letter: Letter {
                reads: Some(false),
                payload_bytes: None,
                ..letter
            },
            format: None,
            redriven_from: None,
            cut: false,
            decoded: None,
            decode_error: None,
            payload_error: None,
            payload_base64: None,
        }
    }
}
