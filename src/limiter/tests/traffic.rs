//! Random traffic: limits, requests, and the gaps between them.
//!
//! Numbers are small mostly, since it is small numbers that meet (a gap that is exactly a window, a cost
//! that is exactly what is left); now and then they are the largest there are. Gaps are measured in what
//! the limiter has just told: exactly its wait, or one microsecond off.

use proptest::prelude::*;
use proptest::sample::select;

use super::super::block::{MAX_AFTER, Penalty};
use super::super::effect::Effect;
use super::super::limits::{MAX_LOG_ENTRIES, MAX_UNITS, Rate};
use super::super::{Algorithm, Decision, Limits, Micros, Mode, Request};
use super::Key;
use super::model::{limit_of, spacing, window};

const OF_OUR_DAYS: u64 = 1_800_000_000_000_000;

/// Limits for one algorithm.
pub fn limits(algorithm: Algorithm) -> BoxedStrategy<Limits> {
    let valid = "numbers in bounds";
    match algorithm {
        Algorithm::TokenBucket => (a_limit(MAX_UNITS), a_rate())
            .prop_map(move |(capacity, rate)| Limits::token_bucket(capacity, rate).expect(valid))
            .boxed(),
        Algorithm::LeakyBucket => (a_limit(MAX_UNITS), a_rate())
            .prop_map(move |(capacity, rate)| Limits::leaky_bucket(capacity, rate).expect(valid))
            .boxed(),
        Algorithm::FixedWindow => (a_limit(MAX_UNITS), a_window(), an_offset())
            .prop_map(move |(limit, window, offset)| {
                let align = offset.map(|offset| Micros::new(offset % window.get()));
                Limits::fixed_window(limit, window, align).expect(valid)
            })
            .boxed(),
        Algorithm::Sliding => (a_limit(MAX_UNITS), a_window(), a_number_of_buckets())
            .prop_map(move |(limit, window, n)| Limits::sliding(limit, window, n).expect(valid))
            .boxed(),
        Algorithm::SlidingLog => (a_limit(MAX_LOG_ENTRIES), a_window())
            .prop_map(move |(limit, window)| Limits::sliding_log(limit, window).expect(valid))
            .boxed(),
        Algorithm::Concurrency => panic!("leases have traffic of their own"),
    }
}

/// Limits of small numbers alone, for promises that need a dense traffic.
fn small_limits(algorithm: Algorithm) -> impl Strategy<Value = Limits> {
    limits(algorithm).prop_filter("small numbers", |limits| {
        let small = match limits {
            Limits::Bucket(bucket) => bucket.rate.per_us().get() <= 3_000,
            windows => window(windows) <= 4_000,
        };
        small && (1..=20).contains(&limit_of(limits))
    })
}

fn a_limit(max: u64) -> impl Strategy<Value = u64> {
    prop_oneof![12 => 0..=20_u64, 1 => select(vec![100, 1_000, max - 1, max])]
}

fn a_rate() -> impl Strategy<Value = Rate> {
    let named = [
        "1",
        "3",
        "7",
        "0.5",
        "1/60",
        "100/60",
        "1/365d",
        "1/3650d",
        "999983",
        "1000000",
        "999999999.999999",
        "1000000000",
        "1000000000000/1000s",
    ];
    let named: Vec<Rate> = named.iter().map(|text| Rate::parse(text.as_bytes()).unwrap()).collect();
    prop_oneof![
        5 => (1..=10_u64, 1..=3_000_u64).prop_map(|(units, us)| Rate::new(units, us).unwrap()),
        1 => select(named),
    ]
}

fn a_window() -> impl Strategy<Value = Micros> {
    let named =
        [1_000, 2_000, 4_000, 1_000_000, 60_000_000, Micros::DAY.get(), Micros::MAX_DURATION.get()];
    prop_oneof![4 => 1_000..=4_000_u64, 1 => select(named.to_vec())].prop_map(Micros::new)
}

fn an_offset() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![1 => Just(None), 1 => (0..=Micros::DAY.get()).prop_map(Some)]
}

fn a_number_of_buckets() -> impl Strategy<Value = u16> {
    prop_oneof![6 => 1..=6_u16, 1 => select(vec![16, 999, 1_024])]
}

/// One step of a history.
#[derive(Clone, Debug)]
pub struct Step {
    /// How the clock moves before it.
    pub gap: Gap,
    /// Which of the history's limits the call gives.
    pub plan: usize,
    /// What is asked.
    pub action: Action,
    /// The penalty that it asks for.
    pub penalty: Option<Penalty>,
    /// Whether the key expires before it, if it may.
    pub expire: bool,
    /// Whether the state is stored and loaded before it.
    pub reload: bool,
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum Action {
    /// A request.
    Ask(Units, Mode),
    /// Units are given back.
    Refund(Units),
}

/// A number of units, small or measured in what there is.
#[derive(Clone, Copy, Debug)]
pub enum Units {
    /// So many.
    Small(u64),
    /// The limit of the call, and so many more.
    Limit(i64),
    /// What remained at last, and so many more.
    Remaining(i64),
    /// The most that may be asked.
    Most,
}

impl Units {
    /// The number.
    pub fn count(self, call: &Limits, last: &Decision) -> u64 {
        let units = match self {
            Self::Small(units) => units,
            Self::Limit(more) => limit_of(call).saturating_add_signed(more),
            Self::Remaining(more) => last.remaining.saturating_add_signed(more),
            Self::Most => MAX_UNITS,
        };
        units.min(MAX_UNITS)
    }
}

/// How the clock moves.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    span: Span,
    back: bool,
}

#[derive(Clone, Copy, Debug)]
enum Span {
    Short(u64),
    /// Sixteenths of a window; of the reset, where there is no window.
    Sixteenths(u64),
    /// The wait just told, and so much more.
    Wait(i64),
    /// The wait as clients are told it.
    WaitMillis,
    /// The reset just told, and so much more.
    Reset(i64),
    /// An n-th of a window, or the time of a unit, and so much more.
    Spacing(i64),
    Power(u32),
}

impl Gap {
    /// The moment to which the clock moves.
    pub fn after(self, now: u64, call: &Limits, last: &Decision) -> u64 {
        let reset = last.reset.get();
        let wait = last.wait.map_or(reset, Micros::get);
        let span = match self.span {
            Span::Short(us) => us,
            Span::Sixteenths(share) => match call {
                Limits::Bucket(_) => (reset / 16).saturating_mul(share),
                windows => window(windows) as u64 * share / 16,
            },
            Span::Wait(more) => wait.saturating_add_signed(more),
            Span::WaitMillis => wait.div_ceil(1_000).saturating_mul(1_000),
            Span::Reset(more) => reset.saturating_add_signed(more),
            Span::Spacing(more) => spacing(call).saturating_add_signed(more),
            Span::Power(exponent) => 1 << exponent,
        };
        if self.back {
            now.saturating_sub(span).max(earliest(call.algorithm()))
        } else {
            now.saturating_add(span).min(Micros::MAX_MOMENT.get())
        }
    }
}

/// A history: the limits that its steps choose from, when it begins, and its steps.
#[derive(Clone, Debug)]
pub struct History {
    /// The limits; each step gives one of them.
    pub plans: Vec<Limits>,
    /// The first moment.
    pub start: u64,
    /// What happens.
    pub steps: Vec<Step>,
}

/// What is to be seen of a request in a history.
pub struct Seen<'a> {
    /// The key before.
    pub before: &'a Key,
    /// The limits of the call.
    pub call: &'a Limits,
    /// The moment.
    pub now: u64,
    /// What was asked.
    pub request: Request,
    /// What was answered.
    pub decision: Decision,
    /// The effect of a denial that counted.
    pub denial: Option<Effect<'static>>,
    /// The key afterwards.
    pub after: &'a Key,
}

impl History {
    fn without_penalties(mut self) -> Self {
        self.steps.iter_mut().for_each(|step| step.penalty = None);
        self
    }

    /// Plays the history on a new key and shows every request; the key at the end, and the moment.
    pub fn play(&self, mut see: impl FnMut(&Seen)) -> (Key, u64) {
        let (mut key, mut now) = (Key::default(), self.start);
        let mut last = key.would(&self.plans[0], now, Request::LOOK);
        for step in &self.steps {
            let call = &self.plans[step.plan % self.plans.len()];
            now = step.gap.after(now, call, &last);
            if step.expire && key.may_expire(now) {
                key = Key::default();
            }
            match step.action {
                Action::Ask(units, mode) => {
                    let request = Request { cost: units.count(call, &last), mode };
                    let before = key.clone();
                    last = key.ask(call, now, request);
                    let penalty = step.penalty.filter(|_| !last.allowed);
                    let denial = penalty.and_then(|penalty| key.denial(now, penalty));
                    if let Some(penalty) = penalty {
                        last = key.deny(now, penalty, last);
                    }
                    let (before, decision, after) = (&before, last, &key);
                    see(&Seen { before, call, now, request, decision, denial, after });
                }
                Action::Refund(units) => key.refund(now, units.count(call, &last)),
            }
        }
        (key, now)
    }
}

/// Histories of any kind, half of them with penalties.
pub fn penalized_histories(algorithm: Algorithm) -> impl Strategy<Value = History> {
    histories_of(plans(algorithm), steps())
}

/// The same on a clock that never goes back.
pub fn penalized_histories_forward(algorithm: Algorithm) -> impl Strategy<Value = History> {
    histories_of(plans(algorithm), steps_forward())
}

/// Histories of any kind without penalties.
pub fn histories(algorithm: Algorithm) -> impl Strategy<Value = History> {
    penalized_histories(algorithm).prop_map(History::without_penalties)
}

/// The same on a clock that never goes back.
pub fn histories_forward(algorithm: Algorithm) -> impl Strategy<Value = History> {
    penalized_histories_forward(algorithm).prop_map(History::without_penalties)
}

/// Histories in which a sliding window counter has many entries, and then is to have fewer.
pub fn histories_of_regrouping() -> impl Strategy<Value = History> {
    let plan = |window: u64, n: u16| Limits::sliding(1_000, Micros::new(window), n).unwrap();
    let plans = (2_000..=4_000_u64, 8..=32_u16, 1_000..=8_000_u64, 1..=4_u16, 1..=8_u16).prop_map(
        move |(window, many, other, few, fewer)| {
            vec![plan(window, many), plan(window, few), plan(other, fewer)]
        },
    );
    let span = prop_oneof![
        3 => (1..=200_u64).prop_map(Span::Short),
        3 => (0..=2_u64).prop_map(Span::Sixteenths),
        2 => (-1..=1_i64).prop_map(Span::Spacing),
    ];
    let gap = (span, prop::bool::weighted(0.02)).prop_map(|(span, back)| Gap { span, back });
    histories_of(plans, steps_with(gap))
}

fn histories_of(
    plans: impl Strategy<Value = Vec<Limits>>,
    steps: impl Strategy<Value = Vec<Step>>,
) -> impl Strategy<Value = History> {
    (plans, a_moment(), steps).prop_map(|(plans, start, steps)| {
        let start = start.max(earliest(plans[0].algorithm()));
        History { plans, start, steps }
    })
}

/// Three limits; those of windows have the same window as often as not.
fn plans(algorithm: Algorithm) -> impl Strategy<Value = Vec<Limits>> {
    let plans = prop::collection::vec(limits(algorithm), 3);
    (plans, prop::bool::ANY).prop_map(|(mut plans, same_window)| {
        let first = plans[0];
        for plan in plans.iter_mut().filter(|_| same_window) {
            match (plan, first) {
                (Limits::FixedWindow(plan), Limits::FixedWindow(first)) => {
                    plan.window = first.window;
                    plan.align = plan.align.map(|at| Micros::new(at.get() % first.window.get()));
                }
                (Limits::SlidingWindow(plan), Limits::SlidingWindow(first)) => {
                    plan.window = first.window;
                }
                _ => {}
            }
        }
        plans
    })
}

/// The earliest moment: an aligned window is not asked for before it can have begun after 1970.
const fn earliest(algorithm: Algorithm) -> u64 {
    match algorithm {
        Algorithm::FixedWindow => Micros::MAX_DURATION.get(),
        _ => 0,
    }
}

/// Dense traffic under one limit, which is kept: nothing is forced or given back.
pub fn plain_histories(algorithm: Algorithm) -> impl Strategy<Value = History> {
    (small_limits(algorithm), 0..=10_000_u64, steps_forward()).prop_map(
        |(plan, start, mut steps)| {
            for step in &mut steps {
                step.action = match step.action {
                    Action::Ask(units, Mode::Partial) => Action::Ask(units, Mode::Partial),
                    Action::Ask(units, _) | Action::Refund(units) => {
                        Action::Ask(units, Mode::Whole)
                    }
                };
            }
            let start = OF_OUR_DAYS + start;
            History { plans: vec![plan], start, steps }.without_penalties()
        },
    )
}

/// Steps of any kind.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let gap = (a_span(), prop::bool::weighted(0.08)).prop_map(|(span, back)| Gap { span, back });
    steps_with(gap)
}

/// Steps on a clock that never goes back.
fn steps_forward() -> impl Strategy<Value = Vec<Step>> {
    steps_with(a_span().prop_map(|span| Gap { span, back: false }))
}

fn steps_with(gap: impl Strategy<Value = Gap>) -> impl Strategy<Value = Vec<Step>> {
    let plan = prop_oneof![4 => Just(0_usize), 1 => 1..3_usize];
    let flag = prop::bool::weighted;
    let step = (gap, plan, an_action(), a_penalty(), prop::bool::ANY, flag(0.2)).prop_map(
        |(gap, plan, action, penalty, expire, reload)| Step {
            gap,
            plan,
            action,
            penalty,
            expire,
            reload,
        },
    );
    // Half of the histories have no penalties.
    (prop::collection::vec(step, 1..40), prop::bool::ANY).prop_map(|(mut steps, is_penalized)| {
        if !is_penalized {
            steps.iter_mut().for_each(|step| step.penalty = None);
        }
        steps
    })
}

fn a_penalty() -> impl Strategy<Value = Option<Penalty>> {
    let longest = Micros::MAX_DURATION.get();
    let duration = prop_oneof![9 => 1_000..=5_000_u64, 1 => select(vec![1_000_000, longest])];
    let after = prop_oneof![9 => 1..=4_u32, 1 => select(vec![MAX_AFTER - 1, MAX_AFTER])];
    let penalty = (duration, after)
        .prop_map(|(duration, after)| Penalty::new(Micros::new(duration), after).unwrap());
    prop::option::of(penalty)
}

fn an_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (a_cost(), a_mode()).prop_map(|(cost, mode)| Action::Ask(cost, mode)),
        1 => a_cost().prop_map(Action::Refund),
    ]
}

fn a_cost() -> impl Strategy<Value = Units> {
    prop_oneof![
        8 => (0..=5_u64).prop_map(Units::Small),
        1 => (-1..=1_i64).prop_map(Units::Limit),
        2 => (-1..=1_i64).prop_map(Units::Remaining),
        1 => prop_oneof![2 => Just(Units::Small(1)), 1 => Just(Units::Most)],
    ]
}

fn a_mode() -> impl Strategy<Value = Mode> {
    prop_oneof![5 => Just(Mode::Whole), 2 => Just(Mode::Partial), 2 => Just(Mode::Force)]
}

fn a_span() -> impl Strategy<Value = Span> {
    prop_oneof![
        3 => Just(Span::Short(0)),
        2 => (0..=50_u64).prop_map(Span::Short),
        3 => (1..=18_u64).prop_map(Span::Sixteenths),
        4 => (-1..=1_i64).prop_map(Span::Wait),
        1 => Just(Span::WaitMillis),
        2 => (-1..=1_i64).prop_map(Span::Reset),
        3 => (-1..=1_i64).prop_map(Span::Spacing),
        1 => (0..=53_u32).prop_map(Span::Power),
    ]
}

/// Any request, small or of the largest cost.
pub fn a_request() -> impl Strategy<Value = Request> {
    let cost = prop_oneof![9 => 0..=25_u64, 1 => Just(MAX_UNITS)];
    (cost, a_mode()).prop_map(|(cost, mode)| Request { cost, mode })
}

/// A moment: of our days mostly, or as early or as late as a moment may be.
pub fn a_moment() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0..=10_000_u64).prop_map(|us| OF_OUR_DAYS + us),
        1 => 0..=10_000_u64,
        1 => (0..=10_000_u64).prop_map(|us| Micros::MAX_MOMENT.get() - us),
    ]
}
