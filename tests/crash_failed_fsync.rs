//! Power cuts at random moments, on a disk that fails now and then and works again a moment later.
//!
//! Goal and rules as in `crash_kill`. Linux shows what a failed fsync left in memory until the
//! power goes, so what a store answers after it is there only if it does not build on that. Method:
//! the same crash loop, on a `FailingDisk` that fails for some milliseconds several times a life. A
//! life may end badly while the disk fails; the last one has a disk that works, and delivers all
//! that was answered. A control without the copy of the log must be seen to lose answered hints or
//! the whole store. `HH_CYCLES` is the number of cuts, `HH_SEED` runs a seed again.

mod crash;

use std::{
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use hinted_handoff::Durability;
use hinted_handoff_testkit::{Counts, CrashLoop, Ended, FailingDisk, Stop, Workload};
use parking_lot::Mutex;

const LIFE_MS_MAX: u64 = 1_500;
const MEGABYTES: u64 = 256;
/// Series in which the control may be caught before it counts as missed.
const CONTROL_SERIES: u64 = 10;

/// The disk, which a thread breaks; locked over a failure, so that the power is cut on a disk that
/// works.
#[derive(Clone)]
struct Shared(Arc<Mutex<FailingDisk>>);

impl Stop for Shared {
    fn stop(&mut self, child: &mut std::process::Child) -> std::io::Result<()> {
        self.0.lock().stop(child)
    }

    fn last_words_count(&self) -> bool {
        false
    }

    fn recover(&mut self) -> std::io::Result<()> {
        self.0.lock().recover()
    }
}

/// One life of the host, in a process of its own.
fn as_child() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [role, dir, seed, first_number, buffered, drain] = arguments.as_slice() else {
        return None;
    };
    if role != "child" {
        return None;
    }
    let drain = drain == "true";
    let durability = match buffered == "true" {
        true => Durability::Buffered,
        false => Durability::Sync,
    };
    let workload = Workload {
        config: crash::config(dir, durability),
        seed: seed.parse().unwrap(),
        first_number: first_number.parse().unwrap(),
        nodes: 3,
        payload_bytes_max: 20_000,
        drain,
        work_for: Duration::from_millis(LIFE_MS_MAX),
        syncs_percent: 60,
        removals_percent: 3,
    };
    Some(workload.run())
}

/// Lives on one store that end by power cuts, and a last one that delivers. `Err` says what is
/// broken.
fn run(seed: u64, number: u64, lives: u64, switched_off: &str) -> Result<Counts, String> {
    let (dir, log) = crash::dirs().map_err(|error| error.to_string())?;
    let disk = FailingDisk::new(dir.path(), MEGABYTES).map_err(|error| error.to_string())?;
    let store = disk.path().join("store");
    let disk = Shared(Arc::new(Mutex::new(disk)));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut crash_loop = CrashLoop::new(disk.clone(), log.clone());
    crash_loop.once_open = true;
    for life in 0..=lives {
        // An operator who knows that it was the disk, and no crash of ours.
        let _ = std::fs::remove_file(store.join("OPENING"));
        let last = life == lives;
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.arg("child").arg(&store).args([
            (seed ^ (life << 32)).to_string(),
            (life * 1_000_000).to_string(),
            (number % 2 == 1).to_string(),
            last.to_string(),
        ]);
        child.env("RUST_BACKTRACE", "0");
        child.env("HH_SWITCHED_OFF", switched_off);
        if !number.is_multiple_of(3) {
            child.env("HH_COMPACTION", "eager");
        }
        let after = Duration::from_millis(random.u64(LIFE_MS_MAX / 2..LIFE_MS_MAX));
        let over = AtomicBool::new(last);
        let lived = thread::scope(|scope| {
            let (disk, over, random) = (&disk, &over, random.fork());
            scope.spawn(move || break_now_and_then(disk, over, random));
            let lived = crash_loop.live(&mut child, (!last).then_some(after), crash::PATIENCE);
            over.store(true, Relaxed);
            lived
        });
        let broken = match lived {
            Ok(Ended::Failed) if last => "the last life ended badly".to_owned(),
            Ok(_) => continue,
            Err(error) => error.to_string(),
        };
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let said: Vec<_> = said.lines().collect();
        let tail = said[said.len().saturating_sub(8)..].join("\n  ");
        return Err(format!("seed {seed} life {life}: {broken}\n  {tail}"));
    }
    let counts = crash_loop.oracle.finish();
    match crash_loop.oracle.violations() {
        [] => Ok(counts),
        violations => Err(format!(
            "seed {seed}: {}",
            violations[..violations.len().min(5)].join("\n  ")
        )),
    }
}

fn break_now_and_then(disk: &Shared, over: &AtomicBool, mut random: fastrand::Rng) {
    while !over.load(Relaxed) {
        thread::sleep(Duration::from_millis(random.u64(50..400)));
        let disk = disk.0.lock();
        if over.load(Relaxed) {
            return;
        }
        // After a power cut it gives errors until it is mounted again.
        let failed = disk.fail();
        thread::sleep(Duration::from_millis(random.u64(5..60)));
        disk.work_again().unwrap();
        if failed.is_err() {
            return;
        }
    }
}

fn main() -> ExitCode {
    if let Some(code) = as_child() {
        return code;
    }
    let probe = crash::dirs().and_then(|(dir, _)| FailingDisk::new(dir.path(), MEGABYTES));
    if let Err(missing) = probe {
        println!("crash_failed_fsync: SKIPPED: no failing disk: {missing}");
        return crash::closing(
            0,
            u64::from(std::env::var("CI").is_ok_and(|ci| ci == "true")),
        );
    }
    let sound = crash::repeat("crash_failed_fsync", 15, 5, |seed, number, lives| {
        run(seed, number, lives, "")
    });
    if !sound {
        return crash::verdict(false);
    }
    let control = |seed, number| run(seed, number, 3, "LogCopies");
    match crash::caught(
        "crash_failed_fsync",
        "without the copy of the log",
        CONTROL_SERIES,
        control,
    ) {
        Some(_) => crash::closing(2, 0),
        None => crash::closing(1, 1),
    }
}
