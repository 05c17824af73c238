//! The main job on real input: three replicas, one of them killed, a coordinator that is killed
//! too, and not one point lost.
//!
//! ```text
//! cargo run --release --example cluster            # a progress bar, or plain lines
//! cargo run --release --example cluster -- --keep  # goes on until Ctrl-C, see below
//! HH_LOG=1 cargo run --release --example cluster   # with the log of the coordinator
//! ```
//!
//! The binary starts itself as four processes that speak a small length-prefixed protocol over TCP
//! on loopback (`protocol.rs`): three replicas (`replica.rs`), each with a sled database of its own
//! (`table.rs`), and a coordinator (`coordinator.rs`), which is the host of the library: it writes
//! what clients send it to all three replicas at `Quorum` through a `PointsWriter`, and a
//! `HintedHandoff` keeps what a replica missed. The process you start is the director of the story
//! (`story.rs`) and its clients (`client.rs`), who write daily and hourly weather from
//! `examples/data/`, a few points a write, one client a series:
//!
//! 1. All are up; a quarter of the points is written.
//! 2. Replica 3 is killed with SIGKILL. Writing goes on, and hints for it pile up at the
//!    coordinator.
//! 3. Half-way the coordinator is killed with SIGKILL as well, and started again. It finds its
//!    hints on disk.
//! 4. At three quarters replica 3 comes back and its hints are replayed, while the clients go on
//!    writing.
//! 5. In the middle of that replay the coordinator is killed a second time. Whatever replica 3 had
//!    taken without the coordinator noting it down is sent again, and suppressed there by its
//!    sequence.
//! 6. When nothing waits any more, every replica's content is compared with the input, point by
//!    point.
//!
//! While it runs the coordinator serves a page, and a socket for `hh` (`operating.rs`). With
//! `--keep` all is started once more at the end, replica 3 is killed, and points are written to the
//! others until Ctrl-C, so that there is something to look at; the databases are left behind.
//!
//! Printed are what was hinted, replayed, redelivered and lost, and where each number was counted
//! (`report.rs`). The exit code is 0 if every replica holds exactly the input, and 1 if one does
//! not or something else went wrong. It takes about ten seconds, and gives up after 55.

mod client;
mod coordinator;
mod operating;
mod points;
mod process;
mod protocol;
mod replica;
mod report;
mod screen;
mod server;
mod story;
mod table;

use std::{path::Path, process::ExitCode};

use hinted_handoff::NodeId;
use protocol::Failure;

const USAGE: &str = "usage: cluster [--keep]";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        [] => story::run(false).await,
        ["--keep"] => story::run(true).await,
        // The roles that the story starts.
        ["replica", id, root] => as_replica(id, Path::new(root)).await,
        ["coordinator", root] => coordinator::run(Path::new(root)).await,
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let name = match arguments.as_slice() {
                ["replica", id, ..] => format!("replica-{id}"),
                ["coordinator", ..] => "coordinator".to_owned(),
                _ => "cluster".to_owned(),
            };
            eprintln!("{name}: {}", protocol::with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn as_replica(id: &str, root: &Path) -> Result<(), Failure> {
    let id = id
        .parse()
        .map_err(|_| format!("the id of a replica is a number, not {id:?}"))?;
    replica::run(root, NodeId(id)).await
}
