//! The relay before real servers that are killed, stopped, full, or lack something, while clients
//! write: afterwards each server has what a server has that was written to directly, and what it
//! has not is a dead letter, with its text.
//!
//! Four clients write batches of 200 points, each batch until it is answered with 204. Besides,
//! each batch writes one point of its client anew: which value stays tells whether writes of one
//! series ever passed each other. `HH_POINTS` is the number of points of a story (6,000),
//! `HH_SECONDS` how long a server stands still (2). Each story prints a row of a table.

mod clients;
mod faults;
#[path = "../common/influxd.rs"]
mod influxd;
mod input;
mod relay;
mod stand;
mod stories;
