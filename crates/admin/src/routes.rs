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

/// The router, or the reporter, was made where no tokio runtime is, which it needs for the samples
/// of the last hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no tokio runtime here; call this within the one of the host")]
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
    Ok(watched(handoff, settings, Arc::new(watch), stop))
}

fn watched<P: Payload>(
    handoff: &HintedHandoff<P>,
    settings: Arc<Settings>,
    watch: Arc<Watch>,
    stop: CancellationToken,
) -> Router {
    let metrics = Metrics::new(
        handoff.downgrade(),
        Arc::clone(&watch),
        Arc::clone(&settings),
    );
    let admin = Admin::new(handoff, Arc::clone(&settings), watch, stop);
    let checks = middleware::from_fn_with_state(Arc::clone(&settings), guard::every_request);
    Router::new()
        .merge(api::routes(&settings))
        .merge(page::routes())
        .route("/metrics", get(move || scrape(metrics.clone())))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(checks)
        .with_state(admin)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::{
        body::{Body, to_bytes},
        http::header,
    };
    use bytes::Bytes;
    use hinted_handoff::Config;
    use hinted_handoff_testkit::{Reply, ScriptedWriter};
    use tokio::time::Instant;
    use tower::ServiceExt;

    use super::*;
    use crate::disk::Filling;

    const MIB: u64 = 1024 * 1024;

    async fn text(router: &Router, path: &str) -> String {
        let request = Request::get(path).header(header::HOST, "localhost");
        let request = request.body(Body::empty()).unwrap();
        let answer = router.clone().oneshot(request).await.unwrap();
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn status_page_and_metrics_say_when_the_disk_will_be_full() {
        let dir = tempfile::tempdir().unwrap();
        let writer = ScriptedWriter::new(|_| Reply::Take);
        let config = Config {
            min_free_disk: 0,
            max_disk_bytes: Some(256 * MIB),
            ..Config::new(dir.path().join("hints"))
        };
        let handoff: HintedHandoff<Bytes> = HintedHandoff::open(config, writer).await.unwrap();
        let stop = CancellationToken::new();
        let watch = Watch::begin(&handoff, &Handle::current(), stop.clone());
        while watch.samples().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let room = crate::disk::room(&handoff.stats().store, Some(256 * MIB)).unwrap();
        assert!((1..256 * MIB).contains(&room), "{room}");
        assert_eq!(watch.filling(), Filling::Unknown, "there is one sample");
        // No other one comes from now on.
        stop.cancel();
        while !watch.is_over() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let watch = Arc::new(watch);
        let stop = CancellationToken::new();
        let router = watched(&handoff, Arc::default(), Arc::clone(&watch), stop);
        let status = async || {
            let status = text(&router, "/v1/status").await;
            serde_json::from_str::<serde_json::Value>(&status).unwrap()
        };
        let now = Instant::now();
        let falling = |ago: u64| (now - Duration::from_secs(ago), 600 * MIB + ago * MIB);

        let is_null = async || status().await["until_full_ms"].is_null();
        let metric = "\nhinted_handoff_until_full_seconds ";
        assert!(is_null().await);
        let page = text(&router, "/").await;
        assert!(page.contains("too few samples yet"), "{page}");
        assert!(!text(&router, "/metrics").await.contains(metric));

        watch.pretend(&[60, 50, 40, 30, 20, 10, 0].map(falling));
        let ms = status().await["until_full_ms"].as_u64().unwrap();
        assert_eq!((ms + 500) / 1000, 600);
        let page = text(&router, "/").await;
        for shown in [
            "full in 10 min, at the rate of the last minutes",
            "<dt>Log at most</dt><dd>256 MiB</dd>",
            "<dt>Of it kept free</dt><dd>none</dd>",
            "class=\"tile bad\"><dt>On disk</dt>",
        ] {
            assert!(page.contains(shown), "{shown}: {page}");
        }
        let metrics = text(&router, "/metrics").await;
        let (_, seconds) = metrics.split_once(metric).unwrap();
        let seconds: f64 = seconds.lines().next().unwrap().parse().unwrap();
        assert_eq!(seconds.round(), 600.0);

        watch.pretend(&[60, 50, 40, 30, 20, 10, 0].map(|ago| (falling(ago).0, 600 * MIB)));
        assert!(is_null().await);
        let page = text(&router, "/").await;
        assert!(page.contains("<dd>not filling</dd>"), "{page}");
        assert!(!text(&router, "/metrics").await.contains(metric));
        handoff.shutdown().await.unwrap();
    }
}
