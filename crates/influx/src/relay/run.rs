//! From the settings to a relay that runs, and to its end.

mod opened;
mod stop;

use std::{io, net::SocketAddr};

use hinted_handoff::{HandoffError, OpenError};
use hinted_handoff_admin::{NoRuntime, ServeError};
use tokio::task::JoinError;

use self::{opened::Opened, stop::Signals};
use super::{limits, plan::PlanError, settings::Settings};
use crate::import::ImportFailure;

/// Why a relay did not run, or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A file that the settings name cannot be used.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Somebody else listens there, or this user may not.
    #[error("{what} {address} cannot be listened at")]
    #[non_exhaustive]
    Listen {
        /// Of which kind.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The queue cannot be opened.
    #[error("the queue cannot be opened")]
    Open(#[from] OpenError),
    /// What an import that was cut short has put into the queue is not known.
    #[error("an import of old queues was cut short, and what it put into the queue is not known")]
    Import(#[from] ImportFailure),
    /// Finding that out panicked, or the runtime stops.
    #[error(transparent)]
    Settle(#[from] JoinError),
    /// The interface for operators cannot be served.
    #[error("the interface for operators cannot be served")]
    Admin(#[from] ServeError),
    /// There is no runtime.
    #[error(transparent)]
    NoRuntime(#[from] NoRuntime),
    /// The queue does not serve, or could not be closed.
    #[error("the queue failed")]
    Queue(#[source] HandoffError),
    /// Signals cannot be waited for.
    #[error("signals cannot be waited for")]
    Signals(#[source] io::Error),
}

/// Runs a relay until SIGTERM or SIGINT: then no new request is taken, those under way end within
/// [`Settings::stop_timeout`], all hints are durable, and the queue is closed. A second signal ends
/// the process at once; all that was answered is safe then, too.
///
/// # Errors
/// [`RunError`].
pub async fn run(settings: Settings) -> Result<(), RunError> {
    let mut signals = Signals::new().map_err(RunError::Signals)?;
    limits::allow_files(settings.http.max_connections);
    let opened = Opened::open(settings).await?;
    let signal = signals.next().await;
    tracing::info!(signal, "stopping: requests under way are ended");
    signals.exit_at_the_next();
    opened.close().await
}
