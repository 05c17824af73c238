//! What happens to servers and to the relay while clients write.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    clients::{Clients, post, time_without_a_relay},
    faults::SmallDisk,
    input::{self, number},
    relay::until,
    stand::{DATABASE, Stand},
};

#[test]
fn a_server_is_killed_while_points_come_in() {
    let Some(mut stand) = Stand::new() else {
        return;
    };
    let points = input::points();
    let clients = Clients::start(&stand.relay.url(), points);
    clients.until_answered(points / 4);
    stand.servers[2].kill();
    clients.until_answered(points / 2);
    assert!(stand.servers[2].restart());
    clients.until_answered(points * 3 / 4);
    stand.servers[1].kill();
    assert!(stand.servers[1].restart());
    clients.finish();
    stand.assert_all_have("a server killed, and another one", points);
}

#[test]
fn the_relay_is_killed_six_times() {
    let Some(mut stand) = Stand::new() else {
        return;
    };
    let points = input::points();
    let clients = Clients::start(&stand.relay.url(), points);
    for kill in 1..=6 {
        clients.until_answered(points * kill / 8);
        assert!(clients.are_writing(), "kill {kill} came too late");
        // Hints wait for a server in every second life.
        match kill % 2 {
            1 => stand.servers[0].kill(),
            _ => assert!(stand.servers[0].restart()),
        }
        stand.relay.kill_and_restart();
    }
    clients.finish();
    stand.assert_all_have("the relay killed six times, a server three times", points);
    assert!(stand.relay.terminate());
}

#[test]
fn a_server_stands_still_and_the_relay_is_killed_meanwhile() {
    let Some(mut stand) = Stand::new() else {
        return;
    };
    let points = input::points();
    let clients = Clients::start(&stand.relay.url(), points);
    clients.until_answered(points / 4);
    stand.servers[1].stop();
    let seconds = number("HH_SECONDS", 2);
    thread::sleep(Duration::from_secs(seconds) / 2);
    stand.relay.kill_and_restart();
    thread::sleep(Duration::from_secs(seconds) / 2);
    stand.servers[1].go_on();
    clients.finish();
    stand.assert_all_have("a server stopped, the relay killed meanwhile", points);
}

#[test]
fn the_disk_of_a_server_is_full_for_a_while() {
    let Some(mut stand) = Stand::new() else {
        return;
    };
    let points = input::points();
    let Some(disk) = SmallDisk::for_server(&mut stand.servers[2], 48) else {
        return;
    };
    let clients = Clients::start(&stand.relay.url(), points);
    clients.finish();
    until("the server to be full", || {
        let told = stand.relay.told("/v1/nodes/3");
        told.to_string().contains("no space left").then_some(())
    });
    disk.grow(1 << 20);
    // influxd 1.6 keeps the error of its write-ahead log until it is started again.
    let answer = post(
        &stand.servers[2].url(),
        DATABASE,
        "probe v=1 1700000000000000001",
    );
    let (status, text) = answer.unwrap();
    assert!(
        status == 500 && text.contains("no space left"),
        "{status}: {text}"
    );
    assert!(stand.servers[2].restart());
    stand.servers[2].query(DATABASE, "DROP MEASUREMENT probe");
    stand.assert_all_have("the disk of a server full, and freed", points);
}

#[test]
fn a_server_lacks_the_database_for_a_while() {
    let Some(stand) = Stand::new() else { return };
    let points = input::points();
    stand.servers[1].query("", &format!("DROP DATABASE \"{DATABASE}\""));
    let clients = Clients::start(&stand.relay.url(), points);
    clients.finish();
    assert!(stand.relay.pending() > 0);
    stand.servers[1].create_database(DATABASE);
    stand.assert_all_have("a database missing at a server, made later", points);
}

#[test]
fn what_one_server_refuses_is_a_dead_letter_with_its_text() {
    let Some(mut stand) = Stand::new() else {
        return;
    };
    let url = stand.relay.url();
    // The second server has a text where the others get numbers.
    let (status, _) = post(&stand.servers[1].url(), DATABASE, "odd v=\"text\" 1").unwrap();
    assert_eq!(status, 204);
    stand.servers[1].query(DATABASE, "DELETE FROM odd");
    let direct = "odd v=1i 1000\nfine v=1i 1000";
    assert_eq!(post(&url, DATABASE, direct).unwrap().0, 204);
    stand.servers[1].kill();
    let hinted = "odd v=2i 2000\nfine v=2i 2000";
    assert_eq!(post(&url, DATABASE, hinted).unwrap().0, 204);
    assert!(stand.servers[1].restart());
    stand.until_delivered();
    for lines in [direct, hinted] {
        assert_eq!(post(&stand.direct.url(), DATABASE, lines).unwrap().0, 204);
    }
    let all = stand.direct.contents(DATABASE);
    for server in [0, 2] {
        assert_eq!(stand.servers[server].contents(DATABASE), all);
    }
    let fine = stand.servers[1].query(DATABASE, "SELECT * FROM fine");
    assert_eq!(fine[0].values.len(), 2);
    assert!(
        stand.servers[1]
            .query(DATABASE, "SELECT * FROM odd")
            .is_empty()
    );
    let records = stand.records();
    assert_eq!((records.dead_letters, records.losses), (2, 0));
    let letters = stand.relay.told("/v1/nodes/2/letters").to_string();
    assert!(letters.contains("field type conflict"), "{letters}");
    println!(
        "| a type conflict at one server, direct and as a hint | 4 | 4, 2, 4 | {records:?} | | |"
    );
}

#[test]
fn bad_lines_are_refused_while_two_servers_are_down() {
    let Some(mut stand) = Stand::new() else {
        return;
    };
    stand.servers[1].kill();
    stand.servers[2].kill();
    let good = "cpu v=1 1000\ncpu v=2 2000\n";
    let body = "cpu v=1 1000\ncpu\ncpu v=2 2000\ncpu v=x 3000\n";
    let (status, text) = post(&stand.relay.url(), DATABASE, body).unwrap();
    assert_eq!(status, 400, "{text}");
    assert!(
        text.contains("line 2") && text.contains("dropped=2"),
        "{text}"
    );
    for server in [1, 2] {
        assert!(stand.servers[server].restart());
    }
    stand.until_delivered();
    assert_eq!(post(&stand.direct.url(), DATABASE, good).unwrap().0, 204);
    let (contents, direct) = stand.contents();
    assert_eq!(contents, vec![direct; 3]);
    let records = stand.records();
    assert_eq!((records.dead_letters, records.losses), (0, 0));
    println!("| bad lines with two servers down | 2 | 2, 2, 2 | {records:?} | | |");
}

#[test]
fn a_backlog_takes_little_memory_and_leaves_as_a_server_takes_it() {
    let Some(mut stand) = Stand::new() else {
        return;
    };
    let points = input::points() * 2;
    stand.servers[2].kill();
    let begin = Instant::now();
    Clients::start(&stand.relay.url(), points).finish();
    let relayed = begin.elapsed();
    let (pending, memory) = (stand.relay.pending(), stand.relay.memory_max());
    assert!(pending > 0);
    // More than in a release build, whose figure is 64 MiB.
    assert!(memory < 96 << 20, "{memory} bytes");
    assert!(stand.servers[2].restart());
    let begin = Instant::now();
    stand.until_delivered();
    let replayed = begin.elapsed();
    stand.assert_all_have("a backlog", points);

    let two = [&stand.servers[0], &stand.servers[1]];
    two.iter()
        .for_each(|server| server.create_database("beside"));
    let urls = two.map(|server| server.url());
    let to_two = time_without_a_relay(&urls, "beside", points);
    let to_one = time_without_a_relay(&urls[..1], "beside", points);
    println!(
        "  {points} points to two servers and a queue by the relay in {relayed:.1?}, to two servers \
         without it in {to_two:.1?}; {pending} hints, {} MiB, replayed in {replayed:.1?}, to one \
         server by clients in {to_one:.1?}",
        memory >> 20
    );
}
