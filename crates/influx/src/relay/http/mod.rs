//! What clients ask for by HTTP.

mod answer;
mod query;
mod status;
mod write;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use hinted_handoff::ConsistencyLevel;
use tokio_util::sync::CancellationToken;

use self::answer::{Dialect, Problem};
use super::{body::Bounds, counts::Counts, users::Users, write::Writes};

/// The version that clients are told: they look whether it begins with `1.`, and for features that
/// came with one.
const VERSION: &str = concat!("1.6.7-hh-relay-", env!("CARGO_PKG_VERSION"));

/// What all requests share.
#[derive(Clone)]
pub struct Relay(Arc<Shared>);

pub struct Shared {
    pub writes: Writes,
    pub users: Users,
    pub bounds: Bounds,
    pub counts: Arc<Counts>,
    pub consistency: ConsistencyLevel,
    pub database: Option<String>,
    pub retention_policy: Option<String>,
    /// What people call the servers.
    pub names: Vec<(hinted_handoff::NodeId, Option<String>)>,
    /// The figures of the queue, from the admin interface.
    pub admin: Router,
    /// Cancelled when no request should come any more.
    pub stop: CancellationToken,
}

/// All paths.
pub fn router(shared: Shared) -> Router {
    let relay = Relay(Arc::new(shared));
    Router::new()
        .route("/write", post(write::v1).options(async || StatusCode::OK))
        .route("/api/v2/write", post(write::v2))
        .route("/ping", get(status::ping))
        .route("/health", get(status::health))
        .route("/ready", get(status::ready))
        .route("/metrics", get(status::metrics))
        .route("/query", get(no_query).post(no_query))
        .route("/api/v2/query", post(no_query_v2))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(relay.clone(), every_request))
        .with_state(relay)
}

/// Tells the version, and ends a connection that is not to go on.
async fn every_request(State(relay): State<Relay>, request: Request, next: Next) -> Response {
    let began = std::time::Instant::now();
    let path = counted_path(request.uri().path());
    let mut response = match is_of_another_page(request.headers()) {
        true => Problem::new(StatusCode::FORBIDDEN, FOREIGN).told(Dialect::of(path)),
        false => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert("x-influxdb-version", HeaderValue::from_static(VERSION));
    headers.insert("x-influxdb-build", HeaderValue::from_static("hh-relay"));
    let status = response.status();
    let is_cut = matches!(
        status,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT
    );
    if relay.0.stop.is_cancelled() || is_cut {
        // The rest of such a body would be taken for the next request.
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    relay.0.counts.answered(path, status, began.elapsed());
    response
}

const FOREIGN: &str = "a page of another origin may ask for nothing here";

/// Whether a browser says that a page sent it that did not come from here: without users, any page
/// could write to a relay on the reader's own machine.
fn is_of_another_page(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false;
    };
    let origin = origin.as_bytes();
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let from = [b"http://".as_slice(), b"https://"]
        .into_iter()
        .find_map(|scheme| origin.strip_prefix(scheme));
    from.is_none() || from != host
}

/// Paths with figures of their own: a client may ask for any number of others.
fn counted_path(path: &str) -> &'static str {
    const PATHS: [&str; 7] = [
        "/write",
        "/api/v2/write",
        "/ping",
        "/health",
        "/ready",
        "/metrics",
        "/query",
    ];
    let known = PATHS.into_iter().find(|known| *known == path);
    known.unwrap_or("other")
}

const NO_QUERY: &str = "this is hh-relay, which takes writes: ask one of the servers behind it";

async fn no_query() -> Response {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, NO_QUERY).told(Dialect::V1)
}

async fn no_query_v2() -> Response {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, NO_QUERY).told(Dialect::V2)
}

async fn no_such_path(request: Request) -> Response {
    let path: String = request.uri().path().chars().take(200).collect();
    let dialect = Dialect::of(request.uri().path());
    let text = format!("there is nothing at {path}: writes go to /write or /api/v2/write");
    Problem::new(StatusCode::NOT_FOUND, text).told(dialect)
}

async fn no_such_method(method: Method, request: Request) -> Response {
    let text = format!("{method} cannot be done at this path");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, text).told(Dialect::of(request.uri().path()))
}
