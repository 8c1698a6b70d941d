//! `RL.INFO key [AT microseconds]`

use super::errors::Error;
use super::options::{moment, read_all};
use super::reply::row;
use crate::limiter::limits::Resolution;
use crate::limiter::rule::Word;
use crate::limiter::{Limiter, Limits, Micros, Mode, Request};
use crate::redis::{Call, Held, ReadKey};

/// A field's value.
enum Value {
    Text(String),
    Integer(i64),
}

/// Reports everything about a limiter: a map of names and values.
pub(super) fn run(call: &Call<'_>) -> Result<(), Error> {
    let mut args = call.args();
    let name = args.key().ok_or(Error::TooFew)?;
    let now = moment(read_all(args, &[Word::At])?.at)?;

    let key = ReadKey::open(call, name);
    let bytes = key.limiter_bytes();
    match key.held() {
        Held::Foreign => return Err(Error::NotALimiter),
        Held::Limiter(limiter) if !limiter.is_idle(now) => {
            let mut fields = describe(limiter, now);
            fields.push(("bytes", integer(bytes)));
            let denials = limiter.denials().map_or(0, |denials| denials.in_a_row());
            fields.extend((denials > 0).then(|| ("denials", integer(denials))));
            let blocked = limiter.block_left(now).millis_up();
            fields.extend((blocked > 0).then_some(("blocked_ms", Value::Integer(blocked))));
            call.reply_map(fields.len());
            for (name, value) in fields {
                call.reply_bytes(name.as_bytes());
                match value {
                    Value::Text(text) => call.reply_bytes(text.as_bytes()),
                    Value::Integer(integer) => call.reply_integer(integer),
                }
            }
        }
        Held::Nothing | Held::Limiter(_) => call.reply_null(),
    }
    Ok(())
}

fn describe(limiter: &Limiter, now: Micros) -> Vec<(&'static str, Value)> {
    let limits = limiter.limits();
    let [_, limit, _, wait, _] = row(&limiter.peek(now, Request { cost: 1, mode: Mode::Whole }));
    let [_, _, remaining, _, reset] = row(&limiter.peek(now, Request::LOOK));
    let mut fields = vec![
        ("algorithm", Value::Text(limits.algorithm().name().into())),
        ("limit", Value::Integer(limit)),
    ];
    match limits {
        Limits::Bucket(limits) => fields.push(("rate", Value::Text(limits.rate.to_string()))),
        Limits::FixedWindow(limits) => {
            fields.push(("window_us", integer(limits.window.get())));
            fields.extend(limits.align.map(|align| ("align_us", integer(align.get()))));
        }
        Limits::SlidingWindow(limits) => {
            fields.push(("window_us", integer(limits.window.get())));
            if let Resolution::Buckets(buckets) = limits.resolution {
                fields.push(("buckets", integer(buckets)));
            }
        }
        Limits::Leases(limits) => fields.push(("ttl_us", integer(limits.ttl.get()))),
    }
    fields.extend([
        ("used", integer(limiter.used(now))),
        ("remaining", Value::Integer(remaining)),
        ("wait_ms", Value::Integer(wait)),
        ("reset_ms", Value::Integer(reset)),
    ]);
    let what = if limiter.leases().is_some() { "leases" } else { "entries" };
    let count = limiter.entries(now).filter(|&count| count > 0);
    fields.extend(count.map(|count| (what, integer(count))));
    fields
}

fn integer(value: impl TryInto<i64>) -> Value {
    Value::Integer(value.try_into().unwrap_or(i64::MAX))
}
