//! Goal: an import that is killed at any moment, and run again, has put each point into the store
//! once, whether a relay ran meanwhile or not.
//!
//! Method: this test starts itself again as the importer, kills it with SIGKILL after a random
//! time, `HH_CYCLES` times in a row over one directory, and lets it run to its end at last. Before
//! some of the runs a relay opens the store, and its node takes some of the hints, or all.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    old_queue::{FORMS, OldSegment, body, points},
    program::{Place, import},
    store::{Lines, Node, pending, relay},
};

const CHILD: &str = "HH_IMPORT_ARGUMENTS";

#[test]
#[ignore = "the child of the other tests"]
fn child() {
    let Ok(arguments) = env::var(CHILD) else {
        return;
    };
    println!("\nready");
    let arguments: Vec<&str> = arguments.split('\n').collect();
    assert!(import(&arguments).unwrap());
}

fn start(place: &Place) -> Child {
    let arguments = place
        .arguments(&["--map", "3=2", "--map", "5=4"])
        .join("\n");
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "kill::child", "--ignored", "--nocapture"])
        .env(CHILD, arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut lines = out.lines();
    assert!(lines.any(|line| line.unwrap().ends_with("ready")));
    // Its end must not wait for who reads what it says.
    thread::spawn(move || lines.for_each(drop));
    child
}

/// Small segments of both layouts, and a larger one of each.
fn fill(place: &Place) -> Lines {
    let mut wanted = Lines::new();
    for segment in 1..=8 {
        for (form, (name, shard, node, of)) in FORMS.into_iter().zip([
            (format!("3/{segment}"), 7, 2, "metrics.autogen"),
            (format!("5/8/{segment}"), 8, 4, "rest."),
        ]) {
            let records = if segment == 4 { 150 } else { 5 };
            let record = |at: usize| points(segment * 1000 + at, 6);
            let bodies: Vec<_> = (0..records)
                .map(|at| body(form, shard, &record(at)))
                .collect();
            OldSegment::of(&bodies).write(&place.old.join(name));
            for point in (0..records).flat_map(record) {
                wanted.insert((node, of.to_owned(), point.line()), 1);
            }
        }
    }
    wanted
}

fn journal(place: &Place) -> String {
    let journal = fs::read_to_string(place.store.join("influx-import/journal"));
    journal.unwrap_or_default()
}

/// Whether a line `begin` has no end.
fn is_unsettled(place: &Place) -> bool {
    let journal = journal(place);
    journal.matches("{\"begin\"").count() > journal.matches("{\"end\"").count()
}

/// Waits for the moment to kill the importer: some time after it was started, or shortly after it
/// wrote some lines to its journal.
fn wait(place: &Place, child: &mut Child, usual: Duration, random: &mut fastrand::Rng) {
    if random.u8(0..4) == 0 {
        return thread::sleep(usual.mul_f64(random.f64()));
    }
    let lines = journal(place).lines().count() + random.usize(1..12);
    while journal(place).lines().count() < lines && child.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_micros(200));
    }
    thread::sleep(Duration::from_micros(random.u64(0..8000)));
}

fn kill_and_run_again(is_relay_between: bool) {
    let seed = env::var("HH_SEED").ok().and_then(|it| it.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    let kills: u32 = env::var("HH_CYCLES")
        .ok()
        .and_then(|it| it.parse().ok())
        .unwrap_or(20);
    println!("seed {seed}, {kills} kills");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut killed, mut unsettled, mut partial) = (0, 0, 0);
    let mut usual = Duration::from_millis(300);
    while killed < kills {
        let place = Place::new();
        let wanted = fill(&place);
        let node = Node::default();
        // One directory is imported with some kills: then it is done.
        loop {
            let mut child = start(&place);
            let started = Instant::now();
            wait(&place, &mut child, usual, &mut random);
            child.kill().unwrap();
            let status = child.wait().unwrap();
            if status.success() {
                usual = started.elapsed();
                break;
            }
            assert_eq!(status.code(), None, "it failed by itself");
            killed += 1;
            // Kills count as opens that died, and the sixth in a row would be refused.
            drop(fs::remove_file(place.store.join("OPENING")));
            if is_unsettled(&place) {
                unsettled += 1;
            }
            if is_relay_between && place.store.join("CURRENT").exists() && random.bool() {
                let is_all = random.u8(0..4) == 0;
                let writes = if is_all {
                    usize::MAX
                } else {
                    random.usize(0..60)
                };
                relay(&place.store, &node, writes);
            }
            if killed >= kills && random.bool() {
                break;
            }
        }
        assert!(import(&place.arguments(&["--map", "3=2", "--map", "5=4"])).unwrap());
        let journal = fs::read_to_string(place.store.join("influx-import/journal")).unwrap();
        partial +=
            journal.matches("\"through\":").count() - journal.matches("\"through\":null").count();
        let mut found = pending(&place.store);
        for (line, times) in node.taken.lock().unwrap().0.clone() {
            *found.entry(line).or_default() += times;
        }
        let differs: BTreeMap<_, _> = found.iter().filter(|(_, times)| **times != 1).collect();
        assert!(
            differs.is_empty(),
            "seed {seed}: {} are there twice",
            differs.len()
        );
        assert_eq!(found.len(), wanted.len(), "seed {seed}");
        assert_eq!(found, wanted, "seed {seed}");
    }
    println!(
        "{killed} kills, {unsettled} within a segment, {partial} of these behind some of its hints"
    );
    assert!(kills < 20 || unsettled > 0, "no kill came within a segment");
}

#[test]
fn an_import_that_is_killed_again_and_again_puts_each_point_into_the_store_once() {
    kill_and_run_again(false);
}

#[test]
fn a_relay_that_runs_between_two_imports_changes_nothing_of_that() {
    kill_and_run_again(true);
}
