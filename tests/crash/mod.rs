//! What the crash suites share: the child's command line, a series of lives on one store, and the
//! verdict.

#![allow(dead_code)]

mod side_by_side;

use std::{
    fmt::Debug,
    fs, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use hinted_handoff::{Config, Durability};
use hinted_handoff_testkit::{
    Counts, CrashLoop, Ended, Manner, PowerCut, Stop, TransactionalWorkload, Workload,
};

pub use side_by_side::side_by_side;

/// Nothing told for so long is a hang. Generous: it only ever ends a run that is lost.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// By then a small store is open, if nothing else is known.
const OPENING: Duration = Duration::from_millis(25);

/// Which host the children are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// One whose hints have a store of their own.
    Plain,
    /// One that shares its database with them.
    Sharing(Manner),
}

const HOSTS: [Host; 4] = [
    Host::Plain,
    Host::Sharing(Manner::Transactions),
    Host::Sharing(Manner::TwoSteps),
    Host::Sharing(Manner::DirectRows),
];

/// Settings of a series of lives on one store.
#[derive(Debug, Clone, Copy)]
pub struct Series {
    pub host: Host,
    pub seed: u64,
    pub lives: u64,
    pub durability: Durability,
    pub payload_bytes_max: usize,
    /// See `Workload`.
    pub syncs_percent: u8,
    /// Safeguards that a control switches off.
    pub switched_off: &'static str,
    pub removals_percent: u8,
    /// Of a hundred stops, how many come while the store is opening or just open.
    pub while_opening_percent: u64,
    /// Whether the store is compacted all the time.
    pub compacts: bool,
    /// Longest time to let the other lives go on.
    pub life_ms_max: u64,
}

impl Series {
    /// By turns in both durabilities, with small hints and large ones, and most of them with
    /// compactions.
    pub fn by_turns(seed: u64, number: u64, lives: u64) -> Self {
        Series {
            host: Host::Plain,
            seed,
            lives,
            durability: [Durability::Sync, Durability::Buffered][number as usize % 2],
            payload_bytes_max: [20_000, 1 << 20][(number as usize / 2) % 2],
            syncs_percent: 60,
            switched_off: "",
            removals_percent: 3,
            while_opening_percent: 50,
            compacts: !number.is_multiple_of(3),
            life_ms_max: 400,
        }
    }
}

/// What a life of a host is configured as.
pub fn config(dir: &str, durability: Durability) -> Config {
    Config {
        durability,
        retry_interval: Duration::from_millis(2),
        retry_max_interval: Duration::from_millis(10),
        min_free_disk: 0,
        // None of them makes room for another.
        max_dead_letters: u64::MAX,
        max_dead_letter_bytes: u64::MAX,
        ..Config::new(dir)
    }
}

/// If this process is a child, does its work. Call it first.
pub fn as_child() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [
        role,
        host,
        dir,
        seed,
        first_number,
        durability,
        payload_bytes_max,
        drain,
        syncs_percent,
        removals_percent,
    ] = arguments.as_slice()
    else {
        return None;
    };
    if role != "child" {
        return None;
    }
    let number = |text: &String| text.parse::<u64>().unwrap();
    let config = config(
        dir,
        match durability.as_str() {
            "Sync" => Durability::Sync,
            _ => Durability::Buffered,
        },
    );
    let (drain, syncs_percent) = (drain == "true", number(syncs_percent) as u8);
    let host = HOSTS.into_iter().find(|it| format!("{it:?}") == *host);
    if let Host::Sharing(manner) = host.unwrap() {
        let workload = TransactionalWorkload {
            config,
            seed: number(seed),
            first_number: number(first_number),
            drain,
            work_for: Duration::from_millis(400),
            syncs_percent,
            manner,
        };
        return Some(workload.run());
    }
    let workload = Workload {
        config,
        seed: number(seed),
        first_number: number(first_number),
        nodes: 3,
        payload_bytes_max: number(payload_bytes_max) as usize,
        drain,
        work_for: Duration::from_millis(300),
        syncs_percent,
        removals_percent: number(removals_percent) as u8,
    };
    Some(workload.run())
}

pub fn child(store: &Path, series: &Series, life: u64, drain: bool) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let host = format!("{:?}", series.host);
    command.arg("child").arg(host).arg(store).args([
        (series.seed ^ (life << 32)).to_string(),
        (life * 1_000_000).to_string(),
        format!("{:?}", series.durability),
        series.payload_bytes_max.to_string(),
        drain.to_string(),
        series.syncs_percent.to_string(),
        series.removals_percent.to_string(),
    ]);
    command.env("RUST_BACKTRACE", "0");
    if life % 2 == 1 {
        // By turns hints of WAL records are flushed all the time, and left for the next open.
        command.env("HH_FLUSH_FROM_BYTES", "16384");
    }
    if series.compacts {
        command.env("HH_COMPACTION", "eager");
    }
    if !series.switched_off.is_empty() {
        command.env("HH_SWITCHED_OFF", series.switched_off);
    }
    command
}

/// Lives that are stopped at random moments, then one that delivers all that is left. `Err` says
/// what is broken.
pub fn run<S: Stop>(stop: S, store: &Path, log: PathBuf, series: Series) -> Result<Counts, String> {
    let mut random = fastrand::Rng::with_seed(series.seed);
    let mut crash_loop = CrashLoop::new(stop, log.clone());
    let broken = |what: String| {
        let said = fs::read_to_string(&log).unwrap_or_default();
        let said: Vec<_> = said
            .lines()
            .filter(|line| !line.contains("panicked"))
            .collect();
        let tail = said.len().saturating_sub(15);
        format!(
            "{series:?}\n  {what}\n  children said last:\n  {}",
            said[tail..].join("\n  ")
        )
    };
    for life in 0..=series.lives {
        // An operator who knows that it was a kill and no crash of ours; the count itself has a
        // test of its own.
        let _ = fs::remove_file(store.join("OPENING"));
        let last = life == series.lives;
        let while_opening = random.u64(..100) < series.while_opening_percent;
        // How long an open takes depends on how busy the machine is, and on how much there is to
        // read.
        let longest = match while_opening {
            true => crash_loop.opened_after.unwrap_or(OPENING).mul_f64(1.25),
            false => Duration::from_millis(series.life_ms_max),
        };
        crash_loop.once_open = !while_opening;
        let after = (!last).then(|| longest.mul_f64(random.f64()));
        let lived = crash_loop.live(&mut child(store, &series, life, last), after, PATIENCE);
        match lived {
            Ok(Ended::Stopped | Ended::Finished) => {}
            Ok(Ended::Failed) => return Err(broken(format!("life {life} ended badly by itself"))),
            Err(hang) if hang.kind() == io::ErrorKind::TimedOut => {
                return Err(broken(format!("life {life}: {hang}")));
            }
            // Nothing that a store does. A control must not take it for what it is to see.
            Err(error) => panic!("life {life}: {error}"),
        }
        if !crash_loop.oracle.violations().is_empty() {
            break;
        }
    }
    let counts = crash_loop.oracle.finish();
    match crash_loop.oracle.violations() {
        [] => Ok(counts),
        violations => Err(broken(violations[..violations.len().min(5)].join("\n  "))),
    }
}

pub fn add(sum: &mut Counts, counts: Counts) {
    sum.lives += counts.lives;
    sum.unopened += counts.unopened;
    sum.closed += counts.closed;
    sum.reopened += counts.reopened;
    sum.tried += counts.tried;
    sum.answered += counts.answered;
    sum.delivered += counts.delivered;
    sum.redelivered += counts.redelivered;
    sum.dead += counts.dead;
    sum.discarded += counts.discarded;
    sum.transactions += counts.transactions;
    sum.aborted += counts.aborted;
    sum.in_effect += counts.in_effect;
    sum.runs_again += counts.runs_again;
    sum.consumed += counts.consumed;
}

/// Runs series, each `lives` long, until `HH_CYCLES` stops (or `usually` so many) are made; says
/// what was seen. `series` is given its seed, its number and its lives. False if anything is
/// broken.
pub fn repeat(
    suite: &str,
    usually: u64,
    lives: u64,
    series: impl Fn(u64, u64, u64) -> Result<Counts, String> + Sync,
) -> bool {
    repeat_until(suite, cycles(usually), lives, add, series)
}

/// [`repeat`] until `wanted` stops are made; `add` adds up what was seen.
pub fn repeat_until<T: Default + Debug + Send>(
    suite: &str,
    wanted: u64,
    lives: u64,
    add: impl Fn(&mut T, T) + Sync,
    series: impl Fn(u64, u64, u64) -> Result<T, String> + Sync,
) -> bool {
    let (stores, seed) = (wanted.div_ceil(lives), seed());
    println!("{suite}: {wanted} stops, HH_SEED={seed}");
    let (sum, failed) = (Mutex::new(T::default()), AtomicBool::new(false));
    side_by_side(stores, |number| {
        let lives = lives.min(wanted - number * lives);
        match series(seed.wrapping_add(number), number, lives) {
            Ok(seen) => {
                add(&mut sum.lock().unwrap(), seen);
                ControlFlow::Continue(())
            }
            Err(broken) => {
                println!("FAILED: {broken}");
                failed.store(true, Relaxed);
                ControlFlow::Break(())
            }
        }
    });
    let (sum, sound) = (sum.into_inner().unwrap(), !failed.into_inner());
    if sound {
        println!("{suite}: {wanted} stops, {stores} stores, 0 violations: {sum:?}");
    }
    sound
}

/// What is broken in one of `series_max` series of a control, which are given their seed and
/// number. `None`, and said so, if the suite sees nothing.
pub fn caught<T>(
    suite: &str,
    control: &str,
    series_max: u64,
    series: impl Fn(u64, u64) -> Result<T, String> + Sync,
) -> Option<String> {
    let seed = seed();
    println!("{suite}, control {control}: HH_SEED={seed}");
    let caught = Mutex::new(None);
    side_by_side(series_max, |number| {
        let Err(broken) = series(seed.wrapping_add(number), number) else {
            return ControlFlow::Continue(());
        };
        *caught.lock().unwrap() = Some((number, broken));
        ControlFlow::Break(())
    });
    match caught.into_inner().unwrap() {
        Some((number, broken)) => {
            println!(
                "control {control}: caught in series {}: {broken}",
                number + 1
            );
            Some(broken)
        }
        None => {
            println!(
                "FAILED: control {control}: nothing was wrong in {series_max} series: the suite \
                 sees nothing"
            );
            None
        }
    }
}

/// The closing line of a suite, and its exit code.
pub fn closing(passed: u64, failed: u64) -> ExitCode {
    println!("{passed} passed, {failed} failed");
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// The closing line of a suite of one part.
pub fn verdict(passed: bool) -> ExitCode {
    closing(passed.into(), (!passed).into())
}

/// Whether power can be cut here. Where it cannot, says so; in CI that is a failure.
pub fn can_cut_power(suite: &str) -> Result<bool, ExitCode> {
    let probe = dirs().and_then(|(dir, _)| PowerCut::new(dir.path(), 512).map(drop));
    let Err(missing) = probe else {
        return Ok(true);
    };
    println!("{suite}: SKIPPED power cuts: {missing}");
    if std::env::var("CI").is_ok_and(|ci| ci == "true") {
        return Err(verdict(false));
    }
    Ok(false)
}

/// `HH_CYCLES`, or what is usual.
pub fn cycles(usually: u64) -> u64 {
    std::env::var("HH_CYCLES").map_or(usually, |text| text.parse().unwrap())
}

/// `HH_SEED` runs a seed again.
pub fn seed() -> u64 {
    std::env::var("HH_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap())
}

/// Creates a directory for a series and its log.
pub fn dirs() -> io::Result<(tempfile::TempDir, PathBuf)> {
    let dir = tempfile::tempdir()?;
    let log = dir.path().join("children.log");
    Ok((dir, log))
}
