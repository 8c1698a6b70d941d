//! What was decided since the module was loaded: the INFO section `rl_stats`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use redis_module::{InfoContext, RedisResult};
use redis_module_macros::info_command_handler;

use super::propagation;
use crate::limiter::Algorithm;

/// Requests granted and denied, by algorithm in the order of [`Algorithm::ALL`]; blocks, and leases given back.
struct Counts {
    granted: [AtomicU64; Algorithm::ALL.len()],
    denied: [AtomicU64; Algorithm::ALL.len()],
    /// Blocks begun.
    blocks: AtomicU64,
    /// Denials because a block ran; they are among those denied.
    denied_by_block: AtomicU64,
    released: AtomicU64,
}

static COUNTS: Counts = Counts {
    granted: [const { AtomicU64::new(0) }; Algorithm::ALL.len()],
    denied: [const { AtomicU64::new(0) }; Algorithm::ALL.len()],
    blocks: AtomicU64::new(0),
    denied_by_block: AtomicU64::new(0),
    released: AtomicU64::new(0),
};

/// Counts a decision. A request that asked for nothing is none.
pub(crate) fn count(algorithm: Algorithm, granted: bool) {
    let counts = if granted { &COUNTS.granted } else { &COUNTS.denied };
    if let Some(count) = counts.get(algorithm as usize) {
        add(count, 1);
    }
}

/// Counts a block that began.
pub(crate) fn count_block() {
    add(&COUNTS.blocks, 1);
}

/// Counts a denial because a block ran.
pub(crate) fn count_denied_by_block() {
    add(&COUNTS.denied_by_block, 1);
}

/// Counts leases that their holders gave back.
pub(crate) fn count_released(leases: u64) {
    add(&COUNTS.released, leases);
}

/// Commands run on one thread: no read-modify-write needs to be locked.
fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Relaxed).wrapping_add(more), Relaxed);
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
    section = section
        .field("blocks_begun", COUNTS.blocks.load(Relaxed).to_string())?
        .field("denied_by_block", COUNTS.denied_by_block.load(Relaxed).to_string())?
        .field("leases_released", COUNTS.released.load(Relaxed).to_string())?;
    section.build_section()?.build_info()?;
    Ok(())
}
