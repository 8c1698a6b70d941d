//! What `/check` reads from a gateway's request.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use crate::http::original::{Original, Unclear, domain};
use crate::identity::{Header, Identity};
use crate::request::{Descriptor, Entry};
use crate::rules::file::Source;

/// Headers as they are sent, a line each.
fn headers(lines: &str) -> HeaderMap {
    let pairs = lines.lines().map(|line| line.split_once(':').unwrap());
    pairs
        .map(|(name, value)| {
            (name.parse().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        })
        .collect()
}

/// What the sources of a configuration make of a PUT from a gateway at 10.0.0.1: a text for each descriptor.
fn descriptors(
    templates: &[&[&str]],
    check: &[(&str, Source)],
    uri: &str,
    headers: &HeaderMap,
) -> Result<Vec<String>, Unclear> {
    let templates: Vec<_> =
        templates.iter().map(|keys| keys.iter().map(|&key| key.to_owned()).collect()).collect();
    let check = check
        .iter()
        .map(|(key, source)| ((*key).to_owned(), source.clone()))
        .collect::<BTreeMap<_, _>>();
    let identity = Identity::new("1".parse().unwrap(), Header::XForwardedFor, 32, 64).unwrap();
    let peer = Some("10.0.0.1".parse().unwrap());
    let original = Original::read(&Method::PUT, &uri.parse::<Uri>().unwrap(), headers, peer)?;
    let pair = |entry: &Entry| format!("{}={}", entry.key, entry.value);
    let text = |one: &Descriptor| one.entries.iter().map(pair).collect::<Vec<_>>().join(" ");
    Ok(original.descriptors(&templates, &check, &identity)?.iter().map(text).collect())
}

#[track_caller]
fn has(key: &str, uri: &str, lines: &str, expected: Option<&str>) {
    let found = descriptors(&[&[key]], &[], uri, &headers(lines)).unwrap();
    let expected = Vec::from_iter(expected.map(|value| format!("{key}={value}")));
    assert_eq!(found, expected, "{key} of {uri} with {lines:?}");
}

#[test]
fn what_every_request_has_is_read_from_the_gateways_headers_or_from_its_own_request() {
    for (key, uri, lines, expected) in [
        ("method", "/check", "", Some("PUT")),
        ("method", "/check", "x-forwarded-method: POST", Some("POST")),
        ("method", "/check", "X-Original-Method: POST", Some("POST")),
        ("path", "/check", "", None),
        ("path", "/check?domain=api", "", None),
        ("path", "/check", "X-Forwarded-Uri: /login?next=%2Fhome", Some("/login")),
        ("path", "/check", "X-Original-URI: /login", Some("/login")),
        ("path", "/check/login?next=home", "", Some("/login")),
        ("path", "/check/", "", Some("/")),
        ("host", "/check", "Host: Example.org:8080", Some("example.org")),
        ("host", "http://example.org:8080/check", "", Some("example.org")),
        (
            "host",
            "/check",
            "Host: gateway:8080\nX-Forwarded-Host: example.org",
            Some("example.org"),
        ),
        ("host", "/check", "X-Forwarded-Host: forged.org, example.org", Some("example.org")),
        ("host", "/check", "", None),
        ("remote_address", "/check", "X-Forwarded-For: 1.1.1.1, 203.0.113.9", Some("203.0.113.9")),
        ("remote_address", "/check", "X-Forwarded-For: 2001:db8::1", Some("2001:db8::/64")),
        ("another", "/check", "another: no source names it", None),
    ] {
        has(key, uri, lines, expected);
    }
}

#[test]
fn a_path_that_a_client_writes_in_another_way_is_the_same_path() {
    for (uri, expected) in [
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("/%61/%62", "/a/b"),
        ("//a///b", "/a/b"),
        ("/./a/x/../b", "/a/b"),
        ("/%2e/a/x/%2E%2e/b", "/a/b"),
        ("/../../a/b", "/a/b"),
        ("/a/b/.", "/a/b/"),
        ("/a/b/c/..", "/a/b/"),
        ("/a%2Fb", "/a/b"),
        ("http://example.org/a/b?c", "/a/b"),
        ("http://example.org/", "/"),
        ("/", "/"),
        ("/a://b", "/a:/b"),
        ("/%", "/%"),
        ("/%4", "/%4"),
        ("/%00", "/\0"),
        ("/gr%C3%B6%C3%9Fe", "/größe"),
        ("/größe", "/größe"),
        ("/%FF", "/%FF"),
        ("a/b", "/a/b"),
        ("*", "/*"),
    ] {
        has("path", "/check", &format!("X-Forwarded-Uri: {uri}"), Some(expected));
    }
}

#[test]
fn a_host_that_a_client_writes_in_another_way_is_the_same_host() {
    for host in [
        "example.org",
        "EXAMPLE.org",
        "example.org:443",
        "example.org.",
        "example.org.:443",
        " example.org ",
    ] {
        has("host", "/check", &format!("X-Forwarded-Host: {host}"), Some("example.org"));
    }
    has("host", "/check", "Host: [2001:DB8::1]:8080", Some("[2001:db8::1]"));
    has("host", "/check", "Host: No Host", Some("no host"));
}

#[test]
fn the_configuration_names_headers_parameters_and_cookies() {
    let header = Source::Header("X-User".into());
    let query = Source::Query("plan".into());
    let cookie = Source::Cookie("sid".into());
    for (source, uri, lines, expected) in [
        (&header, "/check", "x-user: 42", Some("42")),
        (&header, "/check", "x-user:  ", None),
        (&header, "/check", "x-user: Jürgen", Some("Jürgen")),
        (&header, "/check", "x-users: 42", None),
        (&query, "/check", "x-forwarded-uri: /?a=b&plan=free&plan=paid", Some("free")),
        (&query, "/check", "x-forwarded-uri: /?pl%61n=a%26b+c", Some("a&b c")),
        (&query, "/check", "x-forwarded-uri: /?plan", None),
        (&query, "/check", "x-forwarded-uri: /plan=free", None),
        (&query, "/check", "x-forwarded-uri: /?plan=%FF", Some("\u{fffd}")),
        (&query, "/check/login?plan=free", "", Some("free")),
        (&query, "/check?plan=free", "", None),
        (&cookie, "/check", "cookie: a=b; sid=42; sid=43", Some("42")),
        (&cookie, "/check", "cookie: a=b\ncookie: sid=42", Some("42")),
        (&cookie, "/check", "cookie: sid=\"42\"", Some("42")),
        (&cookie, "/check", "cookie: asid=1;sid=4=2", Some("4=2")),
        (&cookie, "/check", "cookie: sid", None),
        (&cookie, "/check", "cookie: sid=", None),
    ] {
        let found =
            descriptors(&[&["key"]], &[("key", source.clone())], uri, &headers(lines)).unwrap();
        let expected = Vec::from_iter(expected.map(|value| format!("key={value}")));
        assert_eq!(found, expected, "{source:?} of {uri} with {lines:?}");
    }
    let found = descriptors(
        &[&["host"]],
        &[("host", header)],
        "/check",
        &headers("host: example.org\nx-user: 42"),
    );
    assert_eq!(
        found.unwrap(),
        ["host=42"],
        "what the configuration names comes before what every request has"
    );
}

#[test]
fn bytes_that_are_no_text_are_escaped_and_so_different_ones_stay_different() {
    for (value, expected) in
        [(&b"\xfc"[..], "%FC"), (b"\xf6", "%F6"), (b"a\xff=\xfe/", "a%FF=%FE/"), (b"\xc3\xbc", "ü")]
    {
        let mut headers = HeaderMap::new();
        for name in ["x-user", "x-forwarded-method", "x-forwarded-uri", "x-forwarded-host"] {
            headers.insert(name, HeaderValue::from_bytes(value).unwrap());
        }
        let source = [("user", Source::Header("x-user".into()))];
        let found = descriptors(&[&["user"], &["method"]], &source, "/check", &headers).unwrap();
        assert_eq!(found, [format!("user={expected}"), format!("method={expected}")]);
        assert_eq!(descriptors(&[&["path"], &["host"]], &[], "/check", &headers).unwrap().len(), 2);
    }
}

#[test]
fn headers_that_say_different_things_are_an_error_for_one_of_them_is_the_clients() {
    let user = [("user", Source::Header("x-user".into()))];
    for (lines, names) in [
        ("x-forwarded-uri: /a\nx-original-uri: /b", "x-forwarded-uri and x-original-uri"),
        ("x-forwarded-uri: /a\nx-forwarded-uri: /b", "x-forwarded-uri and x-original-uri"),
        ("x-forwarded-method: A\nx-original-method: B", "x-forwarded-method and x-original-method"),
        ("x-forwarded-host: a\nx-forwarded-host: b", "x-forwarded-host"),
        ("host: a\nhost: b", "host"),
        ("x-user: a\nx-user: b", "x-user"),
    ] {
        let found = descriptors(&[&["user"]], &user, "/check", &headers(lines));
        assert_eq!(found, Err(Unclear::Disagree(names.into())), "{lines:?}");
    }
    has("path", "/check", "x-forwarded-uri: /a\nx-original-uri: /a", Some("/a"));
    has("path", "/check", "x-forwarded-uri:\nx-original-uri: /a", Some("/a"));
    has("path", "/check/b", "x-forwarded-uri: /a", Some("/b"));
}

#[test]
fn there_is_a_descriptor_for_each_path_of_keys_that_has_all_its_values() {
    let templates: &[&[&str]] = &[&["user"], &["user", "path"], &["plan", "user"], &["method"]];
    let check = [("user", Source::Header("x-user".into())), ("plan", Source::Query("plan".into()))];
    for (lines, expected) in [
        ("", &["method=PUT"][..]),
        ("x-user: 42", &["user=42", "method=PUT"]),
        (
            "x-user: 42\nx-forwarded-uri: /a?plan=free",
            &["user=42", "user=42 path=/a", "plan=free user=42", "method=PUT"],
        ),
    ] {
        assert_eq!(
            descriptors(templates, &check, "/check", &headers(lines)).unwrap(),
            expected,
            "{lines:?}"
        );
    }
}

#[test]
fn an_address_that_cannot_be_told_is_an_error_if_a_rule_needs_it() {
    let none =
        HeaderMap::from_iter([(HeaderName::from_static("x-user"), HeaderValue::from_static("42"))]);
    assert_eq!(descriptors(&[&["method"]], &[], "/check", &none).unwrap(), ["method=PUT"]);
    let error = descriptors(&[&["method"], &["remote_address"]], &[], "/check", &none).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the client's address cannot be told: a trusted proxy sends no x-forwarded-for"
    );
}

#[test]
fn a_domain_is_named_by_the_gateway_alone() {
    for (uri, expected) in [
        ("/check?domain=api", Some("api")),
        ("/check?a=b&domain=my%20api", Some("my api")),
        ("/check", None),
        ("/check/login?domain=api", None),
    ] {
        assert_eq!(domain(&uri.parse().unwrap()).as_deref(), expected, "{uri}");
    }
}
