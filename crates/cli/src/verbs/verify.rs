//! `hh verify`: every record of a closed store, checked.

use std::{fs, os::unix::fs::DirBuilderExt, path::PathBuf, process::ExitCode};

use clap::Args;
use hinted_handoff::offline::{Finding, Severity, Verified, verify, verify_deep};
use serde::Serialize;

use crate::{
    failure::{Failure, exit_if_damaged},
    output::{Output, Tone},
    progress::Progress,
};

/// Check every record of a store that nobody has open.
///
/// Says what is damaged or missing, with node, queue and range. Nothing in the directory is
/// changed. Exits with 1 if something is damaged or lost.
#[derive(Debug, Args)]
pub struct Verify {
    /// The store's directory, or a folder with sled's files in it.
    dir: PathBuf,
    /// Also copy the store, have the engine open the copy, and take every hint of it.
    #[arg(long)]
    deep: bool,
    /// Where the copy is made, and removed again: a directory that exists, on a disk with room for
    /// it.
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir(), requires = "deep")]
    scratch: PathBuf,
}

const COLUMNS: [&str; 7] = [
    "severity", "node", "queue", "first", "last", "hints", "what",
];

#[derive(Serialize)]
struct Document<'a> {
    is_sound: bool,
    #[serde(flatten)]
    verified: &'a Verified,
}

impl Verify {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let progress = Progress::of_bytes("verify");
        let set = |done, total| progress.set(done, total);
        let verified = match self.deep {
            true => self.verify_deep(set)?,
            false => verify(&self.dir, set)?,
        };
        drop(progress);
        let is_sound = verified.is_sound();
        match output.is_json() {
            true => output.json(&Document {
                is_sound,
                verified: &verified,
            })?,
            false => print(output, &verified)?,
        }
        Ok(exit_if_damaged(!is_sound))
    }
}

impl Verify {
    fn verify_deep(&self, progress: impl FnMut(u64, u64)) -> Result<Verified, Failure> {
        let made = self
            .scratch
            .join(format!("hh-verify-{}", std::process::id()));
        let mut private = fs::DirBuilder::new();
        // What is there already is not ours to remove.
        let created = private.mode(0o700).create(&made);
        created.map_err(|source| Failure::file("create", &made, source))?;
        let verified = verify_deep(&self.dir, made.join("copy"), progress);
        if let Err(source) = fs::remove_dir_all(&made) {
            let failure = Failure::file("remove", &made, source);
            anstream::eprintln!("hh: {}", failure.line());
        }
        Ok(verified?)
    }
}

fn print(output: &mut Output, verified: &Verified) -> Result<(), Failure> {
    let mut rows: Vec<Vec<String>> = verified.findings.iter().map(row).collect();
    let read = format!(
        "{} pending hints ({}) and {} dead letters read",
        verified.pending.hints,
        output.bytes(verified.pending.bytes),
        verified.dead_letters.hints
    );
    if rows.is_empty() && !output.is_terminal() {
        // Who reads columns is told that it was looked at, too.
        let row = ["sound", "-", "-", "-", "-", "0", &read];
        rows.push(row.map(str::to_owned).to_vec());
    }
    if !rows.is_empty() {
        output.table(&COLUMNS, rows)?;
    }
    if !output.is_terminal() {
        return Ok(());
    }
    match (verified.is_sound(), verified.is_clean) {
        (true, true) => output.toned(Tone::Good, &format!("sound: {read}")),
        (true, false) => {
            let text = format!("sound, and was not closed: {read}");
            output.toned(Tone::Good, &text)
        }
        (false, _) => output.toned(Tone::Bad, &format!("damaged: {read}")),
    }
}

fn row(finding: &Finding) -> Vec<String> {
    let text = |it: Option<String>| it.unwrap_or("-".to_owned());
    let severity = match finding.severity {
        Severity::Lost => "lost",
        Severity::Damaged => "damaged",
        _ => "unknown",
    };
    vec![
        severity.to_owned(),
        text(finding.node.map(|it| it.to_string())),
        text(finding.queue.map(|it| it.to_string())),
        text(finding.first.map(|it| it.to_string())),
        text(finding.last.map(|it| it.to_string())),
        finding.hints.to_string(),
        finding.what.clone(),
    ]
}
