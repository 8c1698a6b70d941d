//! The suite of the limiting: one for all five algorithms, on a virtual clock.
//!
//! | file | what it tests |
//! | --- | --- |
//! | `rows` | each algorithm told by examples: read this first |
//! | `against_model` | random histories, each step compared with an obvious, slow model |
//! | `promises` | what the contract promises, each promise under its sentence |
//! | `clock_steps` | what a clock that steps may do to it |
//! | `rates` | the long-run rate, and the crate `governor` as an independent oracle |
//! | `stored_bytes` | what is stored and replicated, whole, cut, and mutated |
//! | `sizes` | memory |
//!
//! `model` is the oracle, `traffic` makes random limits and requests.
//!
//! With `RL_LONG=1` random tests try a hundred times as many cases: a million histories of each algorithm.
//! What once failed is kept under `proptest-regressions` and is tried first.

#![allow(missing_docs, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

mod against_model;
mod clock_steps;
mod model;
mod promises;
mod rates;
mod rows;
mod sizes;
mod stored_bytes;
mod traffic;

use proptest::prelude::{ProptestConfig, Strategy};
use proptest::test_runner::{FileFailurePersistence, TestError, TestRunner};

use super::limits::{DEFAULT_BUCKETS, Rate, parse_align, parse_units, parse_window};
use super::{Algorithm, Decision, Limiter, Limits, Micros, Mode, Request, decide};

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

    /// Records a grant of so many units.
    fn record(&mut self, call: &Limits, now: u64, units: u64) {
        match &mut self.state {
            _ if units == 0 => {}
            Some(state) => state.grant(call, Micros::new(now), units),
            None => self.state = Some(Limiter::first(call, Micros::new(now), units)),
        }
    }

    /// Gives units back. What is as if never used is no key.
    fn refund(&mut self, now: u64, units: u64) {
        if let Some(state) = &mut self.state
            && (state.is_idle(Micros::new(now)) || !state.refund(Micros::new(now), units))
        {
            self.state = None;
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

/// Reads limits as `RL.MULTI` writes them: `FIXEDWINDOW 5 1d ALIGN -8h`.
fn limits(text: &str) -> Limits {
    let words: Vec<&[u8]> = text.split_whitespace().map(str::as_bytes).collect();
    let units = |word| parse_units(word).unwrap();
    let window = |word| parse_window(word).unwrap();
    let valid = match words[..] {
        [b"TOKENBUCKET", capacity, rate] => {
            Limits::token_bucket(units(capacity), Rate::parse(rate).unwrap())
        }
        [b"LEAKYBUCKET", capacity, rate] => {
            Limits::leaky_bucket(units(capacity), Rate::parse(rate).unwrap())
        }
        [b"FIXEDWINDOW", limit, length] => Limits::fixed_window(units(limit), window(length), None),
        [b"FIXEDWINDOW", limit, length, b"ALIGN", offset] => {
            let align = parse_align(offset, window(length));
            assert!(align.is_some(), "{text}");
            Limits::fixed_window(units(limit), window(length), align)
        }
        [b"SLIDING", limit, length] => {
            Limits::sliding(units(limit), window(length), DEFAULT_BUCKETS)
        }
        [b"SLIDING", limit, length, b"BUCKETS", n] => {
            Limits::sliding(units(limit), window(length), units(n) as u16)
        }
        [b"SLIDINGLOG", limit, length] => Limits::sliding_log(units(limit), window(length)),
        _ => None,
    };
    valid.unwrap_or_else(|| panic!("no limits: {text}"))
}

/// Reads options: `COST 3 PARTIAL`, or nothing for one unit.
fn request(text: &str) -> Request {
    let mut request = cost(1);
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            "COST" => request.cost = words.next().unwrap().parse().unwrap(),
            "PARTIAL" => request.mode = Mode::Partial,
            "FORCE" => request.mode = Mode::Force,
            _ => panic!("no option: {text}"),
        }
    }
    request
}

/// All or nothing of so many units.
const fn cost(cost: u64) -> Request {
    Request { cost, mode: Mode::Whole }
}

/// Tries a promise on random cases of each algorithm: so many, or a hundred times as many where
/// `RL_LONG=1` asks for it.
fn for_each_algorithm<S: Strategy>(
    usual: u32,
    strategy: impl Fn(Algorithm) -> S,
    promise: impl Fn(S::Value),
) where
    S::Value: Clone,
{
    for algorithm in Algorithm::ALL {
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
