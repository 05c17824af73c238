//! Queues of InfluxDB's own hinted handoff, and what becomes of them.

#![allow(missing_docs)]

mod kill;
mod mutations;
mod old_queue;
mod program;
mod round_trip;
mod store;
mod torn;
