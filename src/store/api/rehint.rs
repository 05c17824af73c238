//! Hints of a node that become hints of others.

use crate::{
    error::HandoffError,
    store::{
        Store,
        format::{
            peeked::PeekedHint,
            reasons::{Fate, LossReason},
        },
        pipeline::{
            batch::{HintKind, Leaving, NewHint, WriteBatch},
            ticket::{Entry, told},
        },
        state::lock::Reservation,
    },
    types::{Amount, NodeId},
};

impl Store {
    /// Lets claimed hints leave a node as hints of others, in one step: each that is pending still,
    /// for the nodes that are named with it. They keep their age, and what they were before. `done`
    /// is told what left once that is durable.
    pub fn rehint(
        &self,
        node: NodeId,
        hints: Vec<(PeekedHint, Vec<NodeId>)>,
        reserved: Reservation,
        done: impl FnOnce(Result<Amount, HandoffError>) + Send + 'static,
    ) {
        let leaving: Vec<_> = hints.iter().map(|(hint, _)| hint.clone()).collect();
        self.shared.registry.lock().note_limited(node, &leaving);
        let copies = hints
            .iter()
            .flat_map(|(PeekedHint { mark, hint }, owners)| {
                owners.iter().map(|owner| NewHint {
                    node: *owner,
                    hint: hint.clone(),
                    kind: HintKind::Rehinted(mark.place()),
                })
            });
        let copies = copies.collect();
        let fate = Fate::Lost(LossReason::Rehinted);
        let batch = WriteBatch {
            hints: copies,
            leaves: vec![Leaving::Hints(node, leaving, fate)],
            ..WriteBatch::default()
        };
        let told = told(move |written| done(written.map(|it| it.left)));
        self.hand_in_checked(Entry::new(batch, reserved, told));
    }
}
