//! The limiter in the process, for while the server is away.
//!
//! Every algorithm becomes a token bucket of the rule's burst and rate (the crate governor). So a span of one window may
//! pass a window's limit twice: once from the full bucket, and once as it refills. Each instance applies its part of the
//! limit. Limits above 2^32 - 1 are cut to that, and a limit that changes begins anew.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use quick_cache::sync::Cache;

use crate::decision::Verdict;

/// Most keys that are limited at the same time. What is seldom asked for goes first.
const KEYS: usize = 100_000;
/// The longest time from an empty bucket to a full one: governor counts nanoseconds in 64 bits.
const LONGEST: u64 = u64::MAX / 4;

/// Limiters by key. Threads share it.
pub struct Local<C: Clock = DefaultClock> {
    limiters: Cache<Vec<u8>, Arc<Limiter<C>>>,
    instances: u64,
    clock: C,
}

impl Local {
    /// The part of one of so many instances.
    pub fn new(instances: u32) -> Self {
        Self::with_clock(instances, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Local<C> {
    fn with_clock(instances: u32, clock: C) -> Self {
        Self { limiters: Cache::new(KEYS), instances: u64::from(instances.max(1)), clock }
    }

    /// Decides by `limit` units for each window, of which `burst` may come at once.
    pub fn decide(&self, key: &[u8], limit: u64, window_us: u64, burst: u64, cost: u64) -> Verdict {
        let part = |units: u64| {
            let part = units.checked_div(self.instances).unwrap_or(units).max(1);
            NonZeroU32::new(part.try_into().unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MAX)
        };
        if limit == 0 || burst == 0 {
            let allowed = cost == 0;
            let wait_ms = allowed.then_some(0);
            return Verdict { allowed, limit: 0, remaining: 0, wait_ms, reset_ms: 0 };
        }
        let (rate, burst) = (part(limit), part(burst));
        let nanos = window_us.saturating_mul(1000).div_ceil(u64::from(rate.get()));
        let unit = nanos.clamp(1, LONGEST / u64::from(burst.get()));
        self.limiter(key, unit, burst).decide(cost)
    }

    fn limiter(&self, key: &[u8], unit: u64, burst: NonZeroU32) -> Arc<Limiter<C>> {
        let fits = |limiter: &Arc<Limiter<C>>| limiter.unit == unit && limiter.burst == burst;
        loop {
            let make = || Ok::<_, ()>(Arc::new(Limiter::new(unit, burst, self.clock.clone())));
            match self.limiters.get_or_insert_with(key, make) {
                Ok(limiter) if fits(&limiter) => return limiter,
                _ => drop(self.limiters.remove_if(key, |known| !fits(known))),
            }
        }
    }
}

/// The bucket of one key.
struct Limiter<C: Clock> {
    bucket: RateLimiter<Purpose, State, C, NoOpMiddleware<C::Instant>>,
    /// Nanoseconds in which a unit comes back.
    unit: u64,
    burst: NonZeroU32,
}

impl<C: Clock> Limiter<C> {
    fn new(unit: u64, burst: NonZeroU32, clock: C) -> Self {
        let period = Duration::from_nanos(unit);
        // A period of 0 is what is refused, and `unit` is 1 at least.
        let quota = Quota::with_period(period).unwrap_or(Quota::per_second(burst));
        let bucket = RateLimiter::new(quota.allow_burst(burst), State::default(), clock);
        Self { bucket, unit, burst }
    }

    fn decide(&self, cost: u64) -> Verdict {
        let wait = match cost {
            0 => Some(Duration::ZERO),
            cost => u32::try_from(cost)
                .ok()
                .and_then(NonZeroU32::new)
                .and_then(|units| self.wait_for(Purpose::Take, units)),
        };
        // As long as it takes to be full again, so much is used.
        let idle = self.wait_for(Purpose::Look, self.burst).unwrap_or_default();
        let used = nanos(idle).div_ceil(self.unit);
        Verdict {
            allowed: wait == Some(Duration::ZERO),
            limit: u64::from(self.burst.get()),
            remaining: u64::from(self.burst.get()).saturating_sub(used),
            wait_ms: wait.map(ms),
            reset_ms: ms(idle),
        }
    }

    /// How long until there are so many units, or `None` if there never are.
    fn wait_for(&self, purpose: Purpose, units: NonZeroU32) -> Option<Duration> {
        let now = self.bucket.clock().now();
        match self.bucket.check_key_n(&purpose, units).ok()? {
            Ok(()) => Some(Duration::ZERO),
            // The clock may have gone on since: denied, one waits for as long as it is to be noticed.
            Err(until) => Some(until.wait_time_from(now).max(Duration::from_nanos(1))),
        }
    }
}

/// Whether a request takes what it asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Purpose {
    Take,
    Look,
}

/// When the bucket is full again. Unlike governor's own states it can be looked at.
#[derive(Default)]
struct State(Mutex<Option<Nanos>>);

impl StateStore for State {
    type Key = Purpose;

    fn measure_and_replace<T, F, E>(&self, purpose: &Purpose, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (outcome, next) = decide(*state)?;
        if *purpose == Purpose::Take {
            *state = Some(next);
        }
        Ok(outcome)
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// Milliseconds, rounded up.
fn ms(time: Duration) -> u64 {
    nanos(time).div_ceil(1_000_000)
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    const MINUTE: u64 = 60_000_000;

    fn granted(limit: u64, remaining: u64, reset_ms: u64) -> Verdict {
        Verdict { allowed: true, limit, remaining, wait_ms: Some(0), reset_ms }
    }

    fn denied(limit: u64, remaining: u64, wait_ms: Option<u64>, reset_ms: u64) -> Verdict {
        Verdict { allowed: false, limit, remaining, wait_ms, reset_ms }
    }

    #[test]
    fn denied_until_its_wait_is_over_and_granted_then() {
        let clock = FakeRelativeClock::default();
        let local = Local::with_clock(1, clock.clone());
        let decide = |cost| local.decide(b"k", 6, MINUTE, 6, cost);
        assert_eq!(decide(0), granted(6, 6, 0));
        assert_eq!(decide(4), granted(6, 2, 40_000));
        assert_eq!(decide(3), denied(6, 2, Some(10_000), 40_000));
        assert_eq!(decide(0), granted(6, 2, 40_000), "a look takes nothing");
        assert_eq!(decide(7), denied(6, 2, None, 40_000), "above the limit no wait helps");
        assert_eq!(decide(u64::MAX), denied(6, 2, None, 40_000));
        clock.advance(Duration::from_millis(9_999));
        assert_eq!(decide(3), denied(6, 2, Some(1), 30_001));
        clock.advance(Duration::from_millis(1));
        assert_eq!(decide(3), granted(6, 0, 60_000));
        assert_eq!(local.decide(b"other", 6, MINUTE, 6, 6), granted(6, 0, 60_000));
    }

    #[test]
    fn each_instance_applies_its_part() {
        for (instances, limit, share) in [(1, 10, 10), (3, 10, 3), (4, 3, 1), (0, 5, 5)] {
            let local = Local::with_clock(instances, FakeRelativeClock::default());
            let allowed = || local.decide(b"k", limit, MINUTE, limit, 1).allowed;
            let count = (0..100).filter(|_| allowed()).count();
            assert_eq!(count, share, "{instances} instances of {limit}");
        }
    }

    #[test]
    fn zero_denies_all_that_takes_anything() {
        let local = Local::new(1);
        assert_eq!(local.decide(b"k", 0, MINUTE, 0, 1), denied(0, 0, None, 0));
        assert_eq!(local.decide(b"k", 0, MINUTE, 0, 0), granted(0, 0, 0));
    }

    #[test]
    fn a_limit_may_change_on_any_call() {
        let local = Local::with_clock(1, FakeRelativeClock::default());
        assert_eq!(local.decide(b"k", 1, MINUTE, 1, 1), granted(1, 0, 60_000));
        assert!(!local.decide(b"k", 1, MINUTE, 1, 1).allowed);
        assert_eq!(local.decide(b"k", 2, MINUTE, 2, 1), granted(2, 1, 30_000));
        assert_eq!(local.decide(b"k", 2, MINUTE, 4, 1), granted(4, 3, 30_000));
    }

    #[test]
    fn numbers_of_any_size_are_decided() {
        let local = Local::new(1);
        for limit in [1, u64::from(u32::MAX), 1_000_000_000_000, u64::MAX] {
            for window_us in [0, 1, 3650 * 86_400_000_000, u64::MAX] {
                for burst in [1, u64::from(u32::MAX), u64::MAX] {
                    let verdict = local.decide(b"k", limit, window_us, burst, 1);
                    assert!(verdict.allowed, "{limit} {window_us} {burst}: {verdict:?}");
                    local.decide(b"k", limit, window_us, burst, burst);
                }
            }
        }
    }
}
