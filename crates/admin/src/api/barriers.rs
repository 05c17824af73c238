//! Waiting until hints are delivered.

use axum::{Json, extract::State};
use hinted_handoff::{Barrier, BarrierState, NodeId, Payload};
use serde::Deserialize;

use super::nodes::{Done, Nothing};
use crate::{
    extract::{Path, Said, not_too_many},
    problem::Problem,
    state::{Admin, wait_of},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nodes {
    nodes: Vec<NodeId>,
}

pub async fn make<P: Payload>(
    State(admin): State<Admin<P>>,
    Said(Nodes { nodes }): Said<Nodes>,
) -> Result<Json<Barrier>, Problem> {
    not_too_many(&nodes)?;
    let handoff = admin.handoff()?;
    Ok(Json(admin.call(handoff.barrier(&nodes)).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    barrier: Barrier,
    timeout_ms: Option<u64>,
}

pub async fn wait<P: Payload>(
    State(admin): State<Admin<P>>,
    Said(it): Said<Wait>,
) -> Result<Json<BarrierState>, Problem> {
    let (handoff, wait) = (admin.handoff()?, wait_of(it.timeout_ms)?);
    let state = admin.wait(wait, handoff.wait(&it.barrier, wait)).await?;
    Ok(Json(state))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeout {
    timeout_ms: Option<u64>,
}

pub async fn drain<P: Payload>(
    State(admin): State<Admin<P>>,
    Path(node): Path<NodeId>,
    Said(it): Said<Timeout>,
) -> Result<Json<BarrierState>, Problem> {
    let (handoff, wait) = (admin.handoff()?, wait_of(it.timeout_ms)?);
    let state = admin.wait(wait, handoff.drain(node, wait)).await?;
    Ok(Json(state))
}

pub async fn sync<P: Payload>(
    State(admin): State<Admin<P>>,
    Said(Nothing {}): Said<Nothing>,
) -> Result<Json<Done>, Problem> {
    let handoff = admin.handoff()?;
    admin.call(handoff.sync()).await?;
    Ok(Json(Done {}))
}
