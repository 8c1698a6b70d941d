//! Whose requests are denied most often lately: a Space-Saving sketch.
//!
//! After A. Metwally, D. Agrawal, A. El Abbadi, "Efficient computation of frequent and top-k elements in data
//! streams", 2005. There are k slots. A key that has one is counted in it; one that has none takes the slot with the
//! least count, and goes on from that count:
//!
//! ```text
//! groups    1 <-> 2 <-> 7 <-> 9           counts, ascending: the first is the least
//!           |     |     |     |
//! slots     a     b c   d     e f g       rings; a slot's own count is at least its group's
//! ```
//!
//! A hit only adds to the count of its slot. Slots are moved up, into the group of their count, when they are the first of the
//! least group and a slot is to be taken over: so each move has been paid for by hits, and the first slot that has nothing
//! to move for has the least count of all. A table of chains leads from (database, name) to its slot.
//!
//! Every minute all counts are halved and rounded down, and slots of count 0 are free again. Let f be the hits of a key, halved
//! and rounded in the same way; f* and N* the hits of the key and of all keys, halved without rounding. Then
//!
//! ```text
//! f <= count <= f* + N*/k       a key with a slot: never too low, too high by at most a k-th of all
//! f <= N*/k                     a key without one: whoever has more is there
//! ```
//!
//! Why: a slot that is taken over had the least count m, and k * m <= sum of counts <= N*, since a hit adds 1 to both, and
//! halving takes at least as much from the sum. A key without a slot has f <= m: it never had one, or its slot was the least
//! once, and m falls only by halving, as f does. A slot that is free because a database was flushed must not forget m: it is
//! kept in `base`, and who takes the slot goes on from there.
//!
//! Cost: O(1) for a hit of a key with a slot, O(1) amortised for any other; O(k log k) once a minute that has hits, and O(k) for
//! what happens to a database. A slot takes 84 bytes and a name of at most 256, and the table 8 to 16 bytes a slot. All
//! but the names is allocated at the beginning.

use super::time::Micros;

/// Names above this many bytes are not counted, so that the memory is bounded.
pub(crate) const MAX_NAME: usize = 256;

/// How often counts are halved.
const HALVING: Micros = Micros::new(60 * Micros::SECOND.get());

/// No slot, or no group.
const NONE: u32 = u32::MAX;

/// A key that is denied often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row<'s> {
    pub(crate) db: u32,
    pub(crate) name: &'s [u8],
    pub(crate) denials: u64,
}

/// The sketch: counts of the keys that are hit most often.
pub(crate) struct Sketch {
    secret: Secret,
    /// When counts were last halved, or should have been.
    halved_at: Micros,
    /// What the count of a key without a slot may have been.
    base: u64,
    slots: Box<[Slot]>,
    /// The first free slot; the others follow by `chained`.
    free_slot: u32,
    /// One for each slot, since every group has slots.
    groups: Box<[Group]>,
    /// The group with the least count.
    least: u32,
    /// The first free group; the others follow by `next`.
    free_group: u32,
    /// The first slot of each chain of those whose hashes end in the same bits. A power of two.
    chains: Box<[u32]>,
    /// Slots by count, while counts are halved.
    order: Vec<u32>,
}

struct Slot {
    count: u64,
    hash: u32,
    db: u32,
    name: Vec<u8>,
    /// The next slot in its chain.
    chained: u32,
    /// `NONE` if the slot is free.
    group: u32,
    /// The ring of its group.
    before: u32,
    after: u32,
}

struct Group {
    /// No slot of the group has a lower one.
    count: u64,
    /// The slot that has been in the group for longest.
    first: u32,
    before: u32,
    next: u32,
}

impl Sketch {
    /// A sketch of so many slots. The random numbers decide which keys share a chain: nobody outside should know them.
    pub(crate) fn new(slots: u32, random: impl FnMut(u64) -> u64) -> Self {
        let free = |position: u32| Slot {
            count: 0,
            hash: 0,
            db: 0,
            name: Vec::new(),
            chained: position.saturating_add(1), // behind the last there is none
            group: NONE,
            before: NONE,
            after: NONE,
        };
        let length = slots as usize;
        let chains = length.saturating_mul(2).next_power_of_two();
        let group = |_| Group { count: 0, first: NONE, before: NONE, next: NONE };
        let mut sketch = Self {
            secret: Secret::new(random),
            halved_at: Micros::ZERO,
            base: 0,
            slots: (0..slots).map(free).collect(),
            free_slot: 0,
            groups: (0..slots).map(group).collect(),
            least: NONE,
            free_group: NONE,
            chains: vec![NONE; chains].into(),
            order: Vec::with_capacity(length),
        };
        sketch.free_all_groups();
        sketch
    }

    /// How many slots there are.
    pub(crate) fn slots(&self) -> u32 {
        self.positions().end
    }

    /// Counts a hit of a key.
    #[inline(always)]
    pub(crate) fn count(&mut self, db: u32, name: &[u8], now: Micros) {
        if name.len() > MAX_NAME {
            return;
        }
        // After a step back the difference wraps around, and is large, too.
        if now.get().wrapping_sub(self.halved_at.get()) >= HALVING.get() {
            self.advance(now);
        }
        let hash = self.secret.hash(db, name);
        match self.find(hash, db, name) {
            Some(slot) => slot.count = slot.count.wrapping_add(1), // from 0, it takes centuries to overflow
            None => _ = self.admit(hash, db, name),
        }
    }

    /// The keys with the greatest counts as they are now, the greatest first; equal ones by database, then by name.
    pub(crate) fn top(&self, count: usize, now: Micros) -> Vec<Row<'_>> {
        let halvings = self.halvings(now);
        let mut rows: Vec<_> = self
            .slots
            .iter()
            .filter(|slot| slot.group != NONE)
            .map(|slot| Row {
                db: slot.db,
                name: &slot.name,
                denials: halved(slot.count, halvings),
            })
            .filter(|row| row.denials > 0)
            .collect();
        rows.sort_unstable_by(|one, other| {
            let greatest = other.denials.cmp(&one.denials);
            greatest.then_with(|| (one.db, one.name).cmp(&(other.db, other.name)))
        });
        rows.truncate(count);
        rows
    }

    /// Forgets the keys of a database.
    pub(crate) fn forget(&mut self, db: u32) {
        for at in self.positions() {
            if self.slot(at).is_some_and(|slot| slot.group != NONE && slot.db == db) {
                self.leave_group(at);
                self.release(at);
            }
        }
    }

    /// Swaps the numbers of two databases.
    pub(crate) fn swap(&mut self, one: u32, other: u32) {
        for at in self.positions() {
            let Some(slot) = self.slot(at).filter(|slot| slot.group != NONE) else {
                continue;
            };
            let db = match slot.db {
                db if db == one => other,
                db if db == other => one,
                _ => continue,
            };
            let hash = self.secret.hash(db, &slot.name);
            self.unchain(at);
            if let Some(slot) = self.slot_mut(at) {
                (slot.db, slot.hash) = (db, hash);
            }
            self.chain(at, hash);
        }
    }

    /// How often counts should have been halved since they were.
    fn halvings(&self, now: Micros) -> u64 {
        now.since(self.halved_at).get().checked_div(HALVING.get()).unwrap_or_default()
    }

    /// Halves all counts as often as minutes have passed. After a clock that stepped back they pass anew.
    #[cold]
    fn advance(&mut self, now: Micros) {
        if now < self.halved_at {
            self.halved_at = now;
            return;
        }
        let halvings = self.halvings(now);
        self.halve(halvings);
        let passed = halvings.saturating_mul(HALVING.get());
        self.halved_at = Micros::new(self.halved_at.get().saturating_add(passed));
    }

    fn halve(&mut self, halvings: u64) {
        self.base = halved(self.base, halvings);
        let mut order = std::mem::take(&mut self.order);
        for at in self.positions() {
            let Some(slot) = self.slot_mut(at).filter(|slot| slot.group != NONE) else {
                continue;
            };
            slot.count = halved(slot.count, halvings);
            if slot.count == 0 {
                slot.group = NONE;
                self.release(at);
            } else {
                order.push(at);
            }
        }
        let count = |slots: &[Slot], at: u32| slots.get(at as usize).map_or(0, |slot| slot.count);
        order.sort_unstable_by_key(|&at| count(&self.slots, at));
        self.free_all_groups();
        let mut last = NONE;
        for at in order.drain(..) {
            last = self.group_above(last, count(&self.slots, at)).unwrap_or(last);
            self.enter_group(at, last);
        }
        self.order = order;
    }

    fn free_all_groups(&mut self) {
        (self.least, self.free_group) = (NONE, 0);
        for (next, group) in (1..).zip(&mut self.groups) {
            group.next = next; // behind the last there is none
        }
    }

    /// The slot of a key.
    #[inline]
    fn find(&mut self, hash: u32, db: u32, name: &[u8]) -> Option<&mut Slot> {
        let mut at = *self.chains.get(self.chain_of(hash))?;
        loop {
            let slot = self.slot(at)?;
            if slot.hash == hash && slot.db == db && are_equal(&slot.name, name) {
                return self.slot_mut(at);
            }
            at = slot.chained;
        }
    }

    /// Counts the hit of a key without a slot: it is given a free one, or the one with the least count. Its count begins at the most
    /// that the key may have had before.
    #[inline(never)]
    fn admit(&mut self, hash: u32, db: u32, name: &[u8]) -> Option<()> {
        let at = if self.slot(self.free_slot).is_some() {
            let at = self.free_slot;
            self.free_slot = self.slot(at)?.chained;
            at
        } else {
            let at = self.least_slot()?;
            self.base = self.slot(at)?.count;
            self.unchain(at);
            self.leave_group(at);
            at
        };
        let count = self.base.saturating_add(1);
        let slot = self.slot_mut(at)?;
        (slot.count, slot.hash, slot.db) = (count, hash, db);
        slot.name.clear();
        slot.name.reserve_exact(name.len()); // keeps what it has, if that is enough
        slot.name.extend_from_slice(name);
        self.chain(at, hash);
        let group = self.group_above(NONE, count)?;
        self.enter_group(at, group)
    }

    /// The slot with the least count, when none is free.
    fn least_slot(&mut self) -> Option<u32> {
        loop {
            let group = self.group(self.least)?;
            let (at, count) = (group.first, group.count);
            let own = self.slot(at)?.count;
            if own == count {
                return Some(at);
            }
            // Another group is needed at most while this one stays, too.
            let from = self.least;
            self.leave_group(at);
            let from = if self.least == from { from } else { NONE };
            let to = self.group_above(from, own)?;
            self.enter_group(at, to);
        }
    }

    /// The group of a count, which is in the list behind `before`, or at its beginning, or is made there.
    fn group_above(&mut self, mut before: u32, count: u64) -> Option<u32> {
        if self.group(before).is_some_and(|group| group.count == count) {
            return Some(before);
        }
        let mut next = self.group(before).map_or(self.least, |before| before.next);
        while let Some(group) = self.group(next).filter(|group| group.count <= count) {
            if group.count == count {
                return Some(next);
            }
            (before, next) = (next, group.next);
        }
        let at = self.free_group;
        self.free_group = self.group(at)?.next;
        *self.group_mut(at)? = Group { count, first: NONE, before, next };
        match self.group_mut(before) {
            Some(before) => before.next = at,
            None => self.least = at,
        }
        if let Some(next) = self.group_mut(next) {
            next.before = at;
        }
        Some(at)
    }

    /// Makes a slot free that is in no group any more.
    fn release(&mut self, at: u32) {
        self.unchain(at);
        let free = self.free_slot;
        if let Some(slot) = self.slot_mut(at) {
            slot.chained = free;
            self.free_slot = at;
        }
    }

    /// Takes a slot out of its group, and the group away if it has no other.
    fn leave_group(&mut self, at: u32) -> Option<()> {
        let slot = self.slot_mut(at)?;
        let (group, before, after) = (slot.group, slot.before, slot.after);
        slot.group = NONE;
        if after == at {
            return self.remove_group(group);
        }
        self.slot_mut(before)?.after = after;
        self.slot_mut(after)?.before = before;
        let group = self.group_mut(group)?;
        if group.first == at {
            group.first = after;
        }
        Some(())
    }

    /// Makes a slot the last one of a group.
    fn enter_group(&mut self, at: u32, group: u32) -> Option<()> {
        let first = self.group(group)?.first;
        let (before, after) = if first == NONE {
            self.group_mut(group)?.first = at;
            (at, at)
        } else {
            let last = std::mem::replace(&mut self.slot_mut(first)?.before, at);
            self.slot_mut(last)?.after = at;
            (last, first)
        };
        let slot = self.slot_mut(at)?;
        (slot.group, slot.before, slot.after) = (group, before, after);
        Some(())
    }

    fn remove_group(&mut self, at: u32) -> Option<()> {
        let free = self.free_group;
        let group = self.group_mut(at)?;
        let (before, next) = (group.before, group.next);
        (group.first, group.next) = (NONE, free);
        self.free_group = at;
        match self.group_mut(before) {
            Some(before) => before.next = next,
            None => self.least = next,
        }
        if let Some(next) = self.group_mut(next) {
            next.before = before;
        }
        Some(())
    }

    fn chain_of(&self, hash: u32) -> usize {
        hash as usize & self.chains.len().wrapping_sub(1)
    }

    fn chain(&mut self, at: u32, hash: u32) -> Option<()> {
        let chain = self.chain_of(hash);
        let next = std::mem::replace(self.chains.get_mut(chain)?, at);
        self.slot_mut(at)?.chained = next;
        Some(())
    }

    fn unchain(&mut self, at: u32) -> Option<()> {
        let slot = self.slot(at)?;
        let (chain, next) = (self.chain_of(slot.hash), slot.chained);
        let first = self.chains.get_mut(chain)?;
        if *first == at {
            *first = next;
            return Some(());
        }
        let mut before = *first;
        while self.slot(before)?.chained != at {
            before = self.slot(before)?.chained;
        }
        self.slot_mut(before)?.chained = next;
        Some(())
    }

    fn positions(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.slots.len()).unwrap_or_default()
    }

    fn slot(&self, at: u32) -> Option<&Slot> {
        self.slots.get(at as usize)
    }

    fn slot_mut(&mut self, at: u32) -> Option<&mut Slot> {
        self.slots.get_mut(at as usize)
    }

    fn group(&self, at: u32) -> Option<&Group> {
        self.groups.get(at as usize)
    }

    fn group_mut(&mut self, at: u32) -> Option<&mut Group> {
        self.groups.get_mut(at as usize)
    }
}

/// Rounded down each time, which is the same as rounded down once.
fn halved(count: u64, times: u64) -> u64 {
    u32::try_from(times).ok().and_then(|times| count.checked_shr(times)).unwrap_or(0)
}

/// Whether names are equal. They are mostly short, and a call of the system's `memcmp` takes longer then.
#[inline(always)]
fn are_equal(one: &[u8], other: &[u8]) -> bool {
    let ((pairs, rest), (other_pairs, other_rest)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    one.len() == other.len()
        && pairs.iter().zip(other_pairs).all(|(one, other)| one == other)
        && (rest.is_empty() || rest == other_rest)
}

/// A hash that nobody can aim at: a random number for each word of 32 bits, the words in pairs,
///
/// ```text
/// hash = (r + (r1 + db) * (r2 + length) + (r3 + word1) * (r4 + word2) + ... mod 2^64) / 2^32
/// ```
///
/// Two different keys then have equal hashes with a probability of 2^-32, and any bits of them are equal as often as those of
/// random numbers, whatever the keys are (D. Lemire, O. Kaser, "Strongly universal string hashing is fast", 2014,
/// "Multilinear-HM"). A name of 16 bytes takes 40 instructions; with std's SipHash it takes 230. The last pair is filled up:
/// with the bytes before it, or with zeros if the whole name is shorter.
struct Secret {
    start: u64,
    db_and_length: [u64; 2],
    last: [u64; 2],
    pairs: [[u64; 2]; MAX_NAME / 8],
}

impl Secret {
    fn new(mut random: impl FnMut(u64) -> u64) -> Self {
        let mut numbers = (0..).map(&mut random);
        let mut next = || numbers.next().unwrap_or_default();
        let mut pair = || [next(), next()];
        Self {
            db_and_length: pair(),
            last: pair(),
            pairs: std::array::from_fn(|_| pair()),
            start: next(),
        }
    }

    /// The hash of a name of at most [`MAX_NAME`] bytes.
    #[inline(always)]
    fn hash(&self, db: u32, name: &[u8]) -> u32 {
        let (pairs, rest) = name.as_chunks();
        let mut sum = self.start;
        let mut add = |low: u64, high: u64, [first, second]: &[u64; 2]| {
            sum = sum.wrapping_add(first.wrapping_add(low).wrapping_mul(second.wrapping_add(high)));
        };
        let halves = |bytes: [u8; 8]| {
            let pair = u64::from_le_bytes(bytes);
            (pair & u64::from(u32::MAX), pair >> 32)
        };
        add(db.into(), name.len() as u64, &self.db_and_length);
        for (&pair, randoms) in pairs.iter().zip(&self.pairs) {
            let (low, high) = halves(pair);
            add(low, high, randoms);
        }
        if !rest.is_empty() {
            let (low, high) = halves(name.last_chunk().copied().unwrap_or_else(|| padded(rest)));
            add(low, high, &self.last);
        }
        u32::try_from(sum >> 32).unwrap_or_default()
    }
}

#[inline(never)]
fn padded(bytes: &[u8]) -> [u8; 8] {
    let mut bytes = bytes.iter().copied();
    std::array::from_fn(|_| bytes.next().unwrap_or(0))
}
