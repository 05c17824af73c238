//! Real servers, real data, and a relay before them that loses nothing.
//!
//! ```text
//! cargo run --release -p hinted-handoff-influx --example influx
//! ```
//!
//! Three influxd, a relay before them, and clients that write daily and hourly weather from
//! `examples/data/` (`client.rs`). The relay is this program once more (`relay.rs`):
//!
//! 1. All are up; a quarter of the points is written.
//! 2. Server 3 is killed with SIGKILL. Writing goes on, and hints for it pile up.
//! 3. Half-way the relay is killed with SIGKILL as well, and started again.
//! 4. At three quarters server 3 comes back, and gets its hints while writing goes on.
//! 5. When nothing waits any more, the relay is stopped with SIGTERM, and each server is asked for
//!    all points: their number and their checksum stand beside those of a fourth server, which was
//!    written to directly.
//!
//! The exit code is 0 if all servers have the same. It takes about ten seconds. Where influxd is
//! not installed it says so, and ends with 0.

mod client;
#[path = "../../tests/common/influxd.rs"]
mod influxd;
mod relay;

use std::{error::Error, path::Path, process::ExitCode};

use influxd::{Contents, Influxd};

const DATABASE: &str = "weather";

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => story(),
        // The role that the story starts.
        ["relay", settings] => relay::run(Path::new(settings)),
        _ => {
            eprintln!("usage: influx");
            Ok(ExitCode::from(2))
        }
    }
}

fn story() -> Result<ExitCode, Box<dyn Error>> {
    let servers = [(); 4].map(|()| Influxd::start());
    let [Some(first), Some(second), Some(third), Some(direct)] = servers else {
        return Ok(ExitCode::SUCCESS);
    };
    let mut servers = [first, second, third];
    for server in servers.iter().chain([&direct]) {
        server.create_database(DATABASE);
    }
    let mut relay = relay::Relay::start(&servers.each_ref().map(Influxd::url))?;
    println!(
        "three servers and a relay run; {} bodies are written",
        client::bodies().len()
    );
    let bodies = client::bodies();
    let (first_half, second_half) = bodies.split_at(bodies.len() / 2);
    let [first, second] = [first_half, second_half].map(|half| half.split_at(half.len() / 2));

    client::write_all(relay.url(), first.0)?;
    servers[2].kill();
    println!("server 3 is killed; writing goes on");
    client::write_all(relay.url(), first.1)?;
    let waiting = relay.pending()?;
    relay.kill()?;
    println!("the relay is killed with {waiting} hints, and started again");
    relay.restart()?;
    client::write_all(relay.url(), second.0)?;
    let waiting = relay.pending()?;
    println!("server 3 is started again; {waiting} hints wait for it");
    assert!(servers[2].restart(), "influxd does not start");
    client::write_all(relay.url(), second.1)?;
    relay.until_delivered()?;
    relay.stop()?;
    println!("all hints are delivered, and the relay is stopped");

    client::write_all(&direct.url(), &bodies)?;
    let wanted = direct.contents(DATABASE);
    println!("\n{:<24}{:>10}  checksum", "", "points");
    print("written to directly", wanted);
    let mut are_same = true;
    for (number, server) in (1..).zip(&servers) {
        let contents = server.contents(DATABASE);
        print(&format!("server {number}"), contents);
        are_same &= contents == wanted;
    }
    println!(
        "\n{}",
        if are_same {
            "all have the same"
        } else {
            "THEY DIFFER"
        }
    );
    Ok(if are_same {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(what: &str, contents: Contents) {
    println!(
        "{what:<24}{:>10}  {:016x}",
        contents.points, contents.checksum
    );
}
