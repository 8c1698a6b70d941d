//! Rate limiting itself: pure, without a server and without a clock of its own.
//!
//! A [`Limiter`] is the state of one key. Everything about it is a function of that state, the [`Limits`]
//! of a call, the moment `now` and the units asked for:
//!
//! | function | what it does |
//! | --- | --- |
//! | [`decide`] | says whether a request is granted, what remains and how long to wait; takes nothing |
//! | [`effect::apply`] | records what was decided: a grant, a refund, what happens to a lease |
//! | [`effect::new_expiry`] | says how long the key must live |
//!
//! What was decided is recorded by its effect alone (limits, moment, units). A replica that receives the effect holds
//! the same state as the primary that decided.
//!
//! Four structures serve six algorithms: [`Bucket`] is TOKENBUCKET and LEAKYBUCKET, [`FixedWindow`] is itself,
//! [`SlidingWindow`] is SLIDING and SLIDINGLOG, and [`Leases`] is CONCURRENCY.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `time`, `packed` | microseconds and rounding; integers as wide as they need be |
//! | `limits`, `calendar`, `rule` | what callers allow, validated; calendar windows; a rule as text |
//! | `decision` | the decision that all algorithms share |
//! | `block` | denials in a row, and the block that they begin |
//! | `bucket`, `fixed_window`, `sliding_window` (on `ring`), `leases` (on `tree`) | one structure each |
//! | `stored` | the 32 bytes in which each of them is kept |
//! | `effect` | what a grant or a refund does to a key |
//! | `codec` | the stored bytes and the replicated effect |
//! | `top` | which keys are denied most often |
//!
//! # Another algorithm
//!
//! If it reads a structure that is there in another way: an [`Algorithm`], its name and its words in `rule`, its limits in
//! `limits`, its number in `codec`. A structure of its own adds a file with a type for its state and one for its
//! [`Usage`], an arm in [`Pair`] and in [`State`] (the compiler then names every place), and its form in `stored`. Then
//! a row in `commands::TABLE`, and in each test that goes by rows; the property tests ask for a model.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

pub(crate) mod block;
mod bucket;
mod calendar;
pub(crate) mod codec;
mod decision;
pub(crate) mod effect;
mod fixed_window;
pub(crate) mod leases;
pub(crate) mod limits;
mod packed;
mod ring;
pub(crate) mod rule;
mod sliding_window;
mod stored;
pub(crate) mod time;
pub(crate) mod top;
mod tree;

#[cfg(test)]
mod tests;

pub(crate) use decision::{Decision, Mode, Request};
pub(crate) use leases::Id;
pub(crate) use limits::{Algorithm, Limits};
pub(crate) use stored::{BlockVisitor, Limiter};
pub(crate) use time::Micros;

use block::{Denials, Penalty};
use bucket::{Bucket, Level};
use decision::Usage;
use fixed_window::{Count, FixedWindow};
use leases::{Held, Leases};
use limits::{BucketLimits, FixedWindowLimits, LeaseLimits, SlidingWindowLimits};
use sliding_window::{SlidingWindow, Span};
use stored::{Borrowed, Hold, Owned, State};

/// What a call asks with: its limits and, for a lease, the id of the holder.
#[derive(Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) limits: &'a Limits,
    /// Valid as an id.
    pub(crate) holder: Option<&'a [u8]>,
}

impl<'a> From<&'a Limits> for Terms<'a> {
    fn from(limits: &'a Limits) -> Self {
        Self { limits, holder: None }
    }
}

/// What it takes to take what is granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Whether memory is needed that is not there yet: a new key, or a block that must be allocated anew to grow. (A
    /// bucket that outgrows its small form takes some, too: it is there already, and goes on deciding.)
    pub(crate) must_allocate: bool,
    /// How many leases the key then has, if the grant adds one; 0 if it does not.
    pub(crate) leases: usize,
}

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
            Pair::Leases(state, call, holder) => {
                let $usage = Held::of(state.as_deref(), call, holder, $now);
                $answer
            }
        }
    };
}

/// Decides a request on a key that holds `state`, or nothing. A state of another algorithm than the
/// call's counts as nothing: whether it may be replaced is asked before, by [`Limiter::is_idle`].
pub(crate) fn decide<'a>(
    state: Option<&Limiter>,
    call: impl Into<Terms<'a>>,
    now: Micros,
    request: Request,
) -> Decision {
    let left = state.map_or(Micros::ZERO, |state| state.block_left(now));
    let pair = Pair::<Borrowed<'_>>::of(state.map(Limiter::state), call.into());
    on_usage!(pair, now, usage => decide_on(&usage, request, left))
}

/// Decides on what counts now, while a block lasts this long still.
#[inline(always)]
fn decide_on(usage: &impl Usage, request: Request, left: Micros) -> Decision {
    if left > Micros::ZERO {
        decision::decide_while_blocked(usage, request, left)
    } else {
        decision::decide(usage, request)
    }
}

/// The same, and what it takes to take what is granted.
#[inline(always)]
pub(crate) fn decide_and_plan(
    state: Option<&Limiter>,
    call: Terms<'_>,
    now: Micros,
    request: Request,
) -> (Decision, Plan) {
    let is_new = state.is_none();
    let left = state.map_or(Micros::ZERO, |state| state.block_left(now));
    let pair = Pair::<Borrowed<'_>>::of(state.map(Limiter::state), call);
    on_usage!(pair, now, usage => {
        let decision = decide_on(&usage, request, left);
        if decision.taken == 0 {
            return (decision, Plan::default());
        }
        let must_allocate = is_new || usage.must_grow();
        (decision, Plan { must_allocate, leases: usage.leases_with_one_more() })
    })
}

/// The limits of a call, and the state that they meet: none, or one of the same algorithm.
enum Pair<'c, H: Hold> {
    Bucket(Option<Bucket>, &'c BucketLimits),
    FixedWindow(Option<FixedWindow>, &'c FixedWindowLimits),
    SlidingWindow(Option<SlidingWindow<H::Entries>>, &'c SlidingWindowLimits),
    Leases(Option<H::Leases>, &'c LeaseLimits, Option<&'c [u8]>),
}

impl<'c, H: Hold> Pair<'c, H> {
    /// A state of another algorithm counts as none.
    #[inline(always)]
    fn of(state: Option<State<H>>, call: Terms<'c>) -> Self {
        match (call.limits, state) {
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
            (Limits::Leases(limits), Some(State::Leases(leases))) => {
                Self::Leases(Some(leases), limits, call.holder)
            }
            (Limits::Leases(limits), _) => Self::Leases(None, limits, call.holder),
        }
    }
}

impl Pair<'_, Owned> {
    /// The limiter after a grant of 1 unit or more, and the moment from which on it is idle.
    #[inline(always)]
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
            Self::Leases(leases, call, holder) => {
                let mut leases = leases.unwrap_or_else(|| Box::new(Leases::new(call)));
                debug_assert!(holder.is_some(), "nobody acquires a lease");
                if let Some(id) = holder.and_then(Id::new) {
                    leases.acquire(call, &id, units, now);
                }
                let idle_at = leases.idle_at();
                (Limiter::Leases(leases), idle_at)
            }
        }
    }
}

impl<H: Hold> State<H> {
    /// The limits of the last grant.
    fn limits(&self) -> Limits {
        match self {
            Self::Bucket(bucket) => Limits::Bucket(bucket.limits),
            Self::FixedWindow(window) => Limits::FixedWindow(window.limits),
            Self::SlidingWindow(list) => Limits::SlidingWindow(list.limits),
            Self::Leases(leases) => Limits::Leases(leases.limits()),
        }
    }
}

impl Limiter {
    /// The limiter after the first grant on a key, and the moment from which on it is idle.
    fn first(call: Terms<'_>, now: Micros, units: u64) -> (Self, Micros) {
        Pair::of(None, call).granted(now, units)
    }

    /// Records a grant of 1 unit or more, and returns the moment from which on the limiter is idle. A state of another
    /// algorithm is replaced, with its block. A row of denials is over.
    fn grant(&mut self, call: Terms<'_>, now: Micros, units: u64) -> Micros {
        if self.block_left(now) > Micros::ZERO
            && self.algorithm() == call.limits.algorithm()
            && let Some((limiter, denials)) = self.penalized_mut()
        {
            return limiter.grant(call, now, units).max(denials.block_end());
        }
        let (limiter, idle_at) = Pair::of(Some(self.take()), call).granted(now, units);
        *self = limiter;
        idle_at
    }

    /// Gives `units` back, the newest first. Whether the limiter is to be kept; if not, the key is to be deleted. Leases
    /// are given back by id alone: they stay as they are.
    fn refund(&mut self, now: Micros, units: u64) -> bool {
        if let Some((limiter, denials)) = self.penalized_mut() {
            // The key stays while the block runs.
            let is_blocked = denials.block_left(now) > Micros::ZERO;
            let is_used = limiter.refund(now, units);
            if is_blocked && !is_used {
                *limiter = Self::unused(&limiter.limits());
            }
            return is_used || is_blocked;
        }
        let mut state = self.take();
        let is_used = match &mut state {
            State::Bucket(bucket) => bucket.refund(units, now),
            State::FixedWindow(window) => window.refund(units),
            State::SlidingWindow(list) => list.refund(units, now),
            State::Leases(_) => true,
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
        let pair = Pair::<Borrowed<'_>>::of(Some(self.state()), (&limits).into());
        on_usage!(pair, now, usage => usage.used())
    }

    /// How many entries count now, if the structure is a list of them.
    pub(crate) fn entries(&self, now: Micros) -> Option<usize> {
        let limits = self.limits();
        let pair = Pair::<Borrowed<'_>>::of(Some(self.state()), (&limits).into());
        on_usage!(pair, now, usage => usage.entries())
    }

    /// Whether nothing counts any more, under the limits of the last grant, and no block runs.
    pub(crate) fn is_idle(&self, now: Micros) -> bool {
        self.used(now) == 0 && self.block_left(now) == Micros::ZERO
    }

    /// How long a block still lasts; 0 if none runs.
    #[inline]
    pub(crate) fn block_left(&self, now: Micros) -> Micros {
        self.denials().map_or(Micros::ZERO, |denials| denials.block_left(now))
    }

    /// What is remembered after one more denial; `None` if it does not count: a block runs, or nothing is used.
    pub(crate) fn denials_with_one_more(&self, penalty: &Penalty, now: Micros) -> Option<Denials> {
        let counts = self.used(now) > 0 && self.block_left(now) == Micros::ZERO;
        counts.then(|| Denials::one_more(self.denials(), penalty, now))
    }

    /// Counts a denial, if it counts, and returns what is remembered then.
    fn deny(&mut self, penalty: &Penalty, now: Micros) -> Option<Denials> {
        let denials = self.denials_with_one_more(penalty, now)?;
        self.set_denials(denials);
        Some(denials)
    }

    /// Whether it is what [`Self::unused`] makes, whatever its denials.
    fn is_unused(&self) -> bool {
        let unused = Self::unused(&self.limits());
        self.without_denials() == &unused
    }

    /// A limiter of these limits of which nothing is used: it is kept only while a block runs.
    fn unused(limits: &Limits) -> Self {
        let nothing = Micros::ZERO;
        match *limits {
            Limits::Bucket(limits) => Bucket { limits, level: 0, at: nothing }.into(),
            Limits::FixedWindow(limits) => FixedWindow { limits, start: nothing, used: 0 }.into(),
            Limits::SlidingWindow(limits) => SlidingWindow::new(&limits).into(),
            Limits::Leases(limits) => Self::Leases(Box::new(Leases::new(&limits))),
        }
    }

    /// The leases, if the limiter is a concurrency limit.
    pub(crate) fn leases(&self) -> Option<&Leases> {
        match self {
            Self::Leases(leases) => Some(leases),
            Self::Bucket(_)
            | Self::LargeBucket(_)
            | Self::FixedWindow(_)
            | Self::SlidingWindow(_)
            | Self::Penalized(_) => None,
        }
    }

    /// The moment from which on the limiter is idle.
    pub(crate) fn idle_at(&self) -> Micros {
        let block_end = self.denials().map_or(Micros::ZERO, |denials| denials.block_end());
        let unused_at = match self.state() {
            State::Bucket(bucket) => bucket.idle_at(),
            State::FixedWindow(window) => window.idle_at(),
            State::SlidingWindow(list) => list.idle_at(),
            State::Leases(leases) => leases.idle_at(),
        };
        unused_at.max(block_end)
    }
}
