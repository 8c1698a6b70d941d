//! The sliding window: a list of what was granted and when, at one of two resolutions.
//!
//! ```text
//!             |<------- window ------->|
//!   ---o--|---ooo----oo---------o------o--> t        A hit at t counts while  now < t + window.
//!      left   [ entry ][ e. ]   [ e. ] now           A grant needs  used + c <= limit.
//! ```
//!
//! SLIDINGLOG keeps an entry for every distinct microsecond. SLIDING keeps at most `n + 1`: an entry takes in
//! the hits less than `window / n` after its first, and is taken to have happened at its *last*. So its units
//! leave late (by less than window/n) and never early, and in **every** span of one window at most `limit`
//! units are granted, whatever is merged.
//!
//! Why n + 1 suffice: each entry's first hit is at least window/n after the one's before, all lasts
//! but the oldest entry's lie behind the second one's first, so the firsts of entries 2..k lie within one
//! window: k - 2 < n.
//!
//! An entry is a time and a running total (see `ring`), so that a denial finds by
//! bisection when enough units will have left.
//!
//! Under the limits of a call with another window, hits count for the shorter of the two. A change
//! that would leave more than n + 1 entries regroups them, from the oldest on: since totals run,
//! a group is simply its last entry.
//!
//! Cost: a grant O(1) amortised, a denial or a look O(log entries). Memory: 12 bytes an entry, at
//! most 24 allocated, and the struct.

use super::decision::Standing;
use super::limits::{Algorithm, MAX_LOG_ENTRIES, MAX_USED, Resolution, SlidingWindowLimits};
use super::packed::U56;
use super::ring::{Entry, Ring, Total};
use super::time::Micros;

/// The state of a sliding window: what was granted when, and under which limits.
///
/// In the order written: the kind lies in the last of 32 bytes, and the other values of that byte tell other limiters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SlidingWindow {
    /// The entries. The ring's header is the total before the oldest, and the time of the newest entry's
    /// *first* hit; where that is 0 the newest entry takes in no more. What the owner keeps in the ring is the [`shape`].
    ring: Ring,
    limit: U56,
    kind: Kind,
}

/// Which of the two a sliding window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Log,
}

impl Kind {
    const fn of(limits: &SlidingWindowLimits) -> Self {
        match limits.resolution {
            Resolution::Buckets(_) => Self::Counter,
            Resolution::Exact => Self::Log,
        }
    }
}

/// The window (49 bits) and, of a counter, the buckets above it (11 bits): what the ring keeps for us.
fn shape(limits: &SlidingWindowLimits) -> u128 {
    let buckets = match limits.resolution {
        Resolution::Buckets(n) => n,
        Resolution::Exact => 0,
    };
    u128::from(buckets) << 64 | u128::from(limits.window.get())
}

impl SlidingWindow {
    /// A window without entries: never kept so, but made to be granted.
    pub(super) fn new(call: &SlidingWindowLimits) -> Self {
        Self::of(
            call,
            Ring::new(Entry::new(Micros::ZERO, Total::ZERO), shape(call), [].into_iter()),
        )
    }

    fn of(limits: &SlidingWindowLimits, ring: Ring) -> Self {
        Self { ring, limit: U56::new(limits.limit), kind: Kind::of(limits) }
    }

    /// A window of recorded hits, each a time and its units, oldest first; `None` if there is no such window.
    pub(super) fn restore(
        limits: &SlidingWindowLimits,
        first: Micros,
        hits: impl ExactSizeIterator<Item = (Micros, u64)>,
    ) -> Option<Self> {
        let most = match limits.resolution {
            Resolution::Buckets(n) => u64::from(n).saturating_add(1),
            Resolution::Exact => MAX_LOG_ENTRIES,
        };
        if hits.len() == 0 || u64::try_from(hits.len()).ok()? > most {
            return None;
        }
        let mut entries = Vec::with_capacity(hits.len());
        let (mut used, mut latest) = (0u64, None);
        for (time, units) in hits {
            used = used.checked_add(units)?;
            let valid = units > 0 && used <= MAX_USED && latest < Some(time);
            if !valid || time > Micros::MAX_MOMENT {
                return None;
            }
            latest = Some(time);
            entries.push(Entry::new(time, Total::ZERO.plus(used)));
        }
        let header = Entry::new(first, Total::ZERO);
        let ring = Ring::new(header, shape(limits), entries.into_iter());
        (Some(first) <= latest).then(|| Self::of(limits, ring))
    }

    pub(super) fn limits(&self) -> SlidingWindowLimits {
        let shape = self.ring.owned();
        let resolution = match self.kind {
            Kind::Counter => Resolution::Buckets(u16::try_from(shape >> 64).unwrap_or(u16::MAX)),
            Kind::Log => Resolution::Exact,
        };
        SlidingWindowLimits { limit: self.limit.get(), window: self.window(), resolution }
    }

    pub(super) const fn algorithm(&self) -> Algorithm {
        match self.kind {
            Kind::Counter => Algorithm::Sliding,
            Kind::Log => Algorithm::SlidingLog,
        }
    }

    fn window(&self) -> Micros {
        Micros::saturating_from(self.ring.owned() & u128::from(u64::MAX))
    }

    fn adopt(&mut self, call: &SlidingWindowLimits) {
        self.limit = U56::new(call.limit);
        self.kind = Kind::of(call);
        self.ring.set_owned(shape(call));
    }

    /// When the newest entry's first hit was.
    pub(super) fn first(&self) -> Micros {
        self.ring.header().time()
    }

    fn set_first(&mut self, first: Micros) {
        self.ring.set_header(Entry::new(first, self.ring.header().total()));
    }

    /// The recorded hits, each a time and its units, oldest first.
    pub(super) fn hits(&self) -> impl Iterator<Item = (Micros, u64)> + '_ {
        self.ring.iter().scan(self.ring.header().total(), |before, entry| {
            let units = entry.total().since(*before);
            *before = entry.total();
            Some((entry.time(), units))
        })
    }

    /// How many entries are kept, those that have left since the last grant included.
    pub(super) fn len(&self) -> usize {
        self.ring.len()
    }

    /// The block of memory that holds the entries.
    pub(super) fn slots(&self) -> &[Entry] {
        self.ring.slots()
    }

    /// The block of memory that holds the entries, to move it elsewhere.
    pub(super) fn slots_mut(&mut self) -> &mut Box<[Entry]> {
        self.ring.slots_mut()
    }

    /// What counts now, under the limits of a call.
    pub(super) fn standing(&self, call: &SlidingWindowLimits, now: Micros) -> Span<'_> {
        let window = self.window().min(call.window);
        Span { list: Some((self, self.live_from(window, now))), window, now, call: *call }
    }

    /// Whether a grant needs a new block of memory to hold one entry more.
    pub(super) fn must_grow(&self, call: &SlidingWindowLimits, now: Micros) -> bool {
        if self.ring.len() < self.ring.capacity()
            || self.live_from(self.window().min(call.window), now) > 0
        {
            return false;
        }
        // All entries count. One that lies ahead of now makes room by moving to now.
        let ahead = self.ring.last().is_some_and(|newest| newest.time() > now);
        !ahead && !self.joins(call, now) && !overflows(call, self.ring.len().saturating_add(1))
    }

    /// Records a grant.
    pub(super) fn grant(&mut self, call: &SlidingWindowLimits, units: u64, now: Micros) {
        self.forget(self.live_from(self.window().min(call.window), now));
        self.pull_back(now);
        self.adopt(call);
        let added = units.min(MAX_USED.saturating_sub(self.used_from(0)));
        let mut joins = self.joins(call, now) || added == 0;
        if overflows(call, self.ring.len().saturating_add(usize::from(!joins))) {
            self.regroup();
            joins = self.joins(call, now) || added == 0;
        }
        let total = self.total_before(self.ring.len()).plus(added);
        if joins {
            self.ring.drop_back();
        }
        self.ring.push_back(Entry::new(now, total));
        if !joins {
            self.set_first(now);
        }
        self.ring.shrink();
    }

    /// Gives `units` back, the newest first; whether anything is still used.
    pub(super) fn refund(&mut self, units: u64, now: Micros) -> bool {
        let live_from = self.live_from(self.window(), now);
        if self.used_from(live_from) <= units {
            return false;
        }
        let mut left = units;
        while let Some(newest) = self.ring.last() {
            let before = self.total_before(self.ring.len().saturating_sub(1));
            let own = newest.total().since(before);
            if left == 0 {
                break;
            }
            self.ring.drop_back();
            if own > left {
                let total = before.plus(own.saturating_sub(left));
                self.ring.push_back(Entry::new(newest.time(), total));
                break;
            }
            left = left.saturating_sub(own);
            // The entry before began window/n or more before this one: it takes in no later hit.
            self.set_first(Micros::ZERO);
        }
        self.ring.shrink();
        true
    }

    /// The moment from which on the window is as if never used.
    pub(super) fn idle_at(&self) -> Micros {
        self.ring.last().map_or(Micros::ZERO, |newest| newest.time().after(self.window()))
    }

    /// The oldest entry that counts, hits counting for `window`.
    fn live_from(&self, window: Micros, now: Micros) -> usize {
        // A clock that stepped back is believed for one stored window.
        if self.ring.last().is_none_or(|newest| newest.time().since(now) > self.window()) {
            return self.ring.len();
        }
        self.ring.partition_point(|entry| entry.time().after(window) <= now)
    }

    /// The units of the entry `index` and all newer ones.
    fn used_from(&self, index: usize) -> u64 {
        self.total_before(self.ring.len()).since(self.total_before(index))
    }

    /// The total before the entry `index`.
    fn total_before(&self, index: usize) -> Total {
        let entry = index.checked_sub(1).and_then(|previous| self.ring.get(previous));
        entry.unwrap_or_else(|| self.ring.header()).total()
    }

    /// Drops the oldest `count` entries.
    fn forget(&mut self, count: usize) {
        self.ring.set_header(Entry::new(self.first(), self.total_before(count)));
        self.ring.drop_front(count);
    }

    /// Moves what lies ahead of now, the clock having stepped back, to now: as one entry.
    fn pull_back(&mut self, now: Micros) {
        let Some(newest) = self.ring.last().filter(|newest| newest.time() > now) else {
            return;
        };
        while self.ring.last().is_some_and(|entry| entry.time() >= now) {
            self.ring.drop_back();
        }
        self.ring.push_back(Entry::new(now, newest.total()));
        self.set_first(self.first().min(now));
    }

    /// Whether a hit at `now` goes into the newest entry.
    fn joins(&self, call: &SlidingWindowLimits, now: Micros) -> bool {
        self.ring.last().is_some_and(|newest| match call.resolution {
            _ if newest.time() == now => true,
            Resolution::Buckets(n) => is_within_bucket(now.since(self.first()), n, call.window),
            // A log gains no entry beyond its limit: what is forced joins the newest.
            Resolution::Exact => call.limit <= self.ring.len() as u64,
        })
    }

    /// Makes one entry of those whose times lie within one bucket, from the oldest on.
    fn regroup(&mut self) {
        let SlidingWindowLimits { window, resolution, .. } = self.limits();
        let Resolution::Buckets(buckets) = resolution else {
            return;
        };
        let mut groups: Vec<Entry> = Vec::with_capacity(self.ring.len());
        let mut first = None;
        for entry in self.ring.iter() {
            let time = entry.time();
            match first {
                Some(first) if is_within_bucket(time.since(first), buckets, window) => {
                    groups.pop();
                }
                _ => first = Some(time),
            }
            groups.push(entry);
        }
        let header = Entry::new(first.unwrap_or(Micros::ZERO), self.ring.header().total());
        self.ring = Ring::new(header, self.ring.owned(), groups.into_iter());
    }
}

/// Whether a span is shorter than one n-th of a window.
fn is_within_bucket(span: Micros, n: u16, window: Micros) -> bool {
    span.get().saturating_mul(u64::from(n)) < window.get()
}

/// Whether so many entries are more than these limits allow.
fn overflows(call: &SlidingWindowLimits, entries: usize) -> bool {
    match call.resolution {
        Resolution::Buckets(n) => entries > usize::from(n).saturating_add(1),
        Resolution::Exact => false,
    }
}

/// What counts now of a sliding window.
pub(super) struct Span<'a> {
    /// The list, and the oldest entry that counts.
    list: Option<(&'a SlidingWindow, usize)>,
    /// How long a hit counts: the shorter of the stored and the call's window.
    window: Micros,
    now: Micros,
    call: SlidingWindowLimits,
}

impl Span<'_> {
    pub(super) fn empty(call: &SlidingWindowLimits, now: Micros) -> Self {
        Self { list: None, window: call.window, now, call: *call }
    }

    /// How many entries count.
    pub(super) fn entries(&self) -> usize {
        self.list.map_or(0, |(list, live_from)| list.ring.len().saturating_sub(live_from))
    }
}

impl Standing for Span<'_> {
    fn used(&self) -> u64 {
        self.list.map_or(0, |(list, live_from)| list.used_from(live_from))
    }

    fn until_at_most(&self, units: u64) -> Micros {
        let Some((list, live_from)) = self.list else {
            return Micros::ZERO;
        };
        let excess = list.used_from(live_from).saturating_sub(units);
        if excess == 0 {
            return Micros::ZERO;
        }
        // The oldest entry with which, and all before it, the excess has left.
        let before = list.total_before(live_from);
        let mut range = live_from..list.ring.len();
        while range.start < range.end {
            let middle = range.start.midpoint(range.end);
            if list.ring.get(middle).is_some_and(|entry| entry.total().since(before) < excess) {
                range.start = middle.saturating_add(1);
            } else {
                range.end = middle;
            }
        }
        let entry = list.ring.get(range.start).or_else(|| list.ring.last());
        entry.map_or(Micros::ZERO, |entry| entry.time().after(self.window).since(self.now))
    }

    fn until_idle(&self) -> Micros {
        self.until_at_most(0)
    }

    fn until_idle_with(&self, _units: u64) -> Micros {
        self.call.window
    }
}
