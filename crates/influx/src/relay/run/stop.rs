//! Signals.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The two signals that end a relay.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// They are caught from now on.
    pub fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Ends the process when the next one comes. What was answered is on disk.
    pub fn exit_at_the_next(mut self) {
        tokio::spawn(async move {
            let signal = self.next().await;
            tracing::warn!(signal, "stopped at once, by a second signal");
            std::process::exit(1);
        });
    }
}
