//! Accepting connections, and ending them.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tokio_util::sync::CancellationToken;

use super::{counts::Counts, settings::HttpSettings};

/// After an error of the listener, as when there are no more descriptors.
const AFTER_ERROR: Duration = Duration::from_millis(100);
/// Bytes that a connection holds of what it has read: the head of a request fits.
const BUFFER_BYTES: usize = 32 * 1024;

/// How connections are served.
#[derive(Clone)]
pub struct Serving {
    pub router: Router,
    pub tls: Option<Arc<ServerConfig>>,
    pub head_timeout: Duration,
    pub body_timeout: Duration,
    pub connections: usize,
    pub counts: Arc<Counts>,
}

impl Serving {
    pub fn new(
        settings: &HttpSettings,
        router: Router,
        tls: Option<Arc<ServerConfig>>,
        counts: Arc<Counts>,
    ) -> Serving {
        Serving {
            router,
            tls,
            head_timeout: settings.head_timeout,
            body_timeout: settings.body_timeout,
            connections: settings.max_connections,
            counts,
        }
    }

    /// Serves until `stop`, and then until all that is under way is done, or `cut`. Returns how
    /// many connections were cut off.
    ///
    /// While there are as many connections as may be, others wait in the backlog of the listener,
    /// which is the system's, and bounded.
    pub async fn run(
        self,
        listener: TcpListener,
        stop: CancellationToken,
        cut: CancellationToken,
    ) -> usize {
        let places = Arc::new(Semaphore::new(self.connections));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                next = next(&listener, &places) => next,
            };
            match next {
                Ok((place, stream)) => {
                    let (serving, stop) = (self.clone(), stop.clone());
                    connections.spawn(async move {
                        let _place = place;
                        serving.connection(stream, stop).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(AFTER_ERROR).await;
                }
            }
        }
        // Nobody connects any more.
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
    async fn connection(self, stream: TcpStream, stop: CancellationToken) {
        let _counted = self.counts.connection();
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return self.requests(stream, stop).await;
        };
        let acceptor = TlsAcceptor::from(Arc::clone(tls));
        let greeted = tokio::select! {
            greeted = timeout(self.head_timeout, acceptor.accept(stream)) => greeted,
            () = stop.cancelled() => return,
        };
        match greeted {
            Ok(Ok(stream)) => self.requests(stream, stop).await,
            Ok(Err(error)) => tracing::debug!(%error, "a client could not agree on TLS"),
            Err(_) => tracing::debug!("a client took too long to agree on TLS"),
        }
    }

    async fn requests<S>(&self, stream: S, stop: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        // Of a client that reads no answer the connection would stay for ever.
        let mut stream = Box::pin(TimeoutStream::new(stream));
        stream
            .as_mut()
            .set_write_timeout_pinned(Some(self.body_timeout));
        let service = TowerToHyperService::new(self.router.clone());
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_timeout)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            _ = serving.as_mut() => return,
            () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
        }
        let _ = serving.await;
    }
}

/// The next connection, once there is a place for it.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(OwnedSemaphorePermit, TcpStream)> {
    let place = Arc::clone(places).acquire_owned().await;
    let place = place.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((place, stream))
}
