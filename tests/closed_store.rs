//! A look at a store that a kill or a power cut has stopped, held against what an open finds.
//!
//! Goal: a sound store is never blamed, whatever stopped it, nothing of it changes by the look, and
//! what is read of it is what an open of a copy gives: the same hints with the same ids and bytes,
//! in the same order, and the same dead letters. Method: the crash loop of `crash_kill` and, as
//! root, of `crash_power_cut`; between each two lives the store is looked at, and a copy opened.
//! `HH_CYCLES` is the number of stops of each kind, `HH_SEED` runs a seed again.

mod common;
mod crash;

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    fs,
    hash::{Hash, Hasher},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, ExitCode},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use common::letters;
use hinted_handoff::{
    DirectoryProblem, OpenError,
    internals::{Hint, Leave, Peek, Place, Store},
    offline::{ClosedHint, ClosedStore, DeadCause, Selection, Severity, verify},
};
use hinted_handoff_testkit::{Counts, Kill, PowerCut, Stop};

/// What was seen: stores that were looked at, hints and dead letters that were compared, stores
/// whose log had more behind its end, and stops at which there was no store yet.
static LOOKED: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];
const STORES: usize = 0;
const HINTS: usize = 1;
const LETTERS: usize = 2;
const TORN: usize = 3;
const NO_STORE: usize = 4;

fn main() -> ExitCode {
    if let Some(code) = crash::as_child() {
        return code;
    }
    let kills = crash::repeat("closed_store, kills", 40, 10, |seed, number, lives| {
        let (dir, _) = crash::dirs().map_err(|error| error.to_string())?;
        let stop = Kill;
        let store = dir.path().join("store");
        look_while(stop, &store, dir.path(), seed, number, lives)
    });
    let kills = kills && has_seen("kills");
    let cuts = match crash::can_cut_power("closed_store") {
        Ok(true) => {
            let cuts = crash::repeat("closed_store, power cuts", 20, 10, |seed, number, lives| {
                let (dir, _) = crash::dirs().map_err(|error| error.to_string())?;
                let stop = PowerCut::new(dir.path(), 512).map_err(|error| error.to_string())?;
                let store = stop.path().join("store");
                look_while(stop, &store, dir.path(), seed, number, lives)
            });
            cuts && has_seen("power cuts")
        }
        Ok(false) => true,
        Err(code) => return code,
    };
    crash::verdict(kills && cuts)
}

/// Whether what is promised was put to the test at all. How many logs are torn depends on how busy
/// the machine is, so none is demanded here: the test of `engine/log_tree.rs` tears them by hand.
fn has_seen(stops: &str) -> bool {
    let seen = LOOKED.each_ref().map(|it| it.swap(0, Relaxed));
    println!(
        "after {stops}: {} stores looked at, {} hints and {} dead letters compared, {} torn logs, \
         {} stops without a store, 0 blamed",
        seen[STORES], seen[HINTS], seen[LETTERS], seen[TORN], seen[NO_STORE]
    );
    let has_seen = [STORES, HINTS, LETTERS].iter().all(|it| seen[*it] > 0);
    if !has_seen {
        println!("FAILED: after {stops}: too little was seen to tell anything");
    }
    has_seen
}

fn look_while<S: Stop>(
    stop: S,
    store: &Path,
    aside: &Path,
    seed: u64,
    number: u64,
    lives: u64,
) -> Result<Counts, String> {
    let series = crash::Series::by_turns(seed, number, lives);
    let looked = Looked {
        stop,
        store: store.to_owned(),
        copy: aside.join("copy"),
    };
    crash::run(looked, store, aside.join("children.log"), series)
}

/// Stops as another does, and looks at what is left.
struct Looked<S> {
    stop: S,
    store: PathBuf,
    copy: PathBuf,
}

impl<S: Stop> Stop for Looked<S> {
    fn stop(&mut self, child: &mut Child) -> io::Result<()> {
        self.stop.stop(child)
    }

    fn last_words_count(&self) -> bool {
        self.stop.last_words_count()
    }

    fn recover(&mut self) -> io::Result<()> {
        self.stop.recover()?;
        let opened = ClosedStore::open(&self.store).map(drop);
        // A life that was stopped before it had made anything.
        let is_none = matches!(
            &opened,
            Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound
        ) || matches!(
            &opened,
            Err(OpenError::Directory {
                problem: DirectoryProblem::NoStore,
                ..
            })
        );
        if is_none {
            LOOKED[NO_STORE].fetch_add(1, Relaxed);
        } else {
            opened.map_err(io::Error::other)?;
            let looked = look(&self.store, &self.copy);
            let _ = fs::remove_dir_all(&self.copy);
            if let Err(broken) = looked {
                return Err(io::Error::other(broken));
            }
        }
        Ok(())
    }
}

/// Of each node, in order: id and a fingerprint of all else.
type ByNode = BTreeMap<u64, Vec<(u64, u64, u64)>>;

/// What waits in a store, and its dead letters.
#[derive(Default)]
struct Held {
    hints: ByNode,
    letters: ByNode,
}

fn look(dir: &Path, copy: &Path) -> Result<(), String> {
    let before = all_of(dir);
    let verified = verify(dir, |_, _| {}).map_err(|error| error.to_string())?;
    if !verified.is_sound() {
        return Err(format!("blamed: {:?}", verified.findings));
    }
    let is_torn = verified
        .findings
        .iter()
        .any(|it| it.severity == Severity::Unknown);
    let found = read_closed(dir).map_err(|error| error.to_string())?;
    if all_of(dir) != before {
        return Err("a look at the store changed it".to_owned());
    }
    common::copy::copy_files(dir, copy);
    let _ = fs::remove_file(copy.join("OPENING"));
    let expected = read_open(copy);
    compare("hints", &found.hints, &expected.hints)?;
    compare("dead letters", &found.letters, &expected.letters)?;
    let count = |of: &ByNode| of.values().map(Vec::len).sum::<usize>() as u64;
    LOOKED[STORES].fetch_add(1, Relaxed);
    LOOKED[HINTS].fetch_add(count(&expected.hints), Relaxed);
    LOOKED[LETTERS].fetch_add(count(&expected.letters), Relaxed);
    LOOKED[TORN].fetch_add(is_torn.into(), Relaxed);
    Ok(())
}

fn compare(what: &str, found: &ByNode, expected: &ByNode) -> Result<(), String> {
    for node in found.keys().chain(expected.keys()) {
        let of = |all: &ByNode| all.get(node).cloned().unwrap_or_default();
        let (read, there) = (of(found), of(expected));
        if read != there {
            let differs = read
                .iter()
                .zip(&there)
                .position(|(one, other)| one != other);
            return Err(format!(
                "node {node}: {} {what} read, {} are there, the first that differs is {differs:?}",
                read.len(),
                there.len()
            ));
        }
    }
    Ok(())
}

fn fingerprint(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

fn of_closed(hint: &ClosedHint, cause: Option<&DeadCause>) -> (u64, u64, u64) {
    let first = hint.redriven_from.map(|id| (id.queue, id.sequence));
    let print = fingerprint((
        (hint.shard, hint.format, hint.enqueued_unix_ms),
        (hint.lifetime_ms, hint.write, first),
        (&hint.payload, format!("{cause:?}")),
    ));
    (hint.id.queue.0, hint.id.sequence.0, print)
}

fn of_open(place: Place, hint: &Hint, cause: Option<&DeadCause>) -> (u64, u64, u64) {
    let print = fingerprint((
        (hint.shard, hint.format, hint.enqueued_unix_ms),
        (hint.lifetime_ms, hint.write, hint.origin),
        (&hint.payload, format!("{cause:?}")),
    ));
    (place.queue.queue.0, place.sequence.0, print)
}

fn read_closed(dir: &Path) -> Result<Held, Box<dyn std::error::Error>> {
    let store = ClosedStore::open(dir)?;
    let (mut held, mut hints, mut letters) = (Held::default(), 0, 0);
    for hint in store.hints(&Selection::default()) {
        let hint = hint?;
        hints += 1;
        let of_node = held.hints.entry(hint.node.0).or_default();
        of_node.push(of_closed(&hint, None));
    }
    for letter in store.letters(&Selection::default())? {
        let letter = letter?;
        letters += 1;
        let of_node = held.letters.entry(letter.hint.node.0).or_default();
        of_node.push(of_closed(&letter.hint, letter.cause.as_ref()));
    }
    let info = store.info()?;
    if (info.pending.hints, info.dead_letters.hints) != (hints, letters) {
        let text = format!("info says {info:?}, {hints} hints and {letters} letters were read");
        return Err(text.into());
    }
    Ok(held)
}

fn read_open(dir: &Path) -> Held {
    let store: Store = common::open(dir);
    let mut held = Held::default();
    for (node, _) in store.nodes() {
        let of_node = held.letters.entry(node.0).or_default();
        for (place, dead) in letters::letters(&store, node.0) {
            let (_, hint) = letters::letter(&store, node.0, place);
            of_node.push(of_open(place, &hint, Some(&dead.cause)));
        }
        let of_node = held.hints.entry(node.0).or_default();
        loop {
            match common::peek(&store, node.0) {
                Peek::Empty => break,
                Peek::Damaged(place) => panic!("{place:?} is damaged"),
                Peek::Hints(peeked) => {
                    let marked = peeked.iter().map(|it| (it.mark.place(), &it.hint));
                    of_node.extend(marked.map(|(place, hint)| of_open(place, hint, None)));
                    let last = peeked.last().unwrap().mark;
                    store.ack(node, last, Leave::Delivered).unwrap();
                }
            }
        }
    }
    store.close().unwrap();
    held
}

/// Every file with its bytes and when it was changed.
fn all_of(dir: &Path) -> Vec<(PathBuf, (i64, i64), u64)> {
    let (mut files, mut folders) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let about = fs::metadata(&path).unwrap();
            let changed = (about.mtime(), about.mtime_nsec());
            match about.is_dir() {
                true => {
                    files.push((path.clone(), changed, 0));
                    folders.push(path);
                }
                false => {
                    let print = fingerprint(fs::read(&path).unwrap());
                    files.push((path, changed, print));
                }
            }
        }
    }
    files.sort();
    files
}
