//! `id [id ...] [AT microseconds]`: the holders of leases, and the concurrency limit that they hold them of.

use super::errors::Error;
use super::options::{moment, read_all};
use crate::limiter::limits::LeaseLimits;
use crate::limiter::rule::{self, Word};
use crate::limiter::{Algorithm, Id, Limits, Micros};
use crate::redis::{Args, Held, ReadKey};

/// The holders that a call names, and the moment that decides.
pub(super) struct Holders<I> {
    pub(super) ids: I,
    pub(super) now: Micros,
}

impl<'a> Holders<std::iter::Empty<&'a [u8]>> {
    /// Reads all that is left. The last two words are the option AT if the first of them says so and an id comes before it:
    /// an id may be any bytes.
    pub(super) fn read(
        args: Args<'a>,
    ) -> Result<Holders<impl Iterator<Item = &'a [u8]> + 'a>, Error> {
        let mut options = args.clone();
        let mut count = args.len();
        if let Some(before) = count.checked_sub(2).filter(|&before| before > 0) {
            options.by_ref().take(before).for_each(drop);
            if options.peek().is_some_and(|word| Word::At.is(word)) {
                count = before;
            } else {
                options.by_ref().take(2).for_each(drop);
            }
        } else {
            options.by_ref().for_each(drop);
        }
        let now = moment(read_all(options, &[Word::At])?.at)?;
        let ids = args.take(count);
        if count == 0 {
            return Err(Error::TooFew);
        }
        if !ids.clone().all(Id::is_valid) {
            return Err(rule::Error::Id.into());
        }
        Ok(Holders { ids, now })
    }
}

/// The limits of the concurrency limit that a key holds; `None` if it holds none, or one that is idle.
pub(super) fn limits_of(key: &ReadKey<'_>, now: Micros) -> Result<Option<LeaseLimits>, Error> {
    match key.held() {
        Held::Foreign => Err(Error::NotALimiter),
        Held::Limiter(limiter) if !limiter.is_idle(now) => match limiter.limits() {
            Limits::Leases(limits) => Ok(Some(limits)),
            limits => Err(Error::OtherAlgorithm {
                held: limits.algorithm(),
                called: Algorithm::Concurrency,
            }),
        },
        Held::Nothing | Held::Limiter(_) => Ok(None),
    }
}
