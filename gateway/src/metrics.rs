//! What Prometheus sees. Rules are labels by their paths. Those of the configuration are known when it is loaded; labels with
//! values of requests come with these, and once there are [`MOST_DETAILED`] of them, further ones are `other`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::plan::{Action, Row};
use crate::rules::{Mode, Rules};
use crate::service::{Outcome, Reason};

/// The most labels with values of requests, of all domains together: what detailed metrics can grow to.
pub const MOST_DETAILED: usize = 10_000;
/// What further ones are counted under.
const OTHER: &str = "other";

/// The bounds of the latency histograms, in seconds.
const BOUNDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// How a request came.
#[derive(Clone, Copy, Debug)]
pub enum Via {
    /// From Envoy.
    Grpc,
    /// From Traefik, Caddy, nginx.
    Http,
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Installs the recorder and says where its text comes from.
///
/// # Errors
/// Another recorder is installed.
pub fn install() -> anyhow::Result<PrometheusHandle> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BOUNDS)?;
    let handle = builder.install_recorder()?;
    describe_counter!(
        "rl_gateway_requests_total",
        "Requests by domain and code: ok, over_limit, error"
    );
    describe_counter!("rl_gateway_hits_total", "Hits by rule");
    describe_counter!("rl_gateway_over_limit_total", "Hits that a rule refused");
    describe_counter!("rl_gateway_near_limit_total", "Hits that a rule granted near its limit");
    describe_counter!(
        "rl_gateway_shadow_total",
        "Hits that a rule in shadow mode would have refused"
    );
    describe_counter!("rl_gateway_remembered_total", "Hits that were refused from memory");
    describe_counter!(
        "rl_gateway_unasked_total",
        "Requests that the server did not decide, by reason"
    );
    describe_counter!(
        "rl_gateway_errors_total",
        "Malformed requests, and errors that the server answers, by kind: request, redis"
    );
    describe_histogram!("rl_gateway_decision_seconds", "From a request to its answer");
    describe_histogram!("rl_gateway_redis_seconds", "Of that, asking the server");
    describe_counter!("rl_gateway_config_loads_total", "Configurations read, by result: ok, error");
    describe_gauge!(
        "rl_gateway_config_ok",
        "1 while the newest configuration holds, 0 while it is broken and an older one does"
    );
    describe_gauge!("rl_gateway_breaker_open", "1 while the server is not asked");
    Ok(handle)
}

/// A malformed request.
pub fn malformed() {
    counter!("rl_gateway_errors_total", "kind" => "request").increment(1);
}

/// The counters of one rule.
struct RuleMeters {
    hits: Counter,
    over_limit: Counter,
    near_limit: Counter,
    shadow: Counter,
    remembered: Counter,
}

impl RuleMeters {
    fn new(domain: &str, rule: &str) -> Self {
        let labels = [("domain", domain.to_owned()), ("rule", rule.to_owned())];
        Self {
            hits: counter!("rl_gateway_hits_total", &labels),
            over_limit: counter!("rl_gateway_over_limit_total", &labels),
            near_limit: counter!("rl_gateway_near_limit_total", &labels),
            shadow: counter!("rl_gateway_shadow_total", &labels),
            remembered: counter!("rl_gateway_remembered_total", &labels),
        }
    }
}

/// The counters of one domain.
struct DomainMeters {
    ok: Counter,
    over_limit: Counter,
    rules: RwLock<HashMap<String, Arc<RuleMeters>>>,
}

impl DomainMeters {
    fn new(domain: &str) -> Self {
        let of = |code: &'static str| counter!("rl_gateway_requests_total", "domain" => domain.to_owned(), "code" => code);
        Self { ok: of("ok"), over_limit: of("over_limit"), rules: RwLock::default() }
    }

    /// Rules of the configuration have theirs already: a label that is new holds values of a request.
    fn rule(&self, domain: &str, label: &str, detailed: &AtomicUsize) -> Arc<RuleMeters> {
        if let Some(found) = known(&self.rules, label) {
            return found;
        }
        let more = |count| (count < MOST_DETAILED).then_some(count + 1);
        let label = detailed.fetch_update(Relaxed, Relaxed, more).map_or(OTHER, |_| label);
        self.register(domain, label)
    }

    fn register(&self, domain: &str, label: &str) -> Arc<RuleMeters> {
        find(&self.rules, label, |label| RuleMeters::new(domain, label))
    }
}

/// All counters. Each is looked up once and kept, since a look-up by name and labels costs more than a decision.
pub struct Meters {
    domains: RwLock<HashMap<String, Arc<DomainMeters>>>,
    /// How many labels with values of requests there are.
    detailed: AtomicUsize,
    grpc: Histogram,
    http: Histogram,
    redis: Histogram,
    failed: Counter,
    breaker_open: Gauge,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            domains: RwLock::default(),
            detailed: AtomicUsize::new(0),
            grpc: histogram!("rl_gateway_decision_seconds", "via" => "grpc"),
            http: histogram!("rl_gateway_decision_seconds", "via" => "http"),
            redis: histogram!("rl_gateway_redis_seconds"),
            failed: counter!("rl_gateway_requests_total", "domain" => "", "code" => "error"),
            breaker_open: gauge!("rl_gateway_breaker_open"),
        }
    }
}

impl Meters {
    /// A request was answered, or not.
    pub fn answered(&self, via: Via, took: Duration, failed: bool) {
        match via {
            Via::Grpc => self.grpc.record(took),
            Via::Http => self.http.record(took),
        }
        if failed {
            self.failed.increment(1);
        }
    }

    /// The server answered.
    pub fn asked(&self, took: Duration) {
        self.redis.record(took);
    }

    /// The server did not decide.
    pub fn unasked(&self, domain: &str, reason: &Reason) {
        let kind = match reason {
            Reason::Unasked(unasked) => unasked.reason.name(),
            Reason::Wrong(_) => "error",
        };
        counter!("rl_gateway_unasked_total", "domain" => domain.to_owned(), "reason" => kind)
            .increment(1);
    }

    /// The server refused a command, or its reply was none of ours.
    pub fn wrong(&self) {
        counter!("rl_gateway_errors_total", "kind" => "redis").increment(1);
    }

    /// Whether the server is asked.
    pub fn breaker(&self, open: bool) {
        self.breaker_open.set(if open { 1.0 } else { 0.0 });
    }

    /// These rules are about to hold. Their counters begin at 0, and no label that a request makes up can take their place.
    pub fn register(&self, rules: &Rules) {
        for domain in rules.domains() {
            let meters = self.domain(&domain.name);
            for rule in domain.rules() {
                meters.register(&domain.name, &rule.label);
            }
        }
    }

    fn domain(&self, name: &str) -> Arc<DomainMeters> {
        find(&self.domains, name, DomainMeters::new)
    }

    /// A configuration was read.
    pub fn loaded(&self, ok: bool) {
        counter!("rl_gateway_config_loads_total", "result" => if ok { "ok" } else { "error" })
            .increment(1);
        gauge!("rl_gateway_config_ok").set(if ok { 1.0 } else { 0.0 });
    }

    /// What the rules said. Requests of unknown domains are counted under no name, for anybody can make names up.
    pub fn decided(&self, domain: &str, outcome: &Outcome, near_limit: u64) {
        let meters = self.domain(domain);
        if outcome.refused { &meters.over_limit } else { &meters.ok }.increment(1);
        for row in outcome.rows.iter().filter(|row| row.rule.is_some()) {
            let shadow = outcome.shadowed || row.mode() == Mode::Shadow;
            let meters = meters.rule(domain, &row.label, &self.detailed);
            count(&meters, row, shadow, near_limit);
        }
    }
}

fn count(meters: &RuleMeters, row: &Row, shadow: bool, near_limit: u64) {
    if !matches!(row.action, Action::Take | Action::TakeAlone | Action::Charge | Action::Pass) {
        return;
    }
    meters.hits.increment(row.hits);
    let Some(verdict) = row.verdict else { return };
    if verdict.allowed {
        let used = verdict.limit.saturating_sub(verdict.remaining);
        if u128::from(used) * 100 >= u128::from(verdict.limit) * u128::from(near_limit) {
            meters.near_limit.increment(row.hits);
        }
    } else {
        meters.over_limit.increment(row.hits);
        if shadow {
            meters.shadow.increment(row.hits);
        }
        if row.remembered {
            meters.remembered.increment(row.hits);
        }
    }
}

/// What is kept under a name.
fn known<T>(all: &RwLock<HashMap<String, Arc<T>>>, name: &str) -> Option<Arc<T>> {
    all.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
}

/// The same, made if it is new.
fn find<T>(all: &RwLock<HashMap<String, Arc<T>>>, name: &str, make: impl Fn(&str) -> T) -> Arc<T> {
    known(all, name).unwrap_or_else(|| {
        let mut write = all.write().unwrap_or_else(PoisonError::into_inner);
        // Another one may have come in between.
        write.entry(name.to_owned()).or_insert_with(|| Arc::new(make(name))).clone()
    })
}
