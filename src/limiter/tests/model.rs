//! The five algorithms told once more, as plainly and as slowly as they can be: the oracle of the suite.
//!
//! Everything here is written from SPEC.md, nothing from the code beside it. Use is an exact fraction of
//! any size. A log is the list of all its hits. A wait is found by looking at one moment after the other.
//! A granted decision is what stands after the grant was really recorded in a copy.
//!
//! | model | what it remembers |
//! | --- | --- |
//! | [`Bucket`] | how much was used, and when |
//! | [`FixedWindow`] | how much was used, in the window that began when |
//! | [`Sliding`] | entries: first hit, last hit, units |
//! | [`SlidingLog`] | hits: moment, units |
//! | [`Penalized`] | one of these, its denials in a row, and when they began a block |

use num::{BigInt, BigRational, ToPrimitive, Zero};

use super::super::limits::{BucketKind, MAX_USED, Rate, Resolution, SlidingWindowLimits};
use super::super::{Decision, Limits, Micros, Mode, Request};

/// A moment or a span in microseconds: wide enough that nothing here ever saturates.
pub type Us = i128;

/// What every model answers. A call's limits are read against what is remembered in the kinder way.
pub trait Model: Clone {
    /// A key that was never used.
    fn new() -> Self;

    /// The limits of the last grant; `None` for a key that was never used.
    fn limits(&self) -> Option<Limits>;

    /// The units that count at `now`, exactly.
    fn used(&self, call: &Limits, now: Us) -> BigRational;

    /// Until at most `units` count, if nothing is taken.
    fn until_at_most(&self, call: &Limits, now: Us, units: u64) -> Us;

    /// Until a request that is granted now may go ahead.
    fn turn(&self, _call: &Limits, _now: Us) -> Us {
        0
    }

    /// Records a grant.
    fn grant(&mut self, call: &Limits, now: Us, units: u64);

    /// Gives units back, the newest first. At nothing used the key is gone.
    fn refund(&mut self, now: Us, units: u64);

    /// The moment from which on the key is as if never used.
    fn idle_at(&self) -> Us;

    /// How many entries count now, where there are entries.
    fn entries(&self, _now: Us) -> Option<usize> {
        None
    }
}

/// SPEC.md 2: the reply of every limiter.
pub fn decide(model: &impl Model, call: &Limits, now: Us, request: Request) -> Decision {
    let Request { cost, mode } = request;
    let limit = limit_of(call);
    let free = |model: &dyn Fn() -> BigRational| (whole(limit) - model()).floor().to_integer();
    let free_now = free(&|| model.used(call, now)).to_u64().unwrap_or(0); // 0 where it is negative
    let taken = match mode {
        Mode::Force => cost,
        Mode::Partial => cost.min(free_now),
        Mode::Whole if cost <= free_now => cost,
        Mode::Whole => 0,
    };
    if taken == 0 {
        let needed = if mode == Mode::Partial { 1 } else { cost };
        let wait = match cost {
            0 => Some(0),
            _ if needed > limit => None,
            _ => Some(model.until_at_most(call, now, limit - needed)),
        };
        return Decision {
            allowed: cost == 0,
            limit,
            remaining: free_now,
            wait: wait.map(micros),
            reset: micros(model.until_at_most(call, now, 0)),
            taken: 0,
            is_blocked: false,
        };
    }
    let mut after = model.clone();
    after.grant(call, now, taken);
    Decision {
        allowed: true,
        limit,
        remaining: free(&|| after.used(call, now)).to_u64().unwrap_or(0),
        wait: Some(micros(model.turn(call, now))),
        reset: micros(after.until_at_most(call, now, 0)),
        taken,
        is_blocked: false,
    }
}

// ---------------------------------------------------------------------------------------------------
// TOKENBUCKET and LEAKYBUCKET

/// A level that drains at a rate.
#[derive(Clone, Debug)]
pub struct Bucket(Option<Level>);

#[derive(Clone, Debug)]
struct Level {
    limits: Limits,
    used: BigRational,
    at: Us,
}

impl Level {
    /// "Up to one such refill time ahead of now it counts in full; further ahead it is as none."
    fn is_as_none(&self, now: Us) -> bool {
        BigRational::from_integer((self.at - now).into()) > &self.used / per_us(&self.limits)
    }

    /// "A bucket has drained since the last grant at the faster of the two rates."
    fn drained(&self, call: &Limits, now: Us) -> BigRational {
        let elapsed = BigRational::from_integer((now - self.at).max(0).into());
        (&self.used - elapsed * self.faster(call)).max(BigRational::zero())
    }

    fn faster(&self, call: &Limits) -> BigRational {
        per_us(&self.limits).max(per_us(call))
    }
}

impl Model for Bucket {
    fn new() -> Self {
        Self(None)
    }

    fn limits(&self) -> Option<Limits> {
        self.0.as_ref().map(|level| level.limits)
    }

    fn used(&self, call: &Limits, now: Us) -> BigRational {
        match &self.0 {
            Some(level) if !level.is_as_none(now) => level.drained(call, now),
            _ => BigRational::zero(),
        }
    }

    fn until_at_most(&self, call: &Limits, now: Us, units: u64) -> Us {
        let excess = self.used(call, now) - whole(units);
        match &self.0 {
            Some(level) if excess > BigRational::zero() => {
                // It begins to drain at its moment, and that may still lie ahead.
                (level.at - now).max(0) + integer((excess / level.faster(call)).ceil())
            }
            _ => 0,
        }
    }

    fn turn(&self, call: &Limits, now: Us) -> Us {
        match kind(call) {
            BucketKind::Token => 0,
            // "The next turn is when what is left has drained at the new rate."
            BucketKind::Leaky => integer((self.used(call, now) / per_us(call)).ceil()),
        }
    }

    fn grant(&mut self, call: &Limits, now: Us, units: u64) {
        // "Use is rounded up where a changed rate makes a fraction, when it is stored": a level is a
        // whole number of d-th units, where the rate is n units per d microseconds.
        let parts = whole(rate(call).per_us().get());
        let left = (self.used(call, now) * &parts).ceil() / parts;
        let used = (left + whole(units)).min(whole(MAX_USED));
        self.0 = Some(Level { limits: *call, used, at: now });
    }

    fn refund(&mut self, now: Us, units: u64) {
        let Some(level) = &mut self.0 else { return };
        if level.is_as_none(now) || level.drained(&level.limits, now) <= whole(units) {
            self.0 = None;
        } else {
            level.used -= whole(units);
            level.at = level.at.min(now);
        }
    }

    fn idle_at(&self) -> Us {
        self.0
            .as_ref()
            .map_or(0, |level| level.at + integer((&level.used / per_us(&level.limits)).ceil()))
    }
}

// ---------------------------------------------------------------------------------------------------
// FIXEDWINDOW

/// A counter, and where its window began.
#[derive(Clone, Debug)]
pub struct FixedWindow(Option<Count>);

#[derive(Clone, Debug)]
struct Count {
    limits: Limits,
    used: u64,
    start: Us,
}

impl Count {
    /// "They count while now < s + the shorter window and, with ALIGN, only until the end of the call's
    /// aligned window in which s lies."
    fn end(&self, call: &Limits) -> Us {
        let end = self.start + window(&self.limits).min(window(call));
        match aligned_start(call, self.start) {
            Some(start) => end.min(start + window(call)),
            None => end,
        }
    }

    fn counts(&self, call: &Limits, now: Us) -> bool {
        self.start - now <= window(&self.limits) && now < self.end(call)
    }
}

/// Where the aligned window that holds `moment` begins, if windows are aligned.
pub fn aligned_start(call: &Limits, moment: Us) -> Option<Us> {
    let Limits::FixedWindow(limits) = call else { panic!("a fixed window's limits: {call:?}") };
    let offset = Us::from(limits.align?.get());
    Some((moment - offset).div_euclid(window(call)) * window(call) + offset)
}

impl Model for FixedWindow {
    fn new() -> Self {
        Self(None)
    }

    fn limits(&self) -> Option<Limits> {
        self.0.as_ref().map(|count| count.limits)
    }

    fn used(&self, call: &Limits, now: Us) -> BigRational {
        match &self.0 {
            Some(count) if count.counts(call, now) => whole(count.used),
            _ => BigRational::zero(),
        }
    }

    fn until_at_most(&self, call: &Limits, now: Us, units: u64) -> Us {
        let end = self.0.as_ref().map(|count| count.end(call));
        first_moment(now, end, |moment| self.used(call, moment) <= whole(units))
    }

    fn grant(&mut self, call: &Limits, now: Us, units: u64) {
        let standing = self.0.as_ref().filter(|count| count.counts(call, now));
        // "A grant stores the start of the call's aligned window; without ALIGN it keeps s, or takes
        // now if nothing counts"; and "a grant rewrites what lies ahead to now".
        let start = match (aligned_start(call, now), standing) {
            (Some(start), _) => start,
            (None, Some(count)) => count.start.min(now),
            (None, None) => now,
        };
        let used = standing.map_or(0, |count| count.used);
        self.0 = Some(Count { limits: *call, used: (used + units).min(MAX_USED), start });
    }

    fn refund(&mut self, now: Us, units: u64) {
        let Some(count) = &mut self.0 else { return };
        if !count.counts(&count.limits, now) || count.used <= units {
            self.0 = None;
        } else {
            count.used -= units;
        }
    }

    fn idle_at(&self) -> Us {
        self.0.as_ref().map_or(0, |count| count.end(&count.limits))
    }
}

// ---------------------------------------------------------------------------------------------------
// SLIDINGLOG

/// Every hit, the oldest first.
#[derive(Clone, Debug)]
pub struct SlidingLog {
    limits: Option<Limits>,
    hits: Vec<(Us, u64)>,
}

impl SlidingLog {
    /// The hits that count: each for the shorter of the two windows, if the newest is not too far ahead.
    fn counting(&self, call: &Limits, now: Us) -> Vec<(Us, u64)> {
        let (Some(stored), Some(newest)) = (&self.limits, self.hits.iter().map(|hit| hit.0).max())
        else {
            return Vec::new();
        };
        let shorter = window(stored).min(window(call));
        let ahead = newest - now > window(stored);
        self.hits.iter().filter(|hit| !ahead && now < hit.0 + shorter).copied().collect()
    }

    fn moments(hits: &[(Us, u64)]) -> usize {
        let mut moments: Vec<Us> = hits.iter().map(|hit| hit.0).collect();
        moments.sort_unstable();
        moments.dedup();
        moments.len()
    }
}

impl Model for SlidingLog {
    fn new() -> Self {
        Self { limits: None, hits: Vec::new() }
    }

    fn limits(&self) -> Option<Limits> {
        self.limits
    }

    fn used(&self, call: &Limits, now: Us) -> BigRational {
        whole(self.counting(call, now).iter().map(|hit| hit.1).sum())
    }

    fn until_at_most(&self, call: &Limits, now: Us, units: u64) -> Us {
        let Some(stored) = &self.limits else { return 0 };
        let shorter = window(stored).min(window(call));
        let leaving = self.hits.iter().map(|hit| hit.0 + shorter);
        first_moment(now, leaving, |moment| self.used(call, moment) <= whole(units))
    }

    fn grant(&mut self, call: &Limits, now: Us, units: u64) {
        self.hits = self.counting(call, now);
        self.limits = Some(*call);
        for hit in &mut self.hits {
            hit.0 = hit.0.min(now);
        }
        let used: u64 = self.hits.iter().map(|hit| hit.1).sum();
        let newest = self.hits.iter().map(|hit| hit.0).max();
        let units = units.min(MAX_USED - used);
        // "A log gains no entry beyond its limit (or its first): forced units then join the newest
        // entry, which moves to now." What saturated adds no entry, either.
        if let Some(newest) = newest.filter(|&newest| newest < now)
            && (units == 0 || Self::moments(&self.hits) as u64 >= limit_of(call))
        {
            for hit in self.hits.iter_mut().filter(|hit| hit.0 == newest) {
                hit.0 = now;
            }
        }
        self.hits.push((now, units));
    }

    fn refund(&mut self, now: Us, mut units: u64) {
        let Some(stored) = self.limits else { return };
        let counting = self.counting(&stored, now).len();
        for hit in self.hits.iter_mut().rev().take(counting) {
            let back = hit.1.min(units);
            hit.1 -= back;
            units -= back;
        }
        self.hits.retain(|hit| hit.1 > 0);
        if self.used(&stored, now).is_zero() {
            *self = Self::new();
        }
    }

    fn idle_at(&self) -> Us {
        let newest = self.hits.iter().map(|hit| hit.0).max();
        newest.map_or(0, |newest| newest + window(&self.limits.unwrap()))
    }

    fn entries(&self, now: Us) -> Option<usize> {
        let stored = self.limits?;
        Some(Self::moments(&self.counting(&stored, now)))
    }
}

// ---------------------------------------------------------------------------------------------------
// SLIDING

/// Entries, the oldest first.
#[derive(Clone, Debug)]
pub struct Sliding {
    limits: Option<Limits>,
    entries: Vec<Entry>,
}

/// The hits less than `window / n` after the first of them.
#[derive(Clone, Debug)]
struct Entry {
    first: Us,
    last: Us,
    units: u64,
}

impl Entry {
    /// Whether a hit at `moment` is less than `window / n` after the first of the entry, or comes at the
    /// same microsecond as its last, where joining makes no unit late.
    fn takes_in(&self, moment: Us, call: &Limits) -> bool {
        (moment - self.first) * buckets(call) < window(call) || moment == self.last
    }
}

impl Sliding {
    /// The entries that count: each until its last hit leaves.
    fn counting(&self, call: &Limits, now: Us) -> Vec<Entry> {
        let (Some(stored), Some(newest)) = (&self.limits, self.entries.last()) else {
            return Vec::new();
        };
        let shorter = window(stored).min(window(call));
        let ahead = newest.last - now > window(stored);
        self.entries.iter().filter(|entry| !ahead && now < entry.last + shorter).cloned().collect()
    }

    /// "Regroups them from the oldest on, by their latest times: those less than the new window/n after
    /// the first of a group become one entry, at its latest time."
    fn regroup(&mut self, call: &Limits) {
        let mut groups: Vec<Entry> = Vec::new();
        for entry in self.entries.drain(..) {
            match groups.last_mut() {
                Some(group) if group.takes_in(entry.last, call) => {
                    group.last = entry.last;
                    group.units += entry.units;
                }
                _ => groups.push(Entry { first: entry.last, ..entry }),
            }
        }
        self.entries = groups;
    }
}

impl Model for Sliding {
    fn new() -> Self {
        Self { limits: None, entries: Vec::new() }
    }

    fn limits(&self) -> Option<Limits> {
        self.limits
    }

    fn used(&self, call: &Limits, now: Us) -> BigRational {
        whole(self.counting(call, now).iter().map(|entry| entry.units).sum())
    }

    fn until_at_most(&self, call: &Limits, now: Us, units: u64) -> Us {
        let Some(stored) = &self.limits else { return 0 };
        let shorter = window(stored).min(window(call));
        let leaving = self.entries.iter().map(|entry| entry.last + shorter);
        first_moment(now, leaving, |moment| self.used(call, moment) <= whole(units))
    }

    fn grant(&mut self, call: &Limits, now: Us, units: u64) {
        self.entries = self.counting(call, now);
        // What lies ahead is rewritten to now, where it is one entry; its first hit is the newest's.
        if let Some(newest) = self.entries.last().filter(|newest| newest.last > now).cloned() {
            let units =
                self.entries.iter().filter(|entry| entry.last >= now).map(|e| e.units).sum();
            self.entries.retain(|entry| entry.last < now);
            self.entries.push(Entry { first: newest.first.min(now), last: now, units });
        }
        self.limits = Some(*call);

        let used: u64 = self.entries.iter().map(|entry| entry.units).sum();
        let units = units.min(MAX_USED - used);
        let joins = |entries: &[Entry]| {
            // What saturated adds no entry.
            units == 0 || entries.last().is_some_and(|newest| newest.takes_in(now, call))
        };
        let needed = self.entries.len() + usize::from(!joins(&self.entries));
        if needed as Us > buckets(call) + 1 {
            self.regroup(call);
        }
        if joins(&self.entries) {
            let newest = self.entries.last_mut().unwrap();
            newest.last = now;
            newest.units += units;
        } else {
            self.entries.push(Entry { first: now, last: now, units });
        }
    }

    fn refund(&mut self, now: Us, mut units: u64) {
        let Some(stored) = self.limits else { return };
        let counting = self.counting(&stored, now).len();
        for entry in self.entries.iter_mut().rev().take(counting) {
            let back = entry.units.min(units);
            entry.units -= back;
            units -= back;
        }
        // An entry whose successor is gone takes in no more: as if its first hit were long ago.
        if self.entries.last().is_some_and(|newest| newest.units == 0) {
            self.entries.iter_mut().for_each(|entry| entry.first = 0);
        }
        self.entries.retain(|entry| entry.units > 0);
        if self.used(&stored, now).is_zero() {
            *self = Self::new();
        }
    }

    fn idle_at(&self) -> Us {
        let newest = self.entries.last();
        newest.map_or(0, |newest| newest.last + window(&self.limits.unwrap()))
    }

    fn entries(&self, now: Us) -> Option<usize> {
        let stored = self.limits?;
        Some(self.counting(&stored, now).len())
    }
}

// ---------------------------------------------------------------------------------------------------
// Small words

/// The span from `now` to the first moment that will do, where only `now` and these moments can be it.
fn first_moment(
    now: Us,
    changes: impl IntoIterator<Item = Us>,
    will_do: impl Fn(Us) -> bool,
) -> Us {
    let mut moments: Vec<Us> = changes.into_iter().filter(|&moment| moment > now).collect();
    moments.push(now);
    moments.sort_unstable();
    moments.into_iter().find(|&moment| will_do(moment)).expect("all use ends") - now
}

fn whole(units: u64) -> BigRational {
    BigRational::from_integer(units.into())
}

fn integer(value: BigRational) -> Us {
    value.to_integer().to_i128().unwrap()
}

/// A moment or a span as replies have it, which saturate.
pub fn micros(span: Us) -> Micros {
    Micros::saturating_from(span.try_into().expect("no span is negative"))
}

fn kind(limits: &Limits) -> BucketKind {
    let Limits::Bucket(limits) = limits else { panic!("a bucket's limits: {limits:?}") };
    limits.kind
}

fn rate(limits: &Limits) -> Rate {
    let Limits::Bucket(limits) = limits else { panic!("a bucket's limits: {limits:?}") };
    limits.rate
}

/// A rate as the fraction it is: units per microsecond.
pub fn per_us(limits: &Limits) -> BigRational {
    let rate = rate(limits);
    BigRational::new(BigInt::from(rate.units().get()), BigInt::from(rate.per_us().get()))
}

/// The limit or capacity.
pub fn limit_of(limits: &Limits) -> u64 {
    match limits {
        Limits::Bucket(limits) => limits.capacity,
        Limits::FixedWindow(limits) => limits.limit,
        Limits::SlidingWindow(limits) => limits.limit,
        Limits::Leases(limits) => limits.limit,
    }
}

/// The length of a window.
pub fn window(limits: &Limits) -> Us {
    let window = match limits {
        Limits::Bucket(_) | Limits::Leases(_) => panic!("a window's limits: {limits:?}"),
        Limits::FixedWindow(limits) => limits.window,
        Limits::SlidingWindow(limits) => limits.window,
    };
    window.get().into()
}

/// The n of `BUCKETS n`.
pub fn buckets(limits: &Limits) -> Us {
    match limits {
        Limits::SlidingWindow(SlidingWindowLimits {
            resolution: Resolution::Buckets(n), ..
        }) => Us::from(*n),
        _ => panic!("a sliding window counter's limits: {limits:?}"),
    }
}

// ---------------------------------------------------------------------------------------------------
// BLOCK

/// A model that counts its denials.
#[derive(Clone, Debug)]
pub struct Penalized<M> {
    model: M,
    /// Those of the last grant, although nothing may be used any more.
    limits: Option<Limits>,
    row: u32,
    block: Option<Block>,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    began: Us,
    duration: Us,
}

impl<M: Model> Penalized<M> {
    /// A key that was never used.
    pub fn new() -> Self {
        Self { model: M::new(), limits: None, row: 0, block: None }
    }

    pub fn limits(&self) -> Option<Limits> {
        self.limits
    }

    /// "A block that would last longer than its own `duration` from now is over."
    pub fn left(&self, now: Us) -> Option<Us> {
        let block = self.block?;
        let left = block.began + block.duration - now;
        (1..=block.duration).contains(&left).then_some(left)
    }

    pub fn row(&self) -> u32 {
        self.row
    }

    pub fn used(&self, now: Us) -> BigRational {
        self.limits.map_or_else(BigRational::zero, |limits| self.model.used(&limits, now))
    }

    /// "Every request is denied, whatever its options and rule, but for `FORCE` and `COST 0`."
    pub fn decide(&self, call: &Limits, now: Us, request: Request) -> Decision {
        let open = decide(&self.model, call, now, request);
        let Some(left) = self.left(now) else { return open };
        let at_least = |span: Us| micros(span.max(left));
        let closed = Decision { remaining: 0, is_blocked: true, ..open };
        if request.mode == Mode::Force && request.cost > 0 {
            return Decision { reset: open.reset.max(micros(left)), ..closed };
        }
        let needed = if request.mode == Mode::Partial { 1 } else { request.cost };
        let wait = |limit: u64| self.model.until_at_most(call, now, limit - needed);
        let limit = limit_of(call);
        Decision {
            allowed: request.cost == 0,
            wait: match request.cost {
                0 => Some(Micros::ZERO),
                _ => (needed <= limit).then(|| at_least(wait(limit))),
            },
            reset: at_least(self.model.until_at_most(call, now, 0)),
            taken: 0,
            ..closed
        }
    }

    /// "A limiter of which nothing is used counts no denials."
    pub fn deny(&mut self, now: Us, duration: Us, after: u32) {
        if self.left(now).is_some() || self.used(now).is_zero() {
            return;
        }
        self.block = None;
        self.row += 1;
        if self.row >= after {
            self.row = 0;
            self.block = Some(Block { began: now, duration });
        }
    }

    /// "A grant of 1 unit or more ends the row", but not a block.
    pub fn grant(&mut self, call: &Limits, now: Us, units: u64) {
        if self.left(now).is_none() {
            self.row = 0;
            self.block = None;
        }
        self.model.grant(call, now, units);
        self.limits = Some(*call);
    }

    /// "RL.REFUND leaves the block as it is, and keeps the key while it runs."
    pub fn refund(&mut self, now: Us, units: u64) {
        if self.left(now).is_some() && self.used(now).is_zero() {
            return;
        }
        self.model.refund(now, units);
        if self.left(now).is_none() && self.model.limits().is_none() {
            *self = Self::new();
        }
    }

    pub fn idle_at(&self) -> Us {
        let end = self.block.map_or(0, |block| block.began + block.duration);
        self.model.idle_at().max(end)
    }

    pub fn entries(&self, now: Us) -> Option<usize> {
        match self.limits? {
            Limits::SlidingWindow(_) => Some(self.model.entries(now).unwrap_or(0)),
            _ => None,
        }
    }
}

/// An n-th of a window where there are n buckets; a sixteenth of another; the time of a bucket's unit.
pub fn spacing(limits: &Limits) -> u64 {
    let span = match limits {
        Limits::Bucket(_) => integer(per_us(limits).recip().floor()),
        Limits::SlidingWindow(SlidingWindowLimits {
            resolution: Resolution::Buckets(n), ..
        }) => window(limits) / Us::from(*n),
        _ => window(limits) / 16,
    };
    span as u64
}
