//! The decision that all algorithms share.
//!
//! Whatever a limiter remembers, two numbers decide: what is used now, and the limit.
//!
//! ```text
//! free    = limit - used                     never below 0; usage is rounded up
//! taken   = cost             if cost <= free, or with FORCE
//!         = min(cost, free)  with PARTIAL
//!         = 0                otherwise: denied, unless the cost is 0
//! wait    = until used <= limit - cost       (limit - 1 with PARTIAL); never if cost > limit
//! ```
//!
//! While a block runs (see `block`), nothing is free but for FORCE, and a wait or a reset lasts at least as long as the block.
//!
//! What differs between the algorithms is when units stop counting. That is their [`Usage`]: what counts now of
//! a stored state under the limits of a call. A state made under other limits is read in the kinder way when
//! its usage is made, once, before anything is decided.
//!
//! Cost: O(1) besides what the usage's own answers cost.

use super::time::Micros;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// The units to take, at most [`super::limits::MAX_UNITS`].
    pub(crate) cost: u64,
    pub(crate) mode: Mode,
}

impl Request {
    /// A request that takes nothing: it only looks.
    pub(crate) const LOOK: Self = Self { cost: 0, mode: Mode::Whole };
}

/// What happens if not all units of a request are free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// All or nothing.
    Whole,
    /// As many as are free.
    Partial,
    /// All of them, into debt.
    Force,
}

/// What a limiter answers. Nothing is taken yet: that is the effect of the decision (see [`super::effect`]).
///
/// The default is that of a request that is still to be decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) allowed: bool,
    /// The limit or capacity of the call.
    pub(crate) limit: u64,
    /// The units that could be taken right afterwards.
    pub(crate) remaining: u64,
    /// Denied: until the same request would be granted, `None` if it never can be. Granted: until
    /// the caller may go ahead.
    pub(crate) wait: Option<Micros>,
    /// Until the limiter is idle.
    pub(crate) reset: Micros,
    /// The units that the request takes; 0 for none.
    pub(crate) taken: u64,
    /// Whether a block ran already.
    pub(crate) is_blocked: bool,
}

impl Decision {
    /// The same decision while a block lasts this long still.
    pub(crate) fn while_blocked(self, left: Micros) -> Self {
        let wait = if self.allowed { self.wait } else { self.wait.map(|wait| wait.max(left)) };
        Self { remaining: 0, wait, reset: self.reset.max(left), ..self }
    }
}

/// What counts now of a limiter, under the limits of a call.
pub(super) trait Usage {
    /// The limit or capacity of the call.
    fn limit(&self) -> u64;

    /// The units in use, rounded up.
    fn used(&self) -> u64;

    /// Until at most `units` are in use, if nothing is taken.
    fn until_at_most(&self, units: u64) -> Micros;

    /// Until nothing is in use, if nothing is taken.
    fn until_idle(&self) -> Micros {
        self.until_at_most(0)
    }

    /// Until nothing is in use, if `units` are taken now and nothing later. `units` is not 0.
    fn until_idle_with(&self, units: u64) -> Micros;

    /// How long a request that is granted now must wait before it may go ahead.
    fn delay(&self) -> Micros {
        Micros::ZERO
    }

    /// Whether a grant needs a new block of memory, for a structure that has one.
    fn must_grow(&self) -> bool {
        false
    }

    /// How many leases there are if a grant adds one; 0 if it adds none.
    fn leases_with_one_more(&self) -> usize {
        0
    }

    /// How many entries count, for a structure that is a list of them.
    fn entries(&self) -> Option<usize> {
        None
    }
}

/// Decides a request. Pure, total, and without an error path: limits and costs are valid.
pub(super) fn decide(usage: &impl Usage, request: Request) -> Decision {
    let Request { cost, mode } = request;
    let limit = usage.limit();
    let free = limit.saturating_sub(usage.used());
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
            wait: Some(usage.delay()),
            reset: usage.until_idle_with(taken),
            taken,
            is_blocked: false,
        };
    }
    take_nothing(usage, request, free)
}

/// Decides a request while a block lasts this long still.
#[cold]
pub(super) fn decide_while_blocked(usage: &impl Usage, request: Request, left: Micros) -> Decision {
    let decision = match request.mode {
        Mode::Force => decide(usage, request),
        Mode::Whole | Mode::Partial => take_nothing(usage, request, 0),
    };
    Decision { is_blocked: true, ..decision.while_blocked(left) }
}

/// The decision on a request that takes nothing.
#[inline]
fn take_nothing(usage: &impl Usage, request: Request, free: u64) -> Decision {
    let Request { cost, mode } = request;
    let limit = usage.limit();
    let wait = if cost == 0 {
        Some(Micros::ZERO)
    } else {
        let needed = if mode == Mode::Partial { 1 } else { cost };
        limit.checked_sub(needed).map(|most| usage.until_at_most(most))
    };
    let reset = usage.until_idle();
    let allowed = cost == 0;
    Decision { allowed, limit, remaining: free, wait, reset, taken: 0, is_blocked: false }
}
