//! The server's clock, in microseconds.
//!
//! From Redis 7.2 on the server has the time at which it began the command, transaction or script: all of one
//! unit are decided at one moment, and it costs 2 ns. Redis 7.0 has no such call; there the system's clock is
//! read, as the server itself reads it.

use super::api;
use crate::limiter::Micros;

pub(crate) fn now() -> Micros {
    let micros = match api::cached_microseconds() {
        Some(micros) => u64::try_from(micros).unwrap_or_default(),
        None => system_clock(),
    };
    Micros::new(micros).min(Micros::MAX_MOMENT)
}

fn system_clock() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: every system has this clock, and what it writes has room.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) };
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(now.tv_nsec).unwrap_or_default();
    seconds.saturating_mul(1_000_000).saturating_add(nanos / 1_000)
}
