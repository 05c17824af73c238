//! `hh set`: settings of a host that runs, shown and changed.

use std::{collections::BTreeSet, process::ExitCode};

use clap::Args;
use hinted_handoff::Config;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    client::{Client, Host},
    failure::Failure,
    output::Output,
    verbs::operate::confirm,
};

/// Show the settings in effect, or change some until the host is opened again.
#[derive(Debug, Args)]
pub struct Set {
    /// Settings as a file of them has them; with nothing behind `=` a limit is taken away. Without
    /// any all are shown.
    #[arg(value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// Do it although hints leave for it or are refused: with a lower max_age, or a lower limit.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    host: Host,
}

/// What a change would cost.
#[derive(Deserialize)]
struct Costs {
    costs: Vec<String>,
}

impl Set {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.host)?;
        let mut changes = Map::new();
        for setting in &self.settings {
            let Some((name, value)) = setting.split_once('=') else {
                let text = format!("{setting}: write name=value");
                return Err(Failure::Usage(text));
            };
            let value = match value {
                "" => Value::Null,
                value => serde_json::from_str(value).unwrap_or(Value::String(value.to_owned())),
            };
            changes.insert(name.to_owned(), value);
        }
        // Without changes there is nothing to ask for.
        confirm(
            self.yes || changes.is_empty(),
            "hints leave or are refused with these settings",
            || {
                let costs: Costs = client.post("/v1/config/preview", changes.clone().into())?;
                Ok(costs.costs)
            },
        )?;
        let config: Value = match changes.is_empty() {
            true => client.get("/v1/config")?,
            false => client.post("/v1/config", changes.into())?,
        };
        print(output, &config)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// On a terminal a table, elsewhere a document.
fn print(output: &mut Output, config: &Value) -> Result<(), Failure> {
    let Some(settings) = config
        .as_object()
        .filter(|_| output.is_terminal() && !output.is_json())
    else {
        return output.json(config);
    };
    // A limit that is not set has no name there.
    let names = settings.keys().map(String::as_str);
    let names: BTreeSet<&str> = names.chain(Config::CHANGEABLE.iter().copied()).collect();
    let rows = names.into_iter().map(|name| {
        let value = match settings.get(name) {
            None | Some(Value::Null) => "none".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        let can_change = match Config::CHANGEABLE.contains(&name) {
            true => "can change",
            false => "fixed until the next open",
        };
        vec![name.to_owned(), value, can_change.to_owned()]
    });
    let rows = rows.collect();
    output.table(&["setting", "value", "while it runs"], rows)
}
