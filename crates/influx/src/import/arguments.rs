//! `hh-relay import`: what it is told, and its work from the first look to the last hint.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use super::{
    error::ImportFailure,
    load::load,
    output,
    progress::Progress,
    shards::Shards,
    source::Source,
    survey::{Options, Survey},
};

/// Something could not be read.
const DAMAGED: u8 = 1;

/// Put what old queues hold into the store of a relay that does not run.
///
/// Reads hinted-handoff directories of InfluxDB 0.9 to 0.11 and of influxdb-cluster, and changes
/// nothing in them. A second run goes on where the first one ended, and puts nothing into the store
/// twice. What cannot be read is said, and kept in the store's directory below influx-import. Hints
/// are as old as their files: raise max_age in the relay's configuration if these are older.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// The old directory: `dir` of its section `hinted-handoff`. Its server must not run.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Which node gets what was for an old one: its id or its URL in the relay's configuration.
    #[arg(long, value_name = "OLD=NEW", value_parser = old_and_new)]
    map: Vec<(u64, String)>,
    /// Leave out what was for this old node.
    #[arg(long, value_name = "OLD")]
    skip: Vec<u64>,
    /// Which database each shard is of: TOML, or what `SHOW SHARDS` prints as CSV or JSON.
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    shards: Option<PathBuf>,
    /// The store's directory; that of the relay's configuration if it is left out.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Import all records, those too that their nodes have by what the old server noted.
    #[arg(long)]
    from_start: bool,
    /// Only say what there is.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn old_and_new(text: &str) -> Result<(u64, String), String> {
    let (old, new) = text.split_once('=').ok_or("give OLD=NEW")?;
    let old = old.parse().map_err(|_| format!("{old:?} is no node id"))?;
    match new.is_empty() {
        true => Err("give OLD=NEW".to_owned()),
        false => Ok((old, new.to_owned())),
    }
}

impl Arguments {
    /// Whether the relay's configuration is needed: it names the store, and the nodes' URLs.
    pub fn needs_configuration(&self) -> bool {
        let is_url = |(_, new): &(u64, String)| new.parse::<u64>().is_err();
        (self.store.is_none() && !self.dry_run) || self.map.iter().any(is_url)
    }

    /// Imports, or says what there is. `store` is the directory of the relay's configuration, and
    /// `nodes` are its nodes, by id and URL; without any, each id is taken for one.
    ///
    /// Returns 0 if all was read, and 1 if something was not.
    ///
    /// # Errors
    /// Why it did not come to its end; [`ImportFailure::exit_code`] is what to exit with.
    pub fn run(
        &self,
        store: Option<&Path>,
        nodes: &[(u64, String)],
    ) -> Result<ExitCode, ImportFailure> {
        let options = Options {
            map: self.mapped(nodes)?,
            skip: self.skip.clone(),
            from_start: self.from_start,
        };
        let shards = self.shards.as_deref().map(Shards::read).transpose()?;
        let source = Source::list(&self.dir)?;
        if source.segments.is_empty() {
            let dir = self.dir.display();
            let text = format!("{dir} has no queue: one is in DIR/NODE or DIR/NODE/SHARD");
            return Err(ImportFailure::Usage(text));
        }
        let total = source.segments.iter().map(|file| file.bytes).sum();
        let progress = Progress::of_bytes("reading", total);
        let known = shards.clone().unwrap_or_default();
        let survey = Survey::of(&source, &known, &options, |bytes| progress.add(bytes))?;
        drop(progress);
        if self.dry_run {
            output::survey(&survey, self.json)?;
        }
        // Who only looks may not know yet what goes where.
        let is_asking = self.dry_run && (self.map.is_empty() || shards.is_none());
        if !is_asking {
            check(&survey)?;
        }
        if !self.dry_run {
            let store = self.store.as_deref().or(store).ok_or_else(|| {
                ImportFailure::Usage("name the --store, or the relay's configuration".to_owned())
            })?;
            let progress = Progress::of_bytes("importing", total);
            let progress = |bytes| progress.add(bytes);
            let loaded = load(&source, &known, &options, store, progress)?;
            output::loaded(&survey, &loaded, self.json)?;
        }
        Ok(match survey.is_damaged() {
            true => ExitCode::from(DAMAGED),
            false => ExitCode::SUCCESS,
        })
    }

    fn mapped(&self, nodes: &[(u64, String)]) -> Result<BTreeMap<u64, u64>, ImportFailure> {
        let mut map = BTreeMap::new();
        for (old, new) in &self.map {
            let wanted = new.trim_end_matches('/');
            let mut named = nodes.iter();
            let node = match new.parse() {
                Ok(id) => {
                    Some(id).filter(|id| nodes.is_empty() || named.any(|(node, _)| node == id))
                }
                Err(_) => named
                    .find(|(_, url)| url.trim_end_matches('/') == wanted)
                    .map(|(id, _)| *id),
            };
            let node = node.ok_or_else(|| {
                let known: Vec<String> = nodes
                    .iter()
                    .map(|(id, url)| format!("{id} ({url})"))
                    .collect();
                ImportFailure::Usage(format!(
                    "--map {old}={new}: the configuration has no such node; it has {}",
                    if known.is_empty() {
                        "none".to_owned()
                    } else {
                        known.join(", ")
                    }
                ))
            })?;
            if map.insert(*old, node).is_some_and(|other| other != node) {
                let text = format!("--map names node {old} twice");
                return Err(ImportFailure::Usage(text));
            }
        }
        Ok(map)
    }
}

/// Whether it is known of everything where it goes.
fn check(survey: &Survey) -> Result<(), ImportFailure> {
    let unmapped: Vec<String> = survey
        .unmapped_nodes()
        .filter(|node| !node.is_skipped)
        .map(|node| format!("\n  node {}: {} points", node.old_node, node.points))
        .collect();
    if !unmapped.is_empty() {
        return Err(ImportFailure::Usage(format!(
            "it is not said which node gets what was for these; use --map or --skip:{}",
            unmapped.concat()
        )));
    }
    let shards = survey.shards();
    if shards.iter().all(|shard| shard.place.is_some()) {
        return Ok(());
    }
    let all: Vec<String> = shards.iter().map(output::shard).collect();
    Err(ImportFailure::Usage(format!(
        "the file of shards does not name the database of every shard; found are:\n  {}",
        all.join("\n  ")
    )))
}
