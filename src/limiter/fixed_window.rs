//! The fixed window: a counter that starts anew with every window.
//!
//! ```text
//!   used |      ____           ..limit      A grant needs  used + c <= limit.
//!        |   __|    |                       Everything in a window leaves at its end, at once.
//!        |__|       |_____|---
//!        s          s + window   -> t
//! ```
//!
//! The window begins at s: its first grant, or, if it is aligned, the last multiple of the window (plus the
//! offset) since 1970. Units count while `now < s + window`. At most `limit` are granted in
//! one window; around the edge between two, up to twice that in a span of one window.
//!
//! A call with another window counts the units for the shorter of the two and, if the call is aligned,
//! not beyond the end of its own aligned window in which s lies.
//!
//! Cost: O(1).

use super::decision::Usage;
use super::limits::{FixedWindowLimits, MAX_USED};
use super::time::Micros;

/// The state of a fixed window: what was used since when, and under which limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FixedWindow {
    pub(super) limits: FixedWindowLimits,
    /// When the window began.
    pub(super) start: Micros,
    /// The units granted since then.
    pub(super) used: u64,
}

impl FixedWindow {
    /// A stored window, checked; `None` if grants could not have made it.
    pub(super) fn restore(limits: &FixedWindowLimits, start: Micros, used: u64) -> Option<Self> {
        let valid = (1..=MAX_USED).contains(&used) && start <= Micros::MAX_MOMENT;
        valid.then_some(Self { limits: *limits, start, used })
    }

    /// What counts now, under the limits of a call.
    fn usage(&self, call: &FixedWindowLimits, now: Micros) -> Count {
        let end = self.end(call);
        // A clock that stepped back is believed for one stored window.
        let counts = self.used > 0 && now < end && self.start.since(now) <= self.limits.window;
        let (used, start) = if counts { (self.used, self.start) } else { (0, now) };
        Count { used, start, end, now, call: *call }
    }

    /// The window after a grant on what was used before it.
    pub(super) fn granted(before: &Count, units: u64) -> Self {
        let used = before.used.saturating_add(units).min(MAX_USED);
        Self { limits: before.call, start: before.start_of_grant(), used }
    }

    /// Gives `units` back; whether anything is still used.
    pub(super) fn refund(&mut self, units: u64) -> bool {
        self.used = self.used.saturating_sub(units);
        self.used > 0
    }

    /// The moment from which on the window is idle.
    pub(super) fn idle_at(&self) -> Micros {
        self.end(&self.limits)
    }

    /// When what was used stops counting for a call with these limits.
    fn end(&self, call: &FixedWindowLimits) -> Micros {
        let end = self.start.after(self.limits.window.min(call.window));
        match call.align {
            None => end,
            Some(align) => end.min(aligned_end(self.start, call.window, align)),
        }
    }
}

/// What counts now of a fixed window.
pub(super) struct Count {
    used: u64,
    start: Micros,
    end: Micros,
    now: Micros,
    call: FixedWindowLimits,
}

impl Count {
    /// What counts of a window, or of none.
    pub(super) fn of(window: Option<FixedWindow>, call: &FixedWindowLimits, now: Micros) -> Self {
        let none = || Self { used: 0, start: now, end: now, now, call: *call };
        window.map_or_else(none, |window| window.usage(call, now))
    }

    /// The start that a grant stores: the call's aligned window, or the window that is under way.
    /// One that would begin later, the clock having stepped back, begins now.
    fn start_of_grant(&self) -> Micros {
        match self.call.align {
            Some(align) => aligned_start(self.now, self.call.window, align),
            None => self.start.min(self.now),
        }
    }
}

impl Usage for Count {
    fn limit(&self) -> u64 {
        self.call.limit
    }

    fn used(&self) -> u64 {
        self.used
    }

    fn until_at_most(&self, units: u64) -> Micros {
        if self.used <= units { Micros::ZERO } else { self.end.since(self.now) }
    }

    fn until_idle_with(&self, _units: u64) -> Micros {
        let end = match self.call.align {
            Some(align) => aligned_end(self.now, self.call.window, align),
            None => self.start_of_grant().after(self.call.window),
        };
        end.since(self.now)
    }
}

/// How far `at` lies in its aligned window.
fn aligned_phase(at: Micros, window: Micros, align: Micros) -> Micros {
    // Both terms are below 2^54, and window - align is not negative.
    let shifted = at.after(window.since(align)).get();
    Micros::new(shifted.checked_rem(window.get()).unwrap_or_default())
}

/// When the aligned window began in which `at` lies. One that began before 1970 is taken to begin at 1970: its end is
/// found from its phase, so only a call without ALIGN could tell, and only at a moment within the first window of all.
fn aligned_start(at: Micros, window: Micros, align: Micros) -> Micros {
    at.since(aligned_phase(at, window, align))
}

/// When the aligned window ends in which `at` lies.
fn aligned_end(at: Micros, window: Micros, align: Micros) -> Micros {
    at.after(window.since(aligned_phase(at, window, align)))
}
