//! `RL.SETTLE numkeys key [key ...] reserved used [AT microseconds]`

use std::cmp::Ordering;

use super::errors::Error;
use super::keys::{Names, limits_in_use, report_keys};
use super::options::{moment, read_all};
use super::reply::reply_peek;
use super::settle::carry_out_all;
use crate::limiter::effect::{Change, Effect};
use crate::limiter::limits::parse_units;
use crate::limiter::rule::Word;
use crate::limiter::{Limits, Micros, Mode, Request, decide_and_plan};
use crate::redis::{Call, WriteKey};

/// Gives back or takes the difference between what was reserved and what was used, on every key.
pub(super) fn run(call: &Call<'_>) -> Result<(), Error> {
    if call.asks_for_keys() {
        return report_keys(call);
    }
    let mut args = call.args();
    let names = Names::read(&mut args)?;
    let mut units = || args.next().ok_or(Error::TooFew);
    let reserved = parse_units(units()?).ok_or(Error::Reserved)?;
    let used = parse_units(units()?).ok_or(Error::Used)?;
    let now = moment(read_all(args, &[Word::At])?.at)?;
    if names.has_twice() {
        return Err(Error::SameKey);
    }
    let mut keys = Vec::with_capacity(names.len());
    for name in names {
        let key = WriteKey::open(call, name);
        let limits = limits_in_use(&key, now)?;
        keys.push((key, limits));
    }

    let change = match used.cmp(&reserved) {
        Ordering::Less => Some(Change::Refund(reserved.saturating_sub(used))),
        Ordering::Equal => None,
        Ordering::Greater => {
            let more = used.saturating_sub(reserved);
            if keys.iter().any(|(key, limits)| must_allocate(key, limits.as_ref(), now, more))
                && call.is_out_of_memory()
            {
                return Err(Error::OutOfMemory);
            }
            Some(Change::Grant(more))
        }
    };
    if let Some(change) = change {
        let effects = keys.iter_mut().filter_map(|(key, limits)| {
            let limits = limits.as_ref().copied()?;
            Some((key, Effect { limits, at: now, change }))
        });
        carry_out_all(call, effects);
    }

    call.reply_array(keys.len());
    for (key, limits) in &keys {
        match limits {
            Some(limits) => reply_peek(call, key.limiter(), limits, now),
            None => call.reply_null(),
        }
    }
    Ok(())
}

/// Whether taking more of a key needs memory that is not there yet.
fn must_allocate(key: &WriteKey<'_>, limits: Option<&Limits>, now: Micros, units: u64) -> bool {
    let request = Request { cost: units, mode: Mode::Force };
    limits.is_some_and(|limits| {
        decide_and_plan(key.limiter(), limits.into(), now, request).1.must_allocate
    })
}
