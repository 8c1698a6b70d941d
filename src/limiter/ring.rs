//! A ring of entries: what a sliding window remembers, oldest first.
//!
//! ```text
//!   entry (96 bits)   | time: 53 bits, us since 1970 | running total: 43 bits, modulo 2^43 |
//!
//!   slots  | reserved | reserved | e3 | e4 | e5 |    |    | e0 | e1 | e2 |      len 6, capacity 8
//!                                                           ^ head
//! ```
//!
//! An entry holds a *running total* of units, not its own. The units between any two entries are then one
//! subtraction, and the entry at which enough units have expired is found by bisection. Totals are modulo 2^43;
//! any two in a ring differ by at most 2 * 10^12 < 2^41, so their difference is exact.
//!
//! The first two slots are reserved for the form in which a list is kept in memory (`stored`): every byte outside
//! the block would make the box of every limiter larger, that of a bucket included.
//!
//! Slots are owned (`Box<[Entry]>`), or borrowed (`&[Entry]`) to read.
//!
//! Pushing at the back and dropping from the front are O(1) amortised. A ring of few entries grows by a quarter, a longer
//! one by an eighth, and it shrinks when it is less than half full: at most 24 bytes of memory for an entry of 12
//! (with a single entry, up to four slots).

use std::ops::Deref;

use super::packed::U96;
use super::time::Micros;

const TOTAL_BITS: u32 = 43;
const TOTAL_MASK: u64 = (1 << TOTAL_BITS) - 1;

/// A count of units ever recorded, modulo 2^43.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Total(u64);

impl Total {
    pub(super) const ZERO: Self = Self(0);

    /// The total after `units` more.
    pub(super) const fn plus(self, units: u64) -> Self {
        Self(self.0.wrapping_add(units) & TOTAL_MASK)
    }

    /// The units recorded since an earlier total.
    pub(super) const fn since(self, earlier: Self) -> u64 {
        self.0.wrapping_sub(earlier.0) & TOTAL_MASK
    }
}

/// A moment, and the running total of units up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry(U96);

impl Entry {
    pub(super) const EMPTY: Self = Self(U96::new(0));

    pub(super) fn new(time: Micros, total: Total) -> Self {
        Self(U96::new(u128::from(time.get()) << TOTAL_BITS | u128::from(total.0)))
    }

    pub(super) fn time(self) -> Micros {
        Micros::saturating_from(self.0.get() >> TOTAL_BITS)
    }

    /// All units recorded up to and with this entry.
    #[expect(clippy::cast_possible_truncation, reason = "the bits above are masked away")]
    pub(super) fn total(self) -> Total {
        Total(self.0.get() as u64 & TOTAL_MASK)
    }
}

/// A growing and shrinking ring of entries.
#[derive(Debug)]
pub(super) struct Ring<S = Box<[Entry]>> {
    slots: S,
    head: u32,
    len: u32,
}

/// The slots before the first place of an entry.
const RESERVED: usize = 2;
/// The slots that a ring keeps even if fewer would do.
const FEWEST_SLOTS: usize = RESERVED + 2;
/// Up to this many entries a ring grows by a quarter.
const FEW_ENTRIES: usize = 32;

impl<S: Deref<Target = [Entry]>> Ring<S> {
    /// What the reserved slots hold.
    pub(super) fn reserved(&self) -> [Entry; RESERVED] {
        self.slots.first_chunk().copied().unwrap_or([Entry::EMPTY; RESERVED])
    }

    pub(super) const fn len(&self) -> usize {
        self.len as usize
    }

    /// How many entries there is room for.
    pub(super) fn capacity(&self) -> usize {
        self.slots.len().saturating_sub(RESERVED)
    }

    /// The entry that `index` others are older than.
    pub(super) fn get(&self, index: usize) -> Option<Entry> {
        if index >= self.len() {
            return None;
        }
        self.slots.get(self.slot(index)).copied()
    }

    pub(super) fn last(&self) -> Option<Entry> {
        self.get(self.len().checked_sub(1)?)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// How many entries fulfil the condition; all those that do are at the front.
    pub(super) fn partition_point(&self, condition: impl Fn(Entry) -> bool) -> usize {
        // Nearly always none or one has expired since the last call: search from the front, in steps that double.
        let fulfils = |index| self.get(index).is_some_and(&condition);
        let (mut low, mut high) = (0, 0);
        while fulfils(high) {
            low = high.saturating_add(1);
            high = low.saturating_mul(2);
        }
        high = high.min(self.len());
        while low < high {
            let middle = low.midpoint(high);
            if fulfils(middle) {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        low
    }

    /// The slot of the entry that `index` others are older than.
    fn slot(&self, index: usize) -> usize {
        let place = (self.head as usize).saturating_add(index);
        place.checked_sub(self.capacity()).unwrap_or(place).saturating_add(RESERVED)
    }
}

impl Ring {
    /// A ring of these entries with no room for more, but for the first.
    pub(super) fn new(entries: impl ExactSizeIterator<Item = Entry>) -> Self {
        let len = entries.len();
        let size = len.max(1).saturating_add(RESERVED);
        let mut slots = Vec::with_capacity(size);
        slots.extend([Entry::EMPTY; RESERVED]);
        slots.extend(entries);
        slots.resize(size, Entry::EMPTY);
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        Self { slots: slots.into_boxed_slice(), head: 0, len }
    }

    /// The same ring, to read.
    pub(super) fn borrow(&self) -> Ring<&[Entry]> {
        Ring { slots: &self.slots, head: self.head, len: self.len }
    }

    /// Where the slots lie in memory.
    pub(super) const fn slots(&self) -> &[Entry] {
        &self.slots
    }

    /// Where the slots lie in memory, to move them elsewhere.
    pub(super) const fn slots_mut(&mut self) -> &mut Box<[Entry]> {
        &mut self.slots
    }

    pub(super) fn set_reserved(&mut self, reserved: [Entry; RESERVED]) {
        if let Some(slots) = self.slots.first_chunk_mut() {
            *slots = reserved;
        }
    }

    /// Drops the oldest `count` entries.
    pub(super) fn drop_front(&mut self, count: usize) {
        let count = count.min(self.len());
        let head = self.slot(count).saturating_sub(RESERVED);
        self.head = u32::try_from(head).unwrap_or_default();
        self.len = self.len.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// Drops the newest entry.
    pub(super) fn drop_back(&mut self) {
        self.len = self.len.saturating_sub(1);
    }

    pub(super) fn push_back(&mut self, entry: Entry) {
        if self.len() == self.capacity() {
            self.reallocate(self.len().saturating_add(1));
        }
        let slot = self.slot(self.len());
        if let Some(free) = self.slots.get_mut(slot) {
            *free = entry;
            self.len = self.len.saturating_add(1);
        }
    }

    /// Gives memory back if less than half of it is used.
    pub(super) fn shrink(&mut self) {
        if self.slots.len() > self.len().saturating_mul(2).max(FEWEST_SLOTS) {
            self.reallocate(self.len());
        }
    }

    /// Moves the entries to a block with room for `capacity`, and some more.
    fn reallocate(&mut self, capacity: usize) {
        let spare = if capacity > FEW_ENTRIES { capacity >> 3 } else { capacity >> 2 };
        let size = capacity.saturating_add(spare).saturating_add(RESERVED);
        let mut slots = Vec::with_capacity(size);
        slots.extend([Entry::EMPTY; RESERVED]);
        slots.extend(self.iter());
        slots.resize(size, Entry::EMPTY);
        self.slots = slots.into_boxed_slice();
        self.head = 0;
    }
}

impl Clone for Ring {
    fn clone(&self) -> Self {
        let entries: Vec<_> = self.iter().collect();
        let mut clone = Self::new(entries.into_iter());
        clone.set_reserved(self.reserved());
        clone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    fn entry(n: u64) -> Entry {
        Entry::new(Micros::new(n), Total::ZERO.plus(n))
    }

    #[test]
    fn an_entry_is_twelve_bytes_and_keeps_both_parts() {
        assert_eq!(size_of::<Entry>(), 12);
        for (time, total) in [(0, 0), (Micros::MAX_MOMENT.get(), TOTAL_MASK), (1, 2)] {
            let entry = Entry::new(Micros::new(time), Total(total));
            assert_eq!((entry.time().get(), entry.total().0), (time, total));
        }
    }

    #[test]
    fn totals_differ_exactly_across_their_overflow() {
        let before = Total(TOTAL_MASK - 1);
        let after = before.plus(2_000_000_000_000);
        assert_eq!(after.since(before), 2_000_000_000_000);
        assert!(after.0 < before.0);
    }

    #[test]
    fn a_ring_is_a_deque_of_bounded_memory() {
        let (mut model, mut next) = (VecDeque::new(), 0);
        let mut random = 1u64;
        let mut ring = Ring::new([].into_iter());
        for _ in 0..200_000 {
            assert!(ring.clone().iter().eq(ring.iter()));
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            match random >> 61 {
                0..=4 => {
                    next += 1;
                    ring.push_back(entry(next));
                    model.push_back(entry(next));
                }
                5 => {
                    let count = (random >> 40) as usize % 12;
                    ring.drop_front(count);
                    model.drain(..count.min(model.len()));
                    ring.shrink();
                }
                6 => {
                    ring.drop_back();
                    model.pop_back();
                    ring.shrink();
                }
                _ => {
                    let bound = next.saturating_sub(random >> 40 & 15);
                    let expected = model.partition_point(|entry| entry.time().get() <= bound);
                    assert_eq!(ring.partition_point(|entry| entry.time().get() <= bound), expected);
                }
            }
            if random >> 48 & 63 == 0 {
                ring.drop_front(usize::MAX);
                model.clear();
                ring.shrink();
            }
            assert!(ring.iter().eq(model.iter().copied()));
            assert_eq!((ring.len(), ring.last()), (model.len(), model.back().copied()));
            let most = FEWEST_SLOTS.max(2 * ring.len());
            assert!(ring.slots.len() <= most, "{} slots for {most}", ring.slots.len());
        }
    }
}
