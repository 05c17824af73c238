//! The memory of all bodies that are under way.

use std::io::Write;

use crate::{
    fake::Fake,
    request::{Answer, Request, connect},
    server::{Setup, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn bodies_beyond_their_sum_are_for_later() {
    let server = Fake::in_turn([]).await;
    let http = "max_body_bytes = \"1MiB\"\nmax_bytes_under_way = \"1MiB\"\n";
    let relay = Setup::new(&[server.url()]).http(http).start();
    let large = "cpu v=1 1\n".repeat(90_000);
    let mut slow = connect(relay.address);
    let head = format!(
        "POST /write?db=d HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        large.len()
    );
    slow.write_all(head.as_bytes()).unwrap();
    slow.write_all(&large.as_bytes()[..800_000]).unwrap();
    let under_way = "hh_relay_under_way_bytes";
    until("its bytes", || {
        (relay.metric(under_way) == 800_000).then_some(())
    });

    let other = Request::post("/write?db=d", &large[..400_000]);
    let later = relay.send(other.clone());
    assert_eq!(later.status, 503);
    assert!(later.header("retry-after").is_some());
    assert!(later.told().1.contains("too many bytes"), "{later:?}");
    // A small one has its place.
    assert_eq!(relay.write("db=d", "cpu v=1 1").status, 204);

    slow.write_all(&large.as_bytes()[800_000..]).unwrap();
    assert_eq!(Answer::read(&mut slow).status, 204);
    assert_eq!(relay.send(other).status, 204);
    until("nothing", || (relay.metric(under_way) == 0).then_some(()));
}
