//! `CL.THROTTLE key max_burst count period [quantity] [AT microseconds]`, also as `RL.THROTTLE`
//!
//! What redis-cell answers, from a token bucket. Its GCRA and the token bucket are the same algorithm: its
//! "theoretical arrival time" is the moment when the bucket is full again.

use super::attempt::{Attempt, Strings};
use super::errors::Error;
use super::options::{moment, read_all};
use super::settle::{publish, settle};
use crate::limiter::limits::{Rate, parse_integer, parse_units};
use crate::limiter::rule::{Rule, Word};
use crate::limiter::{Limits, Micros, Mode, Request};
use crate::redis::{Args, Call, WriteKey};

/// Decides as RL.TOKENBUCKET does, and replies as redis-cell does.
pub(super) fn run(call: &Call<'_>) -> Result<(), Error> {
    let mut args = call.args();
    let name = args.key().ok_or(Error::TooFew)?;
    let limits = read_limits(&mut args)?;
    let cost = match args.peek() {
        Some(word) if !Word::At.is(word) => {
            args.next();
            parse_units(word).ok_or(Error::Quantity)?
        }
        _ => 1,
    };
    let now = moment(read_all(args, &[Word::At])?.at)?;

    let request = Request { cost, mode: Mode::Whole };
    let mut attempt = Attempt::new(WriteKey::open(call, name), Rule::new(limits, request));
    attempt.decide(now, Strings::OfRedisCell)?;
    settle(call, std::slice::from_mut(&mut attempt), now)?;
    let decision = attempt.decision;

    let retry_after = match decision.wait {
        Some(wait) if !decision.allowed => seconds_up(wait),
        _ => -1,
    };
    call.reply_integers(&[
        i64::from(!decision.allowed),
        decision.limit.cast_signed(),
        decision.remaining.cast_signed(),
        retry_after,
        seconds_up(decision.reset),
    ]);
    publish(call, attempt);
    Ok(())
}

/// Reads `max_burst count period`.
fn read_limits(args: &mut Args<'_>) -> Result<Limits, Error> {
    let mut next = || args.next().ok_or(Error::TooFew);
    let max_burst = parse_units(next()?).ok_or(Error::MaxBurst)?;
    let count = parse_units(next()?).filter(|&count| count > 0).ok_or(Error::Count)?;
    let period = parse_integer(next()?, Micros::MAX_DURATION.get() / Micros::SECOND.get());
    let period = period.filter(|&period| period > 0).ok_or(Error::Period)?;
    let per_us = period.saturating_mul(Micros::SECOND.get());
    let rate = Rate::new(count, per_us).ok_or(Error::CountPerPeriod)?;
    let capacity = max_burst.saturating_add(1);
    Limits::token_bucket(capacity, rate).ok_or(Error::MaxBurst)
}

/// Whole seconds, rounded up.
fn seconds_up(span: Micros) -> i64 {
    span.millis_up().div_euclid(1_000) + i64::from(span.millis_up().rem_euclid(1_000) > 0)
}
