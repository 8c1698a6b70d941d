//! `RL.REFUND key units [AT microseconds]`

use super::errors::Error;
use super::options::{moment, read_all};
use super::reply::row_as_it_stands;
use super::settle::carry_out;
use crate::limiter::effect::{Change, Effect};
use crate::limiter::limits::parse_units;
use crate::limiter::rule::Word;
use crate::limiter::{Mode, Request, decide};
use crate::redis::{Call, Held, WriteKey};

/// Gives units back, the newest first, and never more than are used.
pub(super) fn run(call: &Call<'_>) -> Result<(), Error> {
    let mut args = call.args();
    let name = args.key().ok_or(Error::TooFew)?;
    let units = args.next().ok_or(Error::TooFew)?;
    let units = parse_units(units).ok_or(Error::Units)?;
    let now = moment(read_all(args, &[Word::At])?.at)?;

    let mut key = WriteKey::open(call, name);
    let limits = match key.held() {
        Held::Foreign => return Err(Error::NotALimiter),
        Held::Limiter(limiter) if !limiter.is_idle(now) => limiter.limits(),
        Held::Nothing | Held::Limiter(_) => {
            call.reply_null();
            return Ok(());
        }
    };
    if units > 0 {
        let effect = Effect { limits, at: now, change: Change::Refund(units) };
        carry_out(call, &mut key, &effect);
    }
    let request = Request { cost: 1, mode: Mode::Whole };
    let decision = decide(key.limiter(), &limits, now, request);
    let look = decide(key.limiter(), &limits, now, Request::LOOK);
    call.reply_integers(&row_as_it_stands(&decision, &look));
    Ok(())
}
