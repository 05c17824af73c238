//! A handoff whose nodes a test scripts, and requests to its interface.

use std::{path::Path, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode, header},
};
use bytes::Bytes;
use hinted_handoff::{Config, HintedHandoff, NodeId, NodeStats, ShardId};
use hinted_handoff_admin::{Settings, router};
use hinted_handoff_testkit::{Reply, ScriptedWriter};
use serde_json::Value;
use tower::ServiceExt;

/// Nodes of these tests: one that is away, one that takes all, one whose hints are taken by hand,
/// one that rejects.
pub const AWAY: NodeId = NodeId(2);
pub const WELL: NodeId = NodeId(3);
pub const BY_HAND: NodeId = NodeId(9);
pub const STRICT: NodeId = NodeId(4);
/// What the first is renamed to.
pub const RENAMED: NodeId = NodeId(22);
pub const SHARD: ShardId = ShardId(7);

/// What sends to `AWAY` fail with.
pub const WHY: &str = "scripted: down";

pub fn config(dir: &Path) -> Config {
    Config {
        retry_interval: Duration::from_millis(10),
        retry_max_interval: Duration::from_millis(50),
        min_free_disk: 0,
        manual_nodes: [BY_HAND].into(),
        ..Config::new(dir)
    }
}

pub struct Host {
    pub handoff: HintedHandoff<Bytes>,
    _dir: tempfile::TempDir,
}

impl Host {
    pub async fn start() -> Host {
        let dir = tempfile::tempdir().unwrap();
        let writer = ScriptedWriter::new(|write| match write.node {
            AWAY | RENAMED => Reply::Retry,
            STRICT => Reply::Reject,
            _ => Reply::Take,
        });
        let hints = dir.path().join("hints");
        let handoff = HintedHandoff::open(config(&hints), writer).await;
        Host {
            handoff: handoff.unwrap(),
            _dir: dir,
        }
    }

    pub async fn hint(&self, node: NodeId, texts: &[&str]) {
        for text in texts {
            let points = Bytes::from(text.to_string());
            self.handoff
                .write_shard(node, SHARD, &points)
                .await
                .unwrap();
        }
    }

    /// With a dead letter of `STRICT`.
    pub async fn with_letter(&self, text: &str) {
        self.hint(STRICT, &[text]).await;
        self.until(|stats| {
            stats
                .nodes
                .iter()
                .any(|it| it.node == STRICT && it.dead_letters.hints > 0)
        })
        .await;
    }

    /// What is known of a node that is known.
    pub fn node(&self, node: NodeId) -> NodeStats {
        let nodes = self.handoff.stats().nodes;
        nodes.into_iter().find(|it| it.node == node).unwrap()
    }

    pub async fn until(&self, wished: impl Fn(&hinted_handoff::Stats) -> bool) {
        for _ in 0..4_000 {
            if wished(&self.handoff.stats()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it never came to that: {:?}", self.handoff.stats());
    }

    pub fn router(&self, settings: Settings) -> Router {
        router(&self.handoff, settings).unwrap()
    }

    /// One that changes what it is asked to.
    pub fn writable(&self) -> Router {
        self.router(Settings {
            read_only: false,
            ..Settings::default()
        })
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        let media = self.headers.get(header::CONTENT_TYPE).unwrap();
        assert!(
            media.to_str().unwrap().starts_with("application/"),
            "{self:?}"
        );
        serde_json::from_slice(&self.body).unwrap()
    }

    /// What it says as JSON, if it went well.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text());
        self.json()
    }

    /// Checks that it is problem JSON with this status and the last part of this type.
    #[track_caller]
    pub fn problem(&self, status: u16, kind: &str) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        let media = self.headers.get(header::CONTENT_TYPE).unwrap();
        assert_eq!(media, "application/problem+json");
        let json = self.json();
        assert_eq!(json["type"], format!("urn:hinted-handoff:{kind}"), "{json}");
        assert_eq!(json["status"], status);
        assert!(!json["title"].as_str().unwrap().is_empty());
        json["detail"].as_str().unwrap().to_owned()
    }
}

pub async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: to_bytes(body, usize::MAX).await.unwrap(),
    }
}

pub async fn get(router: &Router, path: &str) -> Answer {
    let request = Request::get(path).header(header::HOST, "localhost");
    send(router, request.body(Body::empty()).unwrap()).await
}

pub async fn post(router: &Router, path: &str, body: Value) -> Answer {
    let request = Request::post(path)
        .header(header::HOST, "localhost")
        .header("x-hinted-handoff", "1");
    send(router, request.body(Body::from(body.to_string())).unwrap()).await
}

/// Sends the form of a question, with headers that a browser adds.
pub async fn send_form(
    router: &Router,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = Request::post(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(router, request.body(Body::from(body.to_owned())).unwrap()).await
}

/// What forms of the page are told by.
pub async fn token(router: &Router) -> String {
    let page = get(router, "/confirm?do=pause&node=2").await;
    let (_, rest) = page.text().split_once("name=\"token\" value=\"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}
