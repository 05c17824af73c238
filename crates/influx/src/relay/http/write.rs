//! Writes.

use std::time::SystemTime;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Response, StatusCode, Uri},
};
use hinted_handoff::ConsistencyLevel;

use super::{
    Relay, Shared,
    answer::{Dialect, Problem, written},
    query::Parameters,
};
use crate::{
    Points, Precision, Target,
    relay::body::{self, Read},
};

/// A body of more bytes is read by a thread that may take its time.
const LONG_BYTES: usize = 256 * 1024;

/// `POST /write`.
pub async fn v1(State(relay): State<Relay>, request: Request) -> Response<Body> {
    let written = relay.0.write_v1(request).await;
    written.unwrap_or_else(|problem| problem.told(Dialect::V1))
}

/// `POST /api/v2/write`.
pub async fn v2(State(relay): State<Relay>, request: Request) -> Response<Body> {
    let written = relay.0.write_v2(request).await;
    written.unwrap_or_else(|problem| problem.told(Dialect::V2))
}

impl Shared {
    async fn write_v1(&self, request: Request) -> Result<Response<Body>, Problem> {
        let (parts, body) = request.into_parts();
        let asked = {
            let parameters = Parameters::of(parts.uri.query());
            self.users
                .check(&parts.headers, parameters.text("u"), parameters.text("p"))?;
            self.asked_v1(&parameters)?
        };
        self.write(asked, &parts.headers, body).await
    }

    fn asked_v1(&self, parameters: &Parameters<'_>) -> Result<Asked, Problem> {
        let bad = |text: &str| Problem::new(StatusCode::BAD_REQUEST, text);
        let database = parameters.get("db").or(self.database.as_deref());
        let level = match parameters.get("consistency") {
            None => self.consistency,
            Some(level) => level
                .parse()
                .map_err(|_| bad("invalid consistency level"))?,
        };
        let target = Target {
            database: database
                .ok_or_else(|| bad("database is required"))?
                .to_owned(),
            retention_policy: self.policy(parameters.get("rp")),
            // influxd takes a unit that it does not know for nanoseconds.
            precision: parameters.text("precision").parse().unwrap_or_default(),
        };
        Ok(Asked { target, level })
    }

    async fn write_v2(&self, request: Request) -> Result<Response<Body>, Problem> {
        let (parts, body) = request.into_parts();
        self.users.check(&parts.headers, "", "")?;
        let asked = self.asked_v2(&parts.uri)?;
        self.write(asked, &parts.headers, body).await
    }

    /// A bucket is a database, or a database and a retention policy.
    fn asked_v2(&self, uri: &Uri) -> Result<Asked, Problem> {
        let parameters = Parameters::of(uri.query());
        let bad = |text: String| Problem::new(StatusCode::BAD_REQUEST, text);
        let bucket = parameters.text("bucket");
        let (database, policy) = bucket.split_once('/').unwrap_or((bucket, ""));
        if database.is_empty() {
            return Err(bad(
                "bucket is required: database, or database/policy".to_owned()
            ));
        }
        let precision = match parameters.get("precision") {
            None | Some("ns") => Precision::Nanoseconds,
            Some("us") => Precision::Microseconds,
            Some("ms") => Precision::Milliseconds,
            Some("s") => Precision::Seconds,
            Some(other) => {
                let shown: String = other.chars().take(20).collect();
                return Err(bad(format!("invalid precision {shown:?}: ns, us, ms or s")));
            }
        };
        let target = Target {
            database: database.to_owned(),
            retention_policy: self.policy(Some(policy).filter(|it| !it.is_empty())),
            precision,
        };
        Ok(Asked {
            target,
            level: self.consistency,
        })
    }

    fn policy(&self, asked: Option<&str>) -> Option<String> {
        asked
            .or(self.retention_policy.as_deref())
            .map(str::to_owned)
    }

    async fn write(
        &self,
        asked: Asked,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response<Body>, Problem> {
        if self.stop.is_cancelled() {
            let text = "hh-relay is being stopped; send this again later";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, text));
        }
        let Read { bytes, mut share } = body::read(headers, body, &self.bounds).await?;
        self.counts.came(bytes.len());
        let points = read(asked.target, bytes).await?;
        // Points that had no time are longer now.
        let grown = share.grow_to(points.lines_bytes());
        grown.map_err(|full| Problem::new(StatusCode::SERVICE_UNAVAILABLE, full.to_string()))?;
        let (bad, bad_lines) = (points.bad().to_vec(), points.bad_lines());
        let report = self.writes.write(points, asked.level).await;
        drop(share);
        self.counts.wrote(&report, bad_lines);
        written(report.verdict(&bad, bad_lines))
    }
}

/// What a write asks for.
struct Asked {
    target: Target,
    level: ConsistencyLevel,
}

/// Reads the lines of a body.
async fn read(target: Target, bytes: Vec<u8>) -> Result<Points, Problem> {
    let now = SystemTime::now();
    if bytes.len() < LONG_BYTES {
        return Ok(Points::read(target, &bytes, now));
    }
    let reading = tokio::task::spawn_blocking(move || Points::read(target, &bytes, now));
    reading.await.map_err(|error| {
        tracing::error!(%error, "a body could not be read");
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the body could not be read",
        )
    })
}
