//! The server tests: one file a promise. They start real servers and never link the crate.

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

mod acl;
mod block;
mod client;
mod cluster;
mod commands;
mod cost;
mod docs;
mod errors;
mod failover;
mod holders;
mod hostile;
mod leases;
mod load;
mod memory;
mod metrics;
mod module_load;
mod multi;
mod persistence;
mod propagation;
mod random;
mod replication;
mod server;
mod settle;
mod throttle;
mod top;
mod upgrade;
