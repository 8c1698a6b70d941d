//! Tests of the gateway as its users have it: the built program, real proxies, real servers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_arithmetic,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test fails by a panic"
)]

mod asks;
mod caddy;
mod changes;
mod cluster;
mod command_line;
mod compose;
mod descriptors;
mod ending;
mod envoy;
mod examples;
mod grpc;
mod http;
mod limits;
mod memory;
mod metrics;
mod nginx;
mod outage;
mod page;
mod program;
mod proxies;
mod sentinel;
#[path = "../../tests/server.rs"]
mod server;
mod shared;
mod slots;
mod store;
mod store_speed;
mod traefik;
