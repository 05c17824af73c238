//! Calling the host's code: within a time, and whatever it panics.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tokio::time::timeout;

use crate::{shard_writer::WriteError, store::panic_text};

/// What the host's code answers, within so many times the limit. A panic in it, or no answer in
/// time, is worth a retry.
pub async fn answered<T>(
    what: &'static str,
    limit: Duration,
    times: u32,
    work: impl Future<Output = Result<T, WriteError>>,
) -> Result<T, WriteError> {
    match timeout(times * limit, caught(work)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panic)) => Err(WriteError::retry(format!("the {what} panicked: {panic}"))),
        Err(_) => {
            let limit = humantime::format_duration(limit);
            let times = match times {
                1 => String::new(),
                _ => format!("{times} times "),
            };
            Err(WriteError::retry(format!(
                "the {what} was not answered within {times}send_timeout = {limit}"
            )))
        }
    }
}

/// The output, or the text of a panic.
pub async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let mut work = pin!(work);
    std::future::poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic_text(panic.as_ref()))),
        }
    })
    .await
}
