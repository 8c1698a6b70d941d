//! Each algorithm against its model: random histories, the whole decision compared after every step.
//!
//! A history mixes costs, gaps, PARTIAL, FORCE, refunds, changed limits, clock steps of any size, keys that
//! expire or do not at the moment when they may, and keys that are stored and loaded.

use super::super::{Algorithm, Decision, Micros, Mode, Request, codec};
use super::model::{self, Model, Penalized, Us};
use super::traffic::{self, Action, History};
use super::{Key, cost, for_random};

#[test]
fn the_token_bucket_does_what_its_model_does() {
    compare::<model::Bucket>(Algorithm::TokenBucket);
}

#[test]
fn the_leaky_bucket_does_what_its_model_does() {
    compare::<model::Bucket>(Algorithm::LeakyBucket);
}

#[test]
fn the_fixed_window_does_what_its_model_does() {
    compare::<model::FixedWindow>(Algorithm::FixedWindow);
}

#[test]
fn the_sliding_window_does_what_its_model_does() {
    compare::<model::Sliding>(Algorithm::Sliding);
}

#[test]
fn the_sliding_log_does_what_its_model_does() {
    compare::<model::SlidingLog>(Algorithm::SlidingLog);
}

#[test]
fn the_sliding_window_regroups_as_its_model_does() {
    for_random("SLIDING", 3_000, &traffic::histories_of_regrouping(), |history| {
        run::<model::Sliding>(&history);
    });
}

fn compare<M: Model + std::fmt::Debug>(algorithm: Algorithm) {
    for_random(algorithm.name(), 10_000, &traffic::penalized_histories(algorithm), |history| {
        run::<M>(&history);
    });
}

/// Runs a history on a key and on its model.
fn run<M: Model + std::fmt::Debug>(history: &History) {
    let History { plans, start, steps } = history;
    let mut key = Key::default();
    let mut model = Penalized::<M>::new();
    let mut now = *start;
    let mut last = key.would(&plans[0], now, Request::LOOK);
    for (number, step) in steps.iter().enumerate() {
        let call = &plans[step.plan];
        now = step.gap.after(now, call, &last);
        let at =
            |model: &Penalized<M>| format!("step {number} at {now} us: {step:?}\nafter {model:?}");
        if step.expire && key.may_expire(now) {
            key = Key::default();
            model = Penalized::new();
        }
        if step.reload
            && let Some(bytes) = key.bytes()
        {
            key.state = codec::decode_state(&bytes);
            assert!(key.state.is_some(), "the state is loaded, {}", at(&model));
        }
        match step.action {
            Action::Ask(units, mode) => {
                let request = Request { cost: units.count(call, &last), mode };
                last = key.would(call, now, request);
                let expected = model.decide(call, now.into(), request);
                assert_eq!(last, expected, "{request:?}, {}", at(&model));
                if last.taken > 0 {
                    key.record(call, now, last.taken);
                    model.grant(call, now.into(), last.taken);
                }
                if let Some(penalty) = step.penalty.filter(|_| !expected.allowed) {
                    last = key.deny(now, penalty, last);
                    model.deny(now.into(), penalty.duration().get().into(), penalty.after());
                    // The denial that begins a block tells what the next one then does.
                    let next = model.decide(call, now.into(), request);
                    let told = Decision { is_blocked: next.is_blocked, ..last };
                    assert_eq!(told, next, "{request:?}, {}", at(&model));
                }
            }
            Action::Refund(units) => {
                let units = units.count(call, &last);
                if units > 0 {
                    key.refund(now, units);
                    model.refund(now.into(), units);
                }
            }
        }
        compare_keys(&key, &model, now, || at(&model));
        // What any other call would get: a difference shows as soon as it is there.
        let other = &plans[(step.plan + number) % plans.len()];
        let probe = Request { cost: 1 + number as u64 % 3, mode: Mode::Whole };
        let expected = model.decide(other, now.into(), probe);
        assert_eq!(key.would(other, now, probe), expected, "then {other:?}, {}", at(&model));
    }
}

/// Whatever can be seen of a key.
fn compare_keys<M: Model>(key: &Key, model: &Penalized<M>, now: u64, at: impl Fn() -> String) {
    let moment = Us::from(now);
    assert_eq!(key.state.as_ref().map(|state| state.limits()), model.limits(), "limits, {}", at());
    let (Some(state), Some(limits)) = (&key.state, model.limits()) else { return };
    let used = model.used(moment).ceil().to_integer();
    let row = state.denials().map_or(0, |denials| denials.in_a_row());
    assert_eq!(row, model.row(), "denials in a row, {}", at());
    assert_eq!(used, key.used(now).into(), "used, {}", at());
    assert_eq!(state.idle_at(), model::micros(model.idle_at()), "idle at, {}", at());
    assert_eq!(state.entries(Micros::new(now)), model.entries(moment), "entries, {}", at());
    match key.peek(now, cost(1)) {
        Some(peek) => {
            assert_eq!(peek, model.decide(&limits, moment, cost(1)), "peek, {}", at())
        }
        None => {
            assert_eq!(used, 0.into(), "no key, {}", at());
            assert_eq!(model.left(moment), None, "no key, {}", at());
        }
    }
}
