//! Requests that no client should send: each has its status, and costs bounded memory.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use crate::{
    fake::{Fake, Seen},
    request::{Answer, Request, connect, gzip},
    server::{Relay, Setup, until},
};

const MIB: usize = 1 << 20;

/// Lines of a megabyte in all, each another point.
fn megabyte() -> Vec<u8> {
    let lines = (0..).map(|number| {
        format!(
            "cpu,h=a v={number}i,text=\"{}\" {number}\n",
            "x".repeat(200)
        )
    });
    let mut body = String::new();
    for line in lines {
        if body.len() + line.len() > MIB {
            break;
        }
        body.push_str(&line);
    }
    body.into_bytes()
}

fn post(body: &[u8]) -> Request {
    Request::post("/write?db=d", body)
}

async fn relay(http: &str) -> (Fake, Relay) {
    let server = Fake::in_turn([]).await;
    let relay = Setup::new(&[server.url()]).http(http).start();
    (server, relay)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_25_mebibytes_is_taken_and_one_of_a_byte_more_is_not() {
    let (server, relay) = relay("").await;
    let mut body = megabyte().repeat(25);
    body.resize(25 * MIB, b'\n');
    assert_eq!(relay.send(post(&body)).status, 204);
    let bodies = server.bodies();
    let got: usize = bodies.iter().map(String::len).sum();
    let lines = body.split(|it| *it == b'\n').filter(|it| !it.is_empty());
    let wanted: usize = lines.map(|line| line.len() + 1).sum();
    assert_eq!(got, wanted);
    assert!(bodies.iter().all(|body| body.len() <= MIB));

    body.push(b'\n');
    let (status, text) = relay.send(post(&body)).told();
    assert_eq!(status, 413);
    assert!(text.starts_with("Request Entity Too Large"), "{text}");
    // One that says not how long it will be.
    let mut stream = connect(relay.address);
    let head = "POST /write?db=d HTTP/1.1\r\nHost: relay\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..26 {
        let chunk = [
            format!("{MIB:x}\r\n").as_bytes(),
            &vec![b'\n'; MIB],
            b"\r\n",
        ]
        .concat();
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    let _ = stream.write_all(b"0\r\n\r\n");
    assert_eq!(Answer::read(&mut stream).status, 413);
    assert_eq!(relay.send(post(b"cpu v=1 1")).status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zip_bomb_is_too_large_and_takes_no_more_than_a_body_may() {
    let (_server, relay) = relay("").await;
    assert_eq!(relay.send(post(b"cpu v=1 1").gzip()).status, 204);
    let before = relay.memory("VmRSS");
    // A gigabyte in a megabyte.
    let bomb = gzip(&vec![b'\n'; 64 * MIB]).repeat(16);
    assert!(bomb.len() < 2 * MIB);
    for _ in 0..10 {
        let request = post(&bomb).header("Content-Encoding: gzip");
        assert_eq!(relay.send(request).status, 413);
    }
    let more = relay.memory("VmHWM").saturating_sub(before);
    println!("zip bombs: {more} bytes more");
    // A vector that grows is there twice for a moment.
    assert!(more < 100 * MIB as u64, "{more} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_a_megabyte_is_a_point_and_a_bad_one_is_told_shortly() {
    let (server, relay) = relay("").await;
    let text = "x".repeat(MIB);
    let line = format!("cpu text=\"{text}\" 1\n");
    assert_eq!(relay.send(post(line.as_bytes())).status, 204);
    assert!(server.bodies().contains(&line));
    let (status, told) = relay.send(post(text.as_bytes())).told();
    assert_eq!(status, 400);
    assert!(told.starts_with("line 1: unable to parse 'xxx"), "{told}");
    assert!(told.len() < 500, "{}", told.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_that_no_hint_can_hold_is_bad() {
    let server = Fake::in_turn([]).await;
    let relay = Setup::new(&[server.url()])
        .queue("max_entry_bytes = \"64KiB\"\n")
        .start();
    let long = format!("cpu,h=a text=\"{}\" 1\n", "x".repeat(100_000));
    let body = format!("cpu,h=a v=1 1\n{long}cpu,h=a v=3 3\n");
    let (status, told) = relay.send(post(body.as_bytes())).told();
    assert_eq!(status, 400);
    assert!(told.contains("dropped=1"), "{told}");
    let bodies: Vec<String> = server.bodies();
    assert_eq!(bodies.concat(), "cpu,h=a v=1 1\ncpu,h=a v=3 3\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_utf_8_are_bad_lines_and_the_others_are_written() {
    let (server, relay) = relay("").await;
    let body = b"cpu v=1 1\ncpu,h=\xff\xfe v=2 2\n\xc3\x28\ncpu v=4 4\n\0\0\0\n";
    let (status, text) = relay.send(post(body)).told();
    assert_eq!(status, 400);
    for part in [
        "line 2: unable to parse",
        "line 3: unable to parse",
        "it is not UTF-8",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.ends_with("dropped=2"), "{text}");
    assert_eq!(server.bodies().concat(), "cpu v=1 1\ncpu v=4 4\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_request_and_silence_end_in_time() {
    let (server, relay) = relay("head_timeout = \"200ms\"\nbody_timeout = \"200ms\"\n").await;
    for head in [
        "",
        "POST /wr",
        "POST /write?db=d HTTP/1.1\r\nHost: relay\r\n",
    ] {
        let mut stream = connect(relay.address);
        stream.write_all(head.as_bytes()).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        let told = String::from_utf8(rest).unwrap();
        assert!(
            told.is_empty() || told.starts_with("HTTP/1.1 408"),
            "{head}: {told}"
        );
    }
    let mut stream = connect(relay.address);
    let half = b"POST /write?db=d HTTP/1.1\r\nHost: relay\r\nContent-Length: 20\r\n\r\ncpu v=1";
    stream.write_all(half).unwrap();
    let answer = Answer::read(&mut stream);
    assert_eq!(answer.status, 408);
    assert_eq!(answer.header("connection"), Some("close"));
    // One that trickles is no better.
    let mut stream = connect(relay.address);
    let mut trickle = stream.try_clone().unwrap();
    let writing = thread::spawn(move || {
        for byte in &half[..] {
            if trickle.write_all(&[*byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    });
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    writing.join().unwrap();
    assert!(
        server
            .seen()
            .iter()
            .all(|it: &Seen| !it.line.starts_with("POST"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_no_answer_is_let_go() {
    let (_server, relay) = relay("body_timeout = \"200ms\"\n").await;
    let mut stream = connect(relay.address);
    let end = loop {
        let asked = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: relay\r\n\r\n");
        if let Err(error) = asked {
            break error.kind();
        }
    };
    let ends = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(ends.contains(&end), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_no_http_are_refused() {
    let (_server, relay) = relay("").await;
    for bytes in [
        &b"\0\x01\x02\x03\r\n\r\n"[..],
        b"cpu v=1 1\n\r\n\r\n",
        b"POST /write?db=d HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /write?db=d HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
    ] {
        let mut stream = connect(relay.address);
        stream.write_all(bytes).unwrap();
        assert_eq!(Answer::read(&mut stream).status, 400, "{bytes:?}");
    }
    let long = format!(
        "GET /{} HTTP/1.1\r\nHost: relay\r\n\r\n",
        "x".repeat(100_000)
    );
    let mut stream = connect(relay.address);
    let _ = stream.write_all(long.as_bytes());
    let status = Answer::read(&mut stream).status;
    assert!([414, 431].contains(&status), "{status}");
    assert_eq!(relay.send(post(b"cpu v=1 1")).status, 204);
}

/// A request whose body is yet to come.
fn begun(relay: &Relay, bytes: usize) -> TcpStream {
    let mut stream = connect(relay.address);
    let head = format!(
        "POST /write?db=d HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\
         Content-Length: {bytes}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_write_at_once() {
    let (server, relay) = relay("").await;
    assert_eq!(relay.send(post(b"cpu v=1 1")).status, 204);
    let before = relay.memory("VmRSS");
    let body = |number: usize| format!("cpu,h={number} v=1 1\n");
    let mut streams: Vec<(usize, TcpStream)> = Vec::new();
    for number in 0..1000 {
        let mut stream = begun(&relay, body(number).len());
        // Half of it: all of them are under way at a time.
        stream.write_all(&body(number).as_bytes()[..5]).unwrap();
        streams.push((number, stream));
    }
    let open = "hh_relay_connections";
    until("all connections", || {
        (relay.metric(open) >= 1000).then_some(())
    });
    let more = relay.memory("VmHWM").saturating_sub(before);
    println!("1,000 connections: {more} bytes more");
    for (number, stream) in &mut streams {
        stream.write_all(&body(*number).as_bytes()[5..]).unwrap();
    }
    for (_, stream) in &mut streams {
        assert_eq!(Answer::read(stream).status, 204);
    }
    // Some were late, and came as hints.
    until("all points", || {
        let bodies = server.bodies().concat();
        let lines: std::collections::BTreeSet<&str> = bodies.lines().collect();
        (lines.len() == 1001).then_some(())
    });
    assert!(more < 64 * MIB as u64, "{more} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_their_number_wait_for_the_end_of_others() {
    let (_server, relay) = relay("max_connections = 3\n").await;
    let mut first: Vec<TcpStream> = (0..3).map(|_| begun(&relay, 9)).collect();
    let mut late: Vec<TcpStream> = (0..20).map(|_| begun(&relay, 9)).collect();
    for stream in &mut late {
        stream.write_all(b"cpu v=1 1").unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(5)))
            .unwrap();
        assert!(stream.read(&mut [0]).is_err(), "it was served");
    }
    for stream in &mut first {
        stream.write_all(b"cpu v=1 1").unwrap();
        assert_eq!(Answer::read(stream).status, 204);
    }
    for stream in &mut late {
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        assert_eq!(Answer::read(stream).status, 204);
    }
}
