//! A line of an export: one hint or dead letter as JSON.
//!
//! Numbers carry their unit last in their names. `id` names the hint in the store that it comes
//! from; an import gives it a new one.

use base64::{Engine, engine::general_purpose::STANDARD};
use hinted_handoff::{
    HintId, NodeId, QueueId, Sequence, ShardId, WriteId,
    offline::{ClosedHint, ClosedLetter, DeadCause, Import},
};
use serde::{Deserialize, Serialize};

/// What a line holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub kind: Kind,
    pub node: NodeId,
    pub meant_for: Option<NodeId>,
    pub shard: ShardId,
    pub id: Option<HintId>,
    pub queue: Option<QueueId>,
    pub sequence: Option<Sequence>,
    pub format: u16,
    pub enqueued_unix_ms: u64,
    #[serde(default)]
    pub lifetime_ms: Option<u64>,
    #[serde(default)]
    pub write: Option<WriteId>,
    #[serde(default)]
    pub redriven_from: Option<HintId>,
    #[serde(default)]
    pub dead: Option<DeadCause>,
    pub payload_bytes: u64,
    pub payload_base64: String,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Hint,
    DeadLetter,
}

impl Record {
    /// Of a pending hint. `payload` is room for its text, from an earlier record.
    pub fn of_hint(hint: &ClosedHint, mut payload: String) -> Record {
        payload.clear();
        STANDARD.encode_string(&hint.payload, &mut payload);
        Record {
            kind: Kind::Hint,
            node: hint.node,
            meant_for: Some(hint.meant_for),
            shard: hint.shard,
            id: Some(hint.id),
            queue: Some(hint.id.queue),
            sequence: Some(hint.id.sequence),
            format: hint.format,
            enqueued_unix_ms: hint.enqueued_unix_ms,
            lifetime_ms: hint.lifetime_ms,
            write: hint.write,
            redriven_from: hint.redriven_from,
            dead: None,
            payload_bytes: hint.payload.len() as u64,
            payload_base64: payload,
        }
    }

    /// Of a dead letter.
    pub fn of_letter(letter: &ClosedLetter, payload: String) -> Record {
        Record {
            kind: Kind::DeadLetter,
            dead: letter.cause.clone(),
            ..Record::of_hint(&letter.hint, payload)
        }
    }

    /// What an import makes of it, or why it makes nothing.
    pub fn into_import(self) -> Result<Import, String> {
        let payload = STANDARD.decode(&self.payload_base64);
        let payload = payload.map_err(|error| format!("its payload_base64: {error}"))?;
        if payload.len() as u64 != self.payload_bytes {
            return Err(format!(
                "its payload has {} bytes, payload_bytes says {}",
                payload.len(),
                self.payload_bytes
            ));
        }
        if self.kind == Kind::DeadLetter && self.dead.is_none() {
            return Err("it is a dead letter and does not say why".to_owned());
        }
        Ok(Import {
            node: self.node,
            shard: self.shard,
            format: self.format,
            enqueued_unix_ms: self.enqueued_unix_ms,
            lifetime_ms: self.lifetime_ms,
            write: self.write,
            payload: payload.into(),
            dead: self.dead.filter(|_| self.kind == Kind::DeadLetter),
        })
    }
}
