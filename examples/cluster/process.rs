//! A server as a child process: started, killed, stopped.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::protocol::{Failure, address_file};

const START_MAX: Duration = Duration::from_secs(15);
const STOP_MAX: Duration = Duration::from_secs(5);

pub struct Process {
    name: String,
    arguments: Vec<String>,
    root: PathBuf,
    child: Option<Child>,
    pub kills: u32,
}

impl Process {
    /// A server that is not started yet.
    pub fn new(root: &Path, name: &str, role: &[&str]) -> Self {
        Process {
            name: name.to_owned(),
            arguments: role.iter().map(|part| (*part).to_owned()).collect(),
            root: root.to_owned(),
            child: None,
            kills: 0,
        }
    }

    /// Returns when it listens.
    pub async fn start(&mut self) -> Result<(), Failure> {
        let address = address_file(&self.root, &self.name);
        if address.exists() {
            // That of the life before.
            std::fs::remove_file(&address)?;
        }
        let child = Command::new(std::env::current_exe()?)
            .args(&self.arguments)
            .arg(&self.root)
            // Never written to: its end is the sign for the child to end.
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        self.child = Some(child);
        let started = Instant::now();
        while !address.exists() {
            self.check()?;
            if started.elapsed() > START_MAX {
                return Err(format!("{} does not listen after {START_MAX:?}", self.name).into());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// SIGKILL: it gets no chance to finish anything. Returns when it is gone, and its file locks
    /// with it.
    pub async fn kill(&mut self) -> Result<(), Failure> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
            self.kills += 1;
        }
        Ok(())
    }

    /// Asks it to end, and waits for that.
    pub async fn stop(&mut self) -> Result<(), Failure> {
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            let ended = timeout(STOP_MAX, child.wait()).await;
            ended.map_err(|_| format!("{} did not end within {STOP_MAX:?}", self.name))??;
        }
        Ok(())
    }

    /// An error if it ended by itself.
    pub fn check(&mut self) -> Result<(), Failure> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        match child.try_wait()? {
            Some(status) => Err(format!("{} ended unexpectedly: {status}", self.name).into()),
            None => Ok(()),
        }
    }
}
