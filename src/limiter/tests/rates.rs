//! The rate of the token bucket: over long times, and beside the crate `governor`.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, FakeRelativeClock};
use governor::middleware::StateInformationMiddleware;
use governor::{Quota, RateLimiter};
use num::{BigRational, ToPrimitive};
use proptest::prelude::*;
use proptest::sample::select;

use super::super::{Micros, Mode, Request};
use super::model::per_us;
use super::{Key, cost, for_random, limits};

/// A small generator of random numbers, so that a simulation is the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((u128::from(self.0) * u128::from(bound)) >> 64) as u64
    }
}

#[test]
fn under_saturation_the_rate_is_granted_within_one_in_a_million_and_never_more() {
    const START: u64 = 1 << 50;
    for rate in ["1/365d", "1/1h", "1/60", "3", "7", "999983", "1000000"] {
        let plan = limits(&format!("TOKENBUCKET 10 {rate}"));
        let unit_us = per_us(&plan).recip().floor().to_integer().to_u64().unwrap().max(1);
        let (mut key, mut now, mut granted) = (Key::default(), START, 0_u64);
        let mut random = Random(unit_us);
        // Calls come so often that the bucket is never full: up to forty in the time of a unit.
        let longest = (unit_us / 20).max(2);
        for _ in 0..400_000 {
            if now > Micros::MAX_MOMENT.get() - longest {
                break;
            }
            let request = Request { cost: 1 + random.below(4), mode: Mode::Partial };
            granted += key.ask(&plan, now, request).taken;
            now += 1 + random.below(longest);
        }
        let take_all = Request { cost: 20, mode: Mode::Partial };
        granted += key.ask(&plan, now, take_all).taken;
        let elapsed = BigRational::from_integer((now - START).into());
        let exact = (per_us(&plan) * elapsed).floor().to_integer().to_u64().unwrap();
        assert!(exact > 100, "{rate}: the simulation is long enough");
        assert!(granted <= exact + 10, "{rate}: never more than the rate, and the bucket");
        assert!(exact + 10 - granted <= exact / 1_000_000, "{rate}: {granted} of {}", exact + 10);
    }
}

#[test]
fn a_caller_that_waits_as_told_is_served_at_the_rate() {
    // The k-th unit comes at k / rate, rounded up to the microsecond: no wait adds up.
    const START: u64 = 1 << 50;
    for rate in ["1/365d", "1/1h", "1/60", "3", "7", "999983", "1000000"] {
        let plan = limits(&format!("TOKENBUCKET 2 {rate}"));
        let (mut key, mut now) = (Key::default(), START);
        key.ask(&plan, now, cost(2));
        for k in 1..=200_u64 {
            let wait = key.ask(&plan, now, cost(1)).wait.unwrap().get();
            let early = now + wait.saturating_sub(1);
            assert!(wait == 0 || !key.ask(&plan, early, cost(1)).allowed, "{rate}: too early");
            now += wait;
            if wait > 0 {
                assert!(key.ask(&plan, now, cost(1)).allowed, "{rate}: in time");
            }
            let due = BigRational::from_integer(k.into()) / per_us(&plan);
            assert_eq!(now - START, due.ceil().to_integer().to_u64().unwrap(), "{rate}: unit {k}");
        }
    }
}

#[test]
fn governor_decides_the_same() {
    // A rate whose unit is a whole number of nanoseconds, the resolution of governor.
    let rates = vec![1, 2, 5, 8, 10, 64, 100, 250, 1_000, 3_125, 15_625, 100_000, 1_000_000];
    let gap = prop_oneof![
        2 => Just((0, 0)),                          // none
        2 => (Just(0), 0..=2_000_000_u64),          // some microseconds
        3 => (1..=3_u64, Just(0)),                  // the wait just told, or one off it
    ];
    let steps = prop::collection::vec((gap, 1..=6_u32), 1..40);
    let strategy = (select(rates), 1..=5_u32, steps);
    for_random("governor", 5_000, &strategy, |(rate, burst, steps)| {
        let plan = limits(&format!("TOKENBUCKET {burst} {rate}"));
        let some = |number| NonZeroU32::new(number).unwrap();
        let clock = FakeRelativeClock::default();
        let quota = Quota::per_second(some(rate)).allow_burst(some(burst));
        let governor = RateLimiter::direct_with_clock(quota, clock.clone())
            .with_middleware::<StateInformationMiddleware>();
        let (mut key, mut now, mut wait) = (Key::default(), 1 << 50, 0_u64);
        for ((told, us), units) in steps {
            let gap = us + if told > 0 { (wait + told).saturating_sub(2) } else { 0 };
            now += gap;
            clock.advance(Duration::from_micros(gap));
            let ours = key.ask(&plan, now, cost(units.into()));
            wait = ours.wait.map_or(0, Micros::get);
            match governor.check_n(some(units)) {
                Err(_) => assert_eq!((ours.allowed, ours.wait), (false, None)),
                Ok(Err(not_until)) => {
                    let theirs = not_until.wait_time_from(clock.now()).as_nanos().div_ceil(1_000);
                    assert_eq!((ours.allowed, u128::from(wait)), (false, theirs));
                }
                Ok(Ok(snapshot)) => {
                    let theirs = u64::from(snapshot.remaining_burst_capacity());
                    assert_eq!((ours.allowed, ours.remaining), (true, theirs));
                }
            }
        }
    });
}

#[test]
fn fractions_of_a_unit_are_never_dropped_by_frequent_calls() {
    // A look, a denial and a grant every microsecond, and the unit still comes in time.
    let plan = limits("TOKENBUCKET 2 3");
    let mut key = Key::default();
    key.ask(&plan, 0, cost(2));
    let granted: Vec<u64> =
        (0..=1_000_000).filter(|&now| key.ask(&plan, now, cost(1)).allowed).collect();
    assert_eq!(granted, [333_334, 666_667, 1_000_000]);
}
