//! The decision that all algorithms share.
//!
//! Whatever a limiter remembers, two numbers of it decide: what is used now, and the limit.
//!
//! ```text
//! free    = limit - used                     never below 0; use is rounded up
//! taken   = cost             if cost <= free, or with FORCE
//!         = min(cost, free)  with PARTIAL
//!         = 0                otherwise: denied, unless the cost is 0
//! wait    = until used <= limit - cost       (limit - 1 with PARTIAL); never if cost > limit
//! ```
//!
//! What differs between the algorithms is when use goes away. That is their [`Standing`]: what
//! counts now of a stored state under the limits of a call. Reading a state made under other limits
//! in the kinder way is done in making it, once, before anything is decided.
//!
//! Cost: O(1) besides what the standing's own answers cost.

use super::time::Micros;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The units to take, at most [`super::limits::MAX_UNITS`].
    pub cost: u64,
    /// What happens where they are not all there.
    pub mode: Mode,
}

impl Request {
    /// A request that takes nothing: it only looks.
    pub const LOOK: Self = Self { cost: 0, mode: Mode::Whole };
}

/// What happens where not all units of a request are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All or nothing.
    Whole,
    /// As many as there are.
    Partial,
    /// All of them, into debt.
    Force,
}

/// What a limiter answers. Nothing is taken yet: see [`super::Limiter::grant`].
///
/// The default is that of a request that is still to be decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request is granted.
    pub allowed: bool,
    /// The limit or capacity of the call.
    pub limit: u64,
    /// The units that could be taken right afterwards.
    pub remaining: u64,
    /// Denied: until the same request would be granted, `None` if it never can be. Granted: until
    /// the caller may go ahead.
    pub wait: Option<Micros>,
    /// Until the limiter is as if never used.
    pub reset: Micros,
    /// The units that the request takes: what [`super::Limiter::grant`] is to record; 0 for none.
    pub taken: u64,
}

/// What counts now of a limiter, under the limits of a call.
pub(super) trait Standing {
    /// The units in use, rounded up.
    fn used(&self) -> u64;

    /// Until at most `units` are in use, if nothing is taken.
    fn until_at_most(&self, units: u64) -> Micros;

    /// Until nothing is in use, if nothing is taken.
    fn until_idle(&self) -> Micros;

    /// Until nothing is in use, if `units` are taken now and nothing later. `units` is not 0.
    fn until_idle_with(&self, units: u64) -> Micros;

    /// Until a request that is granted now may go ahead.
    fn turn(&self) -> Micros {
        Micros::ZERO
    }
}

/// Decides a request. Pure, total, and without an error path: limits and costs are valid.
pub(super) fn decide(standing: &impl Standing, limit: u64, request: Request) -> Decision {
    let Request { cost, mode } = request;
    let used = standing.used();
    let free = limit.saturating_sub(used);
    let taken = match mode {
        Mode::Whole if cost > free => 0,
        Mode::Whole | Mode::Force => cost,
        Mode::Partial => cost.min(free),
    };
    if taken > 0 {
        return Decision {
            allowed: true,
            limit,
            remaining: free.saturating_sub(taken),
            wait: Some(standing.turn()),
            reset: standing.until_idle_with(taken),
            taken,
        };
    }
    let wait = if cost == 0 {
        Some(Micros::ZERO)
    } else {
        let needed = if mode == Mode::Partial { 1 } else { cost };
        limit.checked_sub(needed).map(|most| standing.until_at_most(most))
    };
    let reset = standing.until_idle();
    Decision { allowed: cost == 0, limit, remaining: free, wait, reset, taken }
}
