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
    /// being sent stay, and would come behind younger ones of their shard if they were given away
    /// later. So [`pause`](HintedHandoff::pause) the node, and wait until nothing is
    /// [`in_flight`](crate::NodeStats::in_flight). Call it again for what came meanwhile. Returns
    /// what left.
    ///
    /// Where only some shards leave, those of others stay between them. A queue notes some 2,000
    /// such places; beyond that the call ends with an error.
    ///
    /// ```no_run
    /// # use hinted_handoff::{HandoffError, HintedHandoff, NodeId, Pause, ShardId};
    /// # async fn decommission(handoff: HintedHandoff<String>) -> Result<(), HandoffError> {
    /// let gone = NodeId(3);
    /// let stats = || handoff.stats().nodes.into_iter().find(|it| it.node == gone);
    /// handoff.stop_hinting(gone); // writes go to the new owners by now
    /// handoff.pause(gone, Pause::Lasting).await?;
    /// while stats().is_some_and(|it| it.in_flight > 0) {
    ///     tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    /// }
    /// handoff.rehint(gone, |ShardId(shard)| vec![NodeId(1 + shard % 2)]).await?;
    /// // Nothing is discarded by this but dead letters: look at these before.
    /// if stats().is_some_and(|it| it.pending.hints == 0) {
    ///     handoff.remove_node(gone).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`HandoffError::UnknownNode`] if the node was never hinted; [`HandoffError::Refused`] if a
    /// limit or the disk has no room for them, or if hinting is stopped for an owner;
    /// [`HandoffError::TooScattered`] or [`HandoffError::DamagedHint`] if others than the first
    /// cannot leave; or why the store does not serve. What had left by then has.
    pub async fn rehint(
        &self,
        from: NodeId,
        owners: impl Fn(ShardId) -> Vec<NodeId>,
    ) -> Result<Amount, HandoffError> {
        let mut left = Amount::default();
        let ended = self.rehint_each(from, owners, &mut left).await;
        if left.hints > 0 {
            tracing::info!(
                node = from.0,
                hints = left.hints,
                bytes = left.bytes,
                "hints are given to other nodes: the host says so"
            );
        }
        ended.map(|()| left)
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

    async fn rehint_each(
        &self,
        from: NodeId,
        owners: impl Fn(ShardId) -> Vec<NodeId>,
        left: &mut Amount,
    ) -> Result<(), HandoffError> {
        let mut pending = DurableHints::of(self, from)?;
        loop {
            let hints = pending.next().await?;
            if hints.is_empty() {
                return Ok(());
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
                *left = left.plus(self.rehint_step(from, step).await?);
            }
        }
    }

    /// To its end, whoever gives up: nothing is written directly to an owner meanwhile.
    async fn rehint_step(&self, from: NodeId, step: Vec<Rehint>) -> Result<Amount, HandoffError> {
        let handoff = self.clone();
        self.to_its_end(async move {
            let (leaving, wanted) = amounts(&step);
            let owners: Vec<NodeId> = wanted.iter().map(|(owner, _)| *owner).collect();
            let inner = &handoff.inner;
            if let Some(admission) = &inner.admission {
                owners.iter().for_each(|owner| admission.begin_move(*owner));
            }
            let left = handoff.store_for_owners(from, step, leaving, wanted).await;
            if let Some(admission) = &inner.admission {
                let ends = |owner: &NodeId| admission.end_move(&inner.store, *owner);
                owners.iter().for_each(ends);
            }
            left
        })
        .await
    }

    async fn store_for_owners(
        &self,
        from: NodeId,
        step: Vec<Rehint>,
        leaving: Amount,
        wanted: Vec<(NodeId, Amount)>,
    ) -> Result<Amount, HandoffError> {
        let store = &self.inner.store;
        let bytes = wanted.iter().map(|(_, amount)| amount.bytes).sum::<u64>();
        let permit = self
            .room(usize::try_from(bytes).unwrap_or(usize::MAX))
            .await?;
        for (owner, _) in &wanted {
            self.check_hinted(*owner)?;
        }
        let reserved = store.reserve_in_place_of(leaving, wanted);
        let reserved = reserved.map_err(|full| self.refusal(full, None))?;
        // From the claim on nothing is awaited before it is handed in.
        let (claimed, reopens) = claim(store, from, step);
        if claimed.is_empty() {
            return Ok(Amount::default());
        }
        let hints = claimed.len() as u64;
        let given_back: Vec<_> = claimed.iter().map(|(hint, _)| hint.clone()).collect();
        let releasing: Weak<Store> = Arc::downgrade(store);
        let (tell, told) = oneshot::channel();
        store.rehint(from, claimed, reserved, move |result| {
            drop(permit);
            // A store that failed forgets all claims when it is opened again.
            if let (Err(_), Some(store)) = (&result, releasing.upgrade()) {
                store.release_claimed(from, &given_back, reopens);
            }
            let _ = tell.send(result);
        });
        let left = told.await.unwrap_or(Err(HandoffError::ShutDown))?;
        match left.hints < hints && store.is_scattered(from) {
            true => Err(HandoffError::TooScattered { node: from }),
            false => Ok(left),
        }
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

/// Those that nobody else has claimed, and how often the store had been opened again.
fn claim(store: &Store, from: NodeId, step: Vec<Rehint>) -> (Vec<Rehint>, u64) {
    let (mut hints, mut owners) = (Vec::new(), BTreeMap::new());
    for (hint, of_hint) in step {
        owners.insert(hint.mark.place(), of_hint);
        hints.push(hint);
    }
    let reopens = store.claim(from, &mut hints);
    let of_hint = |hint: PeekedHint| {
        let owners = owners.remove(&hint.mark.place())?;
        Some((hint, owners))
    };
    (hints.into_iter().filter_map(of_hint).collect(), reopens)
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
