//! Tests of the gateway as its users have it: the built program, real proxies, real servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../../tests/server.rs"]
mod server;

mod cluster;
mod sentinel;
mod store;
mod store_speed;
