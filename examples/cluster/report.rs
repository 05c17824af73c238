//! The outcome: every replica's content against the input, and the counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use hinted_handoff::NodeId;

use crate::{
    client::Ledger,
    points::Point,
    protocol::{
        Connection, Counters, Failure, ReplicaAnswer, ReplicaRequest, Status, replica_name,
    },
};

/// Differences of a replica that are shown one by one.
const SHOWN: usize = 3;

pub struct Report {
    pub input: Vec<Point>,
    /// Writes the input was cut into.
    pub writes: usize,
    pub ledger: Arc<Ledger>,
    pub coordinator_kills: u32,
    /// The last status of each life of the coordinator.
    pub lives: Vec<Status>,
    pub replicas: Vec<Replica>,
}

/// What a replica holds and counted.
pub struct Replica {
    node: NodeId,
    kills: u32,
    points: Vec<Point>,
    counters: Counters,
}

/// How a replica's content differs from the input.
#[derive(Default)]
struct Differences<'a> {
    missing: BTreeSet<Key<'a>>,
    changed: BTreeSet<Key<'a>>,
    foreign: BTreeSet<Key<'a>>,
}

type Key<'a> = (&'a str, i64);

impl Replica {
    pub async fn inspect(root: &Path, node: NodeId, kills: u32) -> Result<Self, Failure> {
        let mut connection = Connection::open(root, &replica_name(node)).await?;
        match connection.call(&ReplicaRequest::Dump).await? {
            ReplicaAnswer::Dump { points, counters } => Ok(Replica {
                node,
                kills,
                points,
                counters,
            }),
            other => Err(format!("{} answered a dump with {other:?}", replica_name(node)).into()),
        }
    }
}

impl Report {
    /// Prints everything; an error if a replica does not hold exactly the input.
    pub fn print_and_judge(&self) -> Result<(), Failure> {
        let input = by_key(&self.input);
        let differences: Vec<Differences> = self
            .replicas
            .iter()
            .map(|replica| compare(&input, &by_key(&replica.points)))
            .collect();
        self.print_clients();
        self.print_coordinator();
        self.print_replicas(&differences);

        let counters = self.replicas.iter().map(|replica| &replica.counters);
        let replayed: u64 = counters.clone().map(|counters| counters.hints).sum();
        let redelivered: u64 = counters.map(|counters| counters.redelivered).sum();
        let backlogs = self.lives.iter().flat_map(|life| &life.backlogs);
        let hinted: u64 = backlogs.map(|backlog| backlog.stored).sum();
        let missing = differences.iter().flat_map(|found| &found.missing);
        let lost: BTreeSet<&Key> = missing.collect();
        println!(
            "\n{} points in; hints: {hinted} hinted (as last seen before each kill), {replayed} replayed, \
             {redelivered} redelivered; {} points lost",
            self.input.len(),
            lost.len(),
        );
        let differing = self.replicas.iter().zip(&differences);
        let differing: Vec<String> = differing
            .filter(|(_, found)| !found.is_empty())
            .map(|(replica, _)| replica_name(replica.node))
            .collect();
        if !differing.is_empty() {
            return Err(format!("not what the input is: {}", differing.join(", ")).into());
        }
        println!("every replica holds exactly the input");
        Ok(())
    }

    fn print_clients(&self) {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        let rows = [
            ("points in the input", self.input.len() as u64),
            ("writes they were cut into", self.writes as u64),
            ("acknowledged at quorum", count(&self.ledger.acknowledged)),
            (
                "of these written again after a coordinator's death",
                count(&self.ledger.repeated),
            ),
            (
                "did not reach a quorum, tried again",
                count(&self.ledger.refused),
            ),
        ];
        println!("\nAt the clients, in writes but for the first");
        for (what, number) in rows {
            println!("  {what:<52}{number:>10}");
        }
    }

    fn print_coordinator(&self) {
        println!(
            "\nAt the coordinator, killed {} times, in hints (a life that was killed: as last seen before)",
            self.coordinator_kills
        );
        println!(
            "  {:<22}{:>14}{:>10}{:>12}{:>10}{:>10}",
            "", "found at open", "stored", "delivered", "waiting", "lost"
        );
        for (life, status) in (1..).zip(&self.lives) {
            for backlog in &status.backlogs {
                println!(
                    "  {:<22}{:>14}{:>10}{:>12}{:>10}{:>10}",
                    format!("life {life}, {}", replica_name(backlog.node)),
                    backlog.found,
                    backlog.stored,
                    backlog.delivered,
                    backlog.pending,
                    backlog.lost
                );
            }
        }
    }

    fn print_replicas(&self, differences: &[Differences]) {
        let row = |what: &str, cells: Vec<String>| {
            let cells: String = cells.iter().map(|cell| format!("{cell:>12}")).collect();
            println!("  {what:<52}{cells}");
        };
        let count = |what: &str, number: fn(&Replica) -> u64| {
            let numbers = self
                .replicas
                .iter()
                .map(|replica| number(replica).to_string());
            row(what, numbers.collect());
        };
        let differ = |what: &str, number: fn(&Differences) -> usize| {
            let numbers = differences.iter().map(|found| number(found).to_string());
            row(what, numbers.collect());
        };
        println!("\nAt the replicas, over all their lives");
        let names = self
            .replicas
            .iter()
            .map(|replica| replica_name(replica.node));
        row("", names.collect());
        count("times killed", |replica| replica.kills.into());
        count("direct writes applied", |replica| replica.counters.direct);
        count("hints replayed: applied, each id once", |replica| {
            replica.counters.hints
        });
        count("  points in them", |replica| replica.counters.hint_points);
        count(
            "hints redelivered: sequence applied before, skipped",
            |replica| replica.counters.redelivered,
        );
        count(
            "redundant points: same value again, from a write",
            |replica| replica.counters.redundant_direct,
        );
        count("  and from a hint", |replica| {
            replica.counters.redundant_hinted
        });
        count("points held", |replica| replica.points.len() as u64);
        differ("points lost: in the input, not held", |found| {
            found.missing.len()
        });
        differ("points held with other fields", |found| found.changed.len());
        differ("points held that are not in the input", |found| {
            found.foreign.len()
        });
        for (replica, found) in self.replicas.iter().zip(differences) {
            found.show(replica.node);
        }
    }
}

impl Differences<'_> {
    fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.changed.is_empty() && self.foreign.is_empty()
    }

    /// The first few of each kind.
    fn show(&self, node: NodeId) {
        let kinds = [
            ("lost", &self.missing),
            ("with other fields", &self.changed),
            ("not in the input", &self.foreign),
        ];
        for (kind, points) in kinds {
            for (series, timestamp) in points.iter().take(SHOWN) {
                println!("  {}, {kind}: {series} {timestamp}", replica_name(node));
            }
        }
    }
}

fn by_key(points: &[Point]) -> BTreeMap<Key<'_>, &str> {
    let entries = points.iter();
    entries
        .map(|point| {
            let key = (point.series.as_str(), point.timestamp);
            (key, point.fields.as_str())
        })
        .collect()
}

fn compare<'a>(input: &BTreeMap<Key<'a>, &str>, held: &BTreeMap<Key<'a>, &str>) -> Differences<'a> {
    let mut found = Differences::default();
    for (key, fields) in input {
        match held.get(key) {
            None => found.missing.insert(*key),
            Some(held) if held != fields => found.changed.insert(*key),
            Some(_) => false,
        };
    }
    let foreign = held.keys().filter(|key| !input.contains_key(*key));
    found.foreign.extend(foreign.copied());
    found
}
