//! An interface for operators of a database that embeds [`hinted_handoff`]: JSON over HTTP,
//! metrics, and a page.
//!
//! [`serve`] opens it on a unix socket, or on a port of the loopback interface. A host that has an
//! HTTP server mounts the [`router`] in that, behind whatever keeps strangers out there.
//!
//! ```
//! # use hinted_handoff::*;
//! # struct Away;
//! # impl ShardWriter<String> for Away {
//! #     async fn write_shard(&self, _: ShardWrite<String>) -> Result<(), WriteError> {
//! #         Err(WriteError::retry("connection refused"))
//! #     }
//! # }
//! use hinted_handoff_admin::{Address, Settings, serve};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let handoff = HintedHandoff::open(Config::new(dir.path().join("hints")), Away).await?;
//! # let _: &HintedHandoff<String> = &handoff;
//! let socket = Address::Unix(dir.path().join("admin.sock"));
//! let settings = Settings { read_only: false, ..Settings::default() };
//! let server = serve(&handoff, settings, socket).await?;
//!
//! // curl --unix-socket admin.sock http://localhost/v1/status
//!
//! server.shutdown(Duration::from_secs(5)).await?;
//! handoff.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Mounted in a server of the host's, below a path of its choice:
//!
//! ```
//! # use hinted_handoff::*;
//! use axum::Router;
//! use hinted_handoff_admin::{Hosts, Settings, router};
//!
//! fn app(handoff: &HintedHandoff<String>) -> Result<Router, hinted_handoff_admin::NoRuntime> {
//!     let hosts = Hosts::These(vec!["ops.example.net".to_owned()]);
//!     let settings = Settings { hosts, ..Settings::default() };
//!     let admin = router(handoff, settings)?;
//!     // Behind the host's own authentication.
//!     Ok(Router::new().nest("/handoff", admin))
//! }
//! ```
//!
//! # Paths
//!
//! | path | answers |
//! |---|---|
//! | `GET /` | the page; `/nodes/{node}` is that of a node, `/settings` that of the settings |
//! | `GET /metrics` | OpenMetrics |
//! | `GET /live`, `/ready` | 200 or 503: whether only a restart helps; whether hints are accepted |
//! | `GET /v1/health` | the health; 503 unless it serves and replay runs |
//! | `GET /v1/status` | all at a glance |
//! | `GET /v1/nodes?after&max` | what is known of each node |
//! | `GET /v1/nodes/{node}` | what is known of it |
//! | `GET /v1/nodes/{node}/hints?after&max&encoding&bytes` | hints that wait; `base64` or `hex` |
//! | `GET /v1/nodes/{node}/letters?after&max` | its dead letters |
//! | `GET /v1/nodes/{node}/letters/{hint}?encoding&bytes` | one of them with its payload |
//! | `GET /v1/events` | server-sent events; `missed` tells a slow reader how many it missed |
//! | `GET /v1/losses?since&max` | the loss journal |
//! | `GET /v1/config` | the settings in effect, as they are in a file |
//! | `POST /v1/config/preview` | the body of `POST /v1/config`; changes nothing, tells the cost |
//! | `POST /v1/sync` | waits until all is durable |
//! | `POST /v1/barriers` | `{"nodes": [2, 3]}`: a barrier |
//! | `POST /v1/barriers/wait` | `{"barrier": …, "timeout_ms": 1000}`: what has become of it |
//! | `POST /v1/nodes/{node}/drain` | `{"timeout_ms": 1000}`: both in one |
//! | `POST /v1/pause`, `/v1/nodes/{node}/pause` | `{"pause": "until_restart"}`, or `"lasting"` |
//! | `POST /v1/resume`, `/v1/nodes/{node}/resume` | ends a pause |
//! | `POST /v1/retain` | `{"nodes": [2, 3], "are_all": false}`: parks the others |
//! | `POST /v1/nodes/{node}/rename` | `{"to": 5}` |
//! | `POST /v1/nodes/{node}/rehint` | `{"to": [5, 6], "shards": [7]}`: up to 64 get its hints |
//! | `POST /v1/import` | `{"hints": [ … ]}`: lines of `hh export`; 90 MiB, one at a time |
//! | `POST /v1/nodes/{node}/remove` | `{"timeout_ms": 1000}`, or `{"discard_pending": true}` |
//! | `POST /v1/nodes/{node}/cancel-removal` | calls a removal off |
//! | `POST /v1/nodes/{node}/hints/discard` | `{"older_than_ms": 1000, "shard": 7}`: one or both |
//! | `POST /v1/nodes/{node}/letters/redrive`, `/discard` | `{"hints": ["…"]}`, `{"all": true}` |
//! | `POST /v1/config` | `{"max_age": "2h"}`: changes the settings that are named |
//! | `POST /v1/hinting` | `{"nodes": [2, 3], "hinting": false}`: for all of them, or an error |
//! | `POST /v1/hinting/{what}` | `stop-hinting` or `start-hinting`, of all nodes |
//! | `POST /v1/nodes/{node}/by-hand/{what}` | for one node; also hold-direct, release-direct |
//!
//! A hint id is `store/queue/sequence`, in paths too. Waits are 300,000 ms at most. An error is
//! problem JSON (RFC 9457); its `type` is `urn:hinted-handoff:` and a name that stays.
//!
//! # Who may do what
//!
//! - The unix socket has mode 0600: it is open to the user who runs the host, and to root.
//! - [`Settings::read_only`] is the default: what changes something is refused (403).
//! - A POST needs the header `x-hinted-handoff`. A page of another origin cannot send that: no
//!   preflight is ever granted. Forms of the page have a token of the server's instead, and are
//!   refused if the browser says that another site sent them.
//! - The `Host` header must be a name of this host ([`Settings::hosts`]), so that no page can make
//!   its own name lead here (DNS rebinding).
//! - The page loads nothing, and may load nothing (`Content-Security-Policy`).
//!
//! # Metrics
//!
//! Names begin with `hinted_handoff_`. Counts are since the store was opened. With more nodes than
//! [`Settings::metrics_nodes`] the deepest have samples of their own, and `node="rest"` has the sum
//! of the others; a count stays in the sample that it was first in, so that rates add up. Names of
//! nodes are the label `name` of `hinted_handoff_node_name`, to be joined by `node`.
//!
//! With the feature `metrics` a `Reporter` reports the same through the facade of the crate
//! `metrics`, for hosts that have their own figures there.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]
#![warn(missing_debug_implementations)]

mod api;
mod costs;
mod disk;
mod extract;
mod form;
mod guard;
mod health;
mod metrics;
mod page;
mod problem;
mod routes;
mod serve;
mod settings;
mod state;
mod summary;
mod watch;

#[cfg(feature = "metrics")]
pub use metrics::Reporter;
pub use routes::{NoRuntime, router};
pub use serve::{Address, ServeError, Server, serve};
pub use settings::{Decoder, Hosts, NodeNames, Settings};
