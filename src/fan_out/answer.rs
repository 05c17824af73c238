//! What a write is answered, and when: from the states of its copies alone.

use tokio::time::Instant;

use super::{
    error::{OwnerError, PointsWriteError, Tally, WriteOutcome},
    replica::Replica,
};
use crate::{
    config::{AnswerWhen, OnNotStored},
    types::{ConsistencyLevel, NodeId},
};

/// What is asked of a write.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub level: ConsistencyLevel,
    pub answer: AnswerWhen,
    pub on_not_stored: OnNotStored,
    pub fail_early: bool,
}

/// What is the same for all copies at a moment.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub now: Instant,
    /// Hints are waited for no longer, once the level cannot be reached any more.
    pub hints_by: Instant,
    /// The caller waits no longer for what is not accounted for.
    pub all_by: Instant,
    /// All that is outstanding has been so for long enough to be hinted.
    pub is_late: bool,
}

pub type Answer = Result<WriteOutcome, PointsWriteError>;

impl Asked {
    /// Whether so many owners have it as the level asks for.
    pub fn is_reached(&self, copies: &[Replica]) -> bool {
        let written = copies.iter().filter(|copy| copy.is_taken()).count();
        written >= self.level.required(copies.len())
    }

    /// Whether it cannot be reached any more by direct sends.
    pub fn is_out_of_reach(&self, copies: &[Replica]) -> bool {
        let may = |copy: &&Replica| copy.is_taken() || copy.is_under_way();
        copies.iter().filter(may).count() < self.level.required(copies.len())
    }

    /// What to tell the caller, if it can be told now.
    pub fn answer(&self, copies: &[Replica], moment: Moment) -> Option<Answer> {
        if self.is_reached(copies) {
            let owners = copies.iter().filter(|copy| copy.is_taken()).count();
            return self.success(WriteOutcome::Written { owners }, copies, moment);
        }
        if self.level == ConsistencyLevel::Any
            && let Some(owners) = queued(copies, moment)
        {
            return self.success(WriteOutcome::Queued { owners }, copies, moment);
        }
        let is_under_way = copies.iter().any(Replica::is_under_way);
        if !self.is_out_of_reach(copies) || is_under_way && !self.fail_early {
            return None;
        }
        let is_made = !copies.iter().any(Replica::is_being_kept);
        // At `Any` a hint that is being made is what the level asks for.
        let is_over =
            self.fail_early && self.level != ConsistencyLevel::Any && moment.now >= moment.hints_by;
        (is_made || is_over).then(|| Err(self.failure(copies)))
    }

    /// The level is reached: may the caller be told so?
    fn success(&self, outcome: WriteOutcome, copies: &[Replica], moment: Moment) -> Option<Answer> {
        let is_over = moment.now >= moment.all_by;
        let is_missing = copies.iter().any(Replica::is_missing);
        if self.on_not_stored == OnNotStored::Fail && is_missing {
            return Some(Err(PointsWriteError::NotStored(self.tally(copies))));
        }
        let is_asked = match (self.answer, self.on_not_stored) {
            (AnswerWhen::Accounted, _) => copies.iter().all(Replica::is_accounted),
            (AnswerWhen::Level, OnNotStored::Fail) => copies.iter().all(Replica::is_known),
            (AnswerWhen::Level, OnNotStored::Report) => true,
        };
        match (is_asked, is_over) {
            (true, _) => Some(Ok(outcome)),
            (false, false) => None,
            (false, true) => Some(Err(PointsWriteError::Unaccounted(self.tally(copies)))),
        }
    }

    fn failure(&self, copies: &[Replica]) -> PointsWriteError {
        PointsWriteError::of(self.tally(copies), &failures(copies))
    }

    fn tally(&self, copies: &[Replica]) -> Box<Tally> {
        let count = |is: fn(&Replica) -> bool| copies.iter().filter(|copy| is(copy)).count();
        let first = failures(copies).into_iter().next();
        let waits = copies.iter().find(|copy| !copy.is_taken());
        let waits = waits.map_or(NodeId(0), |copy| copy.node);
        let (node, cause) = first.unwrap_or((waits, OwnerError::Unanswered));
        Box::new(Tally {
            written: count(Replica::is_taken),
            hinted: count(|copy| copy.is_hinted() && !copy.is_under_way()),
            not_stored: count(Replica::is_missing),
            pending: count(|copy| copy.is_under_way() || copy.is_being_kept() && !copy.is_taken()),
            owners: copies.len(),
            required: self.level.required(copies.len()),
            node,
            cause,
        })
    }
}

/// For how many owners it is queued, if it is for one and no owner may be asked in vain: each has
/// failed or is late, and none refused.
fn queued(copies: &[Replica], moment: Moment) -> Option<usize> {
    let is_open = |copy: &Replica| {
        copy.is_refused() || copy.is_being_kept() || copy.is_under_way() && !moment.is_late
    };
    let hinted = copies.iter().filter(|copy| copy.is_hinted()).count();
    (hinted > 0 && !copies.iter().any(is_open)).then_some(hinted)
}

fn failures(copies: &[Replica]) -> Vec<(NodeId, OwnerError)> {
    let failures = copies.iter();
    failures
        .filter_map(|copy| Some((copy.node, copy.failure()?)))
        .collect()
}
