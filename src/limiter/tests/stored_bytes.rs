//! What is stored and what is replicated: whole, cut at every byte, and mutated.

use proptest::prelude::*;

use super::super::block::Penalty;
use super::super::codec::{decode_state, encode_state};
use super::super::effect::{Change, Effect};
use super::super::limits::{MAX_LOG_ENTRIES, MAX_UNITS, MAX_USED};
use super::super::{Decision, Limiter, Micros, Mode, Request};
use super::traffic::{self, penalized_histories};
use super::{Key, cost, for_each_algorithm, for_random, limits};

const LATEST: u64 = Micros::MAX_MOMENT.get();

/// Whatever can be asked of a state: to be called for a state that was forged, which must not panic.
fn use_it(state: &Limiter, now: u64) {
    let stored = state.limits();
    for moment in [0, now / 2, now, now.saturating_add(1_000).min(LATEST), LATEST] {
        let mut key = Key { state: Some(state.clone()) };
        for mode in [Mode::Whole, Mode::Partial, Mode::Force] {
            for cost in [0, 1, 7, MAX_UNITS] {
                let _ = key.peek(moment, Request { cost, mode });
            }
        }
        let _ = (state.idle_at(), state.is_idle(Micros::new(moment)), state.limits());
        let _ = state.entries(Micros::new(moment));
        key.refund(moment, 1);
        key.ask(&stored, moment, Request { cost: 2, mode: Mode::Force });
        let bytes = key.bytes().unwrap();
        assert!(decode_state(&bytes).is_some(), "a state that was granted can be stored");
    }
}

#[test]
fn a_state_that_is_stored_and_loaded_is_the_same() {
    for_each_algorithm(1_000, penalized_histories, |history| {
        let (key, now) = history.play(|_| {});
        let Some(bytes) = key.bytes() else { return };
        let loaded = Key { state: decode_state(&bytes) };
        assert_eq!(loaded.bytes().unwrap(), bytes);
        for plan in &history.plans {
            for request in [Request::LOOK, cost(1), Request { cost: 30, mode: Mode::Partial }] {
                assert_eq!(loaded.would(plan, now, request), key.would(plan, now, request));
            }
        }
        // And it goes on as the same.
        let (mut one, mut other) = (key, loaded);
        for plan in &history.plans {
            let request = Request { cost: 2, mode: Mode::Force };
            assert_eq!(one.ask(plan, now, request), other.ask(plan, now, request));
            assert_eq!(one.bytes(), other.bytes());
        }
    });
}

#[test]
fn a_state_that_is_cut_is_refused() {
    for_each_algorithm(200, penalized_histories, |history| {
        let (key, _) = history.play(|_| {});
        let Some(bytes) = key.bytes() else { return };
        // A list is cut at every byte but those between two entries, where what is left is a shorter list, and a penalized limiter but
        // where what is left is one of which nothing is used.
        let state = key.state.as_ref();
        let list = state.is_some_and(|state| state.entries(Micros::ZERO).is_some());
        let denials = state.and_then(Limiter::denials);
        let head = if denials.is_some() { 50 } else { 34 };
        for length in 0..bytes.len() {
            let between = list && length >= head + 16 && (length - head).is_multiple_of(16);
            let is_block = denials.is_some_and(|denials| denials.block().is_some());
            let unused = is_block && length == 42;
            if !between && !unused {
                assert_eq!(decode_state(&bytes[..length]), None, "{length} of {bytes:?}");
            }
        }
        for longer in [1, 8, 15] {
            let mut bytes = bytes.clone();
            bytes.extend(std::iter::repeat_n(0, longer));
            assert_eq!(decode_state(&bytes), None, "{longer} more than {bytes:?}");
        }
    });
}

#[test]
fn a_state_with_a_changed_byte_is_refused_or_is_another_valid_state() {
    let strategy = |algorithm| (penalized_histories(algorithm), 1..=255_u8);
    for_each_algorithm(150, strategy, |(history, change)| {
        let (key, now) = history.play(|_| {});
        let Some(bytes) = key.bytes() else { return };
        for place in 0..bytes.len() {
            for change in [change, 1, 0x80, 0xff] {
                let mut forged = bytes.clone();
                forged[place] ^= change;
                if let Some(state) = decode_state(&forged) {
                    assert_eq!(encode_state(&state), forged);
                    use_it(&state, now);
                }
            }
        }
    });
}

#[test]
fn random_bytes_are_refused_or_are_a_valid_state() {
    // Random bytes behind a true beginning come further than random bytes alone.
    let strategy =
        ((1..=3_u8, 0..=5_u8), prop::bool::ANY, prop::collection::vec(any::<u8>(), 0..120));
    for_random("bytes", 20_000, &strategy, |(beginning, zeros, mut bytes)| {
        if let [version, number, rest @ ..] = &mut bytes[..] {
            (*version, *number) = beginning;
            if zeros {
                rest.chunks_mut(8).for_each(|field| field.iter_mut().skip(2).for_each(|b| *b = 0));
            }
        }
        if let Some(state) = decode_state(&bytes) {
            assert_eq!(encode_state(&state), bytes);
            use_it(&state, 1 << 50);
        }
        let _ = Effect::decode(&bytes);
    });
}

/// A state's bytes with other numbers in its fields, each of eight bytes behind the first two.
fn with_fields(bytes: &[u8], fields: &[(usize, u64)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for &(field, value) in fields {
        bytes[2 + 8 * field..][..8].copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

#[test]
fn every_field_is_checked() {
    const NOW: u64 = 1 << 50;
    const YEARS: u64 = Micros::MAX_DURATION.get();
    let state = |plan: &str| {
        let mut key = Key::default();
        key.ask(&limits(plan), NOW, cost(2));
        key.ask(&limits(plan), NOW + 700_000, cost(3));
        key.bytes().unwrap()
    };
    // Fields: 0 to 2 limits, 3 the moment, then what is used.
    for (plan, fields, sentence) in [
        ("TOKENBUCKET 9 1", &[(0, MAX_UNITS + 1)][..], "a capacity above 10^12"),
        ("TOKENBUCKET 9 1", &[(1, 0)], "a rate of no units"),
        ("TOKENBUCKET 9 1", &[(2, 0)], "a rate per no time"),
        ("TOKENBUCKET 9 1", &[(1, 1_001), (2, 1)], "a rate above 10^9 a second"),
        ("TOKENBUCKET 9 1", &[(2, YEARS + 1)], "a rate per more than 3650 days"),
        ("TOKENBUCKET 9 1", &[(3, LATEST + 1)], "a moment from 2^53 on"),
        ("TOKENBUCKET 9 1", &[(4, 0)], "a level of nothing"),
        ("TOKENBUCKET 9 1", &[(5, u64::MAX)], "a level above 2 * 10^12 units"),
        ("TOKENBUCKET 9 1/us", &[(4, MAX_USED + 1)], "a level one above 2 * 10^12 units"),
        ("LEAKYBUCKET 9 1", &[(4, 0)], "a queue of nothing"),
        ("FIXEDWINDOW 9 1s", &[(0, MAX_UNITS + 1)], "a limit above 10^12"),
        ("FIXEDWINDOW 9 1s", &[(1, 999)], "a window below a millisecond"),
        ("FIXEDWINDOW 9 1s", &[(1, YEARS + 1)], "a window above 3650 days"),
        ("FIXEDWINDOW 9 1s", &[(2, 1_000_000)], "an offset of a whole window"),
        ("FIXEDWINDOW 9 1s", &[(3, LATEST + 1)], "a start from 2^53 on"),
        ("FIXEDWINDOW 9 1s", &[(4, 0)], "nothing used"),
        ("FIXEDWINDOW 9 1s", &[(4, MAX_USED + 1)], "more used than 2 * 10^12"),
        ("SLIDING 9 1s", &[(2, 0)], "no buckets"),
        ("SLIDING 9 1s", &[(2, 1_025)], "more than 1024 buckets"),
        ("SLIDING 9 1s", &[(2, 65_536 + 16)], "buckets beyond 16 bits"),
        ("SLIDING 9 1s", &[(3, NOW + 700_001)], "a first hit after the last"),
        ("SLIDING 9 1s", &[(5, 0)], "an entry of no units"),
        ("SLIDING 9 1s", &[(4, NOW + 700_000)], "two entries at one moment"),
        ("SLIDING 9 1s", &[(4, NOW + 700_001)], "entries out of order"),
        ("SLIDING 9 1s", &[(3, 0), (4, LATEST), (6, LATEST + 1)], "an entry from 2^53 on"),
        ("SLIDING 9 1s", &[(5, MAX_USED), (7, 1)], "entries above 2 * 10^12 units"),
        ("SLIDING 9 1s", &[(5, u64::MAX), (7, 2)], "a sum beyond 64 bits"),
        ("SLIDINGLOG 9 1s", &[(0, MAX_LOG_ENTRIES + 1)], "a log of more than 10^7"),
        ("SLIDINGLOG 9 1s", &[(2, 1)], "a log of buckets"),
    ] {
        let bytes = state(plan);
        assert!(decode_state(&bytes).is_some(), "{plan} is valid");
        assert_eq!(decode_state(&with_fields(&bytes, fields)), None, "{sentence}");
    }
    let bytes = state("SLIDING 9 1s BUCKETS 2");
    let third = with_fields(&bytes[bytes.len() - 16..], &[]);
    let three = with_fields(&[&bytes[..], &third].concat(), &[(8, NOW + 700_001)]);
    assert!(decode_state(&three).is_some(), "n + 1 entries");
    assert_eq!(decode_state(&with_fields(&three, &[(2, 1)])), None, "more entries than n + 1");
    assert_eq!(decode_state(&bytes[..34]), None, "a list of nothing");
    for (place, value, sentence) in
        [(0, 0, "an old version"), (0, 2, "a new one"), (1, 5, "a sixth")]
    {
        let mut bytes = bytes.clone();
        bytes[place] = value;
        assert_eq!(decode_state(&bytes), None, "{sentence}");
    }
}

// ---------------------------------------------------------------------------------------------------
// Effects

#[test]
fn an_effect_makes_of_a_replica_what_the_primary_is() {
    for_each_algorithm(1_000, penalized_histories, |history| {
        let mut replica = Key::default();
        history.play(|seen| {
            // What was forgotten or given back between two requests.
            replica = Key { state: seen.before.bytes().and_then(|bytes| decode_state(&bytes)) };
            if seen.decision.taken > 0 {
                let change = Change::Grant(seen.decision.taken);
                let effect = Effect { limits: *seen.call, at: Micros::new(seen.now), change };
                let bytes = effect.encode();
                let bytes = bytes.as_ref();
                assert_eq!(Effect::decode(bytes), Some(effect));
                replica.apply(&Effect::decode(bytes).unwrap());
                assert_eq!(replica.bytes(), seen.after.bytes());
            }
            if let Some(effect) = seen.denial {
                let bytes = effect.encode();
                assert_eq!(Effect::decode(bytes.as_ref()), Some(effect));
                replica.apply(&Effect::decode(bytes.as_ref()).unwrap());
                assert_eq!(replica.bytes(), seen.after.bytes());
            }
        });
    });
}

#[test]
fn a_replica_that_is_sent_every_effect_agrees_at_every_step() {
    let strategy = |algorithm| (penalized_histories(algorithm), 1..=5_u64);
    for_each_algorithm(1_000, strategy, |(mut history, every)| {
        // Keys go by effects alone here; refunds are made beside the history.
        history.steps.iter_mut().for_each(|step| step.expire = false);
        history.steps.retain(|step| matches!(step.action, traffic::Action::Ask(..)));
        let (mut primary, mut replica) = (Key::default(), Key::default());
        let mut number = 0;
        history.play(|seen| {
            let taken = primary.ask(seen.call, seen.now, seen.request).taken;
            number += 1;
            let at = Micros::new(seen.now);
            // An idle limiter is answered as no key, so nothing of it is refunded.
            let in_use = primary.state.as_ref().filter(|state| !state.is_idle(at));
            let stored = in_use.map(Limiter::limits);
            let mut effects = Vec::new();
            if taken > 0 {
                effects.push(Effect { limits: *seen.call, at, change: Change::Grant(taken) });
            }
            if let Some(effect) = seen.denial {
                primary.apply(&effect);
                effects.push(effect);
            }
            if let Some(limits) = stored.filter(|_| number % every == 0) {
                primary.refund(seen.now, every);
                effects.push(Effect { limits, at, change: Change::Refund(every) });
            }
            for effect in effects {
                replica.apply(&Effect::decode(effect.encode().as_ref()).unwrap());
            }
            assert_eq!(replica.bytes(), primary.bytes());
        });
    });
}

#[test]
fn every_field_of_an_effect_is_checked() {
    let effect = Effect {
        limits: limits("FIXEDWINDOW 9 1s"),
        at: Micros::new(1 << 50),
        change: Change::Grant(3),
    };
    let bytes = effect.encode().as_ref().to_vec();
    let most = MAX_UNITS.cast_signed();
    for (units, change) in [
        (1, Some(Change::Grant(1))),
        (most, Some(Change::Grant(MAX_UNITS))),
        (-1, Some(Change::Refund(1))),
        (-most, Some(Change::Refund(MAX_UNITS))),
        (0, None),
        (most + 1, None),
        (-most - 1, None),
        (i64::MAX, None),
        (i64::MIN, None),
    ] {
        let bytes = with_fields(&bytes, &[(4, units.cast_unsigned())]);
        let decoded = Effect::decode(&bytes);
        assert_eq!(decoded.map(|effect| effect.change), change, "{units} units");
        assert!(decoded.is_none_or(|effect| effect.encode().as_ref() == bytes));
    }
    for (field, value, sentence) in [
        (0, MAX_UNITS + 1, "a limit above 10^12"),
        (1, 999, "a window below a millisecond"),
        (2, 1_000_000, "an offset of a whole window"),
        (3, LATEST + 1, "a moment from 2^53 on"),
    ] {
        assert_eq!(Effect::decode(&with_fields(&bytes, &[(field, value)])), None, "{sentence}");
    }
    for length in 0..bytes.len() {
        assert_eq!(Effect::decode(&bytes[..length]), None, "cut at {length}");
    }
    assert_eq!(Effect::decode(&[&bytes[..], &[0]].concat()), None, "a byte too many");
    for (place, value) in [(0, 0), (0, 2), (1, 5), (1, 255)] {
        let mut bytes = bytes.clone();
        bytes[place] = value;
        assert_eq!(Effect::decode(&bytes), None, "no such version or algorithm");
    }
}

#[test]
fn a_denial_that_counts_has_an_after_and_a_duration_within_their_bounds() {
    let penalty = Penalty::new(Micros::new(1_000), 1).unwrap();
    let effect = Effect {
        limits: limits("SLIDING 9 1s"),
        at: Micros::new(1 << 50),
        change: Change::Deny(penalty),
    };
    let bytes = effect.encode().as_ref().to_vec();
    assert_eq!((bytes.len(), Effect::decode(&bytes)), (58, Some(effect)));
    for (fields, sentence) in [
        ([(4, 1)], "denied, and yet granted"),
        ([(4, u64::MAX)], "denied, and yet given back"),
        ([(5, 0)], "after no denial"),
        ([(5, 1_000_001)], "after too many"),
        ([(5, 1 << 32 | 1)], "after more than fit"),
        ([(6, 999)], "for less than a millisecond"),
        ([(6, Micros::MAX_DURATION.get() + 1)], "for more than 3650 days"),
    ] {
        assert_eq!(Effect::decode(&with_fields(&bytes, &fields)), None, "{sentence}");
    }
    for length in 0..bytes.len() {
        assert_eq!(Effect::decode(&bytes[..length]), None, "cut at {length}");
    }
    assert_eq!(Effect::decode(&[&bytes[..], &[0]].concat()), None, "a byte too many");
    let mut leases = bytes;
    leases[1] = 5;
    assert_eq!(Effect::decode(&with_fields(&leases, &[(2, 0)])), None, "leases have no denials");
}

#[test]
fn what_is_remembered_of_denials_is_checked() {
    let mut key = Key::default();
    let plan = limits("SLIDING 2 1s");
    key.ask(&plan, 1 << 50, cost(2));
    let row = Penalty::new(Micros::new(1_000), 3).unwrap();
    key.deny(1 << 50, row, Decision::default());
    let bytes = key.bytes().unwrap();
    assert_eq!(bytes[0], 3, "no older module reads it");
    for (fields, is_valid, sentence) in [
        (&[(3, 999_999)][..], true, "the longest row"),
        (&[(3, 1_000_000)], false, "a row that would have begun a block"),
        (&[(3, 0)], false, "no row"),
        (&[(3, LATEST), (4, 1_000)], true, "a block"),
        (&[(3, LATEST + 1), (4, 1_000)], false, "one from 2^53 on"),
        (&[(4, 999)], false, "a block below a millisecond"),
        (&[(4, Micros::MAX_DURATION.get() + 1)], false, "one above 3650 days"),
    ] {
        let decoded = decode_state(&with_fields(&bytes, fields));
        assert_eq!(decoded.is_some(), is_valid, "{sentence}");
    }
    assert_eq!(decode_state(&bytes[..42]), None, "a row, and nothing is used");
    let mut leases = bytes;
    leases[1] = 5;
    assert_eq!(decode_state(&leases), None, "leases have no denials");
}

#[test]
fn an_effect_on_a_lease_has_an_id_of_1_to_64_bytes_and_units_that_say_what_it_does() {
    let at = Micros::new(1 << 50);
    for length in 1..=64 {
        let id = &vec![7; length][..];
        for (units, change) in [
            (1, Some(Change::Acquire(id, 1))),
            (MAX_UNITS.cast_signed(), Some(Change::Acquire(id, MAX_UNITS))),
            (0, Some(Change::Renew(id))),
            (-1, Some(Change::Release(id))),
            (-2, None),
            (MAX_UNITS.cast_signed() + 1, None),
            (i64::MIN, None),
        ] {
            let effect =
                Effect { limits: limits("CONCURRENCY 9 1s id"), at, change: Change::Renew(id) };
            let bytes = effect.encode().as_ref().to_vec();
            assert_eq!(bytes.len(), 42 + length);
            let bytes = with_fields(&bytes, &[(4, units.cast_unsigned())]);
            let decoded = Effect::decode(&bytes);
            assert_eq!(decoded.map(|effect| effect.change), change, "{units} units");
            assert!(decoded.is_none_or(|effect| effect.encode().as_ref() == bytes));
        }
    }
    let id = &[7; 64][..];
    let effect =
        Effect { limits: limits("CONCURRENCY 9 1s id"), at, change: Change::Acquire(id, 3) };
    let bytes = effect.encode().as_ref().to_vec();
    for length in 0..=42 {
        assert_eq!(Effect::decode(&bytes[..length]), None, "no id, or cut at {length}");
    }
    assert_eq!(Effect::decode(&[&bytes[..], &[7]].concat()), None, "an id of 65 bytes");
    for (field, value, sentence) in [
        (0, MAX_UNITS + 1, "a limit above 10^12"),
        (1, 999, "a ttl below a millisecond"),
        (2, 1, "a field that is not used"),
        (3, LATEST + 1, "a moment from 2^53 on"),
    ] {
        assert_eq!(Effect::decode(&with_fields(&bytes, &[(field, value)])), None, "{sentence}");
    }
    for version in [0, 1, 3] {
        let mut bytes = bytes.clone();
        bytes[0] = version;
        assert_eq!(Effect::decode(&bytes), None, "an older module's format knows no leases");
    }
}
