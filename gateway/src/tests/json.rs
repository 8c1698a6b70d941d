//! Envoy's messages as JSON.

use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::service::ratelimit::v3::RateLimitResponse;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit as EnvoyUnit;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::{
    Code, DescriptorStatus, RateLimit,
};
use envoy_types::pb::google::protobuf::Duration;

use crate::http::json::{read, write};
use crate::request::{Descriptor, Entry, Override, Request, Unit};

fn descriptor(json: &str) -> Descriptor {
    let request = read(format!(r#"{{"domain": "d", "descriptors": [{json}]}}"#).as_bytes());
    request
        .map(|mut request| request.descriptors.remove(0))
        .unwrap_or_else(|error| panic!("{json}: {error}"))
}

#[test]
fn a_request_is_read_in_camel_case_and_as_the_proto_file_names_it() {
    let expected = Request {
        domain: "api".into(),
        descriptors: vec![Descriptor {
            entries: vec![
                Entry { key: "user".into(), value: "42".into() },
                Entry { key: "path".into(), value: String::new() },
            ],
            limit: Some(Override { requests_per_unit: 7, unit: Unit::Week }),
            hits: Some(0),
            negative: true,
        }],
        hits: Some(3),
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
    assert_eq!(read(json.as_bytes()).unwrap(), Request::default());
    let json = r#"{"entries": [{"key": null, "value": null}], "limit": null, "hitsAddend": null, "isNegativeHits": null}"#;
    assert_eq!(
        descriptor(json),
        Descriptor { entries: vec![Entry::default()], ..Descriptor::default() }
    );
    let limit = descriptor(r#"{"limit": {"requestsPerUnit": null, "unit": "DAY"}}"#).limit;
    assert_eq!(limit, Some(Override { requests_per_unit: 0, unit: Unit::Day }));
}

#[test]
fn hits_of_a_request_are_not_set_if_they_are_0_and_those_of_a_descriptor_are() {
    assert_eq!(read(br#"{"hitsAddend": 0}"#).unwrap().hits, None);
    assert_eq!(descriptor(r#"{"hitsAddend": 0}"#).hits, Some(0));
    assert_eq!(descriptor("{}").hits, None);
}

#[test]
fn hits_of_a_descriptor_are_a_number_in_any_of_its_forms() {
    for json in [
        "18446744073709551615",
        r#""18446744073709551615""#,
        r#"{"value": "18446744073709551615"}"#,
    ] {
        assert_eq!(
            descriptor(&format!(r#"{{"hitsAddend": {json}}}"#)).hits,
            Some(u64::MAX),
            "{json}"
        );
    }
}

#[test]
fn a_unit_of_time_is_a_name_or_its_number() {
    for (name, number, unit) in [
        ("SECOND", 1, Unit::Second),
        ("MINUTE", 2, Unit::Minute),
        ("HOUR", 3, Unit::Hour),
        ("DAY", 4, Unit::Day),
        ("MONTH", 5, Unit::Month),
        ("YEAR", 6, Unit::Year),
        ("WEEK", 7, Unit::Week),
    ] {
        let expected = Some(Override { requests_per_unit: 0, unit });
        assert_eq!(descriptor(&format!(r#"{{"limit": {{"unit": "{name}"}}}}"#)).limit, expected);
        assert_eq!(descriptor(&format!(r#"{{"limit": {{"unit": {number}}}}}"#)).limit, expected);
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
        (
            r#"{"descriptors": [{"limit": {"unit": "minute"}}]}"#,
            r#"string "minute", expected SECOND, MINUTE, HOUR"#,
        ),
        (
            r#"{"descriptors": [{"limit": {"unit": "UNKNOWN"}}]}"#,
            r#"string "UNKNOWN", expected SECOND"#,
        ),
        (r#"{"descriptors": [{"limit": {"unit": 8}}]}"#, "integer `8`, expected SECOND"),
        (r#"{"descriptors": [{"limit": {"unit": []}}]}"#, "SECOND, MINUTE"),
        (
            r#"{"descriptors": [{"limit": {"requestsPerUnit": 5}}]}"#,
            "missing field `unit` at line 1 column",
        ),
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
    let limit =
        RateLimit { requests_per_unit: 5, unit: EnvoyUnit::Minute.into(), name: "login".into() };
    let leases =
        RateLimit { requests_per_unit: 2, unit: EnvoyUnit::Unknown.into(), name: String::new() };
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
