//! What a request says: in its path, its query and its body. Whatever does not read is a problem.

use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::Bytes;
use hinted_handoff::{HintId, NodeId, QueueId, Sequence, StoreId};
use serde::{Deserialize, de::DeserializeOwned};

use crate::problem::Problem;

/// Nodes that can be named at a time; as many as [`HintedHandoff::retain_only_nodes`] takes.
///
/// [`HintedHandoff::retain_only_nodes`]: hinted_handoff::HintedHandoff::retain_only_nodes
const NODES_MAX: usize = 8_000;

/// What stands in the path.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub struct Path<T>(pub T);

/// What stands behind the question mark.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub struct Query<T>(pub T);

/// What stands in the body, as JSON; an empty one says as much as an empty object.
pub struct Said<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Said<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|error| Problem::invalid(error.body_text()))?;
        let body: &[u8] = if body.is_empty() { b"{}" } else { &body };
        match serde_json::from_slice(body) {
            Ok(said) => Ok(Said(said)),
            Err(error) => Err(Problem::invalid(format!("the body does not read: {error}"))),
        }
    }
}

/// A hint in a path: `{node}/.../{store}/{queue}/{sequence}`.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct HintPath {
    pub node: NodeId,
    store: StoreId,
    queue: QueueId,
    sequence: Sequence,
}

impl HintPath {
    pub fn hint(self) -> HintId {
        HintId {
            store: self.store,
            queue: self.queue,
            sequence: self.sequence,
        }
    }
}

/// How much of a list is asked for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page<T> {
    /// What is behind this one.
    pub after: Option<T>,
    /// So many at most.
    max: Option<usize>,
}

impl<T> Page<T> {
    /// How many to show, with what is shown without a wish, and at most.
    pub fn max(&self, usual: usize, most: usize) -> Result<usize, Problem> {
        at_most(self.max, usual, most)
    }
}

/// How many of a list to show, with what is shown without a wish, and at most.
pub fn at_most(asked: Option<usize>, usual: usize, most: usize) -> Result<usize, Problem> {
    match asked.unwrap_or(usual) {
        max if (1..=most).contains(&max) => Ok(max),
        max => Err(Problem::invalid(format!("max = {max}: give 1 to {most}"))),
    }
}

/// Refuses more nodes than can be named at a time.
pub fn not_too_many(nodes: &[NodeId]) -> Result<(), Problem> {
    no_more_than(NODES_MAX, nodes.len(), "nodes")
}

/// Refuses more of something than can be named at a time.
pub fn no_more_than(most: usize, named: usize, what: &str) -> Result<(), Problem> {
    match named <= most {
        true => Ok(()),
        false => Err(Problem::invalid(format!(
            "{named} {what} are too many, at most {most}"
        ))),
    }
}
