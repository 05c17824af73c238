//! Several stories at a time, each with a store of its own.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
};

/// A story or a life waits most of the time: for its end, and for the disk.
const AT_A_TIME: usize = 4;

/// Does `work` for each number below `count`, some at a time, until it says that it is enough.
pub fn side_by_side(count: u64, work: impl Fn(u64) -> ControlFlow<()> + Sync) {
    let (next, is_enough) = (AtomicU64::new(0), AtomicBool::new(false));
    let worker = || {
        while !is_enough.load(Relaxed) {
            let number = next.fetch_add(1, Relaxed);
            if number >= count {
                return;
            }
            if work(number).is_break() {
                is_enough.store(true, Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(worker);
        }
    });
}
