//! Hints that the host gives to other nodes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use tokio::sync::oneshot;

use super::{durable_hints::DurableHints, handoff::HintedHandoff};
use crate::{
    blocking::block_on,
    error::HandoffError,
    payload::Payload,
    store::{PeekedHint, Store},
    types::{Amount, NodeId, ShardId},
};

/// Payloads of a step, those that leave and those that are stored: well below what one fsync may
/// bring (docs/sled.md rule 2).
const STEP_BYTES: u64 = 256 * 1024;
/// Hints of a step, with their copies.
const STEP_HINTS: usize = 1024;

/// A hint, and who is to have it.
type Rehint = (PeekedHint, Vec<NodeId>);

impl<P: Payload> HintedHandoff<P> {
    /// Gives pending hints of a node to other nodes, as after a change of topology: `owners` names
    /// those that are to have a shard from now on. Each hint leaves `from` in the step in which it
    /// becomes a hint of all of them, so it is in one of these states whatever happens, and a call
    /// that ended early can simply be made again.
    ///
    /// A shard for which `owners` names no node, or `from` among others, stays as it is. Those that
    /// come to another node keep their order among themselves, their age and their lifetime, and
    /// the id of the write; they have new ids, and come behind what that node has already. The loss
    /// journal tells which left ([`LossReason::Rehinted`](crate::LossReason::Rehinted)), and so
    /// does a barrier that waits for them. Dead letters stay.
    ///
    /// Meant are hints that were durable when it is asked, and that are nobody's: those that are
    /// being sent stay. [`pause`](HintedHandoff::pause) the node first, and call it again for what
    /// came meanwhile. Returns what left.
    ///
    /// ```no_run
    /// # use hinted_handoff::{HandoffError, HintedHandoff, NodeId, Pause, ShardId};
    /// # async fn decommission(handoff: HintedHandoff<String>) -> Result<(), HandoffError> {
    /// let gone = NodeId(3);
    /// handoff.pause(gone, Pause::Lasting).await?;
    /// handoff.rehint(gone, |ShardId(shard)| vec![NodeId(1 + shard % 2)]).await?;
    /// handoff.remove_node(gone).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`HandoffError::UnknownNode`] if the node was never hinted; [`HandoffError::Refused`] if a
    /// limit or the disk has no room for them, or if hinting is stopped for an owner; or why the
    /// store does not serve. What had left by then has.
    pub async fn rehint(
        &self,
        from: NodeId,
        owners: impl Fn(ShardId) -> Vec<NodeId>,
    ) -> Result<Amount, HandoffError> {
        let (mut pending, mut left) = (DurableHints::of(self, from)?, Amount::default());
        loop {
            let hints = pending.next().await?;
            if hints.is_empty() {
                break;
            }
            let mut steps = Steps::default();
            for hint in hints {
                let mut owners = owners(hint.hint.shard);
                owners.sort_unstable();
                owners.dedup();
                if !owners.is_empty() && !owners.contains(&from) {
                    steps.push((hint, owners));
                }
            }
            for step in steps.all {
                left = left.plus(self.rehint_step(from, step).await?);
            }
        }
        tracing::info!(
            node = from.0,
            hints = left.hints,
            bytes = left.bytes,
            "hints are given to other nodes: the host says so"
        );
        Ok(left)
    }

    /// [`rehint`](HintedHandoff::rehint) for a thread that does not drive a tokio runtime. Blocks
    /// it.
    ///
    /// # Errors
    /// As `rehint`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `rehint` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn rehint_blocking(
        &self,
        from: NodeId,
        owners: impl Fn(ShardId) -> Vec<NodeId>,
    ) -> Result<Amount, HandoffError> {
        block_on(self.rehint(from, owners))
    }

    async fn rehint_step(&self, from: NodeId, step: Vec<Rehint>) -> Result<Amount, HandoffError> {
        let (leaving, wanted) = amounts(&step);
        for (owner, _) in &wanted {
            self.check_hinted(*owner)?;
        }
        let store = &self.inner.store;
        let bytes = wanted.iter().map(|(_, amount)| amount.bytes).sum::<u64>();
        let permit = self
            .room(usize::try_from(bytes).unwrap_or(usize::MAX))
            .await?;
        let reserved = store.reserve_in_place_of(leaving, wanted);
        let reserved = reserved.map_err(|full| self.refusal(full, None))?;
        // From the claim on nothing is awaited before it is handed in.
        let claimed = claim(store, from, step);
        if claimed.is_empty() {
            return Ok(Amount::default());
        }
        let given_back: Vec<_> = claimed.iter().map(|(hint, _)| hint.clone()).collect();
        let releasing: Weak<Store> = Arc::downgrade(store);
        let (tell, told) = oneshot::channel();
        store.rehint(from, claimed, reserved, move |result| {
            drop(permit);
            // A store that failed forgets all claims when it is opened again; one that serves would
            // keep these for ever.
            if let (Err(_), Some(store)) = (&result, releasing.upgrade())
                && store.check_serving().is_ok()
            {
                store.release(from, &given_back);
            }
            let _ = tell.send(result);
        });
        told.await.unwrap_or(Err(HandoffError::ShutDown))
    }
}

/// What leaves, and what comes to each node.
fn amounts(step: &[Rehint]) -> (Amount, Vec<(NodeId, Amount)>) {
    let mut leaving = Amount::default();
    let mut wanted: BTreeMap<NodeId, Amount> = BTreeMap::new();
    for (hint, owners) in step {
        let amount = Amount {
            hints: 1,
            bytes: hint.hint.payload_bytes(),
        };
        leaving = leaving.plus(amount);
        for owner in owners {
            let of_owner = wanted.entry(*owner).or_default();
            *of_owner = of_owner.plus(amount);
        }
    }
    (leaving, wanted.into_iter().collect())
}

/// Those that nobody else has claimed.
fn claim(store: &Store, from: NodeId, step: Vec<Rehint>) -> Vec<Rehint> {
    let (mut hints, mut owners) = (Vec::new(), BTreeMap::new());
    for (hint, of_hint) in step {
        owners.insert(hint.mark.place(), of_hint);
        hints.push(hint);
    }
    store.claim(from, &mut hints);
    let of_hint = |hint: PeekedHint| {
        let owners = owners.remove(&hint.mark.place())?;
        Some((hint, owners))
    };
    hints.into_iter().filter_map(of_hint).collect()
}

/// Hints in their order, in parts that one step takes.
#[derive(Default)]
struct Steps {
    all: Vec<Vec<Rehint>>,
    bytes: u64,
    hints: usize,
}

impl Steps {
    fn push(&mut self, rehint: Rehint) {
        let times = 1 + rehint.1.len();
        let bytes = rehint.0.hint.payload_bytes().saturating_mul(times as u64);
        let fits = self.bytes.saturating_add(bytes) <= STEP_BYTES
            && self.hints.saturating_add(times) <= STEP_HINTS;
        match self.all.last_mut().filter(|_| fits) {
            Some(step) => {
                step.push(rehint);
                self.bytes += bytes;
                self.hints += times;
            }
            None => {
                self.all.push(vec![rehint]);
                (self.bytes, self.hints) = (bytes, times);
            }
        }
    }
}
