//! What waits for the commit thread.
//!
//! One mutex guards all of it; its condition variable wakes the commit thread, the only one that
//! waits on it. No other lock is taken while it is held.

use std::{
    collections::{BTreeSet, VecDeque},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{
    asked::Asked,
    block::Hint,
    bounds::GROUP_BYTES,
    copy::Copy,
    departure::{Departure, Discard, Redrive, Stillborn},
    engine::Engine,
    held::HoldId,
    in_flight::{Done, Waiting},
    keys::{Place, QueueRef},
    membership::Request as NodesRequest,
    peeked::PeekedHint,
    proposal::{Draft, Proposal, Refusal},
    quota::Reservation,
    reasons::Fate,
};
use crate::{
    error::{EnqueueError, HandoffError},
    types::{HintId, NodeId},
};

/// Told the outcome of an append. Dropped untold, the outcome is unknown.
pub type AppendDone = Box<dyn FnOnce(Result<HintId, EnqueueError>) + Send>;
/// Told the outcome of anything else.
pub type ControlDone<T> = Box<dyn FnOnce(Result<T, HandoffError>) + Send>;

/// Bytes of entries that a group takes: what is left of [`GROUP_BYTES`] is for cursors and trims.
const APPEND_BYTES: usize = GROUP_BYTES - 192 * 1024;
/// What a hint may cost beside itself, were it the first one of a new node: block header and key,
/// the node's record, the next queue id.
pub const APPEND_OVERHEAD_BYTES: usize = 256;
/// Beside payloads that are moved: a cursor with all that left out of order, and records of the
/// loss journal.
const DEPARTURE_SHARE: usize = 64 * 1024;
/// The same of a hint that leaves with its group: the list of its queue is short (see `plan.rs`).
const STILLBORN_SHARE: usize = 10 * 1024;
/// A record of a dead letter that goes, with the error in it.
const LETTER_SHARE: usize = 4500;
/// So that a group looks at some 13,000 rows at most, unless one transaction alone has read more.
const READ_SHARE: usize = 64;
/// What the log is to grow by for the leaves of all rows of a group, at most.
const ROWS_LOG_BYTES: usize = 2 * 1024 * 1024;
/// Rows become cheaper for the share of a group by a 32nd of what they were thought to cost with
/// each group that shows it.
const CHEAPER_BY: usize = 32;
/// Nobody waits for an ack's fsync, so acks wait this long for appends to ride with.
const ACK_DELAY: Duration = Duration::from_millis(5);
/// How long a group waits for writers who were answered a moment ago to come back with their next
/// hint; again and again as long as an eighth of those who were missing comes back each time, and
/// as many are missing still.
const RETURN_DELAY: Duration = Duration::from_micros(100);
/// Groups that do not wait for returners, after a wait that most of them let pass.
const GROUPS_WITHOUT_RETURNERS: u32 = 32;

/// A hint on its way to a node.
pub struct Append {
    pub node: NodeId,
    pub hint: Hint,
    /// Who holds it, if somebody does.
    pub held: Option<HoldId>,
    /// The caller was told already that it is in the pipeline, so it is not refused any more.
    pub answered: bool,
    /// Room for it.
    pub reserved: Reservation,
    pub done: AppendDone,
}

/// What a group is made of.
pub enum Entry {
    Append(Append),
    Proposal(Proposal),
    Stillborn(Stillborn),
    Departure(Departure),
    Discard(Discard),
    Redrive(Redrive),
}

impl Entry {
    /// What it takes of a group: bytes that it may hand to the engine, and something for each row
    /// that must be looked at.
    fn share(&self, row_log_bytes: usize) -> usize {
        match self {
            Entry::Append(append) => append.hint.raw_bytes() + APPEND_OVERHEAD_BYTES,
            Entry::Proposal(Proposal { draft, .. }) => {
                let row = row_log_bytes * APPEND_BYTES / ROWS_LOG_BYTES;
                draft.bytes + draft.reads() * READ_SHARE + draft.writes() * row
            }
            Entry::Stillborn(Stillborn { hint, .. }) => {
                // Its payload is in its queue, and in its dead letter.
                let block = hint.raw_bytes() + APPEND_OVERHEAD_BYTES;
                STILLBORN_SHARE + LETTER_SHARE + block + hint.payload.len()
            }
            Entry::Departure(Departure { hints, .. }) => {
                let payload: u64 = hints.iter().map(|hint| hint.hint.payload_bytes()).sum();
                DEPARTURE_SHARE + payload as usize
            }
            Entry::Discard(Discard { letters, .. }) => {
                DEPARTURE_SHARE + letters.len() * LETTER_SHARE
            }
            Entry::Redrive(Redrive { hint, .. }) => {
                hint.raw_bytes() + APPEND_OVERHEAD_BYTES + LETTER_SHARE
            }
        }
    }

    /// What is to be done, and who waits for it.
    pub fn split(self) -> (Part, Waiting) {
        match self {
            Entry::Append(Append {
                node,
                hint,
                held,
                answered,
                reserved,
                done,
            }) => {
                let part = Part::Hint {
                    node,
                    hint,
                    held,
                    answered,
                };
                (part, Waiting::new(1, reserved, Done::Append(done)))
            }
            Entry::Proposal(Proposal {
                draft,
                answer_early: early,
                reserved,
                done,
            }) => {
                let done = Done::Transaction {
                    done,
                    early,
                    only_asks: draft.changes_nothing(),
                };
                let waiting = Waiting::new(draft.hints.len(), reserved, done);
                (Part::Transaction(draft), waiting)
            }
            Entry::Stillborn(Stillborn {
                node,
                hint,
                fate,
                done,
            }) => {
                let part = Part::Stillborn { node, hint, fate };
                (
                    part,
                    Waiting::new(1, Reservation::default(), Done::Append(done)),
                )
            }
            Entry::Departure(Departure {
                node,
                hints,
                fate,
                done,
            }) => {
                let part = Part::Departure { node, hints, fate };
                (
                    part,
                    Waiting::new(0, Reservation::default(), Done::Left(done)),
                )
            }
            Entry::Discard(Discard {
                node,
                letters,
                done,
            }) => {
                let part = Part::Discard { node, letters };
                (
                    part,
                    Waiting::new(0, Reservation::default(), Done::Left(done)),
                )
            }
            Entry::Redrive(Redrive {
                node,
                letter,
                hint,
                done,
            }) => {
                let part = Part::Redrive { node, letter, hint };
                (
                    part,
                    Waiting::new(1, Reservation::default(), Done::Redriven(done)),
                )
            }
        }
    }

    /// Tells whoever waits that it will not be done.
    pub fn refuse(self, error: EnqueueError) {
        match self {
            Entry::Append(Append { reserved, done, .. }) => {
                drop(reserved);
                done(Err(error));
            }
            Entry::Proposal(Proposal { reserved, done, .. }) => {
                drop(reserved);
                done(Err(Refusal::Enqueue(error)));
            }
            Entry::Stillborn(stillborn) => (stillborn.done)(Err(error)),
            Entry::Departure(Departure { done, .. }) | Entry::Discard(Discard { done, .. }) => {
                done(Err(error.into()));
            }
            Entry::Redrive(redrive) => (redrive.done)(Err(error.into())),
        }
    }
}

/// What is to be done of an entry.
pub enum Part {
    Hint {
        node: NodeId,
        hint: Hint,
        held: Option<HoldId>,
        /// See [`Append::answered`].
        answered: bool,
    },
    Transaction(Draft),
    /// See [`Stillborn`].
    Stillborn {
        node: NodeId,
        hint: Hint,
        fate: Fate,
    },
    Departure {
        node: NodeId,
        hints: Vec<PeekedHint>,
        fate: Fate,
    },
    Discard {
        node: NodeId,
        letters: Vec<Place>,
    },
    Redrive {
        node: NodeId,
        letter: Place,
        hint: Hint,
    },
}

/// Requests that are carried out between groups, in order with the appends around them.
pub enum Control {
    /// Answered when all that came before is durable, acks too.
    Sync(ControlDone<()>),
    /// The same, and the entries of the loss journal are closed: answered with the index of the
    /// next one.
    CloseEntries(ControlDone<u64>),
    /// Pauses, renames, parks or removes nodes.
    Nodes(NodesRequest),
    /// Somebody could not read the hint at the cursor of this queue of this node.
    JudgeDamage(NodeId, QueueRef, ControlDone<()>),
    /// Sort all hints that stand in mixed groups into blocks of their queues.
    Sort(ControlDone<()>),
    /// Go on with this copy of the generation in use: answered with the old engine, or with none if
    /// the copy is too far behind.
    Switch(Arc<Copy>, ControlDone<Option<Arc<Engine>>>),
    /// The last request: commit all, leave `CLEAN`, drop the engine.
    Close(ControlDone<()>),
}

/// A queue whose cursor moved: the node it is drained for, and the queue.
pub type Dirty = (NodeId, QueueRef);

/// What a turn of the commit thread works on.
#[derive(Default)]
pub struct Work {
    pub entries: Vec<Entry>,
    pub control: Option<Asked>,
    pub dirty: BTreeSet<Dirty>,
    /// Nodes whose status changed.
    pub statuses: BTreeSet<NodeId>,
    /// The store was given up while the commit thread hung: it is to let go of all.
    pub ends: bool,
}

enum Request {
    Entry(Entry),
    Control(Asked),
}

#[derive(Default)]
struct State {
    requests: VecDeque<Request>,
    dirty: BTreeSet<Dirty>,
    statuses: BTreeSet<NodeId>,
    /// `Close` was handed in.
    closed: bool,
    /// Nobody works on what comes in, for now.
    shut: bool,
    /// `Close` was refused meanwhile.
    ends: bool,
    /// The commit thread is to look at the condition of the store.
    nudged: bool,
    /// Requests that will wait here once everybody who was answered has come back; 0 if nobody is
    /// expected.
    expected: usize,
    /// Requests below which an entry need not wake the commit thread; over 0 only while that waits
    /// for returners.
    wanted: usize,
    /// Groups left that do not wait for returners.
    without_returners: u32,
    /// What sled's log grows by for the leaf of a row, beside the row itself.
    row_log_bytes: usize,
}

impl State {
    /// Whether nothing comes in.
    fn is_closed(&self) -> bool {
        self.closed || self.shut || self.ends
    }
}

#[derive(Default)]
pub struct Inbox {
    state: Mutex<State>,
    filled: Condvar,
}

impl Inbox {
    /// Hands in an entry of a group; gives it back if the inbox is closed.
    // What comes back is what was given, whatever its size.
    #[allow(clippy::result_large_err)]
    pub fn hand_in(&self, entry: Entry) -> Result<(), Entry> {
        let mut state = self.state.lock();
        if state.is_closed() {
            return Err(entry);
        }
        state.requests.push_back(Request::Entry(entry));
        let suffices = state.requests.len() >= state.wanted;
        drop(state);
        if suffices {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Hands in a control; gives it back if the inbox is closed. `Close` closes it.
    pub fn control(&self, control: Asked) -> Result<(), Asked> {
        let mut state = self.state.lock();
        let closes = control.is_close();
        if state.is_closed() {
            state.ends |= closes && state.shut;
            drop(state);
            // The commit thread may be back, and waits.
            self.filled.notify_one();
            return Err(control);
        }
        state.closed = closes;
        state.requests.push_back(Request::Control(control));
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Says that a cursor moved.
    pub fn mark_dirty(&self, dirty: Dirty) {
        let mut state = self.state.lock();
        if state.dirty.insert(dirty) {
            drop(state);
            self.filled.notify_one();
        }
    }

    /// Keeps everybody out until it is dropped.
    #[cfg(test)]
    pub fn held(&self) -> impl Drop + use<'_> {
        self.state.lock()
    }

    /// Says that a node's status changed.
    pub fn mark_status(&self, node: NodeId) {
        let mut state = self.state.lock();
        if state.statuses.insert(node) {
            drop(state);
            self.filled.notify_one();
        }
    }

    /// Wakes the commit thread although nothing came in.
    pub fn nudge(&self) {
        self.state.lock().nudged = true;
        self.filled.notify_one();
    }

    /// Takes out all that waits, and lets nothing in, since nobody works on it.
    pub fn shut(&self) -> (Vec<Entry>, Vec<Asked>) {
        let mut state = self.state.lock();
        state.shut = true;
        let (mut entries, mut controls) = (Vec::new(), Vec::new());
        for request in mem::take(&mut state.requests) {
            match request {
                Request::Entry(entry) => entries.push(entry),
                Request::Control(control) => {
                    state.ends |= control.is_close();
                    controls.push(control);
                }
            }
        }
        (entries, controls)
    }

    /// The commit thread works again.
    pub fn open_again(&self) {
        let mut state = self.state.lock();
        state.shut = false;
        state.nudged = true;
        drop(state);
        self.filled.notify_one();
    }

    /// Says that this many writers are about to be answered.
    ///
    /// Writers who wait for each answer before their next hint fall into two halves that never
    /// share a group: one half writes while the other's group is being committed. Waiting a moment
    /// for the half that was answered joins them, which makes groups twice as large. A lone writer
    /// is not waited for.
    pub fn expect_back(&self, answered: usize) {
        let mut state = self.state.lock();
        state.expected = match answered {
            0 | 1 => 0,
            _ => answered + state.requests.len(),
        };
    }

    /// The log grew by so much for the leaves of so many rows: those of the host's may be large,
    /// and each of them stands in a leaf with others, so how many a group takes follows from what
    /// the last ones cost.
    pub fn note_rows(&self, rows: usize, log_bytes: usize) {
        let Some(of_one) = log_bytes.checked_div(rows) else {
            return;
        };
        let mut state = self.state.lock();
        let known = state.row_log_bytes;
        state.row_log_bytes = of_one.max(known - known / CHEAPER_BY);
    }

    /// Waits for work: everything that waits, over all nodes, up to one group; a control ends the
    /// group before it. Returns `by` some moment, perhaps with nothing, if there is one.
    pub fn take(&self, by: Option<Instant>) -> Work {
        let mut state = self.state.lock();
        let mut deadline = by;
        let mut company = None;
        while state.requests.is_empty() && !state.nudged && !state.ends {
            if !state.dirty.is_empty() || !state.statuses.is_empty() {
                let until = *company.get_or_insert_with(|| Instant::now() + ACK_DELAY);
                deadline = Some(deadline.map_or(until, |by| by.min(until)));
            }
            match deadline {
                None => self.filled.wait(&mut state),
                Some(deadline) => {
                    if self.filled.wait_until(&mut state, deadline).timed_out() {
                        break;
                    }
                }
            }
        }
        self.await_returners(&mut state);
        state.nudged = false;
        let mut work = Work {
            dirty: mem::take(&mut state.dirty),
            statuses: mem::take(&mut state.statuses),
            ends: state.ends,
            ..Work::default()
        };
        let mut share = 0;
        while let Some(request) = state.requests.pop_front() {
            match request {
                Request::Entry(entry) => {
                    share += entry.share(state.row_log_bytes);
                    if share > APPEND_BYTES && !work.entries.is_empty() {
                        state.requests.push_front(Request::Entry(entry));
                        break;
                    }
                    work.entries.push(entry);
                }
                Request::Control(control) => {
                    work.control = Some(control);
                    break;
                }
            }
        }
        work
    }

    fn await_returners(&self, state: &mut MutexGuard<'_, State>) {
        let expected = mem::take(&mut state.expected);
        let missing = expected.saturating_sub(state.requests.len());
        if missing == 0 || state.closed || state.nudged {
            return;
        }
        if state.without_returners > 0 {
            state.without_returners -= 1;
            return;
        }
        state.wanted = expected;
        let mut there = state.requests.len();
        loop {
            let deadline = Instant::now() + RETURN_DELAY;
            while state.requests.len() < expected {
                let is_over = self.filled.wait_until(state, deadline).timed_out();
                if is_over || state.closed || state.nudged {
                    break;
                }
            }
            let came = state.requests.len().saturating_sub(there);
            let still_missing = expected.saturating_sub(state.requests.len());
            if still_missing.min(came) <= missing / 8 {
                break;
            }
            there += came;
        }
        state.wanted = 0;
        if expected.saturating_sub(state.requests.len()) > missing / 2 {
            state.without_returners = GROUPS_WITHOUT_RETURNERS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ShardId;

    fn append(bytes: usize) -> Entry {
        Entry::Append(Append {
            node: NodeId(1),
            hint: Hint {
                shard: ShardId(1),
                format: 0,
                enqueued_unix_ms: 0,
                payload: vec![0; bytes].into(),
                origin: None,
                write: None,
                lifetime_ms: None,
            },
            held: None,
            answered: false,
            reserved: Reservation::default(),
            done: Box::new(|_| {}),
        })
    }

    #[test]
    fn a_group_stays_under_its_limit_and_a_larger_hint_goes_alone() {
        let inbox = Inbox::default();
        for bytes in [600_000, 600_000, 5_000_000, 10, 10] {
            assert!(inbox.hand_in(append(bytes)).is_ok());
        }
        let sizes: Vec<_> = (0..4).map(|_| inbox.take(None).entries.len()).collect();
        assert_eq!(sizes, [1, 1, 1, 2]);
    }

    #[test]
    fn a_group_waits_a_moment_for_those_who_were_answered_and_no_longer() {
        let inbox = Inbox::default();
        assert!(inbox.hand_in(append(1)).is_ok());
        // Nobody comes back: it goes on all the same.
        inbox.expect_back(64);
        assert_eq!(inbox.take(None).entries.len(), 1);
        // A thread that waits with nothing at hand is woken by the first, however many are
        // expected.
        inbox.expect_back(64);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| inbox.take(None).entries.len());
            std::thread::sleep(Duration::from_millis(20));
            assert!(inbox.hand_in(append(1)).is_ok());
            assert_eq!(waiting.join().unwrap(), 1);
        });
    }

    #[test]
    fn a_control_ends_the_group_before_it_and_nothing_enters_after_close() {
        let inbox = Inbox::default();
        assert!(inbox.hand_in(append(1)).is_ok());
        assert!(inbox.control(Asked::new(|_| {}, Control::Sync)).is_ok());
        assert!(inbox.hand_in(append(2)).is_ok());
        assert!(inbox.control(Asked::new(|_| {}, Control::Close)).is_ok());
        assert!(inbox.hand_in(append(3)).is_err());
        let first = inbox.take(None);
        assert_eq!(first.entries.len(), 1);
        assert!(first.control.is_some_and(|it| !it.is_close()));
        let second = inbox.take(None);
        assert_eq!(second.entries.len(), 1);
        assert!(second.control.is_some_and(|it| it.is_close()));
    }

    #[test]
    fn a_shut_inbox_gives_up_what_waits_and_takes_nothing_more() {
        let inbox = Inbox::default();
        assert!(inbox.hand_in(append(1)).is_ok());
        assert!(inbox.control(Asked::new(|_| {}, Control::Sync)).is_ok());
        let (entries, controls) = inbox.shut();
        assert_eq!((entries.len(), controls.len()), (1, 1));
        assert!(inbox.hand_in(append(2)).is_err());
        inbox.open_again();
        assert!(inbox.hand_in(append(3)).is_ok());
        let work = inbox.take(None);
        assert!(!work.ends);
        assert_eq!(work.entries.len(), 1);
    }

    #[test]
    fn a_close_that_is_refused_while_the_inbox_is_shut_ends_the_commit_thread() {
        for waited_before in [true, false] {
            let inbox = Inbox::default();
            let close = || inbox.control(Asked::new(|_| {}, Control::Close));
            if waited_before {
                assert!(close().is_ok());
            }
            drop(inbox.shut());
            assert!(close().is_err());
            inbox.open_again();
            assert!(inbox.hand_in(append(1)).is_err());
            assert!(inbox.take(None).ends);
        }
    }
}
