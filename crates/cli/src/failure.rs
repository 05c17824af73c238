//! How the program fails.

use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use hinted_handoff::{
    EnqueueError, HintId, LockKind, OpenError, StorageError,
    offline::{Finding, Severity},
};

use crate::output::printable;

/// What was looked at is damaged.
const DAMAGED: u8 = 1;
/// The arguments do not fit together. clap exits with the same.
const USAGE: u8 = 2;
const OTHER: u8 = 3;
const IN_USE: u8 = 4;
/// What a shell says of a program that SIGPIPE ended.
const PIPE_CLOSED: u8 = 141;

/// Why a verb was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The store does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its log does not read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A hint was not stored.
    #[error(transparent)]
    Enqueue(#[from] EnqueueError),
    /// The output does not take it.
    #[error("could not write the output")]
    Output(#[source] io::Error),
    /// A file of the caller's.
    #[error("could not {action} {file}")]
    File {
        action: &'static str,
        file: String,
        #[source]
        source: io::Error,
    },
    /// The input is not what an export writes.
    #[error("line {line} of the input is no hint: {why}")]
    Input { line: u64, why: String },
    /// Nobody answers at the socket.
    #[error("nobody answers at {}; is the host running, and may you connect?", socket.display())]
    Unreachable {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The host takes too long.
    #[error(
        "no answer from {} within {within}; what was asked for may still come into effect",
        socket.display()
    )]
    Hangs {
        socket: PathBuf,
        within: humantime::Duration,
    },
    /// The host does not do it.
    #[error("the host refuses ({status}): {detail}")]
    Refused {
        status: u16,
        /// The type of the problem, for programs.
        kind: String,
        detail: String,
        /// Of an import: the new ids of what is stored all the same.
        stored: Vec<HintId>,
    },
    /// What it answers is not what is expected.
    #[error("the answer of the host to {path} does not read: {why}")]
    Answer { path: String, why: String },
    /// All that was asked for came.
    #[error("that is enough")]
    Enough,
    /// What was named is not there.
    #[error("{0}")]
    NotThere(String),
    /// The arguments do not fit together.
    #[error("{0}")]
    Usage(String),
}

impl Failure {
    /// Of writing to the output.
    pub fn output(error: io::Error) -> Failure {
        Failure::Output(error)
    }

    /// Of a file, or something like it.
    pub fn file(action: &'static str, file: impl AsRef<Path>, source: io::Error) -> Failure {
        Failure::File {
            action,
            file: file.as_ref().display().to_string(),
            source,
        }
    }

    /// It and its causes in a line.
    pub fn text(&self) -> String {
        let causes = std::iter::successors(Some(self as &dyn Error), |&error| error.source());
        let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
        texts.dedup();
        texts.join(": ")
    }

    /// The same, of characters that print.
    pub fn line(&self) -> String {
        printable(&self.text())
    }

    /// Whether it is what a host calls so.
    pub fn is_problem(&self, name: &str) -> bool {
        let Failure::Refused { kind, .. } = self else {
            return false;
        };
        kind.strip_prefix("urn:hinted-handoff:") == Some(name)
    }

    /// Tells of it on stderr, and says what to exit with.
    pub fn report(&self) -> ExitCode {
        if let Failure::Output(error) = self
            && error.kind() == io::ErrorKind::BrokenPipe
        {
            return ExitCode::from(PIPE_CLOSED);
        }
        anstream::eprintln!("hh: {}", self.line());
        ExitCode::from(match self {
            Failure::Open(OpenError::Locked { kind, .. }) => {
                if let Some(name) = holder_name(kind) {
                    anstream::eprintln!("hh: that process is {name}");
                }
                IN_USE
            }
            Failure::Usage(_) => USAGE,
            _ => OTHER,
        })
    }
}

/// Tells on stderr what a look found, and says what to exit with after it.
pub fn told<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> ExitCode {
    told_with(false, findings)
}

/// The same where it may be known already that something is damaged.
pub fn told_with<'a>(
    mut is_damaged: bool,
    findings: impl IntoIterator<Item = &'a Finding>,
) -> ExitCode {
    for finding in findings {
        is_damaged |= finding.severity > Severity::Unknown;
        anstream::eprintln!("hh: {}", text_of(finding));
    }
    exit_if_damaged(is_damaged)
}

fn text_of(finding: &Finding) -> String {
    let number = |it: Option<u64>| it.map_or("-".to_owned(), |it| it.to_string());
    let Some(node) = finding.node else {
        return printable(&finding.what);
    };
    format!(
        "node {node} queue {} sequences {} to {}: {}",
        number(finding.queue.map(|it| it.0)),
        number(finding.first.map(|it| it.0)),
        number(finding.last.map(|it| it.0)),
        printable(&finding.what)
    )
}

/// What to exit with after a look at what is damaged, or is not.
pub fn exit_if_damaged(is_damaged: bool) -> ExitCode {
    match is_damaged {
        true => ExitCode::from(DAMAGED),
        false => ExitCode::SUCCESS,
    }
}

/// What the process that has a store is called.
fn holder_name(kind: &LockKind) -> Option<String> {
    let LockKind::Store { holder: Some(pid) } = kind else {
        return None;
    };
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(format!("{} ({pid})", name.trim_end()))
}
