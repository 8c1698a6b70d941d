//! `RL.MULTI numkeys key [key ...] limit [limit ...] [FORCE] [AT microseconds]`

use super::decide::{Strings, read_limits, row, row_as_it_stands, state_for};
use super::errors::Error;
use super::internal::{ADD_COMMAND, apply};
use super::options::{Options, Word};
use crate::limiter::codec::{Change, Effect};
use crate::limiter::limits::parse_integer;
use crate::limiter::{self, Algorithm, Decision, Limits, Micros, Mode, Request};
use crate::redis::register::Access;
use crate::redis::{Arg, Args, Call, Key, stats};

/// The most keys of one call.
pub const MAX_KEYS: u64 = 128;

/// The options at the end.
const WORDS: &[Word] = &[Word::Force, Word::At];

/// One limit of the call, and what it is answered.
struct Part<'a> {
    key: Key<'a>,
    limits: Limits,
    cost: u64,
    decision: Decision,
    /// Whether to take what is granted needs memory.
    grows: bool,
}

/// Decides several limits at once: all grant, or nothing is taken from any.
pub fn run(call: &Call<'_>) -> Result<(), Error> {
    if call.asks_for_keys() {
        let count = read_count(&mut call.args()).unwrap_or_default();
        call.tell_keys(2, count, Access::Update);
        return Ok(());
    }
    let (mut parts, rest) = read_parts(call)?;
    let options = Options::read_all(rest, WORDS)?;
    let (now, mode) = (options.now()?, options.request().mode);

    for part in &mut parts {
        part.decide(now, mode)?;
    }
    let refused = parts.iter().position(|part| !part.decision.allowed);
    match refused {
        None => {
            take_all(call, &mut parts, now)?;
            reply_granted(call, &parts);
        }
        Some(refused) => reply_refused(call, &mut parts, refused, now),
    }
    let granted = refused.is_none();
    for part in &parts {
        if part.cost > 0 && part.decision.allowed == granted {
            stats::count(part.limits.algorithm(), granted);
        }
    }
    Ok(())
}

impl Part<'_> {
    fn decide(&mut self, now: Micros, mode: Mode) -> Result<(), Error> {
        let state = state_for(&mut self.key, &self.limits, now, Strings::Foreign)?;
        let request = Request { cost: self.cost, mode };
        self.decision = limiter::decide(state.as_deref(), &self.limits, now, request);
        self.grows =
            self.decision.taken > 0 && limiter::must_allocate(state.as_deref(), &self.limits, now);
        Ok(())
    }
}

/// Reads `numkeys key [key ...] limit [limit ...]`, and opens the keys; what follows is handed back.
fn read_parts<'a>(call: &Call<'a>) -> Result<(Vec<Part<'a>>, Args<'a>), Error> {
    let mut args = call.args();
    let count = read_count(&mut args)?;
    let names = args.clone().take(count);
    args.by_ref().take(count).for_each(drop);
    let twice = names_one_twice(names.clone());

    let mut parts = Vec::with_capacity(count);
    for name in names {
        let (limits, cost) = read_limit(&mut args)?;
        // One that is named twice must not be open twice.
        if !twice {
            let key = Key::write(call, name);
            parts.push(Part { key, limits, cost, decision: Decision::default(), grows: false });
        }
    }
    if args.peek().is_some_and(|word| Algorithm::read(word).is_some()) {
        return Err(Error::LimitsAndKeys);
    }
    if twice { Err(Error::SameKey) } else { Ok((parts, args)) }
}

/// Reads `numkeys`, as many keys at least being left.
fn read_count(args: &mut Args<'_>) -> Result<usize, Error> {
    let count = args.next().and_then(|count| parse_integer(count.bytes(), MAX_KEYS));
    let count = count.and_then(|count| usize::try_from(count).ok()).filter(|&count| count > 0);
    count.filter(|&count| count <= args.len()).ok_or(Error::NumKeys)
}

fn names_one_twice<'a>(mut names: impl ExactSizeIterator<Item = Arg<'a>> + Clone) -> bool {
    /// Up to so many names it is quicker to compare all pairs than to sort them.
    const FEW: usize = 8;
    if names.len() <= FEW {
        while let Some(name) = names.next() {
            let name = name.bytes();
            if names.clone().any(|other| other.bytes() == name) {
                return true;
            }
        }
        return false;
    }
    let mut sorted: Vec<_> = names.map(Arg::bytes).collect();
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
fn take_all(call: &Call<'_>, parts: &mut [Part<'_>], now: Micros) -> Result<(), Error> {
    if parts.iter().any(|part| part.grows) && call.is_out_of_memory() {
        return Err(Error::OutOfMemory);
    }
    let mut batch = call.batch();
    for part in parts {
        if part.decision.taken > 0 {
            let change = Change::Grant(part.decision.taken);
            let effect = Effect { limits: part.limits, at: now, change };
            apply(&mut part.key, &effect);
            batch.push(part.key.name(), || effect.encode());
        }
    }
    batch.replicate(ADD_COMMAND);
    Ok(())
}

fn reply_granted(call: &Call<'_>, parts: &[Part<'_>]) {
    let turn = parts.iter().filter_map(|part| part.decision.wait).max();
    reply_head(call, parts.len(), [1, turn.map_or(0, Micros::millis_up), -1]);
    for part in parts {
        call.reply_integers(&row(&part.decision));
    }
}

fn reply_refused(call: &Call<'_>, parts: &mut [Part<'_>], refused: usize, now: Micros) {
    let mut refusing = parts.iter().filter(|part| !part.decision.allowed);
    // `None`, a wait without end, makes the whole one endless.
    let longest = refusing
        .try_fold(Micros::ZERO, |longest, part| part.decision.wait.map(|wait| wait.max(longest)));
    let refused = i64::try_from(refused).unwrap_or(i64::MAX);
    reply_head(call, parts.len(), [0, longest.map_or(-1, Micros::millis_up), refused]);
    for part in parts {
        let state = part.key.limiter().map(|limiter| &*limiter);
        let look = limiter::decide(state, &part.limits, now, Request::LOOK);
        call.reply_integers(&row_as_it_stands(&part.decision, &look));
    }
}

/// `allowed`, `wait_ms` and `refused`; the rows follow.
fn reply_head(call: &Call<'_>, rows: usize, head: [i64; 3]) {
    call.reply_array(rows.saturating_add(head.len()));
    for value in head {
        call.reply_integer(value);
    }
}
