//! Envoy's request as ours, and our outcome as its response.

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::{
    Entry as EnvoyEntry, RateLimitOverride,
};
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit as EnvoyUnit;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus};
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use envoy_types::pb::google::protobuf::{Duration, UInt64Value};
use proptest::prelude::*;

use super::{load, request, style};
use crate::answer::envoy;
use crate::answer::fields::Form;
use crate::decision::Verdict;
use crate::plan::Plan;
use crate::request::{Override, Unit};
use crate::service::Outcome;

const RULES: &str = "domain: d
descriptors:
  - {key: a, rate_limit: {unit: hour, requests_per_unit: 5, name: five}}
  - {key: huge, rate_limit: {unit: week, requests_per_unit: 1000000000000}}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: shadow, shadow_mode: true, rate_limit: {unit: second, requests_per_unit: 5}}
  - {key: quota, quota_mode: true, rate_limit: {unit: second, requests_per_unit: 5}}
  - {key: leases, rate_limit: {concurrency: 3, ttl: 60s}}
  - key: blocks
    rate_limit: {algorithm: token_bucket, unit: minute, requests_per_unit: 1, burst: 60, block: {duration: 2h}}
";

const YES: Verdict =
    Verdict { allowed: true, limit: 5, remaining: 4, wait_ms: Some(0), reset_ms: 1_500 };
const NO: Verdict =
    Verdict { allowed: false, limit: 5, remaining: 0, wait_ms: Some(700), reset_ms: 1_500 };

/// The outcome of a request with this verdict for each descriptor.
fn outcome(descriptors: &str, verdict: Option<Verdict>) -> Outcome {
    let rules = load(RULES).unwrap();
    let mut plan =
        Plan::new(&request(descriptors), Some(rules.only().unwrap()), &style(false)).unwrap();
    for row in plan.rows.iter_mut().filter(|row| row.limit.is_some()) {
        row.verdict = verdict;
    }
    Outcome { refused: plan.refused(), shadowed: false, rows: plan.rows }
}

fn answered(descriptors: &str, verdict: Option<Verdict>) -> RateLimitResponse {
    envoy::response(&outcome(descriptors, verdict), Some(Form::Draft11), 0)
}

/// A status as text: its code, its limit, what remains, and the milliseconds.
fn told(status: &DescriptorStatus) -> String {
    let limit = status.current_limit.as_ref().map_or_else(
        || "no limit".to_owned(),
        |limit| format!("{:?} {}/{:?}", limit.name, limit.requests_per_unit, limit.unit()),
    );
    let reset = status.duration_until_reset.as_ref().map_or_else(
        || "no reset".to_owned(),
        |time| format!("{}ms", time.seconds * 1000 + i64::from(time.nanos) / 1_000_000),
    );
    format!("{:?}, {limit}, {}, {reset}", status.code(), status.limit_remaining)
}

#[test]
fn each_descriptor_has_a_status() {
    let never = Verdict { wait_ms: None, ..NO };
    let huge = Verdict { limit: 1 << 40, remaining: 1 << 33, ..YES };
    for (descriptor, verdict, code, expected) in [
        ("a=1", Some(YES), Code::Ok, "Ok, \"five\" 5/Hour, 4, 1500ms"),
        // After a denial, until a request like it passes.
        ("a=1", Some(NO), Code::OverLimit, "OverLimit, \"five\" 5/Hour, 0, 700ms"),
        ("a=1", Some(never), Code::OverLimit, "OverLimit, \"five\" 5/Hour, 0, 1500ms"),
        // Not asked.
        ("a=1", None, Code::Ok, "Ok, \"five\" 5/Hour, 0, no reset"),
        ("huge=1", Some(huge), Code::Ok, "Ok, \"\" 4294967295/Week, 4294967295, 1500ms"),
        ("free=1", None, Code::Ok, "Ok, no limit, 4294967295, no reset"),
        ("unknown=1", None, Code::Ok, "Ok, no limit, 0, no reset"),
        ("shadow=1", Some(NO), Code::Ok, "Ok, \"\" 5/Second, 0, 700ms"),
        ("quota=1", Some(NO), Code::OverLimit, "OverLimit, \"\" 5/Second, 0, 700ms"),
        ("leases=1", Some(YES), Code::Ok, "Ok, \"\" 3/Unknown, 4, 1500ms"),
    ] {
        let response = answered(descriptor, verdict);
        assert_eq!(response.overall_code(), code, "{descriptor}");
        let statuses: Vec<_> = response.statuses.iter().map(told).collect();
        assert_eq!(statuses, [expected], "{descriptor} and {verdict:?}");
    }
}

#[test]
fn a_refusal_has_a_body_and_a_grant_has_none() {
    let names = |response: &RateLimitResponse| -> Vec<String> {
        response.response_headers_to_add.iter().map(|field| field.key.clone()).collect()
    };
    let granted = answered("a=1", Some(YES));
    assert_eq!(names(&granted), ["RateLimit-Policy", "RateLimit"]);
    assert!(granted.raw_body.is_empty());
    let refused = answered("a=1", Some(NO));
    assert_eq!(names(&refused), ["RateLimit-Policy", "RateLimit", "Retry-After", "content-type"]);
    let body: serde_json::Value = serde_json::from_slice(&refused.raw_body).unwrap();
    assert_eq!(body["status"], 429);
    let none = envoy::response(&outcome("a=1", Some(NO)), None, 0);
    assert_eq!(names(&none), ["content-type"], "without fields");
    // What cannot refuse is not the client's business.
    assert!(names(&answered("shadow=1 + free=1 + unknown=1", Some(NO))).is_empty());
}

#[test]
fn a_wait_that_the_limit_does_not_explain_is_that_of_a_block() {
    for (descriptor, minutes, expected) in [
        // The bucket holds an hour's requests: whoever wants all of them may wait for longer than its unit.
        ("blocks=1", 1, "quota-exceeded"),
        ("blocks=1", 60, "quota-exceeded"),
        ("blocks=1", 61, "abnormal-usage-detected"),
        ("a=1", 61, "quota-exceeded"),
    ] {
        let verdict = Verdict { wait_ms: Some(minutes * 60_000), ..NO };
        let response = answered(descriptor, Some(verdict));
        let body: serde_json::Value = serde_json::from_slice(&response.raw_body).unwrap();
        let kind = body["type"].as_str().unwrap().rsplit('#').next().unwrap();
        assert_eq!(kind, expected, "{descriptor} with {minutes} minutes");
    }
}

#[test]
fn an_overall_shadow_refuses_nothing_and_says_what_would_have_been() {
    let outcome = Outcome { refused: false, shadowed: true, ..outcome("a=1", Some(NO)) };
    let response = envoy::response(&outcome, Some(Form::Draft11), 0);
    assert_eq!((response.overall_code(), response.raw_body.len()), (Code::Ok, 0));
    let policies = |descriptors| {
        let outcome = self::outcome(descriptors, Some(NO));
        let outcome = Outcome { refused: false, shadowed: true, ..outcome };
        let fields = envoy::response(&outcome, Some(Form::Draft11), 0).response_headers_to_add;
        fields.into_iter().map(|field| field.value).collect::<Vec<_>>()
    };
    assert_eq!(policies("a=1 + a=1"), policies("a=1"), "equal descriptors are one limit");
}

#[test]
fn times_are_within_what_protobuf_holds() {
    for (reset_ms, seconds, nanos) in [
        (0, 0, 0),
        (999, 0, 999_000_000),
        (60_001, 60, 1_000_000),
        ((1 << 53) - 1, 315_576_000_000, 991_000_000),
        (u64::MAX, 315_576_000_000, 615_000_000),
    ] {
        let response = answered("a=1", Some(Verdict { reset_ms, ..YES }));
        assert_eq!(response.statuses[0].duration_until_reset, Some(Duration { seconds, nanos }));
    }
}

fn asked(limit: Option<RateLimitOverride>, hits: Option<u64>, addend: u32) -> RateLimitRequest {
    RateLimitRequest {
        domain: "d".into(),
        descriptors: vec![RateLimitDescriptor {
            entries: vec![EnvoyEntry { key: "k".into(), value: "v".into() }],
            limit,
            hits_addend: hits.map(|value| UInt64Value { value }),
            is_negative_hits: true,
        }],
        hits_addend: addend,
    }
}

#[test]
fn a_request_of_envoys_is_read_whole() {
    let over = RateLimitOverride { requests_per_unit: 7, unit: EnvoyUnit::Month.into() };
    let read = envoy::request(asked(Some(over), Some(0), 3)).unwrap();
    let descriptor = &read.descriptors[0];
    assert_eq!(
        (&*read.domain, read.hits, descriptor.hits, descriptor.negative),
        ("d", Some(3), Some(0), true)
    );
    assert_eq!(descriptor.limit, Some(Override { requests_per_unit: 7, unit: Unit::Month }));
    assert_eq!((&*descriptor.entries[0].key, &*descriptor.entries[0].value), ("k", "v"));
    // In the request itself 0 is what is not set.
    assert_eq!(envoy::request(asked(None, None, 0)).unwrap().hits, None);
    for unit in [0, 8, -1, i32::MAX] {
        let over = RateLimitOverride { requests_per_unit: 7, unit };
        let found = envoy::request(asked(Some(over), None, 0)).unwrap_err();
        assert_eq!(
            found.to_string(),
            "a unit of time is second, minute, hour, day, week, month or year"
        );
    }
}

#[test]
fn any_numbers_become_a_response() {
    let verdict =
        (any::<bool>(), any::<u64>(), any::<u64>(), prop::option::of(any::<u64>()), any::<u64>())
            .prop_map(|(allowed, limit, remaining, wait_ms, reset_ms)| Verdict {
                allowed,
                limit,
                remaining,
                wait_ms,
                reset_ms,
            });
    let forms: Vec<_> = Form::NAMES.iter().map(|(_, form)| *form).collect();
    let name = prop::sample::select(vec![
        "a=1",
        "huge=1",
        "shadow=1",
        "quota=1",
        "leases=1",
        "a=1 + huge=2 + leases=x",
    ]);
    super::random(
        256,
        &(name, verdict, prop::sample::select(forms), any::<u64>()),
        |(name, verdict, form, now)| {
            let outcome = outcome(name, Some(verdict));
            let response = envoy::response(&outcome, Some(form), now);
            assert_eq!(response.statuses.len(), outcome.rows.len());
            assert_eq!(response.overall_code() == Code::OverLimit, outcome.refused);
        },
    );
}
