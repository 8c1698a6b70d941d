//! One request on one key: the limiter that it meets, and the decision. What follows is in `settle`.

use std::borrow::Cow;

use super::errors::Error;
use crate::limiter::rule::Rule;
use crate::limiter::{self, Algorithm, Decision, Limiter, Limits, Micros, Plan, Terms, effect};
use crate::redis::{Held, ReadKey, WriteKey, config};

/// A request on a key, and what is decided.
pub(super) struct Attempt<'a> {
    pub(super) key: WriteKey<'a>,
    pub(super) rule: Rule<'a>,
    pub(super) decision: Decision,
    pub(super) plan: Plan,
    /// Whether its denial began a block.
    pub(super) began_block: bool,
}

impl<'a> Attempt<'a> {
    /// An attempt that is still to be decided.
    #[inline]
    pub(super) fn new(key: WriteKey<'a>, rule: Rule<'a>) -> Self {
        let (decision, plan) = (Decision::default(), Plan::default());
        Self { key, rule, decision, plan, began_block: false }
    }

    /// Decides the request. Nothing is taken yet.
    #[inline(always)]
    pub(super) fn decide(&mut self, now: Micros, strings: Strings) -> Result<(), Error> {
        self.rule.resolve(now);
        let (limits, holder) = (self.rule.limits(), self.rule.holder());
        let state = state_for(&self.key, limits, now, strings)?;
        let terms = Terms { limits, holder };
        (self.decision, self.plan) =
            limiter::decide_and_plan(state.as_deref(), terms, now, self.rule.request);
        if self.plan.leases > config::max_leases() {
            return Err(Error::TooManyLeases(config::max_leases()));
        }
        Ok(())
    }
}

/// What a key that holds a string is to a command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Strings {
    /// A key of another kind.
    Foreign,
    /// A limiter, if redis-cell wrote it.
    OfRedisCell,
}

/// The limiter that a key holds, for a call with these limits. One of another algorithm is an error, unless it is idle:
/// then it counts as none, and a grant replaces it.
#[inline]
pub(super) fn state_for<'k>(
    key: &'k ReadKey<'_>,
    call: &Limits,
    now: Micros,
    strings: Strings,
) -> Result<Option<Cow<'k, Limiter>>, Error> {
    let takes_over = strings == Strings::OfRedisCell && call.algorithm() == Algorithm::TokenBucket;
    if takes_over && let Some(time) = key.arrival_time() {
        return Ok(effect::from_arrival_time(call, time, now).map(Cow::Owned));
    }
    match key.held() {
        Held::Nothing => Ok(None),
        Held::Foreign => Err(Error::NotALimiter),
        Held::Limiter(limiter) => {
            let (held, called) = (limiter.algorithm(), call.algorithm());
            if held != called && !limiter.is_idle(now) {
                return Err(Error::OtherAlgorithm { held, called });
            }
            Ok(Some(Cow::Borrowed(limiter)))
        }
    }
}
