//! What `benches/handoff` and `benches/peers` have in common: entries, producers, the raw file, our
//! store, the machine.

// Each of the two uses a part of it.
#![allow(dead_code)]

pub mod entries;
pub mod machine;
pub mod ours;
pub mod producers;
pub mod raw;
pub mod receiver;
pub mod report;
pub mod rounds;

use std::error::Error;

/// What everything here returns.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// As many as the machine that the figures in the documentation come from has cores.
pub const WORKERS: usize = 2;

pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
}

/// What sizes and durations are multiplied by: `HH_BENCH_SCALE`, or 1.
pub fn scale() -> Outcome<f64> {
    let scale = match std::env::var("HH_BENCH_SCALE") {
        Ok(text) => text.parse()?,
        Err(_) => 1.0,
    };
    if !(scale > 0.0 && scale <= 100.0) {
        return Err(format!("HH_BENCH_SCALE={scale} is not over 0 and at most 100").into());
    }
    Ok(scale)
}
