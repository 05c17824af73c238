//! What waits for the commit thread.
//!
//! One mutex guards all of it; its condition variable wakes the commit thread, the only one that
//! waits on it. No other lock is taken while it is held.

use std::{
    collections::{BTreeSet, VecDeque},
    mem,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::{
    store::{
        format::keys::QueueRef,
        pipeline::{asked::Asked, batch::APPEND_BYTES, ticket::Entry},
    },
    types::NodeId,
};

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

enum InboxRequest {
    Entry(Entry),
    Control(Asked),
}

#[derive(Default)]
struct InboxState {
    requests: VecDeque<InboxRequest>,
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

impl InboxState {
    /// Whether nothing comes in.
    fn is_closed(&self) -> bool {
        self.closed || self.shut || self.ends
    }
}

#[derive(Default)]
pub struct Inbox {
    state: Mutex<InboxState>,
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
        state.requests.push_back(InboxRequest::Entry(entry));
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
        state.requests.push_back(InboxRequest::Control(control));
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
                InboxRequest::Entry(entry) => entries.push(entry),
                InboxRequest::Control(control) => {
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
                InboxRequest::Entry(entry) => {
                    share += entry.batch.share(state.row_log_bytes);
                    if share > APPEND_BYTES && !work.entries.is_empty() {
                        state.requests.push_front(InboxRequest::Entry(entry));
                        break;
                    }
                    work.entries.push(entry);
                }
                InboxRequest::Control(control) => {
                    work.control = Some(control);
                    break;
                }
            }
        }
        work
    }

    fn await_returners(&self, state: &mut MutexGuard<'_, InboxState>) {
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
    use crate::{
        store::{
            format::block::Hint,
            pipeline::{
                batch::{HintKind, WriteBatch},
                control::Control,
            },
            state::lock::Reservation,
        },
        types::ShardId,
    };

    fn append(bytes: usize) -> Entry {
        let hint = Hint {
            shard: ShardId(1),
            format: 0,
            enqueued_unix_ms: 0,
            payload: vec![0; bytes].into(),
            origin: None,
            write: None,
            lifetime_ms: None,
        };
        let batch = WriteBatch::of_hint(NodeId(1), hint, HintKind::Pending);
        Entry::new(batch, Reservation::default(), Box::new(|_| {}))
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
