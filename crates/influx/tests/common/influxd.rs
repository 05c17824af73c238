//! A real influxd: started in a directory of its own, killed, stopped, started again, and asked
//! what it has.
//!
//! It listens on loopback ports that are free. It is killed when it is dropped, and when the test
//! program is killed.

#![allow(dead_code)]

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::{BufReader, Write},
    net::TcpListener,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, with its data.
pub struct Influxd {
    dir: TempDir,
    port: u16,
    process: Option<Process>,
    /// User and password of queries.
    login: Option<(String, String)>,
}

/// A process that is running, or was killed by somebody else.
struct Process {
    influxd: Child,
    /// Kills influxd when this end is closed without a word, as it is when we are killed.
    watchdog: Child,
    watchdog_input: ChildStdin,
}

/// What a database holds, in whatever order it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Contents {
    /// Points: a series and a time.
    pub points: u64,
    /// Of the sums of all points, and of the types of all fields.
    pub checksum: u64,
}

impl Influxd {
    /// A server without data. `None`, and a line that says so, where influxd is not installed.
    ///
    /// # Panics
    ///
    /// Where it is not installed and `CI` is `true`; where it does not start.
    pub fn start() -> Option<Influxd> {
        Influxd::start_with("")
    }

    /// The same with more lines for the section `[http]` of its configuration.
    pub fn start_with(http: &str) -> Option<Influxd> {
        if !is_installed() {
            let is_ci = std::env::var("CI").is_ok_and(|it| it == "true");
            assert!(!is_ci, "influxd is not installed");
            println!("SKIPPED: influxd is not installed");
            return None;
        }
        // Somebody else may take a port between the look and the start.
        (0..5).find_map(|_| {
            let mut influxd = Influxd::configured(http);
            influxd.restart().then_some(influxd)
        })
    }

    fn configured(http: &str) -> Influxd {
        let dir = TempDir::new().unwrap();
        let [port, backup_port] = free_ports();
        let root = dir.path().display();
        let config = format!(
            r#"
            reporting-disabled = true
            bind-address = "127.0.0.1:{backup_port}"
            [meta]
            dir = "{root}/meta"
            [data]
            dir = "{root}/data"
            wal-dir = "{root}/wal"
            query-log-enabled = false
            [http]
            bind-address = "127.0.0.1:{port}"
            log-enabled = false
            {http}
            [monitor]
            store-enabled = false
            [subscriber]
            enabled = false
            [continuous_queries]
            enabled = false
            "#
        );
        let influxd = Influxd {
            dir,
            port,
            process: None,
            login: None,
        };
        fs::write(influxd.config(), config).unwrap();
        influxd
    }

    /// Starts it again, with its data and on its port. Whether it answers.
    pub fn restart(&mut self) -> bool {
        self.kill();
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        let influxd = Command::new("influxd")
            .arg("-config")
            .arg(self.config())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(Process::watched(influxd));
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if self.is_up() {
                return true;
            }
            let process = self.process.as_mut().unwrap();
            if process.influxd.try_wait().unwrap().is_some() {
                return false;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        panic!("influxd does not answer: {log}");
    }

    /// Whether it answers: it, and no other influxd that was faster to take the port.
    fn is_up(&self) -> bool {
        let answer = ureq::get(format!("{}/debug/vars", self.url())).call();
        let text = answer.and_then(|mut it| it.body_mut().read_to_string());
        text.is_ok_and(|it| it.contains(&*self.config().to_string_lossy()))
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("influxd.conf")
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// SIGSTOP: it keeps its connections and does not answer. Returns when it stands still.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        let pid = self.process.as_ref().map(|it| it.influxd.id()).unwrap();
        let is_stopped = |thread: fs::DirEntry| {
            let status = fs::read_to_string(thread.path().join("status"));
            status.is_ok_and(|it| it.contains("State:\tT"))
        };
        let threads = || fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let begin = Instant::now();
        while !threads().all(|it| is_stopped(it.unwrap())) {
            assert!(begin.elapsed() < PATIENCE, "influxd does not stop");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("influxd was killed");
        kill_process(Pid::from_child(&process.influxd), signal).unwrap();
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where its data is.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// What it printed.
    pub fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// All queries from now on are of this user.
    pub fn log_in(&mut self, user: &str, password: &str) {
        self.login = Some((user.to_owned(), password.to_owned()));
    }

    /// The results of a query.
    ///
    /// # Panics
    ///
    /// If the server does not answer, or answers with an error.
    pub fn query(&self, database: &str, query: &str) -> Vec<Series> {
        self.query_each(database, query).collect()
    }

    fn query_each(&self, database: &str, query: &str) -> impl Iterator<Item = Series> + use<> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE * 10))
            .http_status_as_error(false)
            .build()
            .into();
        let form = [
            ("db", database),
            ("q", query),
            ("epoch", "ns"),
            ("chunked", "true"),
        ];
        let mut request = agent.post(format!("{}/query", self.url()));
        if let Some((user, password)) = &self.login {
            let login = BASE64_STANDARD.encode(format!("{user}:{password}"));
            request = request.header("Authorization", format!("Basic {login}"));
        }
        let (head, body) = request.send_form(form).unwrap().into_parts();
        assert!(
            head.status.is_success() || head.status.is_client_error(),
            "{}",
            head.status
        );
        let reader = BufReader::new(body.into_with_config().limit(u64::MAX).reader());
        let answers = serde_json::Deserializer::from_reader(reader).into_iter::<QueryAnswer>();
        let query = query.to_owned();
        answers.flat_map(move |answer| {
            let answer = answer.unwrap();
            assert_eq!(answer.error, None, "{query}");
            answer.results.into_iter().flat_map(|result| {
                assert_eq!(result.error, None);
                result.series
            })
        })
    }

    /// Makes a database.
    pub fn create_database(&self, database: &str) {
        self.query("", &format!("CREATE DATABASE \"{database}\""));
    }

    /// How many points a database has.
    pub fn count(&self, database: &str) -> u64 {
        self.contents(database).points
    }

    /// What a database has, in all of its retention policies. Two servers have the same if they
    /// have the same points, in whatever order these came. Tags, and fields with their types, are
    /// part of it.
    pub fn contents(&self, database: &str) -> Contents {
        let mut contents = Contents::default();
        for policies in self.query(
            database,
            &format!("SHOW RETENTION POLICIES ON \"{database}\""),
        ) {
            for policy in policies.values {
                let policy = policy[0].as_str().unwrap();
                let from = format!("\"{database}\".\"{policy}\"./.*/");
                let all = self.query_each(database, &format!("SELECT * FROM {from} GROUP BY *"));
                all.for_each(|series| contents.add(policy, &series));
            }
        }
        for fields in self.query(database, &format!("SHOW FIELD KEYS ON \"{database}\"")) {
            for field in &fields.values {
                let sum = sum_of(&(&fields.name, field[0].as_str(), field[1].as_str()));
                contents.checksum = contents.checksum.wrapping_add(sum);
            }
        }
        contents
    }
}

impl Contents {
    /// Adds the points of a series, or of a part of it.
    fn add(&mut self, policy: &str, series: &Series) {
        let mut hasher = DefaultHasher::new();
        (policy, &series.name, &series.tags).hash(&mut hasher);
        for values in &series.values {
            let mut hasher = hasher.clone();
            for (column, value) in series.columns.iter().zip(values) {
                // A point does not have all fields of its series.
                if !value.is_null() {
                    (column, value.to_string()).hash(&mut hasher);
                }
            }
            self.points += 1;
            self.checksum = self.checksum.wrapping_add(hasher.finish());
        }
    }
}

fn sum_of(it: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    it.hash(&mut hasher);
    hasher.finish()
}

#[derive(Debug, Deserialize)]
struct QueryAnswer {
    #[serde(default)]
    results: Vec<QueryResult>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct QueryResult {
    #[serde(default)]
    series: Vec<Series>,
    error: Option<String>,
}

/// A table that a query gives.
#[derive(Debug, Deserialize)]
pub struct Series {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    pub columns: Vec<String>,
    #[serde(default)]
    pub values: Vec<Vec<Value>>,
}

impl Process {
    fn watched(influxd: Child) -> Process {
        let mut watchdog = Command::new("sh")
            .arg("-c")
            .arg(format!("read -r _ || kill -9 {}", influxd.id()))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        Process {
            influxd,
            watchdog_input: watchdog.stdin.take().unwrap(),
            watchdog,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing of it may panic while another panic unwinds.
        let _ = self.influxd.kill();
        let _ = self.influxd.wait();
        let _ = self.watchdog_input.write_all(b"done\n");
        let _ = self.watchdog.wait();
    }
}

fn is_installed() -> bool {
    let version = Command::new("influxd").arg("version").output();
    version.is_ok_and(|it| it.status.success())
}

fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
