//! The concurrency limit against its model: a list of leases of which everything is found by looking at all of them.
//!
//! The model is written from SPEC.md alone. Histories mix acquisitions (granted ones mostly, but a replica records what
//! it is sent), renewals, releases, ids that come again, ids that begin alike, other limits and ttls, clock steps of any
//! size, and states that are stored and loaded. Whatever can be seen is compared after every step.

use proptest::prelude::*;
use proptest::sample::select;

use super::super::decision::Usage;
use super::super::leases::{Held, Id, Lease, Leases};
use super::super::limits::{LeaseLimits, MAX_LEASES, MAX_UNITS};
use super::super::time::Micros;
use super::for_random;

/// What counts for a call under this id.
fn usage_for<'a>(
    leases: Option<&'a Leases>,
    call: &LeaseLimits,
    id: Option<&Id>,
    now: Micros,
) -> Held<'a> {
    Held::of(leases, call, id.map(Id::as_bytes), now)
}

// ---------------------------------------------------------------------------------------------------
// The model

/// SPEC.md 3, RL.ACQUIRE.
#[derive(Clone, Debug, Default)]
struct Model {
    limits: Option<LeaseLimits>,
    leases: Vec<Lease>,
}

/// "A lease counts while now < t + ttl"; "one that would last longer than its own ttl twice is over (t > now + ttl)".
fn counts(lease: &Lease, now: u64) -> bool {
    let (at, ttl) = (lease.at.get(), lease.ttl.get());
    now < at + ttl && at <= now + ttl
}

impl Model {
    fn held(&self, now: u64) -> Vec<Lease> {
        let mut held: Vec<Lease> =
            self.leases.iter().copied().filter(|lease| counts(lease, now)).collect();
        held.sort_by_key(|lease| (expiry(lease), lease.id.as_bytes().to_vec()));
        held
    }

    fn holds(&self, id: &Id, now: u64) -> bool {
        self.held(now).iter().any(|lease| lease.id == *id)
    }

    /// The units held, those of an id left out.
    fn used(&self, without: Option<&Id>, now: u64) -> u64 {
        let others = self.leases.iter().filter(|lease| Some(&lease.id) != without);
        others.filter(|lease| counts(lease, now)).map(|lease| lease.units).sum()
    }

    /// One moment after the other at which anything changes, until at most `units` are held.
    fn until_at_most(&self, units: u64, without: Option<&Id>, now: u64) -> u64 {
        let mut moments = vec![now];
        for lease in &self.leases {
            moments.push(lease.at.get().saturating_sub(lease.ttl.get()));
            moments.push(expiry(lease));
        }
        moments.retain(|&moment| moment >= now);
        moments.sort_unstable();
        let found = moments.into_iter().find(|&moment| self.used(without, moment) <= units);
        found.expect("all leases end") - now
    }

    fn idle_at(&self) -> u64 {
        self.leases.iter().map(expiry).max().unwrap_or(0)
    }

    /// "What has run out is dropped by the next write."
    fn drop_over(&mut self, now: u64) {
        self.leases.retain(|lease| counts(lease, now));
    }

    fn acquire(&mut self, call: &LeaseLimits, id: &Id, units: u64, now: u64) {
        self.drop_over(now);
        self.leases.retain(|lease| lease.id != *id);
        self.leases.push(Lease { id: *id, units, at: Micros::new(now), ttl: call.ttl });
        self.limits = Some(*call);
    }

    fn renew(&mut self, id: &Id, ttl: Micros, now: u64) -> bool {
        if !self.holds(id, now) {
            return false;
        }
        self.drop_over(now);
        for lease in self.leases.iter_mut().filter(|lease| lease.id == *id) {
            (lease.at, lease.ttl) = (Micros::new(now), ttl);
        }
        true
    }

    fn release(&mut self, id: &Id, now: u64) -> bool {
        if !self.holds(id, now) {
            return false;
        }
        self.drop_over(now);
        self.leases.retain(|lease| lease.id != *id);
        true
    }
}

fn expiry(lease: &Lease) -> u64 {
    lease.at.get() + lease.ttl.get()
}

// ---------------------------------------------------------------------------------------------------
// Histories

#[derive(Clone, Debug)]
struct History {
    start: u64,
    calls: Vec<LeaseLimits>,
    ids: Vec<Id>,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
struct Step {
    gap: Gap,
    call: usize,
    id: usize,
    action: Action,
    reload: bool,
}

#[derive(Clone, Debug)]
enum Action {
    /// Recorded if there is room, as a server decides.
    Acquire(Units),
    /// Recorded in any case, as an effect is.
    Record(Units),
    Renew,
    Release,
}

#[derive(Clone, Debug)]
enum Units {
    Small(u64),
    /// What is left of the limit, and so many more.
    Left(i64),
    Most,
}

/// How the clock moves: forward, or back.
#[derive(Clone, Debug)]
enum Gap {
    Short(u64),
    /// Until so many of the leases have run out, and so much more.
    Expiry(usize, i64),
    /// Until the last asked for could be acquired, and so much more.
    Wait(i64),
    /// A ttl, or two, and so much more.
    Ttl(u64, i64),
    Power(u32),
    Back(Box<Gap>),
}

impl Gap {
    fn span(&self, model: &Model, call: &LeaseLimits, wait: u64, now: u64) -> i64 {
        match *self {
            Self::Short(us) => us as i64,
            Self::Expiry(number, more) => {
                let held = model.held(now);
                let lease = held.get(number % held.len().max(1));
                lease.map_or(0, |lease| (expiry(lease) - now) as i64 + more)
            }
            Self::Wait(more) => wait as i64 + more,
            Self::Ttl(times, more) => (call.ttl.get() * times) as i64 + more,
            Self::Power(exponent) => 1 << exponent,
            Self::Back(ref span) => -span.span(model, call, wait, now).abs(),
        }
    }
}

fn an_id() -> impl Strategy<Value = Id> {
    let long = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let named = [
        "a",
        "a\0",
        "a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        "a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        "b",
        &long[..15],
        &long[..16],
        &long[..17],
        &long[..18],
        "0123456789abcdef1",
        &long[..36],
        "0123456789abcdef0123456789abcdef0124",
        &long[..63],
        long,
        "\u{ff}",
        // Of equal heads: the halves are the same.
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        "bbbbbbbbbbbbbbbcbbbbbbbbbbbbbbbc",
    ];
    let named: Vec<Id> = named.iter().map(|id| Id::new(id.as_bytes()).unwrap()).collect();
    let bytes = prop::collection::vec(any::<u8>(), 1..=64);
    prop_oneof![
        4 => select(named),
        1 => bytes.prop_map(|bytes| Id::new(&bytes).unwrap()),
        2 => any::<[u8; 16]>().prop_map(|bytes| Id::new(&bytes).unwrap()),
    ]
}

fn a_call() -> impl Strategy<Value = LeaseLimits> {
    let limit = prop_oneof![8 => 0..=30_u64, 1 => select(vec![1_000, MAX_UNITS - 1, MAX_UNITS])];
    let ttl = prop_oneof![
        6 => 1_000..=1_010_u64,
        3 => 1_000..=4_000_u64,
        1 => select(vec![60_000_000, Micros::DAY.get(), Micros::MAX_DURATION.get()])
    ];
    (limit, ttl).prop_map(|(limit, ttl)| LeaseLimits { limit, ttl: Micros::new(ttl) })
}

fn a_gap() -> impl Strategy<Value = Gap> {
    let forward = prop_oneof![
        4 => Just(Gap::Short(0)),
        6 => (0..=200_u64).prop_map(Gap::Short),
        4 => (0..=20_usize, -1..=1_i64).prop_map(|(number, more)| Gap::Expiry(number, more)),
        2 => (-1..=1_i64).prop_map(Gap::Wait),
        1 => (1..=2_u64, -1..=1_i64).prop_map(|(times, more)| Gap::Ttl(times, more)),
        1 => (0..=52_u32).prop_map(Gap::Power),
    ];
    (forward, prop::bool::weighted(0.1))
        .prop_map(|(gap, back)| if back { Gap::Back(Box::new(gap)) } else { gap })
}

fn some_units() -> impl Strategy<Value = Units> {
    prop_oneof![
        8 => (1..=5_u64).prop_map(Units::Small),
        2 => (-1..=1_i64).prop_map(Units::Left),
        1 => Just(Units::Most),
    ]
}

fn an_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        10 => some_units().prop_map(Action::Acquire),
        3 => some_units().prop_map(Action::Record),
        4 => Just(Action::Renew),
        5 => Just(Action::Release),
    ]
}

/// Histories of at most so many ids and steps.
fn histories(ids: usize, steps: usize) -> impl Strategy<Value = History> {
    let reload = prop::bool::weighted(0.1);
    let step = (a_gap(), prop_oneof![4 => Just(0_usize), 1 => 1..3_usize], any::<usize>());
    let step = (step, an_action(), reload).prop_map(|((gap, call, id), action, reload)| Step {
        gap,
        call,
        id,
        action,
        reload,
    });
    (
        super::traffic::a_moment(),
        prop::collection::vec(a_call(), 3),
        prop::collection::vec(an_id(), 1..=ids),
        prop::collection::vec(step, 1..=steps),
    )
        .prop_map(|(start, calls, ids, steps)| History { start, calls, ids, steps })
}

// ---------------------------------------------------------------------------------------------------
// Together

#[test]
fn leases_do_what_their_model_does() {
    for_random("CONCURRENCY", 10_000, &histories(12, 40), |history| run(&history));
}

#[test]
fn many_leases_do_what_their_model_does() {
    for_random("CONCURRENCY", 60, &histories(150, 600), |history| run(&history));
}

fn run(history: &History) {
    let History { start, calls, ids, steps } = history;
    let mut model = Model::default();
    let mut leases: Option<Leases> = None;
    let (mut now, mut wait) = (*start, 0);
    for (number, step) in steps.iter().enumerate() {
        let (call, id) = (&calls[step.call], &ids[step.id % ids.len()]);
        let span = step.gap.span(&model, call, wait, now);
        now = now.saturating_add_signed(span).min(Micros::MAX_MOMENT.get());
        let moment = Micros::new(now);
        if step.reload
            && let Some(state) = &mut leases
        {
            let stored: Vec<Lease> = state.iter().collect();
            let loaded = Leases::restore(&state.limits(), stored.into_iter().map(Some)).unwrap();
            assert_eq!(loaded, *state);
            *state = loaded;
        }
        let at = |model: &Model| format!("step {number} at {now}: {step:?} {id:?}\n{model:?}");
        let used = model.used(Some(id), now);
        match &step.action {
            Action::Acquire(units) | Action::Record(units) => {
                let units = match *units {
                    Units::Small(units) => units,
                    Units::Left(more) => {
                        call.limit.saturating_sub(used).saturating_add_signed(more)
                    }
                    Units::Most => MAX_UNITS,
                };
                let units = units.clamp(1, MAX_UNITS);
                let usage = usage_for(leases.as_ref(), call, Some(id), moment);
                assert_eq!(usage.used(), used, "used, {}", at(&model));
                let is_recorded = matches!(step.action, Action::Record(_));
                if used + units <= call.limit || is_recorded {
                    let reset = usage.until_idle_with(units);
                    model.acquire(call, id, units, now);
                    acquire(&mut leases, call, id, units, now);
                    let expected = Micros::new(model.idle_at() - now);
                    assert_eq!(reset, expected, "reset, {}", at(&model));
                    wait = 0;
                } else if units <= call.limit {
                    wait = usage.until_at_most(call.limit - units).get();
                }
            }
            Action::Renew => {
                let renewed =
                    leases.as_mut().is_some_and(|state| state.renew(id, call.ttl, moment));
                assert_eq!(renewed, model.renew(id, call.ttl, now), "renewed, {}", at(&model));
            }
            Action::Release => {
                let released = leases.as_mut().is_some_and(|state| state.release(id, moment));
                assert_eq!(released, model.release(id, now), "released, {}", at(&model));
            }
        }
        leases.take_if(|state| state.is_empty());
        compare(&leases, &model, ids, number, now, || at(&model));
    }
}

/// Records a lease, and takes memory only if that was said.
fn acquire(leases: &mut Option<Leases>, call: &LeaseLimits, id: &Id, units: u64, now: u64) {
    let now = Micros::new(now);
    let Some(state) = leases else {
        leases.insert(Leases::new(call)).acquire(call, id, units, now);
        return;
    };
    let sizes = |state: &Leases| (state.blocks().0.len(), state.blocks().1.len());
    let (before, said) = (sizes(state), usage_for(Some(state), call, Some(id), now).must_grow());
    state.acquire(call, id, units, now);
    let after = sizes(state);
    assert!(said || (after.0 <= before.0 && after.1 <= before.1), "{before:?}, now {after:?}");
}

/// Whatever can be seen.
fn compare(
    leases: &Option<Leases>,
    model: &Model,
    ids: &[Id],
    number: usize,
    now: u64,
    at: impl Fn() -> String,
) {
    let moment = Micros::new(now);
    let Some(state) = leases else {
        assert!(model.leases.is_empty(), "no leases, {}", at());
        return;
    };
    state.check();
    let held = model.held(now);
    assert_eq!(Some(state.limits()), model.limits, "limits, {}", at());
    assert_eq!(state.len(), model.leases.len(), "leases, {}", at());
    assert!(state.held(moment).eq(held.iter().copied()), "held, {}", at());
    assert_eq!(state.count(moment), held.len(), "count, {}", at());
    let entries = usage_for(Some(state), &state.limits(), None, moment).entries();
    assert_eq!(entries, Some(held.len()), "entries, {}", at());
    assert_eq!(state.used(moment), model.used(None, now), "used, {}", at());
    assert_eq!(state.idle_at().get(), model.idle_at(), "idle at, {}", at());
    let call = LeaseLimits { limit: 0, ttl: Micros::MILLISECOND };
    let ids = ids.iter().cycle().skip(number).take(ids.len().min(4));
    for id in ids.map(Some).chain([None]) {
        assert_eq!(
            id.is_some_and(|id| state.holds(id, moment)),
            id.is_some_and(|id| model.holds(id, now))
        );
        let usage = usage_for(Some(state), &call, id, moment);
        let used = model.used(id, now);
        assert_eq!(usage.used(), used, "used without {id:?}, {}", at());
        assert_eq!(usage.until_idle().get(), model.until_at_most(0, None, now), "idle, {}", at());
        for units in [0, 1, used / 2, used.saturating_sub(1), used, MAX_UNITS] {
            let expected = model.until_at_most(units, id, now);
            let until = usage.until_at_most(units).get();
            assert_eq!(until, expected, "until {units} without {id:?}, {}", at());
        }
    }
}

#[test]
fn at_no_moment_are_more_units_held_than_the_limit_whatever_the_clock_does() {
    for_random("CONCURRENCY", 2_000, &histories(12, 40), |history| {
        let call = history.calls[0];
        let (mut now, mut model) = (history.start, Model::default());
        let mut leases = Leases::new(&call);
        for step in &history.steps {
            let id = &history.ids[step.id % history.ids.len()];
            let span = step.gap.span(&model, &call, 0, now);
            now = now.saturating_add_signed(span).min(Micros::MAX_MOMENT.get());
            let moment = Micros::new(now);
            let units = 1 + step.id as u64 % 5;
            match step.action {
                Action::Renew => drop(leases.renew(id, call.ttl, moment)),
                Action::Release => drop(leases.release(id, moment)),
                _ if usage_for(Some(&leases), &call, Some(id), moment).used() + units
                    <= call.limit =>
                {
                    leases.acquire(&call, id, units, moment);
                    model.acquire(&call, id, units, now);
                }
                _ => {}
            }
            // Of whatever is stored: no moment, earlier or later, can make more of it count.
            let stored: u64 = leases.iter().map(|lease| lease.units).sum();
            assert!(stored <= call.limit, "{stored} units at {now}");
        }
    });
}

// ---------------------------------------------------------------------------------------------------
// By examples

const TTL: Micros = Micros::new(30_000_000);
const CALL: LeaseLimits = LeaseLimits { limit: 3, ttl: TTL };

fn id(text: &str) -> Id {
    Id::new(text.as_bytes()).unwrap()
}

fn at(seconds: u64) -> Micros {
    Micros::new(1_800_000_000_000_000 + seconds * 1_000_000)
}

/// The leases of a state, as text: id, units, when they run out.
fn listed(leases: &Leases, now: Micros) -> String {
    let held = leases.held(now).map(|lease| {
        let left = lease.expiry().since(now).get().div_ceil(1_000_000);
        format!("{} {} {left}s", lease.id.as_bytes().escape_ascii(), lease.units)
    });
    held.collect::<Vec<_>>().join(", ")
}

#[test]
fn an_id_that_comes_again_replaces_its_lease() {
    let mut leases = Leases::new(&CALL);
    leases.acquire(&CALL, &id("a"), 2, at(0));
    leases.acquire(&CALL, &id("b"), 1, at(1));
    assert_eq!(
        usage_for(Some(&leases), &CALL, Some(&id("a")), at(2)).used(),
        1,
        "as if a's were given back"
    );
    assert_eq!(usage_for(Some(&leases), &CALL, Some(&id("c")), at(2)).used(), 3);
    assert_eq!(usage_for(Some(&leases), &CALL, None, at(2)).used(), 3);
    leases.acquire(&CALL, &id("a"), 1, at(2));
    assert_eq!(listed(&leases, at(2)), "b 1 29s, a 1 30s");
}

#[test]
fn a_lease_that_ran_out_is_lost_and_what_ran_out_goes_with_the_next_write() {
    let mut leases = Leases::new(&CALL);
    leases.acquire(&CALL, &id("a"), 1, at(0));
    leases.acquire(&CALL, &id("b"), 1, at(10));
    assert!(leases.renew(&id("a"), TTL, at(29)));
    assert!(!leases.renew(&id("b"), TTL, at(40)), "its last moment is over");
    assert!(!leases.release(&id("b"), at(40)));
    assert!(!leases.release(&id("stranger"), at(40)));
    assert_eq!((leases.len(), leases.count(at(40))), (2, 1), "these write nothing");
    assert_eq!(listed(&leases, at(40)), "a 1 19s");
    assert!(leases.release(&id("a"), at(41)));
    assert!(leases.is_empty(), "b's went first");
}

#[test]
fn a_denial_waits_for_the_soonest_to_run_out_but_not_for_its_own() {
    let mut leases = Leases::new(&CALL);
    for (name, seconds) in [("a", 0), ("b", 1), ("c", 2)] {
        leases.acquire(&CALL, &id(name), 1, at(seconds));
    }
    for (name, units, wait) in [
        ("d", 1, 20),
        ("d", 2, 21),
        ("d", 3, 22),
        ("a", 2, 21),
        ("a", 3, 22),
        ("b", 2, 20),
        ("c", 3, 21),
    ] {
        let name = id(name);
        let usage = usage_for(Some(&leases), &CALL, Some(&name), at(10));
        let wait_of = usage.until_at_most(3 - units);
        assert_eq!(wait_of, Micros::new(wait * 1_000_000), "{name:?} {units}");
    }
}

#[test]
fn a_clock_that_steps_back_by_more_than_a_ttl_ends_a_lease() {
    let mut leases = Leases::new(&CALL);
    leases.acquire(&CALL, &id("a"), 1, at(100));
    leases.acquire(&CALL, &id("b"), 1, at(75));
    assert_eq!(listed(&leases, at(70)), "b 1 35s, a 1 60s", "a's is 30 s ahead: it counts");
    let before = at(70).since(Micros::new(1));
    assert_eq!(listed(&leases, before), "b 1 36s", "a microsecond more, and it does not");
    // It would again in a microsecond, if nobody wrote.
    assert_eq!(usage_for(Some(&leases), &CALL, None, before).until_idle().get(), 60_000_001);
    leases.acquire(&CALL, &id("c"), 1, before);
    assert_eq!(listed(&leases, at(70)), "c 1 30s, b 1 35s", "the write dropped it");
}

#[test]
fn an_id_is_1_to_64_bytes_of_any_kind_and_ids_are_in_the_order_of_their_bytes() {
    assert_eq!(Id::new(b""), None);
    assert_eq!(Id::new(&[7; 65]), None);
    for_random("ids", 300, &prop::collection::vec(an_id(), 1..=40), |mut ids| {
        let mut leases = Leases::new(&CALL);
        for id in &ids {
            leases.acquire(&CALL, id, 1, at(0));
        }
        assert!(ids.iter().all(|id| leases.holds(id, at(0))));
        ids.sort_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
        ids.dedup();
        assert!(leases.held(at(0)).map(|lease| lease.id).eq(ids));
    });
}

// ---------------------------------------------------------------------------------------------------
// Stored

#[test]
fn what_no_history_can_make_is_not_restored() {
    let lease = |name: &str, units, at: u64, ttl: u64| {
        Some(Lease { id: id(name), units, at: Micros::new(at), ttl: Micros::new(ttl) })
    };
    let restore = |leases: Vec<Option<Lease>>| Leases::restore(&CALL, leases);
    let (most, longest) = (Micros::MAX_MOMENT.get(), Micros::MAX_DURATION.get());
    for valid in [
        vec![lease("a", 1, 0, 1_000)],
        vec![lease("a", MAX_UNITS, most, longest)],
        vec![lease("a", 1, 5_000, 1_000), lease("b", 1, 4_000, 2_000)],
        vec![lease("b", 1, 5_000, 1_000), lease("a", 1, 4_000, 2_001)],
        (1_000..2_000).map(|n| lease(&n.to_string(), MAX_UNITS, n, longest)).collect(),
    ] {
        let restored = restore(valid.clone()).unwrap();
        restored.check();
        assert!(restored.iter().map(Some).eq(valid));
    }
    for (what, invalid) in [
        ("nothing", vec![]),
        ("no lease", vec![None]),
        ("a lease, then none", vec![lease("a", 1, 0, 1_000), None]),
        ("no units", vec![lease("a", 0, 0, 1_000)]),
        ("too many units", vec![lease("a", MAX_UNITS + 1, 0, 1_000)]),
        ("more units than an integer", vec![lease("a", u64::MAX, 0, 1_000)]),
        ("too short", vec![lease("a", 1, 0, 999)]),
        ("too long", vec![lease("a", 1, 0, longest + 1)]),
        ("too late", vec![lease("a", 1, most + 1, 1_000)]),
        ("the end of time", vec![lease("a", 1, u64::MAX, u64::MAX)]),
        ("out of order", vec![lease("a", 1, 1, 1_000), lease("b", 1, 0, 1_000)]),
        ("out of order of ids", vec![lease("b", 1, 0, 1_000), lease("a", 1, 0, 1_000)]),
        ("twice the same", vec![lease("a", 1, 0, 1_000), lease("a", 1, 0, 1_000)]),
        ("an id twice", vec![lease("a", 1, 0, 1_000), lease("a", 1, 1, 1_000)]),
        (
            "an id twice, others between",
            vec![lease("b", 1, 0, 1_000), lease("a", 1, 1, 1_000), lease("b", 1, 2, 1_000)],
        ),
    ] {
        assert_eq!(restore(invalid), None, "{what}");
    }
}

#[test]
fn a_million_leases_are_restored_and_not_one_more() {
    let leases = |count: usize| {
        (0..count as u64).map(|n| {
            let (id, at) = (Id::new(&n.to_be_bytes()).unwrap(), Micros::new(1_000_000 + n));
            Some(Lease { id, units: MAX_UNITS, at, ttl: TTL })
        })
    };
    let now = Micros::new(2_000_000);
    let mut full = Leases::restore(&CALL, leases(MAX_LEASES)).unwrap();
    assert_eq!(full.used(now), MAX_UNITS * MAX_LEASES as u64);
    full.acquire(&CALL, &id("another"), 1, now);
    assert_eq!(full.count(now), MAX_LEASES, "and one more is not recorded");
    assert!(full.release(&Id::new(&7_u64.to_be_bytes()).unwrap(), now));
    full.acquire(&CALL, &id("another"), 1, now);
    assert_eq!(full.count(now), MAX_LEASES);
    full.check();
    assert_eq!(Leases::restore(&CALL, leases(MAX_LEASES + 1)), None);
}

// ---------------------------------------------------------------------------------------------------
// Many, and memory

/// The class in which jemalloc puts a block of this size.
fn class(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=8 => 8,
        9..=128 => bytes.next_multiple_of(16),
        _ => bytes.next_multiple_of(1 << ((bytes - 1).ilog2() - 2)),
    }
}

/// The bytes of a state with everything beside it, in the 32 bytes of any limiter.
fn bytes(leases: &Leases) -> usize {
    let (nodes, tails) = leases.blocks();
    32 + class(size_of::<Leases>()) + class(size_of_val(nodes)) + class(size_of_val(tails))
}

/// A number as random as an id.
fn mixed(n: u64) -> u64 {
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb)
}

fn uuid(n: u64) -> Id {
    Id::new(&[mixed(n + 1), mixed(n + (1 << 40))].map(u64::to_le_bytes).concat()).unwrap()
}

fn uuid_as_text(n: u64) -> Id {
    id(&format!("{:016x}-{:016x}-9d", mixed(n + 1), mixed(n + (1 << 40))))
}

#[test]
fn a_lease_takes_at_most_96_bytes_and_gives_them_back() {
    assert_eq!(uuid_as_text(1).as_bytes().len(), 36);
    for (make, most, most_while_they_go) in
        [(uuid as fn(u64) -> Id, 70, 88), (uuid_as_text as fn(u64) -> Id, 97, 122)]
    {
        let mut leases = Leases::new(&CALL);
        let count = 10_000;
        for n in 0..count {
            leases.acquire(&CALL, &make(n), 1, at(0));
            let held = n as usize + 1;
            assert!(bytes(&leases) <= most * held + 128, "{} bytes of {held}", bytes(&leases));
            if held == 1_000 {
                assert!(bytes(&leases) <= 96 * held);
            }
        }
        for n in 0..count {
            leases.release(&make(n), at(0));
            let held = (count - n - 1) as usize;
            let most = most_while_they_go * held + 256;
            assert!(bytes(&leases) <= most, "{} bytes of {held}", bytes(&leases));
        }
        leases.acquire(&CALL, &id("short"), 1, at(0));
        assert!(bytes(&leases) <= 32 + 64 + 192, "no tails any more: {}", bytes(&leases));
    }
    // An id of 16 bytes is the common case: nearly the 55 bytes of a node.
    let mut leases = Leases::new(&CALL);
    (0..1_000).for_each(|n| leases.acquire(&CALL, &uuid(n), 1, at(0)));
    assert!(bytes(&leases) <= 64 * 1_000, "{}", bytes(&leases));
}

#[test]
fn slots_that_others_left_need_no_memory() {
    let mut leases = Leases::new(&CALL);
    let mut count = 0;
    while !usage_for(Some(&leases), &CALL, Some(&uuid(count)), at(0)).must_grow() || count < 100 {
        leases.acquire(&CALL, &uuid(count), 1, at(count % 2));
        count += 1;
    }
    assert!(usage_for(Some(&leases), &CALL, Some(&uuid(count)), at(1)).must_grow(), "full");
    assert!(
        !usage_for(Some(&leases), &CALL, Some(&uuid(5)), at(1)).must_grow(),
        "it holds one: that is replaced"
    );
    assert!(
        !usage_for(Some(&leases), &CALL, Some(&uuid(count)), at(30)).must_grow(),
        "half of them have run out"
    );
    assert!(
        usage_for(Some(&leases), &CALL, Some(&uuid_as_text(0)), at(30)).must_grow(),
        "but the slots are too short for this one"
    );
    leases.release(&uuid(7), at(1));
    assert!(
        !usage_for(Some(&leases), &CALL, Some(&uuid(count)), at(1)).must_grow(),
        "one was given back"
    );
}

#[test]
fn a_hundred_thousand_leases_in_any_order_stay_balanced_and_exact() {
    const COUNT: u64 = 100_000;
    let number = |n: u64| Id::new(&n.to_be_bytes()).unwrap();
    // Ids and moments that rise, that fall, that are random, and moments that are all the same.
    let orders: [fn(u64) -> (u64, u64); 4] = [
        |n| (n, n),
        |n| (COUNT - n, COUNT - n),
        |n| (mixed(n + 1), mixed(n + 7) % 20_000_000),
        |n| (n ^ 0x5555, 0),
    ];
    for order in orders {
        let mut leases = Leases::new(&CALL);
        let (now, mut sum) = (at(100), 0);
        for n in 0..COUNT {
            let ((id, ahead), units) = (order(n), 1 + n % 9);
            let call = LeaseLimits { ttl: Micros::new(TTL.get() + ahead), ..CALL };
            leases.acquire(&call, &number(id), units, now);
            sum += units;
        }
        leases.check();
        assert_eq!((leases.count(now), leases.used(now)), (COUNT as usize, sum));
        // Half of the units leave exactly when it is said.
        let wait = usage_for(Some(&leases), &CALL, None, now).until_at_most(sum / 2);
        assert!(leases.used(now.after(wait)) <= sum / 2);
        assert!(leases.used(now.after(wait).since(Micros::new(1))) > sum / 2);
        let soonest: Vec<u64> =
            leases.held(now).take(5).map(|lease| lease.expiry().get()).collect();
        assert!(
            soonest.is_sorted()
                && soonest[0] == leases.held(now).map(|l| l.expiry().get()).min().unwrap()
        );
        for n in (0..COUNT).step_by(2) {
            assert!(leases.release(&number(order(n).0), now));
        }
        leases.check();
        assert_eq!(leases.count(now), COUNT as usize / 2);
        let held: u64 = leases.held(now).map(|lease| lease.units).sum();
        assert_eq!(leases.used(now), held);
        // What runs out goes with the next write, whether little of it or much.
        for seconds in [32, 33, 40, 49] {
            let later = now.after(Micros::new(seconds * 1_000_000));
            let left = leases.count(later);
            leases.acquire(&CALL, &id("last"), 1, later);
            leases.check();
            let others = leases.iter().filter(|lease| lease.id != id("last")).count();
            assert!(others == left || others + 1 == left, "{others} of {left}");
        }
    }
}
