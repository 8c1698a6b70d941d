//! Options that are not a rule's: what the looking commands take, and the moment that decides.

use super::errors::Error;
use crate::limiter::Micros;
use crate::limiter::rule::{Options, Word};
use crate::redis::{Args, clock, config};

/// Reads the options that `accepted` names; nothing else may follow.
pub(super) fn read_all<'a>(
    mut args: Args<'a>,
    accepted: &'static [Word],
) -> Result<Options<'a>, Error> {
    let options = Options::read(&mut args, accepted)?;
    if args.next().is_some() { Err(Error::Unknown(accepted)) } else { Ok(options) }
}

/// The moment that decides: the server's own, unless it lets clients give it.
pub(super) fn moment(at: Option<Micros>) -> Result<Micros, Error> {
    match at {
        None => Ok(clock::now()),
        Some(at) if config::client_clock() => Ok(at),
        Some(_) => Err(Error::AtRefused),
    }
}
