//! The keys of limiters.

use std::collections::HashMap;

use proptest::prelude::*;

use super::{descriptor, load, request, style};
use crate::plan::{Plan, Style};
use crate::request::{Descriptor, Entry, Override, Request, Unit};
use crate::rules::{KeyStyle, Rules};

fn key(rules: &Rules, descriptor: Descriptor, style: &Style) -> String {
    let request = Request { descriptors: vec![descriptor], ..request("") };
    let domain = rules.only().unwrap();
    Plan::new(&request, Some(domain), style).unwrap().rows.remove(0).key
}

const RULES: &str = "domain: a b
hash_tag: [tenant, user, tenant]
descriptors:
  - {key: path, rate_limit: {unit: second, requests_per_unit: 5}}
  - {key: 'p:x', rate_limit: {unit: second, requests_per_unit: 5, algorithm: token_bucket}}
  - {key: token, secret: true, rate_limit: {unit: second, requests_per_unit: 5, algorithm: leaky_bucket}}
  - {key: file, value: 'f/*', share_threshold: true, rate_limit: {unit: second, requests_per_unit: 5, algorithm: sliding_window}}
  - key: user
    rate_limit: {unit: second, requests_per_unit: 5, algorithm: sliding_log}
    descriptors:
      - {key: lease, rate_limit: {concurrency: 5, ttl: 60s}}
      - {key: tenant, rate_limit: {unit: second, requests_per_unit: 5}}
  - {key: tenant, rate_limit: {concurrency: 5, ttl: 60s}}
";

const LONG: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
const HASH_OF_LONG: &str = "sha256-9537c5fdf120482f7d58d25e9ed583f5";
const SHA_OF_A: &str = "sha256-ca978112ca1bbdcafac231b39a23dc4d";

#[test]
fn keys_say_the_algorithm_the_domain_and_the_entries() {
    let rules = load(RULES).unwrap();
    let long = "x".repeat(64);
    for (entries, expected) in [
        ("path=/login", "rl:fw:a%20b:path=%2Flogin"),
        ("path=", "rl:fw:a%20b:path="),
        ("path=a:b=c{d}%é", "rl:fw:a%20b:path=a%3Ab%3Dc%7Bd%7D%25%C3%A9"),
        ("path=a-._~@+Z9", "rl:fw:a%20b:path=a-._~@+Z9"),
        (&*format!("path={long}"), &*format!("rl:fw:a%20b:path={long}")),
        (&*format!("path={LONG}"), &*format!("rl:fw:a%20b:path={HASH_OF_LONG}")),
        // One's own value is not the key of the long one above.
        (
            &*format!("path={HASH_OF_LONG}"),
            "rl:fw:a%20b:path=sha256-321fcc028592d75299e06076843591be",
        ),
        ("p:x=1", "rl:tb:a%20b:p%3Ax=1"),
        ("token=a", &*format!("rl:lb:a%20b:token={SHA_OF_A}")),
        ("file=f/1", "rl:sw:a%20b:file=f%2F%2A"),
        ("file=f/2", "rl:sw:a%20b:file=f%2F%2A"),
        ("user=u1", "rl:sl:a%20b:{user=u1}:user=u1"),
        // The value of the last entry is the lease's id.
        ("user=u1 lease=r1", "rl:cc:a%20b:{user=u1}:user=u1:lease"),
        ("user=u1 tenant=t1", "rl:fw:a%20b:{user=u1:tenant=t1}:user=u1:tenant=t1"),
        ("tenant=t1", "rl:cc:a%20b:tenant"),
        ("unknown=1", ""),
    ] {
        assert_eq!(key(&rules, descriptor(entries), &style(false)), expected, "{entries}");
    }
}

/// A limit that the request brings along, where there is no rule.
#[test]
fn an_override_without_a_rule_keeps_what_was_said_of_its_entries() {
    let rules = load(
        "domain: d
descriptors:
  - key: token
    secret: true
    descriptors: [{key: path, value: /x, rate_limit: {unit: second, requests_per_unit: 5}}]
  - {key: file, value: 'f/*', share_threshold: true}
",
    )
    .unwrap();
    let limit = Some(Override { requests_per_unit: 7, unit: Unit::Hour });
    for (entries, expected) in [
        ("token=a path=/x", format!("rl:fw:d:token={SHA_OF_A}:path=%2Fx")),
        ("token=a path=/y", format!("rl:fw:d:token={SHA_OF_A}:path=%2Fy")),
        ("token=a", format!("rl:fw:d:token={SHA_OF_A}")),
        ("token=a b=c d=e", format!("rl:fw:d:token={SHA_OF_A}:b=c:d=e")),
        ("file=f/1", "rl:fw:d:file=f%2F%2A".to_owned()),
        ("unknown=1 token=a", "rl:fw:d:unknown=1:token=a".to_owned()),
    ] {
        let descriptor = Descriptor { limit, ..descriptor(entries) };
        assert_eq!(key(&rules, descriptor, &style(false)), expected, "{entries}");
    }
}

#[test]
fn a_prefix_and_a_pepper_are_part_of_them() {
    let rules = load(RULES).unwrap();
    let keys = KeyStyle { prefix: "p".to_owned(), pepper: Some(b"pepper".to_vec()) };
    let style = Style { keys, ..style(false) };
    assert_eq!(key(&rules, descriptor("path=1"), &style), "p:fw:a%20b:path=1");
    let secret = key(&rules, descriptor("token=a"), &style);
    assert!(secret.starts_with("p:lb:a%20b:token=hmac-") && secret.len() == 54, "{secret}");
}

/// Values that could be taken for others if a part of a key were not escaped.
fn value() -> impl Strategy<Value = String> {
    let awkward = prop::sample::select(vec![
        "", "a", ":", "=", "a=b", "b:c=d", "{", "}", "{a}", "%", "%3A", "*", "f/*", "f/1", " ",
        "\u{0}", "é", "sha256-", "hmac-a",
    ]);
    let hashed = prop::sample::select(vec![LONG, HASH_OF_LONG]);
    prop_oneof![
        awkward.prop_map(str::to_owned),
        hashed.prop_map(str::to_owned),
        "[a-c:={}%*]{0,6}",
        // Long enough for a hash.
        "[ab]{64,66}",
    ]
}

fn injective() -> impl Strategy<Value = Vec<Descriptor>> {
    let entry = (prop::sample::select(vec!["a", "b", "a:=b", "c{"]), value());
    let descriptor = prop::collection::vec(entry, 1..4).prop_map(|entries| Descriptor {
        entries: entries.into_iter().map(|(key, value)| Entry { key: key.into(), value }).collect(),
        ..Descriptor::default()
    });
    prop::collection::vec(descriptor, 2..20)
}

/// The same rules below each key, three levels deep.
fn everywhere() -> Rules {
    let level = |below: &str| {
        let nodes = ["a", "b", "'a:=b'", "'c{'"].map(|key| {
            format!("{{key: {key}, rate_limit: {{unit: second, requests_per_unit: 5}}{below}}}")
        });
        format!("[{}]", nodes.join(", "))
    };
    let third = level("");
    let second = level(&format!(", descriptors: {third}"));
    let first = level(&format!(", descriptors: {second}"));
    load(&format!("domain: d\nhash_tag: [b, 'c{{']\ndescriptors: {first}")).unwrap()
}

#[test]
fn different_descriptors_have_different_keys_and_their_tag_decides_the_slot() {
    let rules = everywhere();
    super::random(512, &injective(), |descriptors| {
        let mut seen = HashMap::new();
        for descriptor in descriptors {
            let key = key(&rules, descriptor.clone(), &style(true));
            let tagged: Vec<_> = descriptor
                .entries
                .iter()
                .filter(|entry| ["b", "c{"].contains(&&*entry.key))
                .collect();
            assert_eq!(
                key.matches(['{', '}']).count(),
                if tagged.is_empty() { 0 } else { 2 },
                "{key}"
            );
            assert!(key.bytes().all(|byte| byte.is_ascii_graphic()), "{key}");
            if let Some(other) = seen.insert(key.clone(), descriptor.entries.clone()) {
                assert_eq!(other, descriptor.entries, "{key}");
            }
        }
    });
}
