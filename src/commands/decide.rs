//! The five commands that decide on one key: `key limits... [options]`. Their files say which algorithm they are for.

use super::attempt::{Attempt, Strings};
use super::errors::Error;
use super::options::moment;
use super::reply::row;
use super::settle::{publish, settle};
use crate::limiter::rule::Rule;
use crate::limiter::{Algorithm, Mode};
use crate::redis::{Call, WriteKey, config};

pub(super) fn run(call: &Call<'_>, algorithm: Algorithm) -> Result<(), Error> {
    let mut args = call.args();
    let name = args.key().ok_or(Error::TooFew)?;
    let words = algorithm.command_words();
    let rule = Rule::read_as(algorithm, &mut args, words, config::max_log_entries())?;
    if args.next().is_some() {
        return Err(Error::Unknown(words));
    }
    let now = moment(rule.at)?;

    let mut attempt = Attempt::new(WriteKey::open(call, name), rule);
    attempt.decide(now, Strings::Foreign)?;
    settle(call, std::slice::from_mut(&mut attempt), now)?;

    let partial = rule.request.mode == Mode::Partial;
    call.reply_array(if partial { 6 } else { 5 });
    for integer in row(&attempt.decision) {
        call.reply_integer(integer);
    }
    if partial {
        call.reply_integer(attempt.decision.taken.cast_signed());
    }
    publish(call, attempt);
    Ok(())
}
