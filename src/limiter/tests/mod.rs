//! The suite of the limiting: one for all five algorithms, on a virtual clock.
//!
//! | file | what it tests |
//! | --- | --- |
//! | `rows` | each algorithm told by examples: read this first |
//! | `against_model` | random histories, each step compared with an obvious, slow model |
//! | `promises` | what the contract promises, each promise under its sentence |
//! | `leases` | the concurrency limit and its model |
//! | `block` | denials in a row, and blocks, by examples |
//! | `clock_steps` | what a clock that steps may do to it |
//! | `rates` | the long-run rate, and the crate `governor` as an independent oracle |
//! | `stored_bytes` | what is stored and replicated, whole, cut, and mutated |
//! | `sizes` | memory |
//! | `top` | which keys are denied most often, beside a slow model and exact counts |
//!
//! `model` is the oracle, `traffic` makes random limits and requests.
//!
//! With `RL_LONG=1` random tests try a hundred times as many cases: a million histories of each algorithm.
//! What once failed is kept under `proptest-regressions` and is tried first.

#![allow(missing_docs, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

mod against_model;
mod block;
mod clock_steps;
mod leases;
mod model;
mod promises;
mod rates;
mod rows;
mod sizes;
mod stored_bytes;
mod top;
mod traffic;

use proptest::prelude::{ProptestConfig, Strategy};
use proptest::test_runner::{FileFailurePersistence, TestError, TestRunner};

use super::block::Penalty;
use super::effect::{self, After, Before, Change, Effect};
use super::{Algorithm, Decision, Limiter, Limits, Micros, Mode, Request, decide, rule};

/// A key on a server that has no server: what the commands do with the pure functions.
#[derive(Clone, Debug, Default, PartialEq)]
struct Key {
    state: Option<Limiter>,
}

impl Key {
    /// Decides, and records what is taken.
    fn ask(&mut self, call: &Limits, now: u64, request: Request) -> Decision {
        let decision = self.would(call, now, request);
        self.record(call, now, decision.taken);
        decision
    }

    /// Decides only.
    fn would(&self, call: &Limits, now: u64, request: Request) -> Decision {
        decide(self.state.as_ref(), call, Micros::new(now), request)
    }

    /// Records a grant of this many units.
    fn record(&mut self, call: &Limits, now: u64, units: u64) {
        if units > 0 {
            let effect =
                Effect { limits: *call, at: Micros::new(now), change: Change::Grant(units) };
            self.apply(&effect);
        }
    }

    /// The effect of a denial, if it counts.
    fn denial(&self, now: u64, penalty: Penalty) -> Option<Effect<'static>> {
        let (state, at) = (self.state.as_ref()?, Micros::new(now));
        state.denials_with_one_more(&penalty, at)?;
        Some(Effect { limits: state.limits(), at, change: Change::Deny(penalty) })
    }

    /// Counts a denial, if it counts; the decision as it is then told.
    fn deny(&mut self, now: u64, penalty: Penalty, told: Decision) -> Decision {
        let Some(effect) = self.denial(now, penalty) else { return told };
        self.apply(&effect);
        let denials = self.state.as_ref().and_then(Limiter::denials).expect("it was counted");
        denials.block().map_or(told, |(_, duration)| told.while_blocked(duration))
    }

    /// Gives units back. What is idle is no key.
    fn refund(&mut self, now: u64, units: u64) {
        let Some(state) = &self.state else { return };
        let at = Micros::new(now);
        if state.is_idle(at) {
            self.state = None;
        } else {
            let effect = Effect { limits: state.limits(), at, change: Change::Refund(units) };
            self.apply(&effect);
        }
    }

    /// Carries an effect out, as primaries and replicas do.
    fn apply(&mut self, effect: &Effect) {
        let before = self.state.as_mut().map_or(Before::Nothing, Before::Limiter);
        match effect::apply(before, effect) {
            After::Unchanged | After::Changed { .. } => {}
            After::New { limiter, .. } => self.state = Some(limiter),
            After::Gone => self.state = None,
        }
    }

    /// Whether the key may be gone by now.
    fn may_expire(&self, now: u64) -> bool {
        self.state.as_ref().is_some_and(|state| state.idle_at() <= Micros::new(now))
    }

    /// What a request would get under the limits of the last grant.
    fn peek(&self, now: u64, request: Request) -> Option<Decision> {
        let state = self.state.as_ref().filter(|state| !state.is_idle(Micros::new(now)))?;
        Some(state.peek(Micros::new(now), request))
    }

    /// The units that count now under the limits of the last grant.
    fn used(&self, now: u64) -> u64 {
        self.state.as_ref().map_or(0, |state| state.used(Micros::new(now)))
    }

    /// The stored bytes, if there are any.
    fn bytes(&self) -> Option<Vec<u8>> {
        self.state.as_ref().map(super::codec::encode_state)
    }
}

/// Reads a rule: `FIXEDWINDOW 5 1d ALIGN -8h`.
fn limits(text: &str) -> Limits {
    rule::read_for_test(text)
}

/// Reads options: `COST 3 PARTIAL`, or nothing for one unit.
fn request(text: &str) -> Request {
    let mut words = text.split_whitespace().map(str::as_bytes);
    let options = rule::Options::read(&mut words, Algorithm::TokenBucket.command_words()).unwrap();
    assert_eq!(words.next(), None, "no option: {text}");
    options.request()
}

/// All or nothing of this many units.
const fn cost(cost: u64) -> Request {
    Request { cost, mode: Mode::Whole }
}

/// The algorithms that count units by time alone. CONCURRENCY has holders: its suite is `leases`.
const BY_TIME: [Algorithm; 5] = [
    Algorithm::TokenBucket,
    Algorithm::LeakyBucket,
    Algorithm::FixedWindow,
    Algorithm::Sliding,
    Algorithm::SlidingLog,
];

/// Tries a promise on random cases of each of these algorithms: the usual number, or a hundred times as many if
/// `RL_LONG=1` asks for it.
fn for_each_algorithm<S: Strategy>(
    usual: u32,
    strategy: impl Fn(Algorithm) -> S,
    promise: impl Fn(S::Value),
) where
    S::Value: Clone,
{
    for algorithm in BY_TIME {
        for_random(algorithm.name(), usual, &strategy(algorithm), &promise);
    }
}

/// Tries a promise on random cases.
fn for_random<S: Strategy>(what: &str, usual: u32, strategy: &S, promise: impl Fn(S::Value))
where
    S::Value: Clone,
{
    let long = std::env::var("RL_LONG").is_ok_and(|value| value == "1");
    let config = ProptestConfig {
        cases: if long { usual.saturating_mul(100) } else { usual },
        failure_persistence: Some(Box::new(FileFailurePersistence::SourceParallel(
            "proptest-regressions",
        ))),
        source_file: Some(file!()),
        max_local_rejects: u32::MAX,
        max_global_rejects: u32::MAX,
        ..ProptestConfig::default()
    };
    let result = TestRunner::new(config).run(strategy, |value| {
        promise(value);
        Ok(())
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, value)) => panic!("{what}: {reason}\n{value:?}"),
        Err(TestError::Abort(reason)) => panic!("{what}: {reason}"),
    }
}
