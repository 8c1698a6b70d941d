//! The options of all commands: words after the positional arguments, in any order, each once.

use super::errors::Error;
use crate::limiter::limits::{MAX_BUCKETS, parse_integer, parse_units};
use crate::limiter::{Micros, Mode, Request};
use crate::redis::{Args, clock, config};

/// An option's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// `COST n`: the units that a request takes.
    Cost,
    /// `PARTIAL`: take as many as there are.
    Partial,
    /// `FORCE`: take all, into debt.
    Force,
    /// `ALIGN offset`: where windows begin.
    Align,
    /// `BUCKETS n`: how finely a sliding window tells hits apart.
    Buckets,
    /// `AT microseconds`: the moment of a virtual clock.
    At,
}

impl Word {
    const ALL: [Self; 6] =
        [Self::Cost, Self::Partial, Self::Force, Self::Align, Self::Buckets, Self::At];

    /// The word itself.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cost => "COST",
            Self::Partial => "PARTIAL",
            Self::Force => "FORCE",
            Self::Align => "ALIGN",
            Self::Buckets => "BUCKETS",
            Self::At => "AT",
        }
    }

    /// Whether a text is this word, in upper or lower case.
    #[must_use]
    pub fn is(self, text: &[u8]) -> bool {
        self.name().as_bytes().eq_ignore_ascii_case(text)
    }

    fn read(text: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|word| word.is(text))
    }
}

/// The options of one call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// `COST`, if given.
    pub cost: Option<u64>,
    /// `BUCKETS`, if given.
    pub buckets: Option<u16>,
    /// `ALIGN`, if given, as text: what it means depends on the window.
    pub align: Option<&'a [u8]>,
    /// Whether `PARTIAL` was given.
    pub partial: bool,
    /// Whether `FORCE` was given.
    pub force: bool,
    at: Option<Micros>,
}

impl<'a> Options<'a> {
    /// Reads the options that `accepted` names, up to the first word that is none of them.
    pub fn read(args: &mut Args<'a>, accepted: &[Word]) -> Result<Self, Error> {
        // Most calls have none.
        if args.len() == 0 { Ok(Self::default()) } else { Self::read_words(args, accepted) }
    }

    fn read_words(args: &mut Args<'a>, accepted: &[Word]) -> Result<Self, Error> {
        let mut options = Self::default();
        while let Some(word) = args.peek().and_then(Word::read) {
            if !accepted.contains(&word) {
                break;
            }
            args.next();
            options.set(word, args)?;
        }
        if options.partial && options.force {
            return Err(Error::PartialAndForce);
        }
        Ok(options)
    }

    /// Reads the options that `accepted` names; nothing else may follow.
    pub fn read_all(mut args: Args<'a>, accepted: &'static [Word]) -> Result<Self, Error> {
        let options = Self::read(&mut args, accepted)?;
        if args.next().is_some() { Err(Error::Unknown(accepted)) } else { Ok(options) }
    }

    fn set(&mut self, word: Word, args: &mut Args<'a>) -> Result<(), Error> {
        let given_before = match word {
            Word::Cost => self.cost.is_some(),
            Word::Buckets => self.buckets.is_some(),
            Word::Align => self.align.is_some(),
            Word::At => self.at.is_some(),
            Word::Partial => std::mem::replace(&mut self.partial, true),
            Word::Force => std::mem::replace(&mut self.force, true),
        };
        if given_before {
            return Err(Error::Twice(word));
        }
        if matches!(word, Word::Partial | Word::Force) {
            return Ok(());
        }
        let value = args.next().ok_or(Error::NoValue(word))?.bytes();
        match word {
            Word::Cost => self.cost = Some(parse_units(value).ok_or(Error::Cost)?),
            Word::Buckets => self.buckets = Some(parse_buckets(value).ok_or(Error::Buckets)?),
            Word::Align => self.align = Some(value),
            Word::At => self.at = Some(parse_moment(value).ok_or(Error::At)?),
            Word::Partial | Word::Force => {}
        }
        Ok(())
    }

    /// What is asked for: 1 unit unless said otherwise.
    #[must_use]
    pub fn request(&self) -> Request {
        let mode = match (self.partial, self.force) {
            (true, _) => Mode::Partial,
            (_, true) => Mode::Force,
            _ => Mode::Whole,
        };
        Request { cost: self.cost.unwrap_or(1), mode }
    }

    /// The moment that decides: the server's own, unless it lets clients give it.
    pub fn now(&self) -> Result<Micros, Error> {
        match self.at {
            None => Ok(clock::now()),
            Some(at) if config::client_clock() => Ok(at),
            Some(_) => Err(Error::AtRefused),
        }
    }
}

fn parse_buckets(text: &[u8]) -> Option<u16> {
    let buckets = u16::try_from(parse_integer(text, MAX_BUCKETS.into())?).ok()?;
    (buckets > 0).then_some(buckets)
}

fn parse_moment(text: &[u8]) -> Option<Micros> {
    parse_integer(text, Micros::MAX_MOMENT.get()).map(Micros::new)
}
