//! `hh losses`: the loss journal of a closed store, or of a host that runs.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use hinted_handoff::{Loss, Losses as LossJournal, NodeId};

use crate::{
    client::{Client, HostIfAny},
    failure::{Failure, exit_if_damaged, told_with},
    json::name_of,
    output::Output,
    progress::open,
};

/// How often it is looked for more.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Entries that a host gives at once, at most.
const PAGE: usize = 10_000;

/// Say which hints of a store left undelivered, and why: its loss journal.
///
/// Of a store that nobody has open, in whose directory nothing is changed, or of a host that runs.
/// Exits with 1 if entries do not read; with --follow these are told, and it goes on. With --follow
/// and --json a document is a line, and there is one each time that something was lost.
#[derive(Debug, Args)]
pub struct Losses {
    /// The store's directory, or a folder with sled's files in it.
    dir: Option<PathBuf>,
    #[command(flatten)]
    host: HostIfAny,
    /// Go on with what is lost from now on, until nobody reads it any more. Of a host only.
    #[arg(long, conflicts_with = "dir")]
    follow: bool,
    /// Only entries of this index and above.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    since: u64,
    /// Only those of this node.
    #[arg(long)]
    node: Option<NodeId>,
}

impl Losses {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let Some(dir) = &self.dir else {
            return self.of_host(output);
        };
        let store = open(dir)?;
        let losses = self.of_node(store.losses(self.since));
        self.print(output, &losses)?;
        Ok(told_with(tell_unreadable(&losses), store.findings()))
    }

    fn of_host(&self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.host.host()?)?;
        let mut since = self.since;
        loop {
            let losses = all(&client, since)?;
            since = losses.next;
            let losses = self.of_node(losses);
            if !self.follow {
                self.print(output, &losses)?;
                return Ok(exit_if_damaged(tell_unreadable(&losses)));
            }
            tell_unreadable(&losses);
            if !losses.entries.is_empty() {
                match output.is_json() {
                    true => output.json_line(&losses)?,
                    false => self.print(output, &losses)?,
                }
                output.finish()?;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn of_node(&self, losses: LossJournal) -> LossJournal {
        match self.node {
            Some(node) => losses.of_node(node),
            None => losses,
        }
    }

    fn print(&self, output: &mut Output, losses: &LossJournal) -> Result<(), Failure> {
        if output.is_json() {
            return output.json(losses);
        }
        let rows = losses.entries.iter();
        let rows = rows
            .map(|(index, loss)| row(output, *index, loss))
            .collect();
        let header = [
            "index", "node", "shard", "queue", "first", "last", "hints", "bytes", "reason",
            "since", "until",
        ];
        output.table(&header, rows)
    }
}

/// Tells on stderr which entries do not read, and says whether there are any.
fn tell_unreadable(losses: &LossJournal) -> bool {
    for index in &losses.unreadable {
        anstream::eprintln!("hh: entry {index} of the loss journal does not read");
    }
    !losses.unreadable.is_empty()
}

/// All pages from an index on as one: mostly the first has all that the journal keeps.
fn all(client: &Client, since: u64) -> Result<LossJournal, Failure> {
    let page = |since: u64| {
        let path = format!("/v1/losses?since={since}&max={PAGE}");
        client.get::<LossJournal>(&path)
    };
    let mut all = page(since)?;
    let mut is_last = all.entries.len() < PAGE;
    while !is_last {
        let more = page(all.next)?;
        is_last = more.entries.len() < PAGE;
        // What stands beside the entries is told of all from an index on.
        all.entries.extend(more.entries);
        (all.next, all.by_reason) = (more.next, more.by_reason);
    }
    Ok(all)
}

fn row(output: &Output, index: u64, loss: &Loss) -> Vec<String> {
    let text = |it: Option<u64>| it.map_or("-".to_owned(), |it| it.to_string());
    vec![
        index.to_string(),
        loss.node.to_string(),
        text(loss.shard.map(|it| it.0)),
        text(loss.place.map(|it| it.queue.0)),
        text(loss.place.map(|it| it.first.0)),
        text(loss.place.map(|it| it.last.0)),
        loss.amount.hints.to_string(),
        output.bytes(loss.amount.bytes),
        name_of(&loss.reason),
        output.time(Some(loss.since_unix_ms)),
        output.time(Some(loss.until_unix_ms)),
    ]
}
