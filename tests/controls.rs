//! What each safeguard is for: a promise that holds with it, and is seen broken without it.
//!
//! Method: each scenario runs in a child process, once as the store is, and once with one safeguard
//! switched off. Both ways must come out as said: a scenario that passes without the safeguard
//! would show nothing. Safeguards that only a power cut or hours can tell have their controls in
//! `crash_power_cut` and `soak`; the free-space reserve has its own in `disk_full`.

mod common;
mod crash;

use std::{
    fs,
    ops::ControlFlow,
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use common::{
    copy::{copy_files, copy_of},
    hosting, *,
};
use hinted_handoff::{
    Config, Health, HintId, NodeId, OpenError,
    internals::{CommitFault, Store},
};
use hosting::{Host, races};

const NODE: u64 = 2;
/// Longer than any scenario takes that works.
const PATIENCE: Duration = Duration::from_secs(20);

type Held = Result<(), String>;

struct Scenario {
    safeguard: &'static str,
    promise: &'static str,
    run: fn(&Path) -> Held,
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        safeguard: "GroupCommits",
        promise: "what was answered outlives the process",
        run: killed_after_the_answer,
    },
    Scenario {
        safeguard: "LargeSegments",
        promise: "no page becomes a blob",
        run: full_pages,
    },
    Scenario {
        safeguard: "Chunks",
        promise: "no hint becomes a blob",
        run: large_hint,
    },
    Scenario {
        safeguard: "TornSnapshots,StaleSnapshots",
        promise: "a snapshot torn by a power cut is no obstacle",
        run: torn_snapshot,
    },
    Scenario {
        safeguard: "StaleSnapshots",
        promise: "a snapshot that tells of more than the log has is no obstacle",
        run: |dir| stale_snapshot(dir, 20),
    },
    Scenario {
        safeguard: "StaleSnapshots",
        promise: "a snapshot that is ahead of the log by segments is no obstacle",
        run: |dir| stale_snapshot(dir, 500_000),
    },
    Scenario {
        safeguard: "Anchors",
        promise: "what was answered is where the next open looks for it",
        run: moved_away,
    },
    Scenario {
        safeguard: "Watchdog",
        promise: "nobody waits for a commit that hangs",
        run: hung_commit,
    },
    Scenario {
        safeguard: "Reopening",
        promise: "a store that failed once serves again by itself",
        run: failed_once,
    },
    Scenario {
        safeguard: "Checksums",
        promise: "no hint comes with bytes that were not written",
        run: changed_payload,
    },
    Scenario {
        safeguard: "Clean",
        promise: "hints that are missing at the end of a closed store are noticed",
        run: missing_tail,
    },
    Scenario {
        safeguard: "LogScan",
        promise: "damage costs what it hits and nothing behind it",
        run: damaged_tail,
    },
    Scenario {
        safeguard: "NewQueues",
        promise: "no id is given out twice, whatever the disk lost",
        run: lost_group,
    },
    Scenario {
        safeguard: "Validation",
        promise: "no transaction undoes what another has done",
        run: |dir| race(dir, races::lost_update),
    },
    Scenario {
        safeguard: "Validation",
        promise: "no two transactions decide by what the other changes",
        run: |dir| race(dir, races::write_skew),
    },
    Scenario {
        safeguard: "Validation",
        promise: "what a transaction reads is of one moment",
        run: |dir| race(dir, races::reads_of_two_moments),
    },
    Scenario {
        safeguard: "CopyCommits",
        promise: "a copy is on the disk before the store goes on with it",
        run: killed_with_a_new_generation,
    },
    Scenario {
        safeguard: "OpeningCount",
        promise: "a store whose opening kills the process is not tried for ever",
        run: deadly_open,
    },
];

fn filled(dir: &Path, hints: u64) -> Vec<HintId> {
    let store = open(dir);
    let ids = (1..=hints).map(|number| append(&store, NODE, format!("hint-{number}-of-many")));
    let ids = ids.collect();
    store.close().unwrap();
    ids
}

fn must(holds: bool, otherwise: impl Into<String>) -> Held {
    holds.then_some(()).ok_or_else(|| otherwise.into())
}

/// A copy of the files is what a killed process leaves.
fn killed_after_the_answer(dir: &Path) -> Held {
    let left = dir.with_extension("left");
    let store = open(dir);
    for number in 0..20 {
        append(&store, NODE, noise(500, number));
    }
    copy_files(dir, &left);
    let found = hints(&open(&left), NODE).len();
    must(
        found == 20,
        format!("{found} of 20 answered hints are there"),
    )
}

fn blobs(dir: &Path) -> Held {
    let blobs = fs::read_dir(generation(dir).join("blobs"));
    let blobs = blobs.map_err(|error| error.to_string())?.count();
    must(blobs == 0, format!("{blobs} blobs"))
}

fn full_pages(dir: &Path) -> Held {
    let store = open(dir);
    // Between padding keys a leaf has few chunks, unless they are of one hint.
    for number in 0..6 {
        append(&store, NODE, noise(1 << 20, number));
    }
    store.close().unwrap();
    blobs(dir)
}

fn large_hint(dir: &Path) -> Held {
    let store = open(dir);
    append(&store, NODE, noise(6 << 20, 1));
    store.close().unwrap();
    blobs(dir)
}

fn torn_snapshot(dir: &Path) -> Held {
    filled(dir, 3);
    // Otherwise a store that was closed cleanly would be rebuilt.
    fs::remove_file(generation(dir).join("CLEAN")).unwrap();
    fs::write(
        generation(dir).join("snap.0000000000FFFFFF.generating"),
        noise(50, 1),
    )
    .unwrap();
    match Store::open(&config(dir), Box::new(|_| {})) {
        Ok(store) => must(hints(&store, NODE).len() == 3, "hints are missing"),
        Err(error) => Err(error.to_string()),
    }
}

/// sled's snapshot is on the disk, and of the log that it was made from only what had been there
/// before.
fn stale_snapshot(dir: &Path, payload_bytes: usize) -> Held {
    const HINTS: u64 = 20;
    let store = open(dir);
    let fill = || {
        for number in 0..HINTS {
            append(&store, NODE, noise(payload_bytes, number));
        }
    };
    fill();
    let durable = copy_of(dir);
    fill();
    let found = copy_of(dir);
    behind_its_back(found.path(), |_| {});
    let files = fs::read_dir(generation(found.path())).unwrap();
    for file in files.map(Result::unwrap) {
        let name = file.file_name();
        if name.to_string_lossy().starts_with("snap.") {
            fs::copy(file.path(), generation(durable.path()).join(name)).unwrap();
        }
    }
    match Store::open(&config(durable.path()), Box::new(|_| {})) {
        Ok(store) => {
            let found = hints(&store, NODE).len() as u64;
            let damage = store.stats().damage;
            must(
                found == HINTS && damage.len() == 1,
                format!("{found} of {HINTS} hints are there, told: {damage:?}"),
            )
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Somebody renames the directory of an open store.
fn moved_away(dir: &Path) -> Held {
    let store = open(dir);
    fs::rename(dir, dir.with_extension("moved")).unwrap();
    let answers = try_append(&store, NODE, vec![hint(1, "a hint")]);
    let answered = answers.iter().filter(|it| it.is_ok()).count();
    drop(store);
    let found = hints(&open(dir), NODE).len();
    must(
        found == answered,
        format!("{found} of {answered} answered hints are there"),
    )
}

fn hung_commit(dir: &Path) -> Held {
    let config = Config {
        commit_timeout: Duration::from_secs(1),
        ..config(dir)
    };
    let store = Store::open(&config, Box::new(|_| {})).unwrap();
    store.inject(CommitFault::Hang);
    let (tell, told) = mpsc::channel();
    let done = Box::new(move |result| drop(tell.send(result)));
    store.append(NodeId(NODE), hint(1, "waits"), done);
    let answer = told.recv_timeout(Duration::from_secs(5));
    // Its thread hangs for good, so nothing may wait for it.
    std::mem::forget(store);
    match answer {
        Ok(Err(_unknown)) => Ok(()),
        Ok(Ok(id)) => Err(format!("answered by {id}")),
        Err(_) => Err("no answer".to_owned()),
    }
}

fn failed_once(dir: &Path) -> Held {
    let store = open(dir);
    store.inject(CommitFault::Fail);
    let failed = try_append(&store, NODE, vec![hint(1, "fails")]).remove(0);
    must(failed.is_err(), "the injected error was not met")?;
    store.inject(CommitFault::None);
    let started = Instant::now();
    while !matches!(store.health(), Health::Serving) {
        must(
            started.elapsed() < Duration::from_secs(5),
            "it stays failed",
        )?;
        thread::sleep(Duration::from_millis(10));
    }
    append(&store, NODE, "works");
    Ok(())
}

fn changed_payload(dir: &Path) -> Held {
    filled(dir, 1);
    changed_for_good(dir, |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        let key = chunk_keys(&hints, NODE).remove(0);
        let mut value = hints.get(&key).unwrap().unwrap().to_vec();
        let last = value.len() - 1;
        value[last] ^= 1;
        hints.insert(key, value).unwrap();
    });
    match peek(&open(dir), NODE) {
        hinted_handoff::internals::Peek::Damaged(_) => Ok(()),
        other => Err(format!("the store gave {other:?}")),
    }
}

fn missing_tail(dir: &Path) -> Held {
    filled(dir, 5);
    changed_for_good(dir, |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        let key = chunk_keys(&hints, NODE).pop().unwrap();
        hints.remove(key).unwrap();
    });
    let store = open(dir);
    let (_, queues) = store.nodes().remove(0);
    let pending = queues.pending().hints;
    must(
        pending == 5,
        format!("{pending} of 5 are said to be pending"),
    )
}

fn damaged_tail(dir: &Path) -> Held {
    filled(dir, 9);
    must(destroy(dir, b"hint-3-of-many") > 0, "no place found")?;
    let store = open(dir);
    let mut came = hints(&store, NODE).len();
    let last = hints(&store, NODE).pop().map(|it| it.mark);
    let leave = hinted_handoff::internals::Leave::Delivered;
    store
        .ack(NodeId(NODE), last.ok_or("nothing came")?, leave)
        .unwrap();
    scrub(&store, NODE);
    came += hints(&store, NODE).len();
    must(came == 8, format!("{came} of 9 came, one was damaged"))
}

fn race(dir: &Path, run: fn(&Host) -> Held) -> Held {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    run(&runtime.block_on(Host::open(dir)))
}

/// The disk lost the last group, which was answered: what it holds is a copy from before.
fn lost_group(dir: &Path) -> Held {
    let before = dir.with_extension("before");
    let store = open(dir);
    append(&store, NODE, "kept");
    copy_files(dir, &before);
    let given = append(&store, NODE, "answered, and then lost");
    let next = append(&open(&before), NODE, "after the loss");
    must(next != given, format!("{next} was given out twice"))
}

fn killed_with_a_new_generation(dir: &Path) -> Held {
    let mut child = itself("compact", dir)
        .env("HH_FAILPOINT", "compact: named/abort/1")
        .spawn()
        .unwrap();
    must(!wait(&mut child)?, "it was not compacted")?;
    let store = Store::open(&config(dir), Box::new(|_| {})).map_err(|it| it.to_string())?;
    let found = hints(&store, NODE).len();
    must(
        found == 20,
        format!("{found} of 20 answered hints are there"),
    )
}

fn compacts_itself(dir: &Path) -> Held {
    let store = open(dir);
    for number in 0..20 {
        append(&store, NODE, noise(500, number));
    }
    store.compact_eagerly(true);
    loop {
        thread::sleep(Duration::from_millis(10));
    }
}

fn deadly_open(dir: &Path) -> Held {
    filled(dir, 1);
    for attempt in 1..=6 {
        let mut child = itself("open", dir)
            .env("HH_FAILPOINT", "open: engine open/abort/1")
            .spawn()
            .unwrap();
        let ended = wait(&mut child)?;
        if attempt == 6 {
            return must(ended, "the sixth attempt died like the first");
        }
    }
    Ok(())
}

/// What `deadly_open` runs: passes if the store is refused.
fn refuses_to_open(dir: &Path) -> Held {
    match Store::open(&config(dir), Box::new(|_| {})).err() {
        Some(OpenError::Unopenable { .. }) => Ok(()),
        other => Err(format!("it came to {other:?}")),
    }
}

fn itself(scenario: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", scenario]).arg(dir);
    command.env("RUST_BACKTRACE", "0").stderr(Stdio::null());
    command
}

/// Whether the child said that the promise held. A child that hangs or dies did not.
fn wait(child: &mut Child) -> Result<bool, String> {
    let started = Instant::now();
    loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => return Ok(status.success()),
            None if started.elapsed() > PATIENCE => {
                let _ = child.kill();
                let _ = child.wait();
                return Ok(false);
            }
            None => thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn as_child() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [word, name, dir] = arguments.as_slice() else {
        return None;
    };
    let known = SCENARIOS.iter().find(|it| it.promise == name);
    let run = match known {
        Some(scenario) => scenario.run,
        None if name == "compact" => compacts_itself,
        None => refuses_to_open,
    };
    if word != "child" {
        return None;
    }
    Some(match run(Path::new(dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(broken) => {
            println!("    {name}: {broken}");
            ExitCode::FAILURE
        }
    })
}

/// Whether the promise holds, with the safeguard on or off.
fn holds(scenario: &Scenario, on: bool) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let mut command = itself(scenario.promise, &dir.path().join("store"));
    if !on {
        command.env("HH_SWITCHED_OFF", scenario.safeguard);
    }
    wait(&mut command.spawn().unwrap()).unwrap()
}

fn main() -> ExitCode {
    if let Some(code) = as_child() {
        return code;
    }
    let passed = AtomicU64::new(0);
    crash::side_by_side(SCENARIOS.len() as u64, |number| {
        let scenario = &SCENARIOS[number as usize];
        let (with, without) = (holds(scenario, true), holds(scenario, false));
        println!(
            "{}: {}: {} with it, {} without",
            scenario.safeguard,
            scenario.promise,
            if with { "held" } else { "BROKEN" },
            if without { "HELD" } else { "broken" },
        );
        passed.fetch_add(u64::from(with && !without), Relaxed);
        ControlFlow::Continue(())
    });
    let passed = passed.into_inner();
    crash::closing(passed, SCENARIOS.len() as u64 - passed)
}
