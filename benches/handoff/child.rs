//! Scenarios that need a process of their own: to be killed, or to have its memory and its threads
//! counted.
//!
//! The benchmark starts itself again; the child reports one line a fact, `name value ...`, on its
//! standard output.

use std::{
    io::{BufRead, BufReader, Lines, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use crate::common::Outcome;

/// The first argument of a child.
pub const MARK: &str = "--child";

/// A child; killed when this is dropped.
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts `scenario` on `dir` in a process of its own.
    pub fn start(scenario: &str, dir: &Path, figures: &[u64]) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([MARK, scenario])
            .arg(dir)
            .args(figures.iter().map(u64::to_string))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().ok_or("the child has no output")?;
        Ok(Running {
            child,
            lines: BufReader::new(out).lines(),
        })
    }

    /// The next fact, which must be `name`.
    pub fn fact(&mut self, name: &str) -> Outcome<Vec<u64>> {
        let Some(line) = self.lines.next().transpose()? else {
            return Err(format!("a child ended before it told {name}").into());
        };
        let mut words = line.split(' ');
        if words.next() != Some(name) {
            return Err(format!("a child told {line:?} where {name} was expected").into());
        }
        Ok(words.map(str::parse).collect::<Result<_, _>>()?)
    }

    /// The next fact, of one figure.
    pub fn figure(&mut self, name: &str) -> Outcome<u64> {
        let figures = self.fact(name)?;
        Ok(*figures.first().ok_or("a fact without a figure")?)
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Outcome<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its own end.
    pub fn end(mut self) -> Outcome<()> {
        let status = self.child.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("a child ended with {status}").into()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already ended, in the ordinary case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In a child: tells the parent a fact.
pub fn tell(name: &str, figures: &[u64]) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    write!(out, "{name}")?;
    for figure in figures {
        write!(out, " {figure}")?;
    }
    writeln!(out)?;
    Ok(out.flush()?)
}
