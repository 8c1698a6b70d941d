//! Which keys are denied most often: the sketch beside a slow model, and beside exact counts.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::super::Micros;
use super::super::top::{MAX_NAME, Sketch};
use super::for_random;

const MINUTE: u64 = 60_000_000;

/// Numbers that are different each time they are asked for, as splitmix64 makes them.
fn random(mut seed: u64) -> impl FnMut(u64) -> u64 {
    move |_| {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn sketch(slots: u32) -> Sketch {
    Sketch::new(slots, random(1))
}

type Key = (u32, String);

fn listed(sketch: &Sketch, now: u64) -> Vec<(Key, u64)> {
    let rows = sketch.top(usize::MAX, Micros::new(now));
    let name = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
    rows.iter().map(|row| ((row.db, name(row.name)), row.denials)).collect()
}

/// Asserts `name:count` of all keys of database 0.
fn assert_lists(sketch: &Sketch, now: u64, expected: &str) {
    let found: Vec<_> =
        listed(sketch, now).iter().map(|((_, name), count)| format!("{name}:{count}")).collect();
    assert_eq!(found.join(" "), expected, "at {now} us");
}

fn count_all(sketch: &mut Sketch, now: u64, names: &str) {
    for name in names.chars() {
        sketch.count(0, name.to_string().as_bytes(), Micros::new(now));
    }
}

#[test]
fn keys_are_counted_and_listed_by_their_counts_then_by_name() {
    let mut sketch = sketch(4);
    assert_lists(&sketch, 0, "");
    count_all(&mut sketch, 0, "bacabb");
    assert_lists(&sketch, 0, "b:3 a:2 c:1");
    count_all(&mut sketch, 0, "ad");
    assert_lists(&sketch, 0, "a:3 b:3 c:1 d:1");
    let first: Vec<_> = sketch.top(3, Micros::ZERO).iter().map(|row| row.name.to_vec()).collect();
    assert_eq!(first, [b"a", b"b", b"c"]);
}

#[test]
fn a_key_without_a_slot_takes_the_one_with_the_least_count_and_goes_on_from_it() {
    let mut sketch = sketch(3);
    count_all(&mut sketch, 0, "aaabbc");
    count_all(&mut sketch, 0, "d");
    assert_lists(&sketch, 0, "a:3 b:2 d:2");
    // Of equal ones the slot that has had that count for longest.
    count_all(&mut sketch, 0, "e");
    assert_lists(&sketch, 0, "a:3 e:3 d:2");
    count_all(&mut sketch, 0, "ddf");
    assert_lists(&sketch, 0, "d:4 f:4 e:3");
}

#[test]
fn counts_are_halved_each_minute_and_rounded_down_and_leave_at_0() {
    let mut sketch = sketch(4);
    count_all(&mut sketch, 5 * MINUTE, "aaaaabbbcc");
    count_all(&mut sketch, 6 * MINUTE - 1, "d");
    assert_lists(&sketch, 6 * MINUTE - 1, "a:5 b:3 c:2 d:1");
    // Looking changes nothing.
    assert_lists(&sketch, 7 * MINUTE - 1, "a:2 b:1 c:1");
    assert_lists(&sketch, 7 * MINUTE, "a:1");
    assert_lists(&sketch, 8 * MINUTE, "");
    assert_lists(&sketch, u64::MAX, "");
    assert_lists(&sketch, 6 * MINUTE - 1, "a:5 b:3 c:2 d:1");
    count_all(&mut sketch, 6 * MINUTE, "e");
    assert_lists(&sketch, 6 * MINUTE, "a:2 b:1 c:1 e:1");
    count_all(&mut sketch, 7 * MINUTE, "ff");
    assert_lists(&sketch, 7 * MINUTE, "f:2 a:1");
    // Many minutes at once.
    count_all(&mut sketch, 10_000 * MINUTE, "g");
    assert_lists(&sketch, 10_000 * MINUTE, "g:1");
}

#[test]
fn a_clock_that_steps_back_halves_nothing_and_minutes_count_from_there() {
    let mut sketch = sketch(4);
    count_all(&mut sketch, 1_000 * MINUTE + 1, "aaaa");
    count_all(&mut sketch, 10 * MINUTE + 7, "a");
    assert_lists(&sketch, 10 * MINUTE + 7, "a:5");
    assert_lists(&sketch, 0, "a:5");
    count_all(&mut sketch, 11 * MINUTE + 6, "a");
    assert_lists(&sketch, 11 * MINUTE + 6, "a:6");
    count_all(&mut sketch, 11 * MINUTE + 7, "b");
    assert_lists(&sketch, 11 * MINUTE + 7, "a:3 b:1");
}

#[test]
fn databases_are_told_apart_forgotten_and_swapped() {
    let mut sketch = sketch(8);
    let at = Micros::ZERO;
    for (db, name, times) in [(0, "k", 3), (1, "k", 2), (2, "k", 4), (1, "l", 1)] {
        (0..times).for_each(|_| sketch.count(db, name.as_bytes(), at));
    }
    let rows = |sketch: &Sketch| {
        let rows: Vec<_> = listed(sketch, 0)
            .into_iter()
            .map(|((db, name), count)| format!("{db}{name}:{count}"))
            .collect();
        rows.join(" ")
    };
    assert_eq!(rows(&sketch), "2k:4 0k:3 1k:2 1l:1");
    sketch.swap(1, 2);
    assert_eq!(rows(&sketch), "1k:4 0k:3 2k:2 2l:1");
    sketch.count(2, b"l", at);
    assert_eq!(rows(&sketch), "1k:4 0k:3 2k:2 2l:2", "it is found under its new number");
    sketch.swap(7, 2);
    sketch.swap(0, 0);
    sketch.forget(1);
    assert_eq!(rows(&sketch), "0k:3 7k:2 7l:2");
    sketch.forget(2);
    sketch.count(1, b"k", at);
    assert_eq!(rows(&sketch), "0k:3 7k:2 7l:2 1k:1");
}

#[test]
fn names_of_any_length_are_told_apart_up_to_the_longest() {
    let text = [b'x'; MAX_NAME + 1];
    // Without random numbers the hashes of all names of up to four bytes are equal.
    for mut sketch in [sketch(1_000), Sketch::new(1_000, |_| 0)] {
        for length in 0..=text.len() {
            sketch.count(0, &text[..length], Micros::ZERO);
        }
        let rows = sketch.top(usize::MAX, Micros::ZERO);
        assert_eq!(
            rows.len(),
            text.len(),
            "the empty one counts, the one that is too long does not"
        );
        assert!(rows.iter().all(|row| row.denials == 1));
        // In the first byte, in the last, and in a zero at the end.
        let names =
            ["12345678", "02345678", "12345670", "1234567\0", "1234567", "12345678\0", "\0", ""];
        for name in
            names.into_iter().chain(["123456789", "12345678\0\0", "023456789", "a", "b", "ab"])
        {
            sketch.count(1, name.as_bytes(), Micros::ZERO);
        }
        let rows = sketch.top(usize::MAX, Micros::ZERO);
        assert_eq!(rows.iter().filter(|row| row.db == 1).count(), 14);
    }
}

#[test]
fn a_sketch_without_slots_counts_nothing() {
    let mut sketch = sketch(0);
    count_all(&mut sketch, 0, "ab");
    count_all(&mut sketch, 100 * MINUTE, "ab");
    assert_lists(&sketch, 100 * MINUTE, "");
}

/// The same as obviously as it can be said: all slots in a list.
#[derive(Default)]
struct Model {
    slots: Vec<(Key, u64)>,
    most: usize,
    halved_at: u64,
    /// The most that a key without a slot may have had.
    base: u64,
}

impl Model {
    /// `taken_over` is which key has lost its slot: one with the least count.
    fn count(&mut self, key: &Key, now: u64, taken_over: &[Key]) {
        if now < self.halved_at {
            self.halved_at = now;
        }
        while now >= self.halved_at + MINUTE {
            self.halved_at += MINUTE;
            self.slots.iter_mut().for_each(|(_, count)| *count /= 2);
            self.slots.retain(|(_, count)| *count > 0);
            self.base /= 2;
        }
        if let Some((_, count)) = self.slots.iter_mut().find(|(known, _)| known == key) {
            *count += 1;
            return;
        }
        if self.slots.len() == self.most {
            let least = self.slots.iter().map(|(_, count)| *count).min().unwrap();
            let [lost] = taken_over else { panic!("{taken_over:?} for one") };
            let place = self.slots.iter().position(|(known, _)| known == lost).unwrap();
            assert_eq!(self.slots.remove(place).1, least, "{lost:?} has not the least count");
            self.base = least;
        }
        self.slots.push((key.clone(), self.base + 1));
    }

    fn sorted(&self) -> Vec<(Key, u64)> {
        let mut slots = self.slots.clone();
        slots.sort_by_key(|(key, count)| (std::cmp::Reverse(*count), key.clone()));
        slots
    }
}

#[derive(Clone, Debug)]
enum Step {
    Count(u32, u8),
    Wait(u64),
    GoBack(u64),
    Forget(u32),
    Swap(u32, u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => (0..3_u32, prop_oneof![3 => 0..6_u8, 1 => 0..60_u8]).prop_map(|(db, key)| Step::Count(db, key)),
        6 => (0..2 * MINUTE).prop_map(Step::Wait),
        1 => (0..9 * MINUTE).prop_map(Step::Wait),
        1 => (0..9 * MINUTE).prop_map(Step::GoBack),
        1 => (0..3_u32).prop_map(Step::Forget),
        1 => (0..3_u32, 0..3_u32).prop_map(|(one, other)| Step::Swap(one, other)),
    ]
}

#[test]
fn it_lists_what_a_slow_model_lists_whatever_happens() {
    let histories = (1..12_u32, any::<u64>(), prop::collection::vec(step(), 1..200));
    for_random("a history", 2_000, &histories, |(slots, seed, steps)| {
        let mut sketch = Sketch::new(slots, random(seed));
        let mut model = Model { most: slots as usize, ..Model::default() };
        let mut now = 100 * MINUTE;
        for step in steps {
            match step {
                Step::Count(db, key) => {
                    // Long and short names, whose first bytes are the same.
                    let name = format!("{}{key}", "a long name".repeat(key as usize % 3));
                    let at = Micros::new(now);
                    // A look at that moment shows who has a slot once counts are halved.
                    let before: Vec<_> =
                        listed(&sketch, now).into_iter().map(|row| row.0).collect();
                    sketch.count(db, name.as_bytes(), at);
                    let after: HashSet<_> =
                        listed(&sketch, now).into_iter().map(|row| row.0).collect();
                    let lost: Vec<_> =
                        before.into_iter().filter(|key| !after.contains(key)).collect();
                    model.count(&(db, name), now, &lost);
                }
                Step::Wait(micros) => now += micros,
                Step::GoBack(micros) => now = now.saturating_sub(micros),
                Step::Forget(db) => {
                    sketch.forget(db);
                    model.slots.retain(|((of, _), _)| *of != db);
                }
                Step::Swap(one, other) => {
                    sketch.swap(one, other);
                    for ((db, _), _) in &mut model.slots {
                        *db = match *db {
                            db if db == one => other,
                            db if db == other => one,
                            db => db,
                        };
                    }
                }
            }
            // At the moment of the last halving nothing is halved for the look.
            assert_eq!(listed(&sketch, model.halved_at), model.sorted());
        }
    });
}

/// What really happened: the hits of each key halved each minute, with and without rounding.
#[derive(Default)]
struct Exact {
    rounded: HashMap<u64, u64>,
    /// In units of 2^-64.
    whole: HashMap<u64, u128>,
    all: u128,
}

impl Exact {
    fn count(&mut self, key: u64) {
        *self.rounded.entry(key).or_default() += 1;
        *self.whole.entry(key).or_default() += 1 << 64;
        self.all += 1 << 64;
    }

    fn halve(&mut self) {
        self.rounded.values_mut().for_each(|count| *count /= 2);
        self.whole.values_mut().for_each(|count| *count = count.div_ceil(2));
        self.all = self.all.div_ceil(2);
    }

    /// Asserts the two lines of the sketch's head comment.
    fn assert_bounds(&self, sketch: &Sketch, slots: u32, now: u64) {
        let listed: HashMap<_, _> = listed(sketch, now)
            .into_iter()
            .map(|((_, name), count)| (name.parse::<u64>().unwrap(), count))
            .collect();
        assert!(listed.len() <= slots as usize);
        for (key, &count) in &listed {
            let (rounded, whole) = (self.rounded[key], self.whole[key]);
            assert!(count >= rounded, "{key}: {count} is too low, it has {rounded}");
            let too_high = (u128::from(count) << 64).saturating_sub(whole);
            let share = self.all / u128::from(slots);
            assert!(too_high <= share, "{key}: {count} is too high by more than {}", share >> 64);
        }
        for (key, &rounded) in &self.rounded {
            let is_many = (u128::from(rounded) << 64) * u128::from(slots) > self.all;
            assert!(!is_many || listed.contains_key(key), "{key} with {rounded} is missing");
        }
    }
}

/// Keys by Zipf's law: key n comes as often as 1/n^1.1.
#[allow(clippy::float_arithmetic, reason = "nothing is decided by it")]
fn zipf(keys: u64, seed: u64) -> impl Iterator<Item = u64> {
    let weights = (1..=keys).scan(0.0, |sum, key| {
        *sum += (key as f64).powf(-1.1);
        Some(*sum)
    });
    let sums: Vec<f64> = weights.collect();
    let mut random = random(seed);
    std::iter::from_fn(move || {
        let place = (random(0) >> 11) as f64 / (1_u64 << 53) as f64 * sums.last().unwrap();
        Some(sums.partition_point(|sum| *sum < place) as u64)
    })
}

#[test]
fn no_count_is_too_low_none_too_high_by_more_than_its_share_and_who_has_more_is_listed() {
    for (slots, keys, seed) in [(128, 20_000, 1), (10, 300, 2), (1, 5, 3), (1_000, 100_000, 4)] {
        let (mut sketch, mut exact) = (sketch(slots), Exact::default());
        let mut now = 0;
        for (number, key) in zipf(keys, seed).take(120_000).enumerate() {
            // Busy minutes, and quiet ones in which little is left of them.
            let step = if number % 30_000 < 25_000 { 5_000 } else { 600_000 };
            if now / MINUTE < (now + step) / MINUTE {
                exact.halve();
            }
            now += step;
            sketch.count(0, key.to_string().as_bytes(), Micros::new(now));
            exact.count(key);
            if number % 5_003 == 0 || number < 20 {
                exact.assert_bounds(&sketch, slots, now);
            }
        }
        exact.assert_bounds(&sketch, slots, now);
    }
}

#[test]
fn a_flood_of_a_million_new_keys_pushes_out_nobody_who_has_his_share() {
    const SLOTS: u32 = 128;
    let (mut sketch, mut exact) = (sketch(SLOTS), Exact::default());
    let mut now = 0;
    for number in 0..1_000_000_u64 {
        // 4 minutes. Every hundredth hit is of the same key, which is more than a 128th.
        now += 240;
        if now % MINUTE == 0 {
            exact.halve();
        }
        for key in std::iter::once(1_000 + number).chain((number % 100 == 0).then_some(7)) {
            sketch.count(0, key.to_string().as_bytes(), Micros::new(now));
            exact.count(key);
        }
        if number % 250_000 == 249_999 || number == 500 {
            exact.assert_bounds(&sketch, SLOTS, now);
            let first = &listed(&sketch, now)[0].0.1;
            assert_eq!(first, "7");
        }
    }
}

#[test]
fn small_streams_keep_the_bounds_at_every_step() {
    let hits = prop::collection::vec((0..12_u64, prop_oneof![9 => Just(0), 1 => 1..4_u64]), 1..300);
    for_random("a small stream", 2_000, &(1..6_u32, hits), |(slots, hits)| {
        let (mut sketch, mut exact) = (sketch(slots), Exact::default());
        let mut minute = 0;
        for (key, minutes) in hits {
            minute += minutes;
            (0..minutes).for_each(|_| exact.halve());
            sketch.count(0, key.to_string().as_bytes(), Micros::new(minute * MINUTE));
            exact.count(key);
            exact.assert_bounds(&sketch, slots, minute * MINUTE);
        }
    });
}

#[test]
fn hits_that_are_counted_alone_are_moved_up_before_a_slot_is_taken_over() {
    let mut sketch = sketch(4);
    count_all(&mut sketch, 0, "abcd");
    // All are counted up without being moved, in another order.
    count_all(&mut sketch, 0, "dddddccccbaa");
    count_all(&mut sketch, 0, "e");
    assert_lists(&sketch, 0, "d:6 c:5 a:3 e:3");
    count_all(&mut sketch, 0, "fg");
    assert_lists(&sketch, 0, "d:6 c:5 f:4 g:4");
}
