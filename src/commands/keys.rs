//! Keys: `numkeys key [key ...]`, each named once, and what is in use of one.

use super::errors::Error;
use crate::limiter::limits::parse_integer;
use crate::limiter::rule::MAX_RULES;
use crate::limiter::{Algorithm, Limits, Micros};
use crate::redis::register::Access;
use crate::redis::{Arg, Args, Call, Held, ReadKey};

/// The names of keys.
#[derive(Clone)]
pub(super) struct Names<'a> {
    rest: Args<'a>,
    count: usize,
    has_twice: bool,
}

impl<'a> Names<'a> {
    /// Reads `numkeys` and that many names.
    pub(super) fn read(args: &mut Args<'a>) -> Result<Self, Error> {
        let count = read_count(args)?;
        let rest = args.clone();
        args.by_ref().take(count).for_each(drop);
        let has_twice = names_one_twice(rest.clone().take(count));
        Ok(Self { rest, count, has_twice })
    }

    /// Whether a key is named more than once.
    pub(super) const fn has_twice(&self) -> bool {
        self.has_twice
    }
}

impl<'a> Iterator for Names<'a> {
    type Item = Arg<'a>;

    fn next(&mut self) -> Option<Arg<'a>> {
        self.count = self.count.checked_sub(1)?;
        self.rest.key()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Names<'_> {}

/// Answers a server that only asks where the keys are.
pub(super) fn report_keys(call: &Call<'_>) -> Result<(), Error> {
    let count = read_count(&mut call.args()).unwrap_or_default();
    call.report_keys(2, count, Access::Update);
    Ok(())
}

/// Reads `numkeys`, with at least that many words left.
fn read_count(args: &mut Args<'_>) -> Result<usize, Error> {
    let count = args.next().and_then(|count| parse_integer(count, MAX_RULES));
    let count = count.and_then(|count| usize::try_from(count).ok()).filter(|&count| count > 0);
    count.filter(|&count| count <= args.len()).ok_or(Error::NumKeys)
}

fn names_one_twice<'a>(mut names: impl ExactSizeIterator<Item = &'a [u8]> + Clone) -> bool {
    /// Up to this many names it is quicker to compare all pairs than to sort them.
    const FEW: usize = 8;
    if names.len() <= FEW {
        while let Some(name) = names.next() {
            if names.clone().any(|other| other == name) {
                return true;
            }
        }
        return false;
    }
    let mut sorted: Vec<_> = names.collect();
    sorted.sort_unstable();
    sorted.windows(2).any(|pair| matches!(pair, [one, other] if one == other))
}

/// The limits of the last grant on a key, if units of it are in use. Leases are given back by id alone: those are an error.
pub(super) fn limits_in_use(key: &ReadKey<'_>, now: Micros) -> Result<Option<Limits>, Error> {
    match key.held() {
        Held::Foreign => Err(Error::NotALimiter),
        Held::Limiter(limiter) if !limiter.is_idle(now) => match limiter.algorithm() {
            Algorithm::Concurrency => Err(Error::LeasesAreReleased),
            _ => Ok(Some(limiter.limits())),
        },
        Held::Nothing | Held::Limiter(_) => Ok(None),
    }
}
