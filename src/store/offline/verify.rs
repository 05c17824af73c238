//! Every record of a closed store, checked.

use std::path::Path;

use serde::Serialize;

use crate::{
    error::{DirectoryProblem, OpenError, StorageError},
    store::{
        engine::{conf, snapshots},
        offline::{
            closed::ClosedStore,
            findings::{Finding, Severity},
            hints::Selection,
            letters,
        },
    },
    types::{Amount, NodeId},
};

/// What checking a store found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Verified {
    /// Pending hints that read.
    pub pending: Amount,
    /// Dead letters that read.
    pub dead_letters: Amount,
    /// Whether the store was closed. If it was not, nothing tells whether the end of a queue is
    /// there.
    pub is_clean: bool,
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
}

impl Verified {
    /// One more; the worst stay first.
    pub(crate) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
        self.findings
            .sort_by_key(|it| std::cmp::Reverse(it.severity));
    }

    /// Whether nothing is damaged or lost.
    pub fn is_sound(&self) -> bool {
        self.findings
            .iter()
            .all(|it| it.severity == Severity::Unknown)
    }
}

/// Checks every record of the store in `dir`, which nobody may have open, and changes nothing.
///
/// - Each pending hint and each dead letter is read, and its checksum verified; hints are numbered,
///   so none is missing without a word.
/// - Of a store that was closed it is known how many there must be. Of one that was not, what was
///   written last may be gone without a trace, as after any power cut.
/// - sled's own files are looked at as far as an open needs them.
///
/// `progress` is called with the work done so far and in all: bytes of the log, then payload bytes.
///
/// # Errors
/// As [`ClosedStore::open`], but that a store that cannot be opened for damage is a finding.
pub fn verify(
    dir: impl AsRef<Path>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Verified, OpenError> {
    match ClosedStore::open_with(dir, &mut progress) {
        Ok(store) => Ok(store.verify(progress)?),
        Err(error) if is_damage(&error) => {
            let what = crate::error::with_causes(&error);
            Ok(Verified {
                pending: Amount::default(),
                dead_letters: Amount::default(),
                is_clean: false,
                findings: vec![Finding::new(Severity::Lost, what)],
            })
        }
        Err(error) => Err(error),
    }
}

fn is_damage(error: &OpenError) -> bool {
    matches!(
        error,
        OpenError::Unopenable { .. }
            | OpenError::Directory {
                problem: DirectoryProblem::BadCurrent { .. } | DirectoryProblem::NoCurrent { .. },
                ..
            }
    )
}

impl ClosedStore {
    /// Checks every record: see [`verify`].
    ///
    /// # Errors
    /// The log does not read.
    pub fn verify(&self, mut progress: impl FnMut(u64, u64)) -> Result<Verified, StorageError> {
        let mut findings = self.findings.clone();
        let damaged = |what: String| Finding::new(Severity::Damaged, what);
        findings.extend(conf::problem(&self.place.generation).map(damaged));
        findings.extend(snapshots::problem(&self.place.generation).map(damaged));
        let queues = self.nodes.values().flat_map(|node| &node.queues);
        let total = queues.map(|queue| queue.pending().bytes).sum();
        let mut pending = Amount::default();
        let mut hints = self.hints(&Selection::default());
        for hint in hints.by_ref() {
            let bytes = hint?.payload.len() as u64;
            pending = pending.plus(Amount { hints: 1, bytes });
            progress(pending.bytes.min(total), total);
        }
        findings.extend(hints.into_findings());
        let dead_letters = self.verify_letters(&mut findings)?;
        let losses = self.losses(0);
        for index in losses.unreadable {
            findings.push(damaged(format!("entry {index} of the loss journal")));
        }
        findings.sort_by_key(|it| std::cmp::Reverse(it.severity));
        Ok(Verified {
            pending,
            dead_letters,
            is_clean: self.clean.is_some(),
            findings,
        })
    }

    fn verify_letters(&self, findings: &mut Vec<Finding>) -> Result<Amount, StorageError> {
        let mut sum = Amount::default();
        let mut letters = self.letters(&Selection::default())?;
        for letter in letters.by_ref() {
            let letter = letter?;
            if letter.reads {
                let bytes = letter.hint.payload.len() as u64;
                sum = sum.plus(Amount { hints: 1, bytes });
            }
        }
        findings.extend(letters.into_findings());
        for named in self.clean.iter().flat_map(|clean| &clean.letters) {
            let mut there = 0;
            letters::records(self, named.queue, |_, _| {
                there += 1;
                Ok(())
            })?;
            let tally = &named.tally;
            let missing = tally.amount.hints.saturating_sub(there);
            if missing > 0 {
                let what = format!("{missing} dead letters are gone that CLEAN counts");
                let finding = Finding::new(Severity::Lost, what);
                let finding = finding.of(named.node, named.queue.queue);
                findings.push(finding.from(tally.first, tally.last, missing));
            }
        }
        Ok(sum)
    }

    /// What was found wrong while it was opened, without a look at the hints.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Its nodes.
    pub fn node_ids(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.keys().copied()
    }
}
