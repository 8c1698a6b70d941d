//! The form in which a limiter is kept in memory: 32 bytes, one allocator size class, for every structure.
//!
//! ```text
//!   small bucket   | 4 capacity | 4 units | 6 us | 8 level | 8 at | kind | 1 |      the rate is units per us
//!   large bucket   | -> the same numbers in 56 bytes |
//!   fixed window   | 5 limit | 7 window | 7 window - offset | 12 start, used | 1 |
//!   list           | 16 -> slots | 4 head | 4 len | 7 limit | kind |
//!                     slots: | 12 first, before | 12 window, buckets | 12 entry | ...
//!   leases         | -> a block of 64 bytes (see `leases`) |
//!   penalized      | -> one of the others, and its denials (see `block`), in 56 bytes |
//! ```
//!
//! The structures themselves are plain: a [`Limiter`] is read as a [`State`], and made of a structure by `From`. All that is
//! known about their packing is in this file.

use std::marker::PhantomData;
use std::num::NonZeroU64;
use std::ops::Deref;

use super::block::Denials;
use super::bucket::Bucket;
use super::fixed_window::FixedWindow;
use super::leases::Leases;
use super::limits::{
    Algorithm, BucketKind, BucketLimits, FixedWindowLimits, Rate, Resolution, SlidingWindowLimits,
};
use super::packed::{Packed, U40, U56};
use super::ring::{Entry, Ring, Total};
use super::sliding_window::SlidingWindow;
use super::time::Micros;

/// The state of one key: what is used, since when, and under which limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Limiter {
    Bucket(SmallBucket),
    /// A bucket that does not fit the small form.
    LargeBucket(Box<LargeBucket>),
    FixedWindow(SmallWindow),
    SlidingWindow(List),
    Leases(Box<Leases>),
    /// One of the others, with its denials.
    Penalized(Box<Penalized>),
}

// One box a key: what is in it is packed so that it stays within 32 bytes, an allocator's size class.
const _: () = assert!(size_of::<Limiter>() == 32);
// Servers align to no more than that.
const _: () = assert!(align_of::<Limiter>() <= 8 && align_of::<LargeBucket>() <= 8);
const _: () = assert!(size_of::<Penalized>() == 56 && align_of::<Penalized>() <= 8);

/// How a plain state holds what lies in blocks of their own.
pub(super) trait Hold {
    type Entries: Deref<Target = [Entry]>;
    type Leases: Deref<Target = Leases>;
}

/// Borrowed, to read.
pub(super) struct Borrowed<'a>(PhantomData<&'a ()>);

impl<'a> Hold for Borrowed<'a> {
    type Entries = &'a [Entry];
    type Leases = &'a Leases;
}

/// Owned, to change.
pub(super) struct Owned;

impl Hold for Owned {
    type Entries = Box<[Entry]>;
    type Leases = Box<Leases>;
}

/// A limiter in its plain form.
pub(super) enum State<H: Hold> {
    Bucket(Bucket),
    FixedWindow(FixedWindow),
    SlidingWindow(SlidingWindow<H::Entries>),
    Leases(H::Leases),
}

impl Limiter {
    /// The state, to read.
    #[inline]
    pub(super) fn state(&self) -> State<Borrowed<'_>> {
        match self {
            Self::Bucket(bucket) => State::Bucket(bucket.unpack()),
            Self::LargeBucket(bucket) => State::Bucket(bucket.unpack()),
            Self::FixedWindow(window) => State::FixedWindow(window.unpack()),
            Self::SlidingWindow(list) => State::SlidingWindow(list.view()),
            Self::Leases(leases) => State::Leases(&**leases),
            Self::Penalized(penalized) => penalized.state(),
        }
    }

    /// The state, to change.
    #[inline]
    pub(super) fn into_state(self) -> State<Owned> {
        match self {
            Self::Bucket(bucket) => State::Bucket(bucket.unpack()),
            Self::LargeBucket(bucket) => State::Bucket(bucket.unpack()),
            Self::FixedWindow(window) => State::FixedWindow(window.unpack()),
            Self::SlidingWindow(list) => State::SlidingWindow(list.into_window()),
            Self::Leases(leases) => State::Leases(leases),
            Self::Penalized(penalized) => penalized.into_state(),
        }
    }

    /// Takes the state out. What stays behind is to be overwritten.
    #[inline]
    pub(super) fn take(&mut self) -> State<Owned> {
        match self {
            Self::Bucket(bucket) => State::Bucket(bucket.unpack()),
            Self::FixedWindow(window) => State::FixedWindow(window.unpack()),
            Self::LargeBucket(_)
            | Self::SlidingWindow(_)
            | Self::Leases(_)
            | Self::Penalized(_) => std::mem::replace(self, Self::PLACEHOLDER).into_state(),
        }
    }

    /// What stands where a limiter is to be put.
    const PLACEHOLDER: Self = Self::FixedWindow(SmallWindow {
        limit: U40::ZERO,
        window: U56::ZERO,
        shift: U56::ZERO,
        used: Entry::EMPTY,
    });

    /// What is remembered of denials, if there is anything.
    #[inline]
    pub(crate) fn denials(&self) -> Option<Denials> {
        match self {
            Self::Penalized(penalized) => Some(penalized.denials),
            Self::Bucket(_)
            | Self::LargeBucket(_)
            | Self::FixedWindow(_)
            | Self::SlidingWindow(_)
            | Self::Leases(_) => None,
        }
    }

    /// The limiter itself.
    pub(super) fn without_denials(&self) -> &Self {
        match self {
            Self::Penalized(penalized) => &penalized.limiter,
            Self::Bucket(_)
            | Self::LargeBucket(_)
            | Self::FixedWindow(_)
            | Self::SlidingWindow(_)
            | Self::Leases(_) => self,
        }
    }

    /// Has these denials remembered.
    pub(super) fn set_denials(&mut self, denials: Denials) {
        if let Self::Penalized(penalized) = self {
            penalized.denials = denials;
        } else {
            let limiter = std::mem::replace(self, Self::PLACEHOLDER);
            *self = Self::Penalized(Box::new(Penalized { limiter, denials }));
        }
    }

    /// The limiter itself, and what is remembered of its denials, if there is anything.
    pub(super) fn penalized_mut(&mut self) -> Option<(&mut Self, Denials)> {
        match self {
            Self::Penalized(penalized) => Some((&mut penalized.limiter, penalized.denials)),
            Self::Bucket(_)
            | Self::LargeBucket(_)
            | Self::FixedWindow(_)
            | Self::SlidingWindow(_)
            | Self::Leases(_) => None,
        }
    }

    /// Which algorithm the state belongs to.
    pub(crate) const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Bucket(bucket) => bucket.kind.algorithm(),
            Self::LargeBucket(bucket) => bucket.limits.kind.algorithm(),
            Self::FixedWindow(_) => Algorithm::FixedWindow,
            Self::SlidingWindow(list) => match list.kind {
                ListKind::Counter => Algorithm::Sliding,
                ListKind::Log => Algorithm::SlidingLog,
            },
            Self::Leases(_) => Algorithm::Concurrency,
            Self::Penalized(penalized) => penalized.limiter.algorithm(),
        }
    }

    /// Where the blocks of memory besides the limiter itself begin.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = *const u8> {
        let own = match self.without_denials() {
            Self::Bucket(_) | Self::FixedWindow(_) => [None, None, None],
            // Never one in another.
            Self::Penalized(_) => [None, None, None],
            Self::LargeBucket(bucket) => [start(&**bucket), None, None],
            Self::SlidingWindow(list) => [start(list.ring.slots()), None, None],
            Self::Leases(leases) => {
                let (nodes, tails) = leases.blocks();
                [start(&**leases), start(nodes), start(tails)]
            }
        };
        let outer = match self {
            Self::Penalized(penalized) => start(&**penalized),
            Self::Bucket(_)
            | Self::LargeBucket(_)
            | Self::FixedWindow(_)
            | Self::SlidingWindow(_)
            | Self::Leases(_) => None,
        };
        outer.into_iter().chain(own.into_iter().flatten())
    }

    /// The bytes of these blocks.
    #[cfg(test)]
    pub(crate) fn block_bytes(&self) -> usize {
        match self {
            Self::Bucket(_) | Self::FixedWindow(_) => 0,
            Self::LargeBucket(bucket) => size_of_val(&**bucket),
            Self::SlidingWindow(list) => size_of_val(list.ring.slots()),
            Self::Leases(leases) => {
                let (nodes, tails) = leases.blocks();
                size_of_val(&**leases) + size_of_val(nodes) + size_of_val(tails)
            }
            Self::Penalized(penalized) => {
                size_of_val(&**penalized) + penalized.limiter.block_bytes()
            }
        }
    }

    /// Lends these blocks, to move them elsewhere.
    pub(crate) fn visit_blocks(&mut self, visitor: &mut impl BlockVisitor) {
        match self {
            Self::Bucket(_) | Self::FixedWindow(_) => {}
            Self::LargeBucket(bucket) => visitor.visit(bucket),
            Self::SlidingWindow(list) => visitor.visit_slice(list.ring.slots_mut()),
            Self::Leases(leases) => {
                visitor.visit(leases);
                let (nodes, tails) = leases.blocks_mut();
                visitor.visit_slice(nodes);
                visitor.visit_slice(tails);
            }
            Self::Penalized(penalized) => {
                visitor.visit(penalized);
                penalized.limiter.visit_blocks(visitor);
            }
        }
    }
}

/// The address of a block, if there is memory for it.
fn start<T: ?Sized>(block: &T) -> Option<*const u8> {
    (size_of_val(block) > 0).then_some((&raw const *block).cast())
}

/// What is done to each block of memory besides a limiter itself. A slice without elements has no memory.
pub(crate) trait BlockVisitor {
    fn visit<T>(&mut self, block: &mut Box<T>);
    fn visit_slice<T>(&mut self, block: &mut Box<[T]>);
}

impl From<State<Owned>> for Limiter {
    #[inline]
    fn from(state: State<Owned>) -> Self {
        match state {
            State::Bucket(bucket) => bucket.into(),
            State::FixedWindow(window) => window.into(),
            State::SlidingWindow(list) => list.into(),
            State::Leases(leases) => Self::Leases(leases),
        }
    }
}

/// A limiter of any other form, and what is remembered of its denials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Penalized {
    limiter: Limiter,
    denials: Denials,
}

// Few limiters have denials: what others cost must not grow by them.
impl Penalized {
    #[cold]
    fn state(&self) -> State<Borrowed<'_>> {
        self.limiter.state()
    }

    #[cold]
    fn into_state(self) -> State<Owned> {
        self.limiter.into_state()
    }
}

/// A bucket in as few bytes as nearly all of them need: capacity and rate's units below 2^32, the time of the rate below
/// 2^48 us (eight years), the level below 2^64 (300 thousand million units at a rate per minute, seven million per month).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SmallBucket {
    kind: BucketKind,
    capacity: Packed<4>,
    units: Packed<4>,
    per_us: Packed<6>,
    level: Packed<8>,
    at: Packed<8>,
}

impl SmallBucket {
    /// The bucket in this form, if it fits.
    fn pack(bucket: &Bucket) -> Option<Self> {
        let Bucket { limits: BucketLimits { kind, capacity, rate }, level, at } = *bucket;
        Some(Self {
            kind,
            capacity: Packed::fitting(capacity)?,
            units: Packed::fitting(rate.units().get())?,
            per_us: Packed::fitting(rate.per_us().get())?,
            level: Packed::new(u64::try_from(level).ok()?),
            at: Packed::new(at.get()),
        })
    }

    fn unpack(&self) -> Bucket {
        let not_zero = |value| NonZeroU64::new(value).unwrap_or(NonZeroU64::MIN);
        let rate = Rate::of(not_zero(self.units.get()), not_zero(self.per_us.get()));
        Bucket {
            limits: BucketLimits { kind: self.kind, capacity: self.capacity.get(), rate },
            level: self.level.get().into(),
            at: Micros::new(self.at.get()),
        }
    }
}

/// A bucket of any numbers, aligned to 8: a `u128` alone would ask for 16.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, packed(8))]
pub(crate) struct LargeBucket {
    limits: BucketLimits,
    level: u128,
    at: Micros,
}

impl LargeBucket {
    const fn unpack(&self) -> Bucket {
        Bucket { limits: self.limits, level: self.level, at: self.at }
    }
}

impl From<Bucket> for Limiter {
    fn from(bucket: Bucket) -> Self {
        SmallBucket::pack(&bucket).map_or_else(
            || {
                let Bucket { limits, level, at } = bucket;
                Self::LargeBucket(Box::new(LargeBucket { limits, level, at }))
            },
            Self::Bucket,
        )
    }
}

/// A fixed window in 31 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SmallWindow {
    limit: U40,
    window: U56,
    /// `window - align`, which is never 0; 0 if the window is not aligned.
    shift: U56,
    /// The window's start and the units used since, packed as an entry.
    used: Entry,
}

impl SmallWindow {
    fn unpack(&self) -> FixedWindow {
        let (window, shift) = (Micros::new(self.window.get()), Micros::new(self.shift.get()));
        let align = (shift > Micros::ZERO).then(|| window.since(shift));
        FixedWindow {
            limits: FixedWindowLimits { limit: self.limit.get(), window, align },
            start: self.used.time(),
            used: self.used.total().since(Total::ZERO),
        }
    }
}

impl From<FixedWindow> for Limiter {
    fn from(window: FixedWindow) -> Self {
        let FixedWindow { limits: FixedWindowLimits { limit, window, align }, start, used } =
            window;
        let shift = align.map_or(0, |align| window.since(align).get());
        Self::FixedWindow(SmallWindow {
            limit: U40::new(limit),
            window: U56::new(window.get()),
            shift: U56::new(shift),
            used: Entry::new(start, Total::ZERO.plus(used)),
        })
    }
}

/// A sliding window: its limit and its ring here, the rest in the two reserved slots before the entries.
///
/// In the order written: the kind lies in the last of 32 bytes, and that byte's other values tell the other forms apart.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct List {
    ring: Ring,
    limit: U56,
    kind: ListKind,
}

/// Which of the two a sliding window is.
#[derive(Clone, Copy, Debug)]
enum ListKind {
    Counter,
    Log,
}

impl List {
    fn view(&self) -> SlidingWindow<&[Entry]> {
        unpack_list(self.ring.borrow(), self.limit, self.kind)
    }

    fn into_window(self) -> SlidingWindow {
        unpack_list(self.ring, self.limit, self.kind)
    }
}

fn unpack_list<S: Deref<Target = [Entry]>>(
    ring: Ring<S>,
    limit: U56,
    kind: ListKind,
) -> SlidingWindow<S> {
    let [newest, shape] = ring.reserved();
    let resolution = match kind {
        ListKind::Counter => {
            let buckets = shape.total().since(Total::ZERO);
            Resolution::Buckets(u16::try_from(buckets).unwrap_or(u16::MAX))
        }
        ListKind::Log => Resolution::Exact,
    };
    SlidingWindow {
        limits: SlidingWindowLimits { limit: limit.get(), window: shape.time(), resolution },
        before: newest.total(),
        first: newest.time(),
        ring,
    }
}

impl From<SlidingWindow> for Limiter {
    fn from(list: SlidingWindow) -> Self {
        let SlidingWindow { limits, before, first, mut ring } = list;
        let (kind, buckets) = match limits.resolution {
            Resolution::Buckets(n) => (ListKind::Counter, n.into()),
            Resolution::Exact => (ListKind::Log, 0),
        };
        let shape = Entry::new(limits.window, Total::ZERO.plus(buckets));
        ring.set_reserved([Entry::new(first, before), shape]);
        Self::SlidingWindow(List { ring, limit: U56::new(limits.limit), kind })
    }
}

impl Clone for List {
    fn clone(&self) -> Self {
        let Self { ring, limit, kind } = self;
        Self { ring: ring.clone(), limit: *limit, kind: *kind }
    }
}

/// Equal are those that hold the same hits; running totals and free slots may differ.
impl PartialEq for List {
    fn eq(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.view(), other.view());
        ours.limits == theirs.limits && ours.first == theirs.first && ours.hits().eq(theirs.hits())
    }
}

impl Eq for List {}
