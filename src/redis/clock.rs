//! The server's clock, in microseconds.
//!
//! From Redis 7.2 on the server tells the time at which it began the command, transaction or script: all of one
//! unit are decided at one moment, and it costs 2 ns. Redis 7.0 has no such call; there the system's
//! clock is read.

use std::time::{SystemTime, UNIX_EPOCH};

use super::api;
use crate::limiter::Micros;

/// The present moment.
#[must_use]
pub fn now() -> Micros {
    let micros = match api::cached_microseconds() {
        Some(micros) => u64::try_from(micros).unwrap_or_default(),
        None => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX)),
    };
    Micros::new(micros).min(Micros::MAX_MOMENT)
}
