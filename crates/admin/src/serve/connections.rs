//! Accepting connections, and ending them.

use std::{future::Future, io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

/// Connections at a time.
const CONNECTIONS: usize = 64;
/// How long the head of a request may take to arrive, and a connection be idle.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// After an error of the listener, as when there are no more descriptors.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// What connections come from.
pub trait Listener: Send + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next one.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

/// Serves until `stop`, and then until all that is under way is done, or `cut`. Returns how many
/// connections were cut off.
pub async fn serve<L: Listener>(
    listener: L,
    router: Router,
    stop: CancellationToken,
    cut: CancellationToken,
) -> usize {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let next = async {
            // Never closed.
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.next().await)
        };
        let (place, stream) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = cut.cancelled() => break,
            next = next => next,
        };
        match stream {
            Ok(stream) => {
                let serving = connection(stream, router.clone(), stop.clone());
                connections.spawn(async move {
                    let _place = place;
                    serving.await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin interface could not accept a connection");
                sleep(AFTER_ERROR).await;
            }
        }
    }
    // Nobody connects any more, and the socket is gone.
    drop(listener);
    loop {
        tokio::select! {
            biased;
            ended = connections.join_next() => if ended.is_none() { return 0 },
            () = cut.cancelled() => break,
        }
    }
    let left = connections.len();
    connections.shutdown().await;
    left
}

/// Errors of a connection are the client's.
async fn connection<S>(stream: S, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        _ = serving.as_mut() => return,
        () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}
