//! The tests of the programs: they start them on real servers.

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

mod bench;
mod replay;
#[path = "../../tests/server.rs"]
mod server;
