//! `hh top`: how a host is, as it changes, on the whole terminal.
//!
//! `state.rs` makes of answers and keys what is shown, `draw/` shows it, and `run.rs` is the loop
//! between the two. Whatever may wait for the host or for the terminal has a thread of its own
//! (`threads.rs`), so that the loop never does. `screen.rs` takes the terminal and gives it back.

mod answer;
mod draw;
mod history;
mod rates;
mod run;
mod screen;
mod state;
mod text;
mod threads;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    time::Duration,
};

use clap::Args;

use crate::{client::Host, failure::Failure, output::Output};

/// Hosts are not asked more often: an answer of many nodes costs them something.
const EVERY_MIN: Duration = Duration::from_millis(100);

/// Show on the whole terminal how a host is, as it changes; pause and resume nodes by a key.
///
/// Rates are what the counters of two answers differ by. Keys: ? shows them, q ends it.
#[derive(Debug, Args)]
pub struct Top {
    /// How often the host is asked, at least 100ms.
    #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = every)]
    every: Duration,
    #[command(flatten)]
    host: Host,
}

fn every(text: &str) -> Result<Duration, String> {
    let every = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match every >= EVERY_MIN {
        true => Ok(every),
        false => Err(format!("at least {}ms", EVERY_MIN.as_millis())),
    }
}

impl Top {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if output.is_json() || is_dumb || !output.is_terminal() || !io::stdin().is_terminal() {
            return Err(Failure::Usage(
                "top draws on a whole terminal, and this is none; `hh status` and `hh nodes` print \
                 the same figures once, with --json as JSON"
                    .to_owned(),
            ));
        }
        run::run(self.host, self.every, output.has_colours())
    }
}

#[cfg(test)]
mod tests;
