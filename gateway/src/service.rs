//! One request from question to answer: what is remembered, then what the server says, or what stands in for it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::http::HeaderMap;
use governor::{DefaultDirectRateLimiter, Quota};
use tracing::Instrument as _;

use crate::decision::Verdict;
use crate::denials::{Denials, Mark};
use crate::local::Local;
use crate::metrics::Meters;
use crate::plan::{Action, Invalid, Plan, Row, Style, Wrong};
use crate::redis::{Ask, Store, Unasked};
use crate::request::Request;
use crate::rules::limit::Algorithm;
use crate::rules::{Mode, Rules};
use crate::telemetry;

/// The target of the spans that are traces. The log leaves them out.
pub const TRACES: &str = "rl_gateway_trace";

/// What happens to requests while the server is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Outage {
    /// They pass.
    Open,
    /// They are refused, with a 503 or UNAVAILABLE.
    Closed,
    /// They are counted in this process, each limit divided by the number of instances.
    Local,
}

/// What holds for all requests.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How requests become commands.
    pub style: Style,
    /// While the server is away.
    pub on_outage: Outage,
    /// Nothing is refused: everything is decided, counted and reported.
    pub shadow: bool,
    /// From which percentage of a limit on a grant counts as near it.
    pub near_limit: u64,
    /// Denials remembered at most; 0 remembers none.
    pub remember: usize,
    /// How long each of them is remembered at most.
    pub remember_for: Duration,
    /// Gateways that share the load, for [`Outage::Local`].
    pub instances: u32,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Whether it is refused.
    pub refused: bool,
    /// Whether it would be, if the gateway as a whole were not in shadow mode.
    pub shadowed: bool,
    /// A row for each descriptor, in order.
    pub rows: Vec<Row>,
}

impl Outcome {
    /// The rules that were met, each with whether it refuses.
    fn labels(&self) -> Vec<(&str, bool)> {
        self.rows
            .iter()
            .filter(|row| row.rule.is_some())
            .map(|row| (row.label.as_str(), row.is_refused()))
            .collect()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// The request is malformed.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The server is away, and so it is settled that nothing passes.
    #[error("the rate limit could not be checked: {0}")]
    Closed(String),
}

/// The service: cheap to share, and its rules can be changed while it answers.
pub struct Service {
    rules: ArcSwap<Rules>,
    store: Store,
    denials: Denials,
    local: Local,
    settings: Settings,
    meters: Meters,
    /// What the server's errors are logged by.
    complaints: DefaultDirectRateLimiter,
}

impl Service {
    /// A service that decides by these rules until others are set.
    pub fn new(rules: Rules, store: Store, settings: Settings, meters: Meters) -> Self {
        Self {
            rules: ArcSwap::from_pointee(rules),
            store,
            denials: Denials::new(settings.remember, settings.remember_for),
            local: Local::new(settings.instances),
            settings,
            meters,
            complaints: DefaultDirectRateLimiter::direct(Quota::per_second(NonZeroU32::MIN)),
        }
    }

    /// The rules that hold now.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Other rules, from the next request on. Requests under way keep theirs.
    pub fn set_rules(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    /// The counters.
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// Whether the server answers.
    pub fn is_asked(&self) -> bool {
        !self.store.is_open()
    }

    /// Decides a request. `headers` are those of the question: they can say which trace it belongs to.
    ///
    /// # Errors
    /// It is malformed, or the server is away and nothing passes then.
    pub async fn decide(
        &self,
        request: &Request,
        headers: &HeaderMap,
    ) -> Result<Outcome, Unanswered> {
        let span = tracing::debug_span!(
            target: TRACES,
            "decide",
            domain = request.domain,
            descriptors = request.descriptors.len(),
            refused = tracing::field::Empty,
        );
        telemetry::continue_trace(&span, headers);
        let answer = self.answer(request).instrument(span.clone()).await;
        match &answer {
            Ok(outcome) => {
                span.record("refused", outcome.refused);
                tracing::debug!(domain = request.domain, refused = outcome.refused, rules = ?outcome.labels(), "decided");
            }
            Err(reason) => tracing::debug!(domain = request.domain, %reason, "not decided"),
        }
        answer
    }

    async fn answer(&self, request: &Request) -> Result<Outcome, Unanswered> {
        let rules = self.rules.load_full();
        let domain = rules.domain(&request.domain);
        let mut plan = Plan::new(request, domain.map(|domain| &**domain), &self.settings.style)?;
        if !self.recall(&mut plan)
            // Boxed: what is answered from memory is not to carry its size about.
            && let Err(reason) = Box::pin(self.ask(&mut plan)).await
        {
            self.meters.unasked(&request.domain, &reason);
            self.stand_in(&mut plan, &reason)?;
        }
        let refused = plan.refused();
        let turn = if refused { Duration::ZERO } else { turn(&plan.rows) };
        let shadow = self.settings.shadow;
        let outcome =
            Outcome { refused: refused && !shadow, shadowed: refused && shadow, rows: plan.rows };
        let known = domain.map_or("", |domain| &domain.name);
        self.meters.decided(known, &outcome, self.settings.near_limit);
        if !turn.is_zero() {
            tokio::time::sleep(turn).await;
        }
        Ok(outcome)
    }

    /// Whether one of the limits has denied as much already, and its wait is not over.
    fn recall(&self, plan: &mut Plan) -> bool {
        if plan.must_ask() {
            return false;
        }
        let now = Instant::now();
        let found = plan.takes().find_map(|(row, cost)| {
            let verdict = self.denials.find(row.key.as_bytes(), cost, row.limit.as_ref()?, now)?;
            Some((row.key.clone(), verdict))
        });
        let Some((key, verdict)) = found else { return false };
        plan.deny(&key, verdict);
        true
    }

    async fn ask(&self, plan: &mut Plan) -> Result<(), Reason> {
        let (began, mark) = (Instant::now(), self.denials.mark());
        let asks = plan.next();
        if asks.is_empty() {
            return Ok(());
        }
        let asked = self.rounds(plan, asks).await;
        for key in plan.given() {
            self.denials.forget(key);
        }
        asked?;
        self.meters.asked(began.elapsed());
        self.remember(plan, mark, began);
        Ok(())
    }

    /// All rounds have one deadline. What gives back has its own: it is not to be left out because the others were slow.
    async fn rounds(&self, plan: &mut Plan, first: Vec<Ask>) -> Result<(), Reason> {
        let deadline = self.store.deadline();
        let mut asks = first;
        while !asks.is_empty() {
            let round = tracing::debug_span!(target: TRACES, "redis", commands = asks.len());
            let undoing = plan.is_undoing();
            let deadline = if undoing { self.store.deadline() } else { deadline };
            match self.store.ask_by(asks, deadline).instrument(round).await {
                Ok(replies) => {
                    if let Err(wrong) = plan.read(replies) {
                        self.complain(&wrong);
                        if plan.is_undecided() {
                            return Err(wrong.into());
                        }
                    }
                }
                Err(reason) if undoing => {
                    tracing::warn!(%reason, "what a refused request took could not be given back");
                    return Ok(());
                }
                Err(reason) => return Err(reason.into()),
            }
            asks = plan.next();
        }
        Ok(())
    }

    /// Such an error does not go away by itself: so somebody has to see it.
    fn complain(&self, wrong: &Wrong) {
        self.meters.wrong();
        if self.complaints.check().is_ok() {
            tracing::warn!("the server refuses a command: {wrong}");
        }
    }

    /// `mark` and `asked` are from before the server decided: so nothing is remembered longer than the server would deny it.
    fn remember(&self, plan: &Plan, mark: Mark, asked: Instant) {
        for (row, cost) in plan.takes() {
            let Some(verdict) = row.verdict.filter(|verdict| !verdict.allowed) else { continue };
            let Some(limit) = &row.limit else { continue };
            if is_steady(limit.algorithm, limit.block.map(|block| block.after)) {
                self.denials.remember(row.key.as_bytes(), cost, limit, verdict, mark, asked);
            }
        }
    }

    /// What the server would have said, as far as it can be said without it.
    fn stand_in(&self, plan: &mut Plan, reason: &Reason) -> Result<(), Unanswered> {
        match self.settings.on_outage {
            // What earlier rounds said stands in the rows: it is no basis for a refusal.
            Outage::Open => {
                for row in &mut plan.rows {
                    row.verdict = None;
                }
            }
            Outage::Closed => return Err(Unanswered::Closed(reason.to_string())),
            // One after the other: once one refuses, the limits after it are not charged.
            Outage::Local => {
                let mut refused = false;
                for row in &mut plan.rows {
                    row.verdict = None;
                    if !(refused && row.action == Action::Take) {
                        row.verdict = self.locally(row);
                        refused |= row.action == Action::Take && row.is_refused();
                    }
                }
            }
        }
        Ok(())
    }

    /// By this process's own count. It has no leases, and nothing that could be given back.
    fn locally(&self, row: &Row) -> Option<Verdict> {
        let limit = row.limit.as_ref()?;
        let window = limit.window_us()?;
        let counts = matches!(row.action, Action::Take | Action::TakeAlone | Action::Charge);
        counts.then(|| {
            self.local.decide(
                row.key.as_bytes(),
                limit.requests,
                window,
                limit.capacity(),
                row.cost,
            )
        })
    }
}

/// Why the server said nothing.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// It was not asked, or did not answer in time.
    #[error("{0}")]
    Unasked(#[from] Unasked),
    /// It answered with an error.
    #[error("{0}")]
    Wrong(#[from] Wrong),
}

/// Whether a denial holds until its wait is over, whoever asks. A lease can be given back at any time; a block begins after
/// denials in a row, which the server has to see.
fn is_steady(algorithm: Algorithm, block_after: Option<u32>) -> bool {
    algorithm != Algorithm::Concurrency && block_after.is_none_or(|after| after == 1)
}

/// How long the request has to wait for its turn: the longest of its leaky buckets.
fn turn(rows: &[Row]) -> Duration {
    let turns = rows
        .iter()
        .filter(|row| row.action == Action::Take && row.mode() == Mode::Enforced)
        .filter_map(|row| row.verdict.filter(|verdict| verdict.allowed)?.wait_ms);
    Duration::from_millis(turns.max().unwrap_or(0))
}
