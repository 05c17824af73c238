//! The program `hh-relay` as its clients and its operators meet it: a child process, before servers
//! that answer as they are told, or before real ones.
//!
//! No test waits for a time to pass but where the time is what it is about.

mod bad_input;
mod budget;
mod clients;
mod command;
mod endpoints;
#[allow(dead_code)]
#[path = "../writer/fake.rs"]
mod fake;
#[path = "../common/influxd.rs"]
mod influxd;
mod operating;
mod refused;
mod request;
mod server;
mod stopping;
mod tls;
mod udp;
mod users;
mod writes;
