//! The director: starts the servers and the clients, kills, restarts, waits, and has the outcome
//! judged.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use hinted_handoff::{NodeId, ShardId};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    client::{Client, Ledger},
    operating,
    points::{self, Point},
    process::Process,
    protocol::{
        COORDINATOR, Connection, CoordinatorAnswer, CoordinatorRequest, Failure, REPLICAS, Status,
        replica_name,
    },
    report::{Replica, Report},
    screen::{Screen, poll},
};

/// A run takes about ten seconds, and twice that on a busy disk.
const STORY_MAX: Duration = Duration::from_secs(55);
const LOOK: Duration = Duration::from_millis(10);
/// How often a point is written while all is kept up.
const WRITE_EVERY: Duration = Duration::from_millis(50);
/// The replica that is killed.
const VICTIM: NodeId = NodeId(3);

pub async fn run(keep: bool) -> Result<(), Failure> {
    let input = points::input()?;
    let mut dir = tempfile::tempdir()?;
    dir.disable_cleanup(keep);
    let screen = Screen::new(input.len() as u64)?;
    let mut cluster = Cluster::new(dir.path().to_owned(), &screen);
    let outcome = match timeout(STORY_MAX, cluster.play(input)).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let status = timeout(Duration::from_secs(1), cluster.status()).await;
            let why = "not at its end after";
            Err(format!("{why} {STORY_MAX:?}; the coordinator says: {status:?}").into())
        }
    };
    screen.finish();
    let mut judged = outcome.and_then(|report| report.print_and_judge());
    if keep {
        if judged.is_ok() {
            judged = cluster.stay().await;
        }
        println!("the databases are left in {}", dir.path().display());
    }
    // Before the directory is removed, lest a dying server puts something into it.
    cluster.end().await?;
    judged
}

type Clients = JoinSet<Result<(), Failure>>;

struct Cluster<'screen> {
    root: PathBuf,
    screen: &'screen Screen,
    replicas: Vec<(NodeId, Process)>,
    coordinator: Process,
    /// To ask the coordinator how it stands.
    connection: Option<Connection>,
    /// The last that was heard from each life of the coordinator.
    lives: Vec<Status>,
}

impl<'screen> Cluster<'screen> {
    fn new(root: PathBuf, screen: &'screen Screen) -> Self {
        let replicas = REPLICAS.map(|node| {
            let role = ["replica", &node.to_string()];
            (node, Process::new(&root, &replica_name(node), &role))
        });
        Cluster {
            replicas: replicas.into(),
            coordinator: Process::new(&root, COORDINATOR, &[COORDINATOR]),
            root,
            screen,
            connection: None,
            lives: Vec::new(),
        }
    }

    async fn play(&mut self, input: Vec<Point>) -> Result<Report, Failure> {
        for (_, replica) in &mut self.replicas {
            replica.start().await?;
        }
        self.coordinator.start().await?;
        self.screen.say(&format!(
            "three replicas and a coordinator are up; its page is at http://{}/",
            operating::page(&self.root)?
        ));

        let ledger = Arc::new(Ledger::default());
        let mut clients = Clients::new();
        let mut writes = 0;
        for (shard, points) in (1..).zip(by_series(&input)) {
            let client = Client::new(
                self.root.clone(),
                ShardId(shard),
                &points,
                Arc::clone(&ledger),
            );
            writes += client.writes();
            clients.spawn(client.run());
        }

        let screen = self.screen;
        let watch = screen.watch(self.root.clone(), Arc::clone(&ledger));
        let total = input.len() as u64;
        tokio::select! {
            done = self.act(total, &ledger, clients) => done?,
            never = watch => match never {},
        }
        let mut replicas = Vec::new();
        for (node, process) in &mut self.replicas {
            replicas.push(Replica::inspect(&self.root, *node, process.kills).await?);
            process.stop().await?;
        }
        Ok(Report {
            input,
            writes,
            ledger,
            coordinator_kills: self.coordinator.kills,
            lives: std::mem::take(&mut self.lives),
            replicas,
        })
    }

    /// The story proper: see `main.rs`.
    async fn act(
        &mut self,
        total: u64,
        ledger: &Ledger,
        mut clients: Clients,
    ) -> Result<(), Failure> {
        let screen = self.screen;
        let written = || ledger.points.load(Relaxed);
        let victim = replica_name(VICTIM);

        while written() < total / 4 {
            self.look(&mut clients).await?;
        }
        self.victim()?.kill().await?;
        screen.say(&format!("{victim} is killed (SIGKILL)"));

        while written() < total / 2 {
            self.look(&mut clients).await?;
        }
        self.replace_coordinator().await?;

        while written() < total / 4 * 3 {
            self.look(&mut clients).await?;
        }
        self.victim()?.start().await?;
        screen.say(&format!("{victim} is back; its hints are replayed"));

        let backlog = self.status().await?.pending(VICTIM);
        while self.status().await?.pending(VICTIM) > backlog / 2 {
            self.look(&mut clients).await?;
        }
        self.replace_coordinator().await?;

        while !clients.is_empty() {
            self.look(&mut clients).await?;
        }
        screen.say("all points are written");

        let last = loop {
            let status = self.status().await?;
            let drained = status.backlogs.iter().all(|backlog| backlog.pending == 0);
            // A copy still on its way may yet become a hint.
            if drained && status.settled == status.received {
                break status;
            }
            self.look(&mut clients).await?;
        };
        screen.say("no hint waits any more");
        self.lives.push(last);
        match self.ask(&CoordinatorRequest::Shutdown).await? {
            CoordinatorAnswer::Closed => {}
            other => return Err(format!("a shutdown was answered with {other:?}").into()),
        }
        self.coordinator.stop().await
    }

    /// Has all up once more but for one replica, and writes until somebody presses Ctrl-C.
    async fn stay(&mut self) -> Result<(), Failure> {
        for (node, replica) in &mut self.replicas {
            if *node != VICTIM {
                replica.start().await?;
            }
        }
        self.coordinator.start().await?;
        println!(
            "\n{} is down, points are written, until Ctrl-C:\n  http://{}/\n  hh status --socket {}",
            replica_name(VICTIM),
            operating::page(&self.root)?,
            operating::socket(&self.root).display()
        );
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        let mut number = 0_u64;
        loop {
            number += 1;
            let shard = ShardId(1 + number % 4);
            let lines = format!("kept,series={} value={number} {number}", shard.0);
            let write = CoordinatorRequest::Write { shard, lines };
            tokio::select! {
                interrupted = &mut interrupted => {
                    // Whoever comes next shall not take it for one that is served.
                    drop(std::fs::remove_file(operating::socket(&self.root)));
                    return Ok(interrupted?);
                }
                written = self.ask(&write) => {
                    if let CoordinatorAnswer::NotWritten(why) = written? {
                        println!("a write failed: {why}");
                    }
                }
            }
            sleep(WRITE_EVERY).await;
        }
    }

    /// Kills the coordinator, whatever it is doing, and starts it again.
    async fn replace_coordinator(&mut self) -> Result<(), Failure> {
        let last = self.status().await?;
        self.coordinator.kill().await?;
        self.connection = None;
        self.screen.say(&format!(
            "the coordinator is killed (SIGKILL); {} hints for {} were waiting",
            last.pending(VICTIM),
            replica_name(VICTIM)
        ));
        self.lives.push(last);
        self.coordinator.start().await?;
        let status = self.status().await?;
        let mut backlogs = status.backlogs.iter();
        let backlog = backlogs.find(|backlog| backlog.node == VICTIM);
        self.screen.say(&format!(
            "the coordinator is back; it found {} on its disk",
            backlog.map_or(0, |backlog| backlog.found)
        ));
        Ok(())
    }

    /// Lets a moment pass, in which neither a server nor a client may have failed.
    async fn look(&mut self, clients: &mut Clients) -> Result<(), Failure> {
        for (_, replica) in &mut self.replicas {
            replica.check()?;
        }
        self.coordinator.check()?;
        while let Some(ended) = clients.try_join_next() {
            ended??;
        }
        sleep(LOOK).await;
        Ok(())
    }

    /// Leaves no server behind, however the story ended.
    async fn end(&mut self) -> Result<(), Failure> {
        for (_, replica) in &mut self.replicas {
            replica.kill().await?;
        }
        self.coordinator.kill().await
    }

    fn victim(&mut self) -> Result<&mut Process, Failure> {
        let mut replicas = self.replicas.iter_mut();
        let victim = replicas.find(|(node, _)| *node == VICTIM);
        victim
            .map(|(_, process)| process)
            .ok_or_else(|| format!("there is no {}", replica_name(VICTIM)).into())
    }

    async fn status(&mut self) -> Result<Status, Failure> {
        poll(&mut self.connection, &self.root).await
    }

    async fn ask(&mut self, request: &CoordinatorRequest) -> Result<CoordinatorAnswer, Failure> {
        let mut connection = Connection::open(&self.root, COORDINATOR).await?;
        connection.call(request).await
    }
}

/// The points of each series, in the order of the input: each series is a shard, with a client of
/// its own.
fn by_series(input: &[Point]) -> Vec<Vec<Point>> {
    let mut series: BTreeMap<&str, Vec<Point>> = BTreeMap::new();
    for point in input {
        series.entry(&point.series).or_default().push(point.clone());
    }
    series.into_values().collect()
}
