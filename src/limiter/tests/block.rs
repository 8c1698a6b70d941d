//! BLOCK by examples. `against_model` has penalties in its histories, whatever the algorithm.

use super::super::block::{MAX_AFTER, Penalty};
use super::super::codec::{decode_state, encode_state};
use super::super::effect::{self, After, Before, Change, Effect};
use super::super::{Decision, Micros, Mode, Request};
use super::{BY_TIME, Key, cost, limits};

const SECOND: u64 = 1_000_000;

fn penalty(duration: u64, after: u32) -> Penalty {
    Penalty::new(Micros::new(duration), after).unwrap()
}

/// A bucket of two units at one a minute, of which none is left.
fn empty() -> Key {
    let mut key = Key::default();
    key.ask(&limits("TOKENBUCKET 2 1/60"), 0, cost(2));
    key
}

/// Asks for a unit, with BLOCK.
fn ask(key: &mut Key, now: u64, penalty: Penalty) -> Decision {
    let decision = key.ask(&limits("TOKENBUCKET 2 1/60"), now, cost(1));
    if decision.allowed { decision } else { key.deny(now, penalty, decision) }
}

fn row(key: &Key) -> u32 {
    key.state.as_ref().and_then(|state| state.denials()).map_or(0, |denials| denials.in_a_row())
}

fn left(key: &Key, now: u64) -> u64 {
    key.state.as_ref().map_or(0, |state| state.block_left(Micros::new(now)).get())
}

#[test]
fn a_penalty_has_bounds() {
    let longest = Micros::MAX_DURATION.get();
    for (duration, after, is_valid) in [
        (1_000, 1, true),
        (longest, MAX_AFTER, true),
        (999, 1, false),
        (longest + 1, 1, false),
        (1_000, 0, false),
        (1_000, MAX_AFTER + 1, false),
    ] {
        assert_eq!(Penalty::new(Micros::new(duration), after).is_some(), is_valid, "{duration}");
    }
}

#[test]
fn so_many_denials_in_a_row_begin_a_block_and_the_last_of_them_tells_so() {
    let (mut key, block) = (empty(), penalty(300 * SECOND, 3));
    for (now, wait, reset) in [(1, 60, 120), (2, 60, 120)] {
        let denied = ask(&mut key, now * SECOND, block);
        assert_eq!(
            (denied.wait, denied.reset.get()),
            (Some(Micros::new((wait - now) * SECOND)), (reset - now) * SECOND)
        );
    }
    assert_eq!((row(&key), left(&key, 2 * SECOND)), (2, 0));
    let last = ask(&mut key, 3 * SECOND, block);
    let five_minutes = Micros::new(300 * SECOND);
    assert_eq!((last.remaining, last.wait, last.reset), (0, Some(five_minutes), five_minutes));
    assert_eq!((row(&key), left(&key, 3 * SECOND)), (0, 300 * SECOND));
    // The bucket is full again by then, and yet it is closed until the last microsecond.
    let end = 303 * SECOND;
    assert!(!key.would(&limits("TOKENBUCKET 2 1"), end - 1, cost(1)).allowed);
    assert!(key.would(&limits("TOKENBUCKET 2 1"), end, cost(2)).allowed);
}

#[test]
fn denials_during_a_block_neither_count_nor_prolong_it() {
    let (mut key, block) = (empty(), penalty(10 * SECOND, 1));
    ask(&mut key, SECOND, block);
    let bytes = key.bytes();
    for now in [SECOND, 5 * SECOND, 11 * SECOND - 1] {
        let denied = ask(&mut key, now, block);
        assert_eq!((denied.allowed, denied.is_blocked), (false, true));
        assert_eq!(key.bytes(), bytes, "at {now}");
    }
    assert_eq!(left(&key, 11 * SECOND), 0);
}

#[test]
fn a_grant_or_the_end_of_a_block_ends_the_row() {
    let mut key = empty();
    ask(&mut key, SECOND, penalty(SECOND, 3));
    ask(&mut key, 2 * SECOND, penalty(SECOND, 3));
    assert!(ask(&mut key, 60 * SECOND, penalty(SECOND, 3)).allowed);
    assert_eq!(key.state.as_ref().unwrap().denials(), None, "nothing is remembered any more");
    for number in 1..=3 {
        ask(&mut key, 61 * SECOND, penalty(SECOND, 3));
        assert_eq!(row(&key), number % 3, "anew");
    }
    ask(&mut key, 62 * SECOND, penalty(SECOND, 3));
    assert_eq!(row(&key), 1, "anew after the block");
}

#[test]
fn a_lower_after_begins_a_block_at_its_own_denial() {
    let mut key = empty();
    (0..5).for_each(|_| _ = ask(&mut key, SECOND, penalty(SECOND, 10)));
    assert_eq!((row(&key), left(&key, SECOND)), (5, 0));
    ask(&mut key, SECOND, penalty(7 * SECOND, 3));
    assert_eq!(left(&key, SECOND), 7 * SECOND);
}

#[test]
fn force_and_cost_0_pass_while_it_is_closed_and_nothing_opens_it() {
    let plan = limits("TOKENBUCKET 2 1/60");
    let mut key = empty();
    ask(&mut key, SECOND, penalty(1_000 * SECOND, 1));
    let forced = key.ask(&plan, 2 * SECOND, Request { cost: 5, mode: Mode::Force });
    assert_eq!((forced.allowed, forced.taken, forced.remaining), (true, 5, 0));
    assert_eq!(forced.reset.get(), 999 * SECOND);
    let look = key.ask(&plan, 2 * SECOND, Request::LOOK);
    assert_eq!((look.allowed, look.wait, look.remaining), (true, Some(Micros::ZERO), 0));
    assert_eq!(left(&key, 2 * SECOND), 999 * SECOND, "closed still");
    let partial = key.ask(&plan, 900 * SECOND, Request { cost: 2, mode: Mode::Partial });
    assert_eq!((partial.allowed, partial.taken), (false, 0));
    assert_eq!(key.would(&plan, 900 * SECOND, cost(3)).wait, None, "it never can be granted");
}

#[test]
fn a_limiter_of_which_nothing_is_used_counts_no_denials() {
    for plan in [
        "TOKENBUCKET 0 1",
        "LEAKYBUCKET 0 1",
        "FIXEDWINDOW 0 1s",
        "SLIDING 0 1s",
        "SLIDINGLOG 0 1s",
    ] {
        let mut key = Key::default();
        let denied = key.ask(&limits(plan), SECOND, cost(1));
        key.deny(SECOND, penalty(SECOND, 1), denied);
        assert_eq!(key, Key::default(), "{plan}: a fresh key");
        let used = limits(&plan.replacen(" 0", " 1", 1));
        key.ask(&used, SECOND, cost(1));
        let idle_at = key.state.as_ref().unwrap().idle_at().get();
        assert_eq!(key.denial(idle_at, penalty(SECOND, 1)), None, "{plan}: an idle one");
        assert!(key.denial(idle_at - 1, penalty(SECOND, 1)).is_some(), "{plan}: one in use");
    }
}

#[test]
fn a_block_keeps_a_limiter_of_which_all_is_given_back_and_a_row_does_not() {
    for algorithm in BY_TIME {
        let plan = match algorithm.name() {
            name @ ("TOKENBUCKET" | "LEAKYBUCKET") => limits(&format!("{name} 2 1/60")),
            name => limits(&format!("{name} 2 1m")),
        };
        let used = || {
            let mut key = Key::default();
            key.ask(&plan, SECOND, cost(2));
            key
        };
        let mut key = used();
        key.deny(SECOND, penalty(SECOND, 2), Decision::default());
        key.refund(SECOND, 2);
        assert_eq!(key, Key::default(), "{algorithm:?}");

        let mut key = used();
        key.deny(SECOND, penalty(10 * SECOND, 1), Decision::default());
        key.refund(2 * SECOND, 2);
        assert_eq!((key.used(2 * SECOND), left(&key, 2 * SECOND)), (0, 9 * SECOND));
        let peek = key.peek(2 * SECOND, cost(1)).expect("the key is there");
        assert_eq!((peek.allowed, peek.limit, peek.reset.get()), (false, 2, 9 * SECOND));
        let bytes = key.bytes().unwrap();
        assert_eq!(bytes.len(), 42, "limits and the block");
        assert_eq!(decode_state(&bytes).as_ref(), key.state.as_ref());
        // What is given back once more is nothing, and is not written.
        let limits = key.state.as_ref().unwrap().limits();
        let at = Micros::new(3 * SECOND);
        let effect = Effect { limits, at, change: Change::Refund(1) };
        let after = effect::apply(Before::Limiter(key.state.as_mut().unwrap()), &effect);
        assert_eq!(after, After::Unchanged);
        assert_eq!(key.peek(11 * SECOND, cost(1)), None, "and then it is as none");
        assert!(key.ask(&plan, 11 * SECOND, cost(2)).allowed);
        assert_eq!(encode_state(key.state.as_ref().unwrap())[0], 1, "an ordinary state");
    }
}

#[test]
fn a_clock_that_stepped_back_ends_a_block() {
    let mut key = empty();
    ask(&mut key, 20 * SECOND, penalty(10 * SECOND, 1));
    assert_eq!(left(&key, 20 * SECOND), 10 * SECOND);
    assert_eq!(left(&key, 20 * SECOND - 1), 0, "it would last longer than its own duration");
}

#[test]
fn the_key_lives_until_the_block_is_over() {
    let mut key = empty();
    let effect = key.denial(SECOND, penalty(1_000 * SECOND, 1)).unwrap();
    let after = effect::apply(Before::Limiter(key.state.as_mut().unwrap()), &effect);
    assert_eq!(after, After::Changed { idle_at: Some(Micros::new(1_001 * SECOND)) });
    let forced =
        key.ask(&limits("TOKENBUCKET 2 1/60"), SECOND, Request { cost: 1, mode: Mode::Force });
    assert_eq!(forced.reset.get(), 1_000 * SECOND);
    assert_eq!(key.state.as_ref().unwrap().idle_at().get(), 1_001 * SECOND);
}
