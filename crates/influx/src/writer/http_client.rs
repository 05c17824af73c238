//! Connections to one server.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::{error::WriterError, settings::NodeSettings};

/// Connections that stay open, of which as many are used as requests are under way.
pub type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A connection that nobody used for so long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// The address of a server, without a slash at its end.
pub fn address(node: &NodeSettings) -> Result<String, WriterError> {
    let refuse = |why: &str| WriterError::Url {
        node: node.id,
        why: why.to_owned(),
    };
    // It is not shown: it may have a password.
    let uri: Uri = node.url.parse().map_err(|_| refuse("it does not parse"))?;
    let authority = uri.authority().map(|it| it.as_str());
    match (uri.scheme_str(), authority) {
        (_, Some(authority)) if authority.contains('@') => Err(refuse("it has credentials")),
        (Some("http" | "https"), Some(_)) if uri.query().is_some() => Err(refuse("it has a query")),
        (Some("http" | "https"), Some(_)) => Ok(node.url.trim_end_matches('/').to_owned()),
        _ => Err(refuse("it does not begin with http:// or https://")),
    }
}

/// A client for a server at an address that is good.
pub fn client(node: &NodeSettings) -> Result<HttpClient, WriterError> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(node.timeout));
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls(node)?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    let mut client = Client::builder(TokioExecutor::new());
    client.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE);
    Ok(client.build(https))
}

fn tls(node: &NodeSettings) -> Result<ClientConfig, WriterError> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions();
    let config = config.map_err(|error| WriterError::Tls {
        node: node.id,
        source: error.into(),
    })?;
    let roots = config.with_root_certificates(roots(node)?);
    Ok(roots.with_no_client_auth())
}

fn roots(node: &NodeSettings) -> Result<RootCertStore, WriterError> {
    let mut roots = RootCertStore::empty();
    let scheme = node.url.split(':').next().unwrap_or_default();
    let is_https = scheme.eq_ignore_ascii_case("https");
    let refuse = |source| WriterError::NoCertificates {
        node: node.id,
        source,
    };
    if let Some(file) = &node.ca_file {
        let certificates = CertificateDer::pem_file_iter(file);
        for certificate in certificates.map_err(|error| refuse(Some(error.into())))? {
            let certificate = certificate.map_err(|error| refuse(Some(error.into())))?;
            let added = roots.add(certificate);
            added.map_err(|error| refuse(Some(error.into())))?;
        }
    } else if is_https {
        // The system may have some that rustls does not read.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let needs_some = node.ca_file.is_some() || is_https;
    match needs_some && roots.is_empty() {
        true => Err(refuse(None)),
        false => Ok(roots),
    }
}
