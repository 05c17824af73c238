//! Abort, error and panic at every step of opening, migrating, appending, acknowledging, dropping,
//! pausing, parking, renaming, trimming, flushing, committing and closing.
//!
//! Goal and rules as in `crash_kill`. Method: for each point and each way to stop there a store is
//! made, one life is killed (so that there is a closed queue to retire), the next comes to the
//! point the first, the second or the fifth time and stops there, one more is killed, and the last
//! delivers all that is left. An abort ends the process. An error fails the store, which reopens
//! itself. A panic of the engine is final for the process. A point that no life comes to fails the
//! suite. For the steps of a rebuild the first life ends well, and then a segment's header is
//! damaged; for those of a compaction the store is compacted all the time in all lives. `HH_POINT`
//! runs only the points whose names begin so.
//!
//! The points of transactions, and those of committing, appending, acknowledging and closing again,
//! are come to by a host that shares its database with its hints, as in `crash_transactions`. There
//! an error is final for the store: the host drops its database, opens it again, and goes on.

mod crash;

use std::{
    fs::{self, File},
    io,
    ops::ControlFlow,
    os::unix::fs::{DirBuilderExt, FileExt},
    path::Path,
    process::ExitCode,
    sync::Mutex,
    time::{Duration, Instant},
};

use hinted_handoff::{Durability, internals::POINTS};
use hinted_handoff_testkit::{Counts, CrashLoop, Ended, Kill, Manner};

use crash::Host;

const ACTIONS: [&str; 3] = ["abort", "error", "panic"];

/// How often a point that was not met is tried again beside others, and then alone.
const SOME_TRIES: usize = 10;
const MANY_TRIES: usize = 40;

const SHARING: Host = Host::Sharing(Manner::Transactions);

/// Those that can come to the point.
///
/// In a shared database nothing is rebuilt or named, and its workload removes no node, nor does it
/// leave anything to be flushed.
fn hosts(point: &str) -> &'static [Host] {
    let begins = |names: &[&str]| names.iter().any(|name| point.starts_with(name));
    // Come to by `dead_letters`, whose children send on and discard.
    if begins(&["letter: pointer"]) {
        return &[];
    }
    // What a plain host has of these is a hint that leaves with its group.
    if begins(&["letter"]) {
        return &[Host::Plain];
    }
    match begins(&["transaction", "append", "ack", "trim", "commit", "close"]) {
        true => &[Host::Plain, SHARING],
        false => &[Host::Plain],
    }
}

/// Which times the point is come to. A shared database is opened with a commit or two, before
/// anything is begun.
fn times(host: Host, point: &str) -> [u32; 3] {
    match host == SHARING && point.starts_with("commit") {
        true => [7, 12, 30],
        false => [1, 2, 5],
    }
}

/// Whether the point was met, or what is broken.
fn run(
    host: Host,
    point: &str,
    action: &str,
    nth: u32,
    seed: u64,
    sum: &mut Counts,
) -> Result<bool, String> {
    let operates = ["pause", "park", "rename"].iter();
    let operates = operates.copied().any(|it| point.starts_with(it));
    let series = crash::Series {
        host,
        seed,
        lives: 3,
        durability: if nth == 2 {
            Durability::Buffered
        } else {
            Durability::Sync
        },
        payload_bytes_max: 300_000,
        // What is neither a sync nor a removal is an operator's.
        syncs_percent: if operates { 5 } else { 60 },
        switched_off: "",
        while_opening_percent: 0,
        compacts: point.starts_with("compact: "),
        removals_percent: if point.starts_with("drop") { 40 } else { 3 },
        life_ms_max: 0,
    };
    let (dir, log) = crash::dirs().map_err(|error| error.to_string())?;
    let store = dir.path().join("store");
    let mut crash_loop = CrashLoop::new(Kill, log.clone());
    crash_loop.once_open = true;
    // A new store comes to its migration; the others have a past.
    let armed = if point.starts_with("migrate") || point == "open: named" {
        0
    } else {
        1
    };
    if armed == 0 && action == "abort" {
        // What an earlier first open left: it is moved aside, and the stop comes while another
        // takes its place.
        leave_garbage(&store).map_err(|error| error.to_string())?;
    }
    let rebuilds = point.starts_with("rebuild");
    for life in 0..4 {
        let _ = fs::remove_file(store.join("OPENING"));
        if rebuilds && life == armed {
            damage(&store).map_err(|error| error.to_string())?;
        }
        let mut command = crash::child(&store, &series, life, life == 3);
        if life == armed {
            command.env("HH_FAILPOINT", format!("{point}/{action}/{nth}"));
        }
        // An armed life ends by itself: by its stop, or by a clean shutdown some time after it.
        let lives_on = life == armed || life == 3 || (rebuilds && life == 0);
        let kill_after = (!lives_on).then(|| Duration::from_millis(120));
        let ended = crash_loop
            .live(&mut command, kill_after, crash::PATIENCE)
            .map_err(|error| error.to_string())?;
        if ended == Ended::Failed && life != armed {
            return Err(format!(
                "life {life} ended badly: {}",
                fs::read_to_string(&log).unwrap_or_default()
            ));
        }
    }
    crash::add(sum, crash_loop.oracle.finish());
    match crash_loop.oracle.violations() {
        [] => Ok(fs::read_to_string(&log)
            .unwrap_or_default()
            .contains("@failpoint")),
        violations => Err(format!(
            "{}\nstore and what its lives said kept at {}",
            violations.join("\n  "),
            dir.keep().display()
        )),
    }
}

/// A generation that was never named and does not open.
fn leave_garbage(store: &Path) -> io::Result<()> {
    let mut private = fs::DirBuilder::new();
    private.recursive(true).mode(0o700);
    private.create(store.join("gen-000001"))?;
    fs::write(store.join("gen-000001/conf"), [0x5a; 40])
}

/// Flips a bit in the first segment's header, which costs no record.
fn damage(store: &Path) -> io::Result<()> {
    let log = File::options()
        .read(true)
        .write(true)
        .open(store.join("gen-000001/db"))?;
    let mut byte = [0];
    log.read_exact_at(&mut byte, 6)?;
    log.write_all_at(&[byte[0] ^ 1], 6)
}

fn main() -> ExitCode {
    if let Some(code) = crash::as_child() {
        return code;
    }
    let seed = crash::seed();
    println!("failpoints: {} points, HH_SEED={seed}", POINTS.len());
    let only = std::env::var("HH_POINT").ok();
    let points = POINTS.into_iter();
    let points = points.filter(|point| only.as_deref().is_none_or(|only| point.starts_with(only)));
    let started = Instant::now();
    let with_hosts = points.flat_map(|point| hosts(point).iter().map(move |host| (point, *host)));
    let all: Vec<_> = with_hosts
        .flat_map(|(point, host)| ACTIONS.map(|action| (point, host, action)))
        .collect();
    let (done, unmet) = (Mutex::new(Done::default()), Mutex::new(Vec::new()));
    crash::side_by_side(all.len() as u64, |number| {
        let (point, host, action) = all[number as usize];
        let seed = seed.wrapping_add(number << 8);
        if !stop_at((point, host, action), seed, SOME_TRIES, &done) {
            unmet.lock().unwrap().push((point, host, action));
        }
        ControlFlow::Continue(())
    });
    // A life beside others comes to less than one that has the machine to itself.
    for (which, seed) in unmet.into_inner().unwrap().into_iter().zip(seed..) {
        if !stop_at(which, seed, MANY_TRIES, &done) {
            let (point, host, action) = which;
            done.lock().unwrap().failed += 1;
            println!("FAILED: no life of {host:?} came to {point} ({action})");
        }
    }
    let Done { sum, runs, failed } = done.into_inner().unwrap();
    println!(
        "failpoints: {runs} runs in {:.0} s, {failed} failed: {sum:?}",
        started.elapsed().as_secs_f64()
    );
    crash::closing(runs - failed.min(runs), failed)
}

/// What became of all runs.
#[derive(Default)]
struct Done {
    sum: Counts,
    runs: u64,
    failed: u64,
}

/// Runs until a life was stopped at the point; false if none was. What a life comes to is up to
/// chance and to how busy the machine is, so a point that was not met is tried again.
fn stop_at(
    (point, host, action): (&str, Host, &str),
    seed: u64,
    tries: usize,
    done: &Mutex<Done>,
) -> bool {
    let in_turn = times(host, point);
    let wanted = in_turn.into_iter().take(crash::cycles(1).min(3) as usize);
    let mut met = false;
    for (try_nr, nth) in wanted.chain(vec![in_turn[0]; tries]).enumerate() {
        if try_nr > 0 && nth == in_turn[0] && met {
            break;
        }
        let mut seen = Counts::default();
        let ran = run(
            host,
            point,
            action,
            nth,
            seed.wrapping_add(try_nr as u64),
            &mut seen,
        );
        let mut done = done.lock().unwrap();
        crash::add(&mut done.sum, seen);
        done.runs += 1;
        match ran {
            Ok(it) => met |= it,
            Err(broken) => {
                done.failed += 1;
                println!("FAILED: {point}, {host:?}, {action}, time {nth}: {broken}");
            }
        }
    }
    met
}
