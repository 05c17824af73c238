//! The interface for operators, asked over its router, over its sockets, and by a browser.

mod api;
mod browser;
mod browser_changes;
mod by_hand;
mod common;
mod events;
mod facade;
mod metrics;
mod moving;
mod ops;
mod page;
mod security;
mod serving;
mod settings;
mod settings_page;
mod webdriver;
