//! The page: what a person on call wants to know at a glance, and what they may want to do.

mod act;
mod actions;
mod disk;
mod events;
mod frame;
mod letters;
mod node;
mod overview;
mod plot;
mod settings;
mod table;
mod words;

use axum::{
    Router,
    routing::{get, post},
};
use hinted_handoff::Payload;

pub use frame::random;

use crate::state::Admin;

/// The pages.
pub fn routes<P: Payload>() -> Router<Admin<P>> {
    Router::new()
        .route("/", get(overview::overview))
        .route("/nodes/{node}", get(node::node))
        .route(
            "/nodes/{node}/letters/{store}/{queue}/{sequence}",
            get(letters::letter),
        )
        .route("/settings", get(settings::shown).post(settings::change))
        .route("/confirm", get(actions::confirm))
        .route("/do", post(actions::act))
}
