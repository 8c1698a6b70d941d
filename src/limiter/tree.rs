//! Leases in two orders at once: by id and by expiry, as two balanced trees in the same nodes.
//!
//! ```text
//!   nodes   | 0 | 1 | 2 | ... | len - 1 | free |      55 bytes each; no hole: the last node fills one
//!             |
//!             +-- 16: head of the id   1: its length   7: expiry   7: ttl
//!             +-- by id       8: left, right, count           20 bits each
//!             +-- by expiry   8: left, right, count   8: sum  expiry, then id: no two are equal
//!
//!   tails   | 0 | 1 | 2 | ...                         what ids have beyond 16 bytes; none if all are short
//! ```
//!
//! A head is the first 16 bytes of an id with the others laid over them (XOR). So one comparison nearly always tells two ids
//! apart, even if they all begin with the same words; with the tail, it still has the bytes themselves.
//!
//! `count` and `sum` are those of a node's whole subtree: its leases, and their units. (A lease's own units are its sum less
//! the two below it, so they are not kept.) So the units that run out until a moment, and the moment at which that many
//! have run out, are each found on one way down the tree.
//!
//! Both trees are weight-balanced. With weight = count + 1, no side of a node weighs more than three times the other;
//! after one node more or less, one rotation or a double one restores that at each node on the way (Hirai and Yamamoto,
//! "Balancing weight-balanced trees", 2011, prove it for the parameters 3 and 2, which are these). So a tree of 10^6 leases is at
//! most 46 nodes deep, whatever its ids and moments are. Nobody can choose ids that make it slow, as one can for
//! a hash table whose seed is known, and equal histories make equal trees on every server.
//!
//! Cost: O(log n) for all but building from a list, O(n log n), and taking larger or smaller blocks, O(n) once in O(n)
//! changes. Memory: a block has as many nodes as fit one of the allocator's size classes, which are four to a doubling.
//! That is 55 to 70 bytes a lease while leases come, and at most 88 while they go. Ids longer than 16 bytes take as much
//! more, for every lease of the key, as the longest needs, in steps of four bytes: 20 for a UUID as text.

use std::cmp::Ordering;
use std::fmt;

use super::limits::MAX_LEASES;
use super::packed::U56;
use super::time::Micros;

/// The longest id, in bytes.
pub(super) const MAX_ID: usize = 64;
/// The bytes of an id that are kept in its node.
const HEAD: usize = 16;
/// Tails are multiples of this, so that ids that grow byte by byte do not need a new block each time.
const TAIL_STEP: usize = 4;
/// Slots that are kept in any case: one holder that comes and goes does not move a block each time.
const SPARE: usize = 2;

/// Who holds a lease: 1 to 64 bytes of any kind.
///
/// Bytes beyond the length are 0, so that the order of the fields is the order of the ids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    bytes: [u8; MAX_ID],
    len: u8,
}

impl Id {
    /// Whether these bytes may be an id.
    pub(crate) fn is_valid(id: &[u8]) -> bool {
        (1..=MAX_ID).contains(&id.len())
    }

    /// The id of these bytes; `None` if they are none or too many.
    pub(crate) fn new(id: &[u8]) -> Option<Self> {
        if !Self::is_valid(id) {
            return None;
        }
        let mut bytes = [0; MAX_ID];
        bytes.get_mut(..id.len())?.copy_from_slice(id);
        Some(Self { bytes, len: u8::try_from(id.len()).ok()? })
    }

    /// The bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The first bytes, and the others laid over them: ids differ here, be it that they begin or that they end alike.
    fn head(&self) -> u128 {
        let (parts, _) = self.bytes.as_chunks();
        parts.iter().fold(0, |head, part| head ^ u128::from_be_bytes(*part))
    }

    fn tail(&self) -> &[u8] {
        self.as_bytes().get(HEAD..).unwrap_or_default()
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// One lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Who holds it.
    pub(crate) id: Id,
    /// The units that it holds.
    pub(crate) units: u64,
    /// When it was acquired or last renewed.
    pub(crate) at: Micros,
    /// How long it lasts from then on.
    pub(crate) ttl: Micros,
}

impl Lease {
    /// When it runs out.
    pub(crate) const fn expiry(&self) -> Micros {
        self.at.after(self.ttl)
    }
}

/// The number of a node.
pub(super) type Slot = u32;

const SLOT_BITS: u32 = 20;
/// The number of no node.
const NONE: Slot = (1 << SLOT_BITS) - 1;
const _: () = assert!(MAX_LEASES < NONE as usize);

/// Some leases: how many, and the units that they hold together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) count: u32,
    pub(super) units: u64,
}

impl Share {
    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            units: self.units.saturating_add(other.units),
        }
    }

    pub(super) const fn minus(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_sub(other.count),
            units: self.units.saturating_sub(other.units),
        }
    }
}

/// A side of a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// Three numbers of 20 bits: the nodes below a node, left and right, and the count of its subtree.
#[derive(Clone, Copy, Debug)]
struct Links([u8; 8]);

impl Links {
    /// Of a node that has none below it.
    const LEAF: Self = Self::new(NONE, NONE, 1);
    const COUNT_SHIFT: u32 = 2 * SLOT_BITS;
    const ONE: u64 = 1 << Self::COUNT_SHIFT;

    const fn new(left: Slot, right: Slot, count: u32) -> Self {
        let (right, count) = ((right as u64) << SLOT_BITS, (count as u64) << Self::COUNT_SHIFT);
        Self::of(left as u64 | right | count)
    }

    const fn of(bits: u64) -> Self {
        Self(bits.to_le_bytes())
    }

    const fn bits(self) -> u64 {
        u64::from_le_bytes(self.0)
    }

    const fn shift(side: Side) -> u32 {
        match side {
            Side::Left => 0,
            Side::Right => SLOT_BITS,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the bits above are masked away")]
    const fn below(self, side: Side) -> Slot {
        (self.bits() >> Self::shift(side)) as u32 & NONE
    }

    const fn with_below(self, side: Side, slot: Slot) -> Self {
        let shift = Self::shift(side);
        Self::of(self.bits() & !((NONE as u64) << shift) | (slot as u64) << shift)
    }

    const fn count(self) -> u32 {
        (self.bits() >> Self::COUNT_SHIFT) as u32
    }

    const fn with_count(self, count: u32) -> Self {
        Self::of(self.bits() & (Self::ONE - 1) | (count as u64) << Self::COUNT_SHIFT)
    }

    const fn one_more(self) -> Self {
        Self::of(self.bits().wrapping_add(Self::ONE))
    }

    const fn one_less(self) -> Self {
        Self::of(self.bits().wrapping_sub(Self::ONE))
    }
}

/// A lease, and its place in both trees.
///
/// All fields are arrays of bytes, since an alignment of 8 would take nine bytes more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    head: [u8; HEAD],
    by_id: Links,
    by_expiry: Links,
    /// The units of the subtree by expiry.
    sum: [u8; 8],
    /// Below the length of the id, which is the highest byte.
    expiry: [u8; 8],
    ttl: U56,
}

const _: () = assert!(size_of::<Node>() == 55 && align_of::<Node>() == 1);

impl Node {
    const EXPIRY_BITS: u32 = 56;

    /// A lease in no tree.
    fn new(id: &Id, units: u64, at: Micros, ttl: Micros) -> Self {
        let expiry = at.after(ttl).get().min((1 << Self::EXPIRY_BITS) - 1);
        Self {
            head: id.head().to_le_bytes(),
            by_id: Links::LEAF,
            by_expiry: Links::LEAF,
            sum: units.to_le_bytes(),
            expiry: (expiry | u64::from(id.len) << Self::EXPIRY_BITS).to_le_bytes(),
            ttl: U56::new(ttl.get()),
        }
    }

    /// What is in a free slot.
    fn free() -> Self {
        let nobody = Id { bytes: [0; MAX_ID], len: 0 };
        Self::new(&nobody, 0, Micros::ZERO, Micros::ZERO)
    }

    const fn head(&self) -> u128 {
        u128::from_le_bytes(self.head)
    }

    const fn id_len(&self) -> u8 {
        let [.., len] = self.expiry;
        len
    }

    const fn expiry(&self) -> u64 {
        u64::from_le_bytes(self.expiry) & ((1 << Self::EXPIRY_BITS) - 1)
    }
}

/// One of the two orders.
trait Order {
    type Key: Copy + Ord;

    /// Which of the two roots is its own.
    const ROOT: Side;

    fn key(node: &Node) -> Self::Key;
    /// The order of two nodes with equal keys.
    fn compare_equal(tree: &Tree, one: Slot, other: Slot) -> Ordering;
    fn links(node: &Node) -> Links;
    fn set_links(node: &mut Node, links: Links);

    /// The units of the subtree.
    fn sum(_node: &Node) -> u64 {
        0
    }

    fn set_sum(_node: &mut Node, _units: u64) {}
}

struct ById;

impl Order for ById {
    type Key = u128;

    const ROOT: Side = Side::Left;

    fn key(node: &Node) -> u128 {
        node.head()
    }

    fn compare_equal(tree: &Tree, one: Slot, other: Slot) -> Ordering {
        tree.compare_keys(one, other)
    }

    fn links(node: &Node) -> Links {
        node.by_id
    }

    fn set_links(node: &mut Node, links: Links) {
        node.by_id = links;
    }
}

struct ByExpiry;

impl Order for ByExpiry {
    type Key = u64;

    const ROOT: Side = Side::Right;

    fn key(node: &Node) -> u64 {
        node.expiry()
    }

    fn compare_equal(tree: &Tree, one: Slot, other: Slot) -> Ordering {
        tree.compare_ids(one, other)
    }

    fn links(node: &Node) -> Links {
        node.by_expiry
    }

    fn set_links(node: &mut Node, links: Links) {
        node.by_expiry = links;
    }

    fn sum(node: &Node) -> u64 {
        u64::from_le_bytes(node.sum)
    }

    fn set_sum(node: &mut Node, units: u64) {
        node.sum = units.to_le_bytes();
    }
}

/// The way down a tree to where a node comes or goes.
struct Path {
    slots: [Slot; Self::DEEPEST],
    len: usize,
    /// The count of the lowest node on the way.
    count: u32,
    /// A bit for each node that is out of balance now, and one below them.
    uneven: u64,
}

impl Path {
    /// log((10^6 + 1) / 2) / log(4/3) + 1, rounded up.
    const DEEPEST: usize = 47;

    const fn new() -> Self {
        Self { slots: [NONE; Self::DEEPEST], len: 0, count: 0, uneven: 0 }
    }

    /// Goes down to a node that has this count now.
    fn enter(&mut self, slot: Slot, count: u32) {
        self.weigh(count);
        self.count = count;
        if let Some(place) = self.slots.get_mut(self.len) {
            *place = slot;
            self.len = self.len.saturating_add(1);
        }
    }

    /// Takes note of the count that is now below the lowest node.
    fn weigh(&mut self, below: u32) {
        let other = self.count.wrapping_sub(below);
        let below = below.wrapping_add(1);
        let is_uneven = below.max(other) > below.min(other).wrapping_mul(3);
        self.uneven |= u64::from(is_uneven) << (self.len & 63);
    }

    fn last(&self) -> Option<Slot> {
        self.slots.get(self.len.checked_sub(1)?).copied()
    }

    /// The nodes that are out of balance, the lowest first, each with the one above it.
    fn next_uneven(&mut self) -> Option<(Slot, Option<Slot>)> {
        let bit = self.uneven.checked_ilog2().filter(|&bit| bit > 0)?;
        self.uneven &= !(1 << (bit & 63));
        let index = (bit as usize).saturating_sub(1);
        let above = index.checked_sub(1).and_then(|above| self.slots.get(above));
        Some((*self.slots.get(index)?, above.copied()))
    }
}

/// Leases in two orders.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: Box<[Node]>,
    /// As many rows as there are nodes; none where all ids are short.
    tails: Box<[u8]>,
    /// The root by id, the root by expiry, and how many nodes there are.
    roots: Links,
}

impl Tree {
    /// No leases.
    pub(super) fn new() -> Self {
        Self { nodes: Box::default(), tails: Box::default(), roots: Links::new(NONE, NONE, 0) }
    }

    /// A tree of leases in the order of expiry; `None` if one is `None`, if they are not in order, more than there may
    /// be, or if two have one id.
    pub(super) fn build(leases: impl IntoIterator<Item = Option<Lease>>) -> Option<Self> {
        let mut tree = Self::new();
        for lease in leases {
            let last = tree.len().checked_sub(1);
            let new = tree.append(&lease?)?;
            if last.is_some_and(|last| !tree.is_before(last, new)) {
                return None;
            }
        }
        let mut order: Vec<Slot> = (0..tree.len()).collect();
        let by_expiry = tree.plant::<ByExpiry>(&order);
        tree.hang::<ByExpiry>(None, Side::Left, by_expiry);
        order.sort_unstable_by(|&one, &other| tree.compare_keys(one, other));
        let differ = |one: &Slot, other: &Slot| tree.compare_keys(*one, *other) == Ordering::Less;
        if !order.is_sorted_by(differ) {
            return None;
        }
        let by_id = tree.plant::<ById>(&order);
        tree.hang::<ById>(None, Side::Left, by_id);
        Some(tree)
    }

    pub(super) const fn len(&self) -> u32 {
        self.roots.count()
    }

    /// The leases that there are slots for.
    pub(super) const fn capacity(&self) -> usize {
        self.nodes.len()
    }

    /// Whether the slots are wide enough for an id.
    pub(super) fn is_wide_enough(&self, id: &Id) -> bool {
        id.tail().len() <= self.tail_width()
    }

    /// The blocks of memory: nodes, and the tails of ids, which are empty if all ids are short.
    pub(super) const fn blocks(&self) -> (&[Node], &[u8]) {
        (&self.nodes, &self.tails)
    }

    /// The same blocks, to move them elsewhere.
    pub(super) const fn blocks_mut(&mut self) -> (&mut Box<[Node]>, &mut Box<[u8]>) {
        (&mut self.nodes, &mut self.tails)
    }

    // Reading

    pub(super) fn expiry(&self, slot: Slot) -> Micros {
        Micros::new(self.node(slot).map_or(0, Node::expiry))
    }

    pub(super) fn ttl(&self, slot: Slot) -> Micros {
        Micros::new(self.node(slot).map_or(0, |node| node.ttl.get()))
    }

    /// The units of one lease.
    pub(super) fn units(&self, slot: Slot) -> u64 {
        self.own::<ByExpiry>(slot)
    }

    pub(super) fn lease(&self, slot: Slot) -> Lease {
        let (expiry, ttl) = (self.expiry(slot), self.ttl(slot));
        Lease { id: self.id(slot), units: self.units(slot), at: expiry.since(ttl), ttl }
    }

    /// The lease of this id.
    pub(super) fn find(&self, id: &Id) -> Option<Slot> {
        let head = id.head();
        let mut at = self.root::<ById>();
        while let Some(node) = self.node(at) {
            let is_before = if head == node.head() {
                match (id.len, id.tail()).cmp(&(node.id_len(), self.tail(at))) {
                    Ordering::Equal => return Some(at),
                    order => order == Ordering::Less,
                }
            } else {
                head < node.head()
            };
            at = node.by_id.below(if is_before { Side::Left } else { Side::Right });
        }
        None
    }

    /// Whether one lease runs out before another, or comes before it at the same moment.
    pub(super) fn is_before(&self, one: Slot, other: Slot) -> bool {
        let moments = self.expiry(one).cmp(&self.expiry(other));
        moments.then_with(|| self.compare_ids(one, other)) == Ordering::Less
    }

    /// All leases.
    pub(super) fn all(&self) -> Share {
        self.share::<ByExpiry>(self.root::<ByExpiry>())
    }

    /// The leases that run out until `moment`, the moment included.
    pub(super) fn until(&self, moment: Micros) -> Share {
        let (mut at, mut before) = (self.root::<ByExpiry>(), Share::default());
        while let Some(node) = self.node(at) {
            if node.expiry() <= moment.get() {
                before = before.plus(self.through(node));
                at = node.by_expiry.below(Side::Right);
            } else {
                at = node.by_expiry.below(Side::Left);
            }
        }
        before
    }

    /// The lease with which, and with all before it, at least `units` have run out.
    pub(super) fn reaching(&self, units: u64) -> Option<Slot> {
        let (mut at, mut missing, mut found) = (self.root::<ByExpiry>(), units, None);
        while let Some(node) = self.node(at) {
            let through = self.through(node).units;
            if through >= missing {
                found = Some(at);
                at = node.by_expiry.below(Side::Left);
            } else {
                missing = missing.saturating_sub(through);
                at = node.by_expiry.below(Side::Right);
            }
        }
        found
    }

    /// A node's own lease, and those below it that run out before.
    fn through(&self, node: &Node) -> Share {
        let links = node.by_expiry;
        let all = Share { count: links.count(), units: ByExpiry::sum(node) };
        all.minus(self.share::<ByExpiry>(links.below(Side::Right)))
    }

    /// The soonest to run out.
    pub(super) fn first(&self) -> Option<Slot> {
        self.outermost::<ByExpiry>(self.root::<ByExpiry>(), Side::Left)
    }

    /// The last to run out.
    pub(super) fn last(&self) -> Option<Slot> {
        self.outermost::<ByExpiry>(self.root::<ByExpiry>(), Side::Right)
    }

    /// The leases that run out after `moment`, the soonest first: the first n of them in O(n + log len).
    pub(super) fn after(&self, moment: Micros) -> impl Iterator<Item = Slot> + '_ {
        // What comes next, and below it what comes after its right subtree.
        let mut path = Vec::new();
        let mut at = self.root::<ByExpiry>();
        while let Some(links) = self.links::<ByExpiry>(at) {
            at = if self.expiry(at) > moment {
                path.push(at);
                links.below(Side::Left)
            } else {
                links.below(Side::Right)
            };
        }
        std::iter::from_fn(move || {
            let next = path.pop()?;
            let mut at = self.links::<ByExpiry>(next)?.below(Side::Right);
            while let Some(links) = self.links::<ByExpiry>(at) {
                path.push(at);
                at = links.below(Side::Left);
            }
            Some(next)
        })
    }

    // Writing

    /// Adds a lease. There is none of its id.
    pub(super) fn insert(&mut self, lease: &Lease) {
        if let Some(new) = self.append(lease) {
            self.attach::<ById>(new);
            self.attach::<ByExpiry>(new);
        }
    }

    /// Changes a lease, which keeps its id.
    pub(super) fn change(&mut self, slot: Slot, units: u64, at: Micros, ttl: Micros) {
        self.detach::<ByExpiry>(slot);
        let id = self.id(slot);
        if let Some(node) = self.nodes.get_mut(slot as usize) {
            *node = Node { by_id: node.by_id, ..Node::new(&id, units, at, ttl) };
        }
        self.attach::<ByExpiry>(slot);
    }

    /// Removes a lease. The last slot's goes to its place.
    pub(super) fn remove(&mut self, slot: Slot) {
        let Some(last) = self.len().checked_sub(1).filter(|&last| slot <= last) else {
            return;
        };
        self.detach::<ById>(slot);
        self.detach::<ByExpiry>(slot);
        if slot != last {
            self.redirect::<ById>(last, slot);
            self.redirect::<ByExpiry>(last, slot);
            let (node, id) = (self.node(last).copied(), self.id(last));
            if let (Some(to), Some(node)) = (self.nodes.get_mut(slot as usize), node) {
                *to = node;
            }
            self.set_tail(slot, id.tail());
        }
        self.roots = self.roots.with_count(last);
    }

    /// Gives memory back if leases fill less than two thirds of the slots, but for a few spare ones.
    pub(super) fn shrink(&mut self) {
        let len = self.len() as usize;
        if self.capacity() > len.saturating_add(len / 2).saturating_add(SPARE) {
            let longest = (0..self.len()).map(|slot| self.tail(slot).len()).max();
            self.reallocate(capacity_for(len), longest.unwrap_or_default());
        }
    }

    // Memory

    fn node(&self, slot: Slot) -> Option<&Node> {
        self.nodes.get(slot as usize)
    }

    /// Puts a lease into the next slot, in no tree yet.
    fn append(&mut self, lease: &Lease) -> Option<Slot> {
        let Lease { id, units, at, ttl } = lease;
        let slot = self.len();
        let needed = (slot as usize).saturating_add(1);
        if needed > MAX_LEASES {
            return None;
        }
        if needed > self.capacity() || !self.is_wide_enough(id) {
            let width = self.tail_width().max(id.tail().len());
            self.reallocate(self.capacity().max(capacity_for(needed)), width);
        }
        *self.nodes.get_mut(slot as usize)? = Node::new(id, *units, *at, *ttl);
        self.set_tail(slot, id.tail());
        self.roots = self.roots.one_more();
        Some(slot)
    }

    /// Moves all leases to blocks of other sizes.
    fn reallocate(&mut self, capacity: usize, tail_width: usize) {
        let width = tail_width.div_ceil(TAIL_STEP).saturating_mul(TAIL_STEP);
        let old_width = self.tail_width();
        let mut tails = vec![0; width.saturating_mul(capacity)].into_boxed_slice();
        if width > 0 && old_width > 0 {
            let rows = self.tails.chunks_exact(old_width).zip(tails.chunks_exact_mut(width));
            for (old, new) in rows.take(self.len() as usize) {
                let kept = old.iter().zip(new);
                kept.for_each(|(old, new)| *new = *old);
            }
        }
        self.tails = tails;
        let mut nodes = Vec::from(std::mem::take(&mut self.nodes));
        nodes.truncate(self.len() as usize);
        nodes.reserve_exact(capacity.saturating_sub(nodes.len()));
        nodes.resize(capacity, Node::free());
        self.nodes = nodes.into_boxed_slice();
    }

    /// Whole rows: one for each node.
    fn tail_width(&self) -> usize {
        self.tails.len().checked_div(self.nodes.len()).unwrap_or_default()
    }

    fn tail(&self, slot: Slot) -> &[u8] {
        let len = usize::from(self.node(slot).map_or(0, Node::id_len)).saturating_sub(HEAD);
        if len == 0 {
            return &[];
        }
        let start = (slot as usize).saturating_mul(self.tail_width());
        self.tails.get(start..start.saturating_add(len)).unwrap_or_default()
    }

    fn set_tail(&mut self, slot: Slot, tail: &[u8]) {
        if tail.is_empty() {
            return;
        }
        let start = (slot as usize).saturating_mul(self.tail_width());
        if let Some(row) = self.tails.get_mut(start..start.saturating_add(tail.len())) {
            row.copy_from_slice(tail);
        }
    }

    fn id(&self, slot: Slot) -> Id {
        let mut id = Id { bytes: [0; MAX_ID], len: 0 };
        let Some(node) = self.node(slot) else {
            return id;
        };
        id.len = node.id_len();
        let tail = self.tail(slot);
        if let Some(rest) = id.bytes.get_mut(HEAD..).and_then(|rest| rest.get_mut(..tail.len())) {
            rest.copy_from_slice(tail);
        }
        // What lies over the first bytes is what the tail's are.
        let first = node.head() ^ id.head();
        if let Some(bytes) = id.bytes.first_chunk_mut() {
            *bytes = first.to_be_bytes();
        }
        id
    }

    /// The order of ids in their tree, which is quick to tell.
    fn compare_keys(&self, one: Slot, other: Slot) -> Ordering {
        let key = |slot| {
            let node = self.node(slot);
            (node.map(Node::head), node.map(Node::id_len), self.tail(slot))
        };
        key(one).cmp(&key(other))
    }

    /// The order of their bytes.
    fn compare_ids(&self, one: Slot, other: Slot) -> Ordering {
        match (self.node(one), self.node(other)) {
            (Some(a), Some(b)) if a.id_len().max(b.id_len()) as usize <= HEAD => {
                (a.head(), a.id_len()).cmp(&(b.head(), b.id_len()))
            }
            _ => self.id(one).cmp(&self.id(other)),
        }
    }

    // The trees

    fn root<O: Order>(&self) -> Slot {
        self.roots.below(O::ROOT)
    }

    fn links<O: Order>(&self, slot: Slot) -> Option<Links> {
        self.node(slot).map(O::links)
    }

    /// The leases of a subtree.
    fn share<O: Order>(&self, slot: Slot) -> Share {
        self.node(slot).map_or(Share::default(), |node| Share {
            count: O::links(node).count(),
            units: O::sum(node),
        })
    }

    /// The units of one lease.
    fn own<O: Order>(&self, slot: Slot) -> u64 {
        self.node(slot).map_or(0, |node| {
            let links = O::links(node);
            let sum = |side| self.node(links.below(side)).map_or(0, O::sum);
            O::sum(node).saturating_sub(sum(Side::Left)).saturating_sub(sum(Side::Right))
        })
    }

    fn count<O: Order>(&self, slot: Slot) -> u32 {
        self.links::<O>(slot).map_or(0, Links::count)
    }

    fn set<O: Order>(&mut self, slot: Slot, links: Links, share: Share) {
        if let Some(node) = self.nodes.get_mut(slot as usize) {
            O::set_links(node, links.with_count(share.count));
            O::set_sum(node, share.units);
        }
    }

    /// Links a node from one above it, or from the root.
    fn hang<O: Order>(&mut self, above: Option<Slot>, side: Side, slot: Slot) {
        match above.and_then(|above| self.nodes.get_mut(above as usize)) {
            Some(node) => O::set_links(node, O::links(node).with_below(side, slot)),
            None => self.roots = self.roots.with_below(O::ROOT, slot),
        }
    }

    /// On which side of a node another one is, whose key is given.
    fn side<O: Order>(&self, key: O::Key, slot: Slot, at: Slot) -> Side {
        let is_before = match self.node(at).map(O::key) {
            Some(other) if key == other => O::compare_equal(self, slot, at) == Ordering::Less,
            Some(other) => key < other,
            None => false,
        };
        if is_before { Side::Left } else { Side::Right }
    }

    /// The first or the last node of a subtree.
    fn outermost<O: Order>(&self, mut at: Slot, side: Side) -> Option<Slot> {
        let mut found = None;
        while let Some(links) = self.links::<O>(at) {
            (found, at) = (Some(at), links.below(side));
        }
        found
    }

    /// Makes a balanced tree of nodes that are in order and in no tree; its root.
    fn plant<O: Order>(&mut self, order: &[Slot]) -> Slot {
        let (left, rest) = order.split_at(order.len() / 2);
        let Some((&root, right)) = rest.split_first() else {
            return NONE;
        };
        let own = self.share::<O>(root);
        let (left, right) = (self.plant::<O>(left), self.plant::<O>(right));
        let share = own.plus(self.share::<O>(left)).plus(self.share::<O>(right));
        self.set::<O>(root, Links::new(left, right, 0), share);
        root
    }

    /// Adds a node that is in no tree.
    fn attach<O: Order>(&mut self, new: Slot) {
        let Some((key, units)) = self.node(new).map(|node| (O::key(node), O::sum(node))) else {
            return;
        };
        let mut path = Path::new();
        let (mut at, mut side) = (self.root::<O>(), Side::Left);
        while at != NONE {
            side = self.side::<O>(key, new, at);
            let Some(node) = self.nodes.get_mut(at as usize) else {
                return;
            };
            let links = O::links(node).one_more();
            O::set_links(node, links);
            O::set_sum(node, O::sum(node).saturating_add(units));
            path.enter(at, links.count());
            at = links.below(side);
        }
        // A leaf on a side that was empty leaves its node balanced: the other side had two nodes at most.
        self.hang::<O>(path.last(), side, new);
        self.balance::<O>(&mut path);
    }

    /// Takes a node out of the tree.
    fn detach<O: Order>(&mut self, gone: Slot) {
        let Some(node) = self.node(gone) else {
            return;
        };
        let (key, links, own) = (O::key(node), O::links(node), self.own::<O>(gone));
        let mut path = Path::new();
        let (mut at, mut side) = (self.root::<O>(), Side::Left);
        while at != gone {
            side = self.side::<O>(key, gone, at);
            let links = self.lighten::<O>(at, own);
            path.enter(at, links.count());
            at = links.below(side);
            if at == NONE {
                return;
            }
        }
        let above = path.last();
        let heir = match [Side::Left, Side::Right].map(|side| links.below(side)) {
            [NONE, only] | [only, NONE] => {
                path.weigh(self.count::<O>(only));
                only
            }
            [..] => self.replace::<O>(gone, own, &mut path),
        };
        self.hang::<O>(above, side, heir);
        self.balance::<O>(&mut path);
    }

    /// Puts the nearest node of the heavier side to the place of one that goes; which it is.
    fn replace<O: Order>(&mut self, gone: Slot, own: u64, path: &mut Path) -> Slot {
        let links = self.links::<O>(gone).unwrap_or(Links::LEAF);
        let counts = [Side::Left, Side::Right].map(|side| self.count::<O>(links.below(side)));
        let side = if counts.is_sorted() { Side::Right } else { Side::Left };
        let Some(heir) = self.outermost::<O>(links.below(side), side.other()) else {
            return NONE;
        };
        let all = self.share::<O>(gone).minus(Share { count: 1, units: own });
        path.enter(heir, all.count);
        let units = self.own::<O>(heir);
        let (mut above, mut toward, mut at) = (gone, side, links.below(side));
        while at != heir && at != NONE {
            let links = self.lighten::<O>(at, units);
            path.enter(at, links.count());
            (above, toward) = (at, side.other());
            at = links.below(toward);
        }
        let below_heir = self.links::<O>(heir).map_or(NONE, |links| links.below(side));
        path.weigh(self.count::<O>(below_heir));
        self.hang::<O>(Some(above), toward, below_heir);
        self.set::<O>(heir, self.links::<O>(gone).unwrap_or(links), all);
        heir
    }

    /// Takes one lease from what a subtree has in all; the links of its root.
    fn lighten<O: Order>(&mut self, at: Slot, units: u64) -> Links {
        let Some(node) = self.nodes.get_mut(at as usize) else {
            return Links::LEAF;
        };
        let links = O::links(node).one_less();
        O::set_links(node, links);
        O::set_sum(node, O::sum(node).saturating_sub(units));
        links
    }

    /// Balances the nodes of a path, from the lowest on.
    fn balance<O: Order>(&mut self, path: &mut Path) {
        while let Some((at, above)) = path.next_uneven() {
            let is_left = above
                .and_then(|above| self.links::<O>(above))
                .is_none_or(|above| above.below(Side::Left) == at);
            let top = self.rotate::<O>(at);
            self.hang::<O>(above, if is_left { Side::Left } else { Side::Right }, top);
        }
    }

    /// Takes a node down on its light side, by one or two rotations; which node is above now.
    fn rotate<O: Order>(&mut self, at: Slot) -> Slot {
        let links = self.links::<O>(at).unwrap_or(Links::LEAF);
        let counts = [Side::Left, Side::Right].map(|side| self.count::<O>(links.below(side)));
        let heavy = if counts.is_sorted() { Side::Right } else { Side::Left };
        let child = links.below(heavy);
        let links = self.links::<O>(child).unwrap_or(Links::LEAF);
        let inner = weight(self.count::<O>(links.below(heavy.other())));
        let outer = weight(self.count::<O>(links.below(heavy)));
        if inner >= outer.saturating_mul(2) {
            let lifted = self.lift::<O>(child, heavy.other());
            self.hang::<O>(Some(at), heavy, lifted);
        }
        self.lift::<O>(at, heavy)
    }

    /// A rotation: lifts the node on one side of another above it; the node lifted.
    fn lift<O: Order>(&mut self, at: Slot, side: Side) -> Slot {
        let Some(low) = self.links::<O>(at) else {
            return at;
        };
        let up = low.below(side);
        let Some(high) = self.links::<O>(up) else {
            return at;
        };
        let middle = high.below(side.other());
        let all = self.share::<O>(at);
        let rest = all.minus(self.share::<O>(up)).plus(self.share::<O>(middle));
        self.set::<O>(at, low.with_below(side, middle), rest);
        self.set::<O>(up, high.with_below(side.other(), at), all);
        up
    }

    /// Makes the link to a node one to the slot to which it moves.
    fn redirect<O: Order>(&mut self, from: Slot, to: Slot) {
        let Some(key) = self.node(from).map(O::key) else {
            return;
        };
        let (mut above, mut side, mut at) = (None, Side::Left, self.root::<O>());
        while at != from {
            side = self.side::<O>(key, from, at);
            above = Some(at);
            at = self.links::<O>(at).map_or(from, |links| links.below(side));
        }
        self.hang::<O>(above, side, to);
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test fails by a panic")]
impl Tree {
    /// What must hold at all times.
    pub(super) fn check(&self) {
        self.check_order::<ById>();
        self.check_order::<ByExpiry>();
        assert!(self.len() as usize <= self.capacity());
        assert_eq!(self.tails.len(), self.tail_width() * self.capacity());
        assert_eq!(self.tail_width() % TAIL_STEP, 0);
    }

    fn check_order<O: Order>(&self) {
        let mut order = Vec::new();
        self.check_below::<O>(self.root::<O>(), &mut order, 0);
        assert!(order.iter().all(|&slot| slot < self.len()));
        assert_eq!(order.len(), self.len() as usize);
        let is_before = |one: &Slot, other: &Slot| {
            let key = self.node(*one).map(O::key).unwrap();
            one != other && self.side::<O>(key, *one, *other) == Side::Left
        };
        assert!(order.is_sorted_by(is_before));
    }

    fn check_below<O: Order>(&self, at: Slot, order: &mut Vec<Slot>, depth: usize) -> Share {
        let Some(links) = self.links::<O>(at) else {
            assert_eq!(at, NONE);
            return Share::default();
        };
        assert!(depth < Path::DEEPEST);
        let left = self.check_below::<O>(links.below(Side::Left), order, depth + 1);
        order.push(at);
        let right = self.check_below::<O>(links.below(Side::Right), order, depth + 1);
        let weights = [weight(left.count), weight(right.count)];
        assert!(weights[0] <= 3 * weights[1] && weights[1] <= 3 * weights[0], "{weights:?}");
        let share = self.share::<O>(at);
        assert_eq!(share.count, left.count + right.count + 1);
        assert!(share.units >= left.units + right.units);
        share
    }
}

/// What a subtree of so many nodes weighs.
const fn weight(count: u32) -> u32 {
    count.saturating_add(1)
}

/// How many slots a block for `len` leases has: as many as the allocator gives it the memory for.
///
/// jemalloc, which servers use, has four sizes to a doubling: so a block grows by about a quarter.
fn capacity_for(len: usize) -> usize {
    const NODE: usize = size_of::<Node>();
    const LEAST_STEP: usize = 16;
    let bytes = len.saturating_mul(NODE);
    let power = bytes.saturating_sub(1).checked_ilog2().unwrap_or_default();
    let step = 1_usize.checked_shl(power.saturating_sub(2)).unwrap_or_default().max(LEAST_STEP);
    let size = bytes.checked_next_multiple_of(step).unwrap_or(bytes);
    (size / NODE).min(MAX_LEASES)
}
