//! What a crash, a storage that fails and a panic do to the store, and what it must say then.

use std::{
    fs,
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use hinted_handoff::{
    EnqueueError, FailedOutcome, HandoffError, Health, NodeId, Sequence,
    internals::{CommitFault, Leave, Mark},
};

use crate::{
    common::generation,
    copy::Copy,
    host::{Host, PATIENCE},
    operation::{Failing, NODES, Payload},
};

/// What would be answered or shown before its fsync, is so by then.
const TOO_EARLY: Duration = Duration::from_millis(2);

impl Host {
    /// See `copy.rs` for what makes the copy a crash.
    pub fn crash(&mut self, in_flight: &[(u64, Payload)], removing: Option<u64>, log_percent: u8) {
        self.store().inject(CommitFault::Hang);
        for (node, payload) in in_flight {
            self.buffer(*node, *payload);
        }
        if let Some(node) = removing.map(NodeId) {
            self.store().remove_node(node, |_| {});
            self.model.removal_unknown(node);
        }
        thread::sleep(TOO_EARLY);
        self.hear();
        self.model.check(self.store.as_ref().unwrap());
        // From here on nobody listens.
        let copy = Copy::of(&self.dir);
        self.store().inject(CommitFault::None);
        let mut copy = copy.unwrap();
        self.found.count("crashes", 1);
        let log = generation(Path::new("")).join("db");
        if log_percent > 0 {
            let (tell, told) = mpsc::channel();
            self.store().sync(move |result| drop(tell.send(result)));
            told.recv_timeout(PATIENCE).unwrap().unwrap();
            let added = copy.add_tail(&self.dir, &log, log_percent).unwrap();
            self.found.count("crashes within a write", u64::from(added));
        }
        self.store = None;
        fs::remove_dir_all(&self.dir).unwrap();
        self.dir = self
            .root
            .path()
            .join(format!("store-{}", self.found.counts["crashes"]));
        copy.write_to(&self.dir).unwrap();
        self.model.stopped_uncleanly();
        self.open();
    }

    /// The storage fails for a while; the store refuses all, and reopens itself when it is well
    /// again.
    pub fn fail(&mut self, failing: &Failing) {
        let reopened = self.store().stats().reopened;
        self.failing = true;
        self.store().inject(CommitFault::Fail);
        match failing {
            Failing::Append { node, payloads } => {
                let answers = self.append(*node, payloads);
                let stored = answers.iter().any(Result::is_ok);
                self.found
                    .expect(!stored, || format!("stored on a broken disk: {answers:?}"));
            }
            // With nothing to write it has no need of the disk.
            Failing::Sync => {
                if self.sync().is_ok() {
                    self.model.synced();
                }
            }
            Failing::Remove { node } => match self.try_to_remove(*node) {
                Err(HandoffError::UnknownNode { .. }) => {}
                Err(_) => self.model.removal_unknown(NodeId(*node)),
                Ok(amount) => self
                    .found
                    .broken
                    .push(format!("{amount:?} removed on a broken disk")),
            },
            Failing::Close => unreachable!("it has its own way on"),
        }
        if matches!(self.store().health(), Health::Failed(_)) {
            self.expect_refusals();
        }
        self.store().inject(CommitFault::None);
        // Answered when whatever was under way with a broken disk is over.
        let started = Instant::now();
        while self.sync().is_err() {
            assert!(started.elapsed() < PATIENCE, "it does not reopen itself");
            thread::sleep(Duration::from_millis(2));
        }
        self.failing = false;
        let stats = self.store().stats();
        if stats.reopened > reopened {
            self.found.count("reopened", 1);
            self.model.stopped_uncleanly();
            self.model.check(self.store.as_ref().unwrap());
        }
        self.model.synced();
    }

    /// A store that does not serve says so to everybody, at once.
    fn expect_refusals(&mut self) {
        let one = Payload {
            bytes: 1,
            leaves: false,
        };
        let answers = self.append(*NODES.start(), &[one]);
        let refused = answers.iter().all(|answer| {
            let outcome = answer.as_ref().map_err(EnqueueError::outcome);
            outcome == Err(FailedOutcome::Refused)
        });
        self.found
            .expect(refused, || format!("a failed store says {answers:?}"));
        let synced = self.sync();
        self.found
            .expect(synced.is_err(), || "a failed store syncs".to_owned());
        let nodes = self.store().nodes();
        let mut queues = nodes
            .iter()
            .flat_map(|(node, it)| it.queues.iter().map(|it| (*node, it.at)));
        if let Some((node, queue)) = queues.next() {
            let mark = Mark {
                queue,
                sequence: Sequence(1),
                bytes_through: 1,
            };
            let acked = self.store().ack(node, mark, Leave::Delivered);
            self.found
                .expect(acked.is_err(), || format!("a failed store acks: {acked:?}"));
        }
    }

    pub fn fail_to_close(&mut self) {
        self.failing = true;
        self.store().inject(CommitFault::Fail);
        let closed = self.store().close();
        self.hear();
        match closed {
            // There was nothing to commit.
            Ok(()) => self.model.closed(),
            Err(_) => self.model.stopped_uncleanly(),
        }
        self.found
            .count("failed to close", u64::from(closed.is_err()));
        self.open();
    }

    pub fn panic(&mut self, node: u64, payload: Payload) {
        self.failing = true;
        self.store().inject(CommitFault::Panic);
        let answers = self.append(node, &[payload]);
        let stored = answers.iter().any(Result::is_ok);
        self.found.expect(!stored, || {
            format!("stored by a commit that panicked: {answers:?}")
        });
        let health = self.store().health();
        let told = matches!(health, Health::RestartRequired(_));
        self.found
            .expect(told, || format!("after a panic: {health:?}"));
        self.expect_refusals();
        self.store().inject(CommitFault::None);
        let closed = self.store().close();
        self.found.expect(closed.is_err(), || {
            "closed cleanly after a panic".to_owned()
        });
        self.found.count("panics", 1);
        self.model.stopped_uncleanly();
        self.open();
    }
}
