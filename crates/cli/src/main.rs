//! `hh`: asks and operates hosts that run, by their admin socket; looks into stores that nobody has
//! open, checks them, takes hints out and puts them in.
//!
//! The verbs are in `verbs/`, each with its arguments and its work. What all of them share is how
//! they say something (`output.rs`, `progress.rs`) and how they fail (`failure.rs`).
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod client;
mod failure;
#[cfg(test)]
mod guide;
mod json;
mod letter;
mod output;
mod progress;
mod record;
mod verbs;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Failure;
use output::Output;

/// Operates hosts of hinted-handoff that run, and looks into stores that nobody has open.
///
/// Verbs that ask a host take its socket (--socket, HH_SOCKET). Verbs that look into a store take
/// its directory.
///
/// On a terminal it prints tables; elsewhere columns that are separated by tabs, without a header;
/// with --json one JSON document. What is followed, and an export, is a document a line. What has
/// no columns is JSON in any case. Sizes are in bytes, times in milliseconds since 1970. Standard
/// error has all that is said besides.
///
/// Exit status: 0 if all went well, 1 if what was looked at is damaged, 2 for wrong arguments, 3
/// for any other error, 4 if somebody has the store open, 141 if nobody reads the output any more.
/// Some verbs say what else 1 means, and check has an exit status of its own. top ends with 128
/// plus the number of the signal that ended it.
#[derive(Debug, Parser)]
#[command(name = "hh", version, max_term_width = 100)]
struct Arguments {
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Status(verbs::status::Status),
    Top(verbs::top::Top),
    Nodes(verbs::nodes::Nodes),
    Events(verbs::events::Events),
    Peek(verbs::peek::Peek),
    Metrics(verbs::metrics::Metrics),
    Check(verbs::check::Check),
    Pause(verbs::operate::Pause),
    Resume(verbs::operate::Resume),
    Drain(verbs::operate::Drain),
    Barrier(verbs::barrier::Barrier),
    Remove(verbs::members::Remove),
    Rename(verbs::members::Rename),
    Rehint(verbs::rehint::Rehint),
    Retain(verbs::members::Retain),
    Hinting(verbs::operate::Hinting),
    Direct(verbs::operate::Direct),
    Discard(verbs::operate::Discard),
    Set(verbs::settings::Set),
    Info(verbs::info::Info),
    Verify(verbs::verify::Verify),
    Export(verbs::export::Export),
    Import(verbs::import::Import),
    Salvage(verbs::salvage::Salvage),
    Letters(verbs::letters::Letters),
    Losses(verbs::losses::Losses),
    Completions(verbs::completions::Completions),
    Man(verbs::man::Man),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() && is_verb("check") => return wrong_check(&error),
        Err(error) => error.exit(),
    };
    match run(arguments) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

/// Whether this is what is to be done, of arguments that do not parse.
fn is_verb(verb: &str) -> bool {
    let arguments = std::env::args_os().skip(1);
    let mut words = arguments.filter(|it| !it.as_encoded_bytes().starts_with(b"-"));
    words.next().is_some_and(|it| it == verb)
}

/// Monitoring takes 2, the status of wrong arguments, for CRITICAL; `check` exits with 3 (UNKNOWN).
fn wrong_check(error: &clap::Error) -> ExitCode {
    let told = error.print().map_err(Failure::output);
    let wrong = || {
        let output = &mut Output::new(std::env::args_os().any(|it| it == "--json"))?;
        let code = verbs::check::wrong_arguments(output)?;
        output.finish()?;
        Ok(code)
    };
    told.and_then(|()| wrong())
        .unwrap_or_else(|failure: Failure| failure.report())
}

fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let output = &mut Output::new(arguments.json)?;
    let code = match arguments.verb {
        Verb::Status(verb) => verb.run(output),
        Verb::Top(verb) => verb.run(output),
        Verb::Nodes(verb) => verb.run(output),
        Verb::Events(verb) => verb.run(output),
        Verb::Peek(verb) => verb.run(output),
        Verb::Metrics(verb) => verb.run(output),
        Verb::Check(verb) => verb.run(output),
        Verb::Pause(verb) => verb.run(output),
        Verb::Resume(verb) => verb.run(output),
        Verb::Drain(verb) => verb.run(output),
        Verb::Barrier(verb) => verb.run(output),
        Verb::Remove(verb) => verb.run(output),
        Verb::Rename(verb) => verb.run(output),
        Verb::Rehint(verb) => verb.run(output),
        Verb::Retain(verb) => verb.run(output),
        Verb::Hinting(verb) => verb.run(output),
        Verb::Direct(verb) => verb.run(output),
        Verb::Discard(verb) => verb.run(output),
        Verb::Set(verb) => verb.run(output),
        Verb::Info(verb) => verb.run(output),
        Verb::Verify(verb) => verb.run(output),
        Verb::Export(verb) => verb.run(output),
        Verb::Import(verb) => verb.run(output),
        Verb::Salvage(verb) => verb.run(output),
        Verb::Letters(verb) => verb.run(output),
        Verb::Losses(verb) => verb.run(output),
        Verb::Completions(verb) => verb.run(output),
        Verb::Man(verb) => verb.run(output),
    }?;
    output.finish()?;
    Ok(code)
}
