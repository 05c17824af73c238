//! The loss journal.

use axum::{Json, extract::State};
use hinted_handoff::{Losses, Payload};
use serde::Deserialize;

use crate::{
    extract::{Query, at_most},
    problem::Problem,
    state::Admin,
};

/// Entries of a page, and at most; as many as the journal keeps.
const PAGE: usize = 1_000;
const PAGE_MAX: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Since {
    #[serde(default)]
    since: u64,
    max: Option<usize>,
}

pub async fn since<P: Payload>(
    State(admin): State<Admin<P>>,
    Query(asked): Query<Since>,
) -> Result<Json<Losses>, Problem> {
    let max = at_most(asked.max, PAGE, PAGE_MAX)?;
    let handoff = admin.handoff()?;
    let mut losses = admin.call(handoff.losses(asked.since)).await?;
    // The rest is told from `next` on.
    if let Some((index, _)) = losses.entries.get(max) {
        losses.next = *index;
        losses.entries.truncate(max);
    }
    Ok(Json(losses))
}
