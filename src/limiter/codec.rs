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
//!
//! state = limits and
//!   buckets           | 8: moment of the last grant | 16: level, in 1/c units |
//!   FIXEDWINDOW       | 8: start of the window | 8: units used |
//!   sliding windows   | 8: first hit of the newest entry | entries: 8: moment, 8: units | ...
//!
//! effect = limits and  | 8: moment | 8: units, signed: negative gives back |       42 bytes
//! ```
//!
//! Every field is checked on the way in, since a checksum can be forged: what [`decode_state`]
//! returns is a state that grants could have made, and memory is taken only for entries that
//! the payload holds. Entries are stored with their own units, so equal states have equal bytes,
//! whatever their running totals and their free slots are.

use super::bucket::Bucket;
use super::effect::{Change, Effect};
use super::fixed_window::FixedWindow;
use super::limits::{Algorithm, Limits, MAX_UNITS, Rate, Resolution};
use super::sliding_window::SlidingWindow;
use super::stored::{Limiter, State};
use super::time::Micros;

/// The version of the format: the first byte of everything stored.
pub(crate) const VERSION: u8 = 1;

/// The length of an effect. At most 44 bytes stay one allocation in the server (an embedded string).
pub(crate) const EFFECT_LEN: usize = LIMITS_LEN + 16;
const _: () = assert!(EFFECT_LEN <= 44);

const LIMITS_LEN: usize = 26;
const ENTRY_LEN: usize = 16;
const NOT_ALIGNED: u64 = u64::MAX;

impl Effect {
    /// The effect as bytes.
    pub(crate) fn encode(&self) -> [u8; EFFECT_LEN] {
        let units = match self.change {
            Change::Grant(units) => units.cast_signed(),
            Change::Refund(units) => units.cast_signed().saturating_neg(),
        };
        let mut bytes = [0; EFFECT_LEN];
        let (limits, rest) = bytes.split_at_mut(LIMITS_LEN);
        limits.copy_from_slice(&encode_limits(&self.limits));
        let (at, change) = rest.split_at_mut(8);
        at.copy_from_slice(&self.at.get().to_le_bytes());
        change.copy_from_slice(&units.to_le_bytes());
        bytes
    }

    /// Reads an effect; `None` if it is none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes = Reader(bytes);
        let limits = bytes.limits()?;
        let at = bytes.moment()?;
        let units = i64::from_le_bytes(bytes.array()?);
        let magnitude = units.unsigned_abs();
        if !bytes.0.is_empty() || magnitude == 0 || magnitude > MAX_UNITS {
            return None;
        }
        let change = if units > 0 { Change::Grant(magnitude) } else { Change::Refund(magnitude) };
        Some(Self { limits, at, change })
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
    };
    let mut bytes = [0; LIMITS_LEN];
    let (head, rest) = bytes.split_at_mut(2);
    head.copy_from_slice(&[VERSION, number]);
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
        let [version, algorithm] = self.array()?;
        let (a, b, c) = (self.number()?, self.number()?, self.number()?);
        if version != VERSION {
            return None;
        }
        match algorithm {
            0 => Limits::token_bucket(a, Rate::new(b, c)?),
            1 => Limits::leaky_bucket(a, Rate::new(b, c)?),
            2 => {
                let align = (c != NOT_ALIGNED).then_some(Micros::new(c));
                Limits::fixed_window(a, Micros::new(b), align)
            }
            3 => Limits::sliding(a, Micros::new(b), u16::try_from(c).ok()?),
            4 if c == 0 => Limits::sliding_log(a, Micros::new(b)),
            _ => None,
        }
    }
}
