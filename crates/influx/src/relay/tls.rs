//! Certificate and key.

use std::{path::PathBuf, sync::Arc};

use tokio_rustls::rustls::{
    self, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};

use super::settings::TlsSettings;

/// A certificate or key that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The file cannot be read, or is no PEM.
    #[error("{} cannot be read as PEM: give a {what}", path.display())]
    #[non_exhaustive]
    File {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What is wrong.
        source: pem::Error,
    },
    /// There is no certificate.
    #[error("{} has no certificate", path.display())]
    #[non_exhaustive]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The two do not fit, or are not of a kind that is known.
    #[error("the certificate {} and its key cannot be used", path.display())]
    #[non_exhaustive]
    Unusable {
        /// The file of the certificate.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

/// What a listener needs.
pub fn server_config(settings: &TlsSettings) -> Result<Arc<ServerConfig>, TlsError> {
    let failed = |path: &PathBuf, what| {
        let path = path.clone();
        move |source| TlsError::File { path, what, source }
    };
    let path = &settings.cert;
    let certificates = CertificateDer::pem_file_iter(path);
    let certificates = certificates.map_err(failed(path, "certificate"))?;
    let certificates: Result<Vec<_>, _> = certificates.collect();
    let certificates = certificates.map_err(failed(path, "certificate"))?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { path: path.clone() });
    }
    let key = PrivateKeyDer::from_pem_file(&settings.key);
    let key = key.map_err(failed(&settings.key, "private key"))?;
    let unusable = |source| TlsError::Unusable {
        path: path.clone(),
        source,
    };
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let config = builder
        .with_no_client_auth()
        .with_single_cert(certificates, key);
    let mut config = config.map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
