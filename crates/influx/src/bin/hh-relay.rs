//! `hh-relay`: takes writes as InfluxDB 1.x does, writes them to several servers, and keeps what
//! one of them missed until it has it.

use std::{
    error::Error,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use hinted_handoff_influx::import;
use hinted_handoff_influx::relay::{Settings, begin_log, convert, plan, run, with_causes};

/// A setting is wrong, or a file that it names cannot be used.
const WRONG_SETTINGS: u8 = 2;

/// Writes to several servers of InfluxDB 1.x, and keeps what one of them missed until it is back.
#[derive(Debug, Parser)]
#[command(version, subcommand_negates_reqs = true)]
struct Arguments {
    /// The file of settings.
    #[arg(long, env = "HH_RELAY_CONFIG", value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// Checks the settings and says what would be done, and does nothing.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes settings of a file of influxdb-relay, and prints them.
    Convert {
        /// Its file of settings.
        file: PathBuf,
    },
    Import(import::Arguments),
    /// Prints a commented example of the settings.
    Example,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match (&arguments.command, &arguments.config) {
        (Some(Command::Import(import)), config) => return run_import(import, config.as_deref()),
        (Some(Command::Convert { file }), _) => print_converted(file),
        (Some(Command::Example), _) => print(Settings::EXAMPLE),
        (None, Some(config)) => with_settings(config, arguments.check),
        // clap asks for one of them.
        (None, None) => Err(Failed::wrong("give --config FILE")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed { code, text }) => tell(code, &text),
    }
}

/// Why it ends, and with which code.
struct Failed {
    code: u8,
    text: String,
}

impl Failed {
    fn wrong(text: impl Into<String>) -> Failed {
        Failed {
            code: WRONG_SETTINGS,
            text: text.into(),
        }
    }
}

impl<E: Error + 'static> From<E> for Failed {
    fn from(error: E) -> Self {
        Failed {
            code: 1,
            text: with_causes(&error),
        }
    }
}

/// Imports old queues, by the settings if they are named.
fn run_import(import: &import::Arguments, config: Option<&Path>) -> ExitCode {
    let settings = match config {
        Some(file) => match Settings::read(file) {
            Ok(settings) => Some(settings),
            Err(error) => return tell(WRONG_SETTINGS, &format!("{}: {error}", file.display())),
        },
        None if import.needs_configuration() => return tell(WRONG_SETTINGS, "give --config FILE"),
        None => None,
    };
    let nodes = settings.iter().flat_map(|it| &it.nodes);
    let nodes: Vec<(u64, String)> = nodes.map(|node| (node.id, node.url.clone())).collect();
    let store = settings.as_ref().map(|it| it.queue.dir.as_path());
    let done = import.run(store, &nodes);
    done.unwrap_or_else(|error| tell(error.exit_code(), &error.text()))
}

fn tell(code: u8, text: &str) -> ExitCode {
    // Where nobody reads it any more there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "hh-relay: {text}");
    ExitCode::from(code)
}

fn print(text: &str) -> Result<(), Failed> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn print_converted(file: &Path) -> Result<(), Failed> {
    let wrong = |text: String| Failed::wrong(format!("{}: {text}", file.display()));
    let theirs = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let ours = convert(&theirs).map_err(|error| wrong(error.to_string()))?;
    print(&ours)
}

fn with_settings(file: &Path, is_check: bool) -> Result<(), Failed> {
    let wrong = |text: String| Failed::wrong(format!("{}: {text}", file.display()));
    let settings = Settings::read(file).map_err(|error| wrong(error.to_string()))?;
    let plan = plan(&settings).map_err(|error| wrong(with_causes(&error)))?;
    let warnings = settings.warnings(file);
    if is_check {
        for warning in warnings {
            writeln!(std::io::stderr(), "warning: {warning}")?;
        }
        return print(&plan);
    }
    begin_log(&settings.log)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "hh-relay begins");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(run(settings));
    ended.inspect_err(|error| tracing::error!(error = with_causes(error), "hh-relay failed"))?;
    Ok(())
}
