//! Unit tests that are more than a file's own.

#![allow(
    missing_docs,
    clippy::float_arithmetic,
    clippy::cast_possible_truncation,
    reason = "a test fails by a panic"
)]

mod answer;
mod http;
mod identity;
mod json;
mod original;
mod vectors;
