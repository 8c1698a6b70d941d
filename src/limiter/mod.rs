//! Rate limiting itself: pure, without a server and without a clock of its own.
//!
//! A [`Limiter`] is the state of one key. Everything about it is a function of that state, the [`Limits`]
//! of a call, the moment `now` and the units asked for:
//!
//! | function | what it does |
//! | --- | --- |
//! | [`decide`] | says whether a request is granted, what remains and how long to wait; takes nothing |
//! | [`effect::apply`] | records what was decided: a grant, or a refund |
//! | [`effect::new_expiry`] | says how long the key must live |
//!
//! What was decided is recorded by its effect alone (limits, moment, units). A replica that receives the effect holds
//! the same state as the primary that decided.
//!
//! Three structures serve five algorithms: [`Bucket`] is TOKENBUCKET and LEAKYBUCKET,
//! [`FixedWindow`] is itself, and [`SlidingWindow`] is SLIDING and SLIDINGLOG.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `time`, `packed` | microseconds and rounding; integers as wide as they need be |
//! | `limits`, `calendar`, `rule` | what callers allow, validated; calendar windows; a rule as text |
//! | `decision` | the decision that all algorithms share |
//! | `bucket`, `fixed_window`, `sliding_window` (on `ring`), `leases` (on `tree`) | one structure each |
//! | `stored` | the 32 bytes in which each of them is kept |
//! | `effect` | what a grant or a refund does to a key |
//! | `codec` | the stored bytes and the replicated effect |
//!
//! # A sixth algorithm
//!
//! If it reads a structure that is there in another way: an [`Algorithm`], its name and its words in `rule`, its limits in
//! `limits`, its number in `codec`. A structure of its own adds a file with a type for its state and one for its
//! [`Usage`], an arm in [`Pair`] and in [`State`] (the compiler then names every place), and its form in `stored`. Then
//! a row in `commands::TABLE`, and in each test that goes by rows; the property tests ask for a model.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod bucket;
mod calendar;
pub(crate) mod codec;
mod decision;
pub(crate) mod effect;
mod fixed_window;
#[allow(dead_code, reason = "not wired yet: the commands come next")]
mod leases;
pub(crate) mod limits;
mod packed;
mod ring;
pub(crate) mod rule;
mod sliding_window;
mod stored;
pub(crate) mod time;
#[allow(dead_code, reason = "as leases")]
mod tree;

#[cfg(test)]
mod tests;

use std::ops::Deref;

pub(crate) use decision::{Decision, Mode, Request};
pub(crate) use limits::{Algorithm, Limits};
pub(crate) use ring::Entry;
pub(crate) use stored::{Block, BlockMut, LargeBucket, Limiter};
pub(crate) use time::Micros;

use bucket::{Bucket, Level};
use decision::Usage;
use fixed_window::{Count, FixedWindow};
use limits::{BucketLimits, FixedWindowLimits, SlidingWindowLimits};
use sliding_window::{SlidingWindow, Span};
use stored::State;

/// Evaluates an expression on what counts now of a pair, whichever its structure.
macro_rules! on_usage {
    ($pair:expr, $now:expr, $usage:ident => $answer:expr) => {
        match $pair {
            Pair::Bucket(state, call) => {
                let $usage = Level::of(state, call, $now);
                $answer
            }
            Pair::FixedWindow(state, call) => {
                let $usage = Count::of(state, call, $now);
                $answer
            }
            Pair::SlidingWindow(state, call) => {
                let $usage = Span::of(state, call, $now);
                $answer
            }
        }
    };
}

/// Decides a request on a key that holds `state`, or nothing. A state of another algorithm than the
/// call's counts as nothing: whether it may be replaced is asked before, by [`Limiter::is_idle`].
pub(crate) fn decide(
    state: Option<&Limiter>,
    call: &Limits,
    now: Micros,
    request: Request,
) -> Decision {
    let pair = Pair::of(state.map(Limiter::state), call);
    on_usage!(pair, now, usage => decision::decide(&usage, request))
}

/// The same, and whether to take what is granted needs memory that is not there yet: a new key, or a list of entries
/// that must be allocated anew to grow. (A bucket that outgrows its small form takes some, too: it is there already, and
/// goes on deciding.)
pub(crate) fn decide_and_plan(
    state: Option<&Limiter>,
    call: &Limits,
    now: Micros,
    request: Request,
) -> (Decision, bool) {
    let is_new = state.is_none();
    let pair = Pair::of(state.map(Limiter::state), call);
    on_usage!(pair, now, usage => {
        let decision = decision::decide(&usage, request);
        let must_allocate = decision.taken > 0 && (is_new || usage.must_grow());
        (decision, must_allocate)
    })
}

/// The limits of a call, and the state that they meet: none, or one of the same algorithm.
enum Pair<'c, S> {
    Bucket(Option<Bucket>, &'c BucketLimits),
    FixedWindow(Option<FixedWindow>, &'c FixedWindowLimits),
    SlidingWindow(Option<SlidingWindow<S>>, &'c SlidingWindowLimits),
}

impl<'c, S: Deref<Target = [Entry]>> Pair<'c, S> {
    /// A state of another algorithm counts as none.
    #[inline]
    fn of(state: Option<State<S>>, call: &'c Limits) -> Self {
        match (call, state) {
            (Limits::Bucket(call), Some(State::Bucket(bucket)))
                if bucket.limits.kind == call.kind =>
            {
                Self::Bucket(Some(bucket), call)
            }
            (Limits::Bucket(call), _) => Self::Bucket(None, call),
            (Limits::FixedWindow(call), Some(State::FixedWindow(window))) => {
                Self::FixedWindow(Some(window), call)
            }
            (Limits::FixedWindow(call), _) => Self::FixedWindow(None, call),
            (Limits::SlidingWindow(call), Some(State::SlidingWindow(list)))
                if list.limits.algorithm() == call.algorithm() =>
            {
                Self::SlidingWindow(Some(list), call)
            }
            (Limits::SlidingWindow(call), _) => Self::SlidingWindow(None, call),
        }
    }
}

impl Pair<'_, Box<[Entry]>> {
    /// The limiter after a grant of 1 unit or more, and the moment from which on it is idle.
    #[inline]
    fn granted(self, now: Micros, units: u64) -> (Limiter, Micros) {
        match self {
            Self::Bucket(bucket, call) => {
                let bucket = Bucket::granted(&Level::of(bucket, call, now), units, now);
                (bucket.into(), bucket.idle_at())
            }
            Self::FixedWindow(window, call) => {
                let window = FixedWindow::granted(&Count::of(window, call, now), units);
                (window.into(), window.idle_at())
            }
            Self::SlidingWindow(list, call) => {
                let mut list = list.unwrap_or_else(|| SlidingWindow::new(call));
                list.grant(call, units, now);
                let idle_at = list.idle_at();
                (list.into(), idle_at)
            }
        }
    }
}

impl<S: Deref<Target = [Entry]>> State<S> {
    /// The limits of the last grant.
    fn limits(&self) -> Limits {
        match self {
            Self::Bucket(bucket) => Limits::Bucket(bucket.limits),
            Self::FixedWindow(window) => Limits::FixedWindow(window.limits),
            Self::SlidingWindow(list) => Limits::SlidingWindow(list.limits),
        }
    }
}

impl Limiter {
    /// The limiter after the first grant on a key, and the moment from which on it is idle.
    fn first(call: &Limits, now: Micros, units: u64) -> (Self, Micros) {
        Pair::of(None, call).granted(now, units)
    }

    /// Records a grant of 1 unit or more, and returns the moment from which on the limiter is idle. A state of another
    /// algorithm is replaced.
    fn grant(&mut self, call: &Limits, now: Micros, units: u64) -> Micros {
        let (limiter, idle_at) = Pair::of(Some(self.take()), call).granted(now, units);
        *self = limiter;
        idle_at
    }

    /// Gives `units` back, the newest first. Whether anything is still used; if not, the key is to be deleted.
    fn refund(&mut self, now: Micros, units: u64) -> bool {
        let mut state = self.take();
        let is_used = match &mut state {
            State::Bucket(bucket) => bucket.refund(units, now),
            State::FixedWindow(window) => window.refund(units),
            State::SlidingWindow(list) => list.refund(units, now),
        };
        *self = state.into();
        is_used
    }

    /// The limits of the last grant.
    pub(crate) fn limits(&self) -> Limits {
        self.state().limits()
    }

    /// What a request would be answered under the limits of the last grant.
    pub(crate) fn peek(&self, now: Micros, request: Request) -> Decision {
        decide(Some(self), &self.limits(), now, request)
    }

    /// The units in use under the limits of the last grant, rounded up.
    pub(crate) fn used(&self, now: Micros) -> u64 {
        let limits = self.limits();
        on_usage!(Pair::of(Some(self.state()), &limits), now, usage => usage.used())
    }

    /// How many entries count now, if the structure is a list of them.
    pub(crate) fn entries(&self, now: Micros) -> Option<usize> {
        let limits = self.limits();
        on_usage!(Pair::of(Some(self.state()), &limits), now, usage => usage.entries())
    }

    /// Whether nothing counts any more, under the limits of the last grant.
    pub(crate) fn is_idle(&self, now: Micros) -> bool {
        self.used(now) == 0
    }

    /// The moment from which on the limiter is idle.
    #[cfg(test)]
    pub(crate) fn idle_at(&self) -> Micros {
        match self.state() {
            State::Bucket(bucket) => bucket.idle_at(),
            State::FixedWindow(window) => window.idle_at(),
            State::SlidingWindow(list) => list.idle_at(),
        }
    }
}
