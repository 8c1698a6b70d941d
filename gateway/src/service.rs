//! One request from question to answer: what is remembered, then what the server says, or what stands in for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::http::HeaderMap;
use tracing::Instrument as _;

use crate::decision::Verdict;
use crate::denials::Denials;
use crate::local::Local;
use crate::metrics::Meters;
use crate::plan::{Action, Invalid, Plan, Row, Style, Wrong};
use crate::redis::{Store, Unasked};
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
    /// Gateways that share the load, for [`Outage::Local`].
    pub instances: u32,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Whether it is refused.
    pub refused: bool,
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
}

impl Service {
    /// A service that decides by these rules until others are set.
    pub fn new(rules: Rules, store: Store, settings: Settings, meters: Meters) -> Self {
        Self {
            rules: ArcSwap::from_pointee(rules),
            store,
            denials: Denials::new(settings.remember),
            local: Local::new(settings.instances),
            settings,
            meters,
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
        let refused = plan.refused() && !self.settings.shadow;
        let turn = if refused { Duration::ZERO } else { turn(&plan.rows) };
        let outcome = Outcome { refused, rows: plan.rows };
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
            self.denials
                .find(row.key.as_bytes(), cost, now)
                .map(|verdict| (row.key.clone(), verdict))
        });
        let Some((key, verdict)) = found else { return false };
        plan.deny(&key, verdict);
        true
    }

    async fn ask(&self, plan: &mut Plan) -> Result<(), Reason> {
        let began = Instant::now();
        let mut asks = plan.next();
        if asks.is_empty() {
            return Ok(());
        }
        while !asks.is_empty() {
            let round = tracing::debug_span!(target: TRACES, "redis", commands = asks.len());
            plan.read(self.store.ask(asks).instrument(round).await?)?;
            asks = plan.next();
        }
        self.meters.asked(began.elapsed());
        self.remember(plan, began);
        Ok(())
    }

    /// `asked` is before the server decided: so nothing is remembered longer than the server would deny it.
    fn remember(&self, plan: &Plan, asked: Instant) {
        for (row, cost) in plan.takes() {
            let Some(verdict) = row.verdict.filter(|verdict| !verdict.allowed) else { continue };
            if row.limit.as_ref().is_some_and(|limit| {
                is_steady(limit.algorithm, limit.block.map(|block| block.after))
            }) {
                self.denials.remember(row.key.as_bytes(), cost, verdict, asked);
            }
        }
        for row in plan.rows.iter().filter(|row| row.action == Action::Give) {
            self.denials.forget(row.key.as_bytes());
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
            Outage::Local => {
                for row in &mut plan.rows {
                    row.verdict = self.locally(row);
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
