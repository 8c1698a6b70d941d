//! `RL.RENEW key ttl id [id ...] [AT microseconds]`

use super::errors::Error;
use super::holders::{self, Holders};
use super::settle::change_leases;
use crate::limiter::effect::{Change, Effect};
use crate::limiter::limits::parse_window;
use crate::limiter::{Limits, rule};
use crate::redis::{Call, WriteKey};

/// Lets leases last their whole time again, if they are still held.
pub(super) fn run(call: &Call<'_>) -> Result<(), Error> {
    let mut args = call.args();
    let name = args.key().ok_or(Error::TooFew)?;
    let ttl = args.next().and_then(parse_window).ok_or(rule::Error::Ttl)?;
    let Holders { ids, now } = Holders::read(args)?;

    let mut key = WriteKey::open(call, name);
    let Some(limits) = holders::limits_of(&key, now)? else {
        call.reply_integer(0);
        return Ok(());
    };
    let limits = Limits::concurrency(limits.limit, ttl).ok_or(rule::Error::Ttl)?;
    let renewed = change_leases(call, &mut key, ids, |id| Effect {
        limits,
        at: now,
        change: Change::Renew(id),
    });
    call.reply_integer(renewed.cast_signed());
    Ok(())
}
