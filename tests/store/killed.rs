//! Children that are killed at a step of the store, and what they left behind.

use std::{ops::ControlFlow, process::Stdio, sync::Mutex};

use hinted_handoff::internals::Store;

use crate::{
    common::{child_for, open},
    side_by_side::side_by_side,
};

/// A test that does its work as a child, in the directory that a variable names.
pub struct Child {
    pub test: &'static str,
    pub dir: &'static str,
}

/// What children came to.
#[derive(Debug, Default)]
pub struct Killed {
    pub children: u64,
    /// Of these, those that were killed.
    pub killed: u64,
    /// What `check` counted.
    pub checked: u64,
}

/// Kills a child at each step when it comes there for the `nths` time, and opens what it left
/// twice. `check` is given the store, what the child said, and what is looked at.
pub fn at_every_step(
    child: &Child,
    steps: &[&str],
    nths: &[u32],
    check: impl Fn(&Store, &str, &str) -> u64 + Sync,
) -> Killed {
    let sum = Mutex::new(Killed::default());
    side_by_side(steps.len() as u64, |number| {
        let of_step = at(child, steps[number as usize], nths, &check);
        let mut sum = sum.lock().unwrap();
        sum.children += of_step.children;
        sum.killed += of_step.killed;
        sum.checked += of_step.checked;
        ControlFlow::Continue(())
    });
    sum.into_inner().unwrap()
}

fn at(
    Child { test, dir: name }: &Child,
    step: &str,
    nths: &[u32],
    check: impl Fn(&Store, &str, &str) -> u64,
) -> Killed {
    let mut sum = Killed::default();
    for nth in nths {
        let dir = tempfile::tempdir().unwrap();
        let child = child_for(test)
            .env(name, dir.path().join("store"))
            .env("HH_FAILPOINT", format!("{step}/abort/{nth}"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr).into_owned();
        let is_killed = said.contains("@failpoint");
        assert!(is_killed || child.status.success(), "{step} {nth}: {said}");
        sum.children += 1;
        sum.killed += u64::from(is_killed);
        for life in 0..2 {
            let store = open(&dir.path().join("store"));
            sum.checked += check(&store, &said, &format!("{step} {nth}, life {life}"));
            store.close().unwrap();
        }
    }
    assert!(sum.killed > 0, "no child came to {step}");
    sum
}
