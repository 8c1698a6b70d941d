//! `RL.TOP [[COUNT n] [AT microseconds] | RESET]`

use super::errors::{Error, MAX_TOP};
use super::options::{moment, read_all};
use crate::limiter::rule::{self, Word};
use crate::redis::{Call, top};

/// How many keys are listed, if the call does not say.
const DEFAULT: usize = 10;

/// Lists the keys that are denied most often, or forgets them.
pub(super) fn run(call: &Call<'_>) -> Result<(), Error> {
    let mut args = call.args();
    if args.peek().is_some_and(|word| word.eq_ignore_ascii_case(b"RESET")) {
        args.next();
        if args.next().is_some() {
            return Err(Error::AfterReset);
        }
        top::clear();
        call.reply_ok();
        return Ok(());
    }
    let options = read_all(args, &[Word::Count, Word::At]).map_err(|error| match error {
        Error::Rule(rule::Error::Count) => Error::TopCount,
        Error::Unknown(_) => Error::TopUnknown,
        other => other,
    })?;
    let count = options.count.unwrap_or(DEFAULT);
    if count > MAX_TOP {
        return Err(Error::TopCount);
    }
    let now = moment(options.at)?;
    top::visit(|sketch| {
        let rows = sketch.map(|sketch| sketch.top(count, now)).unwrap_or_default();
        call.reply_array(rows.len());
        for row in rows {
            call.reply_array(3);
            call.reply_integer(row.db.into());
            call.reply_bytes(row.name);
            call.reply_integer(row.denials.try_into().unwrap_or(i64::MAX));
        }
    });
    Ok(())
}
