//! The side of a server that coordinator and replicas share.

use std::{
    io::Read,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use tokio::net::{TcpListener, TcpStream};

use crate::protocol::{self, Failure, Request, receive, send};

pub trait Service<R: Request>: Send + Sync + 'static {
    /// An error is told to the caller as text.
    fn answer(&self, request: R) -> impl Future<Output = Result<R::Answer, Failure>> + Send;
}

/// Serves until the process ends.
pub async fn serve<R: Request, S: Service<R>>(
    root: &Path,
    name: &str,
    service: S,
) -> Result<(), Failure> {
    let service = Arc::new(service);
    let name: Arc<str> = Arc::from(name);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    publish(root, &name, listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (name, service) = (Arc::clone(&name), Arc::clone(&service));
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &name, service.as_ref()).await {
                // A peer that was killed; it is the peer who has to repeat something.
                tracing::debug!(server = %name, %error, "a connection broke");
            }
        });
    }
}

/// Answers the requests of one connection, one after the other.
async fn converse<R: Request, S: Service<R>>(
    mut stream: TcpStream,
    name: &str,
    service: &S,
) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    while let Some((to, request)) = receive::<(String, R)>(&mut stream).await? {
        // The port of a server that was killed may be given to another one.
        let answer = if to == name {
            let answer = service.answer(request).await;
            answer.map_err(|error| protocol::with_causes(error.as_ref()))
        } else {
            Err(format!("this is {name}, not {to}"))
        };
        send(&mut stream, &answer).await?;
    }
    Ok(())
}

/// Says where a server is: by a rename, so that nobody reads half an address.
pub fn publish(root: &Path, name: &str, address: SocketAddr) -> Result<(), Failure> {
    let file = protocol::address_file(root, name);
    let draft = file.with_extension("draft");
    std::fs::write(&draft, address.to_string())?;
    Ok(std::fs::rename(&draft, &file)?)
}

/// Ends this process when its standard input ends: when the director closes it, and also when the
/// director is gone, in whatever way that happened. Everything that was answered is on disk, so
/// there is nothing to clean up.
pub fn end_with_the_director() {
    std::thread::spawn(|| {
        let mut byte = [0];
        while std::io::stdin()
            .read(&mut byte)
            .is_ok_and(|bytes| bytes > 0)
        {}
        std::process::exit(0);
    });
}
