//! Clients: the weather, a few points a body, each body until it is taken.

use std::{error::Error, thread, time::Duration};

use crate::DATABASE;

const INPUT: [&str; 2] = [
    include_str!("../../../../examples/data/weather.lp"),
    include_str!("../../../../examples/data/normals.lp"),
];
/// Points in a body.
const POINTS: usize = 10;
/// Bodies that are written at a time.
const CLIENTS: usize = 4;

/// The input.
pub fn bodies() -> Vec<String> {
    let lines: Vec<&str> = INPUT.iter().flat_map(|input| input.lines()).collect();
    lines.chunks(POINTS).map(|lines| lines.join("\n")).collect()
}

/// Writes all of these, each until it is answered with success.
pub fn write_all(url: &str, bodies: &[String]) -> Result<(), Box<dyn Error>> {
    let part = bodies.len().div_ceil(CLIENTS).max(1);
    thread::scope(|scope| {
        let clients: Vec<_> = bodies
            .chunks(part)
            .map(|bodies| scope.spawn(move || bodies.iter().try_for_each(|body| write(url, body))))
            .collect();
        for client in clients {
            client.join().map_err(|_| "a client panicked")??;
        }
        Ok(())
    })
}

fn write(url: &str, body: &str) -> Result<(), String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(20)))
        .http_status_as_error(false)
        .build()
        .into();
    let mut last = String::new();
    for _ in 0..100 {
        match agent.post(format!("{url}/write?db={DATABASE}")).send(body) {
            Ok(answer) if answer.status() == 204 => return Ok(()),
            Ok(answer) => last = answer.status().to_string(),
            Err(error) => last = error.to_string(),
        }
        thread::sleep(Duration::from_millis(100));
    }
    Err(format!("a body was not taken: {last}"))
}
