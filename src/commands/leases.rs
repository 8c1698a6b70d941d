//! `RL.LEASES key [COUNT n] [AT microseconds]`

use super::errors::Error;
use super::holders::limits_of;
use super::options::{moment, read_all};
use crate::limiter::Limiter;
use crate::limiter::rule::Word;
use crate::redis::{Call, ReadKey};

/// Lists the leases that are held, the soonest to run out first.
pub(super) fn run(call: &Call<'_>) -> Result<(), Error> {
    let mut args = call.args();
    let name = args.key().ok_or(Error::TooFew)?;
    let options = read_all(args, &[Word::Count, Word::At])?;
    let now = moment(options.at)?;

    let key = ReadKey::open(call, name);
    limits_of(&key, now)?;
    let Some(leases) = key.limiter().and_then(Limiter::leases) else {
        call.reply_array(0);
        return Ok(());
    };
    let count = leases.count(now).min(options.count.unwrap_or(usize::MAX));
    call.reply_array(count);
    for lease in leases.held(now).take(count) {
        call.reply_array(3);
        call.reply_bytes(lease.id.as_bytes());
        call.reply_integer(lease.units.cast_signed());
        call.reply_integer(lease.expiry().since(now).millis_up());
    }
    Ok(())
}
