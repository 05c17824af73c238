//! A bar on stderr, on a terminal only.

use std::{
    io::{self, IsTerminal},
    path::Path,
};

use hinted_handoff::offline::ClosedStore;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::failure::Failure;

/// Opens a store to be read, with a bar.
pub fn open(dir: &Path) -> Result<ClosedStore, Failure> {
    let progress = Progress::of_bytes("log");
    let opened = ClosedStore::open_with(dir, |done, total| progress.set(done, total));
    Ok(opened?)
}

/// How far something is.
pub struct Progress(ProgressBar);

impl Progress {
    /// Of bytes that are read or written.
    pub fn of_bytes(what: &'static str) -> Progress {
        let bar = match io::stderr().is_terminal() {
            true => ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()),
            false => ProgressBar::hidden(),
        };
        let template = "{msg} {wide_bar} {bytes}/{total_bytes} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        Progress(bar)
    }

    pub fn set(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
