//! Serving the router by itself: on a unix socket, or on the loopback interface.

mod connections;
mod unix;

use std::{fmt, io, net::SocketAddr, path::PathBuf, time::Duration};

use hinted_handoff::{HintedHandoff, Payload};
use tokio::{net::TcpListener, runtime::Handle, task::JoinHandle, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::unix::Socket;
use crate::{
    routes::{NoRuntime, stoppable},
    settings::{Hosts, Settings},
};

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A unix socket at this path, which only the user who runs the host may connect to. A file
    /// that ends in `.lock` stands beside it while it is served. The path has room for some 90
    /// bytes.
    Unix(PathBuf),
    /// A port of the loopback interface, 0 for any that is free. Every user of the machine may
    /// connect to it.
    Tcp(SocketAddr),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Tcp(address) => write!(f, "http://{address}"),
        }
    }
}

/// Why it does not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// An address that others can reach was asked for.
    #[error(
        "{address} can be reached from elsewhere; give a loopback address, or mount the router behind the authentication of your own \
         server"
    )]
    #[non_exhaustive]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// Somebody serves at this path.
    #[error("somebody serves at {} already; end that, or give another path", path.display())]
    #[non_exhaustive]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something that is no socket is at the path.
    #[error("{} is there and is no socket; give another path", path.display())]
    #[non_exhaustive]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// It was called where no runtime is.
    #[error(transparent)]
    NoRuntime(#[from] NoRuntime),
    /// It cannot listen there.
    #[error("listening at {address} failed")]
    #[non_exhaustive]
    Listen {
        /// Where.
        address: Address,
        /// What the operating system said.
        source: io::Error,
    },
    /// Its task panicked, or its runtime was shut down.
    #[error("the task that served at {address} came to an end before its time: {why}")]
    #[non_exhaustive]
    Ended {
        /// Where.
        address: Address,
        /// How.
        why: String,
    },
    /// Requests were under way still when the time for them was over. They were cut off.
    #[error("{connections} connections were cut off when {address} was shut down")]
    #[non_exhaustive]
    CutOff {
        /// Where.
        address: Address,
        /// How many.
        connections: usize,
    },
}

/// A router that is being served. Dropping it stops that at once.
#[derive(Debug)]
pub struct Server {
    address: Address,
    /// Stops accepting, and ends waits and streams.
    stop: CancellationToken,
    /// Cuts off what is under way.
    cut: CancellationToken,
    /// `None` once its end was heard of.
    task: Option<JoinHandle<usize>>,
    _guards: [DropGuard; 2],
}

/// Serves the API, the metrics and the page of a handoff.
///
/// On TCP [`Settings::hosts`] is set to the names of the loopback interface with the port. On a
/// unix socket it stays: a browser may come through a tunnel. 64 connections are served at a time,
/// others wait.
///
/// # Errors
/// [`ServeError`]: an address that others can reach, a path that is in use or no socket, no tokio
/// runtime, or why the operating system refuses it.
pub async fn serve<P: Payload>(
    handoff: &HintedHandoff<P>,
    mut settings: Settings,
    at: Address,
) -> Result<Server, ServeError> {
    // A listener is bound to one, and panics without.
    Handle::try_current().map_err(|_| NoRuntime)?;
    let failed = |address: &Address, source| ServeError::Listen {
        address: address.clone(),
        source,
    };
    let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
    let (address, task) = match at {
        Address::Unix(path) => {
            let socket = Socket::bind(&path).await?;
            let router = stoppable(handoff, settings, stop.clone())?;
            let serving = connections::serve(socket, router, stop.clone(), cut.clone());
            (Address::Unix(path), tokio::spawn(serving))
        }
        Address::Tcp(address) if !address.ip().is_loopback() => {
            return Err(ServeError::NotLoopback { address });
        }
        Address::Tcp(address) => {
            let at = Address::Tcp(address);
            let listener = TcpListener::bind(address)
                .await
                .map_err(|it| failed(&at, it))?;
            let address = listener.local_addr().map_err(|it| failed(&at, it))?;
            let port = address.port();
            let names = [address.to_string(), format!("localhost:{port}")];
            settings.hosts = Hosts::These(names.into());
            let router = stoppable(handoff, settings, stop.clone())?;
            let serving = connections::serve(listener, router, stop.clone(), cut.clone());
            (Address::Tcp(address), tokio::spawn(serving))
        }
    };
    tracing::info!(%address, "the admin interface is served");
    Ok(Server {
        address,
        _guards: [stop.clone().drop_guard(), cut.clone().drop_guard()],
        stop,
        cut,
        task: Some(task),
    })
}

impl Server {
    /// Where it is served, with the port that was found.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Waits until it is not served any more, which is an error unless it was asked for.
    ///
    /// # Errors
    /// [`ServeError::Ended`] if its task panicked or its runtime was shut down.
    pub async fn ended(&mut self) -> Result<(), ServeError> {
        self.end().await.map(drop)
    }

    async fn end(&mut self) -> Result<usize, ServeError> {
        let Some(task) = &mut self.task else {
            return Ok(0);
        };
        let ended = task.await;
        self.task = None;
        ended.map_err(|error| ServeError::Ended {
            address: self.address.clone(),
            why: error.to_string(),
        })
    }

    /// Stops: accepts nothing more, ends streams of events and waits, lets other requests finish
    /// for at most `grace`, and removes the socket.
    ///
    /// # Errors
    /// [`ServeError::CutOff`] if some did not finish; [`ServeError::Ended`] if it had ended before.
    pub async fn shutdown(mut self, grace: Duration) -> Result<(), ServeError> {
        self.stop.cancel();
        let ended = match timeout(grace, self.end()).await {
            Ok(ended) => ended,
            Err(_) => {
                self.cut.cancel();
                self.end().await
            }
        };
        match ended? {
            0 => Ok(()),
            connections => Err(ServeError::CutOff {
                address: self.address.clone(),
                connections,
            }),
        }
    }
}
