//! What a gateway is answered: a message of Envoy's, header fields, the body of a refusal.

pub mod envoy;
pub mod fields;
pub mod problem;

use std::time::Duration;

use fields::{Named, QuotaUnit};

use crate::decision::Verdict;
use crate::plan::{Action, Row};
use crate::rules::Mode;
use crate::rules::limit::Algorithm;
use crate::service::Outcome;

/// The limits that a client is shown: those that can refuse, as far as they were decided.
pub fn limits(outcome: &Outcome) -> Vec<Named<'_>> {
    let mut named: Vec<Named<'_>> = Vec::new();
    for row in &outcome.rows {
        let shown = matches!(row.action, Action::Take | Action::Look | Action::Charge)
            && row.mode() == Mode::Enforced;
        if let (true, Some(limit), Some(verdict)) =
            (shown || row.mode() == Mode::Quota, &row.limit, row.verdict)
        {
            let name = row.rule.as_ref().map_or("override", |rule| &*rule.policy);
            // A request that passes has nothing to wait for, whatever a limit says that does not refuse it.
            let verdict = Verdict { allowed: verdict.allowed || !outcome.refused, ..verdict };
            // Equal descriptors are one limit.
            if named.iter().any(|other| other.name == name && other.verdict == verdict) {
                continue;
            }
            let leases = limit.algorithm == Algorithm::Concurrency;
            named.push(Named {
                name,
                verdict,
                quota: Some(limit.requests),
                window_us: limit.window_us(),
                unit: if leases { QuotaUnit::ConcurrentRequests } else { QuotaUnit::Requests },
            });
        }
    }
    named
}

/// The body of the outcome's refusal: a quota is exceeded, or a client is blocked for retrying in spite of denials.
pub fn refusal(outcome: &Outcome) -> problem::Problem {
    let blocked = outcome.rows.iter().any(is_blocked);
    let kind = if blocked { problem::Kind::AbnormalUsage } else { problem::Kind::QuotaExceeded };
    problem::problem(kind, &limits(outcome))
}

/// A wait that is longer than the limit itself can make anybody wait comes from a block.
fn is_blocked(row: &Row) -> bool {
    let limit = row.limit.as_ref().filter(|limit| limit.block.is_some());
    let wait = row.verdict.filter(|verdict| !verdict.allowed).and_then(|verdict| verdict.wait_ms);
    limit.zip(wait).is_some_and(|(limit, wait)| Duration::from_millis(wait) > limit.refill())
}
