//! Integers of the widths that are needed, for what is kept in memory once per key or per entry.
//!
//! A limit is below 2^40, a duration below 2^49 and a moment at most 2^53. As `u64` they would take eight bytes each, and
//! their alignment more; so they are kept in as many bytes as they need, aligned to one, and fill any gap. The types do
//! no arithmetic: they are read into a `u64` or `u128`, and written back.

/// An integer of `N` bytes, at most eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed<const N: usize>([u8; N]);

/// A limit or capacity: at most 10^12 < 2^40.
pub(super) type U40 = Packed<5>;
/// A duration of at most 3650 days, or a moment.
pub(super) type U56 = Packed<7>;

impl<const N: usize> Packed<N> {
    pub(super) const ZERO: Self = Self([0; N]);
    const MAX: u64 = if N < 8 { (1 << (8 * N)) - 1 } else { u64::MAX };

    /// Keeps `value` if there is room for it.
    pub(super) fn fitting(value: u64) -> Option<Self> {
        (value <= Self::MAX).then_some(Self::new(value))
    }

    /// Keeps `value`, or the largest value there is.
    pub(super) fn new(value: u64) -> Self {
        let bytes = value.min(Self::MAX).to_le_bytes();
        Self(bytes.first_chunk().copied().unwrap_or([u8::MAX; N]))
    }

    pub(super) fn get(self) -> u64 {
        let mut bytes = [0; 8];
        if let Some(low) = bytes.first_chunk_mut() {
            *low = self.0;
        }
        u64::from_le_bytes(bytes)
    }
}

/// An integer of 96 bits in 12 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct U96([u8; 12]);

impl U96 {
    pub(super) const MAX: u128 = (1 << 96) - 1;

    /// Keeps `value`, or the largest value there is.
    pub(super) const fn new(value: u128) -> Self {
        let bytes = (if value > Self::MAX { Self::MAX } else { value }).to_le_bytes();
        match bytes.first_chunk() {
            Some(low) => Self(*low),
            None => Self([u8::MAX; 12]),
        }
    }

    pub(super) const fn get(self) -> u128 {
        let mut bytes = [0; 16];
        if let Some(low) = bytes.first_chunk_mut() {
            *low = self.0;
        }
        u128::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_keep_what_they_hold_and_saturate() {
        for value in [0, 1, 0xff, 0x01_0000_0000, 1_000_000_000_000, (1 << 40) - 1] {
            assert_eq!(U40::new(value).get(), value);
            assert_eq!(U40::fitting(value), Some(U40::new(value)));
        }
        for value in [1 << 40, u64::MAX] {
            assert_eq!(U40::new(value).get(), (1 << 40) - 1);
            assert_eq!(U40::fitting(value), None);
        }
        assert_eq!(Packed::<8>::new(u64::MAX).get(), u64::MAX);
        for value in [0, 1, u128::from(u64::MAX), 0x0123_4567_89ab_cdef_0011_2233, U96::MAX] {
            assert_eq!(U96::new(value).get(), value);
        }
        assert_eq!(U96::new(u128::MAX).get(), U96::MAX);
        assert_eq!((size_of::<U40>(), size_of::<U56>(), size_of::<U96>()), (5, 7, 12));
        assert_eq!(align_of::<U96>(), 1);
    }
}
