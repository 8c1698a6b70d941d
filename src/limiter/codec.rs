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
//! state = limits and
//!   buckets           | 8: moment of the last grant | 16: level, in 1/c units |
//!   FIXEDWINDOW       | 8: start of the window | 8: units used |
//!   sliding windows   | 8: first hit of the newest entry | entries: 8: moment, 8: units | ...
//!   CONCURRENCY       leases: | 8: moment | 8: ttl us | 8: units | 1: length of the id | id | ...    by expiry, then id
//!
//! effect = limits and  | 8: moment | 8: units, signed |
//!   CONCURRENCY        and  | id |      units n: acquired; 0: renewed, for the ttl in b; -1: released
//!   all others         units n: granted; -n: refunded                    42 bytes; with an id 43 to 106
//! ```
//!
//! The version says what older modules cannot read: 1 for the first five algorithms, 2 for CONCURRENCY. What an older module
//! knows it reads, whatever a newer one may store besides.
//!
//! Every field is checked on the way in, since a checksum can be forged: what [`decode_state`]
//! returns is a state that grants could have made, and memory is taken only for entries that
//! the payload holds. Entries are stored with their own units, and leases in one order, so equal states have equal
//! bytes, whatever their histories and their free slots are.

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

/// The length of an effect without an id. At most 44 bytes stay one allocation in the server (an embedded string).
const EFFECT_LEN: usize = LIMITS_LEN + 16;
const _: () = assert!(EFFECT_LEN <= 44);

const LIMITS_LEN: usize = 26;
const ENTRY_LEN: usize = 16;
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
        let (units, id) = match &self.change {
            Change::Grant(units) => (units.cast_signed(), None),
            Change::Refund(units) => (units.cast_signed().saturating_neg(), None),
            Change::Acquire(id, units) => (units.cast_signed(), Some(id)),
            Change::Renew(id) => (0, Some(id)),
            Change::Release(id) => (-1, Some(id)),
        };
        let mut bytes = [0; EFFECT_LEN + MAX_ID];
        let (limits, rest) = bytes.split_at_mut(LIMITS_LEN);
        limits.copy_from_slice(&encode_limits(&self.limits));
        let (at, rest) = rest.split_at_mut(8);
        at.copy_from_slice(&self.at.get().to_le_bytes());
        let (change, rest) = rest.split_at_mut(8);
        change.copy_from_slice(&units.to_le_bytes());
        let id = id.copied().unwrap_or_default();
        if let Some(place) = rest.get_mut(..id.len()) {
            place.copy_from_slice(id);
        }
        EffectBytes { bytes, len: EFFECT_LEN.saturating_add(id.len()) }
    }

    /// Reads an effect; `None` if it is none.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut bytes = Reader(bytes);
        let limits = bytes.limits()?;
        let at = bytes.moment()?;
        let units = i64::from_le_bytes(bytes.array()?);
        let magnitude = Some(units.unsigned_abs()).filter(|units| (1..=MAX_UNITS).contains(units));
        let change =
            match limits {
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
    bytes.extend_from_slice(&encode_limits(&limiter.limits()));
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
    bytes
}

/// Reads a whole state; `None` if it is none.
pub(crate) fn decode_state(bytes: &[u8]) -> Option<Limiter> {
    let mut bytes = Reader(bytes);
    let limiter = match bytes.limits()? {
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

fn encode_limits(limits: &Limits) -> [u8; LIMITS_LEN] {
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
    head.copy_from_slice(&[version(limits.algorithm()), number]);
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

    fn limits(&mut self) -> Option<Limits> {
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
        limits.filter(|limits| stored_version == version(limits.algorithm()))
    }

    fn lease(&mut self) -> Option<Lease> {
        let (at, ttl, units) = (self.moment()?, Micros::new(self.number()?), self.number()?);
        let [length] = self.array()?;
        let (id, rest) = self.0.split_at_checked(length.into())?;
        self.0 = rest;
        Some(Lease { id: Id::new(id)?, units, at, ttl })
    }
}
