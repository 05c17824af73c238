//! Paused time beside a commit thread, which works in real time: in small steps, so that the disk
//! keeps up with the clock.

use std::time::Duration;

/// Waits for something that the disk has a part in, without letting the clock jump meanwhile.
pub async fn stepping<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = step() => {}
        }
    }
}

/// Real time for the commit thread, a moment of tokio's clock for the tasks.
pub async fn step() {
    std::thread::sleep(Duration::from_micros(100));
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Runs it on paused time.
pub fn paused<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build();
    runtime.unwrap().block_on(work)
}
