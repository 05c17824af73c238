//! The points that clients write.

use std::ops::Range;

/// Points of a batch, but for the one that each batch writes anew.
pub const BATCH: u64 = 200;
pub const CLIENTS: u64 = 4;

/// How many points a story is told with.
pub fn points() -> u64 {
    number("HH_POINTS", 6_000)
}

/// A number of the environment.
pub fn number(name: &str, default: u64) -> u64 {
    let set = std::env::var(name);
    set.map_or(default, |text| text.parse().expect("a number"))
}

/// The batches of a client, when all clients together write so many points.
pub fn batches(points: u64) -> Range<u64> {
    0..points.div_ceil(BATCH * CLIENTS)
}

/// A batch: points of 20 series, and `last`, which always has the same time.
pub fn batch(client: u64, batch: u64) -> String {
    let first = batch * BATCH;
    let points = (first..first + BATCH).map(|number| {
        let (host, time) = (number % 20, 1_700_000_000_000_000_000 + number * 1_000_000);
        let load = (number * 7919 % 1000) as f64 / 10.0;
        format!("cpu,client=c{client},host=h{host} load={load},number={number}i,text=\"n {number}\" {time}\n")
    });
    let points: String = points.collect();
    format!("{points}last,client=c{client} batch={batch}i 1700000000000000000\n")
}
