//! What the end of a log is, if there is more behind: damage, or what a crash leaves.

use crate::{
    error::StorageError,
    store::{
        engine::{log_pages::TornAt, unsynced},
        offline::{
            findings::{Finding, Severity},
            place::{ClosedPlace, unread},
        },
        recover::behind_end,
    },
};

/// What is to be told of it.
pub fn of_torn_log(place: &ClosedPlace, torn: TornAt) -> Result<Finding, StorageError> {
    // Where an fsync failed, what was durable is not known.
    let hints = match place.generation.join(unsynced::MARKER).exists() {
        true => None,
        false => behind_end::find(&place.log(), torn.lsn).map_err(unread)?,
    };
    let Some(hints) = hints else {
        let what = format!(
            "the log ends at {}, and {} records stand behind that: the store was not closed, and \
             what was under way then looks like this, but so does damage",
            torn.lsn, torn.messages_behind
        );
        return Ok(Finding::new(Severity::Unknown, what));
    };
    let generation = place.generation.display();
    let then = match place.may_be_shared {
        true => format!(
            "a host goes on without them; before it opens this, `hh salvage {generation} INTO` \
             makes a store with them"
        ),
        false => format!(
            "the next open rebuilds the store with them; `hh salvage {generation} INTO` makes \
             another one with them"
        ),
    };
    let what = format!(
        "the log is damaged at {}: {} records stand behind that which were durable, with {hints} \
         hints that wait and are not read here; {then}",
        torn.lsn, torn.messages_behind
    );
    let severity = match hints {
        0 => Severity::Damaged,
        _ => Severity::Lost,
    };
    Ok(Finding {
        hints,
        ..Finding::new(severity, what)
    })
}
