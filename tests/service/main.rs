//! A service over its store: replay to nodes that answer anything, limits, ages, operating nodes,
//! fan-out writes, and what its host is told.

#[path = "../common/mod.rs"]
mod common;

mod blocking_twins;
mod boxed_writer;
mod by_hand;
mod clock;
mod enqueued;
mod events;
mod expiry;
mod fairness;
mod fan_out;
mod handoff;
mod importing;
mod json;
mod lifetimes;
mod limits;
mod many_sends;
mod node_states;
mod nodes;
mod payload;
mod pending_hints;
mod points_writer;
mod poison;
mod rehinting;
mod replay;
mod settings;
mod slow_link;
mod slow_receiver;
mod supervision;
mod timeouts;
mod times;
mod traced;
mod tracing_guide;
mod unknown_format;
mod weak_handle;
