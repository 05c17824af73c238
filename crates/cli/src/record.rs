//! A line of an export: one hint or dead letter as JSON.
//!
//! Numbers carry their unit last in their names. `id` names the hint in the store that it comes
//! from; an import gives it a new one.

use std::io::{self, Write};

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

/// Lines of an export, one after the other.
#[derive(Debug, Default)]
pub struct LineWriter {
    record: Vec<u8>,
    payload: String,
}

impl LineWriter {
    /// Writes a pending hint.
    pub fn hint(&mut self, to: &mut impl Write, hint: &ClosedHint) -> io::Result<()> {
        self.line(to, &Record::without_payload(hint), &hint.payload)
    }

    /// Writes a dead letter.
    pub fn letter(&mut self, to: &mut impl Write, letter: &ClosedLetter) -> io::Result<()> {
        let record = Record::without_payload_of(letter);
        self.line(to, &record, &letter.hint.payload)
    }

    /// The payload comes last in a record, and nothing of its text must be escaped. Looking for
    /// what must takes longer than all else.
    fn line(&mut self, to: &mut impl Write, record: &Record, payload: &[u8]) -> io::Result<()> {
        const END: &[u8] = b"\"}";
        self.record.clear();
        serde_json::to_writer(&mut self.record, record)?;
        let begin = self.record.strip_suffix(END).unwrap_or_default();
        self.payload.clear();
        STANDARD.encode_string(payload, &mut self.payload);
        to.write_all(begin)?;
        to.write_all(self.payload.as_bytes())?;
        to.write_all(END)?;
        to.write_all(b"\n")
    }
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Hint,
    DeadLetter,
}

impl Record {
    fn without_payload(hint: &ClosedHint) -> Record {
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
            payload_base64: String::new(),
        }
    }

    fn without_payload_of(letter: &ClosedLetter) -> Record {
        Record {
            kind: Kind::DeadLetter,
            dead: letter.cause.clone(),
            ..Record::without_payload(&letter.hint)
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
        if (self.kind == Kind::DeadLetter) != self.dead.is_some() {
            let why = "`dead` must be given for a dead_letter, and only for one";
            return Err(why.to_owned());
        }
        Ok(Import {
            node: self.node,
            shard: self.shard,
            format: self.format,
            enqueued_unix_ms: self.enqueued_unix_ms,
            lifetime_ms: self.lifetime_ms,
            write: self.write,
            payload: payload.into(),
            dead: self.dead,
        })
    }
}
