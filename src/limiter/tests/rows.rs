//! The algorithms told by examples: tables on a virtual clock, each under its sentence.
//!
//! A row is a moment in milliseconds, the limits of the call, what is asked, and the reply as clients see
//! it: allowed, limit, remaining, `wait_ms`, `reset_ms`. Nothing asked is one unit. `PEEK` and
//! `REFUND n` give no limits; no key is an empty reply.

use super::super::effect::from_arrival_time;
use super::super::{Algorithm, Decision, Limiter, Micros, Request};
use super::{BY_TIME, Key, limits, request};

const MIDNIGHT: u64 = 1_782_864_000_000; // 2026-07-01T00:00Z, in milliseconds

type Row = (u64, &'static str, &'static str, &'static [i64]);

/// Tells rows on a new key that lives from midnight on.
fn tell(rows: &[Row]) {
    let mut key = Key::default();
    for &(at, plan, asked, expected) in rows {
        let now = (MIDNIGHT + at) * 1_000;
        let reply = match asked.split_once(' ').unwrap_or((asked, "")) {
            ("PEEK", options) => peek(&key, now, options),
            ("REFUND", units) => {
                let limits = key.state.as_ref().map(Limiter::limits);
                let was_there = key.peek(now, Request::LOOK).is_some();
                key.refund(now, units.parse().unwrap());
                let nothing = limits.map(|limits| integers(key.would(&limits, now, Request::LOOK)));
                peek(&key, now, "").or(nothing.filter(|_| was_there))
            }
            _ => Some(integers(key.ask(&limits(plan), now, request(asked)))),
        };
        assert_eq!(reply.unwrap_or_default(), expected, "at {at} ms: {plan} {asked}");
    }
}

/// RL.PEEK: `allowed` and `wait_ms` of a request, `remaining` and `reset_ms` as they stand.
fn peek(key: &Key, now: u64, options: &str) -> Option<Vec<i64>> {
    let stands = key.peek(now, Request::LOOK)?;
    let Decision { allowed, wait, .. } = key.peek(now, request(options))?;
    Some(integers(Decision { allowed, wait, ..stands }))
}

fn integers(decision: Decision) -> Vec<i64> {
    vec![
        decision.allowed.into(),
        decision.limit.cast_signed(),
        decision.remaining.cast_signed(),
        decision.wait.map_or(-1, Micros::millis_up),
        decision.reset.millis_up(),
    ]
}

// ---------------------------------------------------------------------------------------------------
// TOKENBUCKET

#[test]
fn a_token_bucket_is_full_when_new_and_refills() {
    const PLAN: &str = "TOKENBUCKET 3 1/10s";
    tell(&[
        (0, PLAN, "", &[1, 3, 2, 0, 10_000]),
        (0, PLAN, "COST 2", &[1, 3, 0, 0, 30_000]),
        (0, PLAN, "", &[0, 3, 0, 10_000, 30_000]),
        (9_999, PLAN, "", &[0, 3, 0, 1, 20_001]),
        (10_000, PLAN, "", &[1, 3, 0, 0, 30_000]),
        (25_000, PLAN, "COST 2", &[0, 3, 1, 5_000, 15_000]),
        (40_000, PLAN, "COST 0", &[1, 3, 3, 0, 0]),
        (40_000, PLAN, "COST 4", &[0, 3, 3, -1, 0]),
    ]);
}

#[test]
fn a_token_bucket_takes_part_of_a_cost_where_it_may() {
    const PLAN: &str = "TOKENBUCKET 5 1";
    tell(&[
        (0, PLAN, "COST 3 PARTIAL", &[1, 5, 2, 0, 3_000]),
        (0, PLAN, "COST 3 PARTIAL", &[1, 5, 0, 0, 5_000]),
        (0, PLAN, "COST 3 PARTIAL", &[0, 5, 0, 1_000, 5_000]),
        (2_500, PLAN, "COST 9 PARTIAL", &[1, 5, 0, 0, 4_500]),
    ]);
}

#[test]
fn a_token_bucket_is_forced_into_debt_and_pays_it_back_first() {
    const PLAN: &str = "TOKENBUCKET 5 1";
    tell(&[
        (0, PLAN, "COST 12 FORCE", &[1, 5, 0, 0, 12_000]),
        (0, PLAN, "", &[0, 5, 0, 8_000, 12_000]),
        (7_999, PLAN, "", &[0, 5, 0, 1, 4_001]),
        (8_000, PLAN, "", &[1, 5, 0, 0, 5_000]),
    ]);
}

#[test]
fn a_bigger_plan_helps_at_once_and_a_smaller_one_counts_what_was_used() {
    tell(&[
        (0, "TOKENBUCKET 5 1", "COST 5", &[1, 5, 0, 0, 5_000]),
        (0, "TOKENBUCKET 8 1", "COST 0", &[1, 8, 3, 0, 5_000]),
        (0, "TOKENBUCKET 5 2", "COST 2", &[0, 5, 0, 1_000, 2_500]),
        // Denied with a slower rate: it has drained, and drains, at the faster of the two.
        (1_000, "TOKENBUCKET 5 1/10", "COST 2", &[0, 5, 1, 1_000, 4_000]),
        (2_000, "TOKENBUCKET 5 1/10", "COST 2", &[1, 5, 0, 0, 50_000]),
        // That grant stored the slower one; a denial does not store the smaller capacity.
        (2_000, "TOKENBUCKET 1 1/10", "", &[0, 1, 0, 50_000, 50_000]),
        (2_000, "", "PEEK", &[0, 5, 0, 10_000, 50_000]),
    ]);
}

#[test]
fn use_is_rounded_up_where_a_changed_rate_makes_a_fraction() {
    tell(&[
        (0, "TOKENBUCKET 5 1/7ms", "", &[1, 5, 4, 0, 7]),
        // 6/7 of a unit are left, and stored as 3/3.
        (1, "TOKENBUCKET 5 1/3us", "COST 0", &[1, 5, 5, 0, 0]),
        (1, "TOKENBUCKET 5 1/3s", "", &[1, 5, 3, 0, 5_572]),
    ]);
}

#[test]
fn a_limit_of_0_denies_all_that_takes_anything_and_deletes_nothing() {
    for (plan, other) in [
        ("TOKENBUCKET 0 1", "TOKENBUCKET 5 1"),
        ("LEAKYBUCKET 0 1", "LEAKYBUCKET 5 1"),
        ("FIXEDWINDOW 0 1s", "FIXEDWINDOW 5 1s"),
        ("SLIDING 0 1s", "SLIDING 5 1s"),
        ("SLIDINGLOG 0 1s", "SLIDINGLOG 5 1s"),
    ] {
        tell(&[
            (0, other, "", &[1, 5, 4, 0, 1_000]),
            (0, plan, "", &[0, 0, 0, -1, 1_000]),
            (0, plan, "PARTIAL", &[0, 0, 0, -1, 1_000]),
            (0, plan, "COST 0", &[1, 0, 0, 0, 1_000]),
            (0, other, "COST 0", &[1, 5, 4, 0, 1_000]),
        ]);
    }
}

#[test]
fn use_saturates_at_twice_the_largest_limit() {
    const MOST: &str = "COST 1000000000000 FORCE";
    const TRILLION: i64 = 1_000_000_000_000;
    for (plan, limit, resets) in [
        ("TOKENBUCKET 1000000000000 1000000000", TRILLION, [1_000_000, 2_000_000]),
        ("FIXEDWINDOW 1000000000000 1h", TRILLION, [3_600_000, 3_600_000]),
        ("SLIDING 1000000000000 1h", TRILLION, [3_600_000, 3_600_000]),
        ("SLIDINGLOG 10000000 1h", 10_000_000, [3_600_000, 3_600_000]),
    ] {
        let (mut key, plan, now) = (Key::default(), limits(plan), MIDNIGHT * 1_000);
        for (remaining, reset) in [(0, resets[0]), (0, resets[1]), (0, resets[1])] {
            let reply = integers(key.ask(&plan, now, request(MOST)));
            assert_eq!(reply, [1, limit, remaining, 0, reset], "{plan:?}");
        }
        assert_eq!(key.used(now), 2_000_000_000_000, "{plan:?}");
    }
}

#[test]
fn what_redis_cell_remembers_is_taken_over_as_a_token_bucket() {
    const NOW: Micros = Micros::new(MIDNIGHT * 1_000);
    // A theoretical arrival time, in nanoseconds from now on; the units used, and microseconds until none are.
    for (plan, nanos, used, reset) in [
        ("TOKENBUCKET 9 1", 2_000_000_000, 2, 2_000_000),
        ("TOKENBUCKET 9 1", 2_000_000_001, 3, 2_000_001),
        ("TOKENBUCKET 9 3", 1_000_000_000, 3, 1_000_000),
        ("TOKENBUCKET 9 1/60", 1, 1, 1),
        ("TOKENBUCKET 9 1000000000", 1_000_000_000, 1_000_000_000, 1_000_000),
    ] {
        let state = from_arrival_time(&limits(plan), NOW.get() * 1_000 + nanos, NOW);
        let state = state.unwrap();
        assert_eq!((state.used(NOW), state.idle_at().since(NOW).get()), (used, reset), "{plan}");
        assert_eq!(state.limits(), limits(plan));
    }
    let at = |plan, nanos| from_arrival_time(&limits(plan), nanos, NOW);
    assert_eq!(at("TOKENBUCKET 9 1", NOW.get() * 1_000), None, "it has passed");
    assert_eq!(at("TOKENBUCKET 9 1", 0), None, "it has long passed");
    assert_eq!(at("LEAKYBUCKET 9 1", u64::MAX), None, "no queue is taken over");
    let saturated = at("TOKENBUCKET 9 1000000000", u64::MAX).unwrap();
    assert_eq!(saturated.used(NOW), 2_000_000_000_000, "use saturates");
}

// ---------------------------------------------------------------------------------------------------
// LEAKYBUCKET

#[test]
fn a_leaky_bucket_tells_each_request_its_turn() {
    const PLAN: &str = "LEAKYBUCKET 3 2";
    tell(&[
        (0, PLAN, "", &[1, 3, 2, 0, 500]),
        (0, PLAN, "", &[1, 3, 1, 500, 1_000]),
        (0, PLAN, "", &[1, 3, 0, 1_000, 1_500]),
        (0, PLAN, "", &[0, 3, 0, 500, 1_500]),
        (499, PLAN, "", &[0, 3, 0, 1, 1_001]),
        (500, PLAN, "", &[1, 3, 0, 1_000, 1_500]),
        // A request of two takes two turns, and goes ahead at the first of them.
        (1_500, PLAN, "COST 2", &[1, 3, 0, 500, 1_500]),
        (2_000, PLAN, "", &[1, 3, 0, 1_000, 1_500]),
        (9_000, PLAN, "", &[1, 3, 2, 0, 500]),
    ]);
}

#[test]
fn the_next_turn_is_when_what_is_left_has_drained_at_the_new_rate() {
    tell(&[
        (0, "LEAKYBUCKET 9 1", "COST 4", &[1, 9, 5, 0, 4_000]),
        (1_000, "LEAKYBUCKET 9 2", "", &[1, 9, 6, 1_000, 1_500]),
        (1_000, "LEAKYBUCKET 9 1/10", "COST 0", &[1, 9, 6, 0, 1_500]),
        (1_000, "LEAKYBUCKET 9 1/10", "", &[1, 9, 5, 30_000, 40_000]),
    ]);
}

#[test]
fn a_queue_of_parts_and_a_forced_queue() {
    const PLAN: &str = "LEAKYBUCKET 3 1";
    tell(&[
        (0, PLAN, "COST 2", &[1, 3, 1, 0, 2_000]),
        (0, PLAN, "COST 5 PARTIAL", &[1, 3, 0, 2_000, 3_000]),
        (0, PLAN, "COST 5 PARTIAL", &[0, 3, 0, 1_000, 3_000]),
        (0, PLAN, "COST 5 FORCE", &[1, 3, 0, 3_000, 8_000]),
        (0, PLAN, "", &[0, 3, 0, 6_000, 8_000]),
        (0, PLAN, "COST 4", &[0, 3, 0, -1, 8_000]),
    ]);
}

// ---------------------------------------------------------------------------------------------------
// FIXEDWINDOW

#[test]
fn a_fixed_window_begins_with_its_first_grant() {
    const PLAN: &str = "FIXEDWINDOW 2 1s";
    tell(&[
        (300, PLAN, "", &[1, 2, 1, 0, 1_000]),
        (1_299, PLAN, "", &[1, 2, 0, 0, 1]),
        (1_299, PLAN, "", &[0, 2, 0, 1, 1]),
        (1_300, PLAN, "COST 2", &[1, 2, 0, 0, 1_000]),
        (1_300, PLAN, "COST 3", &[0, 2, 0, -1, 1_000]),
        (5_000, PLAN, "COST 0", &[1, 2, 2, 0, 0]),
        (5_000, PLAN, "", &[1, 2, 1, 0, 1_000]),
    ]);
}

#[test]
fn an_aligned_window_begins_by_the_calendar() {
    const HOUR: u64 = 3_600_000;
    const DAY: &str = "FIXEDWINDOW 2 1d ALIGN -8h"; // midnight of UTC+8 is 16:00 UTC
    tell(&[
        (15 * HOUR, DAY, "COST 2", &[1, 2, 0, 0, 3_600_000]),
        (16 * HOUR - 1, DAY, "", &[0, 2, 0, 1, 1]),
        (16 * HOUR, DAY, "", &[1, 2, 1, 0, 86_400_000]),
        (39 * HOUR, DAY, "", &[1, 2, 0, 0, 3_600_000]),
    ]);
}

#[test]
fn a_windows_debt_counts_until_it_leaves() {
    for plan in ["FIXEDWINDOW 2 1s", "SLIDING 2 1s", "SLIDINGLOG 2 1s"] {
        tell(&[
            (0, plan, "COST 9 FORCE", &[1, 2, 0, 0, 1_000]),
            (999, plan, "", &[0, 2, 0, 1, 1]),
            (1_000, plan, "COST 3 PARTIAL", &[1, 2, 0, 0, 1_000]),
        ]);
    }
}

#[test]
fn a_fixed_windows_units_count_for_the_shorter_window() {
    tell(&[
        (0, "FIXEDWINDOW 5 10s", "COST 5", &[1, 5, 0, 0, 10_000]),
        (1_000, "FIXEDWINDOW 5 2s", "", &[0, 5, 0, 1_000, 1_000]),
        (1_000, "FIXEDWINDOW 9 20s", "COST 0", &[1, 9, 4, 0, 9_000]),
        // The longer one is stored, with the old start.
        (1_000, "FIXEDWINDOW 9 20s", "", &[1, 9, 3, 0, 19_000]),
        (1_000, "FIXEDWINDOW 5 10s", "COST 0", &[1, 5, 0, 0, 9_000]),
        (10_000, "FIXEDWINDOW 5 10s", "", &[1, 5, 4, 0, 10_000]),
    ]);
}

#[test]
fn an_aligned_call_counts_what_began_in_its_own_window() {
    tell(&[
        // Midnight is a whole number of these windows since 1970.
        (700, "FIXEDWINDOW 5 1s", "COST 5", &[1, 5, 0, 0, 1_000]),
        (900, "FIXEDWINDOW 5 1s ALIGN 0", "", &[0, 5, 0, 100, 100]),
        (1_000, "FIXEDWINDOW 5 1s ALIGN 0", "COST 0", &[1, 5, 5, 0, 0]),
        (1_500, "FIXEDWINDOW 5 1s", "", &[0, 5, 0, 200, 200]),
        (1_500, "FIXEDWINDOW 5 1s ALIGN 0", "", &[1, 5, 4, 0, 500]),
    ]);
}

// ---------------------------------------------------------------------------------------------------
// SLIDING and SLIDINGLOG

#[test]
fn hits_leave_a_sliding_window_one_window_after_they_came() {
    // They come a fifth of a window apart: a counter of 16 buckets does what the log does.
    for plan in ["SLIDING 3 1s", "SLIDINGLOG 3 1s"] {
        tell(&[
            (0, plan, "", &[1, 3, 2, 0, 1_000]),
            (200, plan, "", &[1, 3, 1, 0, 1_000]),
            (400, plan, "", &[1, 3, 0, 0, 1_000]),
            (400, plan, "", &[0, 3, 0, 600, 1_000]),
            (400, plan, "COST 2", &[0, 3, 0, 800, 1_000]),
            (400, plan, "COST 4", &[0, 3, 0, -1, 1_000]),
            (999, plan, "", &[0, 3, 0, 1, 401]),
            (1_000, plan, "", &[1, 3, 0, 0, 1_000]),
            (1_400, plan, "COST 2 PARTIAL", &[1, 3, 0, 0, 1_000]),
        ]);
    }
}

#[test]
fn a_sliding_window_counter_gives_units_back_with_the_last_hit_of_their_entry() {
    const PLAN: &str = "SLIDING 3 1s BUCKETS 10";
    tell(&[
        (0, PLAN, "", &[1, 3, 2, 0, 1_000]),
        (99, PLAN, "", &[1, 3, 1, 0, 1_000]),
        (100, PLAN, "", &[1, 3, 0, 0, 1_000]),
        (100, PLAN, "", &[0, 3, 0, 999, 1_000]),
        (1_098, PLAN, "", &[0, 3, 0, 1, 2]),
        (1_099, PLAN, "COST 2", &[1, 3, 0, 0, 1_000]),
    ]);
    const LOG: &str = "SLIDINGLOG 3 1s";
    tell(&[
        (0, LOG, "", &[1, 3, 2, 0, 1_000]),
        (99, LOG, "", &[1, 3, 1, 0, 1_000]),
        (100, LOG, "", &[1, 3, 0, 0, 1_000]),
        (100, LOG, "", &[0, 3, 0, 900, 1_000]),
    ]);
}

#[test]
fn hits_count_for_the_shorter_of_two_windows() {
    for [short, long] in
        [["SLIDING 3 1s", "SLIDING 3 10s"], ["SLIDINGLOG 3 1s", "SLIDINGLOG 3 10s"]]
    {
        tell(&[
            (0, long, "COST 3", &[1, 3, 0, 0, 10_000]),
            (500, long, "", &[0, 3, 0, 9_500, 9_500]),
            (500, short, "", &[0, 3, 0, 500, 500]),
            (1_000, short, "", &[1, 3, 2, 0, 1_000]),
            // What the short one no longer counted is gone; what it counts, the long one counts longer.
            (1_700, long, "", &[1, 3, 1, 0, 10_000]),
            (3_000, long, "COST 2", &[0, 3, 1, 8_000, 8_700]),
        ]);
    }
}

#[test]
fn more_entries_than_the_new_number_of_buckets_are_regrouped() {
    const FINE: &str = "SLIDING 9 1s BUCKETS 10";
    const COARSE: &str = "SLIDING 9 1s BUCKETS 2";
    tell(&[
        (0, FINE, "", &[1, 9, 8, 0, 1_000]),
        (100, FINE, "", &[1, 9, 7, 0, 1_000]),
        (200, FINE, "", &[1, 9, 6, 0, 1_000]),
        (300, FINE, "", &[1, 9, 5, 0, 1_000]),
        // A denial regroups nothing: the first unit is back in time.
        (800, COARSE, "COST 6", &[0, 9, 5, 200, 500]),
        // A grant makes one entry of the four.
        (800, COARSE, "", &[1, 9, 4, 0, 1_000]),
        (800, COARSE, "COST 5", &[0, 9, 4, 500, 1_000]),
        (1_300, COARSE, "COST 8", &[1, 9, 0, 0, 1_000]),
    ]);
}

#[test]
fn a_log_gains_no_entry_beyond_its_limit_by_force() {
    const LOG: &str = "SLIDINGLOG 2 1s";
    let (mut key, plan) = (Key::default(), limits(LOG));
    for (at, entries, used) in [(0, 1, 1), (100, 2, 2), (200, 2, 3), (300, 2, 4)] {
        key.ask(&plan, at * 1_000, request("FORCE"));
        let now = Micros::new(at * 1_000);
        let state = key.state.as_ref().unwrap();
        assert_eq!((state.entries(now), key.used(at * 1_000)), (Some(entries), used));
    }
    // What was forced counts from the last time on.
    let reply = integers(key.would(&plan, 300_000, request("")));
    assert_eq!(reply, [0, 2, 0, 1_000, 1_000]);
    assert_eq!(key.used(1_000_000), 3, "the first has left");
}

// ---------------------------------------------------------------------------------------------------
// All five

#[test]
fn a_refund_gives_back_what_was_just_taken() {
    tell(&[
        (0, "TOKENBUCKET 5 1", "COST 4", &[1, 5, 1, 0, 4_000]),
        (500, "", "REFUND 2", &[1, 5, 3, 0, 1_500]),
        (500, "", "REFUND 9", &[1, 5, 5, 0, 0]),
        (500, "", "REFUND 1", &[]),
        (500, "", "PEEK", &[]),
    ]);
    tell(&[
        (0, "LEAKYBUCKET 5 1", "COST 4", &[1, 5, 1, 0, 4_000]),
        (500, "", "REFUND 2", &[1, 5, 3, 1_500, 1_500]),
        (500, "LEAKYBUCKET 5 1", "", &[1, 5, 2, 1_500, 2_500]),
    ]);
    for plan in ["SLIDING 5 1s", "SLIDINGLOG 5 1s"] {
        tell(&[
            (0, plan, "COST 2", &[1, 5, 3, 0, 1_000]),
            (500, plan, "COST 3", &[1, 5, 0, 0, 1_000]),
            // The newest first: the last of the five goes with the older two.
            (500, "", "REFUND 2", &[1, 5, 2, 0, 1_000]),
            (500, "", "REFUND 1", &[1, 5, 3, 0, 500]),
            (1_000, "", "PEEK", &[]),
        ]);
    }
    tell(&[
        (0, "FIXEDWINDOW 5 1s", "COST 5", &[1, 5, 0, 0, 1_000]),
        (900, "", "REFUND 2", &[1, 5, 2, 0, 100]),
        (1_000, "", "REFUND 2", &[]),
    ]);
}

#[test]
fn a_refund_after_the_clock_stepped_back_gives_no_more_than_asked() {
    tell(&[
        (10_000, "TOKENBUCKET 9 1", "COST 9", &[1, 9, 0, 0, 9_000]),
        // Five seconds back: what is left would lie further ahead than the two seconds it takes to drain.
        (5_000, "", "REFUND 7", &[1, 9, 7, 0, 2_000]),
    ]);
}

#[test]
fn a_peek_looks_under_the_limits_of_the_last_grant() {
    for plan in ["TOKENBUCKET 2 2", "FIXEDWINDOW 2 1s", "SLIDING 2 1s", "SLIDINGLOG 2 1s"] {
        tell(&[
            (0, "", "PEEK", &[]),
            (0, plan, "COST 2", &[1, 2, 0, 0, 1_000]),
            (100, "", "PEEK COST 2", &[0, 2, 0, 900, 900]),
            (100, "", "PEEK COST 3", &[0, 2, 0, -1, 900]),
            (100, "", "PEEK COST 0", &[1, 2, 0, 0, 900]),
            (1_000, "", "PEEK", &[]),
        ]);
    }
}

#[test]
fn another_algorithms_limiter_counts_as_nothing_and_a_grant_replaces_it() {
    let plans = [
        "TOKENBUCKET 5 1",
        "LEAKYBUCKET 5 1",
        "FIXEDWINDOW 5 1s",
        "SLIDING 5 1s",
        "SLIDINGLOG 5 1s",
    ];
    for (one, other) in plans.iter().flat_map(|one| plans.map(|other| (*one, other))) {
        if one != other {
            tell(&[(0, one, "", &[1, 5, 4, 0, 1_000]), (0, other, "", &[1, 5, 4, 0, 1_000])]);
        }
    }
    let names = BY_TIME.map(Algorithm::name);
    assert_eq!(plans.map(|plan| plan.split(' ').next().unwrap()), names, "that is all of them");
}
