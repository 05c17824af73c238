//! Hints that wait, and payloads as they are shown.

use axum::{Json, extract::State};
use base64::{Engine, engine::general_purpose::STANDARD};
use hinted_handoff::{HintId, NodeId, Payload, PendingHint, ShardId, WriteId};
use serde::{Deserialize, Serialize};

use crate::{
    extract::{Path, Query, at_most},
    form::{hex, unix_ms},
    problem::Problem,
    settings::Settings,
    state::Admin,
};

/// Hints of a page, and at most.
const PAGE: usize = 20;
const PAGE_MAX: usize = 1_000;
/// Bytes of a payload that are shown, and at most.
const BYTES: usize = 4 * 1024;
const BYTES_MAX: usize = 1024 * 1024;
/// A longer payload is not given to the host's decoder.
const DECODED_MAX: usize = BYTES_MAX;

/// How bytes are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// As text of four characters for three bytes.
    #[default]
    Base64,
    /// As two digits a byte.
    Hex,
}

impl Encoding {
    fn text(self, bytes: &[u8]) -> String {
        match self {
            Encoding::Base64 => STANDARD.encode(bytes),
            Encoding::Hex => hex(bytes),
        }
    }
}

/// What a request wants to see of payloads.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct How {
    #[serde(default)]
    pub encoding: Encoding,
    bytes: Option<usize>,
}

impl How {
    /// As digits, so many bytes.
    pub fn hex(bytes: usize) -> How {
        How {
            encoding: Encoding::Hex,
            bytes: Some(bytes),
        }
    }
}

/// A payload.
#[derive(Debug, Serialize)]
pub struct Shown {
    format: u16,
    pub payload_bytes: u64,
    encoding: Encoding,
    /// The beginning of it, encoded.
    pub payload: String,
    /// Whether that is not all.
    cut: bool,
    /// What the host's decoder makes of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoded: Option<serde_json::Value>,
    /// Why it makes nothing of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_error: Option<String>,
}

impl Shown {
    /// Shows a payload.
    pub fn new(settings: &Settings, format: u16, raw: &[u8], how: &How) -> Result<Shown, Problem> {
        let max = match how.bytes.unwrap_or(BYTES) {
            max if max <= BYTES_MAX => max,
            max => {
                return Err(Problem::invalid(format!(
                    "bytes = {max}: give 0 to {BYTES_MAX}"
                )));
            }
        };
        let decoded = match raw.len() {
            0..=DECODED_MAX => settings.decode(format, raw),
            long => settings.decoder.as_ref().map(|_| {
                Err(format!(
                    "{long} bytes are too many for the decoder, which is given at most {DECODED_MAX}"
                ))
            }),
        };
        let (decoded, decode_error) = match decoded {
            Some(Ok(decoded)) => (Some(decoded), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        Ok(Shown {
            format,
            payload_bytes: raw.len() as u64,
            encoding: how.encoding,
            payload: how.encoding.text(raw.get(..max).unwrap_or(raw)),
            cut: raw.len() > max,
            decoded,
            decode_error,
        })
    }
}

/// A hint that waits.
#[derive(Serialize)]
pub struct Hint {
    id: HintId,
    shard: ShardId,
    enqueued_unix_ms: u64,
    redriven_from: Option<HintId>,
    write: Option<WriteId>,
    #[serde(flatten)]
    payload: Shown,
}

/// Hints that wait.
#[derive(Serialize)]
pub struct Hints {
    node: NodeId,
    hints: Vec<Hint>,
    /// Ask for what is behind this one; `null` at the end.
    next: Option<HintId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    after: Option<HintId>,
    max: Option<usize>,
    #[serde(default)]
    encoding: Encoding,
    bytes: Option<usize>,
}

pub async fn peek<P: Payload>(
    State(admin): State<Admin<P>>,
    Path(node): Path<NodeId>,
    Query(asked): Query<Asked>,
) -> Result<Json<Hints>, Problem> {
    let max = at_most(asked.max, PAGE, PAGE_MAX)?;
    let how = How {
        encoding: asked.encoding,
        bytes: asked.bytes,
    };
    let handoff = admin.handoff()?;
    let hints = handoff.pending_hints(node, asked.after, max);
    let hints = admin.call(hints).await?;
    let next = hints.last().map(|it| it.id);
    let hints = hints.into_iter().map(|it| shown(&admin, it, &how));
    Ok(Json(Hints {
        node,
        hints: hints.collect::<Result<_, _>>()?,
        next,
    }))
}

fn shown<P: Payload>(admin: &Admin<P>, hint: PendingHint, how: &How) -> Result<Hint, Problem> {
    Ok(Hint {
        id: hint.id,
        shard: hint.shard,
        enqueued_unix_ms: unix_ms(hint.enqueued),
        redriven_from: hint.redriven_from,
        write: hint.write,
        payload: Shown::new(admin.settings(), hint.format, &hint.raw, how)?,
    })
}
