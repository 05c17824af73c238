//! `hh-relay` as a child process.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::request::{Answer, Request};

/// How long anything may take that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Settings that are the same for most tests: a server that is away is asked again soon, and one
/// that is slow is waited for, however busy this machine is.
pub const QUEUE: &str = "retry_interval = \"20ms\"\nretry_max_interval = \"100ms\"\n\
                         min_free_disk = 0\nhint_after = \"30s\"\nwrite_timeout = \"1m\"\n";

/// A relay. It is killed when it is dropped.
pub struct Relay {
    pub dir: Arc<TempDir>,
    pub address: SocketAddr,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

/// The settings of a relay before these servers, with more of its own before the tables.
pub struct Setup {
    pub dir: Arc<TempDir>,
    top: String,
    http: String,
    queue: String,
    tables: String,
}

impl Setup {
    pub fn new(urls: &[String]) -> Setup {
        let nodes = urls.iter().enumerate().map(|(index, url)| {
            let id = index + 1;
            format!("[[nodes]]\nid = {id}\nurl = \"{url}\"\nname = \"db-{id}\"\n")
        });
        Setup {
            dir: Arc::new(TempDir::new().unwrap()),
            top: String::new(),
            http: String::new(),
            queue: QUEUE.to_owned(),
            tables: nodes.collect(),
        }
    }

    /// With the files of another one, its queue among them.
    pub fn instead_of(mut self, other: &Setup) -> Setup {
        self.dir = Arc::clone(&other.dir);
        self
    }

    /// Lines of the top.
    pub fn top(mut self, lines: &str) -> Setup {
        self.top.push_str(lines);
        self
    }

    /// Lines of the table `[http]`.
    pub fn http(mut self, lines: &str) -> Setup {
        self.http.push_str(lines);
        self
    }

    /// Lines of the table `[queue]`.
    pub fn queue(mut self, lines: &str) -> Setup {
        self.queue.push_str(lines);
        self
    }

    /// Tables.
    pub fn tables(mut self, lines: &str) -> Setup {
        self.tables.push_str(lines);
        self
    }

    pub fn write(&self) -> PathBuf {
        let Setup {
            dir,
            top,
            http,
            queue,
            tables,
        } = self;
        let hints = dir.path().join("hints");
        let text = format!(
            "{top}\n[http]\nlisten = \"127.0.0.1:0\"\n{http}\n[queue]\ndir = {hints:?}\n{queue}\n\
             {tables}\n"
        );
        let file = dir.path().join("relay.toml");
        let _ = fs::remove_file(&file);
        let mut options = fs::File::options();
        let mut out = options
            .write(true)
            .create(true)
            .mode(0o600)
            .open(&file)
            .unwrap();
        std::io::Write::write_all(&mut out, text.as_bytes()).unwrap();
        file
    }

    pub fn start(&self) -> Relay {
        Relay::start(&self.write(), Arc::clone(&self.dir))
    }
}

/// `hh-relay`, with nothing of the environment that it reads.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hh-relay"));
    command.env_remove("HH_RELAY_CONFIG").stdin(Stdio::null());
    command
}

impl Relay {
    fn start(file: &Path, dir: Arc<TempDir>) -> Relay {
        let mut child = command()
            .arg("--config")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        let mut relay = Relay {
            dir,
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            child,
            log,
        };
        let told = relay.until_logged("writes are taken");
        relay.address = address_of(&told);
        relay
    }

    /// What it logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The first line of the log with this in it, which may be yet to come.
    pub fn until_logged(&mut self, part: &str) -> String {
        until(part, || {
            let found = self.log().into_iter().find(|line| line.contains(part));
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() || found.is_some(),
                "it ended: {:?}",
                self.log()
            );
            found
        })
    }

    pub fn send(&self, request: Request) -> Answer {
        request.send(self.address)
    }

    /// `POST /write?{query}`.
    pub fn write(&self, query: &str, body: impl AsRef<[u8]>) -> Answer {
        self.send(Request::post(&format!("/write?{query}"), body))
    }

    /// The figures.
    pub fn metrics(&self) -> String {
        self.send(Request::get("/metrics")).text()
    }

    /// One figure, 0 if it is not there.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.metrics();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
    }

    /// Hints that wait for a node.
    pub fn pending(&self, node: u64) -> u64 {
        self.metric(&format!(
            "hinted_handoff_node_pending_hints{{node=\"{node}\"}}"
        ))
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        until("the end of hh-relay", || self.child.try_wait().unwrap())
    }

    /// SIGTERM, and its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// A figure of `/proc/PID/status` in bytes.
    pub fn memory(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        let kib = line.trim_matches([':', '\t', ' ']).trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may be gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in a line of the log.
pub fn address_of(line: &str) -> SocketAddr {
    let (_, rest) = line.split_once("address=").unwrap();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

/// Asks until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begin.elapsed() < PATIENCE, "waited for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
