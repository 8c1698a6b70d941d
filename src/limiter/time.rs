//! Time, and all rounding.
//!
//! One unit everywhere: microseconds. A moment counts from 1970-01-01T00:00Z, a span from its own
//! start; both are [`Micros`], so that they add without a conversion. Nothing here knows a clock.
//!
//! The rule of rounding, kept in this one file: what a caller must *wait* is rounded up, what a
//! caller may *take* is rounded down, so that no rounding ever lets a unit pass too early.
//! [`div_up`] is the first half of it; the other half is that use is rounded up, too
//! (`remaining = limit - use`).

use std::num::NonZeroU64;

/// A moment (since 1970) or a span, in microseconds.
///
/// The name and the idea of one time type with its unit in its name come from governor
/// (`src/nanos.rs`). All arithmetic saturates: the largest moment the module accepts is
/// [`Micros::MAX_MOMENT`], so the ends of the type are 2,000 times further away than any time in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Micros(u64);

impl Micros {
    /// The epoch, or no time at all.
    pub(crate) const ZERO: Self = Self(0);
    /// The latest moment a state or a caller may name: 2^53-1, about the year 2255. It is the
    /// largest integer that every client, JavaScript's included, reads without loss.
    pub(crate) const MAX_MOMENT: Self = Self((1 << 53) - 1);
    /// One millisecond.
    pub(crate) const MILLISECOND: Self = Self(1_000);
    /// One second.
    pub(crate) const SECOND: Self = Self(1_000_000);
    /// One day.
    pub(crate) const DAY: Self = Self(86_400_000_000);
    /// The longest duration of the contract: 3650 days.
    pub(crate) const MAX_DURATION: Self = Self(3_650 * Self::DAY.0);

    /// As many microseconds.
    pub(crate) const fn new(micros: u64) -> Self {
        Self(micros)
    }

    /// A span computed in 128 bits; what is longer than the type holds becomes its longest span.
    pub(crate) fn saturating_from(micros: u128) -> Self {
        Self(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// The number of microseconds.
    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    /// The moment a span later.
    pub(crate) const fn after(self, span: Self) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// The span since an earlier moment; nothing if that moment is later.
    pub(crate) const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }

    /// Milliseconds, rounded up; at most 2^53-1, as the contract says of all times in replies.
    pub(crate) const fn millis_up(self) -> i64 {
        let millis = self.0.div_ceil(Self::MILLISECOND.0);
        // u64::MAX / 1000 exceeds 2^53 - 1, and nothing below 2^53 exceeds an i64.
        if millis > Self::MAX_MOMENT.0 {
            Self::MAX_MOMENT.0.cast_signed()
        } else {
            millis.cast_signed()
        }
    }
}

/// `dividend / divisor`, rounded up: for waits and for use.
pub(crate) const fn div_up(dividend: u128, divisor: NonZeroU64) -> u128 {
    // Both are nearly always below 2^64, where one machine division does it.
    if dividend <= u64::MAX as u128 {
        #[expect(clippy::cast_possible_truncation, reason = "compared in the line above")]
        let small = dividend as u64;
        return small.div_ceil(divisor.get()) as u128;
    }
    dividend.div_ceil(divisor.get() as u128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_round_up_and_saturate() {
        for (micros, millis) in
            [(0, 0), (1, 1), (999, 1), (1_000, 1), (1_001, 2), (u64::MAX, (1 << 53) - 1)]
        {
            assert_eq!(Micros::new(micros).millis_up(), millis, "{micros} us");
        }
    }

    #[test]
    fn division_rounds_up_on_both_sides_of_64_bits() {
        let seven = NonZeroU64::new(7).unwrap();
        for dividend in [0, 1, 6, 7, 8, 13, 14, 15] {
            assert_eq!(div_up(dividend, seven), dividend.div_ceil(7));
            let large = (1u128 << 100) + dividend;
            assert_eq!(div_up(large, seven), large.div_ceil(7));
        }
    }
}
