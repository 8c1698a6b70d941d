//! The fixed window: a counter that starts anew with every window.
//!
//! ```text
//!   used |      ____           ..limit      A grant needs  used + c <= limit.
//!        |   __|    |                       Everything in a window leaves at its end, at once.
//!        |__|       |_____|---
//!        s          s + window   -> t
//! ```
//!
//! The window begins at s: the first grant in it, or, where it is aligned, the last multiple of the
//! window (plus the offset) since 1970. Units count while `now < s + window`. At most `limit` are granted in
//! one window; around the edge between two, up to twice that in a span of one window.
//!
//! A call with another window counts the units for the shorter of the two and, where the call is aligned,
//! not beyond the end of its own aligned window in which s lies.
//!
//! Cost: O(1); memory: the struct.

use super::decision::Standing;
use super::limits::{FixedWindowLimits, MAX_USED};
use super::packed::{U40, U56};
use super::ring::{Entry, Total};
use super::time::Micros;

/// The state of a fixed window: what was used since when, and under which limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedWindow {
    limit: U40,
    window: U56,
    /// `window - align`, which is never 0; 0 where the window is not aligned.
    shift: U56,
    /// The window's start, and the units used since.
    used: Entry,
}

impl FixedWindow {
    /// A window that began at `start` and in which `used` units were granted; `None` if there is
    /// no such window.
    pub(super) fn restore(limits: &FixedWindowLimits, start: Micros, used: u64) -> Option<Self> {
        let valid = (1..=MAX_USED).contains(&used) && start <= Micros::MAX_MOMENT;
        valid.then(|| Self::new(limits, start, used))
    }

    fn new(limits: &FixedWindowLimits, start: Micros, used: u64) -> Self {
        let FixedWindowLimits { limit, window, align } = *limits;
        let shift = align.map_or(0, |align| window.since(align).get());
        Self {
            limit: U40::new(limit),
            window: U56::new(window.get()),
            shift: U56::new(shift),
            used: Entry::new(start, Total::ZERO.plus(used)),
        }
    }

    pub(super) fn limits(&self) -> FixedWindowLimits {
        let (window, shift) = (self.window(), Micros::new(self.shift.get()));
        let align = (shift > Micros::ZERO).then(|| window.since(shift));
        FixedWindowLimits { limit: self.limit.get(), window, align }
    }

    fn window(&self) -> Micros {
        Micros::new(self.window.get())
    }

    /// When the window began.
    pub(super) fn start(&self) -> Micros {
        self.used.time()
    }

    /// The units granted since then.
    pub(super) fn used(&self) -> u64 {
        self.used.total().since(Total::ZERO)
    }

    /// What counts now, under the limits of a call.
    pub(super) fn standing(&self, call: &FixedWindowLimits, now: Micros) -> Count {
        let (start, end) = (self.start(), self.end(call));
        // A clock that stepped back is believed for one stored window.
        let counts = now < end && start.since(now) <= self.window();
        let (used, start) = if counts { (self.used(), start) } else { (0, now) };
        Count { used, start, end, now, call: *call }
    }

    /// Records a grant. What stood before it is `standing`.
    pub(super) fn grant(standing: &Count, units: u64) -> Self {
        let used = standing.used.saturating_add(units).min(MAX_USED);
        Self::new(&standing.call, standing.start_of_grant(), used)
    }

    /// Gives `units` back; whether anything is still used.
    pub(super) fn refund(&mut self, units: u64) -> bool {
        let left = self.used().saturating_sub(units);
        self.used = Entry::new(self.start(), Total::ZERO.plus(left));
        left > 0
    }

    /// The moment from which on the window is as if never used.
    pub(super) fn idle_at(&self) -> Micros {
        self.end(&self.limits())
    }

    /// When what was used stops counting for a call with these limits.
    fn end(&self, call: &FixedWindowLimits) -> Micros {
        let end = self.start().after(self.window().min(call.window));
        match call.align {
            None => end,
            Some(align) => end.min(aligned_end(self.start(), call.window, align)),
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
    pub(super) fn empty(call: &FixedWindowLimits, now: Micros) -> Self {
        Self { used: 0, start: now, end: now, now, call: *call }
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

impl Standing for Count {
    fn used(&self) -> u64 {
        self.used
    }

    fn until_at_most(&self, units: u64) -> Micros {
        if self.used <= units { Micros::ZERO } else { self.end.since(self.now) }
    }

    fn until_idle(&self) -> Micros {
        self.until_at_most(0)
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
