//! A draining level: the token bucket and the leaky bucket, one algorithm read in two ways.
//!
//! ```text
//!            level                A grant of c units needs  used + c <= capacity
//!   capacity |  .c                and raises the level by c; the level drains at `rate`.
//!            | / \   .c
//!            |/   \ / \           Token: used is what has not been refilled yet.
//!          0 +-----'---\----> t   Leaky: used is the queue, and a request is delayed until
//!                                        what was before it has drained.
//! ```
//!
//! With a rate of n units per d microseconds the level is held in d-ths of a unit. A microsecond
//! then drains exactly n and a unit adds exactly d: all integers, so nothing is ever lost to
//! rounding, at one unit a year as at a million a second. From `used + c <= capacity` at every
//! grant follows the promise: in a span of t microseconds at most `capacity + n*t/d` units.
//!
//! A level is converted to another rate's d by rounding up. That changes no decision: costs and
//! capacities are whole and the drain is a multiple of 1/d, so `level <= capacity - c + drained`
//! holds for a level exactly when it holds for that level rounded up to the next multiple of 1/d.
//! A call with another rate drains at the faster of the two since the last grant, and until the
//! next: only a grant stores its own.
//!
//! It is the algorithm of a virtual queue, or GCRA in the other direction (ITU-T I.371, appendix:
//! the two are shown equivalent there): GCRA's theoretical arrival time is the moment when this
//! level reaches 0.
//!
//! Cost: O(1), a few 128-bit products.

use std::num::NonZeroU64;

use super::decision::Usage;
use super::limits::{BucketKind, BucketLimits, MAX_USED, Rate};
use super::time::{Micros, div_up};

/// The state of a bucket: its level at its last grant, and under which limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub(super) limits: BucketLimits,
    /// In 1/d units.
    pub(super) level: u128,
    /// The moment of the last grant.
    pub(super) at: Micros,
}

impl Bucket {
    /// A stored bucket, checked; `None` if grants could not have made it.
    pub(super) fn restore(limits: &BucketLimits, level: u128, at: Micros) -> Option<Self> {
        let valid = level > 0 && level <= full_level(limits.rate) && at <= Micros::MAX_MOMENT;
        valid.then_some(Self { limits: *limits, level, at })
    }

    /// A bucket that is full again at a moment given in nanoseconds, as redis-cell stores it:
    /// `used = (moment - now) * rate`, rounded up. `None` if that has passed.
    pub(super) fn from_arrival_time(
        limits: &BucketLimits,
        nanos: u64,
        now: Micros,
    ) -> Option<Self> {
        const NANOS_PER_MICRO: NonZeroU64 = NonZeroU64::MIN.saturating_add(999);
        let now_nanos = u128::from(now.get()).saturating_mul(u128::from(NANOS_PER_MICRO.get()));
        let left = u128::from(nanos).saturating_sub(now_nanos);
        let level =
            div_up(left.saturating_mul(u128::from(limits.rate.units().get())), NANOS_PER_MICRO);
        let level = level.min(full_level(limits.rate));
        (level > 0).then_some(Self { limits: *limits, level, at: now })
    }

    /// What counts now, under the limits of a call.
    fn usage(&self, call: &BucketLimits, now: Micros) -> Level {
        let ahead = self.at.since(now);
        let rate = self.limits.rate.faster(call.rate);
        let stored = self.level;
        // A clock that stepped back: believed for as long as the stored rate takes to drain it all.
        if drained(self.limits.rate, ahead) > stored {
            return Level::empty(call);
        }
        let level = convert(stored, self.limits.rate.per_us(), rate.per_us());
        let level = level.saturating_sub(drained(rate, now.since(self.at)));
        Level { level, rate, ahead, call: *call }
    }

    /// The bucket after a grant on what was used before it.
    pub(super) fn granted(before: &Level, units: u64, now: Micros) -> Self {
        Self { limits: before.call, level: before.level_with(units), at: now }
    }

    /// Gives `units` back; whether anything is still used.
    pub(super) fn refund(&mut self, units: u64, now: Micros) -> bool {
        let level = self.level;
        let given = u128::from(units).saturating_mul(u128::from(self.limits.rate.per_us().get()));
        let gone = drained(self.limits.rate, now.since(self.at));
        self.level = level.saturating_sub(given);
        // If the clock has stepped back, what is left could lie further ahead than it takes to drain. It would then not
        // count at all, and more than `units` would be given back.
        self.at = self.at.min(now);
        level > given.saturating_add(gone)
    }

    /// The moment from which on the bucket is idle.
    pub(super) fn idle_at(&self) -> Micros {
        self.at.after(time_to_drain(self.level, self.limits.rate))
    }
}

/// A bucket's level now, in 1/d units of the rate at which it drains until the next grant.
pub(super) struct Level {
    level: u128,
    rate: Rate,
    /// How long until the draining begins, if the clock has stepped back.
    ahead: Micros,
    call: BucketLimits,
}

impl Level {
    /// What counts of a bucket, or of none.
    pub(super) fn of(bucket: Option<Bucket>, call: &BucketLimits, now: Micros) -> Self {
        bucket.map_or_else(|| Self::empty(call), |bucket| bucket.usage(call, now))
    }

    fn empty(call: &BucketLimits) -> Self {
        Self { level: 0, rate: call.rate, ahead: Micros::ZERO, call: *call }
    }

    /// The level in 1/d units of the call's rate, in which a grant would store it.
    fn in_call_rate(&self) -> u128 {
        convert(self.level, self.rate.per_us(), self.call.rate.per_us())
    }

    /// The level once `units` are taken, in 1/d units of the call's rate.
    fn level_with(&self, units: u64) -> u128 {
        let taken = u128::from(units).saturating_mul(u128::from(self.call.rate.per_us().get()));
        self.in_call_rate().saturating_add(taken).min(full_level(self.call.rate))
    }
}

impl Usage for Level {
    fn limit(&self) -> u64 {
        self.call.capacity
    }

    fn used(&self) -> u64 {
        u64::try_from(div_up(self.level, self.rate.per_us())).unwrap_or(MAX_USED)
    }

    fn until_at_most(&self, units: u64) -> Micros {
        let allowed = u128::from(units).saturating_mul(u128::from(self.rate.per_us().get()));
        match self.level.saturating_sub(allowed) {
            0 => Micros::ZERO,
            excess => self.ahead.after(time_to_drain(excess, self.rate)),
        }
    }

    fn until_idle_with(&self, units: u64) -> Micros {
        time_to_drain(self.level_with(units), self.call.rate)
    }

    fn delay(&self) -> Micros {
        match self.call.kind {
            BucketKind::Token => Micros::ZERO,
            BucketKind::Leaky => time_to_drain(self.in_call_rate(), self.call.rate),
        }
    }
}

/// The level at which usage saturates.
fn full_level(rate: Rate) -> u128 {
    u128::from(MAX_USED).saturating_mul(u128::from(rate.per_us().get()))
}

/// What drains in a span, in 1/d units.
fn drained(rate: Rate, span: Micros) -> u128 {
    u128::from(span.get()).saturating_mul(u128::from(rate.units().get()))
}

/// How long a level takes to drain, rounded up.
fn time_to_drain(level: u128, rate: Rate) -> Micros {
    Micros::saturating_from(div_up(level, rate.units()))
}

/// A level in `from`-ths of a unit as one in `to`-ths, rounded up.
fn convert(level: u128, from: NonZeroU64, to: NonZeroU64) -> u128 {
    if from == to {
        return level;
    }
    // The whole units apart from the rest, since level * to can exceed 128 bits.
    let from_wide = u128::from(from.get());
    let whole = level.checked_div(from_wide).unwrap_or_default();
    let rest = level.saturating_sub(whole.saturating_mul(from_wide));
    let to_wide = u128::from(to.get());
    whole.saturating_mul(to_wide).saturating_add(div_up(rest.saturating_mul(to_wide), from))
}
