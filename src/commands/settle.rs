//! What follows a decision, for one key or for many: memory, effect, replication, counting, events.
//!
//! A command that decides is not replicated as it came, since another server would decide at another time. Its effects
//! are, as one call of [`ADD_COMMAND`] for all keys. [`apply`] carries an effect out, on the primary as on its replicas.

use std::ffi::CStr;

use super::attempt::Attempt;
use super::errors::Error;
use crate::limiter::effect::{self, After, Before, Change, Effect};
use crate::limiter::leases::Leases;
use crate::limiter::{Id, Limiter, Micros};
use crate::redis::{Arg, Call, Event, WriteKey, stats, top};

/// The internal command that applies effects: `RL._ADD key effect [key effect ...]`.
pub(super) const ADD_COMMAND: &CStr = c"RL._ADD";

/// Settles what was decided at `now`: takes from all keys if all requests are granted, from none otherwise, or if there is
/// no memory for one of them. A denial counts for its limiter's block, if there is memory for that.
// A command on one key then has no loops left.
#[inline(always)]
pub(super) fn settle<'a>(
    call: &Call<'a>,
    attempts: &mut [Attempt<'a>],
    now: Micros,
) -> Result<(), Error> {
    let granted = attempts.iter().all(|attempt| attempt.decision.allowed);
    if granted {
        if attempts.iter().any(|attempt| attempt.plan.must_allocate) && call.is_out_of_memory() {
            return Err(Error::OutOfMemory);
        }
        take(call, attempts, now);
    } else if attempts.iter().any(|attempt| attempt.rule.penalty.is_some()) {
        count_denials(call, attempts, now);
    }
    for attempt in attempts {
        // A request for nothing is none, and one that only another's refusal stopped is neither granted nor denied.
        if attempt.rule.request.cost > 0 && attempt.decision.allowed == granted {
            stats::count(attempt.rule.limits().algorithm(), granted);
            if !granted {
                top::count(call, attempt.key.name(), now);
                if attempt.decision.is_blocked {
                    stats::count_denied_by_block();
                }
            }
        }
    }
    Ok(())
}

/// Counts the denials of those who ask for a block; the decision that begins one says so already.
#[cold]
fn count_denials<'a>(call: &Call<'a>, attempts: &mut [Attempt<'a>], now: Micros) {
    let effects = attempts.iter_mut().filter(|attempt| !attempt.decision.allowed);
    let effects = effects.filter_map(|attempt| {
        let (penalty, limiter) = (attempt.rule.penalty?, attempt.key.limiter()?);
        let denials = limiter.denials_with_one_more(&penalty, now)?;
        if limiter.denials().is_none() && call.is_out_of_memory() {
            return None;
        }
        let effect = Effect { limits: limiter.limits(), at: now, change: Change::Deny(penalty) };
        if let Some((_, duration)) = denials.block() {
            attempt.decision = attempt.decision.while_blocked(duration);
            attempt.began_block = true;
            stats::count_block();
        }
        Some((&mut attempt.key, effect))
    });
    carry_out_all(call, effects);
}

/// Publishes what others may learn of, after the reply.
#[inline(always)]
pub(super) fn publish<'a>(call: &Call<'a>, attempt: Attempt<'a>) {
    Outcome::close(attempt).publish(call);
}

/// The same for several keys.
pub(super) fn publish_all<'a>(call: &Call<'a>, attempts: Vec<Attempt<'a>>) {
    // All keys are closed before the first event.
    let outcomes: Vec<_> = attempts.into_iter().map(Outcome::close).collect();
    for outcome in outcomes {
        outcome.publish(call);
    }
}

/// What others may learn of a key that is closed: see [`Call::publish`].
struct Outcome<'a> {
    key: Arg<'a>,
    denied: bool,
    began_block: bool,
}

impl<'a> Outcome<'a> {
    #[inline(always)]
    fn close(attempt: Attempt<'a>) -> Self {
        let (denied, began_block) = (!attempt.decision.allowed, attempt.began_block);
        Self { key: attempt.key.name(), denied, began_block }
    }

    #[inline(always)]
    fn publish(&self, call: &Call<'a>) {
        if self.denied {
            call.publish(Event::Denied, self.key);
            if self.began_block {
                call.publish(Event::Blocked, self.key);
            }
        }
    }
}

/// Takes what was granted.
#[inline(always)]
fn take<'a>(call: &Call<'a>, attempts: &mut [Attempt<'a>], now: Micros) {
    let effect = |attempt: &Attempt<'a>| {
        let taken = attempt.decision.taken;
        let change = match attempt.rule.holder() {
            Some(id) => Change::Acquire(id, taken),
            None => Change::Grant(taken),
        };
        (taken > 0).then_some(Effect { limits: *attempt.rule.limits(), at: now, change })
    };
    if let [attempt] = attempts {
        if let Some(effect) = effect(attempt) {
            carry_out(call, &mut attempt.key, &effect);
        }
        return;
    }
    let effects = attempts.iter_mut().filter_map(|attempt| {
        let effect = effect(attempt)?;
        Some((&mut attempt.key, effect))
    });
    carry_out_all(call, effects);
}

/// Applies effects to several keys, and replicates them as one command.
pub(super) fn carry_out_all<'k, 'a: 'k>(
    call: &Call<'a>,
    effects: impl Iterator<Item = (&'k mut WriteKey<'a>, Effect<'a>)>,
) {
    let mut batch = call.batch();
    for (key, effect) in effects {
        if apply(key, &effect) {
            batch.push(key.name(), || effect.encode());
        }
    }
    batch.replicate(ADD_COMMAND);
}

/// Changes the leases that these ids hold in a key, and replicates that as one command; how many they were.
pub(super) fn change_leases<'a>(
    call: &Call<'a>,
    key: &mut WriteKey<'a>,
    ids: impl Iterator<Item = &'a [u8]>,
    effect: impl Fn(&'a [u8]) -> Effect<'a>,
) -> u64 {
    let mut batch = call.batch();
    let mut changed = 0;
    for id in ids {
        let effect = effect(id);
        let leases = key.limiter().and_then(Limiter::leases);
        let holds = |(leases, id): (&Leases, Id)| leases.holds(&id, effect.at);
        if leases.zip(Id::new(id)).is_some_and(holds) {
            apply(key, &effect);
            batch.push(key.name(), || effect.encode());
            changed += 1;
        }
    }
    batch.replicate(ADD_COMMAND);
    changed
}

/// Applies an effect to one key, and replicates it.
#[inline]
pub(super) fn carry_out(call: &Call<'_>, key: &mut WriteKey<'_>, effect: &Effect<'_>) {
    if apply(key, effect) {
        call.replicate(ADD_COMMAND, key.name(), || effect.encode());
    }
}

/// Applies an effect to one key; whether it changed anything.
#[inline]
pub(super) fn apply(key: &mut WriteKey<'_>, effect: &Effect<'_>) -> bool {
    let arrival_time = if key.limiter().is_none() { key.arrival_time() } else { None };
    let before = match (key.limiter_mut(), arrival_time) {
        (Some(limiter), _) => Before::Limiter(limiter),
        (None, Some(nanos)) => Before::ArrivalTime(nanos),
        (None, None) => Before::Nothing,
    };
    let idle_at = match effect::apply(before, effect) {
        After::Unchanged => return false,
        After::Gone => {
            key.delete();
            None
        }
        After::Changed { idle_at } => idle_at,
        After::New { limiter, idle_at } => {
            key.set(limiter);
            Some(idle_at)
        }
    };
    if let Some(idle_at) = idle_at
        && let Some(expiry) = effect::new_expiry(key.expiry(), idle_at, effect.at)
    {
        key.set_expiry(expiry);
    }
    key.changed();
    true
}
