//! What the contract promises of every limiter, each promise under its sentence.

use proptest::prelude::*;

use super::super::limits::MAX_USED;
use super::super::{Algorithm, Decision, Limits, Micros, Mode, Request};
use super::model::{self, Us, buckets, limit_of, per_us, window};
use super::traffic::{
    self, History, Seen, histories, histories_forward, penalized_histories,
    penalized_histories_forward, plain_histories,
};
use super::{Key, cost, for_each_algorithm, for_random, limits, request};

// ---------------------------------------------------------------------------------------------------
// Never more than the limit

/// The grants of a history: moment and units.
fn grants(history: &History) -> Vec<(u64, u64)> {
    let mut grants = Vec::new();
    history.play(|seen| grants.push((seen.now, seen.decision.taken)));
    grants.retain(|grant| grant.1 > 0);
    grants
}

/// All spans from a grant to the same or a later one: length and units granted in it, both ends included.
fn spans(grants: &[(u64, u64)]) -> impl Iterator<Item = (u64, u64)> + '_ {
    (0..grants.len()).flat_map(move |from| {
        grants[from..].iter().scan(0, move |sum, &(at, units)| {
            *sum += units;
            Some((at - grants[from].0, *sum))
        })
    })
}

#[test]
fn a_bucket_grants_at_most_its_capacity_and_the_rate_in_any_span() {
    for algorithm in [Algorithm::TokenBucket, Algorithm::LeakyBucket] {
        for_random(algorithm.name(), 2_000, &plain_histories(algorithm), |history| {
            let plan = &history.plans[0];
            for (length, units) in spans(&grants(&history)) {
                let most = per_us(plan) * num::BigRational::from_integer(length.into());
                let most = most.floor().to_integer() + limit_of(plan);
                assert!(most >= units.into(), "{units} units in {length} us, at most {most}");
            }
        });
    }
}

#[test]
fn a_sliding_window_or_log_grants_at_most_its_limit_in_every_span_of_one_window() {
    for algorithm in [Algorithm::Sliding, Algorithm::SlidingLog] {
        for_random(algorithm.name(), 2_000, &plain_histories(algorithm), |history| {
            let plan = &history.plans[0];
            for (length, units) in spans(&grants(&history)) {
                let within = Us::from(length) < window(plan);
                assert!(!within || units <= limit_of(plan), "{units} units in {length} us");
            }
        });
    }
}

#[test]
fn a_fixed_window_grants_at_most_its_limit_in_a_window_and_twice_that_in_a_span() {
    for_random("FIXEDWINDOW", 2_000, &plain_histories(Algorithm::FixedWindow), |history| {
        let plan = &history.plans[0];
        let grants = grants(&history);
        for (length, units) in spans(&grants) {
            let within = Us::from(length) < window(plan);
            assert!(!within || units <= 2 * limit_of(plan), "{units} units in {length} us");
        }
        // Without ALIGN a window begins with the first grant after the one before.
        let (mut start, mut units) = (Us::MIN, 0);
        for (at, granted) in grants {
            let at = Us::from(at);
            let begins = model::aligned_start(plan, at)
                .unwrap_or(if at < start.saturating_add(window(plan)) { start } else { at });
            if begins != start {
                (start, units) = (begins, 0);
            }
            units += granted;
            assert!(units <= limit_of(plan), "{units} units in the window from {start} on");
        }
    });
}

// ---------------------------------------------------------------------------------------------------
// Waits and resets

#[test]
fn who_is_denied_is_denied_until_the_wait_is_over_and_granted_exactly_then() {
    let check = |history: History| {
        history.play(|seen| {
            let Seen { after, call, now, request, .. } = *seen;
            if seen.decision.allowed {
                return;
            }
            let Some(wait) = seen.decision.wait else {
                let needed = if request.mode == Mode::Partial { 1 } else { request.cost };
                assert!(needed > limit_of(call), "denied for ever");
                return;
            };
            assert!(wait > Micros::ZERO, "denied, but may go ahead at once: {:?}", seen.decision);
            let granted = |span: u64| after.would(call, now + span, request).allowed;
            let millis = wait.millis_up() as u64;
            if now.saturating_add(millis.saturating_mul(1_000)) <= Micros::MAX_MOMENT.get() {
                assert!(!granted(wait.get() - 1), "one microsecond early, {request:?}");
                assert!(granted(wait.get()), "in time, {request:?}");
                assert!(!granted((millis - 1) * 1_000), "one millisecond early, {request:?}");
                assert!(granted(millis * 1_000), "at wait_ms, {request:?}");
            }
        });
    };
    for_each_algorithm(1_500, histories, check);
    for_each_algorithm(500, penalized_histories_forward, check);
}

#[test]
fn a_limiter_is_as_if_never_used_at_its_reset_and_not_a_microsecond_before() {
    let check = |history: History| {
        history.play(|seen| {
            let Seen { after, call, now, decision, .. } = *seen;
            let then = now.saturating_add(decision.reset.get());
            // The call's own reset, be it granted or denied, under limits that may not be stored.
            let look = |moment| after.would(call, moment, Request::LOOK);
            let new = Key::default().would(call, then, Request::LOOK);
            if then <= Micros::MAX_MOMENT.get() {
                assert_eq!(look(then), new, "at the reset");
                if then > now {
                    assert_eq!(look(then - 1).reset.get(), 1, "a microsecond before");
                }
            }
            // What is stored.
            if let Some(state) = after.state.as_ref().filter(|_| decision.taken > 0) {
                assert_eq!(state.idle_at().get(), then);
                if then > Micros::MAX_MOMENT.get() {
                    return;
                }
                assert!(state.is_idle(Micros::new(then)));
                assert!(!state.is_idle(Micros::new(then - 1)));
            }
        });
    };
    for_each_algorithm(1_500, histories, check);
    for_each_algorithm(500, penalized_histories_forward, check);
}

#[test]
fn a_denied_request_waits_at_most_until_the_old_reset_is_over() {
    for_each_algorithm(1_500, histories, |history| {
        history.play(|seen| {
            if let (Some(peek), Some(wait)) =
                (seen.before.peek(seen.now, Request::LOOK), seen.decision.wait)
                && !seen.decision.allowed
            {
                assert!(wait <= peek.reset, "{wait:?} is longer than {:?}", peek.reset);
            }
        });
    });
}

// ---------------------------------------------------------------------------------------------------
// What takes nothing writes nothing, and the rest of the reply

#[test]
fn a_denied_request_or_one_of_cost_0_leaves_every_byte_of_the_state() {
    for_each_algorithm(500, histories, |history| {
        history.play(|seen| {
            if !seen.decision.allowed || seen.request.cost == 0 {
                assert_eq!(seen.decision.taken, 0);
                assert_eq!(seen.after.bytes(), seen.before.bytes());
            }
        });
    });
}

#[test]
fn a_reply_is_what_the_options_say() {
    for_each_algorithm(1_000, histories, |history| {
        history.play(|seen| {
            let Request { cost, mode } = seen.request;
            let Decision { allowed, limit, remaining, wait, taken, .. } = seen.decision;
            let could = seen.before.would(seen.call, seen.now, Request::LOOK).remaining;
            assert_eq!(limit, limit_of(seen.call));
            assert!(remaining <= limit);
            let expected = match mode {
                Mode::Force => cost,
                Mode::Partial => cost.min(could),
                Mode::Whole => {
                    if cost <= could {
                        cost
                    } else {
                        0
                    }
                }
            };
            assert_eq!((taken, allowed), (expected, expected > 0 || cost == 0));
            assert_eq!(
                remaining,
                could.saturating_sub(taken),
                "what could be taken, less what was"
            );
            if allowed && (cost == 0 || seen.call.algorithm() != Algorithm::LeakyBucket) {
                assert_eq!(wait, Some(Micros::ZERO), "granted: it goes ahead at once");
            }
        });
    });
}

#[test]
fn a_peek_tells_what_the_same_request_then_gets() {
    let strategy = |algorithm| (penalized_histories(algorithm), traffic::a_request(), 0..3_000_u64);
    for_each_algorithm(1_000, strategy, |(history, request, later)| {
        let (key, now) = history.play(|_| {});
        for moment in [now, now.saturating_add(later).min(Micros::MAX_MOMENT.get())] {
            let Some(peek) = key.peek(moment, request) else { continue };
            let stored = key.state.as_ref().unwrap().limits();
            let got = key.clone().ask(&stored, moment, request);
            assert_eq!((peek.allowed, peek.wait), (got.allowed, got.wait));
            let look = key.peek(moment, Request::LOOK).unwrap();
            assert_eq!(look, key.clone().ask(&stored, moment, Request::LOOK));
        }
    });
}

// ---------------------------------------------------------------------------------------------------
// Giving back, and being forgotten

/// What is to be seen of a key from a moment on, under limits.
fn outlook(key: &Key, call: &Limits, now: u64) -> Vec<Decision> {
    let reset = key.would(call, now, Request::LOOK).reset.get();
    let mut decisions = Vec::new();
    for sixteenths in 0..=16 {
        let moment = now.saturating_add(reset / 16 * sixteenths);
        for request in [Request::LOOK, cost(1), cost(limit_of(call).max(1))] {
            decisions.push(key.would(call, moment.min(Micros::MAX_MOMENT.get()), request));
        }
    }
    decisions
}

#[test]
fn a_refund_of_what_was_just_taken_restores_what_was_there() {
    for_each_algorithm(1_500, histories_forward, |history| {
        history.play(|seen| {
            let Seen { before, call, now, decision, .. } = *seen;
            let used = before.used(now);
            let same_limits = before.peek(now, Request::LOOK).is_none()
                || before.state.as_ref().is_some_and(|state| state.limits() == *call);
            let saturates = used + decision.taken > MAX_USED;
            let entries = |key: &Key| key.state.as_ref().and_then(|s| s.entries(Micros::new(now)));
            let merged = entries(seen.after)
                .is_some_and(|entries_after| entries_after != entries(before).unwrap_or(0) + 1);
            if decision.taken == 0 || !same_limits || saturates || merged {
                return;
            }
            let mut key = seen.after.clone();
            key.refund(now, decision.taken);
            assert_eq!(key.state.is_some(), used > 0, "at nothing used the key is deleted");
            assert_eq!(outlook(&key, call, now), outlook(before, call, now));
        });
    });
}

#[test]
fn a_refund_gives_back_so_many_units_and_never_more_than_are_used() {
    // (After a step back of the clock a bucket's rest may lie further ahead than it needs to refill.)
    let strategy = |algorithm| (histories_forward(algorithm), 1..30_u64);
    for_each_algorithm(1_000, strategy, |(history, units)| {
        let (mut key, now) = history.play(|_| {});
        let used = key.used(now);
        key.refund(now, units);
        assert_eq!(key.used(now), used.saturating_sub(units));
        assert_eq!(key.state.is_some(), used > units);
    });
}

#[test]
fn whether_an_old_key_has_expired_or_not_never_changes_a_decision() {
    for_each_algorithm(2_000, penalized_histories_forward, |mut history| {
        let decisions = |history: &History| {
            let mut decisions = Vec::new();
            history.play(|seen| decisions.push((seen.decision, seen.after.bytes())));
            decisions
        };
        history.steps.iter_mut().for_each(|step| step.expire = true);
        let expired = decisions(&history);
        history.steps.iter_mut().for_each(|step| step.expire = false);
        for (number, (kept, expired)) in decisions(&history).iter().zip(&expired).enumerate() {
            assert_eq!(kept.0, expired.0, "request {number}");
            if kept.0.taken > 0 {
                assert_eq!(kept.1, expired.1, "the state after request {number}");
            }
        }
    });
}

// ---------------------------------------------------------------------------------------------------
// SLIDING and SLIDINGLOG

/// The limits of the log that a sliding window counter stands for.
fn log_of(plan: &Limits) -> Limits {
    Limits::sliding_log(limit_of(plan), Micros::new(window(plan) as u64)).unwrap()
}

#[test]
fn the_sliding_window_grants_nothing_that_its_log_denies_and_denies_for_less_than_a_bucket_longer()
{
    for_random("SLIDING", 4_000, &plain_histories(Algorithm::Sliding), |history| {
        let plan = &history.plans[0];
        let log = log_of(plan);
        let mut exact = Key::default();
        history.play(|seen| {
            let expected = exact.would(&log, seen.now, seen.request);
            let (late, never) = (seen.decision.wait, expected.wait.is_none());
            assert!(!seen.decision.allowed || expected.allowed, "granted, but not by the log");
            assert!(seen.decision.remaining <= expected.remaining || expected.taken > 0);
            assert_eq!(late.is_none(), never);
            if let (Some(late), Some(in_time)) = (late, expected.wait) {
                let longer = Us::from(late.get()) - Us::from(in_time.get());
                assert!(longer >= 0 && longer * buckets(plan) < window(plan), "{longer} us longer");
            }
            exact.record(&log, seen.now, seen.decision.taken);
        });
    });
}

#[test]
fn the_sliding_window_equals_its_log_where_hits_are_together_or_a_bucket_apart() {
    let gaps = prop::collection::vec((0..3_u64, 0..400_u64, 0..=4_u64), 1..60);
    let strategy = (3..=20_u64, 1_000..=4_000_u64, 1..=8_u16, gaps);
    for_random("SLIDING", 4_000, &strategy, |(limit, window, n, gaps)| {
        let window = Micros::new(window);
        let counter = Limits::sliding(limit, window, n).unwrap();
        let log = log_of(&counter);
        let (mut coarse, mut exact, mut now) = (Key::default(), Key::default(), 1 << 50);
        for (apart, more, units) in gaps {
            if apart > 0 {
                now += window.get().div_ceil(n.into()) + more * (apart - 1);
            }
            let decision = coarse.ask(&counter, now, cost(units));
            assert_eq!(decision, exact.ask(&log, now, cost(units)), "{units} units at {now}");
        }
    });
}

// ---------------------------------------------------------------------------------------------------
// LEAKYBUCKET

#[test]
fn turns_are_exactly_the_time_of_a_unit_apart_under_any_burst() {
    for_random("LEAKYBUCKET", 4_000, &plain_histories(Algorithm::LeakyBucket), |history| {
        let Limits::Bucket(plan) = history.plans[0] else { unreachable!() };
        let (n, d) = (u128::from(plan.rate.units().get()), u128::from(plan.rate.per_us().get()));
        // The k-th unit since the queue was last empty has its turn k * d / n after the first.
        let (mut began, mut k) = (0, 0);
        history.play(|seen| {
            if seen.decision.taken == 0 {
                return;
            }
            let now = u128::from(seen.now);
            if (now - began) * n >= k * d {
                (began, k) = (now, 0);
            }
            let turn = now + u128::from(seen.decision.wait.unwrap().get());
            assert_eq!(turn, began + (k * d).div_ceil(n), "the turn of unit {k}");
            k += u128::from(seen.decision.taken);
        });
    });
}

#[test]
fn a_turn_once_told_is_what_is_waited_for() {
    // Three a second: turns at 0, 333,334, 666,667, 1,000,000 us: never earlier, and no drift.
    let plan = limits("LEAKYBUCKET 100 3");
    let mut key = Key::default();
    let turns: Vec<u64> =
        (0..7).map(|_| key.ask(&plan, 1 << 50, cost(1)).wait.unwrap().get()).collect();
    assert_eq!(turns, [0, 333_334, 666_667, 1_000_000, 1_333_334, 1_666_667, 2_000_000]);
}

// ---------------------------------------------------------------------------------------------------
// ALIGN

#[test]
fn aligned_windows_begin_where_they_should() {
    const NOON: u64 = 1_782_907_200; // 2026-07-01T12:00Z, a Wednesday
    const HOUR: u64 = 3_600;
    for (window, offset, begins, sentence) in [
        ("1d", "0", NOON + 12 * HOUR, "a day begins at midnight"),
        ("1d", "-8h", NOON + 4 * HOUR, "a day of UTC+8 begins eight hours before"),
        ("1d", "5h", NOON + 17 * HOUR, "a day of UTC-5 begins five hours after"),
        ("1d", "-32h", NOON + 4 * HOUR, "an offset is taken modulo the window"),
        ("1h", "0", NOON + HOUR, "an hour begins at the full hour"),
        ("1h", "-30m", NOON + HOUR / 2, "an hour of a time zone of half hours"),
        ("7d", "0", NOON + 12 * HOUR, "1970 began on a Thursday, so a week begins on Thursday"),
        ("7d", "4d", NOON + 12 * HOUR + 4 * 24 * HOUR, "a week begins on Monday"),
        ("1m", "0.000001", NOON + 60, "a microsecond after the full minute"),
    ] {
        let plan = limits(&format!("FIXEDWINDOW 1 {window} ALIGN {offset}"));
        let span = model::window(&plan) as u64;
        let late = u64::from(offset == "0.000001");
        let begins = begins * 1_000_000 + late;
        let mut key = Key::default();
        let ask = |key: &mut Key, now| {
            let decision = key.ask(&plan, now, cost(1));
            (decision.allowed, decision.wait.unwrap().get(), decision.reset.get())
        };
        assert_eq!(ask(&mut key, begins - span - 1), (true, 0, 1), "{sentence}: just before");
        assert_eq!(ask(&mut key, begins - span - 1), (false, 1, 1), "{sentence}: denied");
        assert_eq!(ask(&mut key, begins - span), (true, 0, span), "{sentence}: begins");
        assert_eq!(ask(&mut key, begins - span), (false, span, span), "{sentence}: denied");
        assert_eq!(ask(&mut key, begins - 1), (false, 1, 1), "{sentence}: the last microsecond");
        assert_eq!(ask(&mut key, begins), (true, 0, span), "{sentence}: the next begins");
    }
}

#[test]
fn a_first_grant_anywhere_in_an_aligned_window_lasts_until_its_end() {
    let strategy = (traffic::limits(Algorithm::FixedWindow), traffic::a_moment());
    for_random("FIXEDWINDOW", 2_000, &strategy, |(plan, now)| {
        if let Some(start) = model::aligned_start(&plan, now.into()) {
            let decision = Key::default().ask(&plan, now, request("FORCE"));
            assert_eq!(Us::from(decision.reset.get()), start + window(&plan) - Us::from(now));
        }
    });
}
