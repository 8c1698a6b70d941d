//! `RL.RELEASE key id [id ...] [AT microseconds]`

use super::errors::Error;
use super::holders::{self, Holders};
use super::settle::change_leases;
use crate::limiter::Limits;
use crate::limiter::effect::{Change, Effect};
use crate::redis::{Call, WriteKey, stats};

/// Gives leases back, if they are still held.
pub(super) fn run(call: &Call<'_>) -> Result<(), Error> {
    let mut args = call.args();
    let name = args.key().ok_or(Error::TooFew)?;
    let Holders { ids, now } = Holders::read(args)?;

    let mut key = WriteKey::open(call, name);
    let Some(limits) = holders::limits_of(&key, now)? else {
        call.reply_integer(0);
        return Ok(());
    };
    let released = change_leases(call, &mut key, ids, |id| Effect {
        limits: Limits::Leases(limits),
        at: now,
        change: Change::Release(id),
    });
    stats::count_released(released);
    call.reply_integer(released.cast_signed());
    Ok(())
}
