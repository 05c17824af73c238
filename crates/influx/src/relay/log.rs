//! The log, on standard error.

use tracing_subscriber::{
    Layer,
    layer::SubscriberExt,
    util::{SubscriberInitExt, TryInitError},
};

use super::settings::{LogFormat, LogSettings};

/// Begins to log, as the settings say.
///
/// # Errors
/// If this process logs already.
pub fn begin(settings: &LogSettings) -> Result<(), TryInitError> {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match settings.format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let lines = lines.with_filter(settings.level.clone());
    tracing_subscriber::registry().with(lines).try_init()
}
