//! `RL.MULTI numkeys key [key ...] limit [limit ...] [FORCE] [AT microseconds]`

use super::attempt::{Attempt, Strings};
use super::errors::Error;
use super::keys::{Names, report_keys};
use super::options::{moment, read_all};
use super::reply::{row, row_as_it_stands};
use super::settle::{publish_all, settle};
use crate::limiter::rule::{Rule, Word};
use crate::limiter::{Algorithm, Micros, Mode, Request, decide};
use crate::redis::{Args, Call, WriteKey, config};

/// Decides several limits at once: all grant, or nothing is taken from any.
pub(super) fn run(call: &Call<'_>) -> Result<(), Error> {
    if call.asks_for_keys() {
        return report_keys(call);
    }
    let (mut attempts, rest) = read_attempts(call)?;
    let options = read_all(rest, &[Word::Force, Word::At])?;
    let (now, mode) = (moment(options.at)?, options.request().mode);
    for attempt in &mut attempts {
        if mode == Mode::Force && attempt.rule.limits().algorithm() == Algorithm::Concurrency {
            return Err(Error::ForceAndConcurrency);
        }
        attempt.rule.request.mode = mode;
        attempt.decide(now, Strings::Foreign)?;
    }
    settle(call, &mut attempts, now)?;
    match attempts.iter().position(|attempt| !attempt.decision.allowed) {
        None => reply_granted(call, &attempts),
        Some(refused) => {
            reply_refused(call, &attempts, refused, now);
            publish_all(call, attempts);
        }
    }
    Ok(())
}

/// Reads `numkeys key [key ...] limit [limit ...]`, and opens the keys; what follows is handed back.
fn read_attempts<'a>(call: &Call<'a>) -> Result<(Vec<Attempt<'a>>, Args<'a>), Error> {
    let mut args = call.args();
    let names = Names::read(&mut args)?;
    let mut attempts = Vec::with_capacity(names.len());
    for name in names.clone() {
        if args.len() == 0 {
            return Err(Error::LimitsAndKeys);
        }
        let rule = Rule::read(&mut args, config::max_log_entries())?;
        // One that is named twice must not be open twice.
        if !names.has_twice() {
            attempts.push(Attempt::new(WriteKey::open(call, name), rule));
        }
    }
    if args.peek().is_some_and(|word| Algorithm::read(word).is_some()) {
        return Err(Error::LimitsAndKeys);
    }
    if names.has_twice() { Err(Error::SameKey) } else { Ok((attempts, args)) }
}

fn reply_granted(call: &Call<'_>, attempts: &[Attempt<'_>]) {
    let delay = attempts.iter().filter_map(|attempt| attempt.decision.wait).max();
    reply_head(call, attempts.len(), [1, delay.map_or(0, Micros::millis_up), -1]);
    for attempt in attempts {
        call.reply_integers(&row(&attempt.decision));
    }
}

fn reply_refused(call: &Call<'_>, attempts: &[Attempt<'_>], refused: usize, now: Micros) {
    let mut refusing = attempts.iter().filter(|attempt| !attempt.decision.allowed);
    // `None`, a wait without end, makes the whole one endless.
    let longest = refusing.try_fold(Micros::ZERO, |longest, attempt| {
        attempt.decision.wait.map(|wait| wait.max(longest))
    });
    let refused = i64::try_from(refused).unwrap_or(i64::MAX);
    reply_head(call, attempts.len(), [0, longest.map_or(-1, Micros::millis_up), refused]);
    for attempt in attempts {
        let look = decide(attempt.key.limiter(), attempt.rule.limits(), now, Request::LOOK);
        call.reply_integers(&row_as_it_stands(&attempt.decision, &look));
    }
}

/// `allowed`, `wait_ms` and `refused`; the rows follow.
fn reply_head(call: &Call<'_>, rows: usize, head: [i64; 3]) {
    call.reply_array(rows.saturating_add(head.len()));
    for value in head {
        call.reply_integer(value);
    }
}
