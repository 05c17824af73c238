//! The relay as a child that is killed and started again at the same address.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub struct Relay {
    dir: TempDir,
    writes: SocketAddr,
    admin: SocketAddr,
    child: Child,
}

impl Relay {
    /// A relay before these servers, whose nodes are 1, 2, 3 and so on.
    pub fn start(urls: &[String]) -> Relay {
        let dir = TempDir::new().unwrap();
        let [writes, admin] = free_addresses();
        let settings = settings(dir.path(), [writes, admin], urls);
        let file = dir.path().join("relay.toml");
        fs::write(&file, settings).unwrap();
        let child = spawn(&file, dir.path());
        let relay = Relay {
            dir,
            writes,
            admin,
            child,
        };
        relay.wait_until_it_listens();
        relay
    }

    /// `kill -9`, and a new one.
    pub fn kill_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.dir.path().join("relay.toml"), self.dir.path());
        self.wait_until_it_listens();
    }

    /// SIGTERM. Whether it ended with success.
    pub fn terminate(&mut self) -> bool {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.child.wait().unwrap().success()
    }

    fn wait_until_it_listens(&self) {
        until("the relay to listen", || {
            TcpStream::connect(self.writes).is_ok().then_some(())
        });
    }

    /// Where clients write to.
    pub fn url(&self) -> String {
        format!("http://{}", self.writes)
    }

    /// What the interface for operators says.
    pub fn told(&self, path: &str) -> Value {
        let url = format!("http://{}{path}", self.admin);
        let text = ureq::get(&url).call().unwrap().body_mut().read_to_string();
        serde_json::from_str(&text.unwrap()).unwrap()
    }

    /// How many hints wait.
    pub fn pending(&self) -> u64 {
        count(&self.told("/v1/status"), "/pending/hints")
    }

    /// The most memory that it had, in bytes.
    pub fn memory_max(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() * 1024
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let begin = log.len().saturating_sub(4_000);
            eprintln!("the relay logged: {}", log.get(begin..).unwrap_or(&log));
        }
        // It may be gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A number in a JSON document.
pub fn count(told: &Value, pointer: &str) -> u64 {
    let number = told.pointer(pointer).and_then(Value::as_u64);
    number.unwrap_or_else(|| panic!("no number {pointer} in {told}"))
}

/// Asks until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begin.elapsed() < PATIENCE, "waited for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn settings(dir: &Path, [writes, admin]: [SocketAddr; 2], urls: &[String]) -> String {
    let hints: PathBuf = dir.join("hints");
    let nodes = urls.iter().enumerate().map(|(index, url)| {
        let id = index + 1;
        format!("[[nodes]]\nid = {id}\nurl = \"{url}\"\ntimeout = \"1s\"\n")
    });
    let nodes: String = nodes.collect();
    format!(
        r#"
        [http]
        listen = "{writes}"
        [queue]
        dir = {hints:?}
        min_free_disk = 0
        retry_interval = "50ms"
        retry_max_interval = "500ms"
        [writer]
        missing_database_max_age = "1h"
        [admin]
        listen = "{admin}"
        {nodes}"#
    )
}

fn spawn(settings: &Path, dir: &Path) -> Child {
    let mut log = File::options();
    let log = log.create(true).append(true).open(dir.join("log")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_hh-relay"))
        .arg("--config")
        .arg(settings)
        .env_remove("HH_RELAY_CONFIG")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn free_addresses() -> [SocketAddr; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}
