//! `RL._ADD key effect [key effect ...]` and `RL._RESTORE key state`: what replicas, the append-only file and
//! migrating slots are sent.
//!
//! A grant or a refund replicates its effect. [`apply`] is the one function through which an effect reaches a key, on
//! the primary as on its replicas, so they cannot differ. What RL.MULTI took from several keys is one call.

use std::ffi::CStr;

use super::decide::{Strings, state_for};
use super::errors::Error;
use crate::limiter::codec::{self, Change, Effect};
use crate::redis::{Arg, Args, Call, Held, Key};

/// The internal command that applies effects.
pub const ADD_COMMAND: &CStr = c"RL._ADD";

/// Applies an effect, and tells it to those who follow.
pub fn apply_and_replicate(call: &Call<'_>, key: &mut Key<'_>, effect: &Effect) {
    apply(key, effect);
    call.replicate(ADD_COMMAND, key.name(), || effect.encode());
}

/// Applies an effect.
#[inline]
pub fn apply(key: &mut Key<'_>, effect: &Effect) {
    match effect.change {
        Change::Grant(units) => key.grant(&effect.limits, effect.at, units),
        Change::Refund(units) => key.refund(effect.at, units),
    }
}

/// `RL._ADD key effect [key effect ...]`
pub fn run_add(call: &Call<'_>) -> Result<(), Error> {
    // All are checked before the first is applied. No key stays open meanwhile, since a caller may name one twice.
    for_each_effect(call.args(), |name, effect| {
        state_for(&mut Key::write(call, name), &effect.limits, effect.at, Strings::OfRedisCell)?;
        Ok(())
    })?;
    for_each_effect(call.args(), |name, effect| {
        apply(&mut Key::write(call, name), effect);
        Ok(())
    })?;
    call.replicate_as_is();
    call.reply_ok();
    Ok(())
}

fn for_each_effect<'a>(
    mut args: Args<'a>,
    mut visit: impl FnMut(Arg<'a>, &Effect) -> Result<(), Error>,
) -> Result<(), Error> {
    while let Some(name) = args.next() {
        let bytes = args.next().ok_or(Error::TooFew)?.bytes();
        visit(name, &Effect::decode(bytes).ok_or(Error::Effect)?)?;
    }
    Ok(())
}

/// `RL._RESTORE key state`
pub fn run_restore(call: &Call<'_>) -> Result<(), Error> {
    let mut args = call.args();
    let name = args.next().ok_or(Error::TooFew)?;
    let bytes = args.next().ok_or(Error::TooFew)?.bytes();
    let limiter = codec::decode_state(bytes).ok_or(Error::State)?;

    let mut key = Key::write(call, name);
    if let Held::Foreign = key.held() {
        return Err(Error::NotALimiter);
    }
    key.set(limiter);
    key.changed();
    call.replicate_as_is();
    call.reply_ok();
    Ok(())
}
