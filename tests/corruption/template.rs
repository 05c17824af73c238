//! Template stores: closed cleanly, with known content. Each cycle damages a copy of one.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, FileExt},
    path::{Path, PathBuf},
    sync::mpsc,
};

use hinted_handoff::{
    NodeId,
    internals::{Leave, Store},
};

use crate::{
    common::{generation, hint, hints, noise, open, peek, sync, try_append},
    report::{Hint, Key},
};

/// Copies skip pages of zeros: the log grows in segments of 8 MiB, most of which is never written.
const PAGE: usize = 4096;
/// The last node is one that no template ever hinted.
pub const NODES: std::ops::RangeInclusive<u64> = 1..=9;

/// What the verdict measures a damaged store against.
#[derive(Debug, Clone, Default)]
pub struct Content {
    pub store: String,
    /// Per node, in the order of delivery.
    pub pending: BTreeMap<u64, Vec<Hint>>,
    /// Every hint ever written, those that left or were discarded too, with its fingerprint: no id
    /// may name another.
    pub used: BTreeMap<Key, u64>,
}

/// A file of a store, in memory.
pub struct Stored {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    /// Offsets of the pages that hold anything but zeros.
    pub pages: Vec<usize>,
}

/// A closed store, in memory.
pub struct Template {
    pub name: &'static str,
    pub files: Vec<Stored>,
    pub content: Content,
}

impl Template {
    /// Writes the store to `dir`, which must not exist.
    pub fn copy_to(&self, dir: &Path) -> io::Result<()> {
        for file in &self.files {
            let path = dir.join(&file.path);
            if let Some(parent) = path.parent() {
                // A store refuses a directory that others may write to.
                let mut private = fs::DirBuilder::new();
                private.recursive(true).mode(0o700).create(parent)?;
            }
            let copy = File::create_new(&path)?;
            copy.set_len(file.bytes.len() as u64)?;
            for run in file.pages.chunk_by(|page, next| page + PAGE == *next) {
                let (from, last) = (run[0], run[run.len() - 1]);
                let until = (last + PAGE).min(file.bytes.len());
                copy.write_all_at(&file.bytes[from..until], from as u64)?;
            }
        }
        Ok(())
    }
}

/// Makes all templates below `dir`.
pub fn all(dir: &Path) -> io::Result<Vec<Template>> {
    // What sled does with damage depends on whether it lies behind the snapshot that it wrote at
    // its last open, and in which segment of the log.
    type Further = fn(&mut Making);
    let made: [(&'static str, Further); 7] = [
        ("written once", |_| {}),
        ("opened again", Making::reopen),
        ("after an unclean stop", Making::go_on_after_an_unclean_stop),
        ("written to again", |making| {
            making.go_on_after_an_unclean_stop();
            making.reopen();
            making.append(1, "later".into());
            making.append(2, noise(3_000, 77));
            making.ack(7, 20);
        }),
        ("several segments in one life", Making::fill_segments),
        ("queues retired, removed and started last", |making| {
            making.go_on_after_an_unclean_stop();
            making.fill_segments();
            making.remove(6);
            making.append(3, "after the removal".into());
            making.append(8, "in a queue of its own".into());
            making.ack(8, 1);
        }),
        ("several segments in several lives", |making| {
            making.go_on_after_an_unclean_stop();
            making.fill_segments();
            making.reopen();
            making.append(3, "last".into());
        }),
    ];
    made.into_iter()
        .map(|(name, further)| {
            let dir = dir.join(name.replace(' ', "-"));
            let mut making = Making::start(&dir);
            further(&mut making);
            let content = making.finish();
            Ok(Template {
                name,
                files: load(&dir)?,
                content,
            })
        })
        .collect()
}

/// A store that is being filled.
struct Making {
    dir: PathBuf,
    store: Store,
    used: BTreeMap<Key, u64>,
}

impl Making {
    /// What every template holds; see `tests/corruption.rs`.
    fn start(dir: &Path) -> Making {
        let mut making = Making {
            dir: dir.to_owned(),
            store: open(dir),
            used: BTreeMap::new(),
        };
        for number in 1..=5 {
            making.append(1, format!("hint-{number}").into_bytes());
        }
        making.burst(2, (0..10).map(|number| noise(200 + number * 9, 3)));
        making.ack(2, 4);
        making.append(2, "behind".into());
        making.burst(3, (0..3).map(|number| noise(50 + number, 5)));
        making.ack(3, 3);
        making.append(4, "before".into());
        making.append(4, noise(300_000, 9));
        making.append(4, "behind".into());
        making.burst(5, (0..4).map(|number| noise(100 + number, 7)));
        making.remove(5);
        making.burst(6, (0..3).map(|number| noise(500 + number, 11)));
        for burst in 0..6 {
            making.burst(
                7,
                (0..10).map(|number| noise(2_000 + number * 600, 100 * burst + number as u64)),
            );
        }
        making.ack(7, 3);
        making
    }

    /// Starts second queues behind closed ones.
    fn go_on_after_an_unclean_stop(&mut self) {
        self.reopen_uncleanly();
        self.append(6, "in the second queue".into());
        self.burst(7, (0..3).map(|number| noise(900 + number, 13)));
    }

    /// Makes the log grow over several segments of 8 MiB, and part of it be rewritten.
    fn fill_segments(&mut self) {
        for number in 0..60 {
            self.append(1 + number % 7, noise(60_000, 1_000 + number));
        }
        self.ack(2, 7);
        self.ack(3, 4);
    }

    fn append(&mut self, node: u64, payload: Vec<u8>) {
        self.burst(node, [payload].into_iter());
    }

    fn burst(&mut self, node: u64, payloads: impl Iterator<Item = Vec<u8>>) {
        let burst: Vec<_> = payloads.map(|payload| hint(1, payload)).collect();
        let ids = try_append(&self.store, node, burst.clone());
        for (id, hint) in ids.into_iter().zip(&burst) {
            let hint = Hint::of_new(id.unwrap(), hint);
            self.used.insert(hint.key, hint.fingerprint);
        }
    }

    /// Acknowledges the first `count` hints of the node, durably.
    fn ack(&mut self, node: u64, count: usize) {
        let pending = hints(&self.store, node);
        let last = &pending[count - 1];
        let left = self.store.ack(NodeId(node), last.mark, Leave::Delivered);
        assert_eq!(left.unwrap().hints, count as u64);
        sync(&self.store);
    }

    fn remove(&mut self, node: u64) {
        let (tell, told) = mpsc::channel();
        let done = move |removed| tell.send(removed).unwrap();
        self.store.remove_node(NodeId(node), done);
        told.recv().unwrap().unwrap();
    }

    fn reopen(&mut self) {
        self.store.close().unwrap();
        self.store = open(&self.dir);
    }

    /// A stop without `CLEAN` is an unclean one: the queues are closed and numbering starts anew.
    fn reopen_uncleanly(&mut self) {
        self.store.close().unwrap();
        fs::remove_file(generation(&self.dir).join("CLEAN")).unwrap();
        self.store = open(&self.dir);
    }

    /// Closes the store. Its content is what a copy of it gives.
    fn finish(self) -> Content {
        self.store.close().unwrap();
        let aside = self.dir.with_extension("drained");
        let copied = Template {
            name: "",
            files: load(&self.dir).unwrap(),
            content: Content::default(),
        };
        copied.copy_to(&aside).unwrap();
        let store = open(&aside);
        let mut content = Content {
            store: store.id().to_string(),
            used: self.used,
            ..Content::default()
        };
        for node in NODES {
            let pending = content.pending.entry(node).or_default();
            while let hinted_handoff::internals::Peek::Hints(found) = peek(&store, node) {
                pending.extend(found.iter().map(Hint::of_peeked));
                let last = found.last().unwrap().mark;
                store.ack(NodeId(node), last, Leave::Delivered).unwrap();
            }
        }
        assert_eq!(store.stats().damage, []);
        store.close().unwrap();
        content
    }
}

fn load(dir: &Path) -> io::Result<Vec<Stored>> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(dir.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = fs::read(entry.path())?;
            let pages = (0..bytes.len())
                .step_by(PAGE)
                .filter(|from| {
                    let until = (from + PAGE).min(bytes.len());
                    bytes[*from..until].iter().any(|byte| *byte != 0)
                })
                .collect();
            files.push(Stored { path, bytes, pages });
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}
