//! `RL._APPLY key effect` and `RL._RESTORE key state`: what replicas, the append-only file and migrating slots are sent.
//!
//! A grant or a refund replicates its effect. [`apply`] is the one function through which an effect reaches a key, on
//! the primary as on its replicas, so they cannot differ.

use std::ffi::CStr;

use super::decide::{Strings, state_for};
use super::errors::Error;
use crate::limiter::codec::{self, Change, Effect};
use crate::redis::{Call, Held, Key};

/// The internal command that applies an effect.
pub const APPLY_COMMAND: &CStr = c"RL._APPLY";

/// Applies an effect that was decided here, and tells it to those who follow.
pub fn apply_and_replicate(call: &Call<'_>, key: &mut Key<'_>, effect: &Effect) {
    apply(key, effect);
    call.replicate(APPLY_COMMAND, key.name(), &effect.encode());
}

fn apply(key: &mut Key<'_>, effect: &Effect) {
    match effect.change {
        Change::Grant(units) => key.grant(&effect.limits, effect.at, units),
        Change::Refund(units) => key.refund(effect.at, units),
    }
}

/// `RL._APPLY key effect`
pub fn run_apply(call: &Call<'_>) -> Result<(), Error> {
    let mut args = call.args();
    let name = args.next().ok_or(Error::TooFew)?;
    let bytes = args.next().ok_or(Error::TooFew)?.bytes();
    let effect = Effect::decode(bytes).ok_or(Error::Effect)?;

    let mut key = Key::write(call, name);
    state_for(&mut key, &effect.limits, effect.at, Strings::OfRedisCell)?;
    apply(&mut key, &effect);
    call.replicate_as_is();
    call.reply_ok();
    Ok(())
}

/// `RL._RESTORE key state`
pub fn run_restore(call: &Call<'_>) -> Result<(), Error> {
    let mut args = call.args();
    let name = args.next().ok_or(Error::TooFew)?;
    let bytes = args.next().ok_or(Error::TooFew)?.bytes();
    let limiter = codec::decode_state(bytes).ok_or(Error::State)?;

    let mut key = Key::write(call, name);
    if let Held::Foreign | Held::RedisCell(_) = key.held() {
        return Err(Error::NotALimiter);
    }
    key.set(limiter);
    key.changed();
    call.replicate_as_is();
    call.reply_ok();
    Ok(())
}
