//! What an operator of the coordinator has: a page, and a socket for `hh`.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use hinted_handoff::HintedHandoff;
use hinted_handoff_admin::{Address, Server, Settings, serve};

use crate::{
    protocol::{COORDINATOR, Failure, address_file, replica_name},
    server::publish,
};

/// The socket that `hh --socket` takes.
pub fn socket(root: &Path) -> PathBuf {
    root.join("admin")
}

/// Where the page is, once the coordinator has begun to serve it.
pub fn page(root: &Path) -> io::Result<SocketAddr> {
    let address = std::fs::read_to_string(address_file(root, "page"))?;
    address.trim().parse().map_err(io::Error::other)
}

/// Serves both until they are dropped; the page at the same address in each life.
pub async fn serve_both(
    root: &Path,
    handoff: &HintedHandoff<String>,
) -> Result<[Server; 2], Failure> {
    let settings = Settings {
        read_only: false,
        title: Some(format!("{COORDINATOR} of the example")),
        node_names: Some(Arc::new(|node| Some(replica_name(node)))),
        decoder: Some(Arc::new(|_format, bytes| {
            Ok(String::from_utf8(bytes.to_vec())?.into())
        })),
        ..Settings::default()
    };
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let at = Address::Tcp(page(root).unwrap_or(any));
    let on_page = serve(handoff, settings.clone(), at).await?;
    if let Address::Tcp(address) = on_page.address() {
        publish(root, "page", *address)?;
    }
    let on_socket = serve(handoff, settings, Address::Unix(socket(root))).await?;
    Ok([on_page, on_socket])
}
