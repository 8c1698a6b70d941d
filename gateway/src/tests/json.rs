//! Envoy's messages as JSON.

use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::{
    Entry, RateLimitOverride,
};
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::{
    Code, DescriptorStatus, RateLimit,
};
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use envoy_types::pb::google::protobuf::{Duration, UInt64Value};

use crate::http::json::{read, write};

/// What is read is compared as what it means.
fn descriptor(json: &str) -> RateLimitDescriptor {
    let request = read(format!(r#"{{"domain": "d", "descriptors": [{json}]}}"#).as_bytes());
    request
        .map(|mut request| request.descriptors.remove(0))
        .unwrap_or_else(|error| panic!("{json}: {error}"))
}

#[test]
fn a_request_is_read_in_camel_case_and_as_the_proto_file_names_it() {
    let expected = RateLimitRequest {
        domain: "api".into(),
        descriptors: vec![RateLimitDescriptor {
            entries: vec![
                Entry { key: "user".into(), value: "42".into() },
                Entry { key: "path".into(), value: String::new() },
            ],
            limit: Some(RateLimitOverride { requests_per_unit: 7, unit: Unit::Week.into() }),
            hits_addend: Some(UInt64Value { value: 0 }),
            is_negative_hits: true,
        }],
        hits_addend: 3,
    };
    for json in [
        r#"{"domain": "api", "hitsAddend": 3, "descriptors": [{"entries": [{"key": "user", "value": "42"}, {"key": "path"}],
            "limit": {"requestsPerUnit": 7, "unit": "WEEK"}, "hitsAddend": 0, "isNegativeHits": true}]}"#,
        r#"{"domain": "api", "hits_addend": "3", "descriptors": [{"entries": [{"key": "user", "value": "42"}, {"key": "path"}],
            "limit": {"requests_per_unit": "7", "unit": 7}, "hits_addend": "0", "is_negative_hits": true}]}"#,
    ] {
        assert_eq!(read(json.as_bytes()).unwrap(), expected, "{json}");
    }
}

#[test]
fn null_is_a_field_that_is_not_set() {
    let json = r#"{"domain": null, "descriptors": null, "hitsAddend": null}"#;
    assert_eq!(read(json.as_bytes()).unwrap(), RateLimitRequest::default());
    let json = r#"{"entries": [{"key": null, "value": null}], "limit": null, "hitsAddend": null, "isNegativeHits": null}"#;
    let expected =
        RateLimitDescriptor { entries: vec![Entry::default()], ..RateLimitDescriptor::default() };
    assert_eq!(descriptor(json), expected);
    let limit = descriptor(r#"{"limit": {"requestsPerUnit": null, "unit": null}}"#).limit;
    assert_eq!(limit, Some(RateLimitOverride::default()));
}

#[test]
fn hits_of_a_descriptor_are_a_number_in_any_of_its_forms() {
    for json in [
        "18446744073709551615",
        r#""18446744073709551615""#,
        r#"{"value": "18446744073709551615"}"#,
    ] {
        let hits = descriptor(&format!(r#"{{"hitsAddend": {json}}}"#)).hits_addend;
        assert_eq!(hits, Some(UInt64Value { value: u64::MAX }), "{json}");
    }
}

#[test]
fn what_is_not_this_message_is_refused_with_the_reason_and_the_place() {
    for (json, reason) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("[]", "expected a RateLimitRequest: an object at line 1"),
        ("{\"domain\": \"\u{1}\"}", "control character"),
        (
            r#"{"domian": "d"}"#,
            "unknown field `domian`, expected one of `domain`, `descriptors`, `hitsAddend`",
        ),
        (r#"{"domain": 1}"#, "invalid type: integer `1`, expected a string"),
        (r#"{"domain": "d", "domain": "e"}"#, "duplicate field `domain`"),
        (r#"{"hitsAddend": 1, "hits_addend": 2}"#, "duplicate field `hitsAddend`"),
        (r#"{"hitsAddend": -1}"#, "a whole number from 0"),
        (r#"{"hitsAddend": 1.5}"#, "a whole number from 0"),
        (r#"{"hitsAddend": "x"}"#, r#"a whole number from 0 to 2^64-1, not "x""#),
        (r#"{"hitsAddend": 4294967296}"#, "a whole number from 0 to 2^32-1, not 4294967296"),
        (r#"{"descriptors": [{"hitsAddend": {"valeu": 1}}]}"#, "a whole number from 0"),
        (
            r#"{"descriptors": [{"entries": [{"key": "a", "values": "b"}]}]}"#,
            "unknown field `values`",
        ),
        (
            r#"{"descriptors": [{"entries": ["a"]}]}"#,
            "expected an entry: an object with key and value",
        ),
        (r#"{"descriptors": [{"limit": {"unit": "minute"}}]}"#, r#"MONTH or YEAR, not "minute""#),
        (r#"{"descriptors": [{"limit": {"unit": []}}]}"#, "a unit of time: SECOND"),
        (r#"{"domain": "d"} {}"#, "trailing characters at line 1 column 17"),
    ] {
        let error = read(json.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(reason), "{json}: {error}");
    }
    assert!(read(b"{\"domain\": \"\xff\"}").unwrap_err().to_string().contains("invalid unicode"));
    assert!(read("[".repeat(60_000).as_bytes()).is_err());
    assert!(read(format!("{{\"descriptors\": {}", "[".repeat(60_000)).as_bytes()).is_err());
}

#[test]
fn a_response_has_what_is_known_and_no_more() {
    let limit = RateLimit { requests_per_unit: 5, unit: Unit::Minute.into(), name: "login".into() };
    let leases =
        RateLimit { requests_per_unit: 2, unit: Unit::Unknown.into(), name: String::new() };
    let status =
        |code: Code, current_limit, limit_remaining, millis: Option<i64>| DescriptorStatus {
            code: code.into(),
            current_limit,
            limit_remaining,
            duration_until_reset: millis.map(|millis| Duration {
                seconds: millis / 1000,
                nanos: i32::try_from(millis % 1000 * 1_000_000).unwrap(),
            }),
            quota: None,
        };
    let response = RateLimitResponse {
        overall_code: Code::OverLimit.into(),
        statuses: vec![
            status(Code::OverLimit, Some(limit), 0, Some(12_000)),
            status(Code::Ok, Some(leases), 1, Some(1_050)),
            status(Code::Ok, None, 0, None),
        ],
        response_headers_to_add: vec![HeaderValue {
            key: "Retry-After".into(),
            value: "12".into(),
            raw_value: Vec::new(),
        }],
        raw_body: b"{}".to_vec(),
        ..RateLimitResponse::default()
    };
    let expected = serde_json::json!({
        "overallCode": "OVER_LIMIT",
        "statuses": [
            {"code": "OVER_LIMIT", "currentLimit": {"name": "login", "requestsPerUnit": 5, "unit": "MINUTE"},
                "limitRemaining": 0, "durationUntilReset": "12s"},
            {"code": "OK", "currentLimit": {"requestsPerUnit": 2}, "limitRemaining": 1, "durationUntilReset": "1.050s"},
            {"code": "OK", "limitRemaining": 0},
        ],
        "responseHeadersToAdd": [{"key": "Retry-After", "value": "12"}],
        "rawBody": "e30=",
    });
    let found: serde_json::Value = serde_json::from_slice(&write(&response).unwrap()).unwrap();
    assert_eq!(found, expected);
    let nothing =
        write(&RateLimitResponse { overall_code: Code::Ok.into(), ..RateLimitResponse::default() });
    assert_eq!(nothing.unwrap(), br#"{"overallCode":"OK","statuses":[]}"#);
}
