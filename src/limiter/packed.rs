//! Integers of the widths that are needed, for what is kept in memory once per key or per entry.
//!
//! A limit is below 2^40 and a bucket's level below 2^96. As a `u64` and a `u128` they would take 24
//! bytes and force an alignment of 16; so they take 17 and fill gaps between other fields. The
//! types do no arithmetic: they are read into a `u64` or `u128`, and written back.

/// An integer of 40 bits in 5 bytes: a limit or capacity (at most 10^12 < 2^40).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct U40([u8; 5]);

impl U40 {
    /// Keeps `value`, or the largest value there is.
    pub(super) const fn new(value: u64) -> Self {
        let max = (1 << 40) - 1;
        let [a, b, c, d, e, ..] = (if value > max { max } else { value }).to_le_bytes();
        Self([a, b, c, d, e])
    }

    pub(super) const fn get(self) -> u64 {
        let [a, b, c, d, e] = self.0;
        u64::from_le_bytes([a, b, c, d, e, 0, 0, 0])
    }
}

/// An integer of 96 bits in 12 bytes, aligned to 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct U96 {
    high: u32,
    middle: u32,
    low: u32,
}

impl U96 {
    pub(super) const MAX: u128 = (1 << 96) - 1;

    /// Keeps `value`, or the largest value there is.
    #[expect(clippy::cast_possible_truncation, reason = "three words are cut out of four")]
    pub(super) const fn new(value: u128) -> Self {
        let value = if value > Self::MAX { Self::MAX } else { value };
        Self { high: (value >> 64) as u32, middle: (value >> 32) as u32, low: value as u32 }
    }

    pub(super) const fn get(self) -> u128 {
        (self.high as u128) << 64 | (self.middle as u128) << 32 | self.low as u128
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_keep_what_they_hold_and_saturate() {
        for value in [0, 1, 0xff, 0x01_0000_0000, 1_000_000_000_000, (1 << 40) - 1] {
            assert_eq!(U40::new(value).get(), value);
        }
        assert_eq!(U40::new(u64::MAX).get(), (1 << 40) - 1);
        for value in [0, 1, u128::from(u64::MAX), 0x0123_4567_89ab_cdef_0011_2233, U96::MAX] {
            assert_eq!(U96::new(value).get(), value);
        }
        assert_eq!(U96::new(u128::MAX).get(), U96::MAX);
        assert_eq!((size_of::<U40>(), size_of::<U96>()), (5, 12));
    }
}
