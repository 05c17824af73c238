//! Health, for people and for probes.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use hinted_handoff::{Health, Payload};
use serde::Serialize;

use crate::{
    health,
    problem::{Kind, Problem},
    state::Admin,
};

#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    health: Health,
    /// In words.
    text: String,
}

fn health_of<P: Payload>(admin: &Admin<P>) -> Health {
    admin.handoff().map_or(Health::ShutDown, |it| it.health())
}

/// 200 if it serves and replay runs, else 503; with what is known either way.
pub async fn health<P: Payload>(State(admin): State<Admin<P>>) -> Response {
    let health = health_of(&admin);
    let status = match health {
        Health::Serving => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let text = health::text(&health);
    (status, Json(Told { health, text })).into_response()
}

/// 200 if hints are accepted, else 503.
pub async fn ready<P: Payload>(State(admin): State<Admin<P>>) -> Response {
    let health = health_of(&admin);
    match &health {
        Health::Serving | Health::ReplayStopped(_) => (StatusCode::OK, "ready\n").into_response(),
        Health::ShutDown => Problem::new(Kind::ShutDown, health::text(&health)).into_response(),
        _ => Problem::new(Kind::StoreFailed, health::text(&health)).into_response(),
    }
}

/// 503 if only a restart of the process helps, else 200.
pub async fn live<P: Payload>(State(admin): State<Admin<P>>) -> Response {
    let health = health_of(&admin);
    match &health {
        Health::RestartRequired(_) => {
            Problem::new(Kind::StoreFailed, health::text(&health)).into_response()
        }
        _ => (StatusCode::OK, "live\n").into_response(),
    }
}
