//! Calendar windows: the day, week, month or year in which a moment lies, in UTC moved by an offset.
//!
//! ```text
//!   ... | Jan 31d | Feb 28d or 29d | Mar 31d | ...       a period begins at midnight UTC plus the offset
//!                       ^ now      -> the aligned window [Feb 1 + offset, Mar 1 + offset)
//! ```
//!
//! A fixed window reads a period as the aligned window of its real length in which now lies: a length, and an alignment
//! that makes a window of that length begin where the period does. Nothing else needs to know of calendars. In particular,
//! last month's units never count this month: they count at most until the end of the window of *this* month's length in
//! which their own window began, and one of these ends where this month begins.
//!
//! The Gregorian calendar; weeks begin on Monday; no leap seconds, as in Unix time.
//!
//! Cost: O(1).

use super::time::Micros;

/// A period of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Period {
    Day,
    Week,
    Month,
    Year,
}

impl Period {
    /// The period of this name.
    pub(super) fn read(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"day" => Self::Day,
            b"week" => Self::Week,
            b"month" => Self::Month,
            b"year" => Self::Year,
            _ => return None,
        })
    }
}

/// The periods of one kind, all moved by the same offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Calendar {
    pub(super) period: Period,
    /// In microseconds: at most one day either way.
    pub(super) offset: i64,
}

const DAY: i64 = Micros::DAY.get().cast_signed();

impl Calendar {
    /// The period in which `now` lies, as the length and the alignment of a window; the alignment is below the length.
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "moments are below 2^53 us, and a day is 2^37"
    )]
    pub(super) fn window(self, now: Micros) -> (Micros, Micros) {
        let now = now.min(Micros::MAX_MOMENT).get().cast_signed();
        let (first, days) = self.period.around((now - self.offset).div_euclid(DAY));
        let length = days * DAY;
        let align = (first * DAY + self.offset).rem_euclid(length);
        (Micros::new(length.unsigned_abs()), Micros::new(align.unsigned_abs()))
    }
}

#[allow(clippy::arithmetic_side_effects, reason = "days and years between 1969 and 2256")]
impl Period {
    /// The first day of the period in which a day lies, and how many days it has. Days count from 1970-01-01.
    fn around(self, day: i64) -> (i64, i64) {
        match self {
            Self::Day => (day, 1),
            // 1970-01-05, day 4, was a Monday.
            Self::Week => (day - (day - 4).rem_euclid(7), 7),
            Self::Month => {
                let year = year_of(day);
                let mut first = first_day(year);
                let february = 28 + i64::from(is_leap(year));
                for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
                    if day < first + days {
                        return (first, days);
                    }
                    first += days;
                }
                (first, 31)
            }
            Self::Year => {
                let year = year_of(day);
                (first_day(year), 365 + i64::from(is_leap(year)))
            }
        }
    }
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// The first day of a year.
#[allow(clippy::arithmetic_side_effects, reason = "years between 1969 and 2256")]
const fn first_day(year: i64) -> i64 {
    // Leap days before this year, less the 477 before 1970.
    let before = year - 1;
    365 * (year - 1970) + before / 4 - before / 100 + before / 400 - 477
}

/// The year in which a day lies.
#[allow(clippy::arithmetic_side_effects, reason = "years between 1969 and 2256")]
fn year_of(day: i64) -> i64 {
    // Never too late, and less than two years too early.
    let mut year = 1970 + day.div_euclid(366);
    while first_day(year + 1) <= day {
        year += 1;
    }
    year
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The dates of all days from 1969 on, counted one by one.
    fn dates() -> impl Iterator<Item = (i64, (i64, usize, i64))> {
        let mut date = (1969, 0, 1);
        (-365..).map(move |day| {
            let today = date;
            let (year, month, of_month) = date;
            let lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            let leap = year % 4 == 0 && year % 100 != 0 || year % 400 == 0;
            let length = lengths[month] + i64::from(leap && month == 1);
            date = match (of_month == length, month == 11) {
                (false, _) => (year, month, of_month + 1),
                (true, false) => (year, month + 1, 1),
                (true, true) => (year + 1, 0, 1),
            };
            (day, today)
        })
    }

    #[test]
    fn every_day_from_1969_to_2256_lies_in_its_own_month_year_and_week() {
        let (mut month_began, mut year_began, mut week_began) = (-365, -365, -367);
        let mut days = dates().take_while(|(_, (year, ..))| *year < 2257).peekable();
        while let Some((day, (year, month, of_month))) = days.next() {
            if of_month == 1 {
                month_began = day;
                if month == 0 {
                    year_began = day;
                }
            }
            // 1968-12-30, a Monday, is 367 days before 1970.
            if day - week_began == 7 {
                week_began = day;
            }
            assert_eq!(Period::Day.around(day), (day, 1));
            assert_eq!(Period::Week.around(day), (week_began, 7));
            assert_eq!(Period::Month.around(day).0, month_began, "{year}-{}-{of_month}", month + 1);
            assert_eq!(Period::Year.around(day).0, year_began, "{year}-{}-{of_month}", month + 1);
            if let Some((next, (_, next_month, 1))) = days.peek() {
                assert_eq!(Period::Month.around(day), (month_began, next - month_began));
                if *next_month == 0 {
                    assert_eq!(Period::Year.around(day), (year_began, next - year_began));
                }
            }
        }
    }

    /// The window of a moment, as its first and its last microsecond.
    fn span(period: Period, offset: i64, now: i64) -> (i64, i64) {
        let (length, align) = Calendar { period, offset }.window(Micros::new(now as u64));
        let (length, align) = (length.get() as i64, align.get() as i64);
        assert!(align < length);
        let start = now - (now - align).rem_euclid(length);
        (start, start + length - 1)
    }

    #[test]
    fn a_period_lasts_from_its_first_microsecond_to_its_last() {
        const HOUR: i64 = DAY / 24;
        // 2024-02-01, a leap year's; 2100 is none.
        for (period, first_day, days, sentence) in [
            (Period::Month, 19_754, 29, "February 2024"),
            (Period::Month, 47_513, 28, "February 2100"),
            (Period::Month, 11_017, 31, "March 2000"),
            (Period::Year, 19_723, 366, "2024"),
            (Period::Year, 47_482, 365, "2100"),
            (Period::Week, 19_751, 7, "from Monday, 2024-01-29"),
            (Period::Day, 19_782, 1, "2024-02-29"),
        ] {
            for offset in [0, 8 * HOUR, -8 * HOUR, DAY, -DAY, 1, -1] {
                let (first, last) =
                    (first_day * DAY + offset, (first_day + days) * DAY + offset - 1);
                for now in [first, first + 1, (first + last) / 2, last - 1, last] {
                    assert_eq!(span(period, offset, now), (first, last), "{sentence}, {offset}");
                }
                assert_eq!(
                    span(period, offset, first - 1).1,
                    first - 1,
                    "the one before {sentence}"
                );
                assert_eq!(span(period, offset, last + 1).0, last + 1, "the one after {sentence}");
            }
        }
    }

    #[test]
    fn periods_that_began_before_1970_and_that_end_after_the_last_moment() {
        let last = Micros::MAX_MOMENT.get() as i64;
        for period in [Period::Day, Period::Week, Period::Month, Period::Year] {
            for now in [0, 1, DAY - 1, last - 1, last] {
                for offset in [0, DAY, -DAY] {
                    let (first, end) = span(period, offset, now);
                    assert!((first..=end).contains(&now));
                }
            }
        }
        assert_eq!(span(Period::Year, DAY, 0), (-364 * DAY, DAY - 1), "1969 ends a day late");
    }
}
