//! Dead letters: listing, showing, sending them on, discarding them.

use axum::{Json, extract::State};
use hinted_handoff::{DeadLetter, HandoffError, HintId, HintedHandoff, NodeId, Payload, Redriven};
use serde::{Deserialize, Serialize};

use super::{
    nodes::Discarded,
    peek::{How, Shown},
};
use crate::{
    extract::{HintPath, Page, Path, Query, Said},
    form::unix_ms,
    problem::{Problem, with_causes},
    state::Admin,
};

/// Letters of a page, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;
/// Letters that can be named at a time.
const NAMED_MAX: usize = 1_000;

/// A page of dead letters.
#[derive(Serialize)]
pub struct Letters {
    node: NodeId,
    letters: Vec<DeadLetter>,
    /// Ask for what is behind this one; `null` at the end.
    next: Option<HintId>,
}

pub async fn list<P: Payload>(
    State(admin): State<Admin<P>>,
    Path(node): Path<NodeId>,
    Query(page): Query<Page<HintId>>,
) -> Result<Json<Letters>, Problem> {
    let max = page.max(PAGE, PAGE_MAX)?;
    let handoff = admin.handoff()?;
    let letters = admin
        .call(handoff.dead_letters(node, page.after, max))
        .await?;
    let next = letters
        .last()
        .map(|it| it.id)
        .filter(|_| letters.len() == max);
    Ok(Json(Letters {
        node,
        letters,
        next,
    }))
}

/// A dead letter with what it holds.
#[derive(Serialize)]
pub struct Letter {
    #[serde(flatten)]
    letter: DeadLetter,
    enqueued_unix_ms: u64,
    redriven_from: Option<HintId>,
    /// Why the payload is nothing to this host, if it is not.
    payload_error: Option<String>,
    content: Shown,
}

pub async fn one<P: Payload>(
    State(admin): State<Admin<P>>,
    Path(path): Path<HintPath>,
    Query(how): Query<How>,
) -> Result<Json<Letter>, Problem> {
    let handoff = admin.handoff()?;
    let content = admin
        .call(handoff.dead_letter(path.node, path.hint()))
        .await?;
    Ok(Json(Letter {
        content: Shown::new(admin.settings(), content.format, &content.raw, &how)?,
        letter: content.letter,
        enqueued_unix_ms: unix_ms(content.enqueued),
        redriven_from: content.redriven_from,
        payload_error: content.points.err().map(|error| with_causes(&error)),
    }))
}

/// Which dead letters are meant: some, by their ids, or all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Which {
    hints: Option<Vec<HintId>>,
    #[serde(default)]
    all: bool,
}

impl Which {
    /// These; `None` for all.
    fn named(self) -> Result<Option<Vec<HintId>>, Problem> {
        match (self.hints, self.all) {
            (None, true) => Ok(None),
            (Some(hints), false) if (1..=NAMED_MAX).contains(&hints.len()) => Ok(Some(hints)),
            _ => Err(Problem::invalid(format!(
                "say which: {{\"hints\": [\"store/queue/sequence\"]}} with 1 to {NAMED_MAX} of them, or {{\"all\": true}}"
            ))),
        }
    }
}

pub async fn redrive<P: Payload>(
    State(admin): State<Admin<P>>,
    Path(node): Path<NodeId>,
    Said(which): Said<Which>,
) -> Result<Json<Redriven>, Problem> {
    let handoff = admin.handoff()?;
    let Some(hints) = which.named()? else {
        return Ok(Json(admin.call(handoff.redrive_all(node)).await?));
    };
    Ok(Json(admin.call(redrive_each(&handoff, node, hints)).await?))
}

/// Sends on those that exist and can be read. If none was sent on, returns the error of the first.
async fn redrive_each<P: Payload>(
    handoff: &HintedHandoff<P>,
    node: NodeId,
    hints: Vec<HintId>,
) -> Result<Redriven, HandoffError> {
    let mut done = Redriven::default();
    let mut first = None;
    for hint in hints {
        let error = match handoff.redrive(node, hint).await {
            Ok(now) => {
                done.hints.push((hint, now));
                continue;
            }
            Err(error) => error,
        };
        match error {
            HandoffError::DamagedLetter { hint, .. } => done.damaged.push(hint),
            HandoffError::NoDeadLetter { .. } | HandoffError::HintOfAnotherStore { .. } => {}
            error => return Err(error),
        }
        first.get_or_insert(error);
    }
    match first {
        Some(error) if done.hints.is_empty() => Err(error),
        _ => Ok(done),
    }
}

pub async fn discard<P: Payload>(
    State(admin): State<Admin<P>>,
    Path(node): Path<NodeId>,
    Said(which): Said<Which>,
) -> Result<Json<Discarded>, Problem> {
    let handoff = admin.handoff()?;
    let discarded = match which.named()? {
        Some(hints) => admin.call(handoff.discard(node, &hints)).await?,
        None => admin.call(handoff.discard_all(node)).await?,
    };
    Ok(Json(Discarded { discarded }))
}
