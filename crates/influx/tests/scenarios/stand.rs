//! Three servers, a relay before them, and a fourth server that is written to directly.

use std::time::Instant;

use crate::{
    clients,
    influxd::{Contents, Influxd},
    input::{self, CLIENTS},
    relay::{Relay, count, until},
};

pub const DATABASE: &str = "metrics";

pub struct Stand {
    pub servers: Vec<Influxd>,
    pub relay: Relay,
    /// What it is compared with.
    pub direct: Influxd,
    began: Instant,
}

/// What became of points that some server has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Records {
    /// Hints that are dead letters.
    pub dead_letters: u64,
    /// Hints that were lost, with an entry of the journal.
    pub losses: u64,
}

impl Stand {
    /// `None` where influxd is not installed.
    pub fn new() -> Option<Stand> {
        let mut servers = Vec::new();
        for _ in 0..3 {
            servers.push(Influxd::start()?);
        }
        let direct = Influxd::start()?;
        for server in servers.iter().chain([&direct]) {
            server.create_database(DATABASE);
        }
        Some(Stand::before(servers, direct))
    }

    /// A relay before servers that are there.
    pub fn before(servers: Vec<Influxd>, direct: Influxd) -> Stand {
        let urls: Vec<String> = servers.iter().map(Influxd::url).collect();
        Stand {
            relay: Relay::start(&urls),
            servers,
            direct,
            began: Instant::now(),
        }
    }

    /// Waits until no hint waits.
    pub fn until_delivered(&self) {
        until("the hints to leave", || {
            (self.relay.pending() == 0).then_some(())
        });
    }

    /// Writes all points to the fourth server, which takes them as they are.
    pub fn write_directly(&self, points: u64) {
        for client in 0..CLIENTS {
            for batch in input::batches(points) {
                clients::write(&self.direct.url(), &input::batch(client, batch));
            }
        }
    }

    /// What each server has, beside what the fourth one has.
    pub fn contents(&self) -> (Vec<Contents>, Contents) {
        let contents = self.servers.iter().map(|it| it.contents(DATABASE));
        (contents.collect(), self.direct.contents(DATABASE))
    }

    /// What is recorded of points that a server has not.
    pub fn records(&self) -> Records {
        let status = self.relay.told("/v1/status");
        let lost = status.pointer("/store/lost").and_then(|it| it.as_object());
        let lost = lost.into_iter().flatten();
        // A hint that leaves since its direct send succeeded is no loss.
        let lost = lost.filter(|(reason, _)| *reason != "withdrawn");
        Records {
            dead_letters: count(&status, "/dead_letters/hints"),
            losses: lost.map(|(_, amount)| count(amount, "/hints")).sum(),
        }
    }

    /// Each server has all points, nothing is a dead letter, and nothing was lost.
    pub fn assert_all_have(&self, story: &str, points: u64) {
        self.until_delivered();
        let took = self.began.elapsed();
        self.write_directly(points);
        let (contents, direct) = self.contents();
        println!(
            "| {story} | {} | {} | {:?} | {:.1} s | {} MiB |",
            direct.points,
            contents
                .iter()
                .map(|it| it.points.to_string())
                .collect::<Vec<_>>()
                .join(", "),
            self.records(),
            took.as_secs_f64(),
            self.relay.memory_max() >> 20,
        );
        assert_eq!(contents, vec![direct; contents.len()]);
        assert_eq!(self.records(), Records::default());
    }
}
