//! Stops: clean ones, crashes, and storage that fails; and how it goes on afterwards.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    fs,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hinted_handoff::{
    Durability, FailedOutcome, Health, HintedHandoff, NodeId, OpenError, PeekedPoints, RowBatch,
    ShardId, TransactionError, database_config,
    internals::{CommitFault, Store},
    open_database,
    sled::Db,
};
use hinted_handoff_testkit::Reply;

use crate::{
    copy::Copy,
    history::{Shown, ShownHints, Verdict},
    host::{Host, Open, PATIENCE, RUNTIME, config},
    operation::{MANUAL, REPLAYED, Request, Row},
    valves::Valves,
    waiting::Waiting,
};

/// What would be answered before its fsync is so by then.
const TOO_EARLY: Duration = Duration::from_millis(2);

impl Host {
    pub fn reopen(&mut self, in_flight: &[Request], database: bool) {
        let waiting = self.hand_in(in_flight);
        let closed = self.handoff().shutdown_blocking();
        self.found.expect_ok("shutdown", closed);
        // Those that must run again come too late.
        self.failing = true;
        self.drive(waiting);
        self.failing = false;
        self.take_in_sent();
        self.history.synced();
        let (db, contents) = self.close();
        let db = match database {
            true => {
                drop(db);
                self.found.count("database reopened", 1);
                open_database(&database_config(&self.dir)).unwrap()
            }
            false => {
                self.found.count("handoff reopened", 1);
                db
            }
        };
        self.open_in(db, contents);
    }

    /// Drops all but the database.
    fn close(&mut self) -> (Db, Arc<AtomicU64>) {
        let Open { context, db, .. } = self.open.take().unwrap();
        (db, context.contents)
    }

    fn open_in(&mut self, db: Db, contents: Arc<AtomicU64>) {
        self.valves = Valves::new();
        self.went.clear();
        let config = config(&self.dir, self.durability);
        self.open = Some(Open::new(
            db,
            config,
            Arc::clone(&self.valves.writer),
            contents,
        ));
    }

    /// See `model/copy.rs` for what makes the copy a crash.
    pub fn crash(
        &mut self,
        in_flight: &[Request],
        delivered: Option<&(u64, Vec<Reply>)>,
        log_percent: u8,
    ) {
        if delivered.is_some() {
            // What is not durable is not sent.
            self.sync();
        }
        self.handoff().inject(CommitFault::Hang);
        if let Some((node, replies)) = delivered {
            self.hanging = true;
            self.deliver(*node, replies);
            self.hanging = false;
        }
        let mut waiting = self.hand_in(in_flight);
        thread::sleep(TOO_EARLY);
        waiting.iter_mut().for_each(|it| self.poll(it));
        self.expect_nothing_answered(&waiting);
        self.expect_nothing_shown();
        self.take_in_sent();
        // From here on nobody listens: what is durable and sent now is not so in the copy.
        let copy = Copy::of(&self.dir);
        self.handoff().inject(CommitFault::None);
        drop(waiting);
        let mut copy = copy.unwrap();
        self.found.count("crashes", 1);
        if log_percent > 0 {
            self.handoff().sync_blocking().unwrap();
            let added = copy.add_tail(&self.dir, Path::new("db"), log_percent);
            self.found
                .count("crashes within a write", u64::from(added.unwrap()));
        }
        let closed = self.handoff().shutdown_blocking();
        self.found.expect_ok("shutdown", closed);
        let (db, contents) = self.close();
        drop(db);
        fs::remove_dir_all(&self.dir).unwrap();
        let number = self.found.counts["crashes"];
        self.dir = self.root.path().join(format!("database-{number}"));
        copy.write_to(&self.dir).unwrap();
        self.go_on(contents);
    }

    /// Nothing can be durable, so with answers that promise it nobody can have one.
    fn expect_nothing_answered(&mut self, waiting: &[Waiting]) {
        for it in waiting {
            let Some(answer) = &it.answer else { continue };
            let changed = it
                .judged
                .last()
                .is_some_and(|run| run.verdict == Verdict::Applied && !run.changes_nothing);
            match answer {
                Ok(_) if changed && self.durability == Durability::Sync => {
                    self.found
                        .broken
                        .push(format!("{answer:?} before anything was durable"));
                }
                // A buffered hint is answered when it is handed in.
                Ok(done) => {
                    let early = changed && done.hints.is_some();
                    self.found.count("answered early", u64::from(early));
                }
                Err(_) => self
                    .found
                    .expect(!changed, || format!("{answer:?} for {:?}", it.judged)),
            }
        }
    }

    /// Nor can anybody be shown a hint of it.
    fn expect_nothing_shown(&mut self) {
        if self.durability == Durability::Buffered {
            // What was handed in before that may be durable by now.
            return;
        }
        for node in MANUAL {
            let consumer = self.open().consumers.get_mut(&node).unwrap();
            let peeked = consumer.peek_blocking(usize::MAX).unwrap();
            let uncertain = |hint: &&PeekedPoints<Bytes>| self.history.is_uncertain(&hint.points);
            if let Some(hint) = peeked.iter().find(uncertain) {
                self.found
                    .broken
                    .push(format!("{} is shown and not durable", hint.id));
            }
        }
    }

    /// The storage fails until the database is opened again.
    pub fn fail(&mut self, in_flight: &[Request], panics: bool) {
        self.failing = true;
        self.handoff().inject(match panics {
            true => CommitFault::Panic,
            false => CommitFault::Fail,
        });
        let waiting = self.hand_in(in_flight);
        self.drive(waiting);
        if matches!(self.handoff().health(), Health::Serving) {
            // There was nothing to commit.
            let row = Row { tree: 0, key: 1 };
            let waiting = self.hand_in(&[Request::Apply(vec![(row, Some(16))])]);
            self.drive(waiting);
        }
        let started = Instant::now();
        // A buffered answer comes before that.
        while matches!(self.handoff().health(), Health::Serving) {
            assert!(started.elapsed() < PATIENCE, "it does not fail");
            thread::sleep(Duration::from_micros(200));
        }
        let health = self.handoff().health();
        let told = match panics {
            true => matches!(health, Health::RestartRequired(_)),
            false => matches!(health, Health::ReopenRequired(_)),
        };
        self.found
            .expect(told, || format!("after a failure: {health:?}"));
        self.expect_refusals();
        let closed = self.handoff().shutdown_blocking();
        self.found.expect(closed.is_err(), || {
            "a failed store closes cleanly".to_owned()
        });
        self.found.count(
            if panics {
                "panics of the engine"
            } else {
                "failures"
            },
            1,
        );
        self.take_in_sent();
        let (db, contents) = self.close();
        drop(db);
        self.failing = false;
        self.go_on(contents);
    }

    /// A store that failed says so to everybody.
    fn expect_refusals(&mut self) {
        let (handoff, tree) = (self.handoff().clone(), self.context().trees[0].clone());
        let ran = handoff.transaction_blocking(&[&tree], |rows, _| Ok(rows[0].insert("no", "")?));
        self.expect_refused("transaction", ran.map(drop));
        let mut batch = RowBatch::new();
        batch.insert(&tree, "no", "").unwrap();
        self.expect_refused("apply", handoff.apply_blocking(batch));
        let written = handoff.write_shard_blocking(NodeId(1), ShardId(1), &Bytes::from("no"));
        self.expect_refused("write", written.map(drop).map_err(TransactionError::from));
        let synced = handoff.sync_blocking();
        self.found
            .expect(synced.is_err(), || "a failed store syncs".to_owned());
        for node in MANUAL {
            let peeked = self
                .context()
                .peeked
                .get(&node)
                .cloned()
                .unwrap_or_default();
            if !peeked.is_empty() {
                let acked = self
                    .open()
                    .consumers
                    .get_mut(&node)
                    .unwrap()
                    .ack_blocking(&peeked);
                self.expect_refused("ack", acked);
            }
        }
        let config = config(&self.dir, self.durability);
        let (db, runtime) = (self.open().db.clone(), RUNTIME.handle().clone());
        let writer = Arc::clone(&self.valves.writer);
        let again = HintedHandoff::<Bytes>::open_in_blocking(&db, config, writer, runtime);
        let locked = matches!(again, Err(OpenError::Locked { .. }));
        self.found.expect(locked, || {
            "a second one was opened in the same database".to_owned()
        });
    }

    fn expect_refused(
        &mut self,
        what: &str,
        answer: Result<(), impl Into<TransactionError> + Debug>,
    ) {
        let answer = answer.map_err(Into::into);
        let outcome = answer.as_ref().map_err(TransactionError::outcome);
        self.found
            .expect(outcome == Err(FailedOutcome::Refused), || {
                format!("a failed store says to a {what}: {answer:?}")
            });
    }

    /// Opens what a stop that was not clean left. Queues and cursors are looked at before anything
    /// is replayed.
    fn go_on(&mut self, contents: Arc<AtomicU64>) {
        let db = open_database(&database_config(&self.dir)).unwrap();
        let pending = self.shown_by_store(&db);
        self.open_in(db, contents);
        let letters = REPLAYED.map(|node| {
            let ids = self.letters(node).into_iter();
            (node, ids.map(|id| (id.queue, id.sequence.0)).collect())
        });
        let letters = letters.collect();
        let rows = self.open().rows();
        let shown = rows.map(|rows| Shown {
            rows,
            pending,
            letters,
        });
        match shown.and_then(|shown| self.history.resolve(&shown)) {
            Ok(resolved) => {
                self.check_losses();
                self.found
                    .count("uncertain and there", resolved.there as u64);
                self.found.count("uncertain and gone", resolved.gone as u64);
                self.found
                    .count("acknowledgements undone", resolved.undone as u64);
            }
            Err(broken) => panic!("{broken}\n{:#?}", self.found.broken),
        }
    }

    fn shown_by_store(&mut self, db: &Db) -> ShownHints {
        let config = config(&self.dir, self.durability);
        let store = Store::open_in(db, &config, Box::new(|_| {})).unwrap();
        let mut shown = ShownHints::new();
        for (node, queues) in store.nodes() {
            let queues = queues.queues.iter();
            let hints = queues.flat_map(|it| {
                (it.cursor.next.0..=it.watermark.0).map(|sequence| (it.at.queue, sequence))
            });
            shown.insert(node.0, hints.collect());
        }
        self.found.expect_ok("close", store.close());
        shown
    }

    /// What is left comes to an end, all of it as it was handed in.
    pub fn take_everything(&mut self) {
        self.sync();
        for node in MANUAL {
            while !self.history.now.node(node).pending.is_empty() {
                self.consume(node, usize::MAX, usize::MAX);
                self.check();
            }
        }
        for node in REPLAYED {
            self.deliver(node, &[Reply::Take; 1000]);
        }
        self.check();
        self.reopen(&[], true);
        self.check();
        let left: BTreeMap<_, _> = self.history.now.nodes.iter().collect();
        assert!(left.values().all(|node| node.pending.is_empty()));
    }
}
