//! Events as they happen, as server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    response::sse::{Event as Line, KeepAlive, Sse},
};
use futures_util::stream::{Stream, unfold};
use hinted_handoff::{Event, Payload};
use serde_json::json;
use tokio::sync::{
    OwnedSemaphorePermit,
    broadcast::{Receiver, error::RecvError},
};
use tokio_util::sync::CancellationToken;

use crate::{
    problem::{Kind, Problem},
    state::Admin,
};

/// So that a listener that is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A listener. What it has not read yet is in the channel, which keeps 1,024 events for all.
struct Listener {
    events: Receiver<Event>,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

pub async fn stream<P: Payload>(
    State(admin): State<Admin<P>>,
) -> Result<Sse<impl Stream<Item = Result<Line, Infallible>>>, Problem> {
    let permit = admin.streams().clone().try_acquire_owned();
    let permit = permit.map_err(|_| {
        Problem::new(
            Kind::Busy,
            "too many listen for events already; end one of them",
        )
    })?;
    let listener = Listener {
        events: admin.handoff()?.events(),
        stop: admin.stop().clone(),
        _permit: permit,
    };
    let lines = unfold(listener, async |mut it| {
        let told = tokio::select! {
            biased;
            () = it.stop.cancelled() => return None,
            told = it.events.recv() => told,
        };
        let line = match told {
            Ok(event) => line_of(&event),
            // It was too slow, and is told so.
            Err(RecvError::Lagged(missed)) => Line::default()
                .event("missed")
                .data(json!({ "event": "missed", "events": missed }).to_string()),
            Err(RecvError::Closed) => return None,
        };
        Some((Ok(line), it))
    });
    Ok(Sse::new(lines).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// The name of an event is in its JSON, too.
fn line_of(event: &Event) -> Line {
    let json = serde_json::to_value(event).unwrap_or_default();
    let name = json
        .get("event")
        .and_then(|it| it.as_str())
        .unwrap_or("event");
    Line::default().event(name).data(json.to_string())
}
