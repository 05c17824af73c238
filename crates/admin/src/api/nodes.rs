//! Nodes: looking at them and operating them.

use axum::{Json, extract::State};
use hinted_handoff::{Amount, NodeId, NodeStats, Pause, Payload, Retained, Stats};
use serde::{Deserialize, Serialize};

use crate::{
    extract::{Page, Path, Query, Said, not_too_many},
    problem::Problem,
    state::{Admin, wait_of},
};

/// Nodes of a page, and at most.
const PAGE: usize = 1_000;

/// A node, with what people call it.
#[derive(Serialize)]
pub struct Named {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(flatten)]
    stats: NodeStats,
}

/// A page of nodes.
#[derive(Serialize)]
pub struct Nodes {
    nodes: Vec<Named>,
    /// Ask for what is behind this one; `null` at the end.
    next: Option<NodeId>,
}

/// Nothing more to say.
#[derive(Serialize)]
pub struct Done {}

pub async fn list<P: Payload>(
    State(admin): State<Admin<P>>,
    Query(page): Query<Page<NodeId>>,
) -> Result<Json<Nodes>, Problem> {
    let max = page.max(PAGE, PAGE)?;
    let mut nodes = admin.handoff()?.stats().nodes;
    nodes.retain(|it| page.after.is_none_or(|after| it.node > after));
    let is_more = nodes.len() > max;
    nodes.truncate(max);
    let next = nodes.last().map(|it| it.node).filter(|_| is_more);
    let named = nodes.into_iter().map(|stats| Named {
        name: admin.settings().name(stats.node),
        stats,
    });
    Ok(Json(Nodes {
        nodes: named.collect(),
        next,
    }))
}

pub async fn one<P: Payload>(
    State(admin): State<Admin<P>>,
    Path(node): Path<NodeId>,
) -> Result<Json<Named>, Problem> {
    let stats = of_node(admin.handoff()?.stats(), node)?;
    let name = admin.settings().name(node);
    Ok(Json(Named { name, stats }))
}

/// What is known of a node.
pub fn of_node(stats: Stats, node: NodeId) -> Result<NodeStats, Problem> {
    let mut nodes = stats.nodes.into_iter();
    let found = nodes.find(|it| it.node == node);
    found.ok_or_else(|| {
        let unknown = format!("node {node} has no queue; nothing was ever hinted for it");
        Problem::new(crate::problem::Kind::UnknownNode, unknown)
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HowToPause {
    pause: Option<Pause>,
}

impl HowToPause {
    fn pause(&self) -> Pause {
        self.pause.unwrap_or(Pause::UntilRestart)
    }
}

pub async fn pause<P: Payload>(
    State(admin): State<Admin<P>>,
    Path(node): Path<NodeId>,
    Said(how): Said<HowToPause>,
) -> Result<Json<Done>, Problem> {
    let handoff = admin.handoff()?;
    admin.call(handoff.pause(node, how.pause())).await?;
    Ok(Json(Done {}))
}

pub async fn pause_all<P: Payload>(
    State(admin): State<Admin<P>>,
    Said(how): Said<HowToPause>,
) -> Result<Json<Done>, Problem> {
    let handoff = admin.handoff()?;
    admin.call(handoff.pause_all(how.pause())).await?;
    Ok(Json(Done {}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

pub async fn resume<P: Payload>(
    State(admin): State<Admin<P>>,
    Path(node): Path<NodeId>,
    Said(Nothing {}): Said<Nothing>,
) -> Result<Json<Done>, Problem> {
    let handoff = admin.handoff()?;
    admin.call(handoff.resume(node)).await?;
    Ok(Json(Done {}))
}

pub async fn resume_all<P: Payload>(
    State(admin): State<Admin<P>>,
    Said(Nothing {}): Said<Nothing>,
) -> Result<Json<Done>, Problem> {
    let handoff = admin.handoff()?;
    admin.call(handoff.resume_all()).await?;
    Ok(Json(Done {}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewName {
    to: NodeId,
}

/// What was pending for the node.
#[derive(Serialize)]
pub struct Moved {
    pending: Amount,
}

pub async fn rename<P: Payload>(
    State(admin): State<Admin<P>>,
    Path(node): Path<NodeId>,
    Said(NewName { to }): Said<NewName>,
) -> Result<Json<Moved>, Problem> {
    let handoff = admin.handoff()?;
    let pending = admin.call(handoff.rename_node(node, to)).await?;
    Ok(Json(Moved { pending }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HowToRemove {
    /// Whether what is pending is discarded, or waited for.
    #[serde(default)]
    discard_pending: bool,
    timeout_ms: Option<u64>,
}

/// What was discarded.
#[derive(Serialize)]
pub struct Discarded {
    pub discarded: Amount,
}

pub async fn remove<P: Payload>(
    State(admin): State<Admin<P>>,
    Path(node): Path<NodeId>,
    Said(how): Said<HowToRemove>,
) -> Result<Json<Discarded>, Problem> {
    let handoff = admin.handoff()?;
    let wait = wait_of(how.timeout_ms)?;
    let discarded = match how.discard_pending {
        true => admin.call(handoff.remove_node(node)).await?,
        false => {
            admin
                .wait(wait, handoff.drain_and_remove(node, wait))
                .await?;
            Amount::default()
        }
    };
    Ok(Json(Discarded { discarded }))
}

pub async fn cancel_removal<P: Payload>(
    State(admin): State<Admin<P>>,
    Path(node): Path<NodeId>,
    Said(Nothing {}): Said<Nothing>,
) -> Result<Json<Done>, Problem> {
    let handoff = admin.handoff()?;
    admin.call(handoff.cancel_removal(node)).await?;
    Ok(Json(Done {}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Members {
    nodes: Vec<NodeId>,
    /// Whether nodes that are hinted for the first time later are parked, too.
    #[serde(default)]
    are_all: bool,
}

pub async fn retain<P: Payload>(
    State(admin): State<Admin<P>>,
    Said(members): Said<Members>,
) -> Result<Json<Retained>, Problem> {
    let nodes = members.nodes.as_slice();
    not_too_many(nodes)?;
    // An empty list parks every node: that is hardly what anybody means to say.
    if nodes.is_empty() {
        let detail = "an empty list would park every node; name those that are members";
        return Err(Problem::invalid(detail));
    }
    let handoff = admin.handoff()?;
    let retained = match members.are_all {
        true => admin.call(handoff.retain_only_nodes(nodes)).await?,
        false => admin.call(handoff.retain_nodes(nodes)).await?,
    };
    Ok(Json(retained))
}
