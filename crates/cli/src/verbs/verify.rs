//! `hh verify`: every record of a closed store, checked.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use hinted_handoff::offline::{Finding, Severity, Verified, verify};
use serde::Serialize;

use crate::{
    failure::{DAMAGED, Failure},
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
}

#[derive(Serialize)]
struct Document<'a> {
    is_sound: bool,
    #[serde(flatten)]
    verified: &'a Verified,
}

impl Verify {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let progress = Progress::of_bytes("verify");
        let verified = verify(&self.dir, |done, total| progress.set(done, total))?;
        drop(progress);
        let is_sound = verified.is_sound();
        match output.is_json() {
            true => output.json(&Document {
                is_sound,
                verified: &verified,
            })?,
            false => print(output, &verified)?,
        }
        Ok(match is_sound {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(DAMAGED),
        })
    }
}

fn print(output: &mut Output, verified: &Verified) -> Result<(), Failure> {
    let rows: Vec<Vec<String>> = verified.findings.iter().map(row).collect();
    if !rows.is_empty() {
        let header = [
            "severity", "node", "queue", "first", "last", "hints", "what",
        ];
        output.table(&header, rows)?;
    }
    if !output.is_terminal() {
        return Ok(());
    }
    let read = format!(
        "{} pending hints ({}) and {} dead letters read",
        verified.pending.hints,
        output.bytes(verified.pending.bytes),
        verified.dead_letters.hints
    );
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
