//! Hosts that run, and the program asking them.

#![allow(dead_code)]

use std::{
    io,
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hinted_handoff::{Config, HintedHandoff, NodeId, ShardId, Stats};
use hinted_handoff_admin::{Address, Server, Settings, serve};
use hinted_handoff_testkit::{Reply, ScriptedWriter};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::stores::{code, err, hh, out};

/// Nodes of these tests: one that is away, one that takes all, one that rejects.
pub const AWAY: NodeId = NodeId(2);
pub const WELL: NodeId = NodeId(3);
pub const STRICT: NodeId = NodeId(4);
pub const SHARD: ShardId = ShardId(7);

/// A host with its socket, and the program asking it.
pub struct Host {
    pub dir: tempfile::TempDir,
    pub runtime: Runtime,
    pub handoff: HintedHandoff<Bytes>,
    _server: Server,
}

impl Host {
    pub fn start() -> Host {
        Host::with(Settings {
            read_only: false,
            ..Settings::default()
        })
    }

    pub fn with(settings: Settings) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let writer = ScriptedWriter::new(|write| match write.node {
            WELL => Reply::Take,
            STRICT => Reply::Reject,
            _ => Reply::Retry,
        });
        let config = Config {
            retry_interval: Duration::from_millis(10),
            retry_max_interval: Duration::from_millis(50),
            min_free_disk: 0,
            ..Config::new(dir.path().join("hints"))
        };
        let settings = Settings {
            node_names: Some(Arc::new(|node| Some(format!("replica-{node}")))),
            ..settings
        };
        let address = Address::Unix(dir.path().join("hh.sock"));
        let (handoff, server) = runtime.block_on(async {
            let handoff = HintedHandoff::open(config, writer).await.unwrap();
            let server = serve(&handoff, settings, address).await.unwrap();
            (handoff, server)
        });
        Host {
            dir,
            runtime,
            handoff,
            _server: server,
        }
    }

    pub fn hint(&self, node: NodeId, texts: &[&str]) {
        for text in texts {
            let points = Bytes::from(text.to_string());
            let written = self.handoff.write_shard(node, SHARD, &points);
            self.runtime.block_on(written).unwrap();
        }
    }

    pub fn until(&self, wished: impl Fn(&Stats) -> bool) {
        let by = Instant::now() + Duration::from_secs(60);
        while !wished(&self.handoff.stats()) {
            assert!(Instant::now() < by, "{:?}", self.handoff.stats());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn pending(&self, node: NodeId) -> u64 {
        let stats = self.handoff.stats();
        let node = stats.nodes.iter().find(|it| it.node == node);
        node.map_or(0, |it| it.pending.hints)
    }

    pub fn letters(&self) -> u64 {
        let nodes = self.handoff.stats().nodes;
        nodes.iter().map(|it| it.dead_letters.hints).sum()
    }

    /// With a dead letter.
    pub fn with_letter(&self) {
        self.hint(STRICT, &["refused"]);
        self.until(|stats| stats.nodes.iter().any(|it| it.dead_letters.hints > 0));
    }

    /// Has the writes to the node that takes all become hints that wait.
    pub fn hold_well(&self) {
        self.ok(&["direct", "hold", "3", "--unknown"]);
        // Only a node that has a queue is paused.
        self.hint(WELL, &["first"]);
        assert_eq!(self.ok(&["drain", "3"]), "delivered\n");
        assert_eq!(self.ok(&["pause", "3"]), "done\n");
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("hh.sock")
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        at(&self.socket(), arguments)
    }

    /// What is printed, if it went well.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(code(&output), 0, "{arguments:?}: {}", err(&output));
        out(&output)
    }

    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [&["--json"], arguments].concat();
        serde_json::from_str(&self.ok(&arguments)).unwrap()
    }

    /// What is said of it, if it failed with this exit status.
    #[track_caller]
    pub fn fails(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(code(&output), status, "{arguments:?}: {}", err(&output));
        err(&output)
    }
}

pub fn at(socket: &Path, arguments: &[&str]) -> Output {
    hh(arguments).env("HH_SOCKET", socket).output().unwrap()
}

/// The cells of the row that begins with this.
#[track_caller]
pub fn row<'a>(text: &'a str, first: &str) -> Vec<&'a str> {
    let rows = text.lines().map(|it| it.split('\t').collect::<Vec<_>>());
    let mut rows = rows.filter(|it| it.first() == Some(&first));
    rows.next().unwrap_or_else(|| panic!("{first}: {text}"))
}

/// Stands between the program and a host, and lets nothing through when it is told so.
pub struct Between {
    dir: tempfile::TempDir,
    pub hangs: Arc<AtomicBool>,
}

impl Between {
    pub fn stand(host: &Host) -> Between {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("hh.sock")).unwrap();
        let hangs = Arc::new(AtomicBool::new(false));
        let (is_hanging, behind) = (hangs.clone(), host.socket());
        thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                match is_hanging.load(Relaxed) {
                    true => kept.push(stream),
                    false => pass(stream, UnixStream::connect(&behind).unwrap()),
                }
            }
        });
        Between { dir, hangs }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("hh.sock")
    }
}

/// Passes on what each of both says, until it ends.
fn pass(one: UnixStream, other: UnixStream) {
    let ways = [(&one, &other), (&other, &one)];
    for (from, to) in ways.map(|(a, b)| (a.try_clone().unwrap(), b.try_clone().unwrap())) {
        thread::spawn(move || {
            let (mut from, mut to) = (from, to);
            drop(io::copy(&mut from, &mut to));
            drop(to.shutdown(Shutdown::Write));
        });
    }
}
