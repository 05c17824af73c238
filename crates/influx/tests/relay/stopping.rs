//! The end of a relay, and what is there after it.

use std::{
    collections::BTreeSet,
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use rustix::process::Signal;

use crate::{
    fake::{Fake, Reply, Seen},
    request::{Answer, Request, connect},
    server::{Setup, until},
};

fn lines(fake: &Fake) -> BTreeSet<String> {
    let bodies: Vec<String> = fake.seen().iter().map(Seen::body).collect();
    bodies.concat().lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_writes_run_loses_nothing_that_was_answered() {
    let up = Fake::in_turn([]).await;
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = away.local_addr().unwrap().port();
    drop(away);
    let setup = Setup::new(&[up.url(), format!("http://127.0.0.1:{port}")]);
    let mut relay = setup.start();
    let address = relay.address;
    let (answered, stop) = (
        Arc::new(Mutex::new(Vec::new())),
        Arc::new(AtomicBool::new(false)),
    );
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (answered, stop) = (Arc::clone(&answered), Arc::clone(&stop));
            thread::spawn(move || {
                for number in 0.. {
                    let line = format!("cpu,w={writer} v=1 {number}");
                    let request = Request::post("/write?db=d", &line);
                    let Ok(mut stream) = std::net::TcpStream::connect(address) else {
                        break;
                    };
                    let _ = stream.write_all(&request.bytes());
                    let mut bytes = Vec::new();
                    let _ = std::io::Read::read_to_end(&mut stream, &mut bytes);
                    if bytes.starts_with(b"HTTP/1.1 204") {
                        answered.lock().unwrap().push(line);
                    }
                    if stop.load(Relaxed) {
                        break;
                    }
                }
            })
        })
        .collect();
    until("200 writes", || {
        (answered.lock().unwrap().len() > 200).then_some(())
    });
    relay.signal(Signal::TERM);
    let status = relay.ended();
    stop.store(true, Relaxed);
    assert!(status.success(), "{status}: {:?}", relay.log());
    relay.until_logged("all hints are on disk");
    for writer in writers {
        writer.join().unwrap();
    }
    let answered: BTreeSet<String> = answered.lock().unwrap().drain(..).collect();
    assert!(
        answered.is_subset(&lines(&up)),
        "the server that was up has them"
    );

    let back = Fake::at(port).await;
    let again = setup.start();
    until("an empty queue", || (again.pending(2) == 0).then_some(()));
    let missing: Vec<_> = answered.difference(&lines(&back)).cloned().collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_is_answered_and_no_new_one_is_taken() {
    let up = Fake::in_turn([]).await;
    let mut relay = Setup::new(&[up.url()]).start();
    let mut under_way = connect(relay.address);
    let head = b"POST /write?db=d HTTP/1.1\r\nHost: relay\r\nContent-Length: 9\r\n\r\ncpu";
    under_way.write_all(head).unwrap();
    let idle = connect(relay.address);
    until("both", || {
        (relay.metric("hh_relay_connections") == 3).then_some(())
    });
    relay.signal(Signal::INT);
    relay.until_logged("stopping");
    until("the end of the listener", || {
        std::net::TcpStream::connect(relay.address)
            .is_err()
            .then_some(())
    });
    under_way.write_all(b" v=1 1").unwrap();
    let answer = Answer::read(&mut under_way);
    assert!([204, 503].contains(&answer.status), "{answer:?}");
    assert_eq!(answer.header("connection"), Some("close"));
    let status = relay.ended();
    assert!(status.success(), "{status}");
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_too_long_is_cut_off_after_the_time_of_the_settings() {
    let up = Fake::in_turn([]).await;
    let setup = Setup::new(&[up.url()]).top("stop_timeout = \"100ms\"\n");
    let mut relay = setup.start();
    let mut under_way = connect(relay.address);
    let head = b"POST /write?db=d HTTP/1.1\r\nHost: relay\r\nContent-Length: 9\r\n\r\ncpu";
    under_way.write_all(head).unwrap();
    until("it", || {
        (relay.metric("hh_relay_connections") == 2).then_some(())
    });
    assert!(relay.stop().success());
    relay.until_logged("connections were cut off connections=1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let silent = Fake::start(|seen: &Seen| match seen.line.starts_with("POST") {
        true => Reply::BytesAndSilence(Vec::new()),
        false => Reply::taken(),
    })
    .await;
    let top = "stop_timeout = \"1h\"\n";
    let mut relay = Setup::new(&[silent.url()]).top(top).start();
    let mut under_way = connect(relay.address);
    let head = b"POST /write?db=d HTTP/1.1\r\nHost: relay\r\nContent-Length: 9\r\n\r\ncpu";
    under_way.write_all(head).unwrap();
    until("it", || {
        (relay.metric("hh_relay_connections") == 2).then_some(())
    });
    relay.signal(Signal::TERM);
    relay.until_logged("stopping");
    relay.signal(Signal::TERM);
    assert_eq!(relay.ended().code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_left_the_settings_is_told_of_and_its_hints_wait() {
    let up = Fake::in_turn([]).await;
    let setup = Setup::new(&[up.url(), "http://127.0.0.1:1".to_owned()]);
    let mut relay = setup.start();
    assert_eq!(relay.write("db=d", "cpu v=1 1").status, 204);
    until("a hint", || (relay.pending(2) == 1).then_some(()));
    assert!(relay.stop().success());
    let mut relay = Setup::new(&[up.url()]).instead_of(&setup).start();
    relay.until_logged("hints wait for a server that is not among the [[nodes]] node=2");
    assert_eq!(relay.write("db=d", "cpu v=2 2").status, 204);
    assert_eq!(relay.pending(2), 1);
}
