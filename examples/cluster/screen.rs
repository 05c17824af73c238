//! What is seen while it runs: bars on a terminal, plain lines elsewhere.

use std::{
    convert::Infallible,
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use hinted_handoff::NodeId;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::{interval, timeout};

use crate::{
    client::Ledger,
    protocol::{
        COORDINATOR, Connection, CoordinatorAnswer, CoordinatorRequest, Failure, REPLICAS, Status,
        replica_name,
    },
};

const REFRESH: Duration = Duration::from_millis(100);
/// Refreshes from one plain line to the next.
const REFRESHES_A_LINE: u32 = 10;

pub struct Screen {
    started: Instant,
    points_total: u64,
    bars: Option<Bars>,
}

struct Bars {
    all: MultiProgress,
    points: ProgressBar,
    backlogs: Vec<(NodeId, ProgressBar)>,
}

impl Screen {
    pub fn new(points_total: u64) -> Result<Self, Failure> {
        let bars = if std::io::stderr().is_terminal() {
            Some(Bars::new(points_total)?)
        } else {
            None
        };
        Ok(Screen {
            started: Instant::now(),
            points_total,
            bars,
        })
    }

    /// Something happened.
    pub fn say(&self, text: &str) {
        let line = format!("[{:5.1} s] {text}", self.started.elapsed().as_secs_f32());
        match &self.bars {
            // Above the bars; a terminal that is gone is no reason to stop.
            Some(bars) => bars.all.println(line).unwrap_or(()),
            None => println!("{line}"),
        }
    }

    /// Shows how clients and coordinator stand, until dropped.
    pub async fn watch(&self, root: PathBuf, ledger: Arc<Ledger>) -> Infallible {
        let mut refreshes = interval(REFRESH);
        let mut connection = None;
        let mut refreshes_to_line = REFRESHES_A_LINE;
        loop {
            refreshes.tick().await;
            refreshes_to_line -= 1;
            let points = ledger.points.load(Relaxed);
            let status = match timeout(REFRESH, poll(&mut connection, &root)).await {
                Ok(Ok(status)) => Some(status),
                // Without a coordinator there is no backlog to be seen.
                _ => {
                    connection = None;
                    None
                }
            };
            match &self.bars {
                Some(bars) => bars.show(points, status.as_ref()),
                None if refreshes_to_line == 0 => {
                    refreshes_to_line = REFRESHES_A_LINE;
                    let (total, backlog) = (self.points_total, in_words(status.as_ref()));
                    self.say(&format!(
                        "{points} of {total} points written; hints that wait: {backlog}"
                    ));
                }
                None => {}
            }
        }
    }

    /// Leaves the bars as they are and the rest of the terminal to others.
    pub fn finish(&self) {
        if let Some(bars) = &self.bars {
            bars.points.abandon();
            bars.backlogs.iter().for_each(|(_, bar)| bar.abandon());
        }
    }
}

impl Bars {
    fn new(points_total: u64) -> Result<Self, Failure> {
        let points = ProgressStyle::with_template("{msg:<22} {bar:40} {pos}/{len}")?;
        let backlog = ProgressStyle::with_template("{prefix:<22} {bar:40} {pos} {msg}")?;
        let all = MultiProgress::new();
        let bar = all.add(ProgressBar::new(points_total).with_style(points));
        bar.set_message("points written");
        let backlogs = REPLICAS.map(|node| {
            let bar = all.add(ProgressBar::new(1).with_style(backlog.clone()));
            bar.set_prefix(format!("backlog of {}", replica_name(node)));
            (node, bar)
        });
        Ok(Bars {
            all,
            points: bar,
            backlogs: backlogs.into(),
        })
    }

    fn show(&self, points: u64, status: Option<&Status>) {
        self.points.set_position(points);
        for (node, bar) in &self.backlogs {
            let Some(status) = status else {
                bar.set_message("hints when last seen, no coordinator");
                continue;
            };
            let pending = status.pending(*node);
            bar.set_message("hints");
            // As long as the longest backlog so far.
            bar.set_length(bar.length().unwrap_or(1).max(pending));
            bar.set_position(pending);
        }
    }
}

fn in_words(status: Option<&Status>) -> String {
    let Some(status) = status else {
        return "unknown, no coordinator".to_owned();
    };
    let backlogs = REPLICAS.map(|node| format!("{} {}", replica_name(node), status.pending(node)));
    backlogs.join(", ")
}

/// Asks the coordinator how it stands.
pub async fn poll(connection: &mut Option<Connection>, root: &Path) -> Result<Status, Failure> {
    let open = match connection {
        Some(open) => open,
        None => connection.insert(Connection::open(root, COORDINATOR).await?),
    };
    match open.call(&CoordinatorRequest::Status).await? {
        CoordinatorAnswer::Status(status) => Ok(status),
        other => {
            Err(format!("{COORDINATOR} answered a question for its status with {other:?}").into())
        }
    }
}
