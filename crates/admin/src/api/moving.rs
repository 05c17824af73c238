//! Hints that go to other nodes, and hints that come from another store.

use std::{collections::HashSet, time::Duration};

use axum::{
    Json,
    extract::{FromRequest, Request, State},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hinted_handoff::{
    Amount, HandoffError, HintId, NodeId, Payload, ShardId, WriteId,
    offline::{DeadCause, Import},
};
use serde::{Deserialize, Serialize};

use crate::{
    extract::{Path, Said, no_more_than},
    guard::with_body,
    problem::{Kind, Problem},
    state::{Admin, LONG},
};

/// A payload has 64 MiB at most, and base64 makes it a third longer.
pub const IMPORT_BYTES: usize = 90 * 1024 * 1024;
/// How long such a body may take to arrive.
const IMPORT_TIME: Duration = Duration::from_secs(60);

/// New owners at a time: each has a copy of a payload, of 64 MiB at most, in the same step.
const OWNERS_MAX: usize = 64;
/// Shards that can be named at a time.
const SHARDS_MAX: usize = 100_000;

/// Who is to have the hints of a node.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owners {
    /// Each gets all of them.
    to: Vec<NodeId>,
    /// Of these shards only; left out: of all.
    #[serde(default)]
    shards: Option<Vec<ShardId>>,
}

/// What left the node.
#[derive(Serialize)]
pub struct Rehinted {
    rehinted: Amount,
}

pub async fn rehint<P: Payload>(
    State(admin): State<Admin<P>>,
    Path(node): Path<NodeId>,
    Said(Owners { to, shards }): Said<Owners>,
) -> Result<Json<Rehinted>, Problem> {
    no_more_than(OWNERS_MAX, to.len(), "nodes")?;
    no_more_than(SHARDS_MAX, shards.as_ref().map_or(0, Vec::len), "shards")?;
    if to.is_empty() {
        return Err(Problem::invalid("`to` is empty: name the new owners"));
    }
    if to.contains(&node) {
        return Err(Problem::invalid(format!("`to` names node {node} itself")));
    }
    let handoff = admin.handoff()?;
    let shards = shards.map(|shards| shards.into_iter().collect::<HashSet<_>>());
    let is_meant = |shard| shards.as_ref().is_none_or(|shards| shards.contains(&shard));
    let owners = |shard| match is_meant(shard) {
        true => to.clone(),
        false => Vec::new(),
    };
    let rehinting = handoff.rehint(node, owners);
    let rehinted = admin.wait(LONG, rehinting).await?;
    Ok(Json(Rehinted { rehinted }))
}

/// Lines of an export.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hints {
    hints: Vec<Line>,
}

/// What an import makes of a line of `hh export`; what else stands in it is passed over.
#[derive(Debug, Deserialize)]
struct Line {
    kind: LineKind,
    node: NodeId,
    shard: ShardId,
    format: u16,
    enqueued_unix_ms: u64,
    #[serde(default)]
    lifetime_ms: Option<u64>,
    #[serde(default)]
    write: Option<WriteId>,
    #[serde(default)]
    dead: Option<DeadCause>,
    payload_bytes: u64,
    payload_base64: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LineKind {
    Hint,
    DeadLetter,
}

/// Their new ids, in their order.
#[derive(Serialize)]
pub struct Imported {
    ids: Vec<HintId>,
}

pub async fn import<P: Payload>(
    State(admin): State<Admin<P>>,
    request: Request,
) -> Result<Json<Imported>, Problem> {
    // One at a time: a body may be large. It is read only now.
    let _turn = admin.imports().try_acquire().map_err(|_| {
        let detail = "hints of another store are being imported; ask again once that is done";
        Problem::new(Kind::Busy, detail)
    })?;
    let request = with_body(request, IMPORT_BYTES, IMPORT_TIME).await?;
    let Said(Hints { hints }) = Said::<Hints>::from_request(request, &admin).await?;
    let lines = hints.into_iter().enumerate();
    let imports: Result<Vec<_>, _> = lines.map(|(at, line)| line.into_import(at)).collect();
    let imports = imports?;
    let handoff = admin.handoff()?;
    let mut stopped = None;
    let importing = async {
        handoff.import(imports).await.map_err(|error| {
            stopped = Some(error.stored);
            HandoffError::from(error.source)
        })
    };
    let outcome = admin.wait(LONG, importing).await;
    let ids = outcome.map_err(|mut problem| {
        problem.stored = stopped;
        problem
    })?;
    Ok(Json(Imported { ids }))
}

impl Line {
    fn into_import(self, at: usize) -> Result<Import, Problem> {
        let wrong = |why: String| Problem::invalid(format!("hints[{at}]: {why}"));
        let payload = STANDARD.decode(&self.payload_base64);
        let payload = payload.map_err(|error| wrong(format!("payload_base64: {error}")))?;
        if payload.len() as u64 != self.payload_bytes {
            return Err(wrong(format!(
                "the payload has {} bytes, payload_bytes says {}",
                payload.len(),
                self.payload_bytes
            )));
        }
        if (self.kind == LineKind::DeadLetter) != self.dead.is_some() {
            let why = "`dead` must be given for a dead_letter, and only for one";
            return Err(wrong(why.to_owned()));
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
