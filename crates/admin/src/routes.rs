//! All of it as one router.

use std::sync::Arc;

use axum::{Router, extract::Request, middleware, routing::get};
use hinted_handoff::{HintedHandoff, Payload};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::{
    api, guard,
    metrics::{Metrics, scrape},
    page,
    problem::{Kind, Problem},
    settings::Settings,
    state::Admin,
    watch::Watch,
};

/// The router was made where no tokio runtime is, which it needs for the samples of the last hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no tokio runtime here; make the router within the one that serves it")]
#[non_exhaustive]
pub struct NoRuntime;

/// The API, the metrics and the page of a handoff, for a server of the host's. It may be nested
/// below a path.
///
/// It does not keep the handoff alive; once that is gone requests are answered with 503. A task on
/// the runtime of the caller remembers the last hour; it ends when the router and its clones are
/// dropped.
///
/// # Errors
/// [`NoRuntime`] if it is called where no tokio runtime is.
pub fn router<P: Payload>(
    handoff: &HintedHandoff<P>,
    settings: Settings,
) -> Result<Router, NoRuntime> {
    stoppable(handoff, settings, CancellationToken::new())
}

/// One whose waits and streams end with `stop`.
pub fn stoppable<P: Payload>(
    handoff: &HintedHandoff<P>,
    settings: Settings,
    stop: CancellationToken,
) -> Result<Router, NoRuntime> {
    let runtime = Handle::try_current().map_err(|_| NoRuntime)?;
    let settings = Arc::new(settings);
    let watch = Watch::begin(handoff, &runtime, stop.clone());
    let metrics = Metrics::new(handoff.downgrade(), Arc::clone(&settings));
    let admin = Admin::new(handoff, Arc::clone(&settings), watch, stop);
    let checks = middleware::from_fn_with_state(Arc::clone(&settings), guard::every_request);
    Ok(Router::new()
        .merge(api::routes(&settings))
        .merge(page::routes())
        .route("/metrics", get(move || scrape(metrics.clone())))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(checks)
        .with_state(admin))
}

async fn no_such_path(request: Request) -> Problem {
    let path: String = request.uri().path().chars().take(200).collect();
    Problem::new(Kind::NoSuchPath, format!("there is nothing at {path}"))
}

async fn no_such_method(request: Request) -> Problem {
    let method = request.method();
    Problem::new(
        Kind::NoSuchMethod,
        format!("{method} cannot be done at this path"),
    )
}
