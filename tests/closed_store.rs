//! A look at a store that a kill or a power cut has stopped, held against what an open finds.
//!
//! Goal: a sound store is never blamed, whatever stopped it, nothing of it changes by the look, and
//! what is read of it is what an open of a copy gives: the same hints with the same ids and bytes,
//! in the same order, and as many dead letters. Method: the crash loop of `crash_kill` and, as
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

use hinted_handoff::{
    DirectoryProblem, OpenError,
    internals::{Leave, Peek, Store},
    offline::{ClosedStore, Selection, Severity, verify},
};
use hinted_handoff_testkit::{Counts, Kill, PowerCut, Stop};

/// Stores that were looked at, hints that were compared, and stores whose log had more behind its
/// end.
static LOOKED: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

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
    said("kills");
    let cuts = match crash::can_cut_power("closed_store") {
        Ok(true) => crash::repeat("closed_store, power cuts", 20, 10, |seed, number, lives| {
            let (dir, _) = crash::dirs().map_err(|error| error.to_string())?;
            let stop = PowerCut::new(dir.path(), 512).map_err(|error| error.to_string())?;
            let store = stop.path().join("store");
            look_while(stop, &store, dir.path(), seed, number, lives)
        }),
        Ok(false) => true,
        Err(code) => return code,
    };
    said("power cuts");
    crash::verdict(kills && cuts)
}

fn said(stops: &str) {
    let [stores, hints, torn] = LOOKED.each_ref().map(|it| it.swap(0, Relaxed));
    println!(
        "after {stops}: {stores} stores looked at, {hints} hints compared, {torn} torn logs, 0 blamed"
    );
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
        if !is_none {
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

/// A node's hints: id and a fingerprint of all else.
type Hints = BTreeMap<u64, Vec<(u64, u64, u64)>>;

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
    let (found, letters) = read_closed(dir).map_err(|error| error.to_string())?;
    if all_of(dir) != before {
        return Err("a look at the store changed it".to_owned());
    }
    common::copy::copy_files(dir, copy);
    let _ = fs::remove_file(copy.join("OPENING"));
    let (expected, expected_letters) = read_open(copy);
    for (node, hints) in &expected {
        let read = found.get(node).map_or(&[][..], Vec::as_slice);
        if read != hints.as_slice() {
            let differs = read.iter().zip(hints).position(|(one, other)| one != other);
            return Err(format!(
                "node {node}: {} hints read, {} are there, the first that differs is {differs:?}",
                read.len(),
                hints.len()
            ));
        }
    }
    let is_more = found
        .iter()
        .any(|(node, hints)| !hints.is_empty() && !expected.contains_key(node));
    if is_more || letters != expected_letters {
        return Err(format!(
            "{letters} dead letters read of {expected_letters}, {is_more}"
        ));
    }
    let compared: usize = expected.values().map(Vec::len).sum();
    LOOKED[0].fetch_add(1, Relaxed);
    LOOKED[1].fetch_add(compared as u64, Relaxed);
    LOOKED[2].fetch_add(is_torn.into(), Relaxed);
    Ok(())
}

fn fingerprint(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

fn read_closed(dir: &Path) -> Result<(Hints, u64), Box<dyn std::error::Error>> {
    let store = ClosedStore::open(dir)?;
    let mut found = Hints::new();
    for hint in store.hints(&Selection::default()) {
        let hint = hint?;
        let print = fingerprint((
            hint.shard,
            hint.format,
            hint.enqueued_unix_ms,
            hint.lifetime_ms,
            hint.write,
            &hint.payload,
        ));
        let id = (hint.id.queue.0, hint.id.sequence.0, print);
        found.entry(hint.node.0).or_default().push(id);
    }
    let letters = store.letters(&Selection::default())?;
    let mut count = 0;
    for letter in letters {
        count += u64::from(letter?.reads);
    }
    let info = store.info()?;
    let read: usize = found.values().map(Vec::len).sum();
    if (info.pending.hints, info.dead_letters.hints) != (read as u64, count) {
        let text = format!("info says {info:?}, {read} hints and {count} letters were read");
        return Err(text.into());
    }
    Ok((found, count))
}

fn read_open(dir: &Path) -> (Hints, u64) {
    let store: Store = common::open(dir);
    let (mut found, mut letters) = (Hints::new(), 0);
    for (node, queues) in store.nodes() {
        letters += queues.letters().hints;
        let hints = found.entry(node.0).or_default();
        loop {
            match common::peek(&store, node.0) {
                Peek::Empty => break,
                Peek::Damaged(place) => panic!("{place:?} is damaged"),
                Peek::Hints(peeked) => {
                    for it in &peeked {
                        let hint = &it.hint;
                        let print = fingerprint((
                            hint.shard,
                            hint.format,
                            hint.enqueued_unix_ms,
                            hint.lifetime_ms,
                            hint.write,
                            &hint.payload,
                        ));
                        let place = it.mark.place();
                        hints.push((place.queue.queue.0, place.sequence.0, print));
                    }
                    let last = peeked.last().unwrap().mark;
                    store.ack(node, last, Leave::Delivered).unwrap();
                }
            }
        }
    }
    store.close().unwrap();
    (found, letters)
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
