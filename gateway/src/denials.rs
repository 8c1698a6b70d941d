//! Denials that are remembered, so that a flood of requests for one key reaches the server once per wait.
//!
//! A denial stands until its wait is over, if nothing is given back in between. So it is remembered until then, and never
//! longer; it answers requests of the same cost under the same limit, for which alone its wait is true. One that no wait ends (its
//! cost is above the limit) is remembered for a second, since limits may change.
//!
//! What was given back may have been taken when a denial was decided. So giving back forgets the denial of the key, and a denial
//! is not remembered whose decision was asked for before something was given back:
//!
//! ```text
//! ask ──────────── denied ──────────> not remembered: the mark is older than the gift
//!        give back ──────> forgotten
//! ```
//!
//! Others may give back, too, or reset a key. Of that this process knows nothing, and so nothing is remembered for longer than
//! a bound that is set. What is remembered is bounded as well: what is seldom asked for goes first.

use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;

use crate::decision::Verdict;
use crate::rules::limit::Limit;

/// How long a denial is remembered that has no end of its own.
const ENDLESS: Duration = Duration::from_secs(1);
/// Keys by their hashes, for the last gift to any of them: so many that hardly any two are given back to at the same time.
const SHARDS: usize = 1024;

#[derive(Clone)]
struct Denial {
    verdict: Verdict,
    cost: u64,
    limit: Limit,
    since: Instant,
    until: Instant,
}

/// What had been given back at a moment: see [`Denials::mark`].
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

/// Denials by key. Threads share it.
pub struct Denials {
    cache: Option<Cache<Box<[u8]>, Denial>>,
    longest: Duration,
    hasher: RandomState,
    /// How often something was given back, and for each shard of the keys, when last.
    gifts: AtomicU64,
    latest: Vec<AtomicU64>,
}

impl Denials {
    /// Room for so many denials, each for so long at most; with 0 nothing is remembered.
    pub fn new(entries: usize, longest: Duration) -> Self {
        Self {
            cache: (entries > 0).then(|| Cache::new(entries)),
            longest,
            hasher: RandomState::new(),
            gifts: AtomicU64::new(0),
            latest: std::iter::repeat_with(AtomicU64::default).take(SHARDS).collect(),
        }
    }

    /// To be taken before the server is asked.
    pub fn mark(&self) -> Mark {
        Mark(self.gifts.load(SeqCst))
    }

    /// Remembers what a request of this cost was told, if that was a denial. `mark` and `now` are from before the server was asked.
    pub fn remember(
        &self,
        key: &[u8],
        cost: u64,
        limit: &Limit,
        verdict: Verdict,
        mark: Mark,
        now: Instant,
    ) {
        let Some(cache) = &self.cache else { return };
        let wait = verdict.wait_ms.map_or(ENDLESS, Duration::from_millis).min(self.longest);
        let Some(until) = now.checked_add(wait).filter(|_| !verdict.allowed) else { return };
        let limit = limit.clone();
        cache.insert(key.into(), Denial { verdict, cost, limit, since: now, until });
        // Afterwards, for whoever gives back meanwhile removes only what is there.
        if self.latest(key).is_none_or(|latest| latest.load(SeqCst) > mark.0) {
            cache.remove(key);
        }
    }

    /// The denial that stands for a request of this cost under this limit. Its times count from `now`.
    pub fn find(&self, key: &[u8], cost: u64, limit: &Limit, now: Instant) -> Option<Verdict> {
        let cache = self.cache.as_ref()?;
        let Denial { mut verdict, since, until, .. } =
            cache.get(key).filter(|known| known.cost == cost && known.limit == *limit)?;
        if until <= now {
            cache.remove_if(key, |known| known.until <= now);
            return None;
        }
        // Whole milliseconds that have passed, so that what is left is rounded up.
        let passed =
            now.saturating_duration_since(since).as_millis().try_into().unwrap_or(u64::MAX);
        let left = |ms: u64| ms.saturating_sub(passed);
        verdict.wait_ms = verdict.wait_ms.map(left);
        verdict.reset_ms = left(verdict.reset_ms);
        Some(verdict)
    }

    /// Forgets a key: after units of it were given back, or may have been.
    pub fn forget(&self, key: &[u8]) {
        let Some(cache) = &self.cache else { return };
        let gift = self.gifts.fetch_add(1, SeqCst).saturating_add(1);
        if let Some(latest) = self.latest(key) {
            latest.fetch_max(gift, SeqCst);
        }
        cache.remove(key);
    }

    fn latest(&self, key: &[u8]) -> Option<&AtomicU64> {
        let shards = u64::try_from(self.latest.len()).ok()?;
        let shard = self.hasher.hash_one(key).checked_rem(shards)?;
        self.latest.get(usize::try_from(shard).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Unit;
    use crate::rules::limit::Algorithm;

    const DENIED: Verdict =
        Verdict { allowed: false, limit: 10, remaining: 2, wait_ms: Some(500), reset_ms: 900 };
    const HOUR: Duration = Duration::from_secs(3600);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn limit() -> Limit {
        Limit::new(Algorithm::FixedWindow, 10, Unit::Minute)
    }

    /// Remembers a denial of cost 3 that was asked for just now.
    fn remember(denials: &Denials, key: &[u8], verdict: Verdict, now: Instant) {
        denials.remember(key, 3, &limit(), verdict, denials.mark(), now);
    }

    fn find(denials: &Denials, key: &[u8], now: Instant) -> Option<Verdict> {
        denials.find(key, 3, &limit(), now)
    }

    #[test]
    fn stands_until_its_wait_is_over_and_no_longer() {
        let (denials, now) = (Denials::new(10, HOUR), Instant::now());
        remember(&denials, b"k", DENIED, now);
        for (later, wait_ms, reset_ms) in [
            (Duration::ZERO, 500, 900),
            (Duration::from_micros(1), 500, 900),
            (Duration::from_micros(1001), 499, 899),
            (Duration::from_micros(499_999), 1, 401),
        ] {
            let told = Verdict { wait_ms: Some(wait_ms), reset_ms, ..DENIED };
            assert_eq!(find(&denials, b"k", now + later), Some(told), "after {later:?}");
        }
        assert_eq!(find(&denials, b"k", now + ms(500)), None);
        assert_eq!(find(&denials, b"k", now), None, "what is over is gone");
        assert_eq!(find(&denials, b"other", now), None);
    }

    #[test]
    fn stands_for_the_bound_at_most() {
        let (denials, now) = (Denials::new(10, ms(400)), Instant::now());
        remember(&denials, b"k", DENIED, now);
        let told = Verdict { wait_ms: Some(101), reset_ms: 501, ..DENIED };
        assert_eq!(find(&denials, b"k", now + ms(399)), Some(told), "the wait is the true one");
        assert_eq!(find(&denials, b"k", now + ms(400)), None);
        // Neither wait nor bound is too long to be added.
        let denials = Denials::new(10, Duration::MAX);
        remember(&denials, b"k", Verdict { wait_ms: Some(u64::MAX), ..DENIED }, now);
    }

    #[test]
    fn stands_for_the_same_cost_and_the_same_limit() {
        let (denials, now) = (Denials::new(10, HOUR), Instant::now());
        remember(&denials, b"k", DENIED, now);
        for cost in [2, 4, 11] {
            assert_eq!(denials.find(b"k", cost, &limit(), now), None, "cost {cost}");
        }
        let larger = Limit { requests: 11, ..limit() };
        assert_eq!(denials.find(b"k", 3, &larger, now), None);
        assert_eq!(find(&denials, b"k", now), Some(DENIED));
    }

    #[test]
    fn without_an_end_it_is_remembered_for_a_second() {
        let (denials, now) = (Denials::new(10, HOUR), Instant::now());
        let never = Verdict { wait_ms: None, reset_ms: 0, ..DENIED };
        remember(&denials, b"k", never, now);
        assert_eq!(find(&denials, b"k", now + ms(999)), Some(never));
        assert_eq!(find(&denials, b"k", now + ms(1000)), None);
    }

    #[test]
    fn grants_and_forgotten_keys_are_not_remembered() {
        let (denials, now) = (Denials::new(10, HOUR), Instant::now());
        remember(&denials, b"granted", Verdict { allowed: true, ..DENIED }, now);
        assert_eq!(find(&denials, b"granted", now), None);
        remember(&denials, b"k", DENIED, now);
        denials.forget(b"k");
        assert_eq!(find(&denials, b"k", now), None);
        let off = Denials::new(0, HOUR);
        remember(&off, b"k", DENIED, now);
        assert_eq!(find(&off, b"k", now), None);
        off.forget(b"k");
    }

    #[test]
    fn a_denial_that_may_be_older_than_a_gift_is_not_remembered() {
        let (denials, now) = (Denials::new(10, HOUR), Instant::now());
        let before = denials.mark();
        denials.forget(b"k");
        denials.remember(b"k", 3, &limit(), DENIED, before, now);
        assert_eq!(find(&denials, b"k", now), None);
        denials.remember(b"other", 3, &limit(), DENIED, before, now);
        assert_eq!(find(&denials, b"other", now), Some(DENIED), "it was given nothing");
        remember(&denials, b"k", DENIED, now);
        assert_eq!(find(&denials, b"k", now), Some(DENIED), "this one was asked for afterwards");
    }

    #[test]
    fn its_memory_is_bounded_by_a_flood_of_keys() {
        let (denials, now) = (Denials::new(100, HOUR), Instant::now());
        for key in 0..10_000_u32 {
            remember(&denials, &key.to_be_bytes(), DENIED, now);
        }
        let found = (0..10_000_u32).filter(|key| find(&denials, &key.to_be_bytes(), now).is_some());
        let found = found.count();
        assert!((1..=100).contains(&found), "{found} are remembered");
    }

    #[test]
    #[ignore = "a measurement, for an optimized build"]
    fn measure_lookups() {
        let (denials, now) = (Denials::new(100_000, HOUR), Instant::now());
        let keys: Vec<_> = (0..100_000).map(|key| format!("rl:tb:d:user={key}")).collect();
        for key in &keys {
            remember(&denials, key.as_bytes(), DENIED, now);
        }
        let (start, mut found) = (Instant::now(), 0);
        for key in keys.iter().cycle().take(2_000_000) {
            found += usize::from(find(&denials, key.as_bytes(), Instant::now()).is_some());
        }
        println!("{:?} a lookup, {found} of 2000000 found", start.elapsed() / 2_000_000);
    }
}
