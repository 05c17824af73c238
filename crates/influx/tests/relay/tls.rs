//! HTTPS.

use std::{fs, io::Write, process::Command};

use rcgen::{CertifiedKey, generate_simple_self_signed};

use crate::{
    fake::Fake,
    request::connect,
    server::{Setup, until},
};

fn setup(urls: &[String]) -> Setup {
    let setup = Setup::new(urls);
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert_file, key_file) = (setup.dir.path().join("cert"), setup.dir.path().join("key"));
    fs::write(&cert_file, cert.pem()).unwrap();
    fs::write(&key_file, signing_key.serialize_pem()).unwrap();
    setup.tables(&format!(
        "[http.tls]\ncert = {cert_file:?}\nkey = {key_file:?}\n"
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_trusts_the_certificate_writes_by_https() {
    let server = Fake::in_turn([]).await;
    let setup = setup(&[server.url()]);
    let relay = setup.start();
    let cert = setup.dir.path().join("cert");
    let url = format!("https://localhost:{}/write?db=d", relay.address.port());
    let curl = |more: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args([
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{ssl_verify_result}",
        ]);
        curl.args(more)
            .args(["--data-binary", "cpu v=1 1", &url])
            .output()
            .unwrap()
    };
    let trusted = curl(&["--cacert", cert.to_str().unwrap()]);
    assert_eq!(
        String::from_utf8_lossy(&trusted.stdout),
        "204 0",
        "{trusted:?}"
    );
    assert!(!curl(&[]).status.success(), "nobody knows the certificate");
    assert_eq!(
        server.bodies().last().map(String::as_str),
        Some("cpu v=1 1\n")
    );
    assert!(until("a warning", || {
        let log = relay.log().join("\n");
        log.contains("key may be read by other users")
            .then_some(true)
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_agree_on_tls_is_let_go() {
    let server = Fake::in_turn([]).await;
    let relay = setup(&[server.url()])
        .http("head_timeout = \"100ms\"\n")
        .start();
    for greeting in [&b""[..], b"\x16\x03\x01", b"GET /ping HTTP/1.1\r\n\r\n"] {
        let mut stream = connect(relay.address);
        stream.write_all(greeting).unwrap();
        let mut rest = Vec::new();
        // Closed, by an end or by a reset.
        let _ = std::io::Read::read_to_end(&mut stream, &mut rest);
    }
    assert!(server.bodies().is_empty());
}
