//! `RL.REFUND key units [AT microseconds]`

use super::errors::Error;
use super::keys::limits_in_use;
use super::options::{moment, read_all};
use super::reply::reply_peek;
use super::settle::carry_out;
use crate::limiter::effect::{Change, Effect};
use crate::limiter::limits::parse_units;
use crate::limiter::rule::Word;
use crate::redis::{Call, WriteKey};

/// Gives units back, the newest first, and never more than are used.
pub(super) fn run(call: &Call<'_>) -> Result<(), Error> {
    let mut args = call.args();
    let name = args.key().ok_or(Error::TooFew)?;
    let units = args.next().ok_or(Error::TooFew)?;
    let units = parse_units(units).ok_or(Error::Units)?;
    let now = moment(read_all(args, &[Word::At])?.at)?;

    let mut key = WriteKey::open(call, name);
    let Some(limits) = limits_in_use(&key, now)? else {
        call.reply_null();
        return Ok(());
    };
    if units > 0 {
        let effect = Effect { limits, at: now, change: Change::Refund(units) };
        carry_out(call, &mut key, &effect);
    }
    reply_peek(call, key.limiter(), &limits, now);
    Ok(())
}
