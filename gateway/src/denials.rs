//! Denials that are remembered, so that a flood of requests for one key reaches the server once per wait.
//!
//! A denial stands until its wait is over, if nothing is given back in between. So it is remembered until then, and never
//! longer. One that no wait ends (its cost is above the limit) is remembered for a second, since limits may change.
//! What is remembered is bounded: what is seldom asked for goes first.

use std::time::{Duration, Instant};

use quick_cache::sync::Cache;

use crate::decision::Verdict;

/// How long a denial is remembered that has no end of its own.
const ENDLESS: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
struct Denial {
    verdict: Verdict,
    cost: u64,
    since: Instant,
    until: Instant,
}

/// Denials by key. Threads share it.
pub struct Denials(Option<Cache<Box<[u8]>, Denial>>);

impl Denials {
    /// Room for so many denials; with 0 nothing is remembered.
    pub fn new(entries: usize) -> Self {
        Self((entries > 0).then(|| Cache::new(entries)))
    }

    /// Remembers what a request of this cost was told, if that was a denial. `now` is the time before the server was asked.
    pub fn remember(&self, key: &[u8], cost: u64, verdict: Verdict, now: Instant) {
        let Some(cache) = &self.0 else { return };
        let wait = verdict.wait_ms.map_or(ENDLESS, Duration::from_millis);
        let Some(until) = now.checked_add(wait).filter(|_| !verdict.allowed) else { return };
        // A denial of a lower cost holds for this one as well.
        let known = cache.peek(key).is_some_and(|known| known.cost < cost && known.until > now);
        if !known {
            cache.insert(key.into(), Denial { verdict, cost, since: now, until });
        }
    }

    /// The denial that stands for a request of this cost: one of as much or less. Its times count from `now`.
    pub fn find(&self, key: &[u8], cost: u64, now: Instant) -> Option<Verdict> {
        let cache = self.0.as_ref()?;
        let Denial { mut verdict, since, until, .. } =
            cache.get(key).filter(|known| known.cost <= cost)?;
        if until <= now {
            cache.remove_if(key, |known| known.until <= now);
            return None;
        }
        // Whole milliseconds that have passed, so that what is left is rounded up.
        let passed =
            now.saturating_duration_since(since).as_millis().try_into().unwrap_or(u64::MAX);
        let left = |ms: u64| ms.saturating_sub(passed);
        verdict.wait_ms = verdict.wait_ms.map(left).filter(|_| cost <= verdict.limit);
        verdict.reset_ms = left(verdict.reset_ms);
        Some(verdict)
    }

    /// Forgets a key: after units of it were given back.
    pub fn forget(&self, key: &[u8]) {
        if let Some(cache) = &self.0 {
            cache.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENIED: Verdict =
        Verdict { allowed: false, limit: 10, remaining: 2, wait_ms: Some(500), reset_ms: 900 };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn stands_until_its_wait_is_over_and_no_longer() {
        let (denials, now) = (Denials::new(10), Instant::now());
        denials.remember(b"k", 3, DENIED, now);
        for (later, wait_ms, reset_ms) in [
            (Duration::ZERO, 500, 900),
            (Duration::from_micros(1), 500, 900),
            (Duration::from_micros(1001), 499, 899),
            (Duration::from_micros(499_999), 1, 401),
        ] {
            let told = Verdict { wait_ms: Some(wait_ms), reset_ms, ..DENIED };
            assert_eq!(denials.find(b"k", 3, now + later), Some(told), "after {later:?}");
        }
        assert_eq!(denials.find(b"k", 3, now + ms(500)), None);
        assert_eq!(denials.find(b"k", 3, now), None, "what is over is gone");
        assert_eq!(denials.find(b"other", 3, now), None);
    }

    #[test]
    fn holds_for_as_much_or_more() {
        let (denials, now) = (Denials::new(10), Instant::now());
        denials.remember(b"k", 3, DENIED, now);
        assert_eq!(denials.find(b"k", 2, now), None);
        assert_eq!(denials.find(b"k", 4, now), Some(DENIED));
        // Above the limit no wait helps.
        assert_eq!(denials.find(b"k", 11, now), Some(Verdict { wait_ms: None, ..DENIED }));
        // That of more cost does not take the place of one that holds for more requests, as long as that stands.
        let later = Verdict { wait_ms: Some(800), ..DENIED };
        denials.remember(b"k", 5, later, now);
        assert_eq!(denials.find(b"k", 3, now), Some(DENIED));
        denials.remember(b"k", 5, later, now + ms(500));
        assert_eq!(denials.find(b"k", 3, now + ms(500)), None);
        assert_eq!(denials.find(b"k", 5, now + ms(500)), Some(later));
    }

    #[test]
    fn without_an_end_it_is_remembered_for_a_second() {
        let (denials, now) = (Denials::new(10), Instant::now());
        let never = Verdict { wait_ms: None, reset_ms: 0, ..DENIED };
        denials.remember(b"k", 11, never, now);
        assert_eq!(denials.find(b"k", 11, now + ms(999)), Some(never));
        assert_eq!(denials.find(b"k", 11, now + ms(1000)), None);
    }

    #[test]
    fn grants_and_forgotten_keys_are_not_remembered() {
        let (denials, now) = (Denials::new(10), Instant::now());
        denials.remember(b"granted", 1, Verdict { allowed: true, ..DENIED }, now);
        assert_eq!(denials.find(b"granted", 1, now), None);
        denials.remember(b"k", 1, DENIED, now);
        denials.forget(b"k");
        assert_eq!(denials.find(b"k", 1, now), None);
        let off = Denials::new(0);
        off.remember(b"k", 1, DENIED, now);
        assert_eq!(off.find(b"k", 1, now), None);
        off.forget(b"k");
        // No wait is too long to be added.
        denials.remember(b"k", 1, Verdict { wait_ms: Some(u64::MAX), ..DENIED }, now);
    }

    #[test]
    fn its_memory_is_bounded_by_a_flood_of_keys() {
        let (denials, now) = (Denials::new(100), Instant::now());
        for key in 0..10_000_u32 {
            denials.remember(&key.to_be_bytes(), 1, DENIED, now);
        }
        let found =
            (0..10_000_u32).filter(|key| denials.find(&key.to_be_bytes(), 1, now).is_some());
        let found = found.count();
        assert!((1..=100).contains(&found), "{found} are remembered");
    }

    #[test]
    #[ignore = "a measurement, for an optimized build"]
    fn measure_lookups() {
        let (denials, now) = (Denials::new(100_000), Instant::now());
        let keys: Vec<_> = (0..100_000).map(|key| format!("rl:tb:d:user={key}")).collect();
        for key in &keys {
            denials.remember(key.as_bytes(), 1, DENIED, now);
        }
        let (start, mut found) = (Instant::now(), 0);
        for key in keys.iter().cycle().take(2_000_000) {
            found += usize::from(denials.find(key.as_bytes(), 1, Instant::now()).is_some());
        }
        println!("{:?} a lookup, {found} of 2000000 found", start.elapsed() / 2_000_000);
    }
}
