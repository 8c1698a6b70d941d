//! `RL.PEEK key [COST n] [AT microseconds]`

use super::decide::row_as_it_stands;
use super::errors::Error;
use super::options::{Options, Word};
use crate::limiter::Request;
use crate::redis::{Call, Held, Key};

/// The options.
pub const WORDS: &[Word] = &[Word::Cost, Word::At];

/// Looks: what a request would be answered under the limits of the last grant.
pub fn run(call: &Call<'_>) -> Result<(), Error> {
    let mut args = call.args();
    let name = args.next().ok_or(Error::TooFew)?;
    let options = Options::read_all(args, WORDS)?;
    let now = options.now()?;

    match Key::read(call, name).held() {
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
