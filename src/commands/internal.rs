//! `RL._ADD key effect [key effect ...]` and `RL._RESTORE key state`: what replicas, the append-only file and
//! migrating slots receive.

use super::attempt::{Strings, state_for};
use super::errors::Error;
use super::settle::apply;
use crate::limiter::codec;
use crate::limiter::effect::Effect;
use crate::redis::{Arg, Args, Call, Held, WriteKey};

/// `RL._ADD key effect [key effect ...]`
pub(super) fn run_add(call: &Call<'_>) -> Result<(), Error> {
    // All are checked before the first is applied. No key stays open meanwhile, since a caller may name one twice.
    for_each_effect(call.args(), |name, effect| {
        let key = WriteKey::open(call, name);
        state_for(&key, &effect.limits, effect.at, Strings::OfRedisCell)?;
        Ok(())
    })?;
    for_each_effect(call.args(), |name, effect| {
        apply(&mut WriteKey::open(call, name), effect);
        Ok(())
    })?;
    call.replicate_as_is();
    call.reply_ok();
    Ok(())
}

fn for_each_effect<'a>(
    mut args: Args<'a>,
    mut visit: impl FnMut(Arg<'a>, &Effect<'a>) -> Result<(), Error>,
) -> Result<(), Error> {
    while let Some(name) = args.key() {
        let bytes = args.next().ok_or(Error::TooFew)?;
        visit(name, &Effect::decode(bytes).ok_or(Error::Effect)?)?;
    }
    Ok(())
}

/// `RL._RESTORE key state`
pub(super) fn run_restore(call: &Call<'_>) -> Result<(), Error> {
    let mut args = call.args();
    let name = args.key().ok_or(Error::TooFew)?;
    let bytes = args.next().ok_or(Error::TooFew)?;
    let limiter = codec::decode_state(bytes).ok_or(Error::State)?;

    let mut key = WriteKey::open(call, name);
    if let Held::Foreign = key.held() {
        return Err(Error::NotALimiter);
    }
    key.set(limiter);
    key.changed();
    call.replicate_as_is();
    call.reply_ok();
    Ok(())
}
