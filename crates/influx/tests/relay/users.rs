//! Who may write.

use std::{fs, os::unix::fs::PermissionsExt};

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    fake::Fake,
    request::Request,
    server::{Relay, Setup},
};

const USERS: &str = "[[users]]\nname = \"ann\"\npassword = \"s3cret:1\"\n";

async fn relay() -> (Fake, Relay) {
    let server = Fake::in_turn([]).await;
    let setup = Setup::new(&[server.url()]);
    let file = setup.dir.path().join("bob.password");
    fs::write(&file, "s3cret-2\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let bob = format!("[[users]]\nname = \"bob\"\npassword_file = {file:?}\n");
    let relay = setup.tables(USERS).tables(&bob).start();
    (server, relay)
}

fn write(path: &str) -> Request {
    Request::post(path, "cpu v=1 1")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_may_write_by_each_of_the_ways_that_influxdb_knows() {
    let (server, relay) = relay().await;
    let basic = |pair: &str| format!("Authorization: Basic {}", BASE64_STANDARD.encode(pair));
    for request in [
        write("/write?db=d").header(&basic("ann:s3cret:1")),
        write("/write?db=d").header(&basic("bob:s3cret-2")),
        write("/write?db=d&u=ann&p=s3cret%3A1"),
        write("/write?db=d").header("Authorization: Token bob:s3cret-2"),
        write("/api/v2/write?bucket=d").header("Authorization: Token ann:s3cret:1"),
        write("/api/v2/write?bucket=d").header(&basic("bob:s3cret-2")),
    ] {
        let answer = relay.send(request.clone());
        assert_eq!(answer.status, 204, "{request:?}: {answer:?}");
    }
    assert_eq!(
        server.bodies().iter().filter(|it| !it.is_empty()).count(),
        6
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn others_may_not_and_are_told_so() {
    let (server, relay) = relay().await;
    let nobody = "unable to parse authentication credentials";
    for (request, text) in [
        (write("/write?db=d"), nobody),
        (
            write("/write?db=d").header("Authorization: Bearer x"),
            nobody,
        ),
        (write("/write?db=d&u=ann&p=wrong"), "authorization failed"),
        (
            write("/write?db=d").header("Authorization: Token eve:"),
            "authorization failed",
        ),
        (Request::get("/metrics"), nobody),
    ] {
        let answer = relay.send(request);
        assert_eq!(answer.told(), (401, text.to_owned()));
        assert_eq!(
            answer.header("www-authenticate"),
            Some("Basic realm=\"InfluxDB\"")
        );
    }
    let v2 = relay.send(write("/api/v2/write?bucket=d&u=ann&p=s3cret%3A1"));
    assert_eq!(
        (v2.status, &v2.json()["code"]),
        (401, &"unauthorized".into())
    );
    for path in ["/ping", "/health", "/ready"] {
        assert!(relay.send(Request::get(path)).status < 300, "{path}");
    }
    assert!(server.bodies().iter().all(String::is_empty));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_logged_and_a_file_that_others_may_read_is() {
    let (_server, mut relay) = relay().await;
    relay.send(write("/write?db=d&u=ann&p=s3cret%3A1"));
    relay.send(write("/write?db=d&u=ann&p=s3cret-wrong"));
    assert!(relay.stop().success());
    let log = relay.log().join("\n");
    assert!(!log.contains("s3cret"), "{log}");
    assert!(
        log.contains("bob.password may be read by other users"),
        "{log}"
    );
    assert!(!log.contains("relay.toml may be read"), "{log}");
}
