//! Memory: of a limiter, of an entry, and of the block that holds entries.

use super::super::ring::Entry;
use super::super::{Limiter, Limits, Micros, Mode, Request, codec, decide_and_plan};
use super::traffic::histories;
use super::{Key, cost, for_each_algorithm, limits};

/// The bytes of the block, and the entries that are kept, those that no longer count included.
fn block(key: &Key) -> (usize, usize) {
    let state = key.state.as_ref().unwrap();
    let (first, _) = Limiter::first((&state.limits()).into(), Micros::ZERO, 1);
    let head = codec::encode_state(&first).len() - 16;
    (state.block_bytes(), (codec::encode_state(state).len() - head) / 16)
}

/// At most 24 bytes an entry; where there is but one, at most four slots.
fn assert_small(key: &Key) {
    let (bytes, entries) = block(key);
    let most = (24 * entries).max(4 * size_of::<Entry>());
    assert!(bytes <= most, "{bytes} bytes for {entries} entries");
}

#[test]
fn a_limiter_takes_32_bytes_and_an_entry_at_most_16() {
    assert_eq!(size_of::<Limiter>(), 32);
    assert!(size_of::<Entry>() <= 16, "{}", size_of::<Entry>());
}

#[test]
fn a_bucket_and_a_fixed_window_take_nothing_but_the_limiter() {
    for plan in ["TOKENBUCKET 5 1", "LEAKYBUCKET 5 1", "FIXEDWINDOW 5 1m"] {
        let mut key = Key::default();
        key.ask(&limits(plan), 0, cost(1));
        assert_eq!(key.state.unwrap().block_bytes(), 0, "{plan}");
    }
}

#[test]
fn only_a_bucket_of_large_numbers_takes_a_block_and_goes_back_when_it_needs_none() {
    const SMALL: [&str; 4] =
        ["4294967295 10", "1000000 100/1m", "7000000 1000000/30d", "1 4294967295/2m"];
    const LARGE: [&str; 4] =
        ["4294967296 10", "8000000 1000000/30d", "1 4294967296/2m", "1 1/3650d"];
    for (plans, is_large) in [(SMALL, false), (LARGE, true)] {
        for plan in plans {
            let plan = limits(&format!("TOKENBUCKET {plan}"));
            let mut key = Key::default();
            let capacity = key.ask(&plan, 0, cost(0)).limit;
            key.ask(&plan, 0, cost(capacity));
            let state = key.state.as_mut().unwrap();
            assert_eq!(state.block_bytes(), if is_large { 56 } else { 0 }, "{plan:?}");
            assert_eq!(state.limits(), plan);
            assert_eq!(codec::decode_state(&codec::encode_state(state)).as_ref(), Some(&*state));
            state.grant((&limits("TOKENBUCKET 5 1")).into(), Micros::new(1 << 52), 1);
            assert_eq!(state.block_bytes(), 0);
        }
    }
}

#[test]
fn a_log_takes_at_most_24_bytes_an_entry_while_it_fills_and_while_it_empties() {
    const FULL: u64 = 4_000;
    let plan = limits("SLIDINGLOG 4000 1s");
    let (mut key, mut now) = (Key::default(), 1 << 50);
    for number in 1..=FULL {
        now += 1;
        assert!(key.ask(&plan, now, cost(1)).allowed);
        assert_small(&key);
        assert_eq!(block(&key).1 as u64, number, "an entry for every microsecond");
    }
    assert!(!key.ask(&plan, now + 1, cost(1)).allowed, "full");
    // A second later seven hits leave for every one that comes.
    now = (1 << 50) + 1_000_000;
    for _ in 0..FULL / 7 {
        now += 7;
        assert!(key.ask(&plan, now, cost(1)).allowed);
        assert_small(&key);
    }
    key.ask(&plan, now + 2_000_000, cost(1));
    assert_eq!(block(&key).1, 1, "what has left is given back by the next grant");
    assert_small(&key);
}

#[test]
fn a_refund_gives_memory_back() {
    let plan = limits("SLIDINGLOG 1000 1s");
    let mut key = Key::default();
    for now in 0..1_000 {
        key.ask(&plan, now, cost(1));
    }
    while key.state.is_some() {
        assert_small(&key);
        key.refund(1_000, 30);
    }
}

#[test]
fn no_history_makes_a_block_larger_than_its_entries_need() {
    for_each_algorithm(1_000, histories, |history| {
        history.play(|seen| {
            if let Some(Limits::SlidingWindow(_)) = seen.after.state.as_ref().map(Limiter::limits) {
                assert_small(seen.after);
            }
        });
    });
}

#[test]
fn a_grant_takes_new_memory_only_where_it_is_said_to() {
    for_each_algorithm(1_000, histories, |history| {
        history.play(|seen| {
            let moment = Micros::new(seen.now);
            let force = Request { cost: 1, mode: Mode::Force };
            let state = seen.before.state.as_ref();
            let said = decide_and_plan(state, seen.call.into(), moment, force).1.must_allocate;
            let Some(before) = state else {
                assert!(said);
                return;
            };
            let mut after = before.clone();
            let room = after.block_bytes();
            after.grant(seen.call.into(), moment, 1);
            let now = after.block_bytes();
            // A bucket that outgrows its small form takes some without saying so.
            let is_bucket = matches!(seen.call, Limits::Bucket(_));
            assert!(now <= room || said || is_bucket, "{room} bytes, now {now}");
        });
    });
}

#[test]
fn a_sliding_window_counter_has_at_most_one_entry_more_than_buckets() {
    let plan = limits("SLIDING 1000000 1s BUCKETS 16");
    let mut key = Key::default();
    for number in 0..10_000_u64 {
        let request = Request { cost: 1, mode: Mode::Force };
        key.ask(&plan, number * 997, request);
        assert!(block(&key).1 <= 17);
        assert_small(&key);
    }
}
