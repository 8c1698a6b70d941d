//! A clock that steps, in either direction and by any size: little is granted extra, and no key is locked.

use num::{BigRational, ToPrimitive};
use proptest::prelude::*;

use super::super::{Limits, Micros, Mode, Request};
use super::model::{limit_of, per_us, window};
use super::traffic::{Action, History, histories, plain_histories};
use super::{Key, for_each_algorithm};

/// A step of the clock: how far it goes, and whether back.
fn a_step() -> impl Strategy<Value = (u64, bool)> {
    let span = prop_oneof![
        3 => 0..=5_000_u64,
        1 => (0..=53_u32).prop_map(|exponent| 1 << exponent),
    ];
    (span, prop::bool::ANY)
}

/// The most that may be granted in a span of true time, in which the clock did not step.
fn most_in(plan: &Limits, length: u64) -> u64 {
    let limit = limit_of(plan);
    match plan {
        Limits::Bucket(_) => {
            let refilled = per_us(plan) * BigRational::from_integer(length.into());
            limit + refilled.floor().to_integer().to_u64().unwrap()
        }
        // Only spans shorter than a window are looked at.
        Limits::FixedWindow(_) => 2 * limit,
        Limits::SlidingWindow(_) | Limits::Leases(_) => limit,
    }
}

#[test]
fn a_step_of_the_clock_grants_at_most_what_was_used_extra() {
    let strategy = |algorithm| (plain_histories(algorithm), 0..40_usize, a_step());
    for_each_algorithm(2_000, strategy, |(history, when, (span, back))| {
        let plan = &history.plans[0];
        let (mut key, mut now) = (Key::default(), history.start);
        let mut last = key.would(plan, now, Request::LOOK);
        // The true time, which does not step, and what was granted at it before and after the step.
        let (mut truth, mut grants, mut used_then) = (0_u64, Vec::new(), 0);
        for (number, step) in history.steps.iter().enumerate() {
            if number == when {
                // What counts in windows has its limit around an edge twice, so on each side of the step.
                used_then = match plan {
                    Limits::FixedWindow(_) => 2 * limit_of(plan),
                    _ => key.used(now),
                };
                now = if back { now.saturating_sub(span) } else { now + span };
                now = now.min(Micros::MAX_MOMENT.get());
            }
            let next = step.gap.after(now, plan, &last);
            truth += next - now;
            now = next;
            let Action::Ask(units, mode) = step.action else { unreachable!() };
            last = key.ask(plan, now, Request { cost: units.count(plan, &last), mode });
            grants.push((truth, last.taken, number >= when));
        }
        for (from, first) in grants.iter().enumerate() {
            let mut sum = 0;
            for (at, units, stepped) in &grants[from..] {
                sum += units;
                let length = at - first.0;
                let extra = if *stepped && !first.2 { used_then } else { 0 };
                let most = most_in(plan, length) + extra;
                let in_window =
                    matches!(plan, Limits::Bucket(_)) || i128::from(length) < window(plan);
                assert!(!in_window || sum <= most, "{sum} units in {length} us, at most {most}");
            }
        }
    });
}

/// A played history: the key, the moment, and how long its window is. For a bucket that is how long
/// all that had been used at its last grant takes to refill.
fn play(history: &History) -> (Key, u64, u64) {
    let mut window_us = 0;
    let (key, now) = history.play(|seen| match seen.call {
        _ if seen.decision.taken == 0 => {}
        Limits::Bucket(_) => window_us = seen.decision.reset.get(),
        windows => window_us = window(windows) as u64,
    });
    (key, now, window_us)
}

#[test]
fn no_key_is_locked_for_longer_than_two_windows() {
    let strategy = |algorithm| (histories(algorithm), a_step(), 0..5_000_u64);
    for_each_algorithm(2_000, strategy, |(history, (span, back), later)| {
        let (key, now, window_us) = play(&history);
        let Some(state) = &key.state else { return };
        let stepped = if back { now.saturating_sub(span) } else { now.saturating_add(span) };
        let request =
            Request { cost: 1 + later % limit_of(&state.limits()).max(1), mode: Mode::Whole };
        for moment in [stepped, stepped.saturating_add(later)] {
            let decision = key.peek(moment.min(Micros::MAX_MOMENT.get()), request);
            if let Some(wait) = decision.and_then(|decision| decision.wait) {
                assert!(
                    wait.get() <= window_us.saturating_mul(2),
                    "{wait:?}, twice {window_us} us"
                );
            }
        }
    });
}

#[test]
fn a_state_counts_in_full_up_to_one_window_ahead_of_now_and_further_ahead_it_is_as_none() {
    for_each_algorithm(1_000, plain_histories, |history| {
        let (key, now, window_us) = play(&history);
        let Some(peek) = key.peek(now, Request::LOOK) else { return };
        let newest = key.state.as_ref().unwrap().idle_at().get() - window_us;
        let none = key.peek(newest - window_us - 1, Request::LOOK);
        assert_eq!(none, None, "further ahead than a window: as none");
        let full = key.peek(newest, Request::LOOK).unwrap();
        // A microsecond more may be more than a bucket's fraction.
        let ahead = key.peek(newest - window_us + 1, Request::LOOK).unwrap();
        assert_eq!(ahead.remaining, full.remaining);
        assert_eq!(ahead.reset.get(), full.reset.get() + window_us - 1);
        let again = key.peek(now, Request::LOOK);
        assert_eq!(
            again,
            Some(peek),
            "the clock is right again, and nothing was granted in between"
        );
    });
}

#[test]
fn a_grant_rewrites_what_lies_ahead_to_now() {
    for_each_algorithm(1_000, plain_histories, |history| {
        let (mut key, now, window_us) = play(&history);
        let plan = &history.plans[0];
        let Some(before) = key.peek(now, Request::LOOK) else { return };
        let used = key.used(now);
        let back = now - before.reset.get() / 2;
        key.ask(plan, back, Request { cost: 1, mode: Mode::Force });
        let unit_us = match plan {
            Limits::Bucket(_) => per_us(plan).recip().ceil().to_integer().to_u64().unwrap(),
            _ => 0,
        };
        let idle_at = key.state.as_ref().unwrap().idle_at().get();
        assert!(idle_at <= back + window_us + unit_us, "nothing lies ahead any more");
        assert!(key.used(back) > used, "what was used is still used");
    });
}
