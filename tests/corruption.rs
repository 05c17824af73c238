//! Any byte of any file of a cleanly stopped store may be flipped, overwritten, cut off or lost.
//!
//! Goal: full recovery, or a typed error, or a loss report that names the sequence range: never a
//! panic, a hang, a silent gap or a wrong hint. What can't be opened is moved aside whole, and an
//! empty store starts if the caller chose that.
//!
//! Method: a few template stores are made, with known content: blocks of one and of many hints, a
//! hint acknowledged in the middle of a block, a drained queue, a large hint in chunks, a removed
//! node, a second queue after an unclean stop; opened again, and over several segments of the log.
//! A cycle copies one, damages one file at one place, and opens it in a child process. The child
//! appends, takes half of what is there and closes; a second child takes the rest. What they told
//! is held against what was there. The verdict itself is checked first, with lives that break each
//! rule.
//!
//! `HH_CYCLES` is the number of acts of damage, `HH_SEED` runs a seed again, `HH_CYCLE` only one
//! cycle of it.

#[path = "corruption/child.rs"]
mod child;
mod common;
mod crash;
#[path = "corruption/damage.rs"]
mod damage;
#[path = "corruption/offline.rs"]
mod offline;
#[path = "corruption/report.rs"]
mod report;
#[path = "corruption/template.rs"]
mod template;
#[path = "corruption/verdict.rs"]
mod verdict;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use child::Role;
use damage::Damage;
use report::Fact;
use template::{Content, Template};
use verdict::Outcome;

/// A child that has not ended by then hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// More violations than this say no more.
const TOLD_MAX: usize = 20;

fn main() -> ExitCode {
    if let Some(code) = child::as_child() {
        return code;
    }
    let (cycles, seed) = (crash::cycles(150), crash::seed());
    println!("corruption: {cycles} cycles, HH_SEED={seed}");
    println!("the verdict passed {} controls", verdict::check_itself());
    let dir = tempfile::tempdir().unwrap();
    let templates = template::all(dir.path()).unwrap();
    offline::check_sound(&templates, dir.path());
    let run = Run {
        templates,
        seed,
        dir: dir.path(),
        next: AtomicU64::new(0),
        counts: Mutex::default(),
        violations: Mutex::default(),
    };
    let only = std::env::var("HH_CYCLE").map(|text| text.parse().unwrap());
    match only {
        Ok(cycle) => run.cycle_and_count(cycle),
        Err(_) => thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| run.work(cycles));
            }
        }),
    }
    let counts = run.counts.into_inner().unwrap();
    for ((file, outcome), count) in &counts.by_file {
        println!("{count:>7}  {file}: {outcome:?}");
    }
    for ((outcome, is_sound), count) in &counts.by_verify {
        let said = if *is_sound { "sound" } else { "damaged" };
        println!("{count:>7}  {outcome:?}: verify said {said}");
    }
    let violations = run.violations.into_inner().unwrap();
    for violation in &violations {
        println!("FAILED: {violation}");
    }
    println!(
        "corruption: {} damaged, {} violations: {:?}",
        counts.by_file.values().sum::<u64>() + violations.len() as u64,
        violations.len(),
        counts.by_outcome
    );
    if !violations.is_empty() {
        let _kept = dir.keep();
        return crash::verdict(false);
    }
    crash::verdict(true)
}

#[derive(Default)]
struct Counts {
    by_outcome: BTreeMap<Outcome, u64>,
    by_file: BTreeMap<(String, Outcome), u64>,
    /// Whether a look at it before found it sound.
    by_verify: BTreeMap<(Outcome, bool), u64>,
}

/// Queue, first and last.
type LostRange = (u64, u64, u64);

struct Run<'a> {
    templates: Vec<Template>,
    seed: u64,
    dir: &'a Path,
    next: AtomicU64,
    counts: Mutex<Counts>,
    violations: Mutex<Vec<String>>,
}

impl Run<'_> {
    fn work(&self, cycles: u64) {
        while self.violations.lock().unwrap().len() < TOLD_MAX {
            let cycle = self.next.fetch_add(1, Relaxed);
            if cycle >= cycles {
                return;
            }
            self.cycle_and_count(cycle);
        }
    }

    fn cycle_and_count(&self, cycle: u64) {
        let mut random = fastrand::Rng::with_seed(self.seed ^ cycle.wrapping_mul(0x9e37_79b9));
        let template = &self.templates[random.usize(..self.templates.len())];
        let damage = Damage::random(template, &mut random);
        let dir = self.dir.join(format!("cycle-{cycle}"));
        let log = dir.with_extension("stderr");
        match self.cycle(template, &damage, &dir, &log) {
            Ok(outcome) => {
                let mut counts = self.counts.lock().unwrap();
                *counts.by_outcome.entry(outcome.clone()).or_default() += 1;
                let key = (damage.file_name().to_owned(), outcome);
                *counts.by_file.entry(key).or_default() += 1;
            }
            Err(broken) => {
                // A run with the same seed makes the same damage, but the log's layout depends on
                // time too.
                let kept = dir.with_extension("damaged");
                let keeping = template.copy_to(&kept).and_then(|()| damage.apply(&kept));
                let said = fs::read_to_string(&log).unwrap_or_default();
                let text = format!(
                    "HH_SEED={} HH_CYCLE={cycle}, store {:?}, {damage}\n  {}\n  \
                     the damaged store is kept at {} ({keeping:?})\n  stderr:\n{said}",
                    self.seed,
                    template.name,
                    broken[..broken.len().min(8)].join("\n  "),
                    kept.display()
                );
                self.violations.lock().unwrap().push(text);
            }
        }
        let _ = fs::remove_dir_all(&dir);
        let _ = fs::remove_file(&log);
    }

    fn cycle(
        &self,
        template: &Template,
        damage: &Damage,
        dir: &Path,
        log: &Path,
    ) -> Result<Outcome, Vec<String>> {
        let io = |error: io::Error| vec![error.to_string()];
        template.copy_to(dir).map_err(io)?;
        damage.apply(dir).map_err(io)?;
        let checked = offline::verify(dir)?;
        let (outcome, lost) = self.lives(template, damage, dir, log)?;
        checked.hold_against(&outcome, &lost)?;
        let said = (outcome.clone(), checked.is_sound());
        *self
            .counts
            .lock()
            .unwrap()
            .by_verify
            .entry(said)
            .or_default() += 1;
        Ok(outcome)
    }

    fn lives(
        &self,
        template: &Template,
        damage: &Damage,
        dir: &Path,
        log: &Path,
    ) -> Result<(Outcome, Vec<LostRange>), Vec<String>> {
        let first = live(Role::First, dir, log)?;
        if let [Fact::Refused { kind, .. }] = first.as_slice() {
            if kind == "Unopenable" {
                start_empty(&template.content, dir, log)?;
            }
            return Ok((verdict::judge(&template.content, &[first])?, Vec::new()));
        }
        let lives = [first, live(Role::Rest, dir, log)?];
        // Rare, and worth a look: the store opened, and could not be read.
        for (number, life) in lives.iter().enumerate() {
            for failed in life
                .iter()
                .filter(|fact| matches!(fact, Fact::Failed { .. }))
            {
                println!(
                    "note: {:?}, {damage}, life {number}: {failed}",
                    template.name
                );
            }
        }
        let outcome = verdict::judge(&template.content, &lives)?;
        let lost = lives.iter().flatten().filter_map(|fact| match fact {
            Fact::Damage { queue, lost, .. } => lost.map(|(first, last)| (*queue, first, last)),
            _ => None,
        });
        Ok((outcome, lost.collect()))
    }
}

/// One life of a child on the store.
fn live(role: Role, dir: &Path, log: &Path) -> Result<Vec<Fact>, Vec<String>> {
    let said = |text: String| vec![format!("the child {}: {text}", role.name())];
    let told = dir.with_extension("stdout");
    let spawn = || -> io::Result<_> {
        Command::new(std::env::current_exe()?)
            .args(["child", role.name()])
            .arg(dir)
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(File::create(&told)?)
            .stderr(File::options().create(true).append(true).open(log)?)
            .spawn()
    };
    let mut child = spawn().map_err(|error| said(error.to_string()))?;
    let started = Instant::now();
    let status = loop {
        match child.try_wait().map_err(|error| said(error.to_string()))? {
            Some(status) => break status,
            None if started.elapsed() > PATIENCE => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(said(format!("hangs: no end within {PATIENCE:?}")));
            }
            None => thread::sleep(Duration::from_millis(2)),
        }
    };
    let text = fs::read_to_string(&told).map_err(|error| said(error.to_string()))?;
    let _ = fs::remove_file(&told);
    if !status.success() {
        return Err(said(format!("died: {status}, after\n{text}")));
    }
    let facts = text.lines().map(|line| {
        report::parse(line).ok_or_else(|| said(format!("told what is no fact: {line:?}")))
    });
    facts.collect()
}

/// An unopenable store is moved aside whole, and an empty one of another identity takes its place.
fn start_empty(content: &Content, dir: &Path, log: &Path) -> Result<(), Vec<String>> {
    let generation = common::generation(dir);
    let before = files(&generation)?;
    let told = live(Role::StartEmpty, dir, log)?;
    let broken = |text: &str| Err(vec![format!("starting empty: {text}, it told {told:?}")]);
    let aside = told.iter().find_map(|fact| match fact {
        Fact::MovedAside { path } => Some(Path::new(path)),
        _ => None,
    });
    let Some(aside) = aside else {
        return broken("nothing was moved aside");
    };
    let after = files(aside)?;
    // sled writes a new snapshot under another name, and where it begins a log in the place of one
    // that is gone, and gives up, that is copied to a new file: then the marker is done with.
    let may_go = |name: &str| name.starts_with("snap.") || name == "hh-UNSYNCED";
    let kept = |name: &String| after.contains_key(name) || may_go(name);
    if !before.keys().all(kept) || generation.exists() {
        return broken("not all files were moved aside");
    }
    if before.get("CLEAN") != after.get("CLEAN") {
        return broken("CLEAN was changed");
    }
    let fresh = |fact: &Fact| matches!(fact, Fact::Opened { store } if *store != content.store);
    let count = |wanted: fn(&Fact) -> bool| told.iter().filter(|fact| wanted(fact)).count();
    let appended = count(|fact| matches!(fact, Fact::Appended { .. }));
    let delivered = count(|fact| matches!(fact, Fact::Delivered { .. }));
    let all = template::NODES.count();
    let works = (appended, delivered) == (all, all) && told.contains(&Fact::Closed);
    if !told.iter().any(fresh) || !works {
        return broken("the new store does not work");
    }
    Ok(())
}

/// The names of the files in a folder, with the bytes of `CLEAN`.
fn files(dir: &Path) -> Result<BTreeMap<String, Vec<u8>>, Vec<String>> {
    let read = || -> io::Result<_> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let bytes = match name.as_str() {
                "CLEAN" => fs::read(entry.path())?,
                _ => Vec::new(),
            };
            files.insert(name, bytes);
        }
        Ok(files)
    };
    read().map_err(|error| vec![format!("{}: {error}", dir.display())])
}
