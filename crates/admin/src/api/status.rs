//! All at a glance.

use std::{collections::BTreeMap, time::Duration};

use axum::{Json, extract::State};
use hinted_handoff::{Amount, Health, Pause, Payload, StoreStats, WriteStats};
use serde::Serialize;

use crate::{health, problem::Problem, state::Admin, summary::Summary};

/// The store and all its nodes, summed up.
#[derive(Serialize)]
pub struct Status {
    #[serde(flatten)]
    health: Health,
    text: String,
    read_only: bool,
    paused_all: Option<Pause>,
    /// Whether hints are made, for nodes that were not stopped by themselves.
    hinting: bool,
    /// How many nodes are in which state.
    nodes: BTreeMap<&'static str, u64>,
    pending: Amount,
    dead_letters: Amount,
    in_flight: u64,
    oldest_age_ms: Option<u64>,
    /// Hints a second.
    delivery_rate: f64,
    /// Known if all nodes with pending hints take them.
    caught_up_in_ms: Option<u64>,
    /// Until the disk has no room, at the rate of the last minutes. `null` where it does not fill,
    /// and before there are samples of a minute.
    until_full_ms: Option<u64>,
    store: StoreStats,
    writes: WriteStats,
}

pub async fn status<P: Payload>(State(admin): State<Admin<P>>) -> Result<Json<Status>, Problem> {
    let handoff = admin.handoff()?;
    let (health, stats) = (handoff.health(), handoff.stats());
    let sum = Summary::of(&stats);
    let ms = |it: Duration| it.as_millis() as u64;
    Ok(Json(Status {
        text: health::text(&health),
        health,
        read_only: admin.settings().read_only,
        paused_all: stats.paused_all,
        hinting: stats.hinting,
        nodes: sum.states,
        pending: stats.store.pending,
        dead_letters: sum.dead_letters,
        in_flight: sum.in_flight,
        oldest_age_ms: sum.oldest.map(|(_, age)| ms(age)),
        delivery_rate: sum.delivery_rate,
        caught_up_in_ms: sum.caught_up_in.map(ms),
        until_full_ms: admin.watch().filling().full_in().map(ms),
        store: stats.store,
        writes: stats.writes,
    }))
}
