//! `RL.MULTI numkeys key [key ...] limit [limit ...] [FORCE] [AT microseconds]`

use super::decide::{Strings, read_limits, row, row_as_it_stands, state_for};
use super::errors::Error;
use super::internal::apply_and_replicate;
use super::options::{Options, Word};
use crate::limiter::codec::{Change, Effect};
use crate::limiter::limits::parse_integer;
use crate::limiter::{self, Algorithm, Decision, Limits, Micros, Request};
use crate::redis::{Arg, Args, Call, Key, stats};

/// The most keys of one call.
pub const MAX_KEYS: u64 = 128;

/// The options at the end.
const WORDS: &[Word] = &[Word::Force, Word::At];

/// One limit of the call, on its key.
struct Row<'a> {
    key: Key<'a>,
    limits: Limits,
    cost: u64,
    decision: Decision,
}

/// Decides several limits at once: all grant, or nothing is taken from any.
pub fn run(call: &Call<'_>) -> Result<(), Error> {
    let mut args = call.args();
    let names = read_keys(&mut args)?;
    let limits = names.iter().map(|_| read_limit(&mut args)).collect::<Result<Vec<_>, _>>()?;
    if args.peek().is_some_and(|word| Algorithm::read(word).is_some()) {
        return Err(Error::LimitsAndKeys);
    }
    let options = Options::read_all(args, WORDS)?;
    let now = options.now()?;

    let mut rows = names
        .iter()
        .zip(limits)
        .map(|(&name, (limits, cost))| {
            let mut key = Key::write(call, name);
            let state = state_for(&mut key, &limits, now, Strings::Foreign)?;
            let request = Request { cost, mode: options.request().mode };
            let decision = limiter::decide(state.as_deref(), &limits, now, request);
            Ok(Row { key, limits, cost, decision })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    match rows.iter().position(|row| !row.decision.allowed) {
        None => {
            take_all(call, &mut rows, now)?;
            reply_granted(call, &rows);
        }
        Some(refused) => reply_refused(call, &mut rows, refused, now),
    }
    Ok(())
}

/// Reads `numkeys key [key ...]`.
fn read_keys<'a>(args: &mut Args<'a>) -> Result<Vec<Arg<'a>>, Error> {
    let count = args.next().and_then(|count| parse_integer(count.bytes(), MAX_KEYS));
    let count = count.filter(|&count| count > 0).ok_or(Error::NumKeys)?;
    let names: Vec<_> = args.take(usize::try_from(count).unwrap_or_default()).collect();
    if names.len() as u64 != count {
        return Err(Error::NumKeys);
    }
    let mut sorted: Vec<_> = names.iter().map(|name| name.bytes()).collect();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
        return Err(Error::SameKey);
    }
    Ok(names)
}

/// Reads `ALGORITHM limit… [COST n]`.
fn read_limit(args: &mut Args<'_>) -> Result<(Limits, u64), Error> {
    let name = args.next().ok_or(Error::LimitsAndKeys)?.bytes();
    let algorithm = Algorithm::read(name).ok_or(Error::Algorithm)?;
    let words: &[Word] = match algorithm {
        Algorithm::FixedWindow => &[Word::Cost, Word::Align],
        Algorithm::Sliding => &[Word::Cost, Word::Buckets],
        Algorithm::TokenBucket | Algorithm::LeakyBucket | Algorithm::SlidingLog => &[Word::Cost],
    };
    let (limits, options) = read_limits(args, algorithm, words)?;
    Ok((limits, options.request().cost))
}

/// Takes from all; from none, if there is no memory for one of them.
fn take_all(call: &Call<'_>, rows: &mut [Row<'_>], now: Micros) -> Result<(), Error> {
    let grows = rows.iter_mut().any(|row| {
        let state = row.key.limiter().map(|limiter| &*limiter);
        row.decision.taken > 0 && limiter::must_allocate(state, &row.limits, now)
    });
    if grows && call.is_out_of_memory() {
        return Err(Error::OutOfMemory);
    }
    for row in rows {
        if row.cost > 0 {
            let change = Change::Grant(row.decision.taken);
            let effect = Effect { limits: row.limits, at: now, change };
            apply_and_replicate(call, &mut row.key, &effect);
            stats::count(row.limits.algorithm(), true);
        }
    }
    Ok(())
}

fn reply_granted(call: &Call<'_>, rows: &[Row<'_>]) {
    let turn = rows.iter().filter_map(|row| row.decision.wait).max().unwrap_or(Micros::ZERO);
    reply_head(call, rows.len(), [1, turn.millis_up(), -1]);
    for answer in rows {
        call.reply_integers(&row(&answer.decision));
    }
}

fn reply_refused(call: &Call<'_>, rows: &mut [Row<'_>], refused: usize, now: Micros) {
    let refusing = || rows.iter().filter(|row| !row.decision.allowed);
    let longest = refusing().map(|row| row.decision.wait).max().flatten();
    let never = refusing().any(|row| row.decision.wait.is_none());
    let wait = longest.filter(|_| !never).map_or(-1, Micros::millis_up);
    refusing().for_each(|row| stats::count(row.limits.algorithm(), false));
    reply_head(call, rows.len(), [0, wait, i64::try_from(refused).unwrap_or(i64::MAX)]);
    for row in rows {
        let state = row.key.limiter().map(|limiter| &*limiter);
        let look = limiter::decide(state, &row.limits, now, Request::LOOK);
        call.reply_integers(&row_as_it_stands(&row.decision, &look));
    }
}

/// `allowed`, `wait_ms` and `refused`; the rows follow.
fn reply_head(call: &Call<'_>, rows: usize, head: [i64; 3]) {
    call.reply_array(rows.saturating_add(head.len()));
    for value in head {
        call.reply_integer(value);
    }
}
