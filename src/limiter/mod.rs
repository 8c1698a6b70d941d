//! The limiting itself: pure, without a server and without a clock of its own.
//!
//! A [`Limiter`] is the state of one key. Everything about it is a function of that state, the [`Limits`]
//! of a call, the moment `now` and the units asked for:
//!
//! | function | what it does |
//! | --- | --- |
//! | [`decide`] | says whether a request is granted, what remains and how long to wait; takes nothing |
//! | [`Limiter::first`], [`Limiter::grant`] | record a grant: the effect of a decision |
//! | [`Limiter::refund`] | gives units back |
//!
//! A grant is recorded by its effect alone (limits, moment, units), so that a replica that is
//! sent the effect holds the same state as the primary that decided.
//!
//! Three structures serve five algorithms: [`Bucket`] is TOKENBUCKET and LEAKYBUCKET,
//! [`FixedWindow`] is itself, and [`SlidingWindow`] is SLIDING and SLIDINGLOG.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `time`, `packed` | microseconds and rounding; integers as wide as they need be |
//! | `limits` | what callers allow, read and validated |
//! | `decision` | the decision that all algorithms share |
//! | `bucket`, `fixed_window`, `sliding_window` (on `ring`) | one structure each |
//! | `codec` | the stored bytes and the replicated effect |

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod bucket;
pub mod codec;
mod decision;
mod fixed_window;
pub mod limits;
mod packed;
mod ring;
mod sliding_window;
pub mod time;

#[cfg(test)]
mod tests;

pub use bucket::{Bucket, SmallBucket};
pub use decision::{Decision, Mode, Request};
pub use fixed_window::FixedWindow;
pub use limits::{Algorithm, Limits};
pub use ring::Entry;
pub use sliding_window::SlidingWindow;
pub use time::Micros;

use decision::Standing;
use limits::BucketKind;

/// The state of one key: what is used, since when, and under which limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limiter {
    /// A token or leaky bucket.
    Bucket(SmallBucket),
    /// A token or leaky bucket that does not fit the form above.
    LargeBucket(Box<Bucket>),
    /// A fixed window.
    FixedWindow(FixedWindow),
    /// A sliding window counter or log.
    SlidingWindow(SlidingWindow),
}

/// A limiter as it is read: whatever form it is kept in.
enum View<'a> {
    Bucket(Bucket),
    FixedWindow(&'a FixedWindow),
    SlidingWindow(&'a SlidingWindow),
}

/// Decides a request on a key that holds `state`, or nothing. A state of another algorithm than the
/// call's counts as nothing: whether it may be replaced is asked before, by [`Limiter::is_idle`].
#[must_use]
pub fn decide(state: Option<&Limiter>, call: &Limits, now: Micros, request: Request) -> Decision {
    let state = state.filter(|state| state.algorithm() == call.algorithm());
    match (call, state.map(Limiter::view)) {
        (Limits::Bucket(call), Some(View::Bucket(bucket))) => {
            decision::decide(&bucket.standing(call, now), call.capacity, request)
        }
        (Limits::Bucket(call), _) => {
            decision::decide(&bucket::Level::empty(call), call.capacity, request)
        }
        (Limits::FixedWindow(call), Some(View::FixedWindow(window))) => {
            decision::decide(&window.standing(call, now), call.limit, request)
        }
        (Limits::FixedWindow(call), _) => {
            decision::decide(&fixed_window::Count::empty(call, now), call.limit, request)
        }
        (Limits::SlidingWindow(call), Some(View::SlidingWindow(list))) => {
            decision::decide(&list.standing(call, now), call.limit, request)
        }
        (Limits::SlidingWindow(call), _) => {
            decision::decide(&sliding_window::Span::empty(call, now), call.limit, request)
        }
    }
}

/// Whether a grant on a key that holds `state`, or nothing, needs memory that is not there yet: a new key, or a
/// list of entries that must be allocated anew to grow. (A bucket that outgrows its small form takes some, too: it is there
/// already, and goes on deciding.)
#[must_use]
pub fn must_allocate(state: Option<&Limiter>, call: &Limits, now: Micros) -> bool {
    match (state, call) {
        (None, _) => true,
        (Some(state), Limits::SlidingWindow(_)) if state.algorithm() != call.algorithm() => true,
        (Some(Limiter::SlidingWindow(list)), Limits::SlidingWindow(call)) => {
            list.must_grow(call, now)
        }
        _ => false,
    }
}

// One box a key: what is in it is packed so that it stays within 32 bytes, an allocator's size class.
const _: () = assert!(size_of::<Limiter>() == 32);
// Servers give no more.
const _: () = assert!(align_of::<Limiter>() <= 8 && align_of::<Bucket>() <= 8);

impl Limiter {
    fn view(&self) -> View<'_> {
        match self {
            Self::Bucket(bucket) => View::Bucket(bucket.unpack()),
            Self::LargeBucket(bucket) => View::Bucket(**bucket),
            Self::FixedWindow(window) => View::FixedWindow(window),
            Self::SlidingWindow(list) => View::SlidingWindow(list),
        }
    }

    /// The state after the first grant on a key.
    #[must_use]
    pub fn first(call: &Limits, now: Micros, units: u64) -> Self {
        match call {
            Limits::Bucket(call) => Bucket::grant(&bucket::Level::empty(call), units, now).into(),
            Limits::FixedWindow(call) => {
                Self::FixedWindow(FixedWindow::grant(&fixed_window::Count::empty(call, now), units))
            }
            Limits::SlidingWindow(call) => {
                let mut list = SlidingWindow::new(call);
                list.grant(call, units, now);
                Self::SlidingWindow(list)
            }
        }
    }

    /// What redis-cell remembers, as a token bucket under these limits: a theoretical arrival time, in nanoseconds since 1970.
    /// `None` if nothing of it is used any more, or the limits are for something else.
    #[must_use]
    pub fn from_arrival_time(call: &Limits, nanos: u64, now: Micros) -> Option<Self> {
        match call {
            Limits::Bucket(call) if call.kind == BucketKind::Token => {
                Bucket::from_arrival_time(call, nanos, now).map(Self::from)
            }
            _ => None,
        }
    }

    /// The state after a grant on `before`, or on nothing.
    #[must_use]
    pub fn granted(before: Option<Self>, call: &Limits, now: Micros, units: u64) -> Self {
        match before {
            Some(mut limiter) => {
                limiter.grant(call, now, units);
                limiter
            }
            None => Self::first(call, now, units),
        }
    }

    /// Records a grant of 1 unit or more. A state of another algorithm is replaced.
    pub fn grant(&mut self, call: &Limits, now: Micros, units: u64) {
        if self.algorithm() != call.algorithm() {
            *self = Self::first(call, now, units);
            return;
        }
        match (self.view(), call) {
            (View::Bucket(bucket), Limits::Bucket(call)) => {
                *self = Bucket::grant(&bucket.standing(call, now), units, now).into();
            }
            (View::FixedWindow(window), Limits::FixedWindow(call)) => {
                *self = Self::FixedWindow(FixedWindow::grant(&window.standing(call, now), units));
            }
            // One algorithm has one structure: what is left is a list and limits for one.
            _ => {
                if let (Self::SlidingWindow(list), Limits::SlidingWindow(call)) = (self, call) {
                    list.grant(call, units, now);
                }
            }
        }
    }

    /// Gives `units` back, the newest first. Whether anything is still used; if not, the key is to
    /// be deleted.
    pub fn refund(&mut self, now: Micros, units: u64) -> bool {
        match self {
            Self::FixedWindow(window) => window.refund(units),
            Self::SlidingWindow(list) => list.refund(units, now),
            Self::Bucket(_) | Self::LargeBucket(_) => self.refund_bucket(now, units),
        }
    }

    fn refund_bucket(&mut self, now: Micros, units: u64) -> bool {
        let View::Bucket(mut bucket) = self.view() else {
            return true;
        };
        let is_used = bucket.refund(units, now);
        *self = bucket.into();
        is_used
    }

    /// Which algorithm the state belongs to.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Bucket(bucket) => bucket.kind().algorithm(),
            Self::LargeBucket(bucket) => bucket.limits().kind.algorithm(),
            Self::FixedWindow(_) => Algorithm::FixedWindow,
            Self::SlidingWindow(list) => list.algorithm(),
        }
    }

    /// The limits of the last grant.
    #[must_use]
    pub fn limits(&self) -> Limits {
        match self.view() {
            View::Bucket(bucket) => Limits::Bucket(bucket.limits()),
            View::FixedWindow(window) => Limits::FixedWindow(window.limits()),
            View::SlidingWindow(list) => Limits::SlidingWindow(list.limits()),
        }
    }

    /// What a request would be answered under the limits of the last grant.
    #[must_use]
    pub fn peek(&self, now: Micros, request: Request) -> Decision {
        decide(Some(self), &self.limits(), now, request)
    }

    /// The units in use under the limits of the last grant, rounded up.
    #[must_use]
    pub fn used(&self, now: Micros) -> u64 {
        match self.view() {
            View::Bucket(bucket) => bucket.standing(&bucket.limits(), now).used(),
            View::FixedWindow(window) => window.standing(&window.limits(), now).used(),
            View::SlidingWindow(list) => list.standing(&list.limits(), now).used(),
        }
    }

    /// Whether the limiter is as if never used, under the limits of the last grant.
    #[must_use]
    pub fn is_idle(&self, now: Micros) -> bool {
        self.used(now) == 0
    }

    /// The moment from which on the limiter is as if never used.
    #[must_use]
    pub fn idle_at(&self) -> Micros {
        match self.view() {
            View::Bucket(bucket) => bucket.idle_at(),
            View::FixedWindow(window) => window.idle_at(),
            View::SlidingWindow(list) => list.idle_at(),
        }
    }

    /// How many entries count now, where the structure is a list of them.
    #[must_use]
    pub fn entries(&self, now: Micros) -> Option<usize> {
        let Self::SlidingWindow(list) = self else {
            return None;
        };
        Some(list.standing(&list.limits(), now).entries())
    }

    /// The block of memory besides the limiter itself, if there is one.
    #[must_use]
    pub fn block(&self) -> Option<Block<'_>> {
        match self {
            Self::Bucket(_) | Self::FixedWindow(_) => None,
            Self::LargeBucket(bucket) => Some(Block::Bucket(bucket)),
            Self::SlidingWindow(list) => Some(Block::Entries(list.slots())),
        }
    }

    /// The same block, to move it elsewhere.
    pub fn block_mut(&mut self) -> Option<BlockMut<'_>> {
        match self {
            Self::Bucket(_) | Self::FixedWindow(_) => None,
            Self::LargeBucket(bucket) => Some(BlockMut::Bucket(bucket)),
            Self::SlidingWindow(list) => Some(BlockMut::Entries(list.slots_mut())),
        }
    }
}

impl From<Bucket> for Limiter {
    fn from(bucket: Bucket) -> Self {
        SmallBucket::pack(&bucket).map_or_else(|| Self::LargeBucket(Box::new(bucket)), Self::Bucket)
    }
}

/// A block of memory besides a limiter itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Block<'a> {
    /// The entries of a list, never none.
    Entries(&'a [Entry]),
    /// A bucket.
    Bucket(&'a Bucket),
}

/// The same, to put another in its place.
#[derive(Debug)]
pub enum BlockMut<'a> {
    /// The entries of a list.
    Entries(&'a mut Box<[Entry]>),
    /// A bucket.
    Bucket(&'a mut Box<Bucket>),
}
