//! The sliding window: a list of what was granted and when, at one of two resolutions.
//!
//! ```text
//!             |<------- window ------->|
//!   ---o--|---ooo----oo---------o------o--> t        A hit at t counts while  now < t + window.
//!   expired   [ entry ][ e. ]   [ e. ] now           A grant needs  used + c <= limit.
//! ```
//!
//! SLIDINGLOG keeps an entry for every distinct microsecond. SLIDING keeps at most `n + 1`: an entry takes in
//! the hits less than `window / n` after its first, and counts as if all of them came with its *last*. Its units
//! expire late (by less than window/n) and never early, so in **every** span of one window at most `limit`
//! units are granted, whatever is merged.
//!
//! Why n + 1 suffice: each entry's first hit is at least window/n after the one's before, all last hits
//! but the oldest entry's come after the second one's first, so the first hits of entries 2..k lie within one
//! window: k - 2 < n.
//!
//! An entry is a time and a running total (see `ring`), so a denial finds by bisection when enough units will have
//! expired.
//!
//! Under the limits of a call with another window, hits count for the shorter of the two. A change
//! that would leave more than n + 1 entries regroups them, from the oldest on: since totals run,
//! a group is simply its last entry.
//!
//! Cost: a grant O(1) amortised, a denial or a look O(log entries). Memory: 12 bytes an entry, at
//! most 24 allocated.

use std::ops::Deref;

use super::decision::Usage;
use super::limits::{MAX_LOG_ENTRIES, MAX_USED, Resolution, SlidingWindowLimits};
use super::ring::{Entry, Ring, Total};
use super::time::Micros;

/// The state of a sliding window: what was granted when, and under which limits.
///
/// Its entries are owned, or borrowed to read.
#[derive(Debug)]
pub(crate) struct SlidingWindow<S = Box<[Entry]>> {
    pub(super) limits: SlidingWindowLimits,
    /// The running total before the oldest entry.
    pub(super) before: Total,
    /// When the newest entry's first hit was; if this is 0 the newest entry takes in no more.
    pub(super) first: Micros,
    pub(super) ring: Ring<S>,
}

impl SlidingWindow {
    /// A window without entries: made to record its first grant, and stored only while a block keeps its key.
    pub(super) fn new(call: &SlidingWindowLimits) -> Self {
        let ring = Ring::new([].into_iter());
        Self { limits: *call, before: Total::ZERO, first: Micros::ZERO, ring }
    }

    /// A stored window of hits, each a time and its units, oldest first, checked; `None` if grants could not have made it.
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
        let ring = Ring::new(entries.into_iter());
        (Some(first) <= latest).then_some(Self {
            limits: *limits,
            before: Total::ZERO,
            first,
            ring,
        })
    }

    /// Records a grant.
    pub(super) fn grant(&mut self, call: &SlidingWindowLimits, units: u64, now: Micros) {
        self.forget(self.live_from(self.limits.window.min(call.window), now));
        self.pull_back(now);
        self.limits = *call;
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
            self.first = now;
        }
        self.ring.shrink();
    }

    /// Gives `units` back, the newest first; whether anything is still used.
    pub(super) fn refund(&mut self, units: u64, now: Micros) -> bool {
        let live_from = self.live_from(self.limits.window, now);
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
            self.first = Micros::ZERO;
        }
        self.ring.shrink();
        true
    }

    /// Drops the oldest `count` entries.
    fn forget(&mut self, count: usize) {
        self.before = self.total_before(count);
        self.ring.drop_front(count);
    }

    /// Moves what lies ahead of now to now, as one entry: the clock has stepped back.
    fn pull_back(&mut self, now: Micros) {
        let Some(newest) = self.ring.last().filter(|newest| newest.time() > now) else {
            return;
        };
        while self.ring.last().is_some_and(|entry| entry.time() >= now) {
            self.ring.drop_back();
        }
        self.ring.push_back(Entry::new(now, newest.total()));
        self.first = self.first.min(now);
    }

    /// Merges entries whose times lie within one bucket, from the oldest on.
    fn regroup(&mut self) {
        let SlidingWindowLimits { window, resolution, .. } = self.limits;
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
        self.first = first.unwrap_or(Micros::ZERO);
        self.ring = Ring::new(groups.into_iter());
    }
}

impl<S: Deref<Target = [Entry]>> SlidingWindow<S> {
    /// The recorded hits, each a time and its units, oldest first.
    pub(super) fn hits(&self) -> impl Iterator<Item = (Micros, u64)> + '_ {
        self.ring.iter().scan(self.before, |before, entry| {
            let units = entry.total().since(*before);
            *before = entry.total();
            Some((entry.time(), units))
        })
    }

    /// The moment from which on the window is idle.
    pub(super) fn idle_at(&self) -> Micros {
        self.ring.last().map_or(Micros::ZERO, |newest| newest.time().after(self.limits.window))
    }

    /// The oldest entry that counts, if hits count for `window`.
    fn live_from(&self, window: Micros, now: Micros) -> usize {
        // A clock that stepped back is believed for one stored window.
        if self.ring.last().is_none_or(|newest| newest.time().since(now) > self.limits.window) {
            return self.ring.len();
        }
        self.ring.partition_point(|entry| entry.time().after(window) <= now)
    }

    /// The units of the entry `index` and all newer ones.
    fn used_from(&self, index: usize) -> u64 {
        self.total_before(self.ring.len()).since(self.total_before(index))
    }

    /// The running total before the entry `index`.
    fn total_before(&self, index: usize) -> Total {
        let entry = index.checked_sub(1).and_then(|previous| self.ring.get(previous));
        entry.map_or(self.before, Entry::total)
    }

    /// Whether a hit at `now` goes into the newest entry.
    fn joins(&self, call: &SlidingWindowLimits, now: Micros) -> bool {
        self.ring.last().is_some_and(|newest| match call.resolution {
            _ if newest.time() == now => true,
            Resolution::Buckets(n) => is_within_bucket(now.since(self.first), n, call.window),
            // A log gains no entry beyond its limit: what is forced joins the newest.
            Resolution::Exact => call.limit <= self.ring.len() as u64,
        })
    }
}

/// Whether a span is shorter than one n-th of a window.
fn is_within_bucket(span: Micros, n: u16, window: Micros) -> bool {
    span.get().saturating_mul(u64::from(n)) < window.get()
}

/// Whether this many entries are more than the limits allow.
fn overflows(call: &SlidingWindowLimits, entries: usize) -> bool {
    match call.resolution {
        Resolution::Buckets(n) => entries > usize::from(n).saturating_add(1),
        Resolution::Exact => false,
    }
}

/// What counts now of a sliding window.
pub(super) struct Span<S> {
    /// The list, and the oldest entry that counts.
    list: Option<(SlidingWindow<S>, usize)>,
    /// How long a hit counts: the shorter of the stored and the call's window.
    window: Micros,
    now: Micros,
    call: SlidingWindowLimits,
}

impl<S: Deref<Target = [Entry]>> Span<S> {
    /// What counts of a list, or of none.
    pub(super) fn of(
        list: Option<SlidingWindow<S>>,
        call: &SlidingWindowLimits,
        now: Micros,
    ) -> Self {
        let stored = list.as_ref().map_or(call.window, |list| list.limits.window);
        let window = stored.min(call.window);
        let list = list.map(|list| {
            let live_from = list.live_from(window, now);
            (list, live_from)
        });
        Self { list, window, now, call: *call }
    }
}

impl<S: Deref<Target = [Entry]>> Usage for Span<S> {
    fn limit(&self) -> u64 {
        self.call.limit
    }

    fn used(&self) -> u64 {
        self.list.as_ref().map_or(0, |(list, live_from)| list.used_from(*live_from))
    }

    fn until_at_most(&self, units: u64) -> Micros {
        let Some((list, live_from)) = &self.list else {
            return Micros::ZERO;
        };
        let excess = list.used_from(*live_from).saturating_sub(units);
        if excess == 0 {
            return Micros::ZERO;
        }
        // The oldest entry after whose expiry the excess is gone.
        let before = list.total_before(*live_from);
        let mut range = *live_from..list.ring.len();
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

    fn until_idle_with(&self, _units: u64) -> Micros {
        self.call.window
    }

    /// A list of another algorithm is replaced by a new one.
    fn must_grow(&self) -> bool {
        let Some((list, live_from)) = &self.list else { return true };
        if list.ring.len() < list.ring.capacity() || *live_from > 0 {
            return false;
        }
        // All entries count. One that lies ahead of now makes room by moving to now.
        let ahead = list.ring.last().is_some_and(|newest| newest.time() > self.now);
        let grown = list.ring.len().saturating_add(1);
        !ahead && !list.joins(&self.call, self.now) && !overflows(&self.call, grown)
    }

    fn entries(&self) -> Option<usize> {
        let counting = |(list, live_from): &(SlidingWindow<S>, usize)| {
            list.ring.len().saturating_sub(*live_from)
        };
        Some(self.list.as_ref().map_or(0, counting))
    }
}
