//! Requests that are carried out between groups, in order with the batches around them.

use std::sync::Arc;

use crate::{
    store::{
        engine::{copy::GenerationCopy, generation::Engine},
        format::keys::QueueRef,
        pipeline::{done::ControlDone, node_request::Request as NodesRequest},
    },
    types::NodeId,
};

pub enum Control {
    /// Answered when all that came before is durable, acks too.
    Sync(ControlDone<()>),
    /// The same, and the entries of the loss journal are closed: answered with the index of the
    /// next one.
    CloseEntries(ControlDone<u64>),
    /// Pauses, renames, parks or removes nodes.
    Nodes(NodesRequest),
    /// Somebody could not read the hint at the cursor of this queue of this node.
    Scrub(NodeId, QueueRef, ControlDone<()>),
    /// Flush all hints that stand in WAL records into blocks of their queues.
    Flush(ControlDone<()>),
    /// Go on with this copy of the generation in use: answered with the old engine, or with none if
    /// the copy is too far behind.
    Switch(Arc<GenerationCopy>, ControlDone<Option<Arc<Engine>>>),
    /// The last request: commit all, leave `CLEAN`, drop the engine.
    Close(ControlDone<()>),
}
