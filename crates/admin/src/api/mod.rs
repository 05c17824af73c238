//! The API: JSON below `/v1`, and the probes.

mod barriers;
mod events;
mod letters;
mod losses;
mod moving;
mod nodes;
mod peek;
mod probes;
mod settings;
mod status;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{get, post},
};
use hinted_handoff::Payload;

pub use nodes::of_node;
pub use peek::{How, Shown};
pub use settings::{costs_of, reconfigure};

use crate::{guard, settings::Settings, state::Admin};

/// All routes of it, with the checks that they need.
pub fn routes<P: Payload>(settings: &Arc<Settings>) -> Router<Admin<P>> {
    let looks = Router::new()
        .route("/live", get(probes::live))
        .route("/ready", get(probes::ready))
        .route("/v1/health", get(probes::health))
        .route("/v1/status", get(status::status))
        .route("/v1/nodes", get(nodes::list))
        .route("/v1/nodes/{node}", get(nodes::one))
        .route("/v1/nodes/{node}/hints", get(peek::peek))
        .route("/v1/nodes/{node}/letters", get(letters::list))
        .route(
            "/v1/nodes/{node}/letters/{store}/{queue}/{sequence}",
            get(letters::one),
        )
        .route("/v1/config", get(settings::shown))
        .route("/v1/events", get(events::stream))
        .route("/v1/losses", get(losses::since))
        // These look, or wait for hints, and change none.
        .route("/v1/config/preview", post(settings::preview))
        .route("/v1/nodes/{node}/drain", post(barriers::drain))
        .route("/v1/barriers", post(barriers::make))
        .route("/v1/barriers/wait", post(barriers::wait))
        .route("/v1/sync", post(barriers::sync));
    let writable = middleware::from_fn_with_state(Arc::clone(settings), guard::writable);
    let changes = Router::new()
        .route("/v1/pause", post(nodes::pause_all))
        .route("/v1/resume", post(nodes::resume_all))
        .route("/v1/retain", post(nodes::retain))
        .route("/v1/nodes/{node}/pause", post(nodes::pause))
        .route("/v1/nodes/{node}/resume", post(nodes::resume))
        .route("/v1/nodes/{node}/rename", post(nodes::rename))
        .route("/v1/nodes/{node}/rehint", post(moving::rehint))
        .route(
            guard::IMPORT,
            post(moving::import).layer(DefaultBodyLimit::max(moving::IMPORT_BYTES)),
        )
        .route("/v1/nodes/{node}/remove", post(nodes::remove))
        .route(
            "/v1/nodes/{node}/cancel-removal",
            post(nodes::cancel_removal),
        )
        .route("/v1/config", post(settings::change))
        .route("/v1/hinting", post(settings::hinting))
        .route("/v1/hinting/{what}", post(settings::by_hand_of_all))
        .route("/v1/nodes/{node}/by-hand/{what}", post(settings::by_hand))
        .route("/v1/nodes/{node}/hints/discard", post(settings::discard))
        .route("/v1/nodes/{node}/letters/redrive", post(letters::redrive))
        .route("/v1/nodes/{node}/letters/discard", post(letters::discard))
        .route_layer(writable);
    looks
        .merge(changes)
        .layer(middleware::from_fn(guard::not_forged))
}
