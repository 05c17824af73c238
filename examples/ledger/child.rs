//! A child process: as its parent sees it, and how it sees its parent.
//!
//! The parent reads what the child counts from its stdout. The child reads from its stdin: a line
//! is the order to finish, and the end of it means that the parent is gone, in whatever way that
//! happened, so that no child outlives it.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{ChildStdin, ChildStdout, Command},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::protocol::Failure;

/// What all lives of all children told, added up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Told {
    pub transfers: u64,
    pub refused: u64,
    pub run_again: u64,
    pub applied: u64,
    pub suppressed: u64,
}

pub struct Child {
    role: &'static str,
    root: PathBuf,
    /// Each life draws other random numbers.
    seed: u64,
    told: Arc<Mutex<Told>>,
    life: Option<Life>,
    pub kills: u64,
}

struct Life {
    process: tokio::process::Child,
    /// Not left in `process`, which closes it when it is waited for.
    stdin: ChildStdin,
    listener: JoinHandle<()>,
}

impl Child {
    /// One that is not started yet.
    pub fn new(role: &'static str, root: &Path, seed: u64, told: &Arc<Mutex<Told>>) -> Self {
        Child {
            role,
            root: root.to_owned(),
            seed,
            told: Arc::clone(told),
            life: None,
            kills: 0,
        }
    }

    pub fn start(&mut self) -> Result<(), Failure> {
        self.seed = self.seed.wrapping_add(1000);
        let mut process = Command::new(std::env::current_exe()?)
            .arg(self.role)
            .arg(&self.root)
            .arg(self.seed.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (stdin, stdout) = pipes.ok_or("a child without pipes")?;
        let listener = tokio::spawn(listen(stdout, Arc::clone(&self.told)));
        self.life = Some(Life {
            process,
            stdin,
            listener,
        });
        Ok(())
    }

    /// SIGKILL: it gets no chance to finish anything. Returns when it is gone, and its file locks
    /// with it.
    pub async fn kill(&mut self) -> Result<(), Failure> {
        if let Some(mut life) = self.life.take() {
            life.process.kill().await?;
            life.listener.await?;
            self.kills += 1;
        }
        Ok(())
    }

    /// Lets it live for so long. An error if it ends by itself.
    pub async fn live(&mut self, time: Duration) -> Result<(), Failure> {
        let life = self.life.as_mut().ok_or("it was not started")?;
        match timeout(time, life.process.wait()).await {
            Ok(status) => Err(format!("the {} ended by itself: {}", self.role, status?).into()),
            Err(_) => Ok(()),
        }
    }

    /// Orders it to finish, and waits until it has done so.
    pub async fn finish(&mut self, max: Duration) -> Result<(), Failure> {
        let life = self.life.as_mut().ok_or("it was not started")?;
        // If it is gone already, that is seen below.
        let _ = life.stdin.write_all(b"finish\n").await;
        let ended = timeout(max, life.process.wait()).await;
        let status =
            ended.map_err(|_| format!("the {} did not finish in {max:?}", self.role))??;
        if !status.success() {
            return Err(format!("the {} failed to finish: {status}", self.role).into());
        }
        if let Some(life) = self.life.take() {
            life.listener.await?;
        }
        Ok(())
    }
}

/// Adds up what a child tells, until it is gone.
async fn listen(stdout: ChildStdout, told: Arc<Mutex<Told>>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        told.lock().add(&line);
    }
}

impl Told {
    fn add(&mut self, line: &str) {
        let (what, more) = line.split_once(' ').unwrap_or_default();
        let count = match what {
            "transfers" => &mut self.transfers,
            "refused" => &mut self.refused,
            "run_again" => &mut self.run_again,
            "applied" => &mut self.applied,
            "suppressed" => &mut self.suppressed,
            _ => return,
        };
        *count += more.parse().unwrap_or(0);
    }
}

/// In a child: tells the parent that there is so much more of this.
pub fn tell(what: &str, count: u64) {
    // Without a parent stdin ends, and we with it.
    let _ = writeln!(std::io::stdout(), "{what} {count}");
}

/// In a child: is cancelled when the parent orders it to finish.
pub fn orders() -> CancellationToken {
    let finish = CancellationToken::new();
    let ordered = finish.clone();
    // A thread of its own: one of the runtime's would keep the runtime from ending.
    std::thread::spawn(move || {
        while let Some(Ok(_)) = std::io::stdin().lines().next() {
            ordered.cancel();
        }
        std::process::exit(1);
    });
    finish
}
