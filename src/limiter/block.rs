//! BLOCK: the penalty for those who do not heed a denial.
//!
//! ```text
//!             x  a denial that counts: something is used, and no block runs
//!
//!   in a row  1   2  ...  n
//!   ----------x---x-------x=======================o-------> t
//!                         |<----- duration ----->|
//!                       began
//!
//!   a row of n denials   begins a block
//!   a block runs         while  began <= now < began + duration
//!   the row is over      with a grant of 1 unit or more, or with the end of a block
//! ```
//!
//! So at no time is there both a row and a block that runs, and a limiter keeps one of them. While a block runs all is
//! denied but FORCE and COST 0, whatever is used (see `decision`), and nothing is counted: so a denial writes only if it
//! is one of the n in a row.
//!
//! A clock that stepped back to before `began` ends the block: it would last longer than its own duration. (It counts again
//! once the clock is back there, unless a grant or another denial replaced it.)
//!
//! Cost: O(1). Memory: 56 bytes beside a limiter that has a row or a block, none beside any other.

use std::num::NonZeroU32;

use super::time::Micros;

/// The most denials in a row that begin a block.
pub(crate) const MAX_AFTER: u32 = 1_000_000;

/// What a call asks for with BLOCK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Penalty {
    /// How long a block lasts: from [`Self::MIN_DURATION`] to [`Micros::MAX_DURATION`].
    duration: Micros,
    /// How many denials in a row begin it, at most [`MAX_AFTER`].
    after: NonZeroU32,
}

impl Penalty {
    /// The shortest block.
    pub(crate) const MIN_DURATION: Micros = Micros::MILLISECOND;

    /// A penalty within its bounds; `None` otherwise.
    pub(crate) fn new(duration: Micros, after: u32) -> Option<Self> {
        let after = NonZeroU32::new(after).filter(|after| after.get() <= MAX_AFTER)?;
        let is_valid = (Self::MIN_DURATION..=Micros::MAX_DURATION).contains(&duration);
        is_valid.then_some(Self { duration, after })
    }

    pub(crate) const fn duration(&self) -> Micros {
        self.duration
    }

    pub(crate) const fn after(&self) -> u32 {
        self.after.get()
    }
}

/// What a limiter remembers of its denials: so many in a row, or the block that they began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Denials {
    /// Less than [`MAX_AFTER`]; 0 once they began a block.
    in_a_row: u32,
    /// When the block began.
    began: Micros,
    /// 0 if there is none.
    duration: Micros,
}

impl Denials {
    /// What is remembered after one more denial, on top of these. No block runs.
    pub(super) fn one_more(before: Option<Self>, penalty: &Penalty, now: Micros) -> Self {
        let row = before.map_or(0, |before| before.in_a_row).saturating_add(1);
        if row >= penalty.after() {
            Self { in_a_row: 0, began: now, duration: penalty.duration }
        } else {
            Self { in_a_row: row, began: Micros::ZERO, duration: Micros::ZERO }
        }
    }

    /// A row as it is stored; `None` if it cannot be.
    pub(super) fn restore_row(denials: u64) -> Option<Self> {
        let in_a_row = u32::try_from(denials).ok().filter(|row| (1..MAX_AFTER).contains(row))?;
        Some(Self { in_a_row, began: Micros::ZERO, duration: Micros::ZERO })
    }

    /// A block as it is stored; `None` if it cannot be.
    pub(super) fn restore_block(began: Micros, duration: Micros) -> Option<Self> {
        let Penalty { duration, .. } = Penalty::new(duration, 1)?;
        (began <= Micros::MAX_MOMENT).then_some(Self { in_a_row: 0, began, duration })
    }

    /// How many denials there were in a row; 0 once they began a block.
    pub(crate) const fn in_a_row(&self) -> u32 {
        self.in_a_row
    }

    /// When the block began that they led to, and how long it lasts; it may be over.
    pub(crate) fn block(&self) -> Option<(Micros, Micros)> {
        (self.duration > Micros::ZERO).then_some((self.began, self.duration))
    }

    /// How long a block still lasts; 0 if none runs.
    pub(crate) fn block_left(&self, now: Micros) -> Micros {
        if self.began <= now { self.block_end().since(now) } else { Micros::ZERO }
    }

    /// The moment from which on no block runs any more.
    pub(super) const fn block_end(&self) -> Micros {
        self.began.after(self.duration)
    }
}
