//! What a look at the damaged store finds, before anybody opens it, held against what the lives of
//! the store told: nothing is changed, and what cost a hint is found.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use hinted_handoff::{
    NodeId, OpenError,
    internals::{self},
    offline::{ClosedStore, Selection, Severity, Verified},
};

use crate::{
    report::{Hint, Key},
    template::Template,
    verdict::Outcome,
};

/// What a look found.
pub struct Checked(Result<Verified, String>);

/// Looks at a store, and sees to it that nothing of it changes by that.
pub fn verify(dir: &Path) -> Result<Checked, Vec<String>> {
    let before = all_of(dir);
    let found = hinted_handoff::offline::verify(dir, |_, _| {});
    if all_of(dir) != before {
        return Err(vec!["a look at the store changed it".to_owned()]);
    }
    Ok(Checked(found.map_err(|error: OpenError| error.to_string())))
}

impl Checked {
    pub fn is_sound(&self) -> bool {
        self.0.as_ref().is_ok_and(Verified::is_sound)
    }

    /// What cost a hint, or has the store refused, was found before, with its range.
    pub fn hold_against(
        &self,
        outcome: &Outcome,
        lost: &[(u64, u64, u64)],
    ) -> Result<(), Vec<String>> {
        let broken = |text: String| Err(vec![format!("verify {text}: {:?}", self.0)]);
        if *outcome != Outcome::Recovered && self.is_sound() {
            return broken(format!("found nothing, and opening it gave {outcome:?}"));
        }
        let Ok(verified) = &self.0 else {
            return Ok(());
        };
        for (queue, first, last) in lost {
            // A range may be absurdly long.
            let is_told = |sequence: &u64| {
                verified.findings.iter().any(|it| {
                    let range = it.first.zip(it.last);
                    it.severity == Severity::Lost
                        && it.queue.is_none_or(|it| it.0 == *queue)
                        && range.is_none_or(|it| (it.0.0..=it.1.0).contains(sequence))
                })
            };
            if !(*first..=*last).take(10_000).all(|it| is_told(&it)) {
                return broken(format!("did not tell of {queue} {first}..={last}"));
            }
        }
        Ok(())
    }
}

/// The sound stores are sound, and what is read of them is what they give.
///
/// # Panics
/// If that is not so.
pub fn check_sound(templates: &[Template], dir: &Path) {
    for template in templates {
        let dir = dir.join(format!("sound {}", template.name));
        template.copy_to(&dir).unwrap();
        let before = all_of(&dir);
        let verified = hinted_handoff::offline::verify(&dir, |_, _| {}).unwrap();
        assert_eq!(verified.findings, [], "{:?}", template.name);
        let store = ClosedStore::open(&dir).unwrap();
        for (node, expected) in &template.content.pending {
            let hints = store.hints(&Selection::of_node(NodeId(*node)));
            let hints = hints.map(|hint| {
                let hint = hint.unwrap();
                let key = Key {
                    queue: hint.id.queue.0,
                    sequence: hint.id.sequence.0,
                };
                let hint = internals::Hint {
                    shard: hint.shard,
                    format: hint.format,
                    enqueued_unix_ms: hint.enqueued_unix_ms,
                    payload: hint.payload,
                    origin: None,
                    write: hint.write,
                    lifetime_ms: hint.lifetime_ms,
                };
                let fingerprint = Hint::fingerprint_of(&hint);
                Hint { key, fingerprint }
            });
            let hints: Vec<Hint> = hints.collect();
            assert_eq!(hints, *expected, "{:?}, node {node}", template.name);
        }
        assert_eq!(all_of(&dir), before, "{:?}", template.name);
    }
}

/// Every file with its bytes and when it was changed.
fn all_of(dir: &Path) -> Vec<(PathBuf, (i64, i64), u64, u32)> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let about = fs::metadata(&path).unwrap();
            let changed = (about.mtime(), about.mtime_nsec());
            if about.is_dir() {
                files.push((path.clone(), changed, 0, 0));
                folders.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                files.push((path, changed, about.len(), crc32c::crc32c(&bytes)));
            }
        }
    }
    files.sort();
    files
}
