//! `RL.MULTI numkeys key [key ...] limit [limit ...] [FORCE] [AT microseconds]`

use super::decide::{Strings, read_limits, row, row_as_it_stands, state_for};
use super::errors::Error;
use super::internal::{ADD_COMMAND, apply};
use super::options::{Options, Word};
use crate::limiter::codec::{Change, Effect};
use crate::limiter::limits::parse_integer;
use crate::limiter::{self, Algorithm, Decision, Limits, Micros, Request};
use crate::redis::register::Access;
use crate::redis::{Arg, Args, Call, Key, stats};

/// The most keys of one call.
pub const MAX_KEYS: u64 = 128;

/// The options at the end.
const WORDS: &[Word] = &[Word::Force, Word::At];

/// One limit of the call.
struct Ask<'a> {
    name: Arg<'a>,
    limits: Limits,
    cost: u64,
}

/// What it is answered.
struct Answer<'a> {
    key: Key<'a>,
    decision: Decision,
}

/// Decides several limits at once: all grant, or nothing is taken from any.
pub fn run(call: &Call<'_>) -> Result<(), Error> {
    if call.asks_for_keys() {
        let count = read_count(&mut call.args()).unwrap_or_default();
        call.tell_keys(2, count, Access::Update);
        return Ok(());
    }
    let (asks, rest) = read_asks(call.args())?;
    let options = Options::read_all(rest, WORDS)?;
    let now = options.now()?;

    let mut answers = Vec::with_capacity(asks.len());
    for ask in &asks {
        let mut key = Key::write(call, ask.name);
        let state = state_for(&mut key, &ask.limits, now, Strings::Foreign)?;
        let request = Request { cost: ask.cost, mode: options.request().mode };
        let decision = limiter::decide(state.as_deref(), &ask.limits, now, request);
        answers.push(Answer { key, decision });
    }
    let refused = answers.iter().position(|answer| !answer.decision.allowed);
    match refused {
        None => {
            take_all(call, &asks, &mut answers, now)?;
            reply_granted(call, &answers);
        }
        Some(refused) => reply_refused(call, &asks, &mut answers, refused, now),
    }
    let granted = refused.is_none();
    for (ask, answer) in asks.iter().zip(&answers) {
        if ask.cost > 0 && answer.decision.allowed == granted {
            stats::count(ask.limits.algorithm(), granted);
        }
    }
    Ok(())
}

/// Reads `numkeys key [key ...] limit [limit ...]`; what follows is handed back.
fn read_asks(mut args: Args<'_>) -> Result<(Vec<Ask<'_>>, Args<'_>), Error> {
    let count = read_count(&mut args)?;
    let names = args.clone().take(count);
    args.by_ref().take(count).for_each(drop);

    let mut asks: Vec<Ask<'_>> = Vec::with_capacity(count);
    for name in names {
        let (limits, cost) = read_limit(&mut args)?;
        asks.push(Ask { name, limits, cost });
    }
    if args.peek().is_some_and(|word| Algorithm::read(word).is_some()) {
        return Err(Error::LimitsAndKeys);
    }
    if names_one_twice(&asks) { Err(Error::SameKey) } else { Ok((asks, args)) }
}

/// Reads `numkeys`, as many keys at least being left.
fn read_count(args: &mut Args<'_>) -> Result<usize, Error> {
    let count = args.next().and_then(|count| parse_integer(count.bytes(), MAX_KEYS));
    let count = count.and_then(|count| usize::try_from(count).ok()).filter(|&count| count > 0);
    count.filter(|&count| count <= args.len()).ok_or(Error::NumKeys)
}

fn names_one_twice(asks: &[Ask<'_>]) -> bool {
    /// Up to so many names it is quicker to compare all pairs than to sort them.
    const FEW: usize = 8;
    if asks.len() <= FEW {
        let is_equal = |one: &Ask<'_>, other: &Ask<'_>| one.name.bytes() == other.name.bytes();
        let mut rest = asks;
        while let [first, others @ ..] = rest {
            if others.iter().any(|other| is_equal(first, other)) {
                return true;
            }
            rest = others;
        }
        return false;
    }
    let mut sorted: Vec<_> = asks.iter().map(|ask| ask.name.bytes()).collect();
    sorted.sort_unstable();
    sorted.windows(2).any(|pair| matches!(pair, [one, other] if one == other))
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
fn take_all(
    call: &Call<'_>,
    asks: &[Ask<'_>],
    answers: &mut [Answer<'_>],
    now: Micros,
) -> Result<(), Error> {
    let grows = asks.iter().zip(&mut *answers).any(|(ask, answer)| {
        let state = answer.key.limiter().map(|limiter| &*limiter);
        answer.decision.taken > 0 && limiter::must_allocate(state, &ask.limits, now)
    });
    if grows && call.is_out_of_memory() {
        return Err(Error::OutOfMemory);
    }
    let mut batch = call.batch();
    for (ask, answer) in asks.iter().zip(answers) {
        if answer.decision.taken > 0 {
            let change = Change::Grant(answer.decision.taken);
            let effect = Effect { limits: ask.limits, at: now, change };
            apply(&mut answer.key, &effect);
            batch.push(ask.name, || effect.encode());
        }
    }
    batch.replicate(ADD_COMMAND);
    Ok(())
}

fn reply_granted(call: &Call<'_>, answers: &[Answer<'_>]) {
    let turn = answers.iter().filter_map(|answer| answer.decision.wait).max();
    reply_head(call, answers.len(), [1, turn.map_or(0, Micros::millis_up), -1]);
    for answer in answers {
        call.reply_integers(&row(&answer.decision));
    }
}

fn reply_refused(
    call: &Call<'_>,
    asks: &[Ask<'_>],
    answers: &mut [Answer<'_>],
    refused: usize,
    now: Micros,
) {
    let mut refusing = answers.iter().filter(|answer| !answer.decision.allowed);
    // `None`, a wait without end, makes the whole one endless.
    let longest = refusing.try_fold(Micros::ZERO, |longest, answer| {
        answer.decision.wait.map(|wait| wait.max(longest))
    });
    let refused = i64::try_from(refused).unwrap_or(i64::MAX);
    reply_head(call, answers.len(), [0, longest.map_or(-1, Micros::millis_up), refused]);
    for (ask, answer) in asks.iter().zip(answers) {
        let state = answer.key.limiter().map(|limiter| &*limiter);
        let look = limiter::decide(state, &ask.limits, now, Request::LOOK);
        call.reply_integers(&row_as_it_stands(&answer.decision, &look));
    }
}

/// `allowed`, `wait_ms` and `refused`; the rows follow.
fn reply_head(call: &Call<'_>, rows: usize, head: [i64; 3]) {
    call.reply_array(rows.saturating_add(head.len()));
    for value in head {
        call.reply_integer(value);
    }
}
