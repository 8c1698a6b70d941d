//! `RL.REFUND key units [AT microseconds]`

use super::decide::row_as_it_stands;
use super::errors::Error;
use super::internal::apply_and_replicate;
use super::options::{Options, Word};
use crate::limiter::codec::{Change, Effect};
use crate::limiter::limits::parse_units;
use crate::limiter::{Request, decide};
use crate::redis::{Call, Held, Key};

/// The options.
pub const WORDS: &[Word] = &[Word::At];

/// Gives units back, the newest first, and never more than are used.
pub fn run(call: &Call<'_>) -> Result<(), Error> {
    let mut args = call.args();
    let name = args.next().ok_or(Error::TooFew)?;
    let units = args.next().ok_or(Error::TooFew)?;
    let units = parse_units(units.bytes()).ok_or(Error::Units)?;
    let options = Options::read_all(args, WORDS)?;
    let now = options.now()?;

    let mut key = Key::write(call, name);
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
        apply_and_replicate(call, &mut key, &effect);
    }
    let state = key.limiter().map(|limiter| &*limiter);
    let decision = decide(state, &limits, now, options.request());
    let look = decide(state, &limits, now, Request::LOOK);
    call.reply_integers(&row_as_it_stands(&decision, &look));
    Ok(())
}
