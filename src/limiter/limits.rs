//! Limits: what a caller allows, validated. What is wrong is refused here, so deciding cannot fail.
//!
//! | word | text | held as |
//! | --- | --- | --- |
//! | units | `100` | an integer from 0 to 10^12 |
//! | duration | `60`, `0.5`, `250us`, `500ms`, `1m`, `12h`, `7d` | whole microseconds, at most 3650 days |
//! | rate | `10`, `0.5`, `100/60`, `100/1m`, `100/m`, `5/250ms` | n units per d microseconds, as written |
//!
//! A rate stays the fraction that was written, since no decimal and no float holds 100/60 exactly.
//! The bounds are chosen so that all products of deciding fit 128 bits:
//!
//! ```text
//! rate.units <= 10^15    rate.per_us < 2^49    used <= 2 * 10^12 units    any moment < 2^53 us
//! used * per_us < 2^91        elapsed * units < 2^103        units * per_us < 2^99
//! ```

use std::fmt;
use std::num::NonZeroU64;

use super::time::Micros;

/// The largest limit, capacity, cost or refund, in units.
pub(crate) const MAX_UNITS: u64 = 1_000_000_000_000;
/// What is used saturates here: one full limit, and as much debt.
pub(crate) const MAX_USED: u64 = 2 * MAX_UNITS;
/// The shortest window.
pub(crate) const MIN_WINDOW: Micros = Micros::MILLISECOND;
/// The most buckets of a sliding window counter.
pub(crate) const MAX_BUCKETS: u16 = 1024;
/// The buckets of a sliding window counter whose caller names no number.
pub(crate) const DEFAULT_BUCKETS: u16 = 16;
/// The largest limit that `rl.max-log-entries` can allow a sliding log.
pub(crate) const MAX_LOG_ENTRIES: u64 = 10_000_000;

/// The most leases that `rl.max-leases` can allow a key.
pub(crate) const MAX_LEASES: usize = 1_000_000;

const MAX_UNITS_PER_MICROSECOND: u64 = 1_000; // 10^9 a second
const MAX_DECIMALS: u32 = 6;
const MAX_DECIMAL_RATE_UNITS: u64 = 1_000_000_000_000_000; // 10^9 with six decimals

/// The algorithms, in the order in which their numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Algorithm {
    /// A bucket of units, refilled at a rate.
    TokenBucket,
    /// A queue that is served at a rate.
    LeakyBucket,
    /// A counter for one window after the other.
    FixedWindow,
    /// A sliding window, counted in a bounded number of entries.
    Sliding,
    /// A sliding window with an entry for every hit.
    SlidingLog,
    /// Leases of units that are held at the same time.
    Concurrency,
}

impl Algorithm {
    pub(crate) const ALL: [Self; 6] = [
        Self::TokenBucket,
        Self::LeakyBucket,
        Self::FixedWindow,
        Self::Sliding,
        Self::SlidingLog,
        Self::Concurrency,
    ];

    /// The algorithm of this name, in upper or lower case.
    pub(crate) fn read(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// The name as in a rule.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::TokenBucket => "TOKENBUCKET",
            Self::LeakyBucket => "LEAKYBUCKET",
            Self::FixedWindow => "FIXEDWINDOW",
            Self::Sliding => "SLIDING",
            Self::SlidingLog => "SLIDINGLOG",
            Self::Concurrency => "CONCURRENCY",
        }
    }
}

/// `units` per `per_us` microseconds, as written and not reduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    units: NonZeroU64,
    per_us: NonZeroU64,
}

impl Rate {
    /// A rate from 1 per 3650 days to 10^9 a second.
    pub(crate) fn new(units: u64, per_us: u64) -> Option<Self> {
        let fastest = per_us.saturating_mul(MAX_UNITS_PER_MICROSECOND);
        if units > fastest.min(MAX_DECIMAL_RATE_UNITS) || per_us > Micros::MAX_DURATION.get() {
            return None;
        }
        Some(Self { units: NonZeroU64::new(units)?, per_us: NonZeroU64::new(per_us)? })
    }

    /// A rate of these parts, which are those of a rate.
    pub(super) const fn of(units: NonZeroU64, per_us: NonZeroU64) -> Self {
        Self { units, per_us }
    }

    /// Reads `10` or `0.5` (units a second), `100/60`, `100/1m` or `100/m`.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let (units, rest) = read_digits(text)?;
        if let Some(duration) = rest.strip_prefix(b"/") {
            let per = match duration {
                [b'0'..=b'9', ..] => parse_duration(duration)?,
                [_, ..] => Micros::new(unit_us(duration)?),
                [] => return None,
            };
            return if units <= MAX_UNITS { Self::new(units, per.get()) } else { None };
        }
        let (decimal, unit) = Decimal::parse(text)?;
        let per_us = Micros::SECOND.get().checked_mul(decimal.denominator)?;
        if unit.is_empty() { Self::new(decimal.numerator, per_us) } else { None }
    }

    /// The units of the fraction: its numerator.
    pub(crate) const fn units(self) -> NonZeroU64 {
        self.units
    }

    /// The microseconds of the fraction: its denominator.
    pub(crate) const fn per_us(self) -> NonZeroU64 {
        self.per_us
    }

    /// The faster of two rates; the first where they are equal.
    pub(crate) fn faster(self, other: Self) -> Self {
        let ours = u128::from(self.units.get()).saturating_mul(u128::from(other.per_us.get()));
        let theirs = u128::from(other.units.get()).saturating_mul(u128::from(self.per_us.get()));
        if theirs > ours { other } else { self }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}us", self.units, self.per_us)
    }
}

/// What a bucket's level means to its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BucketKind {
    /// The level is what was taken and has not been refilled. Who is granted goes ahead at once.
    Token,
    /// The level is a queue. Who is granted goes ahead when what was before it has left.
    Leaky,
}

impl BucketKind {
    /// The algorithm of such a bucket.
    pub(crate) const fn algorithm(self) -> Algorithm {
        match self {
            Self::Token => Algorithm::TokenBucket,
            Self::Leaky => Algorithm::LeakyBucket,
        }
    }
}

/// The limits of RL.TOKENBUCKET and RL.LEAKYBUCKET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BucketLimits {
    /// How the level is read.
    pub(crate) kind: BucketKind,
    /// The most units the bucket holds.
    pub(crate) capacity: u64,
    /// How fast it refills or drains.
    pub(crate) rate: Rate,
}

/// The limits of RL.FIXEDWINDOW.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FixedWindowLimits {
    /// The most units in one window.
    pub(crate) limit: u64,
    /// The length of a window.
    pub(crate) window: Micros,
    /// Where aligned windows begin after whole multiples of the window since 1970; below `window`.
    pub(crate) align: Option<Micros>,
}

/// How finely a sliding window tells its hits apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// An entry takes in the hits of one n-th of a window (1 to [`MAX_BUCKETS`]).
    Buckets(u16),
    /// An entry for every distinct microsecond.
    Exact,
}

/// The limits of RL.SLIDING and RL.SLIDINGLOG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlidingWindowLimits {
    /// The most units in any span of one window.
    pub(crate) limit: u64,
    /// The length of a window.
    pub(crate) window: Micros,
    /// How finely hits are told apart.
    pub(crate) resolution: Resolution,
}

impl SlidingWindowLimits {
    pub(super) const fn algorithm(&self) -> Algorithm {
        match self.resolution {
            Resolution::Buckets(_) => Algorithm::Sliding,
            Resolution::Exact => Algorithm::SlidingLog,
        }
    }
}

/// The limits of RL.ACQUIRE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseLimits {
    /// The most units held at the same time.
    pub(crate) limit: u64,
    /// How long a lease lasts: as long as a window may.
    pub(crate) ttl: Micros,
}

/// The limits of one call or one limiter, valid by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limits {
    /// RL.TOKENBUCKET and RL.LEAKYBUCKET.
    Bucket(BucketLimits),
    /// RL.FIXEDWINDOW.
    FixedWindow(FixedWindowLimits),
    /// RL.SLIDING and RL.SLIDINGLOG.
    SlidingWindow(SlidingWindowLimits),
    /// RL.ACQUIRE.
    Leases(LeaseLimits),
}

impl Limits {
    /// A token bucket, if `capacity` is in bounds.
    pub(crate) fn token_bucket(capacity: u64, rate: Rate) -> Option<Self> {
        let kind = BucketKind::Token;
        (capacity <= MAX_UNITS).then_some(Self::Bucket(BucketLimits { kind, capacity, rate }))
    }

    /// A leaky bucket, if `capacity` is in bounds.
    pub(crate) fn leaky_bucket(capacity: u64, rate: Rate) -> Option<Self> {
        let kind = BucketKind::Leaky;
        (capacity <= MAX_UNITS).then_some(Self::Bucket(BucketLimits { kind, capacity, rate }))
    }

    /// A fixed window, if all are in bounds.
    pub(crate) fn fixed_window(limit: u64, window: Micros, align: Option<Micros>) -> Option<Self> {
        let valid = limit <= MAX_UNITS && is_window(window) && align.is_none_or(|at| at < window);
        valid.then_some(Self::FixedWindow(FixedWindowLimits { limit, window, align }))
    }

    /// A sliding window counter, if all are in bounds.
    pub(crate) fn sliding(limit: u64, window: Micros, buckets: u16) -> Option<Self> {
        let valid = limit <= MAX_UNITS && is_window(window) && (1..=MAX_BUCKETS).contains(&buckets);
        let resolution = Resolution::Buckets(buckets);
        valid.then_some(Self::SlidingWindow(SlidingWindowLimits { limit, window, resolution }))
    }

    /// A sliding log, if all are in bounds.
    pub(crate) fn sliding_log(limit: u64, window: Micros) -> Option<Self> {
        let valid = limit <= MAX_LOG_ENTRIES && is_window(window);
        let resolution = Resolution::Exact;
        valid.then_some(Self::SlidingWindow(SlidingWindowLimits { limit, window, resolution }))
    }

    /// A concurrency limit, if all are in bounds.
    pub(crate) fn concurrency(limit: u64, ttl: Micros) -> Option<Self> {
        let valid = limit <= MAX_UNITS && is_window(ttl);
        valid.then_some(Self::Leases(LeaseLimits { limit, ttl }))
    }

    /// Which algorithm these limits are for.
    pub(crate) const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Bucket(limits) => limits.kind.algorithm(),
            Self::FixedWindow(_) => Algorithm::FixedWindow,
            Self::SlidingWindow(limits) => limits.algorithm(),
            Self::Leases(_) => Algorithm::Concurrency,
        }
    }
}

/// Whether a window may be as long as this.
pub(crate) fn is_window(window: Micros) -> bool {
    (MIN_WINDOW..=Micros::MAX_DURATION).contains(&window)
}

/// Reads an integer that is at most `max`: digits alone.
pub(crate) fn parse_integer(text: &[u8], max: u64) -> Option<u64> {
    let (value, rest) = read_digits(text)?;
    (rest.is_empty() && value <= max).then_some(value)
}

/// Reads an integer of at least one digit; what follows is handed back.
fn read_digits(text: &[u8]) -> Option<(u64, &[u8])> {
    let (mut value, mut rest) = (0u64, text);
    while let Some((&byte, after)) = rest.split_first()
        && let Some(digit) = digit(byte)
    {
        value = value.checked_mul(10)?.checked_add(digit)?;
        rest = after;
    }
    (rest.len() < text.len()).then_some((value, rest))
}

/// Reads a number of units: an integer from 0 to [`MAX_UNITS`].
pub(crate) fn parse_units(text: &[u8]) -> Option<u64> {
    parse_integer(text, MAX_UNITS)
}

/// Reads a duration of 0 to 3650 days: seconds, or a number with its unit.
pub(crate) fn parse_duration(text: &[u8]) -> Option<Micros> {
    let (decimal, unit) = Decimal::parse(text)?;
    let micros = decimal.times(unit_us(unit)?)?;
    (micros <= Micros::MAX_DURATION.get()).then_some(Micros::new(micros))
}

/// Reads a window: a duration from 1 ms to 3650 days.
pub(crate) fn parse_window(text: &[u8]) -> Option<Micros> {
    parse_duration(text).filter(|&window| is_window(window))
}

/// Reads an alignment: a duration that may be negative, taken modulo the window.
pub(crate) fn parse_align(text: &[u8], window: Micros) -> Option<Micros> {
    let (negative, magnitude) = match text.strip_prefix(b"-") {
        Some(magnitude) => (true, magnitude),
        None => (false, text),
    };
    let offset = parse_duration(magnitude)?.get().checked_rem(window.get())?;
    Some(if negative && offset > 0 {
        window.since(Micros::new(offset))
    } else {
        Micros::new(offset)
    })
}

/// A decimal number as the fraction `numerator / denominator`; the denominator is a power of ten.
struct Decimal {
    numerator: u64,
    denominator: u64,
}

impl Decimal {
    /// Reads digits, perhaps a point and at most [`MAX_DECIMALS`] more; what follows is handed back.
    fn parse(text: &[u8]) -> Option<(Self, &[u8])> {
        let (whole, rest) = read_digits(text)?;
        let mut number = Self { numerator: whole, denominator: 1 };
        let Some(fraction) = rest.strip_prefix(b".") else {
            return Some((number, rest));
        };
        let end = fraction.iter().position(|&byte| digit(byte).is_none()).unwrap_or(fraction.len());
        let (decimals, unit) = fraction.split_at_checked(end)?;
        if decimals.is_empty() || decimals.len() > MAX_DECIMALS as usize {
            return None;
        }
        for &byte in decimals {
            number.numerator = number.numerator.checked_mul(10)?.checked_add(digit(byte)?)?;
            number.denominator = number.denominator.checked_mul(10)?;
        }
        Some((number, unit))
    }

    /// The number so many times, if that is an integer.
    fn times(&self, factor: u64) -> Option<u64> {
        if self.denominator == 1 {
            return self.numerator.checked_mul(factor);
        }
        let product = u128::from(self.numerator).checked_mul(u128::from(factor))?;
        let denominator = u128::from(self.denominator);
        let is_whole = product.checked_rem(denominator)? == 0;
        is_whole.then(|| u64::try_from(product.checked_div(denominator)?).ok())?
    }
}

fn digit(byte: u8) -> Option<u64> {
    byte.is_ascii_digit().then(|| u64::from(byte & 0x0f))
}

/// The microseconds of a unit of time; a number without one counts seconds.
fn unit_us(unit: &[u8]) -> Option<u64> {
    Some(match unit {
        b"us" => 1,
        b"ms" => 1_000,
        b"" | b"s" => 1_000_000,
        b"m" => 60_000_000,
        b"h" => 3_600_000_000,
        b"d" => 86_400_000_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_exact_microseconds() {
        for (text, micros) in [
            ("60", 60_000_000),
            ("0", 0),
            ("0.5", 500_000),
            ("250us", 250),
            ("500ms", 500_000),
            ("0.001ms", 1),
            ("1.5us", u64::MAX),
            ("0.0000001", u64::MAX),
            ("60s", 60_000_000),
            ("1m", 60_000_000),
            ("12h", 43_200_000_000),
            ("7d", 604_800_000_000),
            ("0.000001d", 86_400),
            ("3650d", 315_360_000_000_000),
            ("3650.000001d", u64::MAX),
            ("3651d", u64::MAX),
            ("18446744073709551616", u64::MAX),
            ("", u64::MAX),
            (".5", u64::MAX),
            ("5.", u64::MAX),
            ("5.s", u64::MAX),
            ("-5", u64::MAX),
            ("+5", u64::MAX),
            ("5 s", u64::MAX),
            ("5S", u64::MAX),
            ("5min", u64::MAX),
            ("1e3", u64::MAX),
            ("0x10", u64::MAX),
            ("s", u64::MAX),
        ] {
            let expected = (micros != u64::MAX).then_some(Micros::new(micros));
            assert_eq!(parse_duration(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn windows_have_bounds() {
        assert_eq!(parse_window(b"1ms"), Some(Micros::MILLISECOND));
        assert_eq!(parse_window(b"999us"), None);
        assert_eq!(parse_window(b"3650d"), Some(Micros::MAX_DURATION));
        assert_eq!(parse_window(b"315360000.000001"), None);
    }

    #[test]
    fn a_rate_is_the_fraction_as_written() {
        for (text, fraction) in [
            ("10", Some((10, 1_000_000))),
            ("0.5", Some((5, 10_000_000))),
            ("0.50", Some((50, 100_000_000))),
            ("0.000001", Some((1, 1_000_000_000_000))),
            ("999999999.999999", Some((999_999_999_999_999, 1_000_000_000_000))),
            ("1000000000", Some((1_000_000_000, 1_000_000))),
            ("1000000001", None),
            ("1000000000.000001", None),
            ("100/60", Some((100, 60_000_000))),
            ("100/1m", Some((100, 60_000_000))),
            ("100/m", Some((100, 60_000_000))),
            ("7/d", Some((7, 86_400_000_000))),
            ("5/250ms", Some((5, 250_000))),
            ("5/0.25", Some((5, 250_000))),
            ("1000/us", Some((1_000, 1))),
            ("1001/us", None),
            ("1000000000000/1000s", Some((1_000_000_000_000, 1_000_000_000))),
            ("1000000000001/10000s", None),
            ("1/3650d", Some((1, 315_360_000_000_000))),
            ("1/3651d", None),
            ("0", None),
            ("0.0", None),
            ("0/60", None),
            ("1/0", None),
            ("1/", None),
            ("/1", None),
            ("/", None),
            ("1.5/60", None),
            ("1/2/3", None),
            ("-1", None),
            ("1s", None),
            ("", None),
            ("0.0000001", None),
        ] {
            let rate = Rate::parse(text.as_bytes());
            let found = rate.map(|rate| (rate.units().get(), rate.per_us().get()));
            assert_eq!(found, fraction, "{text:?}");
        }
        assert_eq!(Rate::parse(b"100/1m").unwrap().to_string(), "100/60000000us");
    }

    #[test]
    fn the_faster_of_two_rates() {
        let rate = |text: &str| Rate::parse(text.as_bytes()).unwrap();
        assert_eq!(rate("1/60").faster(rate("2/60")), rate("2/60"));
        assert_eq!(rate("2/60").faster(rate("1/60")), rate("2/60"));
        assert_eq!(rate("1/2").faster(rate("50/100")), rate("1/2"), "equal: the first");
        assert_eq!(rate("1/3650d").faster(rate("1000/us")), rate("1000/us"));
    }

    #[test]
    fn an_alignment_is_taken_modulo_the_window() {
        let day = Micros::DAY;
        let hours = |n: u64| Some(Micros::new(n * 3_600_000_000));
        for (text, expected) in [
            ("0", hours(0)),
            ("-0", hours(0)),
            ("8h", hours(8)),
            ("-8h", hours(16)),
            ("24h", hours(0)),
            ("-24h", hours(0)),
            ("25h", hours(1)),
            ("-49h", hours(23)),
            ("--1h", None),
            ("+1h", None),
            ("3651d", None),
            ("-", None),
        ] {
            assert_eq!(parse_align(text.as_bytes(), day), expected, "{text:?}");
        }
    }

    #[test]
    fn limits_out_of_bounds_are_refused() {
        let rate = Rate::parse(b"1").unwrap();
        let window = Micros::SECOND;
        assert!(Limits::token_bucket(MAX_UNITS, rate).is_some());
        assert!(Limits::token_bucket(MAX_UNITS + 1, rate).is_none());
        assert!(Limits::leaky_bucket(MAX_UNITS + 1, rate).is_none());
        assert!(Limits::fixed_window(1, window, Some(window)).is_none());
        assert!(Limits::fixed_window(1, Micros::new(999), None).is_none());
        assert!(Limits::sliding(1, window, 0).is_none());
        assert!(Limits::sliding(1, window, MAX_BUCKETS).is_some());
        assert!(Limits::sliding(1, window, MAX_BUCKETS + 1).is_none());
        assert!(Limits::sliding_log(MAX_LOG_ENTRIES + 1, window).is_none());
    }
}
