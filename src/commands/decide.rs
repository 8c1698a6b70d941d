//! What the commands that decide have in common: reading limits, and the recipe itself.

use std::borrow::Cow;

use super::errors::Error;
use super::internal::apply_and_replicate;
use super::options::{Options, Word};
use crate::limiter::codec::{Change, Effect};
use crate::limiter::limits::{DEFAULT_BUCKETS, Rate, parse_align, parse_units, parse_window};
use crate::limiter::{self, Algorithm, Decision, Limiter, Limits, Micros, Request};
use crate::redis::{Args, Call, Held, Key, config, stats};

/// Decides on one key: `key limit… [options]`.
pub fn run(call: &Call<'_>, algorithm: Algorithm, words: &'static [Word]) -> Result<(), Error> {
    let mut args = call.args();
    let name = args.next().ok_or(Error::TooFew)?;
    let (limits, options) = read_limits(&mut args, algorithm, words)?;
    if args.next().is_some() {
        return Err(Error::Unknown(words));
    }
    let now = options.now()?;
    let request = options.request();

    let mut key = Key::write(call, name);
    let decision = take(call, &mut key, &limits, now, request, Strings::Foreign)?;

    call.reply_array(if options.partial { 6 } else { 5 });
    for integer in row(&decision) {
        call.reply_integer(integer);
    }
    if options.partial {
        call.reply_integer(decision.taken.cast_signed());
    }
    Ok(())
}

/// Decides on an open key, and takes what is granted.
#[inline]
pub fn take(
    call: &Call<'_>,
    key: &mut Key<'_>,
    limits: &Limits,
    now: Micros,
    request: Request,
    strings: Strings,
) -> Result<Decision, Error> {
    let state = state_for(key, limits, now, strings)?;
    let decision = limiter::decide(state.as_deref(), limits, now, request);
    if decision.taken > 0 {
        let grows = limiter::must_allocate(state.as_deref(), limits, now);
        if grows && call.is_out_of_memory() {
            return Err(Error::OutOfMemory);
        }
        let effect = Effect { limits: *limits, at: now, change: Change::Grant(decision.taken) };
        apply_and_replicate(call, key, &effect);
    }
    if request.cost > 0 {
        stats::count(limits.algorithm(), decision.allowed);
    }
    Ok(decision)
}

/// Reads an algorithm's two positional arguments and its options.
pub fn read_limits<'a>(
    args: &mut Args<'a>,
    algorithm: Algorithm,
    words: &'static [Word],
) -> Result<(Limits, Options<'a>), Error> {
    let first = args.next().ok_or(Error::TooFew)?.bytes();
    let second = args.next().ok_or(Error::TooFew)?.bytes();
    let wrong_limit = match algorithm {
        Algorithm::TokenBucket | Algorithm::LeakyBucket => Error::Capacity,
        Algorithm::FixedWindow | Algorithm::Sliding => Error::Limit,
        Algorithm::SlidingLog => Error::LogLimit(config::max_log_entries()),
    };
    let limit = parse_units(first).ok_or(wrong_limit)?;
    let rate = || Rate::parse(second).ok_or(Error::Rate);
    let window = || parse_window(second).ok_or(Error::Window);
    let (limits, options) = match algorithm {
        Algorithm::TokenBucket => {
            (Limits::token_bucket(limit, rate()?), Options::read(args, words)?)
        }
        Algorithm::LeakyBucket => {
            (Limits::leaky_bucket(limit, rate()?), Options::read(args, words)?)
        }
        Algorithm::FixedWindow => {
            let window = window()?;
            let options = Options::read(args, words)?;
            let align = match options.align {
                Some(text) => Some(parse_align(text, window).ok_or(Error::Align)?),
                None => None,
            };
            (Limits::fixed_window(limit, window, align), options)
        }
        Algorithm::Sliding => {
            let window = window()?;
            let options = Options::read(args, words)?;
            (Limits::sliding(limit, window, options.buckets.unwrap_or(DEFAULT_BUCKETS)), options)
        }
        Algorithm::SlidingLog if limit > config::max_log_entries() => return Err(wrong_limit),
        Algorithm::SlidingLog => {
            (Limits::sliding_log(limit, window()?), Options::read(args, words)?)
        }
    };
    Ok((limits.ok_or(wrong_limit)?, options))
}

/// What a key that holds a string is to a command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Strings {
    /// A key of another kind.
    Foreign,
    /// A limiter, if redis-cell wrote it.
    OfRedisCell,
}

/// The limiter that a key holds, for a call with these limits. One of another algorithm is an error, unless it is as if
/// never used: then it counts as none, and a grant replaces it.
#[inline]
pub fn state_for<'k>(
    key: &'k mut Key<'_>,
    call: &Limits,
    now: Micros,
    strings: Strings,
) -> Result<Option<Cow<'k, Limiter>>, Error> {
    let takes_over = strings == Strings::OfRedisCell && call.algorithm() == Algorithm::TokenBucket;
    if takes_over && let Some(time) = key.arrival_time() {
        return Ok(Limiter::from_arrival_time(call, time, now).map(Cow::Owned));
    }
    match key.held() {
        Held::Nothing => Ok(None),
        Held::Foreign => Err(Error::NotALimiter),
        Held::Limiter(limiter) => {
            let (held, called) = (limiter.algorithm(), call.algorithm());
            if held != called && !limiter.is_idle(now) {
                return Err(Error::OtherAlgorithm { held, called });
            }
            Ok(Some(Cow::Borrowed(limiter)))
        }
    }
}

/// The five integers of a decision.
#[must_use]
pub fn row(decision: &Decision) -> [i64; 5] {
    [
        i64::from(decision.allowed),
        decision.limit.cast_signed(),
        decision.remaining.cast_signed(),
        decision.wait.map_or(-1, Micros::millis_up),
        decision.reset.millis_up(),
    ]
}

/// The five integers of a decision that is not carried out: what remains, and until when, is as it stands.
#[must_use]
pub fn row_as_it_stands(decision: &Decision, look: &Decision) -> [i64; 5] {
    row(&Decision { remaining: look.remaining, reset: look.reset, ..*decision })
}
