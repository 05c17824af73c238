//! Operating nodes: pausing, renaming and merging, saying who is in the cluster, and letting a node
//! leave in peace.
//!
//! Goal: hints of a node that is held wait and are not lost; a rename moves them whole, in order,
//! under their ids; nothing is discarded before its time; all of it is as it was after any restart.
//! Method: a service with a scripted writer, restarted cleanly, or as after a crash by taking its
//! `CLEAN` summary away; for order and ids a random test against a model, whose seed it prints.

mod draining;
mod host;
mod parking;
mod pausing;
mod property;
mod renaming;
#[path = "nodes/starting.rs"]
mod starting;
