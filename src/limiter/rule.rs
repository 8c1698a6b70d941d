//! A rule as text: `TOKENBUCKET 100 100/60 COST 2`.
//!
//! ```text
//! rule     = algorithm limits options         RL.MULTI, access logs, tests
//! limits   = capacity rate | limit window     a command has its algorithm in its name
//! options  = { COST n | ALIGN offset | ... }  in any order, each once, upper or lower case
//! ```
//!
//! Rules are read from an iterator of byte strings, up to the first word that does not belong to the rule. What is wrong with
//! one is an [`Error`]; its text is the business of whoever reports it.

use std::num::NonZeroU32;

use super::block::{MAX_AFTER, Penalty};
use super::calendar::{Calendar, Period};
use super::decision::{Mode, Request};
use super::leases::Id;
use super::limits::{
    Algorithm, DEFAULT_BUCKETS, Limits, MAX_BUCKETS, MAX_LEASES, Rate, parse_align, parse_duration,
    parse_integer, parse_units, parse_window,
};
use super::time::Micros;

/// The most rules that are decided at once.
pub(crate) const MAX_RULES: u64 = 128;

/// What is wrong with a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// The name of an algorithm is expected.
    Algorithm,
    /// The capacity of a bucket.
    Capacity,
    /// The limit of a window.
    Limit,
    /// The limit of a log: it is above the most that is allowed.
    LogLimit(u64),
    Rate,
    Window,
    /// The window of FIXEDWINDOW, which may be a calendar's.
    FixedWindow,
    Align,
    /// The alignment of a calendar window.
    CalendarAlign,
    Buckets,
    Cost,
    /// The units of a lease, of which there must be some.
    LeaseCost,
    /// How long a lease lasts.
    Ttl,
    /// The id of a holder.
    Id,
    /// How long a block lasts.
    Block,
    /// How many denials begin a block.
    After,
    /// `AFTER` says when a block begins, but no block is asked for.
    AfterWithoutBlock,
    At,
    Count,
    /// Words are missing.
    TooFew,
    /// An option without its value.
    NoValue(Word),
    /// An option given twice.
    Twice(Word),
    PartialAndForce,
}

/// An option's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// `COST n`: the units that a request takes.
    Cost,
    /// `PARTIAL`: take as many as are free.
    Partial,
    /// `FORCE`: take all, into debt.
    Force,
    /// `ALIGN offset`: when windows begin.
    Align,
    /// `BUCKETS n`: how finely a sliding window tells hits apart.
    Buckets,
    /// `BLOCK duration`: how long a limiter is closed that was asked in spite of its denials.
    Block,
    /// `AFTER n`: after how many of them.
    After,
    /// `AT microseconds`: the moment of a virtual clock.
    At,
    /// `COUNT n`: the most elements of a reply.
    Count,
}

impl Word {
    const ALL: [Self; 9] = [
        Self::Cost,
        Self::Partial,
        Self::Force,
        Self::Align,
        Self::Buckets,
        Self::Block,
        Self::After,
        Self::At,
        Self::Count,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cost => "COST",
            Self::Partial => "PARTIAL",
            Self::Force => "FORCE",
            Self::Align => "ALIGN",
            Self::Buckets => "BUCKETS",
            Self::Block => "BLOCK",
            Self::After => "AFTER",
            Self::At => "AT",
            Self::Count => "COUNT",
        }
    }

    /// Whether a text is this word, in upper or lower case.
    pub(crate) fn is(self, text: &[u8]) -> bool {
        self.name().as_bytes().eq_ignore_ascii_case(text)
    }

    fn read(text: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|word| word.is(text))
    }
}

impl Algorithm {
    /// The options of a rule of this algorithm.
    pub(crate) const fn rule_words(self) -> &'static [Word] {
        use Word::{After, Align, Block, Buckets, Cost};
        match self {
            Self::TokenBucket | Self::LeakyBucket | Self::SlidingLog => &[Cost, Block, After],
            Self::FixedWindow => &[Align, Cost, Block, After],
            Self::Sliding => &[Buckets, Cost, Block, After],
            Self::Concurrency => &[Cost],
        }
    }

    /// The options of this algorithm's own command.
    pub(crate) const fn command_words(self) -> &'static [Word] {
        use Word::{After, Align, At, Block, Buckets, Cost, Force, Partial};
        match self {
            Self::TokenBucket | Self::LeakyBucket | Self::SlidingLog => {
                &[Cost, Partial, Force, Block, After, At]
            }
            Self::FixedWindow => &[Align, Cost, Partial, Force, Block, After, At],
            Self::Sliding => &[Buckets, Cost, Partial, Force, Block, After, At],
            Self::Concurrency => &[Cost, At],
        }
    }
}

/// A rule: limits, and what each request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule<'a> {
    limits: Limits,
    /// The window is that of a calendar, and the one in `limits` means nothing until it is resolved.
    calendar: Option<Calendar>,
    pub(crate) request: Request,
    /// The id under which a lease is acquired.
    holder: Option<&'a [u8]>,
    /// The penalty for those who ask on, if there is one.
    pub(crate) penalty: Option<Penalty>,
    /// The moment of a virtual clock, if one is given.
    pub(crate) at: Option<Micros>,
}

impl<'a> Rule<'a> {
    pub(crate) const fn new(limits: Limits, request: Request) -> Self {
        Self { limits, calendar: None, request, holder: None, penalty: None, at: None }
    }

    /// Reads a rule that begins with the name of its algorithm.
    pub(crate) fn read(
        words: &mut (impl Iterator<Item = &'a [u8]> + Clone),
        max_log_entries: u64,
    ) -> Result<Self, Error> {
        let name = words.next().ok_or(Error::Algorithm)?;
        let algorithm = Algorithm::read(name).ok_or(Error::Algorithm)?;
        Self::read_as(algorithm, words, algorithm.rule_words(), max_log_entries)
    }

    /// Reads the limits of an algorithm, and the options that `accepted` names.
    pub(crate) fn read_as(
        algorithm: Algorithm,
        words: &mut (impl Iterator<Item = &'a [u8]> + Clone),
        accepted: &[Word],
        max_log_entries: u64,
    ) -> Result<Self, Error> {
        let first = words.next().ok_or(Error::TooFew)?;
        let second = words.next().ok_or(Error::TooFew)?;
        let wrong_limit = match algorithm {
            Algorithm::TokenBucket | Algorithm::LeakyBucket => Error::Capacity,
            Algorithm::FixedWindow | Algorithm::Sliding | Algorithm::Concurrency => Error::Limit,
            Algorithm::SlidingLog => Error::LogLimit(max_log_entries),
        };
        let limit = parse_units(first).ok_or(wrong_limit)?;
        let rate = || Rate::parse(second).ok_or(Error::Rate);
        let window = || parse_window(second).ok_or(Error::Window);
        let (mut calendar, mut holder) = (None, None);
        let (limits, options) = match algorithm {
            Algorithm::TokenBucket => {
                (Limits::token_bucket(limit, rate()?), Options::read(words, accepted)?)
            }
            Algorithm::LeakyBucket => {
                (Limits::leaky_bucket(limit, rate()?), Options::read(words, accepted)?)
            }
            Algorithm::FixedWindow => {
                if let Some(window) = parse_window(second) {
                    let options = Options::read(words, accepted)?;
                    let align = |text| parse_align(text, window).ok_or(Error::Align);
                    let align = options.align.map(align).transpose()?;
                    (Limits::fixed_window(limit, window, align), options)
                } else {
                    let period = Period::read(second).ok_or(Error::FixedWindow)?;
                    let options = Options::read(words, accepted)?;
                    let offset = options.align.map(parse_offset).unwrap_or(Some(0));
                    let offset = offset.ok_or(Error::CalendarAlign)?;
                    calendar = Some(Calendar { period, offset });
                    (Limits::fixed_window(limit, Micros::DAY, None), options)
                }
            }
            Algorithm::Sliding => {
                let window = window()?;
                let options = Options::read(words, accepted)?;
                let buckets = options.buckets.unwrap_or(DEFAULT_BUCKETS);
                (Limits::sliding(limit, window, buckets), options)
            }
            Algorithm::SlidingLog if limit > max_log_entries => return Err(wrong_limit),
            Algorithm::SlidingLog => {
                (Limits::sliding_log(limit, window()?), Options::read(words, accepted)?)
            }
            Algorithm::Concurrency => {
                let ttl = parse_window(second).ok_or(Error::Ttl)?;
                let id = words.next().ok_or(Error::TooFew)?;
                holder = Some(Id::is_valid(id).then_some(id).ok_or(Error::Id)?);
                let options = match Options::read(words, accepted) {
                    Err(Error::Cost) | Ok(Options { cost: Some(0), .. }) => Err(Error::LeaseCost),
                    other => other,
                }?;
                (Limits::concurrency(limit, ttl), options)
            }
        };
        let limits = limits.ok_or(wrong_limit)?;
        let (request, penalty) = (options.request(), options.penalty());
        Ok(Self { limits, calendar, request, holder, penalty, at: options.at })
    }

    /// Resolves a calendar window to the period in which `now` lies. Any other limits stay as they are.
    pub(crate) fn resolve(&mut self, now: Micros) {
        if let (Some(calendar), Limits::FixedWindow(limits)) = (self.calendar, &mut self.limits) {
            let (window, align) = calendar.window(now);
            limits.window = window;
            limits.align = Some(align);
        }
    }

    /// The id under which a lease is acquired.
    pub(crate) const fn holder(&self) -> Option<&'a [u8]> {
        self.holder
    }

    /// The limits; those of a calendar window must have been resolved.
    pub(crate) const fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// Options, as they were given.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options<'a> {
    cost: Option<u64>,
    buckets: Option<u16>,
    /// As text: what it means depends on the window.
    align: Option<&'a [u8]>,
    partial: bool,
    force: bool,
    block: Option<Micros>,
    after: Option<NonZeroU32>,
    pub(crate) at: Option<Micros>,
    pub(crate) count: Option<usize>,
}

impl<'a> Options<'a> {
    /// Reads the options that `accepted` names, up to the first word that is none of them.
    pub(crate) fn read(
        words: &mut (impl Iterator<Item = &'a [u8]> + Clone),
        accepted: &[Word],
    ) -> Result<Self, Error> {
        // Most calls have none.
        if words.clone().next().is_none() {
            return Ok(Self::default());
        }
        Self::read_words(words, accepted)
    }

    fn read_words(
        words: &mut (impl Iterator<Item = &'a [u8]> + Clone),
        accepted: &[Word],
    ) -> Result<Self, Error> {
        let mut options = Self::default();
        while let Some(word) = words.clone().next().and_then(Word::read) {
            if !accepted.contains(&word) {
                break;
            }
            words.next();
            options.set(word, words)?;
        }
        if options.partial && options.force {
            return Err(Error::PartialAndForce);
        }
        if options.after.is_some() && options.block.is_none() {
            return Err(Error::AfterWithoutBlock);
        }
        Ok(options)
    }

    fn set(&mut self, word: Word, words: &mut impl Iterator<Item = &'a [u8]>) -> Result<(), Error> {
        let given_before = match word {
            Word::Cost => self.cost.is_some(),
            Word::Buckets => self.buckets.is_some(),
            Word::Align => self.align.is_some(),
            Word::Block => self.block.is_some(),
            Word::After => self.after.is_some(),
            Word::At => self.at.is_some(),
            Word::Count => self.count.is_some(),
            Word::Partial => std::mem::replace(&mut self.partial, true),
            Word::Force => std::mem::replace(&mut self.force, true),
        };
        if given_before {
            return Err(Error::Twice(word));
        }
        let mut value = || words.next().ok_or(Error::NoValue(word));
        match word {
            Word::Cost => self.cost = Some(parse_units(value()?).ok_or(Error::Cost)?),
            Word::Buckets => self.buckets = Some(parse_buckets(value()?).ok_or(Error::Buckets)?),
            Word::Align => self.align = Some(value()?),
            Word::Block => self.block = Some(parse_window(value()?).ok_or(Error::Block)?),
            Word::After => self.after = Some(parse_after(value()?).ok_or(Error::After)?),
            Word::At => self.at = Some(parse_moment(value()?).ok_or(Error::At)?),
            Word::Count => self.count = Some(parse_count(value()?).ok_or(Error::Count)?),
            Word::Partial | Word::Force => {}
        }
        Ok(())
    }

    /// The penalty that is asked for.
    fn penalty(&self) -> Option<Penalty> {
        Penalty::new(self.block?, self.after.map_or(1, NonZeroU32::get))
    }

    /// What is asked for: 1 unit unless the options say otherwise.
    pub(crate) fn request(&self) -> Request {
        let mode = match (self.partial, self.force) {
            (true, _) => Mode::Partial,
            (_, true) => Mode::Force,
            (false, false) => Mode::Whole,
        };
        Request { cost: self.cost.unwrap_or(1), mode }
    }
}

fn parse_buckets(text: &[u8]) -> Option<u16> {
    let buckets = u16::try_from(parse_integer(text, MAX_BUCKETS.into())?).ok()?;
    (buckets > 0).then_some(buckets)
}

fn parse_after(text: &[u8]) -> Option<NonZeroU32> {
    u32::try_from(parse_integer(text, MAX_AFTER.into())?).ok().and_then(NonZeroU32::new)
}

fn parse_count(text: &[u8]) -> Option<usize> {
    let count = usize::try_from(parse_integer(text, MAX_LEASES as u64)?).ok()?;
    (count > 0).then_some(count)
}

fn parse_moment(text: &[u8]) -> Option<Micros> {
    parse_integer(text, Micros::MAX_MOMENT.get()).map(Micros::new)
}

/// Reads the offset of a calendar: at most one day, perhaps negative.
fn parse_offset(text: &[u8]) -> Option<i64> {
    let (is_negative, magnitude) = match text.strip_prefix(b"-") {
        Some(magnitude) => (true, magnitude),
        None => (false, text),
    };
    let offset = parse_duration(magnitude).filter(|&offset| offset <= Micros::DAY)?;
    let offset = offset.get().cast_signed();
    Some(if is_negative { offset.saturating_neg() } else { offset })
}

/// The limits of a rule that names no calendar window.
#[cfg(test)]
pub(crate) fn read_for_test(text: &str) -> Limits {
    let rule = test_rule(text).unwrap_or_else(|error| panic!("no rule, {error:?}: {text}"));
    assert_eq!(rule.calendar, None, "{text}");
    rule.limits
}

#[cfg(test)]
impl Rule<'_> {
    fn limits_at(mut self, now: Micros) -> Limits {
        self.resolve(now);
        self.limits
    }
}

#[cfg(test)]
fn test_rule(text: &str) -> Result<Rule<'_>, Error> {
    let mut words = text.split_whitespace().map(str::as_bytes);
    let rule = Rule::read(&mut words, super::limits::MAX_LOG_ENTRIES)?;
    assert_eq!(words.next(), None, "{text}");
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limiter::Limiter;

    #[test]
    fn a_rule_is_an_algorithm_its_limits_and_its_options_in_any_order() {
        let rate = Rate::parse(b"100/60").unwrap();
        let minute = Micros::new(60_000_000);
        for (text, limits, cost) in [
            ("TOKENBUCKET 100 100/60", Limits::token_bucket(100, rate), 1),
            ("leakybucket 100 100/60 cost 0", Limits::leaky_bucket(100, rate), 0),
            ("FIXEDWINDOW 9 1m", Limits::fixed_window(9, minute, None), 1),
            (
                "FIXEDWINDOW 9 1m Align -1 Cost 7",
                Limits::fixed_window(9, minute, Some(Micros::new(59_000_000))),
                7,
            ),
            ("SLIDING 9 60", Limits::sliding(9, minute, 16), 1),
            ("SLIDING 9 60 COST 2 BUCKETS 3", Limits::sliding(9, minute, 3), 2),
            ("SLIDINGLOG 9 60", Limits::sliding_log(9, minute), 1),
            ("CONCURRENCY 9 60 id", Limits::concurrency(9, minute), 1),
            ("CONCURRENCY 9 60 COST COST 4", Limits::concurrency(9, minute), 4),
        ] {
            let rule = test_rule(text).unwrap();
            assert_eq!(Some(rule.limits_at(Micros::ZERO)), limits, "{text}");
            assert_eq!(rule.request, Request { cost, mode: Mode::Whole }, "{text}");
        }
    }

    #[test]
    fn a_penalty_is_a_duration_and_after_how_many_denials() {
        for (options, penalty) in [
            ("", None),
            ("BLOCK 5m", Penalty::new(Micros::new(300_000_000), 1)),
            ("after 3 COST 2 block 1ms", Penalty::new(Micros::MILLISECOND, 3)),
            ("BLOCK 3650d AFTER 1000000", Penalty::new(Micros::MAX_DURATION, 1_000_000)),
        ] {
            for rule in ["TOKENBUCKET 1 1", "FIXEDWINDOW 1 month", "SLIDING 1 1s"] {
                let text = format!("{rule} {options}");
                assert_eq!(test_rule(&text).unwrap().penalty, penalty, "{text}");
            }
        }
    }

    #[test]
    fn reading_ends_at_the_first_word_that_is_none_of_the_rule() {
        let text = "SLIDING 9 60 COST 2 ALIGN 7";
        let mut words = text.split(' ').map(str::as_bytes);
        Rule::read(&mut words, 10).unwrap();
        assert_eq!(words.collect::<Vec<_>>(), [&b"ALIGN"[..], b"7"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, error) in [
            ("", Error::Algorithm),
            ("TOKEN 1 1", Error::Algorithm),
            ("TOKENBUCKET 1", Error::TooFew),
            ("TOKENBUCKET x 1", Error::Capacity),
            ("TOKENBUCKET 1 x", Error::Rate),
            ("SLIDING -1 1m", Error::Limit),
            ("SLIDING 1 1m COST", Error::NoValue(Word::Cost)),
            ("SLIDING 1 1m COST -1", Error::Cost),
            ("SLIDING 1 1m COST 1 COST 1", Error::Twice(Word::Cost)),
            ("SLIDING 1 1m BUCKETS 0", Error::Buckets),
            ("SLIDING 1 1m BUCKETS 1025", Error::Buckets),
            ("SLIDING 1 1m BLOCK", Error::NoValue(Word::Block)),
            ("SLIDING 1 1m BLOCK 999us", Error::Block),
            ("SLIDING 1 1m BLOCK 3651d", Error::Block),
            ("SLIDING 1 1m BLOCK 1m AFTER 0", Error::After),
            ("SLIDING 1 1m BLOCK 1m AFTER 1000001", Error::After),
            ("SLIDING 1 1m BLOCK 1m AFTER", Error::NoValue(Word::After)),
            ("SLIDING 1 1m BLOCK 1m BLOCK 1m", Error::Twice(Word::Block)),
            ("SLIDING 1 1m AFTER 1 BLOCK 1m AFTER 1", Error::Twice(Word::After)),
            ("SLIDING 1 1m AFTER 1", Error::AfterWithoutBlock),
            ("SLIDING 1 month", Error::Window),
            ("SLIDINGLOG 10000001 1m", Error::LogLimit(10_000_000)),
            ("CONCURRENCY 1 1m", Error::TooFew),
            ("CONCURRENCY 1 999us id", Error::Ttl),
            ("CONCURRENCY 1 1m id COST 0", Error::LeaseCost),
            ("CONCURRENCY 1 1m id COST 1000000000001", Error::LeaseCost),
            ("FIXEDWINDOW 1 fortnight", Error::FixedWindow),
            ("FIXEDWINDOW 1 MONTH", Error::FixedWindow),
            ("FIXEDWINDOW 1 1m ALIGN x", Error::Align),
            ("FIXEDWINDOW 1 month ALIGN x", Error::CalendarAlign),
            ("FIXEDWINDOW 1 month ALIGN 86400.000001", Error::CalendarAlign),
            ("FIXEDWINDOW 1 month ALIGN -25h", Error::CalendarAlign),
        ] {
            assert_eq!(test_rule(text), Err(error), "{text}");
        }
    }

    #[test]
    fn the_options_of_commands_exclude_each_other_where_they_must() {
        let read = |text: &'static str| {
            let mut words = text.split_whitespace().map(str::as_bytes);
            let accepted = Algorithm::Sliding.command_words();
            Options::read(&mut words, accepted).map(|options| (options.request(), options.at))
        };
        let request = |cost, mode| Request { cost, mode };
        for (text, expected) in [
            ("", Ok((request(1, Mode::Whole), None))),
            ("PARTIAL COST 3", Ok((request(3, Mode::Partial), None))),
            ("force AT 5", Ok((request(1, Mode::Force), Some(Micros::new(5))))),
            ("FORCE PARTIAL", Err(Error::PartialAndForce)),
            ("FORCE FORCE", Err(Error::Twice(Word::Force))),
            ("AT 9007199254740992", Err(Error::At)),
            ("AT", Err(Error::NoValue(Word::At))),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    const DAY: u64 = Micros::DAY.get();

    /// The limits of a calendar rule at a moment: the length in days, and the alignment in hours.
    fn calendar(text: &str, now: u64) -> (u64, u64) {
        let Limits::FixedWindow(limits) = test_rule(text).unwrap().limits_at(Micros::new(now))
        else {
            panic!("no fixed window: {text}");
        };
        (limits.window.get() / DAY, limits.align.unwrap().get() / (DAY / 24))
    }

    #[test]
    fn a_calendar_window_is_the_aligned_window_of_the_periods_real_length() {
        let february = 19_754 * DAY; // 2024-02-01
        for (text, now, days) in [
            ("FIXEDWINDOW 9 month", february - 1, 31),
            ("FIXEDWINDOW 9 month", february, 29),
            ("FIXEDWINDOW 9 month", february + 29 * DAY - 1, 29),
            ("FIXEDWINDOW 9 month", february + 29 * DAY, 31),
            ("FIXEDWINDOW 9 month ALIGN 1h", february, 31),
            ("FIXEDWINDOW 9 month ALIGN -1h", february - 1, 29),
            ("FIXEDWINDOW 9 year", february, 366),
            ("FIXEDWINDOW 9 week", february, 7),
            ("FIXEDWINDOW 9 day", february, 1),
        ] {
            assert_eq!(calendar(text, now).0, days, "{text} at {now}");
        }
        assert_eq!(calendar("FIXEDWINDOW 9 day ALIGN -8h", 0), (1, 16));
        assert_eq!(calendar("FIXEDWINDOW 9 week", 0), (7, 4 * 24), "on Monday");
    }

    #[test]
    fn last_months_units_do_not_count_this_month_and_this_months_do_to_its_last_microsecond() {
        // Every month and year from 2023-12 on, by its first day.
        let months =
            [19_692, 19_723, 19_754, 19_783, 19_814, 19_844, 19_875, 19_905].map(|day| day * DAY);
        for offset in ["0", "8h", "-8h", "1d", "-1d", "1us"] {
            let text = format!("FIXEDWINDOW 9 month ALIGN {offset}");
            let rule = test_rule(&text).unwrap();
            let shift = parse_offset(offset.as_bytes()).unwrap();
            for ends in months.windows(2) {
                let [first, next] =
                    [ends[0], ends[1]].map(|at| at.checked_add_signed(shift).unwrap());
                for granted in [first, first + 1, (first + next) / 2, next - 1] {
                    let at = Micros::new(granted);
                    let (limiter, _) = Limiter::first((&rule.limits_at(at)).into(), at, 5);
                    assert_eq!(limiter.idle_at(), Micros::new(next), "{offset}");
                    for (now, used) in [(granted, 5), (next - 1, 5), (next, 0), (next + DAY, 0)] {
                        let limits = rule.limits_at(Micros::new(now));
                        let look = super::super::decide(
                            Some(&limiter),
                            &limits,
                            Micros::new(now),
                            Request::LOOK,
                        );
                        assert_eq!(
                            look.remaining,
                            9 - used,
                            "{offset}, granted {granted}, now {now}"
                        );
                    }
                }
            }
        }
    }
}
