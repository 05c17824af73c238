//! A collector of metrics that comes by while a store works.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, to_bytes},
    http::{Request, header},
};
use hinted_handoff_admin::{Settings, router};
use tokio::{task::JoinHandle, time::interval};
use tower::ServiceExt;

use super::{Outcome, ours::Handoff};

/// As often as collectors do at most.
const EVERY: Duration = Duration::from_secs(1);
/// More than any answer has.
const ANSWER_BYTES: usize = 16 << 20;

/// Asks for the metrics each second until it is aborted; the first time at once.
pub fn begin(handoff: &Handoff) -> Outcome<JoinHandle<Outcome<Infallible>>> {
    let router = router(handoff, Settings::default())?;
    Ok(tokio::spawn(async move {
        let mut every = interval(EVERY);
        loop {
            every.tick().await;
            let request = Request::get("/metrics").header(header::HOST, "localhost");
            let answer = router.clone().oneshot(request.body(Body::empty())?).await?;
            if !answer.status().is_success() {
                return Err(format!("a scrape was answered with {}", answer.status()).into());
            }
            to_bytes(answer.into_body(), ANSWER_BYTES).await?;
        }
    }))
}
