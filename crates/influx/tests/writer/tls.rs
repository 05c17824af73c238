//! Goal: a server of https is written to if its certificate is good, and only then.
//! Method: a server with a certificate that a file of ours has, or has not.

use std::{fs, sync::Arc};

use hinted_handoff_influx::{InfluxWriter, NodeSettings};
use rcgen::generate_simple_self_signed;
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::{
    NODE, direct,
    fake::{Fake, Reply},
    plain, points, sent,
};

/// A server of this name, and its certificate as PEM.
async fn fake(name: &str) -> (Fake, String) {
    let made = generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    (
        Fake::start_with(Some(acceptor), |_| Reply::taken()).await,
        made.cert.pem(),
    )
}

#[tokio::test]
async fn a_certificate_of_the_given_file_is_good_and_no_other_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    let (good, certificate) = fake("localhost").await;
    fs::write(&file, certificate).unwrap();
    let (another, _) = fake("localhost").await;
    for (port, host, ca, outcome) in [
        (good.port, "localhost", true, "taken"),
        // It is not the name of the certificate.
        (good.port, "127.0.0.1", true, "retry no answer"),
        (another.port, "localhost", true, "retry no answer"),
    ] {
        let mut node = NodeSettings::new(NODE.0, format!("https://{host}:{port}"));
        node.ca_file = ca.then(|| file.clone());
        let writer = InfluxWriter::new(&[node], plain()).unwrap();
        assert_eq!(
            sent(&writer, direct(points("cpu v=1 1"))).await,
            outcome,
            "{host}"
        );
    }
    assert_eq!((good.seen().len(), another.seen().len()), (1, 0));
}
