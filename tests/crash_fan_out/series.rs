//! A series: lives of coordinators on one store, each stopped at some moment; the process that runs
//! it is the owners.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use hinted_handoff_testkit::Stop;

use crate::{
    coordinator::{NODES, Orders},
    crash::PATIENCE,
    figures::Figures,
    ledger::Ledger,
    owners::{Owners, Times},
    settings::{Series, drawn},
    wire::{Replied, Reply, Told, hear, say},
};

/// Longest time to let a life go on once its store is open.
const LIFE_MS_MAX: u64 = 300;
/// Every so many lives all is drained and judged, and after the last.
const AUDIT_EVERY: u64 = 5;

/// Lives that are stopped at random moments, all of them judged. `Err` says what is broken.
pub fn run<S: Stop>(
    stop: S,
    store: &Path,
    log: PathBuf,
    series: Series,
) -> Result<Figures, String> {
    let mut random = fastrand::Rng::with_seed(series.seed);
    let mut run = Run {
        stop,
        log,
        owners: Owners::new(series.seed, NODES),
        ledger: Ledger::default(),
        times: Times {
            hint_after: Duration::ZERO,
            write_timeout: Duration::ZERO,
        },
        due: BinaryHeap::new(),
        is_open: false,
        settings: Vec::new(),
    };
    let mut figures = Figures::default();
    for life in 1..=series.lives {
        let orders = Orders {
            config: series.config(store, &mut random),
            seed: random.u64(..),
            first: life * 1_000_000,
            audits: false,
        };
        // Now and then it comes to its own end.
        let after = Duration::from_millis(random.u64(1..LIFE_MS_MAX + 60));
        let after = (after.as_millis() as u64 <= LIFE_MS_MAX).then_some(after);
        run.one(&series, &orders, life, after)?;
        if life % AUDIT_EVERY == 0 || life == series.lives {
            let orders = Orders {
                config: series.drained(store),
                seed: 0,
                first: 0,
                audits: true,
            };
            run.one(&series, &orders, life, None)?;
            figures = run.ledger.judge();
        }
        if !run.ledger.violations.is_empty() {
            return Err(run.broken(&series, "the ledger is not as it should be"));
        }
    }
    Ok(figures)
}

struct Run<S> {
    stop: S,
    log: PathBuf,
    owners: Owners,
    ledger: Ledger,
    times: Times,
    /// Answers that are not due yet: when, to which call, and what.
    due: BinaryHeap<Reverse<(Instant, u64, u8)>>,
    is_open: bool,
    /// Those of each life, to be told with what is broken.
    settings: Vec<String>,
}

/// Replies by their place, so that a heap can order them.
const REPLIES: [Reply; 4] = [Reply::Take, Reply::Retry, Reply::Reject, Reply::Obsolete];

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Stopped,
    ByItself,
}

impl<S: Stop> Run<S> {
    fn broken(&self, series: &Series, what: &str) -> String {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let said: Vec<_> = said.lines().collect();
        let violations = &self.ledger.violations;
        format!(
            "{series:?}\n  {what}; lives:\n  {}\n  {} violations:\n  {}\n  coordinators said last:\n  {}",
            self.settings.join("\n  "),
            violations.len(),
            violations[..violations.len().min(6)].join("\n  "),
            said[said.len().saturating_sub(10)..].join("\n  ")
        )
    }

    /// One life, stopped so long after its store is open, unless it ends before.
    fn one(
        &mut self,
        series: &Series,
        orders: &Orders,
        life: u64,
        after: Option<Duration>,
    ) -> Result<(), String> {
        // An operator who knows that it was a kill and no crash of ours.
        let _ = fs::remove_file(orders.config.dir.join("OPENING"));
        self.ledger.life_begins(&orders.config, orders.audits);
        self.settings.push(match orders.audits {
            true => "an audit".to_owned(),
            false => drawn(&orders.config),
        });
        self.owners.are_well = orders.audits;
        self.times = Times {
            hint_after: orders.config.hint_after,
            write_timeout: orders.config.write_timeout,
        };
        self.due.clear();
        self.is_open = false;
        let log = File::options().create(true).append(true).open(&self.log);
        let mut child = series
            .command(orders, life)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            while let Some(what) = hear::<Told>(&mut stdout) {
                if tell.send((Instant::now(), what)).is_err() {
                    return;
                }
            }
        });
        let ended = self.watch(&mut child, &mut stdin, &told, after);
        if ended.is_err() {
            // Never leave one behind.
            let _ = child.kill();
        }
        let status = child.wait().unwrap();
        // What it said before it died is true. But with the power being cut nobody would have heard
        // an answer.
        let is_cut = matches!(ended, Ok(Ended::Stopped)) && !self.stop.last_words_count();
        let last_words: Vec<_> = told.iter().collect();
        for (at, what) in last_words {
            if !(is_cut && matches!(what, Told::Answered { .. })) {
                self.see(at, what, None);
            }
        }
        let ended = ended.map_err(|what| self.broken(series, &what))?;
        self.stop.recover().unwrap();
        if ended == Ended::ByItself && !status.success() {
            return Err(self.broken(series, "a life ended badly by itself"));
        }
        Ok(())
    }

    fn watch(
        &mut self,
        child: &mut Child,
        stdin: &mut ChildStdin,
        told: &Receiver<(Instant, Told)>,
        after: Option<Duration>,
    ) -> Result<Ended, String> {
        let began = Instant::now();
        let mut stop_at = None;
        loop {
            let now = Instant::now();
            self.reply_due(now, stdin);
            if self.is_open && stop_at.is_none() {
                stop_at = after.map(|after| now + after);
            }
            if stop_at.is_some_and(|at| now >= at) {
                let before: Vec<_> = told.try_iter().collect();
                for (at, what) in before {
                    self.see(at, what, Some(stdin));
                }
                self.ledger.stopped(Instant::now());
                self.stop.stop(child).map_err(|error| error.to_string())?;
                return Ok(Ended::Stopped);
            }
            if now.duration_since(began) > PATIENCE {
                return Err(format!("a life has no end after {PATIENCE:?}"));
            }
            let moments = [stop_at, self.due.peek().map(|Reverse((at, ..))| *at)];
            let next = moments.into_iter().flatten().min();
            let wait = next.map_or(PATIENCE, |at| at.saturating_duration_since(now));
            match told.recv_timeout(wait.min(Duration::from_millis(100))) {
                Ok((at, what)) => self.see(at, what, Some(stdin)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(Ended::ByItself),
            }
        }
    }

    fn reply_due(&mut self, now: Instant, stdin: &mut ChildStdin) {
        while let Some(Reverse((at, call, reply))) = self.due.peek().copied() {
            if at > now {
                return;
            }
            self.due.pop();
            let reply = REPLIES[reply as usize];
            // It may have died.
            let _ = say(stdin, &Replied { call, reply });
        }
    }

    /// Answers a call now or later. A coordinator that died is answered no more.
    fn reply(&mut self, call: u64, after: Duration, reply: Reply, stdin: Option<&mut ChildStdin>) {
        match REPLIES.iter().position(|it| *it == reply) {
            Some(index) if !after.is_zero() => {
                let due = (Instant::now() + after, call, index as u8);
                self.due.push(Reverse(due));
            }
            _ => {
                if let Some(stdin) = stdin {
                    let _ = say(stdin, &Replied { call, reply });
                }
            }
        }
    }

    fn see(&mut self, at: Instant, what: Told, stdin: Option<&mut ChildStdin>) {
        match what {
            Told::Opened => {
                self.is_open = true;
                self.ledger.opened(at);
            }
            Told::Alive => self.ledger.alive(at),
            Told::Tried { number, shard } => self.ledger.tried(number, shard, at),
            Told::Answered { number, is_ok } => self.ledger.answered(number, is_ok, at),
            Told::Ping { call, node } => {
                if let Some((after, reply)) = self.owners.ping(node) {
                    self.reply(call, after, reply, stdin);
                }
            }
            Told::Send {
                call,
                node,
                shard,
                copies,
            } => {
                let numbers = self.ledger.came(node, shard, &copies);
                let decision = self.owners.decide(node, shard, &numbers, self.times);
                self.ledger
                    .taken(node, shard, &copies, &numbers, decision.takes);
                if let Some((after, reply)) = decision.reply {
                    if reply == Reply::Obsolete {
                        self.ledger.gone(node, &numbers);
                    }
                    self.reply(call, after, reply, stdin);
                }
            }
            Told::Letter { node, points } => self.ledger.letter(node, &points),
            Told::Lost {
                node,
                shard,
                reason,
                hints,
            } => self.ledger.lost(node, shard, reason, hints),
            Told::Audited | Told::Closed => {}
        }
    }
}
