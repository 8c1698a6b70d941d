//! What a decision does to a key, and how long the key must live afterwards.
//!
//! What was decided is an [`Effect`]: limits, moment, and what changes. [`apply`] is the one function that carries an effect
//! out, on the primary as on a replica, when an append-only file is replayed and in the property tests, so they cannot
//! differ.
//!
//! A key expires by itself once its limiter is idle. Its expiry is set with some room to spare, and left alone while it
//! is still good, since setting it costs as much as a decision:
//!
//! ```text
//! last grant      idle                   set to                 reset = idle - last grant
//!     |------------|-----------------------|------------|
//!     now        needed        needed + reset/2 + 0.5 s   now + 2 * reset + 1 s
//!                  |<----------- left alone ----------->|
//! ```
//!
//! Primary and replicas compute the same expiry, since they hold the same one before. A denial that begins a block sets it
//! in the same way: the limiter is idle when nothing is used and the block is over.

use super::Terms;
use super::block::Penalty;
use super::bucket::Bucket;
use super::leases::{Id, Leases};
use super::limits::{BucketKind, Limits};
use super::stored::Limiter;
use super::time::Micros;

/// What a decision does to a key: everything a replica needs to do the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Effect<'a> {
    /// The limits of the call. For a refund, a denial and a release those of the state; for a renewal the state's limit and
    /// the new ttl.
    pub(crate) limits: Limits,
    /// The moment of the decision.
    pub(crate) at: Micros,
    pub(crate) change: Change<'a>,
}

/// What an effect changes. Units are from 1 to [`super::limits::MAX_UNITS`]. Leases are acquired, renewed and released under
/// [`Limits::Leases`] alone, under ids that are valid; units are granted and refunded, and denials counted, under all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    Grant(u64),
    Refund(u64),
    /// A denial that counts.
    Deny(Penalty),
    Acquire(&'a [u8], u64),
    Renew(&'a [u8]),
    Release(&'a [u8]),
}

/// What a key holds before an effect.
#[derive(Debug)]
pub(crate) enum Before<'k> {
    Nothing,
    Limiter(&'k mut Limiter),
    /// What redis-cell stores: when a token bucket is full again, in nanoseconds since 1970.
    ArrivalTime(u64),
}

/// What is to be done with the key after an effect.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// Nothing: there was nothing to change.
    Unchanged,
    /// The limiter has been changed in place. After a grant, a renewal or the beginning of a block the key must live until it is
    /// idle.
    Changed { idle_at: Option<Micros> },
    /// The key is to hold this limiter, at least until it is idle.
    New { limiter: Limiter, idle_at: Micros },
    /// The key is to be deleted.
    Gone,
}

/// Carries an effect out.
pub(crate) fn apply(before: Before<'_>, effect: &Effect<'_>) -> After {
    let Effect { limits, at, change } = effect;
    match change {
        Change::Grant(units) => grant(before, Terms::from(limits), *at, *units),
        Change::Acquire(id, units) => {
            grant(before, Terms { limits, holder: Some(id) }, *at, *units)
        }
        Change::Refund(units) => {
            // Only limiters are given units back.
            let Before::Limiter(limiter) = before else { return After::Unchanged };
            if limiter.block_left(*at) > Micros::ZERO && limiter.used(*at) == 0 {
                return After::Unchanged;
            }
            let is_kept = limiter.refund(*at, *units);
            if is_kept { After::Changed { idle_at: None } } else { After::Gone }
        }
        Change::Deny(penalty) => {
            let Before::Limiter(limiter) = before else { return After::Unchanged };
            // An effect before this one may have put another algorithm there.
            if limiter.algorithm() != limits.algorithm() {
                return After::Unchanged;
            }
            match limiter.deny(penalty, *at) {
                None => After::Unchanged,
                Some(denials) => {
                    let began_block = denials.block().is_some();
                    After::Changed { idle_at: began_block.then(|| limiter.idle_at()) }
                }
            }
        }
        Change::Renew(id) => {
            let (Some(leases), Limits::Leases(limits)) = (leases(before), limits) else {
                return After::Unchanged;
            };
            let was_held = Id::new(id).is_some_and(|id| leases.renew(&id, limits.ttl, *at));
            let idle_at = Some(leases.idle_at());
            if was_held { After::Changed { idle_at } } else { After::Unchanged }
        }
        Change::Release(id) => {
            let Some(leases) = leases(before) else { return After::Unchanged };
            let was_held = Id::new(id).is_some_and(|id| leases.release(&id, *at));
            match (was_held, leases.is_empty()) {
                (false, _) => After::Unchanged,
                (true, false) => After::Changed { idle_at: None },
                (true, true) => After::Gone,
            }
        }
    }
}

#[inline(always)]
fn grant(before: Before<'_>, call: Terms<'_>, at: Micros, units: u64) -> After {
    let (limiter, idle_at) = match before {
        Before::Limiter(limiter) => {
            return After::Changed { idle_at: Some(limiter.grant(call, at, units)) };
        }
        Before::Nothing => Limiter::first(call, at, units),
        Before::ArrivalTime(nanos) => match from_arrival_time(call.limits, nanos, at) {
            Some(mut limiter) => {
                let idle_at = limiter.grant(call, at, units);
                (limiter, idle_at)
            }
            None => Limiter::first(call, at, units),
        },
    };
    After::New { limiter, idle_at }
}

fn leases(before: Before<'_>) -> Option<&mut Leases> {
    match before {
        Before::Limiter(Limiter::Leases(leases)) => Some(leases),
        Before::Limiter(_) | Before::Nothing | Before::ArrivalTime(_) => None,
    }
}

/// What redis-cell stores, as a token bucket under these limits: a theoretical arrival time, in nanoseconds since 1970.
/// `None` if nothing of it is used any more, or the limits are for something else.
pub(crate) fn from_arrival_time(call: &Limits, nanos: u64, now: Micros) -> Option<Limiter> {
    match call {
        Limits::Bucket(call) if call.kind == BucketKind::Token => {
            Bucket::from_arrival_time(call, nanos, now).map(Limiter::from)
        }
        Limits::Bucket(_)
        | Limits::FixedWindow(_)
        | Limits::SlidingWindow(_)
        | Limits::Leases(_) => None,
    }
}

/// The expiry, in milliseconds since 1970, that a key is to have after a grant at `now`. `None` if the one that it
/// has (`held`, negative if it has none) is to be left alone.
pub(crate) fn new_expiry(held: i64, idle_at: Micros, now: Micros) -> Option<i64> {
    let needed = idle_at.millis_up();
    let reset = idle_at.since(now);
    let latest = idle_at.after(reset).after(Micros::SECOND).millis_up();
    let is_good = (needed..latest).contains(&held);
    (!is_good).then(|| needed.saturating_add(reset.millis_up() / 2).saturating_add(500))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limiter::{Mode, Request, decide};

    fn at(micros: u64) -> Micros {
        Micros::new(micros)
    }

    fn bucket() -> Limits {
        crate::limiter::rule::read_for_test("TOKENBUCKET 10 10")
    }

    fn effect(now: u64, change: Change<'_>) -> Effect<'_> {
        Effect { limits: bucket(), at: at(now), change }
    }

    #[test]
    fn a_first_grant_makes_a_limiter_and_the_next_changes_it() {
        let After::New { mut limiter, idle_at } =
            apply(Before::Nothing, &effect(1_000_000, Change::Grant(3)))
        else {
            panic!("no limiter");
        };
        assert_eq!(idle_at, at(1_300_000), "three tenths of a second later");
        let after = apply(Before::Limiter(&mut limiter), &effect(1_000_000, Change::Grant(1)));
        assert_eq!(after, After::Changed { idle_at: Some(at(1_400_000)) });
        assert_eq!(limiter.used(at(1_000_000)), 4);
    }

    #[test]
    fn a_refund_leaves_the_expiry_alone_and_a_whole_one_deletes_the_key() {
        let (mut limiter, _) = Limiter::first((&bucket()).into(), at(0), 5);
        for (units, after) in [
            (2, After::Changed { idle_at: None }),
            (2, After::Changed { idle_at: None }),
            (9, After::Gone),
        ] {
            assert_eq!(
                apply(Before::Limiter(&mut limiter), &effect(0, Change::Refund(units))),
                after
            );
        }
        assert_eq!(apply(Before::Nothing, &effect(0, Change::Refund(1))), After::Unchanged);
        assert_eq!(apply(Before::ArrivalTime(9), &effect(0, Change::Refund(1))), After::Unchanged);
    }

    #[test]
    fn a_grant_takes_over_what_redis_cell_stored_and_counts_it() {
        // Full again in 0.2 s: two of ten units are used.
        let before = Before::ArrivalTime(1_200_000_000);
        let After::New { limiter, .. } = apply(before, &effect(1_000_000, Change::Grant(3))) else {
            panic!("no limiter");
        };
        assert_eq!(limiter.used(at(1_000_000)), 5);
        let look = Request { cost: 5, mode: Mode::Whole };
        assert!(decide(Some(&limiter), &bucket(), at(1_000_000), look).allowed);
        let before = Before::ArrivalTime(1_000_000_000);
        let (limiter, idle_at) = Limiter::first((&bucket()).into(), at(1_000_000), 3);
        let after = apply(before, &effect(1_000_000, Change::Grant(3)));
        assert_eq!(after, After::New { limiter, idle_at }, "it was full");
    }

    #[test]
    fn an_expiry_is_set_once_and_left_alone_while_it_is_good() {
        let (now, idle_at) = (at(10_000_000), at(14_000_000));
        for (held, expected, sentence) in [
            (-1, Some(16_500), "none yet: half the reset and half a second to spare"),
            (13_999, Some(16_500), "before the limiter is idle"),
            (14_000, None, "just when it is idle"),
            (18_999, None, "twice the reset and a second from now"),
            (19_000, Some(16_500), "later than that"),
        ] {
            assert_eq!(new_expiry(held, idle_at, now), expected, "{sentence}");
        }
        assert_eq!(new_expiry(-1, at(10_000_001), now), Some(10_501), "rounded up");
        assert_eq!(
            new_expiry(-1, at(u64::MAX), at(0)),
            Some((1 << 53) - 1 + ((1 << 53) - 1) / 2 + 500)
        );
    }
}
