//! One owner's copy of a write: how the direct send goes, and what the store keeps of it.

use std::{sync::Arc, time::Duration};

use tokio::{task::AbortHandle, time::Instant};

use super::error::OwnerError;
use crate::{
    admission::{HeldInLane, Place, Turn},
    error::EnqueueError,
    links::Link,
    store::{Safeguard, is_off},
    types::NodeId,
};

/// One owner's copy.
pub struct Replica {
    pub node: NodeId,
    pub link: Arc<Link>,
    pub direct: Direct,
    pub kept: Kept,
    /// Its place in line, in strict order, until its turn is waited for.
    pub place: Option<Place>,
    /// The right to write directly, in strict order.
    pub turn: Option<Turn>,
    /// A hint that may be found when the store is opened again, held for as long as the send is
    /// under way.
    pub unsure: Option<HeldInLane>,
}

/// How the direct send goes.
pub enum Direct {
    /// It has not begun: in strict order it waits for its turn.
    InLine,
    Sending(Sending),
    Taken,
    /// In a way that is worth a retry; or it was not tried.
    Failed(OwnerError),
    /// For good.
    Refused(OwnerError),
}

pub struct Sending {
    pub send: AbortHandle,
    pub began: Instant,
    /// It has been outstanding for so long that its node was told on.
    pub is_slow: bool,
    /// Since when it is told to end.
    pub aborted: Option<Instant>,
}

impl Sending {
    /// When it is told to end.
    pub fn ends_at(&self, timeout: Duration, sends_by: Option<Instant>) -> Instant {
        let ends = self.began + timeout;
        sends_by.map_or(ends, |by| by.min(ends))
    }
}

/// What the store keeps of a copy.
pub enum Kept {
    Nothing,
    /// A hint or a dead letter is in the pipeline, or waits for room there.
    Making,
    /// A hint is in the pipeline, and the configuration asks for no more.
    Buffered,
    /// A hint that is durable. While it is held nobody else lets it leave.
    Hint(Option<HeldInLane>),
    /// It was a hint, or was not made one, and the write was refused.
    Withdrawn,
    /// A dead letter, or an entry of the loss journal that says that the shard is gone.
    Undelivered,
    /// Nothing, for this reason.
    NotStored(EnqueueError, Record),
}

/// Whether it is on the disk that a copy is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    NotYet,
    UnderWay,
    Durable,
    Failed,
}

impl Replica {
    pub fn new(node: NodeId, link: Arc<Link>, place: Option<Place>) -> Self {
        Replica {
            node,
            link,
            direct: Direct::InLine,
            kept: Kept::Nothing,
            place,
            turn: None,
            unsure: None,
        }
    }

    /// Whether its node may still take it directly.
    pub fn is_under_way(&self) -> bool {
        matches!(self.direct, Direct::InLine | Direct::Sending(_))
    }

    pub fn is_taken(&self) -> bool {
        matches!(self.direct, Direct::Taken)
    }

    pub fn is_refused(&self) -> bool {
        matches!(self.direct, Direct::Refused(_))
    }

    pub fn is_being_kept(&self) -> bool {
        matches!(self.kept, Kept::Making) || self.awaits_verdict()
    }

    /// Whether it failed and nothing is kept of it yet.
    pub fn awaits_verdict(&self) -> bool {
        matches!(
            (&self.direct, &self.kept),
            (Direct::Failed(_), Kept::Nothing)
        )
    }

    /// Whether its node did not take it so far and a hint will bring it.
    pub fn is_hinted(&self) -> bool {
        !self.is_taken() && matches!(self.kept, Kept::Hint(_) | Kept::Buffered)
    }

    /// Whether it will reach its node by no way.
    pub fn is_missing(&self) -> bool {
        let has_ended = matches!(self.direct, Direct::Failed(_) | Direct::Refused(_));
        has_ended && matches!(self.kept, Kept::NotStored(..))
    }

    /// Whether it is known what becomes of it, as durably as the configuration asks.
    pub fn is_known(&self) -> bool {
        self.is_taken() || self.is_hinted() || self.is_missing() || self.is_undelivered()
    }

    /// Whether a crash at this moment leaves it at its owner, or on the disk as a hint, a dead
    /// letter or a loss.
    pub fn is_accounted(&self) -> bool {
        self.is_taken()
            || self.is_undelivered()
            || matches!(
                self.kept,
                Kept::Hint(_) | Kept::NotStored(_, Record::Durable)
            )
            || matches!(self.kept, Kept::Making | Kept::Buffered)
                && is_off(Safeguard::AccountedHints)
    }

    fn is_undelivered(&self) -> bool {
        matches!(self.kept, Kept::Undelivered)
    }

    /// Why its owner does not have it, as far as that is known.
    pub fn failure(&self) -> Option<OwnerError> {
        let (Direct::Failed(direct) | Direct::Refused(direct)) = &self.direct else {
            return None;
        };
        Some(match &self.kept {
            Kept::NotStored(hint, _) => OwnerError::NotHinted {
                direct: Box::new(direct.clone()),
                hint: hint.clone(),
            },
            _ => direct.clone(),
        })
    }
}
