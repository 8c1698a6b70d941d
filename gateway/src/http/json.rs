//! Envoy's messages as JSON, by the rules that protobuf has for that: names in camelCase or as in the `.proto` file, numbers
//! that may stand in quotes, a duration like `"1.500s"`.
//!
//! ```json
//! {"domain": "api", "descriptors": [{"entries": [{"key": "user", "value": "42"}], "hitsAddend": 2}]}
//! {"overallCode": "OK", "statuses": [{"code": "OK", "limitRemaining": 3, "durationUntilReset": "60s",
//!     "currentLimit": {"requestsPerUnit": 5, "unit": "MINUTE"}}]}
//! ```
//!
//! A name that the message has not is an error: it is a typing error, and what it was meant to limit would pass.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::service::ratelimit::v3::RateLimitResponse;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit as EnvoyUnit;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::{
    DescriptorStatus, RateLimit,
};
use envoy_types::pb::google::protobuf::Duration;
use serde::de::Unexpected;
use serde::{Deserialize, Deserializer, Serialize};

use crate::answer::envoy::unit_of;
use crate::request::{Descriptor, Entry, Override, Request, Unit};

/// Reads a request.
///
/// # Errors
/// It is no JSON, or not this message: with line and column.
pub fn read(body: &[u8]) -> serde_json::Result<Request> {
    serde_json::from_slice::<RequestJson>(body).map(Request::from)
}

/// Writes a response.
///
/// # Errors
/// None that a response could cause.
pub fn write(response: &RateLimitResponse) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&ResponseJson::from(response))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a RateLimitRequest: an object")]
struct RequestJson {
    domain: Option<String>,
    descriptors: Option<Vec<DescriptorJson>>,
    #[serde(default, alias = "hits_addend", deserialize_with = "uint32")]
    hits_addend: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a descriptor: an object")]
struct DescriptorJson {
    entries: Option<Vec<EntryJson>>,
    limit: Option<OverrideJson>,
    #[serde(default, alias = "hits_addend", deserialize_with = "uint64_value")]
    hits_addend: Option<u64>,
    #[serde(alias = "is_negative_hits")]
    is_negative_hits: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an entry: an object with key and value")]
struct EntryJson {
    key: Option<String>,
    value: Option<String>,
}

#[derive(Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a limit: an object with requestsPerUnit and unit"
)]
struct OverrideJson {
    #[serde(default, alias = "requests_per_unit", deserialize_with = "uint32")]
    requests_per_unit: u32,
    #[serde(deserialize_with = "unit")]
    unit: Unit,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a whole number from 0, with or without quotes")]
enum Number {
    Plain(u64),
    Quoted(String),
}

/// protobuf writes a `UInt64Value` as its number. Its fields are taken as well, since that is what the message looks like.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a whole number from 0, with or without quotes")]
enum Wrapped {
    Number(Number),
    Message(Value),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Value {
    value: Number,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "SECOND, MINUTE, HOUR, DAY, WEEK, MONTH or YEAR")]
enum UnitJson {
    Name(String),
    Number(i32),
}

impl Number {
    fn read<E: serde::de::Error>(&self) -> Result<u64, E> {
        match self {
            Self::Plain(number) => Ok(*number),
            Self::Quoted(text) => text.parse().map_err(|_| {
                E::custom(format_args!("a whole number from 0 to 2^64-1, not {text:?}"))
            }),
        }
    }
}

fn uint32<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let Some(number) = Option::<Number>::deserialize(from)? else { return Ok(0) };
    let number = number.read()?;
    u32::try_from(number).map_err(|_| {
        serde::de::Error::custom(format_args!("a whole number from 0 to 2^32-1, not {number}"))
    })
}

fn uint64_value<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let number = match Option::<Wrapped>::deserialize(from)? {
        None => return Ok(None),
        Some(Wrapped::Number(number) | Wrapped::Message(Value { value: number })) => number,
    };
    number.read().map(Some)
}

fn unit<'de, D: Deserializer<'de>>(from: D) -> Result<Unit, D::Error> {
    let read = UnitJson::deserialize(from)?;
    let known = match &read {
        UnitJson::Name(name) => EnvoyUnit::from_str_name(name),
        UnitJson::Number(number) => EnvoyUnit::try_from(*number).ok(),
    };
    known.and_then(unit_of).ok_or_else(|| match read {
        UnitJson::Name(name) => serde::de::Error::invalid_value(
            Unexpected::Str(&name),
            &"SECOND, MINUTE, HOUR, DAY, WEEK, MONTH or YEAR",
        ),
        UnitJson::Number(number) => serde::de::Error::invalid_value(
            Unexpected::Signed(number.into()),
            &"SECOND, MINUTE, HOUR, DAY, WEEK, MONTH or YEAR",
        ),
    })
}

impl From<RequestJson> for Request {
    fn from(json: RequestJson) -> Self {
        Self {
            domain: json.domain.unwrap_or_default(),
            descriptors: json
                .descriptors
                .unwrap_or_default()
                .into_iter()
                .map(Descriptor::from)
                .collect(),
            // In this message 0 is what is not set.
            hits: Some(json.hits_addend.into()).filter(|&hits| hits > 0),
        }
    }
}

impl From<DescriptorJson> for Descriptor {
    fn from(json: DescriptorJson) -> Self {
        let entry = |entry: EntryJson| Entry {
            key: entry.key.unwrap_or_default(),
            value: entry.value.unwrap_or_default(),
        };
        let limit = |limit: OverrideJson| Override {
            requests_per_unit: limit.requests_per_unit,
            unit: limit.unit,
        };
        Self {
            entries: json.entries.unwrap_or_default().into_iter().map(entry).collect(),
            limit: json.limit.map(limit),
            hits: json.hits_addend,
            negative: json.is_negative_hits.unwrap_or_default(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResponseJson<'a> {
    overall_code: &'static str,
    statuses: Vec<StatusJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    response_headers_to_add: Vec<HeaderJson<'a>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    raw_body: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusJson<'a> {
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_limit: Option<LimitJson<'a>>,
    limit_remaining: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_until_reset: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LimitJson<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    requests_per_unit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'static str>,
}

#[derive(Serialize)]
struct HeaderJson<'a> {
    key: &'a str,
    value: &'a str,
}

impl<'a> From<&'a RateLimitResponse> for ResponseJson<'a> {
    fn from(response: &'a RateLimitResponse) -> Self {
        Self {
            overall_code: response.overall_code().as_str_name(),
            statuses: response.statuses.iter().map(StatusJson::from).collect(),
            response_headers_to_add: response
                .response_headers_to_add
                .iter()
                .map(HeaderJson::from)
                .collect(),
            raw_body: BASE64.encode(&response.raw_body),
        }
    }
}

impl<'a> From<&'a DescriptorStatus> for StatusJson<'a> {
    fn from(status: &'a DescriptorStatus) -> Self {
        Self {
            code: status.code().as_str_name(),
            current_limit: status.current_limit.as_ref().map(LimitJson::from),
            limit_remaining: status.limit_remaining,
            duration_until_reset: status.duration_until_reset.as_ref().map(duration),
        }
    }
}

impl<'a> From<&'a RateLimit> for LimitJson<'a> {
    fn from(limit: &'a RateLimit) -> Self {
        let unit = limit.unit();
        Self {
            name: &limit.name,
            requests_per_unit: limit.requests_per_unit,
            unit: (unit != EnvoyUnit::Unknown).then(|| unit.as_str_name()),
        }
    }
}

impl<'a> From<&'a HeaderValue> for HeaderJson<'a> {
    fn from(header: &'a HeaderValue) -> Self {
        Self { key: &header.key, value: &header.value }
    }
}

/// Seconds with no decimals or three, for we know milliseconds.
fn duration(time: &Duration) -> String {
    match time.nanos / 1_000_000 {
        0 => format!("{}s", time.seconds),
        millis => format!("{}.{millis:03}s", time.seconds),
    }
}
