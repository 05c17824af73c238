//! Goal: a server is told who writes, and nobody else is; a password is changed without a restart.
//! Method: a server that wants a password, and a look at all that is shown of the writer.

use std::{error::Error, fs};

use hinted_handoff::ShardWriter;
use hinted_handoff_influx::{InfluxWriter, NodeSettings, WriterError};

use crate::{
    NODE, direct,
    fake::{Fake, Reply, Seen},
    plain, points, sent,
};

/// Takes what comes with one of these passwords, of the user `u`.
fn wants(password: &str) -> impl Fn(&Seen) -> Reply + use<> {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let wanted = format!("Basic {}", BASE64_STANDARD.encode(format!("u:{password}")));
    move |seen| match seen.header("authorization") == Some(&wanted) {
        true => Reply::taken(),
        false => Reply::error(401, "authorization failed"),
    }
}

fn node(fake: &Fake) -> NodeSettings {
    let mut node = NodeSettings::new(NODE.0, fake.url());
    node.username = Some("u".to_owned());
    node
}

#[tokio::test]
async fn a_server_is_told_user_and_password() {
    let fake = Fake::start(wants("secret \u{e4}:")).await;
    let mut node = node(&fake);
    node.password = Some("secret \u{e4}:".to_owned().into());
    let writer = InfluxWriter::new(&[node], plain()).unwrap();
    assert_eq!(sent(&writer, direct(points("cpu v=1 1"))).await, "taken");
    writer.ping(NODE).await.unwrap();
    assert!(fake.seen().iter().all(|it| !it.line.contains("secret")));
    let nobody = NodeSettings::new(NODE.0, fake.url());
    let writer = InfluxWriter::new(&[nobody], plain()).unwrap();
    assert_eq!(
        sent(&writer, direct(points("cpu v=1 1"))).await,
        "retry 401: authorization failed"
    );
    assert_eq!(fake.seen().last().unwrap().header("authorization"), None);
}

#[tokio::test]
async fn a_file_is_read_anew_when_the_password_in_it_was_changed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    fs::write(&file, "old\n").unwrap();
    let fake = Fake::start(wants("new")).await;
    let mut node = node(&fake);
    node.password_file = Some(file.clone());
    let writer = InfluxWriter::new(&[node], plain()).unwrap();
    let write = || direct(points("cpu v=1 1"));
    assert_eq!(
        sent(&writer, write()).await,
        "retry 401: authorization failed"
    );
    assert_eq!(
        fake.seen().len(),
        1,
        "the password is the same: it is not sent again"
    );
    fs::remove_file(&file).unwrap();
    assert_eq!(
        sent(&writer, write()).await,
        "retry 401: authorization failed"
    );
    fs::write(&file, "new\r\n").unwrap();
    assert_eq!(sent(&writer, write()).await, "taken");
    assert_eq!(fake.seen().len(), 4);
    assert_eq!(sent(&writer, write()).await, "taken");
    assert_eq!(fake.seen().len(), 5);
}

#[tokio::test]
async fn no_password_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    fs::write(&file, "p4ssword\n").unwrap();
    let fake = Fake::start(|_| Reply::error(403, "\"u\" not authorized to write to \"db\"")).await;
    let mut in_file = node(&fake);
    in_file.id = 2;
    in_file.password_file = Some(file);
    let mut inline = node(&fake);
    inline.password = Some("p4ssword".to_owned().into());
    let settings = [in_file, inline];
    let writer = InfluxWriter::new(&settings, plain()).unwrap();
    let mut shown = format!("{settings:?} {writer:?} {writer:#?}");
    let error = writer
        .write_shard(direct(points("cpu v=1 1")))
        .await
        .unwrap_err();
    shown += &format!("{error} {error:?} {:?}", error.source());
    drop(fake);
    let error = writer
        .write_shard(direct(points("cpu v=1 1")))
        .await
        .unwrap_err();
    shown += &format!("{error} {error:?} {:?}", error.source());
    for secret in ["p4ssword", "dTpwNHNzd29yZA"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn an_address_with_a_password_is_refused_and_not_shown() {
    let node = NodeSettings::new(3, "http://u:p4ssword@127.0.0.1:8086");
    let error = InfluxWriter::new(&[node], plain()).unwrap_err();
    assert!(matches!(error, WriterError::Url { node: 3, .. }));
    assert!(!format!("{error} {error:?}").contains("p4ss"));
}
