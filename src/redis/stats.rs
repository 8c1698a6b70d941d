//! What was decided since the module was loaded: the INFO section `rl_stats`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use redis_module::{InfoContext, RedisResult};
use redis_module_macros::info_command_handler;

use super::propagation;
use crate::limiter::Algorithm;

/// Requests granted and denied, by algorithm in the order of [`Algorithm::ALL`].
struct Counts {
    granted: [AtomicU64; Algorithm::ALL.len()],
    denied: [AtomicU64; Algorithm::ALL.len()],
}

static COUNTS: Counts = Counts {
    granted: [const { AtomicU64::new(0) }; Algorithm::ALL.len()],
    denied: [const { AtomicU64::new(0) }; Algorithm::ALL.len()],
};

/// Counts a decision. A request that asked for nothing is none.
pub(crate) fn count(algorithm: Algorithm, granted: bool) {
    let counts = if granted { &COUNTS.granted } else { &COUNTS.denied };
    if let Some(count) = counts.get(algorithm as usize) {
        // Commands run on one thread: no read-modify-write needs to be locked.
        count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

#[info_command_handler]
fn add_to_info(info: &InfoContext, _for_crash_report: bool) -> RedisResult<()> {
    let mut section = info.builder().add_section("stats");
    let propagation = if propagation::is_followed() { "effects" } else { "none" };
    section =
        section.field("version", env!("CARGO_PKG_VERSION"))?.field("propagation", propagation)?;
    for (algorithm, (granted, denied)) in
        Algorithm::ALL.iter().zip(COUNTS.granted.iter().zip(&COUNTS.denied))
    {
        let name = algorithm.name().to_ascii_lowercase();
        section = section
            .field(&format!("{name}_granted"), granted.load(Relaxed).to_string())?
            .field(&format!("{name}_denied"), denied.load(Relaxed).to_string())?;
    }
    section.build_section()?.build_info()?;
    Ok(())
}
