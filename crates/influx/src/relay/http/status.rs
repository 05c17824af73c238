//! How the relay is.

use axum::{
    Json,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderValue, Method, Response, StatusCode, header},
    response::IntoResponse,
};
use hinted_handoff::{Gate, Health};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{
    Relay, Shared, VERSION,
    answer::{Dialect, Problem},
    query::Parameters,
};
use crate::causes::with_causes;

/// The most that the figures of the queue take.
const METRICS_BYTES: usize = 16 * 1024 * 1024;
const END: &str = "# EOF\n";

/// `GET` or `HEAD /ping`: 204, or the version with `?verbose=true`.
pub async fn ping(request: Request) -> Response<Body> {
    let parameters = Parameters::of(request.uri().query());
    match parameters.text("verbose") {
        "" | "0" | "false" => StatusCode::NO_CONTENT.into_response(),
        _ => Json(json!({"version": VERSION})).into_response(),
    }
}

/// `GET /health`: whether writes are taken, and what is known of the servers. A server that is
/// away does not make the relay fail: that is what it is for.
pub async fn health(State(relay): State<Relay>) -> Response<Body> {
    let why_not = relay.0.why_not();
    let (status, name) = match why_not {
        None => (StatusCode::OK, "pass"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "fail"),
    };
    let message = why_not.unwrap_or_else(|| "ready for writes".to_owned());
    let told = json!({
        "name": "hh-relay",
        "message": message,
        "status": name,
        "checks": relay.0.checks(),
        "version": VERSION,
    });
    (status, Json(told)).into_response()
}

/// `GET /ready`: whether writes are taken.
pub async fn ready(State(relay): State<Relay>) -> Response<Body> {
    match relay.0.why_not() {
        None => Json(json!({"status": "ready"})).into_response(),
        Some(why) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, why).told(Dialect::V1),
    }
}

/// `GET /metrics`: the figures of the queue, and those of the relay.
pub async fn metrics(State(relay): State<Relay>, request: Request) -> Response<Body> {
    let checked = {
        let parameters = Parameters::of(request.uri().query());
        let (user, password) = (parameters.text("u"), parameters.text("p"));
        relay.0.users.check(request.headers(), user, password)
    };
    let text = match checked {
        Ok(()) => relay.0.metrics().await,
        Err(denied) => Err(denied.into()),
    };
    match text {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            let kind = HeaderValue::from_static(kind);
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(problem) => problem.told(Dialect::V1),
    }
}

impl Shared {
    /// Why no writes are taken, if they are not.
    fn why_not(&self) -> Option<String> {
        if self.stop.is_cancelled() {
            return Some("hh-relay is being stopped".to_owned());
        }
        match self.writes.handoff().health() {
            Health::Serving => None,
            Health::ReplayStopped(why) => Some(with_causes(&why)),
            Health::Failed(why)
            | Health::ReopenRequired(why)
            | Health::DirectoryGone(why)
            | Health::RestartRequired(why) => Some(with_causes(&why)),
            _ => Some("the queue is shut down".to_owned()),
        }
    }

    /// A check for each server.
    fn checks(&self) -> Vec<Value> {
        let stats = self.writes.handoff().stats();
        let checks = self.names.iter().map(|(node, name)| {
            let known = stats.nodes.iter().find(|it| it.node == *node);
            let closed = known.and_then(|known| match &known.gate {
                Gate::Closed { why, .. } => Some(why.clone()),
                _ => None,
            });
            json!({
                "name": match name {
                    Some(name) => format!("node {node} ({name})"),
                    None => format!("node {node}"),
                },
                "status": if closed.is_none() { "pass" } else { "fail" },
                "message": closed.unwrap_or_default(),
                "pending": known.map_or(0, |known| known.pending.hints),
            })
        });
        checks.collect()
    }

    async fn metrics(&self) -> Result<String, Problem> {
        let failed = |text: String| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, text);
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = axum::http::Uri::from_static("/metrics");
        let answer = self.admin.clone().oneshot(request).await;
        let answer = answer.unwrap_or_else(|never| match never {});
        let queue = to_bytes(answer.into_body(), METRICS_BYTES).await;
        let queue = queue.map_err(|error| failed(error.to_string()))?;
        let queue = String::from_utf8_lossy(&queue);
        let own = self.counts.text(self.bounds.budget.taken());
        let own = own.map_err(|error| failed(error.to_string()))?;
        // Each text ends by itself, and the whole ends once.
        Ok(format!(
            "{}{own}",
            queue.strip_suffix(END).unwrap_or_default()
        ))
    }
}
