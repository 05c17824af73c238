//! Goal: the log has one event when something begins to be wrong with a server, and one when it
//! ends, however many writes there are meanwhile.
//! Method: a server that follows a list of answers, and a log in memory.

use std::{
    io,
    sync::{Arc, Mutex},
};

use tracing_subscriber::fmt::MakeWriter;

use crate::{
    direct,
    fake::{Fake, Reply},
    plain, points_to, sent, target, writer_to,
};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Log;

    fn make_writer(&self) -> Log {
        self.clone()
    }
}

/// The events of writes, to the databases `a` and `b` in turn, that are answered like that.
async fn events(replies: Vec<Reply>) -> Vec<String> {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .finish();
    let count = replies.len();
    let fake = Fake::in_turn(replies).await;
    let writer = writer_to(fake.url(), plain());
    let _here = tracing::subscriber::set_default(subscriber);
    for database in ["a", "b"].into_iter().cycle().take(count) {
        sent(&writer, direct(points_to(target(database), "cpu v=1 1"))).await;
    }
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

#[tokio::test]
async fn refused_credentials_are_told_of_once() {
    let refused = || Reply::error(401, "authorization failed");
    let busy = || Reply::error(503, "busy");
    let replies = vec![
        busy(),
        refused(),
        refused(),
        busy(),
        refused(),
        Reply::taken(),
        Reply::taken(),
    ];
    assert_eq!(
        events(replies).await,
        [
            "ERROR a server refuses credentials node=1 error=\"authorization failed\"",
            "INFO a server takes credentials again node=1",
        ]
    );
}

#[tokio::test]
async fn a_database_that_is_forbidden_or_missing_is_told_of_once() {
    let forbidden = || Reply::error(403, "\"u\" not authorized to write to \"a\"");
    let missing = || Reply::error(404, "database not found: \"b\"");
    let replies = vec![
        forbidden(),
        missing(),
        forbidden(),
        missing(),
        Reply::taken(),
        Reply::taken(),
    ];
    let text = r#""\"u\" not authorized to write to \"a\"""#;
    assert_eq!(
        events(replies).await,
        [
            format!(
                "ERROR a server forbids writes to a database node=1 database=\"a\" error={text}"
            ),
            "WARN a server lacks a database node=1 database=\"b\"".to_owned(),
            "INFO a server allows writes to a database again node=1 database=\"a\"".to_owned(),
            "INFO a server has a database again node=1 database=\"b\"".to_owned(),
        ]
    );
}
