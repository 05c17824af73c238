//! Hints that are taken by hand.

use std::time::SystemTime;

use crate::{
    store::Mark,
    types::{HintId, NodeId, ShardId, WriteId},
};

/// A hint that a [`Consumer`](crate::Consumer) has peeked at.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PeekedPoints<P> {
    /// Its id.
    pub id: HintId,
    /// The shard it is for.
    pub shard: ShardId,
    /// When it was enqueued, by the wall clock.
    pub enqueued: SystemTime,
    /// If it was a dead letter and was sent on: the id that it had first.
    pub redriven_from: Option<HintId>,
    /// The write of a [`PointsWriter`](crate::PointsWriter) that it is a copy of, if it is.
    pub write: Option<WriteId>,
    /// The points.
    pub points: P,
    pub(crate) node: NodeId,
    pub(crate) mark: Mark,
}
