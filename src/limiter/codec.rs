//! The stored bytes and the replicated effect. All integers are little-endian.
//!
//! ```text
//! limits, 26 bytes
//!   | 1: version | 1: algorithm | 8: a | 8: b | 8: c |
//!     0 TOKENBUCKET   a capacity   b rate's units   c rate's microseconds
//!     1 LEAKYBUCKET   a capacity   b rate's units   c rate's microseconds
//!     2 FIXEDWINDOW   a limit      b window us      c offset us, or 2^64-1: not aligned
//!     3 SLIDING       a limit      b window us      c buckets
//!     4 SLIDINGLOG    a limit      b window us      c 0
//!     5 CONCURRENCY   a limit      b ttl us         c 0
//!
//! state = limits,  | 8: denials in a row, or when they began a block | 8: duration of the block us, or 0 |  if penalized, and
//!   nothing           for a limiter of which nothing is used, if penalized
//!   buckets           | 8: moment of the last grant | 16: level, in 1/c units |
//!   FIXEDWINDOW       | 8: start of the window | 8: units used |
//!   sliding windows   | 8: first hit of the newest entry | entries: 8: moment, 8: units | ...
//!   CONCURRENCY       leases: | 8: moment | 8: ttl us | 8: units | 1: length of the id | id | ...    by expiry, then id
//!
//! effect = limits and  | 8: moment | 8: units, signed |
//!   CONCURRENCY        and  | id |      units n: acquired; 0: renewed, for the ttl in b; -1: released
//!   penalized          and  | 8: AFTER | 8: duration of the block us |  units 0: denied                           58 bytes
//!   all others         units n: granted; -n: refunded                    42 bytes; with an id 43 to 106
//! ```
//!
//! The version says what older modules cannot read: 1 for the first five algorithms, 2 for CONCURRENCY, 3 for the first five if
//! they are penalized (see `block`). What an older module knows it reads, whatever a newer one may store besides.
//!
//! Every field is checked on the way in, since a checksum can be forged: what [`decode_state`]
//! returns is a state that grants could have made, and memory is taken only for entries that
//! the payload holds. Entries are stored with their own units, and leases in one order, so equal states have equal
//! bytes, whatever their histories and their free slots are.

use super::block::{Denials, Penalty};
use super::bucket::Bucket;
use super::effect::{Change, Effect};
use super::fixed_window::FixedWindow;
use super::leases::{Id, Lease, Leases, MAX_ID};
use super::limits::{Algorithm, Limits, MAX_UNITS, Rate, Resolution};
use super::sliding_window::SlidingWindow;
use super::stored::{Limiter, State};
use super::time::Micros;

/// The version of the server's type: the type itself has not changed since the first.
pub(crate) const TYPE_VERSION: u8 = 1;

/// The version of the format that an algorithm needs: the first byte of everything stored.
const fn version(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::TokenBucket
        | Algorithm::LeakyBucket
        | Algorithm::FixedWindow
        | Algorithm::Sliding
        | Algorithm::SlidingLog => 1,
        Algorithm::Concurrency => 2,
    }
}

/// The version that denials need.
const PENALIZED: u8 = 3;

/// The length of an effect without an id. At most 44 bytes stay one allocation in the server (an embedded string).
const EFFECT_LEN: usize = LIMITS_LEN + 16;
const _: () = assert!(EFFECT_LEN <= 44);

const LIMITS_LEN: usize = 26;
const ENTRY_LEN: usize = 16;
const PENALTY_LEN: usize = 16;
const NOT_ALIGNED: u64 = u64::MAX;

/// The bytes of an effect.
pub(crate) struct EffectBytes {
    bytes: [u8; EFFECT_LEN + MAX_ID],
    len: usize,
}

impl AsRef<[u8]> for EffectBytes {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl<'a> Effect<'a> {
    /// The effect as bytes.
    pub(crate) fn encode(&self) -> EffectBytes {
        let mut version = version(self.limits.algorithm());
        let penalty_bytes;
        let (units, tail): (i64, &[u8]) = match &self.change {
            Change::Grant(units) => (units.cast_signed(), &[]),
            Change::Refund(units) => (units.cast_signed().saturating_neg(), &[]),
            Change::Acquire(id, units) => (units.cast_signed(), id),
            Change::Renew(id) => (0, id),
            Change::Release(id) => (-1, id),
            Change::Deny(penalty) => {
                version = PENALIZED;
                penalty_bytes = two(penalty.after().into(), penalty.duration().get());
                (0, &penalty_bytes)
            }
        };
        let mut bytes = [0; EFFECT_LEN + MAX_ID];
        let (limits, rest) = bytes.split_at_mut(LIMITS_LEN);
        limits.copy_from_slice(&encode_limits(&self.limits, version));
        let (at, rest) = rest.split_at_mut(8);
        at.copy_from_slice(&self.at.get().to_le_bytes());
        let (change, rest) = rest.split_at_mut(8);
        change.copy_from_slice(&units.to_le_bytes());
        if let Some(place) = rest.get_mut(..tail.len()) {
            place.copy_from_slice(tail);
        }
        EffectBytes { bytes, len: EFFECT_LEN.saturating_add(tail.len()) }
    }

    /// Reads an effect; `None` if it is none.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut bytes = Reader(bytes);
        let (limits, is_penalized) = bytes.limits()?;
        let at = bytes.moment()?;
        let units = i64::from_le_bytes(bytes.array()?);
        let magnitude = Some(units.unsigned_abs()).filter(|units| (1..=MAX_UNITS).contains(units));
        let change =
            match limits {
                _ if is_penalized => {
                    let after = u32::try_from(bytes.number()?).ok()?;
                    let penalty = Penalty::new(Micros::new(bytes.number()?), after)?;
                    Change::Deny(Some(penalty).filter(|_| units == 0)?)
                }
                Limits::Leases(_) => {
                    let id = Some(bytes.0).filter(|id| Id::is_valid(id))?;
                    bytes.0 = &[];
                    match units {
                        0 => Change::Renew(id),
                        -1 => Change::Release(id),
                        _ => Change::Acquire(id, magnitude.filter(|_| units > 0)?),
                    }
                }
                Limits::Bucket(_) | Limits::FixedWindow(_) | Limits::SlidingWindow(_) => {
                    if units > 0 { Change::Grant(magnitude?) } else { Change::Refund(magnitude?) }
                }
            };
        bytes.0.is_empty().then_some(Self { limits, at, change })
    }
}

/// A whole state as bytes.
pub(crate) fn encode_state(limiter: &Limiter) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LIMITS_LEN.saturating_add(24));
    let limits = limiter.limits();
    let Some(denials) = limiter.denials() else {
        bytes.extend_from_slice(&encode_limits(&limits, version(limits.algorithm())));
        encode_use(limiter, &mut bytes);
        return bytes;
    };
    bytes.extend_from_slice(&encode_limits(&limits, PENALIZED));
    bytes.extend_from_slice(&match denials.block() {
        None => two(denials.in_a_row().into(), 0),
        Some((began, duration)) => two(began.get(), duration.get()),
    });
    if !limiter.is_unused() {
        encode_use(limiter, &mut bytes);
    }
    bytes
}

/// Writes what a state has besides its limits.
fn encode_use(limiter: &Limiter, bytes: &mut Vec<u8>) {
    match limiter.state() {
        State::Bucket(bucket) => {
            bytes.extend_from_slice(&bucket.at.get().to_le_bytes());
            bytes.extend_from_slice(&bucket.level.to_le_bytes());
        }
        State::FixedWindow(window) => {
            bytes.extend_from_slice(&window.start.get().to_le_bytes());
            bytes.extend_from_slice(&window.used.to_le_bytes());
        }
        State::SlidingWindow(list) => {
            bytes.reserve_exact(list.ring.len().saturating_mul(ENTRY_LEN).saturating_add(8));
            bytes.extend_from_slice(&list.first.get().to_le_bytes());
            for (time, units) in list.hits() {
                bytes.extend_from_slice(&time.get().to_le_bytes());
                bytes.extend_from_slice(&units.to_le_bytes());
            }
        }
        State::Leases(leases) => {
            for Lease { id, units, at, ttl } in leases.iter() {
                for field in [at.get(), ttl.get(), units] {
                    bytes.extend_from_slice(&field.to_le_bytes());
                }
                let id = id.as_bytes();
                bytes.push(u8::try_from(id.len()).unwrap_or_default());
                bytes.extend_from_slice(id);
            }
        }
    }
}

/// Reads a whole state; `None` if it is none.
pub(crate) fn decode_state(bytes: &[u8]) -> Option<Limiter> {
    let mut bytes = Reader(bytes);
    let (limits, is_penalized) = bytes.limits()?;
    if !is_penalized {
        return decode_use(limits, bytes);
    }
    let denials = match (bytes.number()?, Micros::new(bytes.number()?)) {
        (denials, Micros::ZERO) => Denials::restore_row(denials)?,
        (began, duration) => Denials::restore_block(Micros::new(began), duration)?,
    };
    let mut limiter = if denials.block().is_some() && bytes.0.is_empty() {
        Limiter::unused(&limits)
    } else {
        decode_use(limits, bytes)?
    };
    limiter.set_denials(denials);
    Some(limiter)
}

/// Reads what a state has besides its limits.
fn decode_use(limits: Limits, mut bytes: Reader<'_>) -> Option<Limiter> {
    let limiter = match limits {
        Limits::Bucket(limits) => {
            let at = bytes.moment()?;
            let level = u128::from_le_bytes(bytes.array()?);
            Bucket::restore(&limits, level, at)?.into()
        }
        Limits::FixedWindow(limits) => {
            let start = bytes.moment()?;
            FixedWindow::restore(&limits, start, bytes.number()?)?.into()
        }
        Limits::SlidingWindow(limits) => {
            let first = bytes.moment()?;
            let (entries, rest) = bytes.0.as_chunks::<ENTRY_LEN>();
            bytes.0 = rest;
            let hits = entries.iter().map(|entry| {
                let mut entry = Reader(entry);
                let time = entry.number().unwrap_or(u64::MAX);
                (Micros::new(time), entry.number().unwrap_or_default())
            });
            SlidingWindow::restore(&limits, first, hits)?.into()
        }
        Limits::Leases(limits) => {
            let leases = std::iter::from_fn(|| (!bytes.0.is_empty()).then(|| bytes.lease()));
            Limiter::Leases(Box::new(Leases::restore(&limits, leases)?))
        }
    };
    bytes.0.is_empty().then_some(limiter)
}

/// Two numbers.
fn two(one: u64, other: u64) -> [u8; PENALTY_LEN] {
    let mut bytes = [0; PENALTY_LEN];
    let (left, right) = bytes.split_at_mut(8);
    left.copy_from_slice(&one.to_le_bytes());
    right.copy_from_slice(&other.to_le_bytes());
    bytes
}

fn encode_limits(limits: &Limits, version: u8) -> [u8; LIMITS_LEN] {
    let number = match limits.algorithm() {
        Algorithm::TokenBucket => 0,
        Algorithm::LeakyBucket => 1,
        Algorithm::FixedWindow => 2,
        Algorithm::Sliding => 3,
        Algorithm::SlidingLog => 4,
        Algorithm::Concurrency => 5,
    };
    let fields = match limits {
        Limits::Bucket(limits) => {
            [limits.capacity, limits.rate.units().get(), limits.rate.per_us().get()]
        }
        Limits::FixedWindow(limits) => {
            let align = limits.align.map_or(NOT_ALIGNED, Micros::get);
            [limits.limit, limits.window.get(), align]
        }
        Limits::SlidingWindow(limits) => {
            let buckets = match limits.resolution {
                Resolution::Buckets(n) => u64::from(n),
                Resolution::Exact => 0,
            };
            [limits.limit, limits.window.get(), buckets]
        }
        Limits::Leases(limits) => [limits.limit, limits.ttl.get(), 0],
    };
    let mut bytes = [0; LIMITS_LEN];
    let (head, rest) = bytes.split_at_mut(2);
    head.copy_from_slice(&[version, number]);
    for (place, field) in rest.chunks_exact_mut(8).zip(fields) {
        place.copy_from_slice(&field.to_le_bytes());
    }
    bytes
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn moment(&mut self) -> Option<Micros> {
        self.number().map(Micros::new).filter(|&moment| moment <= Micros::MAX_MOMENT)
    }

    /// Limits, and whether what follows is penalized.
    fn limits(&mut self) -> Option<(Limits, bool)> {
        let [stored_version, algorithm] = self.array()?;
        let (a, b, c) = (self.number()?, self.number()?, self.number()?);
        let limits = match algorithm {
            0 => Limits::token_bucket(a, Rate::new(b, c)?),
            1 => Limits::leaky_bucket(a, Rate::new(b, c)?),
            2 => {
                let align = (c != NOT_ALIGNED).then_some(Micros::new(c));
                Limits::fixed_window(a, Micros::new(b), align)
            }
            3 => Limits::sliding(a, Micros::new(b), u16::try_from(c).ok()?),
            4 if c == 0 => Limits::sliding_log(a, Micros::new(b)),
            5 if c == 0 => Limits::concurrency(a, Micros::new(b)),
            _ => None,
        };
        let limits = limits?;
        let algorithm = limits.algorithm();
        let is_penalized = stored_version == PENALIZED && algorithm != Algorithm::Concurrency;
        (is_penalized || stored_version == version(algorithm)).then_some((limits, is_penalized))
    }

    fn lease(&mut self) -> Option<Lease> {
        let (at, ttl, units) = (self.moment()?, Micros::new(self.number()?), self.number()?);
        let [length] = self.array()?;
        let (id, rest) = self.0.split_at_checked(length.into())?;
        self.0 = rest;
        Some(Lease { id: Id::new(id)?, units, at, ttl })
    }
}
