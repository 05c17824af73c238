//! Lines by UDP.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, UdpSocket},
};

use crate::{
    fake::{Fake, Seen},
    server::{Relay, Setup, address_of, until},
};

fn relay(server: &Fake, more: &str) -> (Relay, SocketAddr) {
    let udp = format!("[[udp]]\nlisten = \"127.0.0.1:0\"\ndatabase = \"packets\"\n{more}");
    let mut relay = Setup::new(&[server.url()]).tables(&udp).start();
    let address = address_of(&relay.until_logged("lines are taken by UDP"));
    (relay, address)
}

fn writes(server: &Fake) -> Vec<Seen> {
    let mut seen = server.seen();
    seen.retain(|it| it.line.starts_with("POST /write"));
    seen
}

fn lines(server: &Fake) -> BTreeSet<String> {
    let bodies: Vec<String> = writes(server).iter().map(Seen::body).collect();
    bodies.concat().lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_are_written_together_to_the_database_of_the_table() {
    let server = Fake::in_turn([]).await;
    let more = "retention_policy = \"two\"\nprecision = \"s\"\nbatch_time = \"200ms\"\n";
    let (relay, address) = relay(&server, more);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..50 {
        let packet = format!("cpu v={number} {number}\nmem v={number} {number}\nbad\n");
        socket.send_to(packet.as_bytes(), address).unwrap();
    }
    until("all lines", || (lines(&server).len() == 100).then_some(()));
    let writes = writes(&server);
    assert!(writes.len() < 50, "{} writes", writes.len());
    let line = &writes[0].line;
    assert!(line.contains("db=packets&rp=two&precision=s"), "{line}");
    assert_eq!(relay.metric("hh_relay_bad_lines_total"), 50);
    assert_eq!(
        relay.metric("hh_relay_udp_packets_total{fate=\"taken\"}"),
        50
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_packets_of_one_series_without_a_time_stay_two_points() {
    let server = Fake::in_turn([]).await;
    let (_relay, address) = relay(&server, "batch_time = \"50ms\"\n");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..20 {
        socket.send_to(b"cpu v=1", address).unwrap();
    }
    // The lines differ by their times alone.
    until("all points", || (lines(&server).len() == 20).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_faster_than_it_can_be_written_is_dropped_and_counted() {
    // It answers nothing, so one batch is being written, and one waits.
    let server = Fake::start(|seen: &Seen| match seen.line.starts_with("POST /write") {
        true => crate::fake::Reply::BytesAndSilence(Vec::new()),
        false => crate::fake::Reply::taken(),
    })
    .await;
    let udp = "[[udp]]\nlisten = \"127.0.0.1:0\"\ndatabase = \"d\"\nbatch_bytes = \"64KiB\"\n\
               batch_time = \"1ms\"\n";
    let mut relay = Setup::new(&[server.url()]).tables(udp).start();
    let address = address_of(&relay.until_logged("lines are taken by UDP"));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let packet = "cpu v=1\n".repeat(4000);
    until("dropped packets", || {
        socket.send_to(packet.as_bytes(), address).unwrap();
        let dropped = relay.metric("hh_relay_udp_packets_total{fate=\"dropped\"}");
        (dropped > 0).then_some(())
    });
    relay.until_logged("packets by UDP are dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_writes_what_waits() {
    let server = Fake::in_turn([]).await;
    let (mut relay, address) = relay(&server, "batch_time = \"1h\"\n");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"cpu v=1 1", address).unwrap();
    let taken = "hh_relay_udp_packets_total{fate=\"taken\"}";
    until("the packet", || (relay.metric(taken) == 1).then_some(()));
    assert!(writes(&server).is_empty());
    assert!(relay.stop().success());
    assert_eq!(lines(&server), ["cpu v=1 1".to_owned()].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_without_points_keep_no_others_out() {
    let server = Fake::in_turn([]).await;
    let (relay, address) = relay(&server, "batch_bytes = \"64KiB\"\nbatch_time = \"50ms\"\n");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let blanks = "#\n".repeat(5_000);
    for _ in 0..20 {
        socket.send_to(blanks.as_bytes(), address).unwrap();
    }
    until("the packets", || {
        let taken = relay.metric("hh_relay_udp_packets_total{fate=\"taken\"}");
        socket.send_to(b"cpu v=1 1", address).unwrap();
        (taken >= 20 && lines(&server).contains("cpu v=1 1")).then_some(())
    });
}
