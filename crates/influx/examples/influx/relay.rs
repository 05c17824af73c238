//! The relay, as a process that is killed and started again.

use std::{
    error::Error,
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode},
    thread,
    time::Duration,
};

use hinted_handoff_influx::relay::{Settings, run as run_relay};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Runs a relay until SIGTERM.
pub fn run(settings: &Path) -> Result<ExitCode, Box<dyn Error>> {
    let settings = Settings::read(settings)?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(run_relay(settings))?;
    Ok(ExitCode::SUCCESS)
}

pub struct Relay {
    dir: TempDir,
    url: String,
    writes: SocketAddr,
    operators: SocketAddr,
    child: Child,
}

impl Relay {
    /// One before these servers.
    pub fn start(servers: &[String]) -> Result<Relay, Box<dyn Error>> {
        let dir = TempDir::new()?;
        let [writes, operators] = free_addresses()?;
        let hints = dir.path().join("hints");
        let nodes = (1..)
            .zip(servers)
            .map(|(id, url)| format!("[[nodes]]\nid = {id}\nurl = \"{url}\"\n"));
        let settings = format!(
            "[http]\nlisten = \"{writes}\"\n[queue]\ndir = {hints:?}\n\
             [admin]\nlisten = \"{operators}\"\n{}",
            nodes.collect::<String>()
        );
        fs::write(settings_in(&dir), settings)?;
        let relay = Relay {
            child: spawn(&dir)?,
            dir,
            url: format!("http://{writes}"),
            writes,
            operators,
        };
        relay.until_it_listens()?;
        Ok(relay)
    }

    /// Where clients write to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<(), Box<dyn Error>> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub fn restart(&mut self) -> Result<(), Box<dyn Error>> {
        self.child = spawn(&self.dir)?;
        self.until_it_listens()
    }

    /// SIGTERM, and its end.
    pub fn stop(&mut self) -> Result<(), Box<dyn Error>> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        match self.child.wait()?.success() {
            true => Ok(()),
            false => Err("the relay did not end well".into()),
        }
    }

    fn until_it_listens(&self) -> Result<(), Box<dyn Error>> {
        until("the relay to listen", || {
            Ok(TcpStream::connect(self.writes).is_ok())
        })
    }

    /// How many hints wait.
    pub fn pending(&self) -> Result<u64, Box<dyn Error>> {
        let mut answer = ureq::get(format!("http://{}/v1/status", self.operators)).call()?;
        let status: Value = serde_json::from_str(&answer.body_mut().read_to_string()?)?;
        let hints = status.pointer("/pending/hints").and_then(Value::as_u64);
        hints.ok_or_else(|| "the relay does not say how many hints wait".into())
    }

    pub fn until_delivered(&self) -> Result<(), Box<dyn Error>> {
        until("the hints to leave", || Ok(self.pending()? == 0))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may be gone.
        let _ = self.kill();
    }
}

fn settings_in(dir: &TempDir) -> PathBuf {
    dir.path().join("relay.toml")
}

fn spawn(dir: &TempDir) -> std::io::Result<Child> {
    let mut this = Command::new(std::env::current_exe()?);
    this.arg("relay").arg(settings_in(dir)).spawn()
}

fn until(
    what: &str,
    is_so: impl Fn() -> Result<bool, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    for _ in 0..1_200 {
        if is_so()? {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Err(format!("waited a minute for {what}").into())
}

fn free_addresses() -> std::io::Result<[SocketAddr; 2]> {
    let listeners = [
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("127.0.0.1:0")?,
    ];
    Ok([listeners[0].local_addr()?, listeners[1].local_addr()?])
}
