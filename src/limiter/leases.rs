//! The concurrency limit: leases of units, each under the id of its holder.
//!
//! ```text
//!   units
//!   limit |- - - - - - - - - - - - - - -     A lease acquired or last renewed at t counts while  now < t + ttl.
//!         |      +-----c----+                An acquisition needs  held + c <= limit.
//!         |   +--+-b------+
//!         | +------a--------------+          held: the units of all leases that count now, but not of the one
//!       0 +-+---------------------+--> t     under the same id, which the new one replaces.
//!           t                     t + ttl
//! ```
//!
//! `held + c <= limit` holds at every acquisition, and between acquisitions leases only end: so at no moment are more than
//! `limit` units held (a smaller limit takes nothing from anybody: it drains). A denied request waits until the soonest
//! leases to run out leave at most `limit - c`. The leases are in the order of expiry, with the units of whole
//! subtrees (see `tree`), so that moment is exact and found in O(log n).
//!
//! What has run out stays until the next write, which drops it first. A renewal or a release that finds nothing is no
//! write. Since every effect carries its moment, a primary and its replicas drop the same; and what is stored lists the
//! leases by expiry, then id, so equal states have equal bytes, whatever their histories were.
//!
//! # A clock that stepped back
//!
//! A lease does not count while `now < t - ttl`, either. The order of expiry does not show which ones these are, so they are
//! searched for, in O(n). But the latest `t - ttl` of all leases is kept, so that this is done only if there can be any. A caller
//! cannot bring that about: t was the clock's time, so the clock must have stepped back by more than a ttl. The first write after that
//! drops what it finds, and all is fast again. Until then such a lease begins to count as soon as the clock gets to `t - ttl`: waits allow
//! for it.
//!
//! Cost: O(log n) for a decision, an acquisition, a renewal, a release, and each lease dropped; if more than an eighth have run out since
//! the last write, what is left is built anew, which takes less. Memory: 64 bytes, and 55 to 70 a lease while leases come, at most
//! 88 while they go (ids of more than 16 bytes: see `tree`).

use std::collections::BTreeMap;

use super::decision::Usage;
use super::limits::{LeaseLimits, MAX_UNITS};
use super::packed::{U40, U56};
use super::time::Micros;
pub(super) use super::tree::MAX_ID;
pub(crate) use super::tree::{Id, Lease, Node};
use super::tree::{Share, Slot, Tree};

/// The state of a concurrency limit: who holds what until when, and the limits of the last acquisition.
#[derive(Clone, Debug)]
pub(crate) struct Leases {
    tree: Tree,
    limit: U40,
    ttl: U56,
    /// No lease has a later `at - ttl`.
    latest: U56,
}

const _: () = assert!(size_of::<Leases>() == 64 && align_of::<Leases>() <= 8);

/// If no more leases than this have run out, each is removed by itself.
const FEW: u32 = 16;

impl Leases {
    /// A state without leases: never kept so, but made to be acquired from.
    pub(super) fn new(call: &LeaseLimits) -> Self {
        Self::of(call, Tree::new(), Micros::ZERO)
    }

    fn of(limits: &LeaseLimits, tree: Tree, latest: Micros) -> Self {
        let (limit, ttl) = (U40::new(limits.limit), U56::new(limits.ttl.get()));
        Self { tree, limit, ttl, latest: U56::new(latest.get()) }
    }

    /// A state of leases as [`Self::iter`] lists them; `None` if one is `None` or cannot be, or if there is no such state.
    pub(super) fn restore(
        limits: &LeaseLimits,
        leases: impl IntoIterator<Item = Option<Lease>>,
    ) -> Option<Self> {
        let mut latest = Micros::ZERO;
        let tree = Tree::build(leases.into_iter().map(|lease| {
            let lease = lease.filter(is_valid)?;
            latest = latest.max(start(lease.at, lease.ttl));
            Some(lease)
        }))?;
        (tree.len() > 0).then(|| Self::of(limits, tree, latest))
    }

    /// The limits of the last acquisition.
    pub(super) fn limits(&self) -> LeaseLimits {
        LeaseLimits { limit: self.limit.get(), ttl: Micros::new(self.ttl.get()) }
    }

    /// How many leases there are, those included that have run out since the last write.
    pub(super) fn len(&self) -> usize {
        self.tree.len() as usize
    }

    /// Whether there is none any more: the key goes.
    pub(super) fn is_empty(&self) -> bool {
        self.tree.len() == 0
    }

    /// All leases, those included that have run out since the last write, in the order in which they are stored.
    pub(super) fn iter(&self) -> impl Iterator<Item = Lease> + '_ {
        self.tree.after(Micros::ZERO).map(|slot| self.tree.lease(slot))
    }

    /// The leases that count now, the soonest to run out first. The first n of them take O(n + log leases).
    pub(crate) fn held(&self, now: Micros) -> impl Iterator<Item = Lease> + '_ {
        self.counting(now).map(|slot| self.tree.lease(slot))
    }

    /// How many leases count now.
    pub(crate) fn count(&self, now: Micros) -> usize {
        self.all(now).count as usize
    }

    /// The units that are held now.
    pub(super) fn used(&self, now: Micros) -> u64 {
        self.all(now).units
    }

    /// Whether this id holds a lease now.
    pub(crate) fn holds(&self, id: &Id, now: Micros) -> bool {
        self.find(id, now).is_some()
    }

    /// The moment at which the last lease runs out, if none is renewed.
    pub(super) fn idle_at(&self) -> Micros {
        self.tree.last().map_or(Micros::ZERO, |last| self.tree.expiry(last))
    }

    /// Records a lease, in place of the one that the id holds.
    ///
    /// There is no error path: callers allow no more than [`super::limits::MAX_LEASES`], and one more is not recorded.
    pub(super) fn acquire(&mut self, call: &LeaseLimits, id: &Id, units: u64, now: Micros) {
        self.drop_over(now);
        match self.tree.find(id) {
            Some(slot) => self.tree.change(slot, units, now, call.ttl),
            None => self.tree.insert(&Lease { id: *id, units, at: now, ttl: call.ttl }),
        }
        self.limit = U40::new(call.limit);
        self.ttl = U56::new(call.ttl.get());
        self.note(start(now, call.ttl));
        self.tree.shrink();
    }

    /// Lets the lease of this id last `ttl` from now, if it is held. Otherwise nothing changes.
    pub(super) fn renew(&mut self, id: &Id, ttl: Micros, now: Micros) -> bool {
        let Some(slot) = self.find_and_drop_over(id, now) else {
            return false;
        };
        self.tree.change(slot, self.tree.units(slot), now, ttl);
        self.note(start(now, ttl));
        self.tree.shrink();
        true
    }

    /// Gives the lease of this id back, if it is held. Otherwise nothing changes.
    pub(super) fn release(&mut self, id: &Id, now: Micros) -> bool {
        let Some(slot) = self.find_and_drop_over(id, now) else {
            return false;
        };
        self.tree.remove(slot);
        self.tree.shrink();
        true
    }

    /// The blocks of memory besides this one: the leases, and the ends of long ids, which are empty if there are none.
    pub(super) fn blocks(&self) -> (&[Node], &[u8]) {
        self.tree.blocks()
    }

    /// The same blocks, to move them elsewhere.
    pub(super) fn blocks_mut(&mut self) -> (&mut Box<[Node]>, &mut Box<[u8]>) {
        self.tree.blocks_mut()
    }

    /// The lease that this id holds now, if it does; then what is over is dropped.
    fn find_and_drop_over(&mut self, id: &Id, now: Micros) -> Option<Slot> {
        let slot = self.find(id, now)?;
        // Other leases that go may move it.
        if self.drop_over(now) { self.tree.find(id) } else { Some(slot) }
    }

    /// Drops what has run out, and what lies too far ahead after the clock stepped back; whether there was any.
    fn drop_over(&mut self, now: Micros) -> bool {
        let over = self.tree.until(now).count;
        let many = over > FEW && over > self.tree.len() / 8;
        if many || self.may_be_ahead(now) {
            self.rebuild(now);
            return true;
        }
        for _ in 0..over {
            if let Some(first) = self.tree.first() {
                self.tree.remove(first);
            }
        }
        over > 0
    }

    /// Keeps what counts now alone: O(n log n).
    fn rebuild(&mut self, now: Micros) {
        let mut latest = Micros::ZERO;
        let counting = self.held(now).map(|lease| {
            latest = latest.max(start(lease.at, lease.ttl));
            Some(lease)
        });
        if let Some(tree) = Tree::build(counting) {
            *self = Self::of(&self.limits(), tree, latest);
        }
    }

    /// What must hold at all times.
    #[cfg(test)]
    pub(super) fn check(&self) {
        self.tree.check();
        for lease in self.iter() {
            assert!(is_valid(&lease), "{lease:?}");
            assert!(start(lease.at, lease.ttl).get() <= self.latest.get(), "{lease:?}");
        }
    }

    fn note(&mut self, start: Micros) {
        self.latest = U56::new(self.latest.get().max(start.get()));
    }

    /// Whether a lease can lie so far ahead of now that it does not count.
    fn may_be_ahead(&self, now: Micros) -> bool {
        self.latest.get() > now.get()
    }

    fn is_ahead(&self, slot: Slot, now: Micros) -> bool {
        let ttl = self.tree.ttl(slot);
        self.may_be_ahead(now) && start(self.tree.expiry(slot).since(ttl), ttl) > now
    }

    fn counting(&self, now: Micros) -> impl Iterator<Item = Slot> + '_ {
        self.tree.after(now).filter(move |&slot| !self.is_ahead(slot, now))
    }

    /// The lease of this id, if it counts now.
    fn find(&self, id: &Id, now: Micros) -> Option<Slot> {
        self.find_to_come(id, now).filter(|&slot| !self.is_ahead(slot, now))
    }

    /// The same, or if it is ahead of now.
    fn find_to_come(&self, id: &Id, now: Micros) -> Option<Slot> {
        self.tree.find(id).filter(|&slot| self.tree.expiry(slot) > now)
    }

    fn units(&self, slot: Option<Slot>) -> u64 {
        slot.map_or(0, |slot| self.tree.units(slot))
    }

    /// Until at most `units` are held, those of one lease left out.
    fn until_at_most(&self, units: u64, without: Option<Slot>, now: Micros) -> Micros {
        if self.may_be_ahead(now) {
            return self.search_until_at_most(units, without, now);
        }
        let over = self.tree.until(now).units;
        let own = self.units(without);
        let held = self.tree.all().units.saturating_sub(over).saturating_sub(own);
        let excess = held.saturating_sub(units);
        if excess == 0 {
            return Micros::ZERO;
        }
        let reach = over.saturating_add(excess);
        let last = self.tree.reaching(reach).filter(|&last| {
            // The lease left out is not among those that have run out by then.
            without.is_none_or(|without| self.tree.is_before(last, without))
        });
        let last = last.or_else(|| self.tree.reaching(reach.saturating_add(own)));
        last.map_or(Micros::ZERO, |last| self.tree.expiry(last).since(now))
    }

    /// The same if leases lie ahead of now, which do not count yet but may before others have run out.
    fn search_until_at_most(&self, units: u64, without: Option<Slot>, now: Micros) -> Micros {
        let mut changes: BTreeMap<Micros, (u64, u64)> = BTreeMap::from([(now, (0, 0))]);
        for slot in self.tree.after(now).filter(|&slot| Some(slot) != without) {
            let Lease { units, at, ttl, .. } = self.tree.lease(slot);
            let begins = changes.entry(start(at, ttl).max(now)).or_default();
            begins.0 = begins.0.saturating_add(units);
            let ends = changes.entry(at.after(ttl)).or_default();
            ends.1 = ends.1.saturating_add(units);
        }
        let mut held = 0_u64;
        let mut held_at = changes.into_iter().map(|(moment, (begun, ended))| {
            held = held.saturating_add(begun).saturating_sub(ended);
            (moment, held)
        });
        let first = held_at.find(|&(_, held)| held <= units);
        first.map_or(Micros::ZERO, |(moment, _)| moment.since(now))
    }

    fn all(&self, now: Micros) -> Share {
        if self.may_be_ahead(now) {
            let alone = |slot| Share { count: 1, units: self.tree.units(slot) };
            return self.counting(now).map(alone).fold(Share::default(), Share::plus);
        }
        self.tree.all().minus(self.tree.until(now))
    }
}

impl PartialEq for Leases {
    fn eq(&self, other: &Self) -> bool {
        self.limits() == other.limits() && self.iter().eq(other.iter())
    }
}

impl Eq for Leases {}

/// The moment before which a lease of `at` does not count, if the clock has stepped back.
const fn start(at: Micros, ttl: Micros) -> Micros {
    at.since(ttl)
}

fn is_valid(lease: &Lease) -> bool {
    (1..=MAX_UNITS).contains(&lease.units)
        && (Micros::MILLISECOND..=Micros::MAX_DURATION).contains(&lease.ttl)
        && lease.at <= Micros::MAX_MOMENT
}

/// What counts now of a concurrency limit, for one call.
pub(super) struct Held<'a> {
    leases: Option<&'a Leases>,
    call: LeaseLimits,
    id: Option<Id>,
    /// The lease of the id, if it counts now or may later.
    own: Option<Slot>,
    now: Micros,
}

impl<'a> Held<'a> {
    /// What counts of leases, or of none: for an id that acquires, without the lease that it holds.
    pub(super) fn of(
        leases: Option<&'a Leases>,
        call: &LeaseLimits,
        holder: Option<&[u8]>,
        now: Micros,
    ) -> Self {
        let id = holder.and_then(Id::new);
        let own = leases.zip(id).and_then(|(leases, id)| leases.find_to_come(&id, now));
        Self { leases, call: *call, id, own, now }
    }

    /// The lease that the id holds now.
    fn held_own(&self, leases: &Leases) -> Option<Slot> {
        self.own.filter(|&own| !leases.is_ahead(own, self.now))
    }
}

impl Usage for Held<'_> {
    fn limit(&self) -> u64 {
        self.call.limit
    }

    fn used(&self) -> u64 {
        self.leases.map_or(0, |leases| {
            leases.used(self.now).saturating_sub(leases.units(self.held_own(leases)))
        })
    }

    fn until_at_most(&self, units: u64) -> Micros {
        self.leases.map_or(Micros::ZERO, |leases| leases.until_at_most(units, self.own, self.now))
    }

    /// With the id's own lease: a denial leaves it.
    fn until_idle(&self) -> Micros {
        self.leases.map_or(Micros::ZERO, |leases| {
            if leases.may_be_ahead(self.now) {
                return leases.search_until_at_most(0, None, self.now);
            }
            leases.idle_at().since(self.now)
        })
    }

    fn until_idle_with(&self, _units: u64) -> Micros {
        let others = self.leases.map_or(Micros::ZERO, |leases| {
            let last = if leases.may_be_ahead(self.now) {
                // What is ahead goes with the grant.
                leases.counting(self.now).filter(|&slot| Some(slot) != self.own).last()
            } else {
                let last = leases.tree.last();
                if last == self.own {
                    return self.until_at_most(0);
                }
                last
            };
            last.map_or(Micros::ZERO, |last| leases.tree.expiry(last).since(self.now))
        });
        others.max(self.call.ttl)
    }

    fn must_grow(&self) -> bool {
        let Some(leases) = self.leases else { return true };
        let capacity = leases.tree.capacity();
        let is_full = || {
            // What is over makes way first.
            leases.len() >= capacity
                && leases.count(self.now) >= capacity
                && self.held_own(leases).is_none()
        };
        self.id.is_some_and(|id| !leases.tree.is_wide_enough(&id)) || is_full()
    }

    fn leases_with_one_more(&self) -> usize {
        match self.leases {
            Some(leases) if self.held_own(leases).is_some() => 0,
            Some(leases) => leases.count(self.now).saturating_add(1),
            None => 1,
        }
    }

    fn entries(&self) -> Option<usize> {
        Some(self.leases.map_or(0, |leases| leases.count(self.now)))
    }
}
