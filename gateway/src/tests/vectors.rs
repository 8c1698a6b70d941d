//! The cases that every client of redis-rl runs: `clients/vectors.json`.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::fields::{Form, Named, QuotaUnit, fields};
use crate::answer::problem::{Kind, problem};
use crate::decision::Verdict;
use crate::http::original::Original;
use crate::identity::{Header, Identity, IdentityError, Trust, read_address};
use crate::key_part::KeyPart;
use crate::rules::file::Source;

#[derive(Deserialize)]
struct Row {
    case: String,
    input: Value,
    output: Value,
}

/// Runs a group's cases, and says which do not hold, each by its sentence.
fn each(group: &str, least: usize, find: impl Fn(&Value) -> Value) {
    let all: Value = serde_json::from_str(include_str!("../../../clients/vectors.json")).unwrap();
    let rows: Vec<Row> = serde_json::from_value(all[group].clone()).unwrap();
    assert!(rows.len() >= least, "{group} has {} cases, and had {least}", rows.len());
    let mut wrong = Vec::new();
    for row in rows {
        let found = find(&row.input);
        if found != row.output {
            wrong
                .push(format!("{}\n    found:    {found}\n    expected: {}", row.case, row.output));
        }
    }
    assert!(wrong.is_empty(), "{group}:\n{}", wrong.join("\n"));
}

/// Either output of a case: what is found under its name, or the code of the error.
fn either<T: Into<Value>>(name: &str, found: Result<T, &str>) -> Value {
    match found {
        Ok(found) => json!({ name: found.into() }),
        Err(code) => json!({ "error": code }),
    }
}

#[test]
fn identity() {
    each("identity", 57, |input| {
        either("key", identify(input).as_deref().map_err(IdentityError::code))
    });
}

fn identify(input: &Value) -> Result<String, IdentityError> {
    let bits =
        |name: &str, default| input[name].as_u64().map_or(default, |bits| bits.try_into().unwrap());
    let header = match input["header"].as_str() {
        None | Some("x-forwarded-for") => Header::XForwardedFor,
        Some("forwarded") => Header::Forwarded,
        Some(other) => panic!("no header {other}"),
    };
    let identity =
        Identity::new(trust(&input["trust"])?, header, bits("prefix4", 32), bits("prefix6", 64))?;
    let mut headers = HeaderMap::new();
    for pair in input["headers"].as_array().unwrap() {
        let name = HeaderName::from_bytes(pair[0].as_str().unwrap().as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(pair[1].as_str().unwrap()).unwrap());
    }
    let peer =
        input["remote"].as_str().map(|remote| read_address(remote.as_bytes())).transpose()?;
    let lines = headers.get_all(header.name()).iter().map(HeaderValue::as_bytes);
    Ok(format!("ip:{}", identity.client(peer, lines)?))
}

/// As the command line has it.
fn trust(given: &Value) -> Result<Trust, IdentityError> {
    if let Some(count) = given["count"].as_i64() {
        return count.to_string().parse();
    }
    let Some(cidrs) = given["cidrs"].as_array() else { return Ok(Trust::Nobody) };
    cidrs.iter().map(|cidr| cidr.as_str().unwrap()).collect::<Vec<_>>().join(",").parse()
}

#[test]
fn header_fields() {
    each("fields", 33, |input| {
        let limits = limits(input);
        let now = (input["now"].as_f64().unwrap_or_default() * 1000.0).round() as u64;
        let form = input["form"].as_str().unwrap().parse::<Form>();
        let found = form.and_then(|form| fields(&limits, form, now));
        either("fields", found.as_ref().map(|fields| json!(fields)).map_err(|error| error.code()))
    });
}

fn limits(input: &Value) -> Vec<Named<'_>> {
    input["limits"].as_array().unwrap().iter().map(limit).collect()
}

fn limit(given: &Value) -> Named<'_> {
    let number = |at: usize| given["reply"][at].as_i64().unwrap();
    let unit = given["unit"].as_str().unwrap_or("requests");
    Named {
        name: given["name"].as_str().unwrap(),
        verdict: Verdict {
            allowed: number(0) == 1,
            limit: number(1).try_into().unwrap(),
            remaining: number(2).try_into().unwrap(),
            wait_ms: number(3).try_into().ok(),
            reset_ms: number(4).try_into().unwrap(),
        },
        quota: given["quota"].as_u64(),
        window_us: given["window"].as_f64().map(|seconds| (seconds * 1e6).round() as u64),
        unit: named(&QuotaUnit::NAMES, unit),
    }
}

fn named<T: Copy>(names: &[(&str, T)], name: &str) -> T {
    names.iter().find(|(known, _)| *known == name).unwrap().1
}

#[test]
fn problems() {
    each("problem", 4, |input| {
        let kind = named(&Kind::NAMES, input["kind"].as_str().unwrap());
        let found = problem(kind, &limits(input));
        let body: Value = serde_json::from_str(&found.body).unwrap();
        json!({ "status": found.status, "content-type": found.content_type, "body": body })
    });
}

#[test]
fn keys() {
    each("keys", 16, |input| {
        let text = |name: &str| input[name].as_str();
        if let Some(name) = text("name") {
            let (prefix, who) = (text("prefix").unwrap(), text("who").unwrap());
            return json!({ "key": format!("{prefix}:{{{who}}}:{}", KeyPart::plain(name)) });
        }
        let Some(value) = value(text("value").unwrap()) else {
            return json!({ "error": "no-value" });
        };
        let pepper = text("pepper").map(str::as_bytes);
        let secret = input["secret"].as_bool().unwrap_or_default();
        json!({ "key": format!("{}:{}", text("kind").unwrap(), KeyPart::new(&value, secret, pepper)) })
    });
}

/// The value of a client's header, as a descriptor of `/check` has it.
fn value(sent: &str) -> Option<String> {
    let headers = HeaderMap::from_iter([(
        HeaderName::from_static("x-who"),
        HeaderValue::from_str(sent).unwrap(),
    )]);
    let original =
        Original::read(&Method::GET, &Uri::from_static("/check"), &headers, None).unwrap();
    let identity = Identity::new(Trust::Nobody, Header::XForwardedFor, 32, 64).unwrap();
    let check = BTreeMap::from([("who".to_owned(), Source::Header("x-who".to_owned()))]);
    let descriptors = original.descriptors(&[vec!["who".to_owned()]], &check, &identity).unwrap();
    descriptors.into_iter().next().map(|mut descriptor| descriptor.entries.remove(0).value)
}
