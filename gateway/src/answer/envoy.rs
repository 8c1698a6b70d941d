//! Envoy's messages: its request as ours, and our outcome as its response.

use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit as EnvoyUnit;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::{
    Code, DescriptorStatus, RateLimit,
};
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use envoy_types::pb::google::protobuf::Duration;

use super::fields::{self, Form};
use super::limits;
use crate::plan::{Invalid, Row};
use crate::request::{Descriptor, Entry, Override, Request, Unit};
use crate::rules::Mode;
use crate::rules::limit::Algorithm;
use crate::service::Outcome;

/// What a Duration of protobuf holds at most: 10000 years.
const LONGEST_SECONDS: i64 = 315_576_000_000;

/// Reads Envoy's request.
///
/// # Errors
/// It holds a unit of time that nobody knows.
pub fn request(from: RateLimitRequest) -> Result<Request, Invalid> {
    Ok(Request {
        domain: from.domain,
        descriptors: from.descriptors.into_iter().map(descriptor).collect::<Result<_, _>>()?,
        // In this message 0 is what is not set.
        hits: Some(from.hits_addend.into()).filter(|&hits| hits > 0),
    })
}

fn descriptor(from: RateLimitDescriptor) -> Result<Descriptor, Invalid> {
    let limit = from.limit.map(|by| {
        Ok(Override {
            requests_per_unit: by.requests_per_unit,
            unit: unit(by.unit).ok_or(Invalid::Unit)?,
        })
    });
    Ok(Descriptor {
        entries: from
            .entries
            .into_iter()
            .map(|entry| Entry { key: entry.key, value: entry.value })
            .collect(),
        limit: limit.transpose()?,
        hits: from.hits_addend.map(|hits| hits.value),
        negative: from.is_negative_hits,
    })
}

fn unit(number: i32) -> Option<Unit> {
    EnvoyUnit::try_from(number).ok().and_then(unit_of)
}

/// Our unit of time, of Envoy's; none of the one that nobody knows.
pub fn unit_of(unit: EnvoyUnit) -> Option<Unit> {
    match unit {
        EnvoyUnit::Unknown => None,
        EnvoyUnit::Second => Some(Unit::Second),
        EnvoyUnit::Minute => Some(Unit::Minute),
        EnvoyUnit::Hour => Some(Unit::Hour),
        EnvoyUnit::Day => Some(Unit::Day),
        EnvoyUnit::Week => Some(Unit::Week),
        EnvoyUnit::Month => Some(Unit::Month),
        EnvoyUnit::Year => Some(Unit::Year),
    }
}

fn envoy_unit(unit: Unit) -> EnvoyUnit {
    match unit {
        Unit::Second => EnvoyUnit::Second,
        Unit::Minute => EnvoyUnit::Minute,
        Unit::Hour => EnvoyUnit::Hour,
        Unit::Day => EnvoyUnit::Day,
        Unit::Week => EnvoyUnit::Week,
        Unit::Month => EnvoyUnit::Month,
        Unit::Year => EnvoyUnit::Year,
    }
}

/// Envoy's response: a status for each descriptor, header fields for the client, and a body if the request is refused.
/// `now` is the time since 1970 in milliseconds, for the form that says when.
pub fn response(outcome: &Outcome, form: Option<Form>, now: u64) -> RateLimitResponse {
    let limits = limits(outcome);
    let fields = form.and_then(|form| fields::fields(&limits, form, now).ok()).unwrap_or_default();
    let mut headers: Vec<_> = fields.into_iter().map(|(name, value)| header(name, value)).collect();
    let mut raw_body = Vec::new();
    if outcome.refused {
        let problem = super::refusal(outcome);
        headers.push(header("content-type", problem.content_type.to_owned()));
        raw_body = problem.body.into_bytes();
    }
    RateLimitResponse {
        overall_code: code(outcome.refused).into(),
        statuses: outcome.rows.iter().map(|row| status(row, outcome.shadowed)).collect(),
        response_headers_to_add: headers,
        raw_body,
        ..RateLimitResponse::default()
    }
}

fn header(name: &str, value: String) -> HeaderValue {
    HeaderValue { key: name.to_owned(), value, raw_value: Vec::new() }
}

fn code(refused: bool) -> Code {
    if refused { Code::OverLimit } else { Code::Ok }
}

fn status(row: &Row, shadowed: bool) -> DescriptorStatus {
    let unlimited = row.rule.is_some() && row.limit.is_none();
    let current_limit = row.limit.as_ref().map(|limit| RateLimit {
        name: row.rule.as_ref().and_then(|rule| rule.name.clone()).unwrap_or_default(),
        requests_per_unit: saturate(limit.requests),
        unit: match limit.algorithm {
            Algorithm::Concurrency => EnvoyUnit::Unknown,
            _ => envoy_unit(limit.unit),
        }
        .into(),
    });
    // In shadow mode it says OK, as in envoyproxy/ratelimit; what it would have said is in the metrics.
    let over = row.is_refused() && !shadowed && row.mode() != Mode::Shadow;
    DescriptorStatus {
        code: code(over).into(),
        current_limit,
        limit_remaining: match row.verdict {
            Some(verdict) => saturate(verdict.remaining),
            None if unlimited => u32::MAX,
            None => 0,
        },
        duration_until_reset: row.verdict.map(|verdict| {
            // After a denial until a request like it passes: that is what a client needs to know.
            let millis = if verdict.allowed {
                verdict.reset_ms
            } else {
                verdict.wait_ms.unwrap_or(verdict.reset_ms)
            };
            Duration {
                seconds: i64::try_from(millis / 1000).unwrap_or(i64::MAX).min(LONGEST_SECONDS),
                nanos: i32::try_from(millis % 1000 * 1_000_000).unwrap_or(0),
            }
        }),
        quota: None,
    }
}

fn saturate(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
