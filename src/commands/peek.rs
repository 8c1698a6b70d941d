//! `RL.PEEK key [COST n] [AT microseconds]`

use super::errors::Error;
use super::options::{moment, read_all};
use super::reply::row_as_it_stands;
use crate::limiter::Request;
use crate::limiter::rule::Word;
use crate::redis::{Call, Held, ReadKey};

/// Looks: what a request would be answered under the limits of the last grant.
pub(super) fn run(call: &Call<'_>) -> Result<(), Error> {
    let mut args = call.args();
    let name = args.key().ok_or(Error::TooFew)?;
    let options = read_all(args, &[Word::Cost, Word::At])?;
    let now = moment(options.at)?;

    match ReadKey::open(call, name).held() {
        Held::Foreign => return Err(Error::NotALimiter),
        Held::Limiter(limiter) if !limiter.is_idle(now) => {
            let decision = limiter.peek(now, options.request());
            let look = limiter.peek(now, Request::LOOK);
            call.reply_integers(&row_as_it_stands(&decision, &look));
        }
        Held::Nothing | Held::Limiter(_) => call.reply_null(),
    }
    Ok(())
}
